"""What a training starts from: a new network, or a trained model to fine-tune."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..choices import NetworkName, SequenceName
from ..data.patients import FLAIR, SEQUENCES
from ..errors import TrainingError
from ..model.checkpoint import DEFAULT_MODEL, ModelCard, load_model, read_card
from ..model.neighbours import input_channels
from ..model.preprocess import Normalisation, PreprocessOptions
from .options import TrainOptions

if TYPE_CHECKING:
    from torch import nn

_SEQUENCES: dict[str, tuple[SequenceName, ...]] = {"all": SEQUENCES, "flair": (SEQUENCES[FLAIR],)}
#: ``TrainOptions.init`` for random weights, and for the model that ships.
SCRATCH, DEFAULT = "scratch", "default"


@dataclass(frozen=True)
class InitialModel:
    """What a training starts from.

    Attributes
    ----------
    architecture : str
        Name of the network.
    sequences : tuple of str
        The network's input channels of a slice.
    neighbouring_slices : int
        Neighbouring slices on each side that the network sees with each slice.
    preprocess : PreprocessOptions
        Working size and normalisation; those of a trained model, since its weights depend on them.
    path : Path or None
        The model file; None from scratch.
    card : ModelCard or None
        The model's card; None from scratch.
    reason : str
        Why the training starts from scratch, if the user did not ask for it; else empty.
    """

    architecture: NetworkName
    sequences: tuple[SequenceName, ...]
    neighbouring_slices: int
    preprocess: PreprocessOptions
    path: Path | None = None
    card: ModelCard | None = None
    reason: str = field(default="", compare=False)

    @property
    def seen(self) -> frozenset[str]:
        """Patients that the initial model, or one before it, was trained on."""
        return frozenset(self.card.seen_patients()) if self.card is not None else frozenset()

    def build(self, seed: int) -> nn.Module:
        """Build the network with the trained weights, or with random ones from the seed."""
        import torch

        from ..model.networks import build_network

        torch.manual_seed(seed)
        if self.path is not None:
            return load_model(self.path).network
        return build_network(self.architecture, input_channels(self.sequences, self.neighbouring_slices))


def find_initial_model(options: TrainOptions, preprocess: PreprocessOptions | None = None) -> InitialModel:
    """Find out what a training starts from, reading at most a model file's header.

    Parameters
    ----------
    options : TrainOptions
        Uses ``init``, ``network``, ``sequences`` and ``neighbouring_slices``.
    preprocess : PreprocessOptions, optional
        Working size and normalisation of a model trained from scratch.

    Raises
    ------
    ModelError
        If the initial model cannot be used.
    TrainingError
        If its network, sequences or neighbouring slices are not those that the options ask for.
    """
    neighbours = options.neighbouring_slices
    new = (options.network or "unet", _SEQUENCES[options.sequences or "all"], neighbours or 0)
    scratch = InitialModel(*new, preprocess or PreprocessOptions())
    if options.init == SCRATCH:
        return scratch
    path = DEFAULT_MODEL if options.init in (None, DEFAULT) else Path(str(options.init))
    card = read_card(path)
    has = (card.architecture, card.sequences, card.neighbouring_slices)
    wanted = (
        options.network or card.architecture,
        _SEQUENCES.get(options.sequences or "", card.sequences),
        card.neighbouring_slices if neighbours is None else neighbours,
    )
    if wanted == has:
        return InitialModel(*has, card.preprocess, path, card)
    if options.init is None:
        text = f"The shipped model is a {_summary(*has)}, not a {_summary(*new)}; starting from scratch."
        return dataclasses.replace(scratch, reason=text)
    raise TrainingError(
        f"{path} is a {_summary(*has)}, not a {_summary(*wanted)}; start from scratch or choose another "
        "model."
    )


def with_normalisation(initial: InitialModel, normalisation: Normalisation | None) -> InitialModel:
    """The same start with another normalisation, unless that is None."""
    if normalisation is None:
        return initial
    preprocess = dataclasses.replace(initial.preprocess, normalisation=normalisation)
    return dataclasses.replace(initial, preprocess=preprocess)


def _summary(architecture: str, sequences: tuple[str, ...], neighbours: int) -> str:
    text = f"{architecture} network for {', '.join(sequences)}"
    if not neighbours:
        return text
    return f"{text} with {neighbours} neighbouring slice{'s' if neighbours > 1 else ''} on each side"
