"""What a user can choose for a training."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, get_args

from ..choices import (
    MOST_NEIGHBOURS,
    NETWORK_NAMES,
    CleanUp,
    Draw,
    NetworkName,
    Optimiser,
    OptionsError,
    SequenceChoice,
    Threshold,
    changeable,
    check_clean_up,
    check_threshold,
    described,
)
from ..devices import DeviceChoice
from .losses import LOSSES, Loss


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides a training; each field's ``metadata["help"]`` says what it does.

    Where the default is None it depends on the start, since weights that know the task want fewer and
    smaller steps than random ones: see :meth:`complete`.

    Raises
    ------
    OptionsError
        If a value is outside its limits.
    """

    init: str | None = field(
        default=None,
        metadata=described(
            "Where weights come from: 'default' (the shipped model), 'scratch' (random), or a model file. "
            "Without it: the shipped model if it has the wanted network, sequences and neighbouring slices, "
            "else scratch."
        ),
    )
    network: NetworkName | None = field(
        default=None,
        metadata=described(
            "unet: the four-level U-Net of 10,655,809 parameters; buda: the original study's of 7,763,041. "
            "The initial model's by default."
        ),
    )
    sequences: SequenceChoice | None = field(
        default=None,
        metadata=described(
            "all: pre-contrast, FLAIR and post-contrast; flair: FLAIR alone. The initial model's by default."
        ),
    )
    neighbouring_slices: int | None = field(
        default=None,
        metadata=described(
            "Slices above each slice, and as many below, that the network sees with it: 0 to 3. The initial "
            "model's by default, 0 from scratch."
        ),
    )
    loss: Loss = field(
        default="bce",
        metadata=described(
            "What is minimised: binary cross-entropy, whose probabilities are the most honest; Dice over the "
            "batch; their sum; or cross-entropy and Tversky, to which missed voxels cost more."
        ),
    )
    epochs: int | None = field(
        default=None,
        metadata=changeable(
            "Epochs, each of a fixed number of slices; the learning rate falls to 0 over all."
        ),
    )
    slices_per_epoch: int | None = field(
        default=None, metadata=described("Slices that the network sees in an epoch, drawn anew for each.")
    )
    batch_size: int = field(
        default=8, metadata=described("Slices in one step, over all processes; with less memory, in parts.")
    )
    optimiser: Optimiser | None = field(
        default=None,
        metadata=described(
            "muon: needs a third of AdamW's steps from scratch, each a little slower; adamw: the usual one."
        ),
    )
    learning_rate: float | None = field(
        default=None,
        metadata=described("Peak rate of the optimiser, after a linear warm-up and before a cosine to 0."),
    )
    warm_up: float = field(default=0.05, metadata=described("Share of the steps in which the rate rises."))
    weight_decay: float = field(default=0.05, metadata=described("Of the optimiser."))
    gradient_clip: float = field(default=1.0, metadata=described("Largest norm of the gradient."))
    average_decay: float | None = field(
        default=None,
        metadata=described(
            "Of the moving average of the weights, which is what is validated and kept; 0: none. From a "
            "model, the average begins with that model's weights, so that little data cannot lead far away."
        ),
    )
    freeze_encoder: bool = field(
        default=False,
        metadata=described("Leave the way down as it is and train the rest: for very small sets."),
    )
    tumour_share: float = field(
        default=0.55,
        metadata=described(
            "Share of slices that show tumour; the rest are empty, or false positives return."
        ),
    )
    draw: Draw = field(
        default="slices",
        metadata=described(
            "How tumour slices are drawn: each as often as any other (slices), or as many of each patient "
            "(patients), so that small tumours count as much as large ones."
        ),
    )
    small_size: int = field(
        default=128,
        metadata=described(
            "Side, in pixels, of the slices in the first part of the training, which makes it quicker; "
            "later they have the working size."
        ),
    )
    small_share: float | None = field(
        default=None, metadata=described("That first part, as a share of all steps.")
    )
    crop_share: float = field(
        default=0.0,
        metadata=described(
            "In the first part: share of slices that are a window centred near tumour at full resolution, "
            "instead of the whole slice made small."
        ),
    )
    augmentation: float = field(
        default=1.0,
        metadata=described(
            "Strength of the random changes to pose, contrast, shading, sharpness and noise; 0: mirroring "
            "and missing sequences alone."
        ),
    )
    threshold: Threshold | None = field(
        default=None,
        metadata=described(
            "The model's own threshold, with which it is validated, too: a number or auto. By default the "
            "initial model's, auto from scratch."
        ),
    )
    clean_up: CleanUp | None = field(
        default=None,
        metadata=described(
            "The model's own clean-up, with which it is validated, too. By default the initial model's, "
            "minor from scratch."
        ),
    )
    validate_every: int | None = field(
        default=None, metadata=changeable("Epochs between validations; the last is always validated.")
    )
    patience: int = field(
        default=10,
        metadata=changeable(
            "Stop after this many validations without a better mean Dice per patient; 0: never."
        ),
    )
    seed: int = field(
        default=0, metadata=described("Of split, random weights, order of slices, augmentation.")
    )
    device: DeviceChoice = field(
        default="auto",
        metadata=changeable(
            "Where the network is trained. Auto takes CUDA, then MPS, then the CPU, whichever is present."
        ),
    )
    max_minutes: float | None = field(
        default=None,
        metadata=changeable("Stop after this time, counted for each call; go on later with --resume."),
    )

    def __post_init__(self) -> None:
        shares = ("tumour_share", "crop_share", "small_share", "warm_up")
        limits: dict[str, tuple[float, float]] = dict.fromkeys(shares, (0, 1))
        limits |= dict.fromkeys(("epochs", "slices_per_epoch", "batch_size", "validate_every"), (1, math.inf))
        limits |= dict.fromkeys(("patience", "learning_rate", "weight_decay", "max_minutes"), (0, math.inf))
        limits["augmentation"] = (0, 3)
        limits |= {"average_decay": (0, 0.999999), "small_size": (16, 4096)}
        limits["neighbouring_slices"] = (0, MOST_NEIGHBOURS)
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                words = name.replace("_", " ")
                article = "An" if words[0] in "aeiou" else "A"
                raise OptionsError(
                    f"{article} {words} of {value} is outside {lowest} to {highest}; choose another."
                )
        check_threshold(self.threshold)
        check_clean_up(self.clean_up)
        choices: dict[str, tuple[str | None, ...]] = {
            "loss": LOSSES,
            "network": (None, *NETWORK_NAMES),
            "sequences": (None, *get_args(SequenceChoice)),
            "draw": get_args(Draw),
            "optimiser": (None, *get_args(Optimiser)),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise OptionsError(
                    f"A {name} {getattr(self, name)!r} is not known; choose one of "
                    f"{', '.join(k for k in known if k)}."
                )

    def complete(self, *, fine_tuning: bool) -> TrainOptions:
        """The options with nothing left open, for a start from a trained model or from scratch."""
        defaults = _FINE_TUNING if fine_tuning else _SCRATCH
        return dataclasses.replace(
            self, **{name: value for name, value in defaults.items() if getattr(self, name) is None}
        )


_SCRATCH: dict[str, Any] = {
    "optimiser": "muon",
    "threshold": "auto",
    "clean_up": "minor",
    "epochs": 12,
    "slices_per_epoch": 1280,
    "learning_rate": 2e-3,
    "average_decay": 0.998,
    "small_share": 0.65,
    "validate_every": 2,
}


_FINE_TUNING: dict[str, Any] = {
    "optimiser": "adamw",
    "epochs": 10,
    "slices_per_epoch": 160,
    "learning_rate": 1e-3,
    "average_decay": 0.995,
    "small_share": 0.0,
    "validate_every": 1,
}


def default_summary(name: str) -> str:
    """The default of an option of :class:`TrainOptions` that depends on the start, for help texts."""
    from_model, scratch = (
        value if isinstance(value, str) else f"{value:g}" for value in (_FINE_TUNING[name], _SCRATCH[name])
    )
    return f"By default {from_model} from a model, {scratch} from scratch."
