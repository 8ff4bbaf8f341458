"""On whom the command ``train`` trains: patients with masks or corrected labels, and old ones beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import LggSegError, TrainingError

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.training.options import TrainOptions
    from ..core.training.run import Source


@dataclass(frozen=True)
class Patients:
    """Patients of a cohort that a training can learn from.

    Attributes
    ----------
    sources : dict of str to Path or CorrectedPatient
        Their names, and where they are read from.
    cohort : Path
        The folder of their folders.
    results : Path or None
        The results folder with their corrected labels, if these are the truth.
    """

    sources: Mapping[str, Source]
    cohort: Path
    results: Path | None = None

    def summary(self) -> str:
        """How many there are, as the beginning of a sentence."""
        if self.results is None:
            return f"{self.cohort} holds {len(self.sources)} patients with masks"
        return f"{self.results} holds corrected labels of {len(self.sources)} patients of {self.cohort}"


def find_patients(cohort: Path, results: Path | None, console: Console) -> Patients:
    """Patients with images and masks; with a results folder, those with corrected labels in it.

    Parameters
    ----------
    cohort : Path
        The folder of patient folders.
    results : Path or None
        The results folder.
    console : Console
        Where it is said who is left out.
    """
    from ..core.cohort.corrected import corrected_patients

    if results is None:
        return Patients(_usable(cohort, console), cohort)
    found: dict[str, Source] = {}
    for patient in corrected_patients(cohort, results):
        try:
            if patient.name in found:
                raise TrainingError(f"{patient.folder} holds {patient.name} once more.")
        except LggSegError as error:
            _left_out(error, console)
            continue
        found[patient.name] = patient
    return Patients(found, cohort, results)


def split(
    patients: Patients,
    options: TrainOptions,
    fraction: float,
    file: Path | None,
    console: Console,
) -> tuple[list[Source], list[Source]]:
    """Training and validation patients; the latter are named in a file, or a fraction of all.

    Raises
    ------
    TrainingError
        If there are fewer than two patients, or the file does not fit to them.
    """
    from ..core.training.initial_model import find_initial_model
    from ..core.training.split import split_patients, take_patients

    start = find_initial_model(options)
    names = list(patients.sources)
    if file is not None:
        chosen, held_out = take_patients(names, file)
    elif len(names) < 2:
        raise TrainingError(f"{patients.summary()}; training needs two or more.")
    else:
        chosen, held_out = split_patients(names, fraction, options.seed, start.seen)
    source = f"fine-tuning {start.card.name}" if start.card is not None else "from scratch"
    console.print(f"{len(chosen)} patients for training, {len(held_out)} for validation; {source}.")
    return [patients.sources[name] for name in chosen], [patients.sources[name] for name in held_out]


def old_patients(
    folder: Path, patients: Patients, training: int, share: float, seed: int, console: Console
) -> list[Source]:
    """Patients of an older cohort to train on as well, none of whom is among the new ones.

    Parameters
    ----------
    folder : Path
        The folder of the older patients' folders.
    patients : Patients
        The new ones.
    training : int
        How many of those train.
    share : float
        Of the older ones among all that train.
    seed : int
        Of the choice.
    console : Console
        Where it is said how many they are.
    """
    from ..core.training.split import draw_old

    found = {name: path for name, path in _usable(folder, console).items() if name not in patients.sources}
    chosen = draw_old(found, training, share, seed)
    text = f"{len(chosen)} of {len(found)} old patients of {folder} train as well."
    console.print(text, markup=False, soft_wrap=True)
    return [found[name] for name in chosen]


def _usable(cohort: Path, console: Console) -> dict[str, Path]:
    """Name -> folder of the patients with images and masks; others are named and left out."""
    from ..core.data.discover import has_slices
    from ..core.data.patients import find_slices

    found: dict[str, Path] = {}
    folders = [cohort] if has_slices(cohort) else [f for f in sorted(cohort.iterdir()) if has_slices(f)]
    for folder in folders:
        try:
            files = find_slices(folder)
            if not files.images or not files.masks:
                raise TrainingError(f"{folder} has no images or no masks.")
            if files.name in found:
                raise TrainingError(f"{folder} holds {files.name} once more.")
        except LggSegError as error:
            _left_out(error, console)
            continue
        found[files.name] = folder
    return found


def _left_out(error: LggSegError, console: Console) -> None:
    console.print(f"Left out: {error}", style="yellow", markup=False, soft_wrap=True)
