"""Splitting a cohort into training and validation patients; slices of a patient are never separated."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from ..data.patients import institution
from ..data.regular_files import read_text
from ..errors import TrainingError


def split_patients(
    names: Sequence[str], fraction: float, seed: int, seen: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Split patients at random into training and validation patients, stratified by institution.

    Parameters
    ----------
    names : sequence of str
        The patients. The institution is read from TCGA names; all other names form one group.
    fraction : float
        Fraction of validation patients, between 0 and 1.
    seed : int
        The same seed and names give the same split.
    seen : collection of str
        Patients that the initial model was trained on, whose Dice would be too optimistic. None of them is
        used for validation if there are others, of whom at most half (rounded up) are.

    Returns
    -------
    training, validation : list of str
        Sorted and disjoint; together all of ``names``. Neither is empty if there are two names or more.
    """
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    eligible = [name for name in sorted(names) if name not in seen] or sorted(names)
    count = min(count, -(-len(eligible) // 2)) if len(eligible) < len(names) else count
    groups: dict[str, list[str]] = defaultdict(list)
    for name in eligible:
        groups[institution(name)].append(name)
    shuffler = random.Random(seed)
    # The institutions one after the other, each shuffled: equal steps along them sample each proportionally.
    order = [name for group in groups.values() for name in shuffler.sample(group, len(group))]
    start = shuffler.random()
    picked = {order[int((i + start) * len(order) / count)] for i in range(count)}
    return [n for n in sorted(names) if n not in picked], sorted(picked)


def split_by_file(names: Sequence[str], file: Path) -> tuple[list[str], list[str]]:
    """Split patients into training and validation patients, the latter listed in a text file.

    Parameters
    ----------
    names : sequence of str
        The patients.
    file : Path
        One name per line, UTF-8; blank lines are ignored.

    Returns
    -------
    training, validation : list of str
        Sorted and disjoint; together all of ``names``.

    Raises
    ------
    TrainingError
        If the file cannot be read, or it lists no patient, all patients, or one that is not in ``names``.
    """
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"{file} cannot be read as a list of patients; write one name per line."
        ) from error
    listed = {line.strip() for line in lines if line.strip()}
    unknown = sorted(listed - set(names))
    if not listed:
        raise TrainingError(f"{file} lists no patients; write one name per line.")
    if unknown:
        raise TrainingError(f"{file} lists {unknown[0]}, who is not in the cohort; correct the list.")
    if listed == set(names):
        raise TrainingError(f"{file} lists every patient of the cohort; leave some for training.")
    return [name for name in sorted(names) if name not in listed], sorted(listed)


def draw_rehearsal(earlier: Collection[str], new: int, share: float, seed: int) -> list[str]:
    """Draw patients of an earlier training to rehearse with new ones, so that the model does not forget them.

    Parameters
    ----------
    earlier : collection of str
        The patients to draw from, without the new ones.
    new : int
        Number of new training patients.
    share : float
        Fraction of rehearsal patients among all training patients, from 0 to below 1.
    seed : int
        The same seed and names give the same patients.

    Returns
    -------
    list of str
        Sorted; all of ``earlier`` if there are too few.

    Raises
    ------
    TrainingError
        If the share is outside its limits.
    """
    if not 0 <= share < 1:
        raise TrainingError(
            f"A share of rehearsal patients of {share} is not from 0 to below 1; choose for instance 0.5."
        )
    wanted = min(round(new * share / (1 - share)), len(earlier))
    return sorted(random.Random(seed).sample(sorted(earlier), wanted))


def check_split(training: Sequence[str], validation: Sequence[str]) -> None:
    """Check that training and validation patients are disjoint, unique, and not empty.

    Raises
    ------
    TrainingError
        One sentence that names the patient, if there is one.
    """
    both = sorted(set(training) & set(validation))
    if both:
        raise TrainingError(f"{both[0]} is in both training and validation; keep it in one of them.")
    for names in (training, validation):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise TrainingError(f"{twice[0]} occurs twice; rename or remove one of the two.")
    if not training or not validation:
        raise TrainingError("Training needs at least one patient for training and one for validation.")
