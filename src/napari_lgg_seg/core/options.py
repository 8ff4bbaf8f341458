"""What a user can choose: one frozen dataclass each for segmenting and training.

Window, command line and model files are made from them; nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .choices import (
    CleanUp,
    OptionsError,
    Threshold,
    changeable,
    check_clean_up,
    check_threshold,
    described,
)
from .devices import ENGINE_CHOICES, INT8_ENGINE, DeviceChoice, EngineChoice


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
        metadata=described(
            "Probability from which a voxel counts as tumour: lower finds more, and more that is none. "
            "Auto: the one that promises the largest Dice, patient by patient. The model's own by default. "
            "Costs nothing, and can be moved after the run."
        ),
    )
    clean_up: CleanUp | None = field(
        default=None,
        metadata=described(
            "What happens to separate pieces of tumour: kept (off), dropped below a volume (small), dropped "
            "below a quarter of the largest one's volume (minor), or all but the largest dropped (largest), "
            "which loses second lesions and can turn a weak result into none. The model's own by default."
        ),
    )
    smallest_volume: int = field(
        default=100,
        metadata=described("Pieces of fewer voxels than this are dropped where clean-up is 'small'."),
    )
    fill_holes: bool = field(
        default=False, metadata=described("Fill holes that are enclosed by tumour within a slice.")
    )
    tta: bool = field(
        default=False,
        metadata=described(
            "Test-time augmentation: average the network's answers for each slice as it is and mirrored "
            "left-right, so that the uncertainty counts where the two differ, too. Takes twice as long."
        ),
    )
    full_resolution: bool = field(
        default=False,
        metadata=changeable(
            "Look closely at the whole head. Otherwise, where the model allows it (the shipped one does) "
            "and clean-up drops minor pieces anyway (minor, largest), every second slice is looked at in "
            "half the size first, and closely only what may hold tumour by that: about 1.5 times as fast, "
            "labels agree (Dice 0.999); a tumour that is in a single slice can be missed."
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=changeable(
            "Slices at once; chosen from the device's memory by default. Changes speed and memory only."
        ),
    )
    device: DeviceChoice = field(
        default="auto",
        metadata=changeable(
            "Where the network runs. Auto takes CUDA, then MPS, then the CPU, whichever is present."
        ),
    )
    engine: EngineChoice = field(
        default="auto",
        metadata=changeable(
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for headers."""
        return dataclasses.asdict(self)


def label_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of a segmentation's options, as in headers, those that decide its labels.

    Where and how it is computed does not, beyond rounding, but for 8 bits; and who wants a thorough look is
    not content with an earlier one that was quick.
    """
    beside = {f.name for f in dataclasses.fields(SegmentOptions) if f.metadata.get("may_change")}
    found = {name: value for name, value in options.items() if name not in beside}
    if options.get("engine") == INT8_ENGINE:
        found["engine"] = INT8_ENGINE
    found.pop("thorough", None)
    if options.get("full_resolution", options.get("thorough")):  # its name in version 0.1.0
        found["look"] = "thorough"
    return found


def option_help(name: str, options: type[Any] = SegmentOptions) -> str:
    """What an option does and costs, in a sentence or two."""
    return str(next(f for f in dataclasses.fields(options) if f.name == name).metadata["help"])
