"""A child process of :mod:`speed.rounds`; not meant to be run by hand.

It builds the methods that a function returns and then reads the index of a method from each line of standard
input, runs that method, and writes its result to standard output as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any


def main(mode: str, function: str, options: str) -> None:
    """Serve the methods that a function returns ("serve"), or call the function once ("call")."""
    # Whatever libraries print goes to standard error, so that standard output holds nothing but results.
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # before a traceback, not after it

    def reply(content: Any) -> None:
        results.write(json.dumps(content) + "\n")
        results.flush()

    module, _, name = function.partition(":")
    returned = getattr(importlib.import_module(module), name)(**json.loads(options))
    if mode == "call":
        reply(returned)
        return
    for method in returned:  # warm-up: compiles, allocates, fills caches
        method()
    reply("ready")
    for line in sys.stdin:
        reply(returned[int(line)]())


if __name__ == "__main__":
    main(*sys.argv[1:])
