"""One training as it runs: network, moving average, optimiser, data, and the counts of what is done."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import devices
from ..data.patients import Patient, find_slices, read_patient
from ..errors import PatientError, TrainingError
from ..evaluation.metrics import dice
from ..inference.postprocess import postprocess
from ..inference.predict import Notice, Predictor
from ..model.checkpoint import Model, ModelCard
from ..model.preprocess import normalise_each
from ..options import SegmentOptions
from . import distributed
from .augment import augment
from .events import PatientRead, PatientValidated, TrainEvent
from .history import EpochRecord
from .initial_model import InitialModel
from .learner import Learner
from .options import TrainOptions
from .paths import state_folder
from .slice_dataset import Batch, SliceDataset
from .split import check_split

if TYPE_CHECKING:
    from torch import Tensor, nn

    Tensors = list[Tensor] | tuple[Tensor, ...]


class PatientFiles(Protocol):
    """A patient whose files are read when they are needed."""

    @property
    def name(self) -> str:
        """The patient's name."""

    def read(self) -> Patient:
        """Read images and masks."""


#: A patient in memory, or where to read it from when it is needed.
Source = Patient | Path | PatientFiles


class Run:
    """The state of one training and its parts: reading, steps, validation, saving and resuming.

    Parameters
    ----------
    initial : InitialModel
        Network, weights and preprocessing at the beginning.
    validation : sequence of Patient, Path or PatientFiles
        Patients to validate on.
    output : Path
        The model file.
    options : TrainOptions
        Complete.
    """

    def __init__(
        self, initial: InitialModel, validation: Sequence[Source], output: Path, options: TrainOptions
    ) -> None:
        self.initial, self.options, self.output = initial, options, output
        self.processes = distributed.current()
        self.device = devices.choose_device(options.device)
        try:
            self.learner = Learner(initial, options, self.processes, self.device)
        except RuntimeError as error:
            raise devices.failure(self.device, error) from error
        self._validation, self._validation_names = list(validation), [source_name(s) for s in validation]
        self.dataset = self._new_dataset()
        self.epoch = self.step_in_epoch = 0
        self.steps_per_epoch = math.ceil((options.slices_per_epoch or 1) / options.batch_size)
        self.history: list[EpochRecord] = []
        self.stopped: str | None = None
        #: False after a step failed half-way: its weights must not be saved.
        self.is_between_steps = True
        self.validation_seconds = 0.0
        self._losses: list[float] = []
        self._waited, self._epoch_began = 0.0, time.monotonic()
        self._minutes_before, self._began = 0.0, time.monotonic()

    # --- data ----------------------------------------------------------------------------------

    def _new_dataset(self) -> SliceDataset:
        folder = state_folder(self.output) / "slices"
        # The processes of a machine share the files that one of them writes.
        memory = 0 if self.processes.count > 1 else None
        initial = self.initial
        return SliceDataset(
            initial.preprocess, initial.sequences, folder, memory, initial.neighbouring_slices
        )

    def read(self, training: Sequence[Source]) -> Iterator[PatientRead | Notice]:
        """Read the training patients; unusable ones are left out with a notice."""
        check_split([source_name(s) for s in training], self._validation_names)
        if self.processes.local_rank == 0:
            for number, source in enumerate(training, 1):
                try:
                    self.dataset.add(opened(source))
                except PatientError as error:
                    yield Notice(f"Left out: {error}")
                yield PatientRead(source_name(source), number, len(training))
            if self.processes.count > 1:
                self.dataset.save_index()
        self.processes.wait()
        if self.processes.local_rank != 0:
            self.dataset.open()
        if not self.dataset.names:
            raise TrainingError("No training patient could be read; see the notice about each.")

    def plan(self) -> list[Tensor]:
        """The slices of each batch of the coming epoch: (n, 2) of patient and slice.

        Raises
        ------
        TrainingError
            If a batch has fewer slices than there are processes to share it.
        """
        options = self.options
        plan = self.dataset.plan(
            options.slices_per_epoch or 1,
            options.batch_size,
            options.tumour_share,
            epoch_seed(options, self.epoch + 1),
        )
        fewest = min(len(batch) for batch in plan)
        if fewest < self.processes.count:
            raise TrainingError(
                f"{fewest} slices in a step cannot be shared by {self.processes.count} processes; choose a "
                "larger batch size."
            )
        return plan

    def batches(self) -> Iterator[Batch]:
        """The rest of the epoch, batch by batch; this process's share of each."""
        plan = self.plan()
        self._epoch_began, self._waited = time.monotonic(), 0.0
        self._batch_sizes = [len(batch) for batch in plan]
        shares = [batch[self.processes.rank :: self.processes.count] for batch in plan]
        with closing(self.dataset.batches(shares[self.step_in_epoch :])) as batches:
            while True:
                asked = time.monotonic()
                batch = next(batches, None)
                self._waited += time.monotonic() - asked
                if batch is None:
                    return
                yield batch

    # --- a step --------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return (self.options.epochs or 1) * self.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """Steps so far."""
        return self.learner.steps

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return self.steps_done / self.steps

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether all steps of the epoch are done, and its validation, if any, is not."""
        return self.step_in_epoch == self.steps_per_epoch

    def step(self, batch: Batch) -> float:
        """One optimiser step; returns the loss of the batch.

        Raises
        ------
        TrainingError
            If loss or gradient is no longer a number, or another process is gone.
        DeviceError
            If the device fails, or has no memory for a single slice.
        """
        self.is_between_steps = False
        try:
            images, masks = self.prepared(batch)
        except (RuntimeError, MemoryError) as error:
            raise self.learner.failure(error) from error
        loss = self.learner.learn(images, masks, self._batch_sizes[self.step_in_epoch])
        self.is_between_steps = True
        self.step_in_epoch += 1
        self._losses.append(loss)
        return loss

    def prepared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The coming step's images (n, c, h, h) and masks on the device, normalised and augmented."""
        import torch

        raw = devices.to_device(batch.slices, self.device).float()
        images = normalise_each(raw[:, :-1], devices.to_device(batch.intensity_stats, self.device))
        options = self.options
        small = self.progress < (options.small_share or 0.0)
        generator = torch.Generator().manual_seed(
            step_seed(options, self.epoch + 1, self.step_in_epoch, self.processes.rank)
        )
        images, masks = augment(
            images,
            raw[:, -1:] / 255,
            generator,
            self.initial.sequences,
            min(options.small_size, self.initial.preprocess.working_size) if small else None,
            self.initial.neighbouring_slices,
            options.augmentation,
        )
        return images.contiguous(memory_format=torch.channels_last), masks

    # --- validation ----------------------------------------------------------------------------

    @property
    def network(self) -> nn.Module:
        """The network as the last step left it."""
        return self.learner.network

    @property
    def averaged(self) -> nn.Module:
        """The network with the averaged weights, which is validated and saved."""
        return self.learner.averaged

    def validate(self) -> Generator[TrainEvent, None, None]:
        """Dice of each validation patient over the whole volume; adds a record to the history."""
        began = time.monotonic()
        model = Model(self.averaged, self.card(None), self.output)
        # Other engines would have to convert the weights for each validation.
        predictor = Predictor(model, self.options.device, engine="torch")
        options = model.card.complete(SegmentOptions())
        mine, scores = self.processes.share(self._validation), {}
        for number, source in enumerate(mine, 1):
            try:
                patient = opened(source)
            except PatientError as error:
                yield Notice(f"Left out: {error}")
                continue
            assert patient.volume is not None
            assert patient.truth is not None
            labels = postprocess((yield from predictor.predict(patient.volume)), options)
            if patient.slices_without_mask:
                labels[np.isin(patient.slice_numbers, patient.slices_without_mask)] = 0
            scores[patient.name] = dice(labels, patient.truth)
            yield PatientValidated(patient.name, scores[patient.name], labels, number, len(mine))
        scores = self.processes.merged(scores)
        if not scores:
            raise TrainingError("No validation patient could be read; see the notice about each.")
        self.validation_seconds = time.monotonic() - began
        self.history.append(self._record(scores))

    def end_epoch(self, *, validated: bool) -> EpochRecord:
        """Count the epoch as done; returns its record."""
        if not validated:
            self.history.append(self._record({}))
        record = dataclasses.replace(self.history[-1], epoch=self.epoch + 1)
        self.history[-1] = record
        self.epoch, self.step_in_epoch, self._losses = self.epoch + 1, 0, []
        return record

    def _record(self, scores: Mapping[str, float]) -> EpochRecord:
        now = time.monotonic()
        return EpochRecord(
            epoch=self.epoch,
            step=self.steps_done,
            loss=sum(self._losses) / len(self._losses) if self._losses else None,
            learning_rate=self.learner.optimiser.param_groups[0]["lr"] if self._losses else 0.0,
            minutes=self._minutes_before + (now - self._began) / 60,
            waiting=self._waited / max(now - self._epoch_began, 1e-6) if self._losses else 0.0,
            scores=scores,
        )

    @property
    def is_validated(self) -> bool:
        """Whether the current weights have been validated."""
        return any(r.step == self.steps_done for r in self.history if r.scores)

    def take_notices(self) -> list[Notice]:
        """Notices for the user since the last call."""
        taken, self.learner.notices = self.learner.notices, []
        return taken

    @property
    def best(self) -> float:
        """The best mean Dice per validation patient so far; -1 before the first validation."""
        return max((r.validation.mean for r in self.history if r.validation is not None), default=-1.0)

    def is_best(self, record: EpochRecord) -> bool:
        """Whether a record's validation is better than all before it."""
        means = [r.validation.mean for r in self.history if r is not record and r.validation is not None]
        return record.validation is not None and record.validation.mean > max(means, default=-1.0)

    # --- ending, and going on ------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """End the training after this step, for a reason in one sentence."""
        self.stopped = self.stopped or reason

    def should_stop(self) -> bool:
        """Whether this process, or another one, was asked to stop."""
        if self.processes.any(self.stopped is not None, self.device):
            self.stop("Another process of this training was stopped.")
        return self.stopped is not None

    def split(self) -> dict[str, list[str]]:
        """Names of the training and validation patients."""
        return {"training": list(self.dataset.names), "validation": list(self._validation_names)}

    def card(self, record: EpochRecord | None) -> ModelCard:
        """The card of this run's model, with the results of a validation."""
        before = self.initial.card
        split = self.split()
        return ModelCard(
            name=self.output.stem,
            architecture=self.initial.architecture,
            sequences=self.initial.sequences,
            neighbouring_slices=self.initial.neighbouring_slices,
            preprocess=self.initial.preprocess,
            threshold=self.options.threshold or (before.threshold if before is not None else 0.5),
            clean_up=self.options.clean_up or (before.clean_up if before is not None else "off"),
            training_patients=tuple(split["training"]),
            validation_patients=tuple(split["validation"]),
            earlier_patients=tuple(sorted(self.initial.seen - set(split["training"]))),
            training={
                **dataclasses.asdict(self.options),
                "initial_model": before.name if before is not None else None,
                "epoch": self.epoch if record is None else record.epoch,
                "step": self.steps_done,
                "history": [row.as_row() for row in self.history],
                "processes": self.processes.count,
                "device": devices.describe_device(self.device),
                "versions": _versions(),
            },
            results=self._results(record),
            data=before.data if before is not None else "",
            licence=before.licence if before is not None else "",
            intended_use=before.intended_use if before is not None else "",
            created=date.today().isoformat(),
        )

    def _results(self, record: EpochRecord | None) -> dict[str, Any]:
        if record is None or record.validation is None:
            return {}
        first = self.history[0]
        return {
            "validation": dict(record.scores),
            "summary": dataclasses.asdict(record.validation),
            "before": dict(first.scores) if first.step == 0 else {},
            "seen_before": sorted(self.initial.seen & set(record.scores)),
            "note": "Dice per validation patient over the volume, threshold and clean-up of this model; "
            "the same patients chose the epoch.",
        }

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs, as tensors and plain values."""
        return {
            **self.learner.state(),
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "losses": self._losses,
            "minutes": self._minutes_before + (time.monotonic() - self._began) / 60,
            "history": [dataclasses.asdict(record) for record in self.history],
            "split": self.split(),
            "options": dataclasses.asdict(self.options),
            "preprocess": dataclasses.asdict(self.initial.preprocess),
        }

    def take_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self.learner.take_state(state)
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self._losses = list(state["losses"])
        self._minutes_before = state["minutes"]
        self.history = [EpochRecord(**record) for record in state["history"]]

    def close(self) -> None:
        """Release the memory of device and slices."""
        if self.processes.local_rank == 0:
            self.dataset.close()
        self.learner.close()


def source_name(source: Source) -> str:
    """The patient's name, without reading its slices."""
    return find_slices(source).name if isinstance(source, Path) else source.name


def opened(source: Source) -> Patient:
    """The patient with images and truth, read from its files if it is not in memory.

    Raises
    ------
    PatientError
        If it cannot be read, or has no images or no masks.
    """
    if isinstance(source, Path):
        patient = read_patient(source)
    else:
        patient = source if isinstance(source, Patient) else source.read()
    if patient.volume is None or patient.truth is None:
        raise PatientError(f"{patient.folder} has no images or no masks; training needs both.")
    return patient


def epoch_seed(options: TrainOptions, epoch: int) -> int:
    """Seed of the slices drawn for an epoch, so that a resumed training draws them again."""
    return options.seed * 100_003 + epoch


def step_seed(options: TrainOptions, epoch: int, step: int, rank: int) -> int:
    """Seed of the augmentation in one step of an epoch, in one process."""
    return ((epoch_seed(options, epoch) * 100_019 + step) * 1_009 + rank) % 2**63


def _versions() -> dict[str, str]:
    """Versions of Python and the packages that a training depends on, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for name in ("napari-lgg-seg", "torch", "monai", "numpy"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
