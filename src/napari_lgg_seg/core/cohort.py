"""Training patients in memory, ready to be drawn from, and the split of a cohort by patient."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import TrainingError
from .patients import Patient, institution
from .preprocess import PreprocessOptions, crop_and_resample, measure, normalise_each

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def split_patients(names: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Training and validation patients, stratified by institution.

    Parameters
    ----------
    names : sequence of str
        Patients' names; the institution is read from TCGA names, others form one group.
    fraction : float
        Share for validation, between 0 and 1.
    seed : int
        The same seed and names give the same split.

    Returns
    -------
    training, validation : list of str
        Sorted; together all of ``names``, never overlapping, validation never empty for two names or more.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[institution(name)].append(name)
    shuffler = random.Random(seed)
    # Institutions one after the other, each shuffled: equal steps along that order take from each its share.
    order = [name for group in groups.values() for name in shuffler.sample(group, len(group))]
    count = min(max(1, round(fraction * len(order))), len(order) - 1)
    start = shuffler.random()
    picked = {order[int((i + start) * len(order) / count)] for i in range(count)}
    return [n for n in sorted(names) if n not in picked], sorted(picked)


def take_patients(names: Sequence[str], file: Path) -> tuple[list[str], list[str]]:
    """As :func:`split_patients`, with the validation patients named in a text file, one a line.

    Raises
    ------
    TrainingError
        If a named patient is not among ``names``, or the file names nobody.
    """
    wanted = {line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()}
    unknown = sorted(wanted - set(names))
    if unknown or not wanted:
        raise TrainingError(
            f"{file} names {unknown[0] if unknown else 'nobody'}, who is not in the cohort; correct the list."
        )
    return [n for n in sorted(names) if n not in wanted], sorted(wanted)


class Cohort:
    """Slices of all training patients at the working size, as uint8.

    Parameters
    ----------
    patients : sequence of Patient
        uint8 volumes with truth.
    preprocess : PreprocessOptions
        Working size and normalisation.
    """

    def __init__(self, patients: Sequence[Patient], preprocess: PreprocessOptions) -> None:
        import torch

        self.patients, self.preprocess = patients, preprocess
        images, masks, figures = [], [], []
        for patient in patients:
            assert patient.volume is not None
            assert patient.truth is not None
            prepared = measure(patient.volume, preprocess)
            marked = np.isin(patient.slice_numbers, patient.unmarked, invert=True)
            size = preprocess.working_size
            images.append(_as_bytes(crop_and_resample(patient.volume[marked], prepared.box, size)))
            masks.append(
                _as_bytes(255 * crop_and_resample(patient.truth[marked][..., None], prepared.box, size))
            )
            figures.append(
                torch.tensor([prepared.clip, prepared.mean, prepared.sd]).expand(int(marked.sum()), -1, -1)
            )
        self._images, self._masks, self._figures = torch.cat(images), torch.cat(masks), torch.cat(figures)
        has_tumour = (self._masks > 127).flatten(1).any(1)
        self._tumour, self._empty = has_tumour.nonzero()[:, 0], (~has_tumour).nonzero()[:, 0]

    def batches(
        self, slices: int, batch_size: int, tumour_share: float, seed: int
    ) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
        """One epoch: batches of normalised images, masks (0 to 1), and the generator for augmentation."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        if len(self._tumour) and len(self._empty):
            wanted = round(slices * tumour_share)
        else:  # all slices are of one kind
            wanted = slices if len(self._tumour) else 0
        chosen = torch.cat(
            [_draw(self._tumour, wanted, generator), _draw(self._empty, slices - wanted, generator)]
        )
        chosen = chosen[torch.randperm(len(chosen), generator=generator)]
        for start in range(0, len(chosen), batch_size):
            indices = chosen[start : start + batch_size]
            images = normalise_each(self._images[indices].float(), self._figures[indices])
            yield images, self._masks[indices].float() / 255, generator


def _draw(population: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` members in random order, each as often as any other (to within one)."""
    import torch

    if not len(population) or not count:
        return population[:0]
    rounds = -(-count // len(population))
    order = [population[torch.randperm(len(population), generator=generator)] for _ in range(rounds)]
    return torch.cat(order)[:count]


def _as_bytes(values: Tensor) -> Tensor:
    import torch

    return values.round().clamp(0, 255).to(torch.uint8)
