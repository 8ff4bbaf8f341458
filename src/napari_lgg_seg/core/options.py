"""What a user can choose about a segmentation: one frozen dataclass for window, command line and results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .devices import DeviceChoice
from .errors import LggSegError

#: What can be done about small components: nothing, drop those below a volume, keep only the largest.
CleanUp = Literal["off", "small", "largest"]
CLEAN_UP_CHOICES: tuple[str, ...] = get_args(CleanUp)


class OptionsError(LggSegError):
    """An option outside its limits."""


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class SegmentOptions:
    """Options of a segmentation; each field's ``metadata["help"]`` says what it does and costs.

    Raises
    ------
    OptionsError
        If a value is outside its limits.
    """

    threshold: float | None = field(
        default=None,
        metadata=_help(
            "Probability from which a voxel counts as tumour: lower finds more, and more that is none. "
            "The model's own by default. Costs nothing, and can be moved after the run."
        ),
    )
    clean_up: CleanUp = field(
        default="off",
        metadata=_help(
            "What happens to separate pieces of tumour: kept (off), dropped below a volume (small), or all "
            "but the largest dropped (largest), which loses second lesions and can turn a weak result into "
            "none."
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
            "left-right. Takes twice as long."
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=_help(
            "Slices at once; chosen from the device's memory by default. Changes speed and memory only."
        ),
    )
    device: DeviceChoice = field(
        default="auto",
        metadata=_help(
            "Where the network runs. Auto takes CUDA, then MPS, then the CPU, whichever is present."
        ),
    )

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise OptionsError(
                f"A threshold of {self.threshold} is not between 0 and 1; choose for instance 0.5."
            )
        if self.clean_up not in CLEAN_UP_CHOICES:
            raise OptionsError(
                f"Clean-up {self.clean_up!r} is not known; choose one of {', '.join(CLEAN_UP_CHOICES)}."
            )
        if self.smallest_volume < 1:
            raise OptionsError(
                f"A smallest volume of {self.smallest_volume} voxels is below 1; choose 1 or more."
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionsError(f"A batch of {self.batch_size} slices is below 1; choose 1 or more.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for headers."""
        return dataclasses.asdict(self)


def option_help(name: str) -> str:
    """What an option does and costs, in a sentence or two."""
    return str(next(f for f in dataclasses.fields(SegmentOptions) if f.name == name).metadata["help"])
