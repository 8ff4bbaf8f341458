"""Saving and loading the state of a training, from which it resumes as if it had never stopped.

Everything random follows from seed, epoch and step, so that no random generators need saving.
"""

from __future__ import annotations

import dataclasses
import io
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from ..atomic import remove_temporaries, replacing
from ..errors import TrainingError
from ..model.preprocess import Normalisation, PreprocessOptions, with_normalisation
from .options import TrainOptions
from .paths import state_file, state_folder

if TYPE_CHECKING:
    from .run import Run

#: What trainings did before an option existed, where it is not the option's default.
_BEFORE = {"optimiser": "adamw"}
#: Options that were removed after version 0.1.0, with the only value that can still be resumed.
_REMOVED = {"freeze_encoder": False, "draw": "slices", "crop_share": 0.0}
#: Values that were removed after version 0.1.0.
_REMOVED_VALUES = {"loss": ("bce+tversky",)}


def save_state(run: Run, path: Path) -> None:
    """Write everything that a resumed training needs, atomically.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written; the old state is left untouched.
    DeviceError
        If the device fails.
    """
    import torch

    content = io.BytesIO()
    try:
        torch.save(_plain(run.state_dict()), content)
    except RuntimeError as error:  # the device failed
        raise run.learner.failure(error) from error
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())  # Python's errors say why a file cannot be written


def load_state(run: Run, path: Path) -> bool:
    """Resume from the state on disk, if there is one.

    Returns
    -------
    bool
        Whether there is one.

    Raises
    ------
    TrainingError
        If it is damaged, or belongs to a training with other patients or options.
    """
    import torch

    if not run.processes.from_main(path.is_file()):
        return False
    try:
        # The main process reads for all: machines may share no disk.
        state = run.processes.from_main(
            torch.load(path, map_location="cpu", weights_only=True) if run.processes.is_main else None
        )
        assert state is not None
        _check_same(run, state, path)
        run.load_state_dict(state)
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, UnpicklingError) as error:
        raise TrainingError(f"{path} is damaged; remove it and start the training again.") from error
    return True


def saved_normalisation(path: Path) -> Normalisation | None:
    """The normalisation of the training whose state is on disk; None if there is none that can be read.

    A training from scratch of version 0.1.0 is resumed with the normalisation that it started with.
    """
    import torch

    with suppress(Exception):  # reported by load_state
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return PreprocessOptions(**with_normalisation(state["preprocess"])).normalisation
    return None


def _check_same(run: Run, state: dict[str, Any], path: Path) -> None:
    """Refuse the state of a training with other patients, options or preprocessing."""
    if state["split"] != _plain(run.split()):
        raise TrainingError(
            f"{path} belongs to a training with other patients; resume with the same cohort and split, or "
            "choose another output."
        )
    before, now = state["options"], _plain(dataclasses.asdict(run.options))
    _check_supported(before, path)
    for field in dataclasses.fields(TrainOptions):
        then = before.get(field.name, _BEFORE.get(field.name, field.default))
        if not field.metadata["may_change"] and then != now[field.name]:
            raise TrainingError(
                f"{path} belongs to a training with {_label(field.name)} {then}, not {now[field.name]}; "
                "resume with the same options, or choose another output."
            )
    size, wanted = state["preprocess"]["working_size"], run.initial.preprocess.working_size
    if PreprocessOptions(**with_normalisation(state["preprocess"])) != run.initial.preprocess:
        raise TrainingError(
            f"{path} belongs to a training with another preprocessing (working size {size}, not {wanted}); "
            "resume with the same preprocessing, or choose another output."
        )


def _check_supported(options: dict[str, Any], path: Path) -> None:
    """Refuse options of version 0.1.0 that this version no longer has."""
    removed = [name for name, only in _REMOVED.items() if options.get(name, only) != only]
    removed += [name for name, values in _REMOVED_VALUES.items() if options.get(name) in values]
    if removed:
        name = removed[0]
        raise TrainingError(
            f"{path} belongs to a training with {_label(name)} {options[name]}, which this version no longer "
            "supports; resume it with version 0.1.0, or choose another output."
        )


def _label(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: Any) -> Any:
    """Convert tuples to lists, so that saved and current values compare equal."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def remove_leftovers(output: Path) -> None:
    """Remove temporary files of a training that was killed while it wrote."""
    for path in (output, state_file(output), state_folder(output) / "history.csv"):
        remove_temporaries(path.parent, path.name)
