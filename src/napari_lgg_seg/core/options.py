"""What a user can choose: one frozen dataclass each for segmenting and training.

Window, command line and model files are made from them; nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from .devices import ENGINE_CHOICES, ROUNDED_ENGINE, DeviceChoice, EngineChoice
from .errors import LggSegError
from .training.losses import LOSSES, Loss

if TYPE_CHECKING:
    from .model.checkpoint import ModelCard

#: What can be done about separate pieces: nothing, drop those below a volume, drop those much smaller than
#: the largest, keep only the largest.
CleanUp = Literal["off", "small", "minor", "largest"]
#: Pieces of less than this share of the largest one's volume are minor.
MINOR = 0.25
CLEAN_UP_CHOICES: tuple[str, ...] = get_args(CleanUp)
#: Those that drop minor pieces.
DROPS_MINOR: tuple[CleanUp, ...] = ("minor", "largest")

#: Probability from which a voxel counts as tumour, or the one that suits each patient best:
#: :func:`.postprocess.best_threshold`.
Threshold = float | Literal["auto"]

#: The networks that can be trained, as named in model files.
NetworkName = Literal["unet", "buda"]
NETWORK_NAMES: tuple[str, ...] = get_args(NetworkName)
#: The sequences that a network can be trained on.
SequenceChoice = Literal["all", "flair"]
#: How often a tumour slice is drawn: as often as any other, or so that no patient comes more often.
Draw = Literal["slices", "patients"]
#: What turns gradients into steps.
Optimiser = Literal["muon", "adamw"]
#: Up to so many slices above, and as many below, can be further input of a network.
MOST_NEIGHBOURS = 3


class OptionsError(LggSegError):
    """An option outside its limits."""


def _help(text: str) -> dict[str, str]:
    return {"help": text}


def _may_change(text: str) -> dict[str, Any]:
    """Of an option that may differ in a run that goes on from another one."""
    return {"help": text, "may_change": True}


@dataclass(frozen=True)
class SegmentOptions:
    """Options of a segmentation; each field's ``metadata["help"]`` says what it does and costs.

    Raises
    ------
    OptionsError
        If a value is outside its limits.
    """

    threshold: Threshold | None = field(
        default=None,
        metadata=_help(
            "Probability from which a voxel counts as tumour: lower finds more, and more that is none. "
            "Auto: the one that promises the largest Dice, patient by patient. The model's own by default. "
            "Costs nothing, and can be moved after the run."
        ),
    )
    clean_up: CleanUp | None = field(
        default=None,
        metadata=_help(
            "What happens to separate pieces of tumour: kept (off), dropped below a volume (small), dropped "
            "below a quarter of the largest one's volume (minor), or all but the largest dropped (largest), "
            "which loses second lesions and can turn a weak result into none. The model's own by default."
        ),
    )
    smallest_volume: int = field(
        default=100, metadata=_help("Pieces of fewer voxels than this are dropped where clean-up is 'small'.")
    )
    fill_holes: bool = field(
        default=False, metadata=_help("Fill holes that are enclosed by tumour within a slice.")
    )
    tta: bool = field(
        default=False,
        metadata=_help(
            "Test-time augmentation: average the network's answers for each slice as it is and mirrored "
            "left-right, so that the uncertainty counts where the two differ, too. Takes twice as long."
        ),
    )
    thorough: bool = field(
        default=False,
        metadata=_may_change(
            "Look closely at the whole head. Otherwise, where the model allows it (the shipped one does) "
            "and clean-up drops minor pieces anyway (minor, largest), every second slice is looked at in "
            "half the size first, and closely only what may hold tumour by that: about 1.5 times as fast, "
            "labels agree (Dice 0.999); a tumour that is in a single slice can be missed."
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=_may_change(
            "Slices at once; chosen from the device's memory by default. Changes speed and memory only."
        ),
    )
    device: DeviceChoice = field(
        default="auto",
        metadata=_may_change(
            "Where the network runs. Auto takes CUDA, then MPS, then the CPU, whichever is present."
        ),
    )
    engine: EngineChoice = field(
        default="auto",
        metadata=_may_change(
            "What computes the network: PyTorch (torch) on any device, or OpenVINO (extra openvino) on the "
            "CPU, which takes a little less processor time. Auto takes it on the CPU where it is installed. "
            "torch-compile is PyTorch that compiles the network first, a minute or so, for cohorts on a GPU; "
            "openvino-int8 is OpenVINO with two thirds of the work in 8 bits, quicker once more, with labels "
            "that differ a little more."
        ),
    )

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_clean_up(self.clean_up)
        if self.smallest_volume < 1:
            raise OptionsError(
                f"A smallest volume of {self.smallest_volume} voxels is below 1; choose 1 or more."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionsError(f"A batch of {self.batch_size} slices is below 1; choose 1 or more.")
        if self.engine not in ENGINE_CHOICES:
            raise OptionsError(
                f"Engine {self.engine!r} is not known; choose one of {', '.join(ENGINE_CHOICES)}."
            )

    def complete(self, card: ModelCard) -> SegmentOptions:
        """The options with the model's own threshold and clean-up where they name none."""
        return dataclasses.replace(
            self,
            threshold=card.threshold if self.threshold is None else self.threshold,
            clean_up=card.clean_up if self.clean_up is None else self.clean_up,
        )

    def looks_quickly(self, card: ModelCard) -> bool:
        """Whether a quick look says where to look closely: what that misses, clean-up would drop anyway."""
        allowed = card.quick_look is not None and self.complete(card).clean_up in DROPS_MINOR
        return allowed and not self.thorough

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for headers."""
        return dataclasses.asdict(self)


def deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of a segmentation's options, as in headers, those that decide its labels.

    Where and how it is computed does not, beyond rounding, but for 8 bits; and who wants a thorough look is
    not content with an earlier one that was quick.
    """
    beside = {f.name for f in dataclasses.fields(SegmentOptions) if f.metadata.get("may_change")}
    found = {name: value for name, value in options.items() if name not in beside}
    if options.get("engine") == ROUNDED_ENGINE:
        found["engine"] = ROUNDED_ENGINE
    if options.get("thorough"):
        found["look"] = "thorough"
    return found


def check_threshold(threshold: Threshold | None) -> None:
    """Refuse a threshold that is none.

    Raises
    ------
    OptionsError
        If it is neither "auto" nor a number above 0 and up to 1.
    """
    if threshold is None or threshold == "auto":
        return
    if isinstance(threshold, str) or not 0 < threshold <= 1:
        raise OptionsError(
            f"A threshold of {threshold} is not between 0 and 1; choose for instance 0.5, or 'auto'."
        )


def parse_threshold(text: str) -> Threshold:
    """A threshold as it is typed: "auto" or a number.

    Raises
    ------
    OptionsError
        If it is neither, or the number is outside its limits.
    """
    threshold: Threshold = "auto"
    if text != "auto":
        try:
            threshold = float(text)
        except ValueError as error:
            raise OptionsError(
                f"A threshold of {text!r} is no number; choose for instance 0.5, or 'auto'."
            ) from error
    check_threshold(threshold)
    return threshold


def check_clean_up(clean_up: str | None) -> None:
    """Refuse a clean-up that is not known.

    Raises
    ------
    OptionsError
        If it is none of :data:`CLEAN_UP_CHOICES`.
    """
    if clean_up is not None and clean_up not in CLEAN_UP_CHOICES:
        raise OptionsError(
            f"A clean-up {clean_up!r} is not known; choose one of {', '.join(CLEAN_UP_CHOICES)}."
        )


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
        metadata=_help(
            "Where weights come from: 'default' (the shipped model), 'scratch' (random), or a model file. "
            "Without it: the shipped model if it has the wanted network, sequences and neighbouring slices, "
            "else scratch."
        ),
    )
    network: NetworkName | None = field(
        default=None,
        metadata=_help(
            "unet: the four-floor U-Net of 10,655,809 parameters; buda: the original study's of 7,763,041. "
            "The initial model's by default."
        ),
    )
    sequences: SequenceChoice | None = field(
        default=None,
        metadata=_help(
            "all: pre-contrast, FLAIR and post-contrast; flair: FLAIR alone. The initial model's by default."
        ),
    )
    neighbouring_slices: int | None = field(
        default=None,
        metadata=_help(
            "Slices above each slice, and as many below, that the network sees with it: 0 to 3. The initial "
            "model's by default, 0 from scratch."
        ),
    )
    loss: Loss = field(
        default="bce",
        metadata=_help(
            "What is minimised: binary cross-entropy, whose probabilities are the most honest; Dice over the "
            "batch; their sum; or cross-entropy and Tversky, to which missed voxels cost more."
        ),
    )
    epochs: int | None = field(
        default=None,
        metadata=_may_change(
            "Epochs, each of a fixed number of slices; the learning rate falls to 0 over all."
        ),
    )
    slices_per_epoch: int | None = field(
        default=None, metadata=_help("Slices that the network sees in an epoch, drawn anew for each.")
    )
    batch_size: int = field(
        default=8, metadata=_help("Slices in one step, over all processes; with less memory, in parts.")
    )
    optimiser: Optimiser | None = field(
        default=None,
        metadata=_help(
            "muon: needs a third of AdamW's steps from scratch, each a little slower; adamw: the usual one."
        ),
    )
    learning_rate: float | None = field(
        default=None,
        metadata=_help("Peak rate of the optimiser, after a linear warm-up and before a cosine to 0."),
    )
    warm_up: float = field(default=0.05, metadata=_help("Share of the steps in which the rate rises."))
    weight_decay: float = field(default=0.05, metadata=_help("Of the optimiser."))
    gradient_clip: float = field(default=1.0, metadata=_help("Largest norm of the gradient."))
    average_decay: float | None = field(
        default=None,
        metadata=_help(
            "Of the moving average of the weights, which is what is validated and kept; 0: none. From a "
            "model, the average begins with that model's weights, so that little data cannot lead far away."
        ),
    )
    freeze_encoder: bool = field(
        default=False,
        metadata=_help("Leave the way down as it is and train the rest: for very small sets."),
    )
    tumour_share: float = field(
        default=0.55,
        metadata=_help("Share of slices that show tumour; the rest are empty, or false positives return."),
    )
    draw: Draw = field(
        default="slices",
        metadata=_help(
            "How tumour slices are drawn: each as often as any other (slices), or as many of each patient "
            "(patients), so that small tumours count as much as large ones."
        ),
    )
    small_size: int = field(
        default=128,
        metadata=_help(
            "Side, in pixels, of the slices in the first part of the training, which makes it quicker; "
            "later they have the working size."
        ),
    )
    small_share: float | None = field(
        default=None, metadata=_help("That first part, as a share of all steps.")
    )
    crop_share: float = field(
        default=0.0,
        metadata=_help(
            "In the first part: share of slices that are a window centred near tumour at full resolution, "
            "instead of the whole slice made small."
        ),
    )
    augmentation: float = field(
        default=1.0,
        metadata=_help(
            "Strength of the random changes to pose, contrast, shading, sharpness and noise; 0: mirroring "
            "and missing sequences alone."
        ),
    )
    threshold: Threshold | None = field(
        default=None,
        metadata=_help(
            "The model's own threshold, with which it is validated, too: a number or auto. By default the "
            "initial model's, auto from scratch."
        ),
    )
    clean_up: CleanUp | None = field(
        default=None,
        metadata=_help(
            "The model's own clean-up, with which it is validated, too. By default the initial model's, "
            "minor from scratch."
        ),
    )
    validate_every: int | None = field(
        default=None, metadata=_may_change("Epochs between validations; the last is always validated.")
    )
    patience: int = field(
        default=10,
        metadata=_may_change(
            "Stop after this many validations without a better mean Dice per patient; 0: never."
        ),
    )
    seed: int = field(default=0, metadata=_help("Of split, random weights, order of slices, augmentation."))
    device: DeviceChoice = field(
        default="auto",
        metadata=_may_change(
            "Where the network is trained. Auto takes CUDA, then MPS, then the CPU, whichever is present."
        ),
    )
    max_minutes: float | None = field(
        default=None,
        metadata=_may_change("Stop after this time, counted for each call; go on later with --resume."),
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


def option_help(name: str, options: type[SegmentOptions | TrainOptions] = SegmentOptions) -> str:
    """What an option does and costs, in a sentence or two."""
    return str(next(f for f in dataclasses.fields(options) if f.name == name).metadata["help"])


def default_in_words(name: str) -> str:
    """The default of an option of :class:`TrainOptions` that depends on the start, for help texts."""
    from_model, scratch = (
        value if isinstance(value, str) else f"{value:g}" for value in (_FINE_TUNING[name], _SCRATCH[name])
    )
    return f"By default {from_model} from a model, {scratch} from scratch."
