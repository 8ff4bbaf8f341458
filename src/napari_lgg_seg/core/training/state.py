"""The state of a training on disk, from which it resumes as if it had never stopped.

Everything random follows from the seed, the epoch and the step, so that no random generator needs saving.
"""

from __future__ import annotations

import dataclasses
from glob import escape
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from ..atomic import replacing
from ..errors import TrainingError
from .options import TrainOptions
from .paths import state_file, state_folder

if TYPE_CHECKING:
    from .run import Run

#: What trainings did before there was an option for it, where that is not its default.
_BEFORE = {"optimiser": "adamw"}
#: Options that version 0.1.0 had besides, with the value that is all there is now.
_REMOVED = {"freeze_encoder": False, "draw": "slices", "crop_share": 0.0}


def save_state(run: Run, path: Path) -> None:
    """Write everything that a resumed training needs, atomically.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written; the old state stays as it was.
    """
    import torch

    with replacing(path) as temporary:
        try:
            torch.save(_plain(run.state()), temporary)
        except RuntimeError as error:  # this is how torch reports a full disk
            raise OSError(str(error).splitlines()[0]) from error


def load_state(run: Run, path: Path) -> bool:
    """Resume from the state on disk, if there is one.

    Returns
    -------
    bool
        Whether there is one.

    Raises
    ------
    TrainingError
        If it is damaged, or of a training with other patients or options.
    """
    import torch

    if not run.processes.from_main(path.is_file()):
        return False
    try:
        # Machines may share no disk: the main process reads for all.
        state = run.processes.from_main(
            torch.load(path, map_location="cpu", weights_only=True) if run.processes.is_main else None
        )
        assert state is not None
        _check_same(run, state, path)
        run.take_state(state)
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, UnpicklingError) as error:
        raise TrainingError(f"{path} is damaged; remove it and start the training anew.") from error
    return True


def _check_same(run: Run, state: dict[str, Any], path: Path) -> None:
    if state["split"] != _plain(run.split()):
        raise TrainingError(
            f"{path} is of a training with other patients; resume with the same cohort "
            "and split, or choose another output."
        )
    before, now = state["options"], _plain(dataclasses.asdict(run.options))
    for name, only in _REMOVED.items():
        if before.get(name, only) != only:
            raise TrainingError(
                f"{path} is of a training with {name.replace('_', ' ')} {before[name]}, which this version "
                "no longer has; finish it with version 0.1.0, or choose another output."
            )
    for field in dataclasses.fields(TrainOptions):
        # An option newer than the state had its default.
        then = before.get(field.name, _BEFORE.get(field.name, field.default))
        if not field.metadata["may_change"] and then != now[field.name]:
            raise TrainingError(
                f"{path} is of a training with {field.name.replace('_', ' ')} {then}, not "
                f"{now[field.name]}; resume with the same options, or choose another output."
            )
    size, wanted = state["preprocess"]["working_size"], run.initial.preprocess.working_size
    if state["preprocess"] != dataclasses.asdict(run.initial.preprocess):
        raise TrainingError(
            f"{path} is of a training with another preprocessing (working size {size}, not {wanted}); resume "
            "with the same, or choose another output."
        )


def _plain(value: Any) -> Any:
    """Tuples as lists, which is how they come back from a file."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def remove_leftovers(output: Path) -> None:
    """Remove the temporary files of a training that was killed while writing."""
    for path in (output, state_file(output), state_folder(output) / "history.csv"):
        for leftover in path.parent.glob(f".{escape(path.name)}.*.tmp"):
            leftover.unlink(missing_ok=True)
