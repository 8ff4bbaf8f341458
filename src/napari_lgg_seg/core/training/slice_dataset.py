"""Slices of the training patients: each patient is read once and stored as uint8.

What does not fit into memory goes to memory-mapped files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import memory as process_memory
from ..atomic import replacing
from ..data.patients import SEQUENCES, Patient
from ..errors import TrainingError
from ..model.neighbours import with_neighbours
from ..model.preprocess import PreprocessOptions, crop_and_resample, measure

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Raw slices; :func:`napari_lgg_seg.core.model.preprocess.normalise_each` normalises them.

    Attributes
    ----------
    slices : Tensor of uint8
        Shape (n, c + 1, h, h): the sequences of the slice and its neighbours, in the order of
        :mod:`napari_lgg_seg.core.model.neighbours`, and the slice's mask (0 to 255).
    intensity_stats : Tensor of float32
        Shape (n, 3, c): clipping value, mean and standard deviation of each slice's patient.
    """

    slices: Tensor
    intensity_stats: Tensor


class SliceDataset:
    """Slices of all training patients at the working size.

    Parameters
    ----------
    preprocess : PreprocessOptions
        Working size and normalisation.
    sequences : tuple of str
        The network's input channels of a slice.
    folder : Path, optional
        For slices that do not fit into memory; without it all stay in memory.
    memory : int, optional
        Bytes of slices to keep in memory; by default half of the free memory.
    neighbours : int
        Slices above, and as many below, that the network sees as well.
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
        self._marked: list[Tensor] = []

    def add(self, patient: Patient) -> None:
        """Add a patient. Slices without a mask file are not drawn; they only serve as neighbours of others.

        Raises
        ------
        TrainingError
            If the patient has no images or no masks.
        """
        import torch

        if patient.truth is None or patient.volume is None:
            raise TrainingError(f"{patient.folder} has no images or no masks; training needs both.")
        volume = patient.volume[..., [SEQUENCES.index(s) for s in self.sequences]]
        prepared = measure(volume, self.preprocess)
        marked = np.isin(patient.slice_numbers, patient.slices_without_mask, invert=True)
        kept = np.unique(with_neighbours(np.flatnonzero(marked), len(volume), self.neighbours))
        size = self.preprocess.working_size
        images = crop_and_resample(volume[kept], prepared.box, size)
        masks = crop_and_resample(patient.truth[kept][..., None], prepared.box, size)
        slices = torch.cat([images, 255 * masks], dim=1).round_().clamp_(0, 255).to(torch.uint8)
        intensity_stats = torch.tensor([prepared.clip, prepared.mean, prepared.sd])
        self._keep(patient.name, slices, torch.from_numpy(marked[kept]), intensity_stats)

    def _keep(self, name: str, slices: Tensor, marked: Tensor, intensity_stats: Tensor) -> None:
        self._marked.append(marked)
        self._tumour.append((slices[:, -1] > 127).flatten(1).any(1))
        if slices.nbytes > self._memory and self.folder is not None:
            path = self.folder / f"{len(self.names)}.npy"
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, slices.numpy())
            slices = _mapped(path)
        else:
            self._memory -= slices.nbytes
        self.names.append(name)
        self._slices.append(slices)
        self._intensity_stats.append(intensity_stats)

    def save_index(self) -> None:
        """Write the index from which other processes of this machine :meth:`open` the slices."""
        index = {
            "names": self.names,
            "figures": [intensity_stats.tolist() for intensity_stats in self._intensity_stats],
            "tumour": [shows.tolist() for shows in self._tumour],
            "marked": [marked.tolist() for marked in self._marked],
        }
        with replacing(self._index) as temporary:
            temporary.write_text(json.dumps(index), encoding="utf-8")

    def open(self) -> None:
        """Open the files of another process, which kept none of its slices in memory."""
        import torch

        index = json.loads(self._index.read_text(encoding="utf-8"))
        self.names = index["names"]
        self._intensity_stats = [torch.tensor(intensity_stats) for intensity_stats in index["figures"]]
        self._tumour = [torch.tensor(shows) for shows in index["tumour"]]
        self._marked = [torch.tensor(marked) for marked in index["marked"]]
        self._slices = [_mapped(self._index.with_name(f"{i}.npy")) for i in range(len(self.names))]

    @property
    def _index(self) -> Path:
        assert self.folder is not None
        return self.folder / "index.json"

    def close(self) -> None:
        """Release the slices and remove their files."""
        self._slices, self._intensity_stats, self._tumour, self._marked = [], [], [], []
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def plan(self, slices: int, batch_size: int, tumour_share: float, seed: int) -> list[Tensor]:
        """Draw one epoch: for each batch, (n, 2) of patient and slice.

        Each tumour slice comes as often as any other, to within one, and so does each empty slice. Batches
        differ by at most one slice: a last one of few slices would upset batch normalisation.
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
        """(patient, slice) of all marked slices that show tumour, or that do not; shape (n, 2)."""
        import torch

        both = zip(self._tumour, self._marked, strict=True)
        found = [((has == shows_tumour) & marked).nonzero()[:, 0] for has, marked in both]
        patients = torch.arange(len(found)).repeat_interleave(torch.tensor([len(f) for f in found]))
        return torch.stack([patients, torch.cat(found)], dim=1)

    def take(self, chosen: Tensor) -> Batch:
        """The slices of a batch, from (n, 2) of patient and slice."""
        import torch

        pairs = chosen.tolist()
        return Batch(
            torch.stack([self._seen(patient, index) for patient, index in pairs]),
            torch.stack(
                [self._intensity_stats[patient].repeat(1, 2 * self.neighbours + 1) for patient, _ in pairs]
            ),
        )

    def _seen(self, patient: int, index: int) -> Tensor:
        """A marked slice with its neighbours, and its mask: (c + 1, h, h)."""
        import torch

        slices = self._slices[patient]
        # All neighbours of a marked slice are stored, so they are next to it here as in the volume.
        [around] = with_neighbours(np.array([index]), len(slices), self.neighbours)
        images = slices[torch.from_numpy(around), :-1].flatten(0, 1)
        return torch.cat([images, slices[index, -1:]])

    def batches(self, plan: list[Tensor]) -> Generator[Batch, None, None]:
        """The batches of a plan; each is prepared while the one before is in use."""
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
    """``count`` members in random order, each as often as any other, to within one."""
    import torch

    if not len(population) or not count:
        return population[:0]
    rounds = -(-count // len(population))
    order = [population[torch.randperm(len(population), generator=generator)] for _ in range(rounds)]
    return torch.cat(order)[:count]


def _mapped(path: Path) -> Tensor:
    import torch

    # Copy on write, although nothing writes: torch warns about read-only memory.
    return torch.from_numpy(np.load(path, mmap_mode="c"))
