"""The options of a training, in one frozen dataclass: defaults, limits and help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..choices import (
    MOST_NEIGHBOURS,
    CleanUp,
    Loss,
    NetworkName,
    Optimiser,
    SequenceChoice,
    Threshold,
    check_options,
    check_threshold,
    option,
)
from ..devices import DeviceChoice


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides a training; each field's ``metadata["help"]`` says what it does.

    A default of None depends on the initial model, since trained weights need fewer and smaller steps than
    random ones: see :meth:`complete`.

    Raises
    ------
    OptionsError
        If a value is outside its limits.
    """

    init: str | None = field(
        default=None,
        metadata=option(
            "The initial weights: 'default' (the shipped model), 'scratch' (random), or a model file. "
            "By default the shipped model if network, sequences and neighbouring slices agree with it, "
            "else scratch."
        ),
    )
    network: NetworkName | None = field(
        default=None,
        metadata=option(
            "unet: the four-level U-Net of 10,655,809 parameters; buda: the original study's of 7,763,041. "
            "The initial model's by default."
        ),
    )
    sequences: SequenceChoice | None = field(
        default=None,
        metadata=option(
            "all: pre-contrast, FLAIR and post-contrast; flair: FLAIR alone. The initial model's by default."
        ),
    )
    neighbouring_slices: int | None = field(
        default=None,
        metadata=option(
            "Slices above each slice, and as many below, that the network sees with it. The initial "
            "model's by default, 0 from scratch.",
            lowest=0,
            highest=MOST_NEIGHBOURS,
        ),
    )
    loss: Loss = field(
        default="bce",
        metadata=option(
            "bce: binary cross-entropy, whose probabilities are calibrated best; dice: soft Dice over the "
            "batch; bce+dice: their sum. Losses with Dice need MONAI (extra train)."
        ),
    )
    epochs: int | None = field(
        default=None,
        metadata=option(
            "Epochs of a fixed number of slices each; the learning rate falls to 0 over all of them.",
            lowest=1,
            may_change=True,
            fine_tuning=10,
            scratch=12,
        ),
    )
    slices_per_epoch: int | None = field(
        default=None,
        metadata=option(
            "Slices that the network sees in an epoch, drawn anew for each.",
            lowest=1,
            fine_tuning=160,
            scratch=1280,
        ),
    )
    batch_size: int = field(
        default=8,
        metadata=option(
            "Slices in one step, over all processes; where memory is short they are computed in parts.",
            lowest=1,
        ),
    )
    optimiser: Optimiser | None = field(
        default=None,
        metadata=option(
            "muon: needs a third of AdamW's steps from scratch, each a little slower; adamw: AdamW.",
            fine_tuning="adamw",
            scratch="muon",
        ),
    )
    learning_rate: float | None = field(
        default=None,
        metadata=option(
            "Peak learning rate, after a linear warm-up and before a cosine to 0.",
            lowest=0,
            fine_tuning=1e-3,
            scratch=2e-3,
        ),
    )
    warm_up: float = field(
        default=0.05,
        metadata=option("Share of the steps in which the learning rate rises.", lowest=0, highest=1),
    )
    weight_decay: float = field(default=0.05, metadata=option("Weight decay of the optimiser.", lowest=0))
    gradient_clip: float = field(
        default=1.0, metadata=option("Largest norm of the gradient; a longer one is scaled down.", lowest=0)
    )
    average_decay: float | None = field(
        default=None,
        metadata=option(
            "Decay of the moving average of the weights, which is what is validated and saved; 0: no "
            "average. In fine-tuning the average begins with the initial model's weights, so that few "
            "patients cannot lead far away from them.",
            lowest=0,
            highest=0.999999,
            fine_tuning=0.995,
            scratch=0.998,
        ),
    )
    tumour_share: float = field(
        default=0.55,
        metadata=option(
            "Share of slices that show tumour; without enough empty ones false positives return.",
            lowest=0,
            highest=1,
        ),
    )
    small_size: int = field(
        default=128,
        metadata=option(
            "Side, in pixels, of the slices in the first part of the training, which makes it faster; "
            "the rest is trained at the model's working size.",
            lowest=16,
            highest=4096,
        ),
    )
    small_share: float | None = field(
        default=None,
        metadata=option(
            "Length of that first part, as a share of all steps.",
            lowest=0,
            highest=1,
            fine_tuning=0.0,
            scratch=0.65,
        ),
    )
    augmentation: float = field(
        default=1.0,
        metadata=option(
            "Strength of the random changes to pose, contrast, shading, sharpness and noise; 0: only mirror "
            "images and missing sequences.",
            lowest=0,
            highest=3,
        ),
    )
    threshold: Threshold | None = field(
        default=None,
        metadata=option(
            "The model's own threshold, also used to validate it: a number or auto. By default the "
            "initial model's, auto from scratch.",
            scratch="auto",
        ),
    )
    clean_up: CleanUp | None = field(
        default=None,
        metadata=option(
            "The model's own clean-up, also used to validate it. By default the initial model's, minor from "
            "scratch.",
            scratch="minor",
        ),
    )
    validate_every: int | None = field(
        default=None,
        metadata=option(
            "Epochs between validations; the last epoch is always validated.",
            lowest=1,
            may_change=True,
            fine_tuning=1,
            scratch=2,
        ),
    )
    patience: int = field(
        default=10,
        metadata=option(
            "Stop after this many validations without a better mean Dice per patient; 0: never.",
            lowest=0,
            may_change=True,
        ),
    )
    seed: int = field(
        default=0, metadata=option("Seed of the split, initial weights, order of slices and augmentation.")
    )
    device: DeviceChoice = field(
        default="auto",
        metadata=option(
            "Where the network is trained. Auto takes the first of CUDA, MPS and CPU that is present.",
            may_change=True,
        ),
    )
    max_minutes: float | None = field(
        default=None,
        metadata=option(
            "Stop after this many minutes, counted from each start; go on later with --resume.",
            lowest=0,
            may_change=True,
        ),
    )

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_options(self)

    def complete(self, *, fine_tuning: bool) -> TrainOptions:
        """The options with their defaults filled in, for a start from a trained model or from scratch."""
        which = "fine_tuning" if fine_tuning else "scratch"
        defaults = {f.name: f.metadata["defaults"].get(which) for f in dataclasses.fields(self)}
        return dataclasses.replace(
            self,
            **{
                name: value
                for name, value in defaults.items()
                if value is not None and getattr(self, name) is None
            },
        )


def default_summary(name: str) -> str:
    """A sentence about the default of an option; empty where its help says it."""
    found = next(f for f in dataclasses.fields(TrainOptions) if f.name == name)
    if found.default is not None:
        return f"By default {_show(found.default)}."
    defaults: dict[str, Any] = found.metadata["defaults"]
    if "fine_tuning" not in defaults:
        return ""
    tuning, scratch = _show(defaults["fine_tuning"]), _show(defaults["scratch"])
    return f"By default {tuning} from a model, {scratch} from scratch."


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
