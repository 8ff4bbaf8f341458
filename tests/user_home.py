"""Run code in a fresh Python as a new user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def at_home(tmp_path, *path):
    """The environment of a user who has just come, with a home in the test's folder."""
    asked = ("CI", "TF_BUILD", "JENKINS_URL")
    environment = {name: value for name, value in os.environ.items() if name not in asked}
    home = str(tmp_path / "home")
    Path(home).mkdir()
    environment |= dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA"), home)
    places = [*map(str, path), str(Path(__file__).parent), *sys.path]
    return environment | {"PYTHONPATH": os.pathsep.join(places)}


def python(code, tmp_path, *path):
    """Run code in a fresh Python, as at a user's: not known as CI, and without a consent on file."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=at_home(tmp_path, *path),
    )
