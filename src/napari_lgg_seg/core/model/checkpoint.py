"""One model file: weights and everything needed to use and to judge them. Data, never code.

A safetensors file whose header holds one JSON text. Convolution weights are stored in half
precision; batch normalisation, where half precision would cost accuracy, stays in fp32.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._version import __version__
from ..atomic import replacing
from ..choices import CLEAN_UP_CHOICES, DROPS_MINOR, MAX_NEIGHBOURS, NETWORK_NAMES, CleanUp, Threshold
from ..data.patients import SEQUENCES
from ..errors import ModelError
from .neighbours import input_channels
from .preprocess import PreprocessOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..options import SegmentOptions

SCHEMA_VERSION = 1
#: Fields of files from version 0.1.0, by the names they have now.
_RENAMED = {"figures": "results", "quick_look": "coarse_threshold"}
HEADER_KEY = "napari_lgg_seg"

#: The weights that ship with the package.
DEFAULT_MODEL = Path(__file__).parents[2] / "models" / "default.safetensors"


@dataclass(frozen=True)
class ModelCard:
    """The header of a model file.

    Attributes
    ----------
    name : str
        For people, for instance "Default U-Net".
    architecture : str
        One of :data:`napari_lgg_seg.core.choices.NETWORK_NAMES`.
    sequences : tuple of str
        The network's input channels of a slice, in order.
    neighbouring_slices : int
        Slices above, and as many below, that the network sees as well; 0 for none. Their channels are
        in the order of :mod:`napari_lgg_seg.core.model.neighbours`.
    preprocess : PreprocessOptions
        Working size and normalisation.
    threshold : float or "auto"
        Probability from which a voxel counts as tumour, where the user chooses no other.
    clean_up : str
        What happens to separate pieces, where the user chooses nothing else: one of
        :data:`napari_lgg_seg.core.choices.CLEAN_UP_CHOICES`.
    coarse_threshold : float or None
        Probability from which, in half the working size, a voxel is worth a closer look, as
        :mod:`napari_lgg_seg.core.inference.calibrate_coarse` found; None where everything is looked at
        closely.
    training_patients, validation_patients : tuple of str
        The split, by patient.
    earlier_patients : tuple of str
        Patients that the model it was fine-tuned from, or one before that, was trained on.
    training : dict
        Options of the training run, seed included, its history and the versions it ran with.
    results : dict
        What was measured: data, split, command, and the values.
    data, licence, created, package_version : str
        Where the weights come from, under which licence, when (ISO date), and with which version.
    intended_use : str
        What it is for and what not; empty if nobody said.
    """

    name: str
    architecture: str = "unet"
    sequences: tuple[str, ...] = SEQUENCES
    neighbouring_slices: int = 0
    preprocess: PreprocessOptions = field(default_factory=PreprocessOptions)
    threshold: Threshold = 0.5
    clean_up: CleanUp = "off"
    coarse_threshold: float | None = None
    training_patients: tuple[str, ...] = ()
    validation_patients: tuple[str, ...] = ()
    earlier_patients: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    licence: str = ""
    created: str = ""
    package_version: str = __version__
    intended_use: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The header's text."""
        return json.dumps(dataclasses.asdict(self))

    def sentence(self) -> str:
        """What the model is, for a tooltip: its data, its Dice, its date."""
        text = f"{self.name}, {self.created}: trained on {len(self.training_patients)} patients"
        if self.earlier_patients:
            text += f" after {len(self.earlier_patients)} others"
        summary = self.results.get("summary")
        if summary:
            text += (
                f"; Dice per patient {summary['mean']:.2f} (mean), {summary['median']:.2f} (median) "
                f"over {len(self.validation_patients)} others"
            )
        return f"{text}. Research use only."

    @classmethod
    def from_json(cls, text: str, path: Path) -> ModelCard:
        """Read and check a header.

        Raises
        ------
        ModelError
            One sentence that names ``path``.
        """
        try:
            values = json.loads(text)
            version = values["schema_version"]
            if version > SCHEMA_VERSION:
                raise ModelError(
                    f"{path} was written by a newer version of napari-lgg-seg "
                    f"(schema {version}, this one knows {SCHEMA_VERSION}); update napari-lgg-seg."
                )
            values = {_RENAMED.get(name, name): value for name, value in values.items()}
            values.setdefault("earlier_patients", ())  # younger than the first files
            for key in ("sequences", "training_patients", "validation_patients", "earlier_patients"):
                values[key] = tuple(values[key])
            values["preprocess"] = PreprocessOptions(**values["preprocess"])
            card = cls(**values)
            card._check(path)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{path} has a damaged model header ({error}); train or export the model again."
            ) from error
        return card

    def complete(self, options: SegmentOptions) -> SegmentOptions:
        """The options with this model's own threshold and clean-up where they name none."""
        return dataclasses.replace(
            options,
            threshold=self.threshold if options.threshold is None else options.threshold,
            clean_up=self.clean_up if options.clean_up is None else options.clean_up,
        )

    def uses_coarse_to_fine(self, options: SegmentOptions) -> bool:
        """Whether a quick look says where to look closely: what that misses, clean-up would drop anyway."""
        allowed = self.coarse_threshold is not None and self.complete(options).clean_up in DROPS_MINOR
        return allowed and not options.full_resolution

    def seen_patients(self) -> set[str]:
        """Patients whose truth the weights have learned from, in this training or an earlier one."""
        return {*self.training_patients, *self.earlier_patients}

    def _check(self, path: Path) -> None:
        problem = None
        if not isinstance(self.architecture, str):
            raise TypeError("the network has no name")
        if self.architecture not in NETWORK_NAMES:
            problem = f"holds an unknown network, {self.architecture!r}"
        elif not self.sequences or any(s not in SEQUENCES for s in self.sequences):
            problem = f"wants unknown sequences, {', '.join(map(str, self.sequences)) or 'none'}"
        elif not isinstance(self.neighbouring_slices, int) or (
            self.neighbouring_slices not in range(MAX_NEIGHBOURS + 1)
        ):
            problem = f"wants {self.neighbouring_slices} neighbouring slices"
        elif self.threshold != "auto" and not 0 < float(self.threshold) < 1:
            problem = f"has a threshold of {self.threshold}, outside 0 to 1"
        elif self.clean_up not in CLEAN_UP_CHOICES:
            problem = f"wants an unknown clean-up, {self.clean_up!r}"
        elif self.coarse_threshold is not None and not 0 < float(self.coarse_threshold) < 1:
            problem = f"wants a quick look with a limit of {self.coarse_threshold}, outside 0 to 1"
        elif self.preprocess.working_size not in range(8, 4097):
            problem = f"has a working size of {self.preprocess.working_size} pixels"
        elif not 0 < self.preprocess.clip_percentile <= 100:
            problem = f"clips at percentile {self.preprocess.clip_percentile}"
        if problem:
            raise ModelError(f"{path} {problem}, which this version cannot use; update napari-lgg-seg.")


@dataclass(frozen=True)
class Model:
    """A network ready for use, in eval mode, with its card and the file it came from."""

    network: nn.Module
    card: ModelCard
    path: Path


def save_model(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write a model file atomically: an older file stays whole until the new one is complete."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: _stored(name, tensor) for name, tensor in network.state_dict().items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={HEADER_KEY: card.to_json()})
        except SafetensorError as error:  # so it reports a full disk
            raise OSError(str(error)) from error


def _stored(name: str, tensor: Tensor) -> Tensor:
    import torch

    tensor = tensor.detach().cpu().contiguous()
    # Only convolution kernels have four dimensions; they are 99.8 % of the file.
    return tensor.to(torch.float16) if tensor.ndim == 4 else tensor


def read_card(path: str | Path = DEFAULT_MODEL) -> ModelCard:
    """The header of a model file, without its weights.

    Raises
    ------
    ModelError
        One sentence: not there, not a model file, damaged, or of another version.
    """
    path = Path(path)
    try:
        # The format is 8 bytes of length and a JSON text; reading it here spares importing torch.
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= 100_000_000:
                raise ValueError("no header")
            metadata = json.loads(file.read(length))["__metadata__"]
            text = metadata[HEADER_KEY]
    except OSError as error:
        raise ModelError(f"{path} cannot be opened ({error.strerror}); choose another model file.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path} is not a napari-lgg-seg model; choose a .safetensors file made by its training."
        ) from error
    return ModelCard.from_json(text, path)


def load_model(path: str | Path = DEFAULT_MODEL) -> Model:
    """Load a model file.

    Parameters
    ----------
    path : path
        A ``.safetensors`` file of this package; the shipped model by default.

    Returns
    -------
    Model
        Network in fp32 on the CPU, in eval mode.

    Raises
    ------
    ModelError
        One sentence: not there, not a model file, damaged, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .networks import build_network

    path = Path(path)
    card = read_card(path)
    network = build_network(card.architecture, input_channels(card.sequences, card.neighbouring_slices))
    try:
        tensors = load_file(path)
        expected = network.state_dict()
        network.load_state_dict({name: t.to(expected[name].dtype) for name, t in tensors.items()})
    except (SafetensorError, RuntimeError, KeyError, OSError) as error:
        raise ModelError(
            f"{path} is damaged or its weights do not fit a {card.architecture!r} network; "
            "copy it again or train the model anew."
        ) from error
    return Model(network.eval(), card, path)
