"""Which patients train and which validate: by patient always, never by slice."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from ..data.patients import institution
from ..errors import TrainingError


def split_patients(
    names: Sequence[str], fraction: float, seed: int, seen: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Training and validation patients, stratified by institution.

    Parameters
    ----------
    names : sequence of str
        Patients' names; the institution is read from TCGA names, others form one group.
    fraction : float
        Share for validation, between 0 and 1.
    seed : int
        The same seed and names give the same split.
    seen : collection of str
        Patients that the initial model was trained on. They are kept for training, as long as
        others are there: a model's answer on them would flatter it. Half of the others train, too.

    Returns
    -------
    training, validation : list of str
        Sorted; together all of ``names``, never overlapping, validation never empty for two names or more.
    """
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    eligible = [name for name in sorted(names) if name not in seen] or sorted(names)
    count = min(count, -(-len(eligible) // 2)) if len(eligible) < len(names) else count
    groups: dict[str, list[str]] = defaultdict(list)
    for name in eligible:
        groups[institution(name)].append(name)
    shuffler = random.Random(seed)
    # Institutions one after the other, each shuffled: equal steps along that order take from each its share.
    order = [name for group in groups.values() for name in shuffler.sample(group, len(group))]
    start = shuffler.random()
    picked = {order[int((i + start) * len(order) / count)] for i in range(count)}
    return [n for n in sorted(names) if n not in picked], sorted(picked)


def take_patients(names: Sequence[str], file: Path) -> tuple[list[str], list[str]]:
    """As :func:`split_patients`, with the validation patients named in a text file, one a line.

    Raises
    ------
    TrainingError
        If a named patient is not among ``names``, or the file cannot be read, names nobody or everybody.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} cannot be read as a list of patients; write one name a line.") from error
    wanted = {line.strip() for line in lines if line.strip()}
    unknown = sorted(wanted - set(names))
    if unknown or not wanted:
        raise TrainingError(
            f"{file} names {unknown[0] if unknown else 'nobody'}, who is not in the cohort; correct the list."
        )
    if wanted == set(names):
        raise TrainingError(f"{file} names every patient of the cohort; leave some for training.")
    return [n for n in sorted(names) if n not in wanted], sorted(wanted)


def draw_old(old: Collection[str], new: int, share: float, seed: int) -> list[str]:
    """Old patients to train on beside new ones, so that a model forgets nothing that it knew.

    Parameters
    ----------
    old : collection of str
        Names of the patients to draw from; none of the new ones may be among them.
    new : int
        How many new patients train.
    share : float
        Of the old ones among all that train, from 0 to below 1.
    seed : int
        The same seed and names give the same patients.

    Returns
    -------
    list of str
        Sorted; all of them if there are not enough.

    Raises
    ------
    TrainingError
        If the share is outside its limits.
    """
    if not 0 <= share < 1:
        raise TrainingError(
            f"A share of old patients of {share} is not from 0 to below 1; choose for instance 0.5."
        )
    wanted = min(round(new * share / (1 - share)), len(old))
    return sorted(random.Random(seed).sample(sorted(old), wanted))


def check_split(training: Sequence[str], validation: Sequence[str]) -> None:
    """Refuse sets that share a patient, or that are empty.

    Raises
    ------
    TrainingError
        One sentence that names the patient.
    """
    both = sorted(set(training) & set(validation))
    if both:
        raise TrainingError(f"{both[0]} is in both training and validation; keep it in one of them.")
    for names in (training, validation):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise TrainingError(f"{twice[0]} is there twice; rename or remove one of the two.")
    if not training or not validation:
        raise TrainingError("Training needs at least one patient for training and one for validation.")
