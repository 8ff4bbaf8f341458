"""Patients -> model file: the training loop, a generator of events.

The caller decides what to draw and when to stop; closing the generator ends the training. The best
model so far is always on disk, and so is the state from which the training can go on.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from . import devices
from .augment import augment
from .checkpoint import Model, ModelCard, save_model
from .cohort import Cohort
from .errors import TrainingError
from .export import replacing
from .metrics import Summary, dice, summarise
from .postprocess import to_labels
from .predict import Predictor, drain
from .preprocess import PreprocessOptions, resample

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .patients import Patient

    Tensors = list[Tensor] | tuple[Tensor, ...]


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides a training, with its defaults.

    Attributes
    ----------
    epochs : int
        Epochs of ``slices_per_epoch`` slices.
    slices_per_epoch : int
        Slices that the network sees in an epoch, drawn anew for each.
    batch_size : int
        Slices in one step.
    learning_rate, weight_decay : float
        Of AdamW. The rate warms up over the first 5 % of the steps, then falls to 0 as a cosine.
    tumour_share : float
        Share of drawn slices that show tumour; the rest are empty, or false positives return.
    small_size : int
        Side of the slices, in pixels, during the first part of the training.
    small_share : float
        That part, as a share of the epochs; afterwards slices have the working size.
    average_decay : float
        Of the exponential moving average of the weights, which is what is kept.
    gradient_clip : float
        Largest norm of the gradient.
    validate_every : int
        Epochs between validations; the last epoch is always validated.
    seed : int
        Of initial weights, order of slices and augmentation.
    device : str
        "auto", "cuda", "mps" or "cpu".
    max_minutes : float or None
        Stop after this time, keeping the state to resume from.
    """

    epochs: int = 44
    slices_per_epoch: int = 1280
    batch_size: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    tumour_share: float = 0.55
    small_size: int = 128
    small_share: float = 0.65
    average_decay: float = 0.998
    gradient_clip: float = 1.0
    validate_every: int = 4
    seed: int = 0
    device: str = "auto"
    max_minutes: float | None = None


@dataclass(frozen=True)
class StepDone:
    """One optimiser step: its number, how many there are, and the batch's loss."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class EpochDone:
    """One epoch: its number (from 1), how many there are, mean loss, and the validation if there was one."""

    epoch: int
    epochs: int
    loss: float
    validation: Summary | None
    best: float


def train(
    training: Sequence[Patient],
    validation: Sequence[Patient],
    output: Path,
    options: TrainOptions,
    preprocess: PreprocessOptions | None = None,
    *,
    resume: bool = False,
) -> Iterator[StepDone | EpochDone]:
    """Train the U-Net from scratch.

    Parameters
    ----------
    training, validation : sequence of Patient
        Patients with truth; none may be in both.
    output : Path
        The best model so far, by mean Dice per validation patient, is kept here; the training
        state beside it in ``<output stem>.state``.
    options : TrainOptions
        See there.
    preprocess : PreprocessOptions, optional
        Working size and normalisation of the new model.
    resume : bool
        Go on from the training state if there is one.

    Yields
    ------
    StepDone or EpochDone
        Close the generator to stop; the best model and the last epoch's state stay on disk.

    Raises
    ------
    TrainingError
        If a patient is in both sets, truth is missing, or the loss is no longer a number.
    """
    _check_split(training, validation)
    run = _Run(Cohort(training, preprocess or PreprocessOptions()), validation, output, options)
    if resume:
        run.load_state()
    deadline = time.monotonic() + 60 * options.max_minutes if options.max_minutes is not None else math.inf
    for epoch in range(run.epoch + 1, options.epochs + 1):
        losses = []
        for batch in run.cohort.batches(
            options.slices_per_epoch, options.batch_size, options.tumour_share, epoch_seed(options, epoch)
        ):
            losses.append(run.step(*batch))
            yield StepDone(run.steps_done, run.steps, losses[-1])
        run.epoch = epoch
        due = epoch % options.validate_every == 0 or epoch == options.epochs
        summary = run.validate() if due else None
        run.save_state()
        yield EpochDone(epoch, options.epochs, sum(losses) / len(losses), summary, run.best)
        if time.monotonic() > deadline:
            return


def check_output(output: Path, *, resume: bool) -> None:
    """Refuse an output that would replace an older model, unless its training is resumed.

    Raises
    ------
    TrainingError
        If the name has another ending, or the file exists and ``resume`` is not set.
    """
    if output.suffix != ".safetensors":
        raise TrainingError(f"{output} must end in .safetensors; choose such a name for the model.")
    if output.exists() and not resume:
        raise TrainingError(f"{output} exists already; choose another name, or go on with --resume.")


def epoch_seed(options: TrainOptions, epoch: int) -> int:
    """Seed of everything random in an epoch, so that a resumed training repeats it."""
    return options.seed * 100_003 + epoch


def learning_rate_at(progress: float, peak: float, warm_up: float = 0.05) -> float:
    """Learning rate at a share of the training: linear warm-up, then a cosine to 0."""
    if progress < warm_up:
        return peak * progress / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


class _Run:
    """Network, average, optimiser and their state on disk."""

    def __init__(
        self, cohort: Cohort, validation: Sequence[Patient], output: Path, options: TrainOptions
    ) -> None:
        import torch

        from .losses import BceDiceLoss
        from .networks import UNet

        self.cohort, self.validation, self.output, self.options = cohort, validation, output, options
        self.device = devices.choose_device(options.device)
        torch.manual_seed(options.seed)
        self.network: nn.Module = UNet().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=self._average, use_buffers=True
        )
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.loss = BceDiceLoss()
        self.epoch = self.steps_done = 0
        self.steps = options.epochs * math.ceil(options.slices_per_epoch / options.batch_size)
        self.best = -1.0
        self.history: list[dict[str, Any]] = []

    def _average(self, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        """Exponential moving average that starts short and grows to its full length."""
        import torch

        if not averaged[0].is_floating_point():  # counters; torch groups the tensors by dtype
            torch._foreach_copy_(averaged, current)
            return
        decay = min(self.options.average_decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def step(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> float:
        """One optimiser step on a batch of normalised slices; returns its loss."""
        import torch

        options = self.options
        progress = self.steps_done / self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(progress, options.learning_rate)
        self.network.train()
        images, masks = images.to(self.device), masks.to(self.device)
        images, masks = augment(images, masks, generator)
        if progress < options.small_share:
            images, masks = resample(images, options.small_size), resample(masks, options.small_size)
        images = images.contiguous(memory_format=torch.channels_last)
        with devices.autocast(self.device):
            logits = self.network(images)
        loss = self.loss(logits.float(), masks)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"The loss is no longer a number at step {self.steps_done + 1}; the best model so far "
                "is kept - train again with a lower learning rate."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), options.gradient_clip)
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.steps_done += 1
        return value

    def card(self, figures: dict[str, Any]) -> ModelCard:
        """The header for a model of this run."""
        return ModelCard(
            name=self.output.stem,
            preprocess=self.cohort.preprocess,
            training_patients=tuple(p.name for p in self.cohort.patients),
            validation_patients=tuple(p.name for p in self.validation),
            training={**dataclasses.asdict(self.options), "epoch": self.epoch, "history": self.history},
            figures=figures,
            created=date.today().isoformat(),
        )

    def validate(self) -> Summary:
        """Dice per validation patient with the averaged weights; the best model is kept on disk."""
        model = Model(self.average.module, self.card({}), self.output)
        predictor = Predictor(model, self.options.device)
        scores = {}
        for patient in self.validation:
            assert patient.volume is not None
            assert patient.truth is not None
            labels = to_labels(drain(predictor.predict(patient.volume)), model.card.threshold)
            scores[patient.name] = dice(labels, patient.truth)
        summary = summarise(scores)
        self.history.append({"epoch": self.epoch, "mean": summary.mean, "median": summary.median})
        if summary.mean > self.best:
            self.best = summary.mean
            save_model(self.output, self.average.module, self.card({"validation": scores}))
        return summary

    @property
    def _state_path(self) -> Path:
        return self.output.with_name(f"{self.output.stem}.state") / "last.pt"

    def _split(self) -> dict[str, list[str]]:
        return {
            "training": [p.name for p in self.cohort.patients],
            "validation": [p.name for p in self.validation],
        }

    def save_state(self) -> None:
        """Write everything that a resumed training needs, atomically."""
        import torch

        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "steps_done": self.steps_done,
            "best": self.best,
            "history": self.history,
            "split": self._split(),
        }
        with replacing(self._state_path) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # so it reports a full disk
                raise OSError(str(error).splitlines()[0]) from error

    def load_state(self) -> None:
        """Go on from the state on disk, if there is one."""
        import torch

        if not self._state_path.is_file():
            return
        try:
            state = torch.load(self._state_path, map_location=self.device, weights_only=True)
            if state["split"] != self._split():
                raise TrainingError(
                    f"{self._state_path} is of a training with other patients; resume with the same cohort "
                    "and split, or choose another output."
                )
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.epoch, self.steps_done = state["epoch"], state["steps_done"]
            self.best, self.history = state["best"], state["history"]
        except (OSError, EOFError, KeyError, ValueError, RuntimeError, UnpicklingError) as error:
            raise TrainingError(
                f"{self._state_path} is damaged; remove it and start the training anew."
            ) from error


def _check_split(training: Sequence[Patient], validation: Sequence[Patient]) -> None:
    both = sorted({p.name for p in training} & {p.name for p in validation})
    if both:
        raise TrainingError(f"{both[0]} is in both training and validation; keep it in one of them.")
    if not training or not validation:
        raise TrainingError("Training needs at least one patient for training and one for validation.")
    for patient in (*training, *validation):
        if patient.truth is None or patient.volume is None:
            raise TrainingError(f"{patient.folder} has no images or no masks; training needs both.")
