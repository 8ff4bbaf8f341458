"""A training in progress: its network, optimiser and data, and what has been done so far."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import devices
from ..errors import PatientError, TrainingError
from ..inference.predict import Notice
from ..model.preprocess import normalise_each
from . import distributed
from .augment import augment
from .events import PatientRead
from .history import EpochRecord
from .initial_model import InitialModel
from .learner import Learner
from .options import TrainOptions
from .paths import state_folder
from .patients import Source, load_patient, source_name
from .slice_dataset import Batch, SliceDataset
from .split import check_split

if TYPE_CHECKING:
    from torch import Tensor, nn


class Run:
    """A training in progress, as callbacks see it.

    Parameters
    ----------
    initial : InitialModel
        Network, weights and preprocessing to start from.
    validation : sequence of Patient, Path or PatientFiles
        Validation patients.
    output : Path
        The model file.
    options : TrainOptions
        With all defaults filled in.

    Attributes
    ----------
    learner : Learner
        Network, optimiser and loss.
    dataset : SliceDataset
        Slices of the training patients.
    history : list of EpochRecord
        A record of each epoch, and of each validation outside of one.
    epoch, step_in_epoch : int
        Completed epochs, and completed steps of the current one.
    stopped : str or None
        Why the training is to stop before its last epoch.
    is_between_steps : bool
        False while a step is running and after one has failed, when the weights must not be saved.
    validation_seconds : float
        Duration of the last validation.
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
        self.validation, self._validation_names = list(validation), [source_name(s) for s in validation]
        self.dataset = self._new_dataset()
        self.epoch = self.step_in_epoch = 0
        self.steps_per_epoch = math.ceil((options.slices_per_epoch or 1) / options.batch_size)
        self.history: list[EpochRecord] = []
        self.stopped: str | None = None
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
        """Read the training patients; unusable ones are left out with a notice.

        Raises
        ------
        TrainingError
            If a patient is also a validation patient, or none can be read or shows tumour.
        """
        check_split([source_name(s) for s in training], self._validation_names)
        if self.processes.local_rank == 0:
            for number, source in enumerate(training, 1):
                try:
                    self.dataset.add(load_patient(source))
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
        if not self.dataset.shows_tumour:
            raise TrainingError(
                f"No mask of the {len(self.dataset.names)} training patients marks tumour; check the masks, "
                "or choose other patients."
            )

    def plan(self) -> list[Tensor]:
        """Draw the slices of the current epoch: for each batch, (n, 2) indices of patient and slice.

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
        """Yield this process's share of each remaining batch of the epoch."""
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

    # --- steps ---------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Number of steps of the whole training."""
        return (self.options.epochs or 1) * self.steps_per_epoch

    @property
    def steps_done(self) -> int:
        """Number of completed steps."""
        return self.learner.steps

    @property
    def progress(self) -> float:
        """Fraction of the steps that are completed."""
        return self.steps_done / self.steps

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether all steps of the epoch are completed, but not yet its validation, if it has one."""
        return self.step_in_epoch == self.steps_per_epoch

    @property
    def network(self) -> nn.Module:
        """The network with the weights of the last step."""
        return self.learner.network

    @property
    def averaged(self) -> nn.Module:
        """The network with the averaged weights, which is validated and saved."""
        return self.learner.averaged

    def step(self, batch: Batch) -> float:
        """Do one optimiser step; returns the loss of the batch.

        Raises
        ------
        TrainingError
            If the loss or gradient is not finite, or another process has ended.
        DeviceError
            If the device fails, or has too little memory for a single slice.
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
        """Normalise and augment a batch for the next step.

        Returns
        -------
        images, masks : Tensor
            Shapes (n, c, h, h), z-scored, and (n, 1, h, h), 0 to 1; float32 on the device.
        """
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

    def take_notices(self) -> list[Notice]:
        """Return the notices for the user since the last call."""
        taken, self.learner.notices = self.learner.notices, []
        return taken

    # --- history -------------------------------------------------------------------------------

    def add_validation(self, scores: Mapping[str, float], seconds: float) -> None:
        """Add the Dice of each validation patient, and how long the validation took."""
        self.validation_seconds = seconds
        self.history.append(self._record(scores))

    def end_epoch(self, *, validated: bool) -> EpochRecord:
        """Count the epoch as completed and return its record."""
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

    @property
    def best(self) -> float:
        """The highest mean Dice per validation patient so far; -1 before the first validation."""
        return max((r.validation.mean for r in self.history if r.validation is not None), default=-1.0)

    def is_best(self, record: EpochRecord) -> bool:
        """Whether a record has a higher mean Dice than all others of the history."""
        means = [r.validation.mean for r in self.history if r is not record and r.validation is not None]
        return record.validation is not None and record.validation.mean > max(means, default=-1.0)

    # --- stopping and resuming -----------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Ask the training to stop after this step; the reason is one sentence."""
        self.stopped = self.stopped or reason

    def should_stop(self) -> bool:
        """Whether any of the processes was asked to stop."""
        if self.processes.any(self.stopped is not None, self.device):
            self.stop("Another process of this training was stopped.")
        return self.stopped is not None

    def split(self) -> dict[str, list[str]]:
        """Return the names of the training and the validation patients."""
        return {"training": list(self.dataset.names), "validation": list(self._validation_names)}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed training needs, as tensors and plain values."""
        return {
            **self.learner.state_dict(),
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "losses": self._losses,
            "minutes": self._minutes_before + (time.monotonic() - self._began) / 60,
            "history": [dataclasses.asdict(record) for record in self.history],
            "split": self.split(),
            "options": dataclasses.asdict(self.options),
            "preprocess": dataclasses.asdict(self.initial.preprocess),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what :meth:`state_dict` returned."""
        self.learner.load_state_dict(state)
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self._losses = list(state["losses"])
        self._minutes_before = state["minutes"]
        self.history = [EpochRecord(**record) for record in state["history"]]

    def close(self) -> None:
        """Release the device's memory and the slices."""
        if self.processes.local_rank == 0:
            self.dataset.close()
        self.learner.close()


def epoch_seed(options: TrainOptions, epoch: int) -> int:
    """Return the seed of an epoch's slices, so that a resumed training draws the same ones."""
    return options.seed * 100_003 + epoch


def step_seed(options: TrainOptions, epoch: int, step: int, rank: int) -> int:
    """Return the seed of the augmentation in one step of an epoch, in one process."""
    return ((epoch_seed(options, epoch) * 100_019 + step) * 1_009 + rank) % 2**63
