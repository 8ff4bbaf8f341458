"""What the benchmarks run on, and how often."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speed.rounds import FailedError, call

#: Side of whole slices, and of the slices that the shipped model works on, in pixels.
SIZE, WORKING_SIZE = 256, 192
#: Slices of the largest patient of the dataset, and of the patient whose threshold is changed.
MOST_SLICES, THRESHOLD_SLICES = 88, 60
#: In a quick run: side of slices in pixels, and slices per patient.
TINY, FEW_SLICES = 64, 4
#: Numbers of patients with which time and peak memory are measured.
COHORTS, WHOLE_COHORT = (1, 5, 20), 90


@dataclass
class Settings:
    """What the benchmarks run on, and how often.

    Attributes
    ----------
    work : Path
        An empty folder for everything that is written.
    dataset : Path or None
        The dataset's folder; synthetic patients without it, and in a quick run.
    rounds : int
        Rounds of the network alone; the longer sections have fewer.
    patients : int
        Patients of the cohort that is segmented from folders to mask files.
    quick, full : bool
        The least work that shows that everything runs; a cohort of 90 as well.
    """

    work: Path
    dataset: Path | None
    rounds: int
    patients: int
    quick: bool = False
    full: bool = False
    _synthetic: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.quick:
            self.dataset = None

    @property
    def size(self) -> int:
        """Side of whole slices in pixels."""
        return TINY if self.quick else SIZE

    @property
    def working_size(self) -> int:
        """Side in pixels of slices at the shipped model's working size."""
        return TINY // 2 if self.quick else WORKING_SIZE

    @property
    def threshold_slices(self) -> int:
        """Slices of the patient whose threshold is changed."""
        return 2 * FEW_SLICES if self.quick else THRESHOLD_SLICES

    @property
    def one(self) -> int:
        """Slices per round that are computed one at a time."""
        return 1 if self.quick else 4

    @property
    def batch(self) -> int:
        """Slices in a large batch."""
        return 2 if self.quick else 16

    @property
    def few(self) -> int:
        """Rounds of the longer sections."""
        return 1 if self.quick else max(2, self.rounds // 2)

    @property
    def cohorts(self) -> tuple[int, ...]:
        """Numbers of patients of the growing cohorts."""
        if self.quick:
            return (*COHORTS[:1], 2)
        return (*COHORTS, WHOLE_COHORT) if self.full else COHORTS

    @property
    def network(self) -> str:
        """The Keras file of the network."""
        return str(self.work / "network.keras")

    @property
    def reference(self) -> str:
        """The file of slices and their probabilities."""
        return str(self.work / "reference.npz")

    def folders(self, count: int) -> list[str]:
        """Patients closest to the median number of slices; synthetic ones without a dataset."""
        if self.dataset is None:
            return self._synthetic["patients"][:count]
        sizes = {folder: size for folder in sorted(self.dataset.iterdir()) if (size := count_slices(folder))}
        middle = statistics.median(sizes.values()) if sizes else 0
        return [str(f) for f in sorted(sizes, key=lambda f: (abs(sizes[f] - middle), f.name))[:count]]

    def largest(self) -> str:
        """The patient with the most slices; a synthetic one without a dataset."""
        if self.dataset is None:
            return self._synthetic["long"][1]
        return str(max(sorted(self.dataset.iterdir()), key=count_slices))

    def threshold_folder(self) -> str:
        """The synthetic patient whose threshold is changed."""
        return self._synthetic["long"][0]

    def prepare(self) -> dict[str, Any]:
        """Write what the sections share; returns parameters, threads, and why Keras is missing if it is."""
        # Leaves the user's caches and edits alone, and makes the first run a true first run.
        os.environ |= {
            "XDG_CACHE_HOME": str(self.work / "cache"),
            "XDG_DATA_HOME": str(self.work / "data"),
            "NAPARI_CONFIG": "",
        }
        self._synthetic = call(
            "speed.pipeline:write_synthetic_patients",
            {
                "folder": str(self.work / "patients"),
                "count": max(self.patients, *self.cohorts) if self.dataset is None else 0,
                "slices": [self.threshold_slices, 3 * FEW_SLICES if self.quick else MOST_SLICES],
                "size": self.size,
                "first": FEW_SLICES if self.quick else None,
            },
        )
        reference = {"reference": self.reference, "size": self.size}
        about: dict[str, Any] = call("speed.networks:write_reference", reference)
        keras = {"network": self.network, "weights": call("speed.networks:model_file", {}), "size": self.size}
        try:
            call("speed.keras_baseline:save", keras)
        except FailedError as failure:
            about["keras"] = str(failure)
        return about


def count_slices(folder: str | Path) -> int:
    """Number of a patient's images; 0 for what is not a folder."""
    return sum(not file.stem.endswith("_mask") for file in Path(folder).glob("*.tif"))
