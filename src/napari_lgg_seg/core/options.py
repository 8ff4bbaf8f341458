"""Options of a segmentation, defined once for the window, the command line and Python. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .choices import CleanUp, Threshold, check_options, check_threshold, option
from .devices import INT8_ENGINE, DeviceChoice, EngineChoice


@dataclass(frozen=True)
class SegmentOptions:
    """Options of a segmentation.

    Each field's ``metadata["help"]`` says what the option does and costs; see :func:`option_help`.

    Raises
    ------
    OptionsError
        If a value is outside its limits.
    """

    threshold: Threshold | None = field(
        default=None,
        metadata=option(
            "Probability from which a voxel counts as tumour: a lower threshold finds more tumour and more "
            "false positives. Auto picks, per patient, the threshold that maximises the expected Dice. The "
            "model's own by default. Costs no time, and can be changed after the run."
        ),
    )
    clean_up: CleanUp | None = field(
        default=None,
        metadata=option(
            "Which connected components are removed: none (off), those below the smallest volume (small), "
            "those below a quarter of the largest one's volume (minor), or all but the largest (largest), "
            "which also removes second lesions. The model's own by default."
        ),
    )
    smallest_volume: int = field(
        default=100,
        metadata=option(
            "Smallest volume, in voxels, of components that clean-up 'small' leaves.",
            minimum=1,
            maximum=2**31 - 1,
        ),
    )
    fill_holes: bool = field(default=False, metadata=option("Fill holes in the tumour, slice by slice."))
    tta: bool = field(
        default=False,
        metadata=option(
            "Test-time augmentation: average the probabilities of each slice and its mirror image. Their "
            "disagreement adds to the uncertainty. Takes twice as long."
        ),
    )
    full_resolution: bool = field(
        default=False,
        metadata=option(
            "Compute the whole head at full resolution. Otherwise coarse to fine, if the model supports it "
            "(the shipped one does) and clean-up is minor or largest: every second slice at half resolution "
            "first; only candidate regions are computed at full resolution. This is about 1.5 times as fast "
            "with the same labels (Dice 0.999), but can miss a tumour in a single slice.",
            may_change=True,
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=option(
            "Slices computed at once; by default chosen by the device's memory. Affects only speed and "
            "memory.",
            minimum=1,
            maximum=65536,
            may_change=True,
        ),
    )
    device: DeviceChoice = field(
        default="auto",
        metadata=option(
            "Where the network runs. Auto takes the first of CUDA, MPS and CPU that is available.",
            may_change=True,
        ),
    )
    engine: EngineChoice = field(
        default="auto",
        metadata=option(
            "What runs the network: PyTorch (torch) on any device, or OpenVINO (extra openvino) on the CPU, "
            "which takes a little less processor time. Auto takes OpenVINO on the CPU if it is installed. "
            "openvino-int8 does two thirds of the work in 8 bits and is faster still; its labels pass the "
            "same agreement test (Dice >= 0.999 overall, >= 0.99 per patient) with a smaller margin.",
            may_change=True,
        ),
    )

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_options(self)

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain values, ready for JSON."""
        return dataclasses.asdict(self)


def label_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Select the options that decide which labels a segmentation gives.

    Device, engine and batch size change labels at most by rounding and are left out, except 8-bit
    arithmetic. Full resolution is included: it does not give the same labels as coarse to fine.

    Parameters
    ----------
    options : mapping
        As returned by :meth:`SegmentOptions.as_dict`, of this version or 0.1.0.

    Returns
    -------
    dict
        Written to the records of results: its keys and values stay those of version 0.1.0.
    """
    other = {f.name for f in dataclasses.fields(SegmentOptions) if f.metadata["may_change"]} | {"thorough"}
    found = {name: value for name, value in options.items() if name not in other}
    if options.get("engine") == INT8_ENGINE:
        found["engine"] = INT8_ENGINE
    if options.get("full_resolution", options.get("thorough")):  # "thorough" in version 0.1.0
        found["look"] = "thorough"
    return found


def option_help(name: str, options: type[Any] = SegmentOptions) -> str:
    """Return what an option does and costs, in a sentence or two.

    Parameters
    ----------
    name : str
        A field of ``options``.
    options : type
        An options dataclass.
    """
    return str(next(f for f in dataclasses.fields(options) if f.name == name).metadata["help"])
