"""Select training patients for ``train``: with masks or corrected labels, and earlier ones to rehearse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import TrainingError, counted

if TYPE_CHECKING:
    from ..core.training.options import TrainOptions
    from ..core.training.patients import Source
    from .console import PlainConsole


@dataclass(frozen=True)
class Patients:
    """Patients of a cohort that can be trained on.

    Attributes
    ----------
    sources : dict of str to Path or CorrectedPatient
        By name: what they are read from.
    cohort : Path
        The folder of patient folders.
    results : Path or None
        The results folder with their corrected labels, if these are the ground truth.
    """

    sources: Mapping[str, Source]
    cohort: Path
    results: Path | None = None

    def summary(self) -> str:
        """Their number, as the beginning of a sentence."""
        number = counted(len(self.sources), "patient")
        if self.results is None:
            return f"{self.cohort} holds {number} with masks"
        return f"{self.results} holds corrected labels of {number} of {self.cohort}"


def find_patients(cohort: Path, results: Path | None, console: PlainConsole) -> Patients:
    """Patients with images and masks; with a results folder, those with corrected labels in it.

    Parameters
    ----------
    cohort : Path
        The folder of patient folders.
    results : Path or None
        The results folder.
    console : PlainConsole
        For a line about each folder that is left out.
    """
    from ..core.cohort.corrected import find_corrected

    if results is None:
        return Patients(_with_masks(cohort, console), cohort)
    found = find_corrected(cohort, results)
    _show_left_out(found.problems, console)
    return Patients(found.patients, cohort, results)


def split(
    patients: Patients,
    options: TrainOptions,
    fraction: float,
    file: Path | None,
    console: PlainConsole,
) -> tuple[list[Source], list[Source]]:
    """Split into training and validation patients; the latter are named in a file, or a fraction of all.

    Raises
    ------
    TrainingError
        If there are fewer than two patients, or the file does not match them.
    """
    from ..core.training.initial_model import find_initial_model
    from ..core.training.split import split_by_file, split_patients

    initial = find_initial_model(options)
    names = list(patients.sources)
    if file is not None:
        chosen, held_out = split_by_file(names, file)
    elif len(names) < 2:
        raise TrainingError(f"{patients.summary()}; training needs two or more.")
    else:
        chosen, held_out = split_patients(names, fraction, options.seed, initial.seen)
    source = f"fine-tuning {initial.card.name}" if initial.card is not None else "from scratch"
    console.say(f"{counted(len(chosen), 'patient')} for training, {len(held_out)} for validation; {source}.")
    return [patients.sources[name] for name in chosen], [patients.sources[name] for name in held_out]


def old_patients(
    folder: Path, patients: Patients, training: int, share: float, seed: int, console: PlainConsole
) -> list[Source]:
    """Patients of an earlier cohort to train on as well, none of them among the new ones.

    Parameters
    ----------
    folder : Path
        The folder of the earlier patients' folders.
    patients : Patients
        The new ones.
    training : int
        Number of new training patients.
    share : float
        Share of earlier ones among all training patients.
    seed : int
        Seed of the draw.
    console : PlainConsole
        For a line about their number.
    """
    from ..core.training.split import draw_rehearsal

    earlier = _with_masks(folder, console)
    found = {name: path for name, path in earlier.items() if name not in patients.sources}
    chosen = draw_rehearsal(found, training, share, seed)
    number = counted(len(found), "earlier patient")
    console.say(f"{len(chosen)} of {number} in {folder} are trained on as well.")
    return [found[name] for name in chosen]


def _with_masks(cohort: Path, console: PlainConsole) -> Mapping[str, Path]:
    """Name -> folder of the patients with images and masks; what is left out is named."""
    from ..core.data.discover import find_by_name

    found = find_by_name("images and masks", cohort)
    _show_left_out((*found.problems, *found.empty), console)
    return found.patients


def _show_left_out(problems: Iterable[object], console: PlainConsole) -> None:
    for sentence in problems:
        console.say(f"Left out: {sentence}", style="yellow")
