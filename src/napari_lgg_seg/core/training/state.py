"""Saving and loading the state of a training, from which it resumes as if it had never stopped.

Everything random follows from seed, epoch and step, so that no random generators need saving.
"""

from __future__ import annotations

import dataclasses
import io
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from ..atomic import remove_temporaries, replacing
from ..data.json_files import Count, Names, NotNegative, build
from ..data.regular_files import check_regular, open_regular
from ..errors import LggSegError, TrainingError
from ..model.preprocess import Normalisation, PreprocessOptions, with_normalisation
from .history import EpochRecord
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
    if not run.processes.from_main(os.path.lexists(path)):
        return False
    # The main process reads for all: machines may share no disk.
    state = run.processes.from_main(_read(path) if run.processes.is_main else None)
    assert state is not None
    try:
        _check_same(run, state, path)
        _check_progress(run, build(_Progress, {name: state[name] for name in _PROGRESS}))
        if not all(bool(t.isfinite().all()) for part in _WEIGHTS for t in state[part].values()):
            raise ValueError("weights that are not finite")
        run.load_state_dict(state)
    except LggSegError:
        raise
    except Exception as error:  # torch raises almost anything about the weights and moments of others
        raise _damaged(path) from error
    return True


def _read(path: Path) -> dict[str, Any]:
    import torch

    try:
        with open_regular(path) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be opened ({error.strerror or error}); make it readable or choose another output."
        ) from error
    except Exception as error:  # unpickling damaged data raises almost anything
        raise _damaged(path) from error
    if not isinstance(state, dict):
        raise _damaged(path)
    return state


def _damaged(path: Path) -> TrainingError:
    return TrainingError(f"{path} is damaged; remove it and start the training again.")


@dataclass(frozen=True)
class _Split:
    training: Names
    validation: Names


@dataclass(frozen=True)
class _Progress:
    """What a state holds besides tensors."""

    epoch: Count
    step_in_epoch: Count
    steps_done: Count
    part: Annotated[int, Ge(1)]
    minutes: NotNegative
    losses: tuple[float, ...]
    history: tuple[EpochRecord, ...]
    split: _Split
    options: dict[str, Any]
    preprocess: PreprocessOptions
    scaler: dict[str, Any]


_WEIGHTS = ("network", "average")
_PROGRESS = tuple(_Progress.__dataclass_fields__)


def _check_progress(run: Run, progress: _Progress) -> None:
    """Raise ValueError if the counters of a state contradict each other."""
    done = progress.epoch * run.steps_per_epoch + progress.step_in_epoch
    if progress.step_in_epoch > run.steps_per_epoch or progress.steps_done != done:
        raise ValueError("the counters contradict each other")
    if len(progress.losses) != progress.step_in_epoch:
        raise ValueError("the number of losses is wrong")


def saved_normalisation(path: Path) -> Normalisation | None:
    """The normalisation of the training whose state is on disk; None if there is none that can be read.

    A training from scratch of version 0.1.0 is resumed with the normalisation that it started with.
    """
    import torch

    with suppress(Exception):  # reported by load_state
        check_regular(path)
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
