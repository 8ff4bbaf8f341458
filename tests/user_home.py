"""Run code in a fresh Python, as for a new user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def at_home(tmp_path, *path):
    """Environment of a new user, with a home in the test's folder and no sign of CI."""
    removed = ("CI", "TF_BUILD", "JENKINS_URL")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    home = str(tmp_path / "home")
    Path(home).mkdir()
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA"), home)
    paths = [*map(str, path), str(Path(__file__).parent), *sys.path]
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}


def python(code, tmp_path, *path):
    """Run code in a fresh Python in such an environment."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=at_home(tmp_path, *path),
    )
