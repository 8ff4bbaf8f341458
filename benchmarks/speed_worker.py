"""A process that serves ways to do something to :mod:`speed_turns`; not to be run by hand.

Reads the number of a way from each line of its standard input and answers with what that took, as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any


def main(word: str, function: str, options: str) -> None:
    """Serve what a function makes, or call it once."""
    # What libraries print goes to standard error; the answers alone to standard output.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    module, _, name = function.partition(":")
    made = getattr(importlib.import_module(module), name)(**json.loads(options))
    if word == "call":
        answer(made)
        return
    for way in made:  # compiles, allocates, reads caches
        way()
    answer("ready")
    for line in sys.stdin:
        answer(made[int(line)]())


if __name__ == "__main__":
    main(*sys.argv[1:])
