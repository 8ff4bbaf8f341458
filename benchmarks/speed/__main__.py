"""``python benchmarks/speed``: see :mod:`speed.app`."""

import sys
from pathlib import Path

# Python puts the folder that it runs on its path; the package and `results` are one level above.
sys.path[0] = str(Path(__file__).parents[1])

from speed.app import app  # noqa: E402

if __name__ == "__main__":
    app()
