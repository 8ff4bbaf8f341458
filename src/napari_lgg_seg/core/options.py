"""The options of a segmentation, in one frozen dataclass.

Window, command line and stored results are made from it; nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .choices import CleanUp, Threshold, check_options, check_threshold, option
from .devices import INT8_ENGINE, DeviceChoice, EngineChoice


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
        metadata=option(
            "Probability from which a voxel counts as tumour: lower finds more, and more false positives. "
            "Auto: the one that maximises the expected Dice, patient by patient. The model's own by "
            "default. Costs nothing, and can be changed after the run."
        ),
    )
    clean_up: CleanUp | None = field(
        default=None,
        metadata=option(
            "Which separate components of tumour are removed: none (off), those below a volume (small), "
            "those below a quarter of the largest one's volume (minor), or all but the largest (largest), "
            "which loses second lesions and can turn a weak result into none. The model's own by default."
        ),
    )
    smallest_volume: int = field(
        default=100,
        metadata=option("Components of fewer voxels are removed where clean-up is 'small'.", lowest=1),
    )
    fill_holes: bool = field(
        default=False, metadata=option("Fill holes that tumour encloses within a slice.")
    )
    tta: bool = field(
        default=False,
        metadata=option(
            "Test-time augmentation: average the probabilities of each slice and of its mirror image, so "
            "that the uncertainty includes their disagreement. Takes twice as long."
        ),
    )
    full_resolution: bool = field(
        default=False,
        metadata=option(
            "Compute the whole head at full resolution. Otherwise, where the model allows it (the shipped "
            "one does) and clean-up removes minor components (minor, largest), coarse to fine: every second "
            "slice at half resolution first; only candidate regions are computed at full resolution. About "
            "1.5 times as fast with the same labels (Dice 0.999); a tumour in a single slice can be missed.",
            may_change=True,
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=option(
            "Slices computed at once; by default as many as suit the device's memory. Changes speed and "
            "memory only.",
            lowest=1,
            may_change=True,
        ),
    )
    device: DeviceChoice = field(
        default="auto",
        metadata=option(
            "Where the network runs. Auto takes the first of CUDA, MPS and CPU that is present.",
            may_change=True,
        ),
    )
    engine: EngineChoice = field(
        default="auto",
        metadata=option(
            "What computes the network: PyTorch (torch) on any device, or OpenVINO (extra openvino) on the "
            "CPU, which takes a little less processor time. Auto takes OpenVINO on the CPU where it is "
            "installed. openvino-int8 computes two thirds of the work in 8 bits: faster still; its labels "
            "pass the same agreement test (Dice >= 0.999 overall, >= 0.99 per patient) with a smaller "
            "margin.",
            may_change=True,
        ),
    )

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_options(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)


def label_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide which labels a segmentation gives.

    Where and how fast it is computed changes labels by rounding at most and does not count, but 8 bits do;
    and a result at full resolution is not the same as one computed coarse to fine.

    Parameters
    ----------
    options : mapping
        As :meth:`SegmentOptions.as_dict` gives them, also of an earlier version.
    """
    other = {f.name for f in dataclasses.fields(SegmentOptions) if f.metadata["may_change"]} | {"thorough"}
    found = {name: value for name, value in options.items() if name not in other}
    if options.get("engine") == INT8_ENGINE:
        found["engine"] = INT8_ENGINE
    if options.get("full_resolution", options.get("thorough")):  # in version 0.1.0: thorough
        found["look"] = "thorough"
    return found


def option_help(name: str, options: type[Any] = SegmentOptions) -> str:
    """What an option does and costs, in a sentence or two."""
    return str(next(f for f in dataclasses.fields(options) if f.name == name).metadata["help"])
