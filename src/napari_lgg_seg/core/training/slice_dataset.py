"""Slices of the training patients: each patient is read once and stored as uint8.

Slices that do not fit into memory are stored in memory-mapped files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import memory as process_memory
from ..atomic import replacing
from ..data.json_files import Names, build, read_values
from ..data.patients import SEQUENCES, Patient
from ..data.regular_files import check_regular
from ..errors import TrainingError, reason
from ..model.background import subtract_background
from ..model.neighbours import with_neighbours
from ..model.preprocess import (
    PreprocessOptions,
    crop_and_resample,
    intensity_stats_of,
    measure,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of raw slices.

    Attributes
    ----------
    slices : Tensor of uint8
        Shape (n, c + 1, h, h): the sequences of the slice and its neighbours, in the order of
        :mod:`napari_lgg_seg.core.model.neighbours`, and the slice's mask (0 to 255).
    intensity_stats : Tensor of float32
        Shape (n, 3, c): clipping value, mean and standard deviation of each slice's patient, for
        :func:`napari_lgg_seg.core.model.preprocess.normalise_each`.
    """

    slices: Tensor
    intensity_stats: Tensor


@dataclass(frozen=True)
class _Index:
    """The file that other processes open the slices with; one entry per patient."""

    names: Names
    intensity_stats: tuple[tuple[tuple[float, ...], ...], ...]
    tumour: tuple[tuple[bool, ...], ...]
    has_mask: tuple[tuple[bool, ...], ...]


class SliceDataset:
    """Slices of all training patients at the working size.

    Parameters
    ----------
    preprocess : PreprocessOptions
        Working size and normalisation.
    sequences : tuple of str
        The network's input channels of a slice.
    folder : Path, optional
        Folder for slices that do not fit into memory; without it, all stay in memory.
    memory : int, optional
        Memory for slices, in bytes; half of the free memory by default.
    neighbours : int
        Neighbouring slices on each side that the network sees with each slice.

    Attributes
    ----------
    names : list of str
        The patients added so far.
    """

    def __init__(
        self,
        preprocess: PreprocessOptions,
        sequences: tuple[str, ...] = SEQUENCES,
        folder: Path | None = None,
        memory: int | None = None,
        neighbours: int = 0,
    ) -> None:
        self.preprocess, self.sequences, self.folder = preprocess, sequences, folder
        self.neighbours = neighbours
        self.names: list[str] = []
        free = process_memory.free_main_memory()
        self._memory = memory if memory is not None else (free // 2 if free is not None else 2**62)
        self._slices: list[Tensor] = []
        self._intensity_stats: list[Tensor] = []
        self._tumour: list[Tensor] = []
        self._has_mask: list[Tensor] = []

    def add(self, patient: Patient) -> None:
        """Add a patient; slices without a mask only serve as neighbours of others.

        Raises
        ------
        TrainingError
            If the patient has no images or no masks.
        """
        import torch

        if patient.truth is None or patient.volume is None:
            raise TrainingError(f"{patient.folder} has no images or no masks; training needs both.")
        volume = subtract_background(patient.volume[..., [SEQUENCES.index(s) for s in self.sequences]])
        prepared = measure(volume, self.preprocess)
        has_mask = np.isin(patient.slice_numbers, patient.slices_without_mask, invert=True)
        needed = np.unique(with_neighbours(np.flatnonzero(has_mask), len(volume), self.neighbours))
        size = self.preprocess.working_size
        images = crop_and_resample(volume[needed], prepared.box, size)
        masks = crop_and_resample(patient.truth[needed][..., None], prepared.box, size)
        intensity_stats = intensity_stats_of(prepared)[0]
        if patient.volume.dtype != np.uint8:  # scaled to fit, as what is clipped need not
            scale = 255 / intensity_stats[0].clamp(min=1e-37)
            images, intensity_stats = images * scale[:, None, None], intensity_stats * scale
        slices = torch.cat([images, 255 * masks], dim=1).round_().clamp_(0, 255).to(torch.uint8)
        self._store(patient.name, slices, torch.from_numpy(has_mask[needed]), intensity_stats)

    def _store(self, name: str, slices: Tensor, has_mask: Tensor, intensity_stats: Tensor) -> None:
        self._has_mask.append(has_mask)
        self._tumour.append((slices[:, -1] > 127).flatten(1).any(1))
        if slices.nbytes > self._memory and self.folder is not None:
            path = self.folder / f"{len(self.names)}.npy"
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, slices.numpy())
            slices = _memory_map(path)
        else:
            self._memory -= slices.nbytes
        self.names.append(name)
        self._slices.append(slices)
        self._intensity_stats.append(intensity_stats)

    def save_index(self) -> None:
        """Write the index that other processes of this machine :meth:`open` the slices with."""
        index = {
            "names": self.names,
            "intensity_stats": [stats.tolist() for stats in self._intensity_stats],
            "tumour": [has_tumour.tolist() for has_tumour in self._tumour],
            "has_mask": [has_mask.tolist() for has_mask in self._has_mask],
        }
        with replacing(self._index) as temporary:
            temporary.write_text(json.dumps(index), encoding="utf-8")

    def open(self) -> None:
        """Open the slices of another process, which must have stored all of them in files."""
        import torch

        try:
            index = build(_Index, read_values(self._index))
            self._slices = [_memory_map(self._index.with_name(f"{i}.npy")) for i in range(len(index.names))]
            parts = zip(self._slices, index.intensity_stats, index.tumour, index.has_mask, strict=True)
            if not all(self._belong_together(*part) for part in parts):
                raise ValueError("its parts do not belong together")
        except (OSError, EOFError, ValueError) as error:  # JsonError is a ValueError
            raise TrainingError(
                f"{self._index} or a file next to it is damaged ({reason(error)}); start the training again."
            ) from error
        self.names = list(index.names)
        self._intensity_stats = [torch.tensor(stats) for stats in index.intensity_stats]
        self._tumour = [torch.tensor(has_tumour) for has_tumour in index.tumour]
        self._has_mask = [torch.tensor(has_mask) for has_mask in index.has_mask]

    def _belong_together(
        self, slices: Tensor, stats: Sequence[Sequence[float]], *flags: Sequence[bool]
    ) -> bool:
        """Whether the slices and values of a patient have the expected shapes."""
        channels, size = len(self.sequences), self.preprocess.working_size
        return (
            slices.shape[1:] == (channels + 1, size, size)
            and {len(flag) for flag in flags} == {len(slices)}
            and [len(row) for row in stats] == [channels] * 3
        )

    @property
    def _index(self) -> Path:
        assert self.folder is not None
        return self.folder / "index.json"

    def close(self) -> None:
        """Release the slices and delete their files."""
        self._slices, self._intensity_stats, self._tumour, self._has_mask = [], [], [], []
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def shows_tumour(self) -> bool:
        """Whether a slice with a mask shows tumour."""
        return bool(len(self._slices_that(shows_tumour=True)))

    def plan(self, slices: int, batch_size: int, tumour_share: float, seed: int) -> list[Tensor]:
        """Draw the slices of one epoch.

        All tumour slices are drawn equally often, to within one, and so are all empty slices. Batch sizes
        differ by at most one: a last batch of few slices would upset batch normalisation.

        Parameters
        ----------
        slices : int
            Number of slices to draw.
        batch_size : int
            Largest number of slices in a batch.
        tumour_share : float
            Fraction of slices that show tumour.
        seed : int
            The same seed draws the same slices.

        Returns
        -------
        list of Tensor of int64
            For each batch, shape (n, 2): indices of patient and slice.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        tumour, empty = self._slices_that(shows_tumour=True), self._slices_that(shows_tumour=False)
        both = bool(len(tumour) and len(empty))
        wanted = round(slices * (tumour_share if both else len(tumour) > 0))
        chosen = torch.cat([_draw(tumour, wanted, generator), _draw(empty, slices - wanted, generator)])
        chosen = chosen[torch.randperm(len(chosen), generator=generator)]
        return list(chosen.tensor_split(-(-slices // batch_size)))

    def _slices_that(self, *, shows_tumour: bool) -> Tensor:
        """Indices, (n, 2), of all slices with a mask that show tumour, or that show none."""
        import torch

        both = zip(self._tumour, self._has_mask, strict=True)
        found = [((tumour == shows_tumour) & has_mask).nonzero()[:, 0] for tumour, has_mask in both]
        patients = torch.arange(len(found)).repeat_interleave(torch.tensor([len(f) for f in found]))
        return torch.stack([patients, torch.cat(found)], dim=1)

    def take(self, chosen: Tensor) -> Batch:
        """Return the slices of a batch, given their indices as in :meth:`plan`."""
        import torch

        pairs = chosen.tolist()
        return Batch(
            torch.stack([self._input_and_mask(patient, index) for patient, index in pairs]),
            torch.stack(
                [self._intensity_stats[patient].repeat(1, 2 * self.neighbours + 1) for patient, _ in pairs]
            ),
        )

    def _input_and_mask(self, patient: int, index: int) -> Tensor:
        """A slice with its neighbours, and its mask: (c + 1, h, h)."""
        import torch

        slices = self._slices[patient]
        # All neighbours of a slice with a mask are stored, so they are next to it as in the volume.
        [around] = with_neighbours(np.array([index]), len(slices), self.neighbours)
        images = slices[torch.from_numpy(around), :-1].flatten(0, 1)
        return torch.cat([images, slices[index, -1:]])

    def batches(self, plan: list[Tensor]) -> Generator[Batch, None, None]:
        """Yield the batches of a plan, each prepared while the previous one is in use."""
        if not plan:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="slices") as reader:
            ahead = reader.submit(self.take, plan[0])
            for following in [*plan[1:], None]:
                batch = ahead.result()
                if following is not None:
                    ahead = reader.submit(self.take, following)
                yield batch


def _draw(population: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` members in random order, all equally often, to within one."""
    import torch

    if not len(population) or not count:
        return population[:0]
    rounds = -(-count // len(population))
    order = [population[torch.randperm(len(population), generator=generator)] for _ in range(rounds)]
    return torch.cat(order)[:count]


def _memory_map(path: Path) -> Tensor:
    import torch

    check_regular(path)
    # Copy on write, although nothing is written: torch warns about read-only memory.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
