"""Options of a training with their defaults, limits and help, defined once for all interfaces."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..choices import (
    MAX_NEIGHBOURS,
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

#: Upper limit of counts, beyond what any training needs.
MOST = 1_000_000


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training; each field's ``metadata["help"]`` says what it does.

    Where the default is None, it depends on the initial model: trained weights need fewer and smaller steps
    than random ones. See :meth:`complete`.

    Raises
    ------
    OptionsError
        If a value is outside its limits.
    """

    init: str | None = field(
        default=None,
        metadata=option(
            "The initial weights: 'default' (the shipped model), 'scratch' (random), or a model file. "
            "By default the shipped model if its network, sequences and neighbouring slices match, else "
            "scratch."
        ),
    )
    network: NetworkName | None = field(
        default=None,
        metadata=option(
            "unet: four-level U-Net, 10,655,809 parameters; buda: the original study's, 7,763,041. "
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
            "Number of neighbouring slices on each side that the network sees with each slice. The initial "
            "model's by default, 0 from scratch.",
            minimum=0,
            maximum=MAX_NEIGHBOURS,
        ),
    )
    loss: Loss = field(
        default="bce",
        metadata=option(
            "bce: binary cross-entropy, which gives the best-calibrated probabilities; dice: soft Dice over "
            "the batch; bce+dice: their sum. Losses with Dice need MONAI (extra train)."
        ),
    )
    epochs: int | None = field(
        default=None,
        metadata=option(
            "Number of epochs; the learning rate falls to 0 over all of them.",
            minimum=1,
            maximum=MOST,
            may_change=True,
            fine_tuning=10,
            scratch=12,
        ),
    )
    slices_per_epoch: int | None = field(
        default=None,
        metadata=option(
            "Slices drawn at random for each epoch.",
            minimum=1,
            maximum=MOST,
            fine_tuning=160,
            scratch=1280,
        ),
    )
    batch_size: int = field(
        default=8,
        metadata=option(
            "Slices in one step, over all processes; computed in parts if memory is short.",
            minimum=1,
            maximum=MOST,
        ),
    )
    optimiser: Optimiser | None = field(
        default=None,
        metadata=option(
            "muon needs a third of AdamW's steps from scratch, each a little slower; adamw is AdamW.",
            fine_tuning="adamw",
            scratch="muon",
        ),
    )
    learning_rate: float | None = field(
        default=None,
        metadata=option(
            "Peak learning rate, after a linear warm-up and before a cosine to 0.",
            minimum=0,
            maximum=100,
            fine_tuning=1e-3,
            scratch=2e-3,
        ),
    )
    warm_up: float = field(
        default=0.05,
        metadata=option("Fraction of the steps in which the learning rate rises.", minimum=0, maximum=1),
    )
    weight_decay: float = field(
        default=0.05, metadata=option("Weight decay of the optimiser.", minimum=0, maximum=100)
    )
    gradient_clip: float = field(
        default=1.0,
        metadata=option(
            "Largest norm of the gradient; larger ones are scaled down.", minimum=0, maximum=MOST
        ),
    )
    average_decay: float | None = field(
        default=None,
        metadata=option(
            "Decay of the exponential moving average of the weights, which is what is validated and saved; "
            "0: no average. When fine-tuning, the average starts from the initial model's weights, so that "
            "a few patients cannot change them much.",
            minimum=0,
            maximum=0.999999,
            fine_tuning=0.995,
            scratch=0.998,
        ),
    )
    tumour_share: float = field(
        default=0.55,
        metadata=option(
            "Fraction of slices that show tumour; too few empty slices lead to false positives.",
            minimum=0,
            maximum=1,
        ),
    )
    small_size: int = field(
        default=128,
        metadata=option(
            "Side, in pixels, of the slices in the first part of a training, which saves time; the rest is "
            "trained at the model's working size.",
            minimum=16,
            maximum=4096,
        ),
    )
    small_share: float | None = field(
        default=None,
        metadata=option(
            "Fraction of all steps that use slices of the small size.",
            minimum=0,
            maximum=1,
            fine_tuning=0.0,
            scratch=0.65,
        ),
    )
    augmentation: float = field(
        default=1.0,
        metadata=option(
            "Strength of the random augmentation of pose, contrast, bias field, sharpness and noise; 0: "
            "only mirror images and missing sequences.",
            minimum=0,
            maximum=3,
        ),
    )
    threshold: Threshold | None = field(
        default=None,
        metadata=option(
            "The new model's default threshold, also used for validation: a number or auto. By default the "
            "initial model's, auto from scratch.",
            scratch="auto",
        ),
    )
    clean_up: CleanUp | None = field(
        default=None,
        metadata=option(
            "The new model's default clean-up, also used for validation. By default the initial model's, "
            "minor from scratch.",
            scratch="minor",
        ),
    )
    validate_every: int | None = field(
        default=None,
        metadata=option(
            "Epochs from one validation to the next; the last epoch is always validated.",
            minimum=1,
            maximum=MOST,
            may_change=True,
            fine_tuning=1,
            scratch=2,
        ),
    )
    patience: int = field(
        default=10,
        metadata=option(
            "Stop after this many validations without a higher mean Dice per patient; 0: never.",
            minimum=0,
            maximum=MOST,
            may_change=True,
        ),
    )
    seed: int = field(
        default=0,
        metadata=option(
            "Seed of the split, random weights, drawn slices and augmentation.", minimum=0, maximum=2**31 - 1
        ),
    )
    device: DeviceChoice = field(
        default="auto",
        metadata=option(
            "Where the network is trained. Auto takes the first of CUDA, MPS and CPU that is available.",
            may_change=True,
        ),
    )
    max_minutes: float | None = field(
        default=None,
        metadata=option(
            "Stop after this many minutes, counted from each start; the training can be resumed later.",
            minimum=0,
            maximum=MOST,
            may_change=True,
        ),
    )

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_options(self)

    def complete(self, *, fine_tuning: bool) -> TrainOptions:
        """Fill in the defaults that depend on the initial model.

        Parameters
        ----------
        fine_tuning : bool
            Whether the training starts from a trained model, not from scratch.

        Returns
        -------
        TrainOptions
            Options that are None still are the initial model's, or have no default.
        """
        which = "fine_tuning" if fine_tuning else "scratch"
        defaults = {f.name: f.metadata["defaults"].get(which) for f in dataclasses.fields(self)}
        missing = {
            name: value
            for name, value in defaults.items()
            if value is not None and getattr(self, name) is None
        }
        return dataclasses.replace(self, **missing)


def default_summary(name: str) -> str:
    """Describe the default of an option in a sentence; empty if the option's help does.

    Parameters
    ----------
    name : str
        A field of :class:`TrainOptions`.
    """
    field = next(f for f in dataclasses.fields(TrainOptions) if f.name == name)
    if field.default is not None:
        return f"By default {_as_text(field.default)}."
    defaults: dict[str, Any] = field.metadata["defaults"]
    if "fine_tuning" not in defaults:
        return ""
    fine_tuning, scratch = _as_text(defaults["fine_tuning"]), _as_text(defaults["scratch"])
    return f"By default {fine_tuning} for fine-tuning, {scratch} from scratch."


def _as_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
