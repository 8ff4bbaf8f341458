"""Names of earlier versions: commands and options that were renamed or removed still work, with a warning."""

from __future__ import annotations

from collections.abc import Sequence

#: Commands, and what they are called now.
COMMANDS = {"quick-look": "calibrate-coarse"}

#: Options by command, and what they are called now; those that end in "=" take a value.
OPTIONS: dict[str, dict[str, str]] = {
    "segment": {"--thorough": "--full-resolution"},
    "train": {
        f"--{name.replace('_', '-')}": f"--set {name}="
        for name in (
            "neighbouring_slices",
            "slices_per_epoch",
            "optimiser",
            "validate_every",
            "average_decay",
            "tumour_share",
            "small_size",
            "small_share",
            "augmentation",
        )
    },
}

#: Options by command that have no effect any more, and whether they took a value.
REMOVED: dict[str, dict[str, bool]] = {
    "train": {"--freeze-encoder": False, "--crop-share": True, "--draw": True}
}

#: Values by command and option that were removed, and what is used instead.
VALUES: dict[str, dict[str, dict[str, str]]] = {"segment": {"--engine": {"torch-compile": "torch"}}}


def translated(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments of an earlier version as they are now, and a warning for each that changed.

    Parameters
    ----------
    arguments : sequence of str
        Those after the program's name, the command first.
    """
    if not arguments:
        return [], []
    command, *rest = arguments
    result, warnings = [COMMANDS.get(command, command)], []
    if command in COMMANDS:
        warnings.append(f"The command {command} is now called {COMMANDS[command]}.")
    renamed, removed, values = OPTIONS.get(command, {}), REMOVED.get(command, {}), VALUES.get(command, {})
    words = iter(rest)
    for word in words:
        if word == "--":
            return [*result, word, *words], warnings
        name, equals, value = word.partition("=")
        if name not in {*renamed, *removed, *values}:
            result.append(word)
            continue
        if not equals and (renamed.get(name, "").endswith("=") or removed.get(name) or name in values):
            value = next(words, "")
        if name in renamed:
            result += f"{renamed[name]}{value}".split(" ", 1)
            before = f"{name} {value}" if renamed[name].endswith("=") else name
            warnings.append(f"{before} is now {renamed[name]}{value}.")
        elif name in removed:
            warnings.append(f"{name} was removed and has no effect.")
        else:
            instead = values[name].get(value, value)
            result += [name, instead]
            if instead != value:
                warnings.append(f"{name} {value} was removed; {instead} is used instead.")
    return result, warnings
