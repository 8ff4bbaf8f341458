"""Model files: the weights, and everything needed to use and assess them. Data only, no code.

A safetensors file whose metadata holds the model card as JSON. Convolution kernels are stored in half
precision; biases and batch normalisation, where half precision would cost accuracy, stay in fp32.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Len, Lt, MinLen

from ..._version import __version__
from ..atomic import replacing
from ..choices import DROPS_MINOR, MAX_NEIGHBOURS, CleanUp, NetworkName, SequenceName
from ..data.json_files import Count, Fraction, JsonError, Names, NotNegative, build, parse
from ..data.patients import SEQUENCES
from ..data.regular_files import open_regular
from ..errors import ModelError
from .neighbours import input_channels
from .preprocess import PreprocessOptions, with_normalisation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..options import SegmentOptions

SCHEMA_VERSION = 1
#: Field names of version 0.1.0, and what they are called now.
_RENAMED = {"figures": "results", "quick_look": "coarse_threshold"}
#: The metadata entry of the safetensors file that holds the model card.
HEADER_KEY = "napari_lgg_seg"

#: Largest absolute weight or bias that is plausible: one that is larger may drown all others in a deep layer.
_LARGEST_WEIGHT = 10_000.0
#: Names of batch normalisation's statistics, which depend on the input's scale.
_STATISTICS = ("running_mean", "running_var")

#: The weights that ship with the package.
DEFAULT_MODEL = Path(__file__).parents[2] / "models" / "default.safetensors"


@dataclass(frozen=True)
class ModelCard:
    """What a model file says about its model.

    Attributes
    ----------
    name : str
        Display name, for instance "Default U-Net".
    architecture : str
        One of :data:`napari_lgg_seg.core.choices.NETWORK_NAMES`.
    sequences : tuple of str
        The MRI sequences of a slice that the network takes as input channels, in order.
    neighbouring_slices : int
        Number of adjacent slices on each side that the network sees as well (2.5D); 0 for none. The
        channel order is that of :mod:`napari_lgg_seg.core.model.neighbours`.
    preprocess : PreprocessOptions
        Working size and normalisation.
    threshold : float or "auto"
        Default probability threshold from which a voxel counts as tumour.
    clean_up : str
        Default clean-up of connected components, one of
        :data:`napari_lgg_seg.core.choices.CLEAN_UP_CHOICES`.
    coarse_threshold : float or None
        Probability from which a voxel of the coarse pass is a candidate and computed at full resolution,
        as calibrated by :mod:`napari_lgg_seg.core.inference.calibrate_coarse`; None if the model always
        runs at full resolution.
    training_patients, validation_patients : tuple of str
        The patient-level split.
    earlier_patients : tuple of str
        Training patients of the model that this one was fine-tuned from, and of that model's ancestors.
    training : dict
        The training run's options including the seed, its history, and package versions.
    results : dict
        Measured performance: data, split, command, and values.
    data, licence, created, package_version : str
        Source of the training data, licence of the weights, creation date (ISO 8601), and the version of
        this package that wrote the file.
    intended_use : str
        Intended use and its limits; empty if not stated.
    schema_version : int
        Version of this header's format.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: Annotated[str, Len(1, 1000)]
    architecture: NetworkName = "unet"
    sequences: Annotated[tuple[SequenceName, ...], MinLen(1)] = SEQUENCES
    neighbouring_slices: Annotated[int, Ge(0), Le(MAX_NEIGHBOURS)] = 0
    preprocess: PreprocessOptions = field(default_factory=PreprocessOptions)
    threshold: Annotated[float, Gt(0), Le(1)] | Literal["auto"] = 0.5
    clean_up: CleanUp = "off"
    coarse_threshold: Annotated[float, Gt(0), Lt(1)] | None = None
    training_patients: Names = ()
    validation_patients: Names = ()
    earlier_patients: Names = ()
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    licence: str = ""
    created: str = ""
    package_version: str = __version__
    intended_use: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Serialise the card as the JSON text of a model file's header."""
        return json.dumps(dataclasses.asdict(self))

    def summary(self) -> str:
        """Describe the model in a sentence or two, for a tooltip: date, training data, Dice."""
        text = f"{self.name}, {self.created}: trained on {len(self.training_patients)} patients"
        if self.earlier_patients:
            text += f", fine-tuned from a model trained on {len(self.earlier_patients)}"
        summary = self.results.get("summary")
        if summary:
            text += (
                f"; Dice per patient {summary['mean']:.2f} (mean), {summary['median']:.2f} (median) "
                f"in {len(self.validation_patients)} validation patients"
            )
        return f"{text}. Research use only."

    @classmethod
    def from_json(cls, text: str, path: Path) -> ModelCard:
        """Parse and validate a header.

        Parameters
        ----------
        text : str
            The header, as :meth:`to_json` writes it; headers of version 0.1.0 are accepted.
        path : Path
            The model file, for error messages.

        Raises
        ------
        ModelError
            If the header is damaged, from a newer version, or has values that this version cannot use.
        """
        try:
            values = parse(text)
            version = values.get("schema_version") if isinstance(values, dict) else None
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise ModelError(
                    f"{path} was written by a newer version of napari-lgg-seg "
                    f"(schema {version}; this version reads up to {SCHEMA_VERSION}); update napari-lgg-seg."
                )
            if isinstance(values, dict):
                values = {_RENAMED.get(name, name): value for name, value in values.items()}
                if isinstance(values.get("preprocess"), dict):
                    values["preprocess"] = with_normalisation(values["preprocess"])
            build(_Required, values)
            card = build(cls, values)
            if len(set(card.sequences)) < len(card.sequences):
                raise JsonError("sequences: one appears twice")
            return card
        except JsonError as error:
            raise ModelError(
                f"{path} has a damaged model card, or one that this version cannot use ({error}); update "
                "napari-lgg-seg, or train or export the model again."
            ) from error

    def complete(self, options: SegmentOptions) -> SegmentOptions:
        """Fill in the model's default threshold and clean-up where ``options`` leaves them unset."""
        return dataclasses.replace(
            options,
            threshold=self.threshold if options.threshold is None else options.threshold,
            clean_up=self.clean_up if options.clean_up is None else options.clean_up,
        )

    def uses_coarse_to_fine(self, options: SegmentOptions) -> bool:
        """Whether to segment coarse to fine with these options.

        Only together with a clean-up that drops small components: it would remove what the coarse pass
        misses anyway.
        """
        allowed = self.coarse_threshold is not None and self.complete(options).clean_up in DROPS_MINOR
        return allowed and not options.full_resolution

    def seen_patients(self) -> set[str]:
        """Patients whose ground truth the weights were trained on, in this or an earlier training."""
        return {*self.training_patients, *self.earlier_patients}


@dataclass(frozen=True)
class _Summary:
    mean: Fraction
    median: Fraction
    patients: Count = 0
    below_half: Names = ()
    missed: Names = ()


@dataclass(frozen=True)
class _Results:
    summary: _Summary | None = None
    validation: dict[str, Fraction] = field(default_factory=dict)
    before: dict[str, Fraction] = field(default_factory=dict)
    seen_before: Names = ()


@dataclass(frozen=True)
class _HistoryRow:
    epoch: Count | None = None
    step: Count | None = None
    loss: float | None = None
    learning_rate: NotNegative | None = None
    minutes: NotNegative | None = None
    waiting: NotNegative | None = None
    dice_mean: Fraction | None = None
    dice_median: Fraction | None = None
    below_half: Count | None = None
    missed: Count | None = None


@dataclass(frozen=True)
class _Training:
    epoch: Count | None = None
    step: Count | None = None
    history: tuple[_HistoryRow, ...] = ()


@dataclass(frozen=True)
class _Required:
    """Fields that every model file has, and what this package reads of those with free content."""

    name: str
    schema_version: Annotated[int, Ge(1), Le(SCHEMA_VERSION)]
    sequences: tuple[str, ...]
    preprocess: dict[str, Any]
    training_patients: Names
    validation_patients: Names
    training: _Training = field(default_factory=_Training)
    results: _Results = field(default_factory=_Results)


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes
    ----------
    network : Module
        In eval mode, fp32, on the CPU.
    card : ModelCard
        The header of its file.
    path : Path
        The file it was loaded from.
    """

    network: nn.Module
    card: ModelCard
    path: Path


def save_model(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write a model file atomically: an existing file stays intact until the new one is complete.

    Parameters
    ----------
    path : Path
        The ``.safetensors`` file; missing folders are created.
    network : Module
        The network, on any device; it is not changed.
    card : ModelCard
        The header.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: _stored(tensor) for name, tensor in network.state_dict().items()}
    content = save(tensors, metadata={HEADER_KEY: card.to_json()})
    with replacing(path) as temporary:
        temporary.write_bytes(content)  # Python's errors say why a file cannot be written


def _stored(tensor: Tensor) -> Tensor:
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.ndim != 4:
        return tensor
    # Only convolution kernels have four dimensions; they make up 99.8 % of the file.
    half = tensor.to(torch.float16)
    return half if half.isfinite().all() else tensor


def read_card(path: str | Path = DEFAULT_MODEL) -> ModelCard:
    """Read the header of a model file without loading its weights, and without importing torch.

    Parameters
    ----------
    path : path
        A ``.safetensors`` file of this package; the shipped model by default.

    Raises
    ------
    ModelError
        If the file cannot be opened, is not a model file, is damaged, or is from a newer version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        # Opened by Python first, whose errors say why a file cannot be opened.
        with open_regular(path), safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(HEADER_KEY)
    except OSError as error:
        raise ModelError(f"{path} cannot be opened ({error.strerror}); choose another model file.") from error
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a napari-lgg-seg model or is damaged; "
            "choose a .safetensors file that a training wrote, or copy the file again."
        ) from error
    if text is None:
        raise ModelError(
            f"{path} is not a napari-lgg-seg model; choose a .safetensors file that a training wrote."
        )
    return ModelCard.from_json(text, path)


def load_model(path: str | Path = DEFAULT_MODEL) -> Model:
    """Load a network with its weights and model card.

    Parameters
    ----------
    path : path
        A ``.safetensors`` file of this package; the shipped model by default.

    Returns
    -------
    Model
        The network in fp32 on the CPU, in eval mode.

    Raises
    ------
    ModelError
        If the file cannot be opened, is not a model file, is damaged, or is from a newer version; or if its
        weights are not finite floating-point numbers or implausibly large, or a variance is negative.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .networks import build_network

    path = Path(path)
    card = read_card(path)
    network = build_network(card.architecture, input_channels(card.sequences, card.neighbouring_slices))
    try:
        stored, expected = load_file(path), network.state_dict()
        tensors = {name: tensor.to(expected[name].dtype) for name, tensor in stored.items()}
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, KeyError, OSError) as error:
        raise ModelError(
            f"{path} is damaged or its weights do not fit a {card.architecture!r} network; "
            "copy the file again or retrain the model."
        ) from error
    for name, tensor in tensors.items():
        if problem := _problem(name, stored[name], tensor):
            raise ModelError(f"{path} has {problem} ({name}); copy the file again or retrain the model.")
    return Model(network.eval(), card, path)


def _problem(name: str, stored: Tensor, tensor: Tensor) -> str:
    """Why a network cannot compute with a tensor, as stored and in the network's dtype; empty if it can."""
    if not tensor.is_floating_point():  # counters of batch normalisation, which inference does not use
        return ""
    if not stored.is_floating_point():
        return f"weights of type {str(stored.dtype).removeprefix('torch.')} instead of floating point"
    if not tensor.isfinite().all():
        return "weights that are NaN or infinite"
    if not name.endswith(_STATISTICS) and tensor.abs().max() > _LARGEST_WEIGHT:
        return f"a weight of {tensor.abs().max():g}"
    return "a negative variance" if name.endswith("running_var") and (tensor < 0).any() else ""
