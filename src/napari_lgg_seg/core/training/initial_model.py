"""Where a training starts: a new network, or a trained model to fine-tune."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.patients import FLAIR, SEQUENCES
from ..errors import TrainingError
from ..model.checkpoint import DEFAULT_MODEL, ModelCard, load_model, read_card
from ..model.neighbours import input_channels
from ..model.preprocess import PreprocessOptions
from .options import TrainOptions

if TYPE_CHECKING:
    from torch import nn

_SEQUENCES = {"all": SEQUENCES, "flair": (SEQUENCES[FLAIR],)}
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
        Its input channels of a slice.
    neighbouring_slices : int
        Slices above, and as many below, that it sees as well.
    preprocess : PreprocessOptions
        Working size and normalisation; a trained model's own, since its weights depend on them.
    path : Path or None
        The model file; None for scratch.
    card : ModelCard or None
        Its header.
    reason : str
        A sentence for the user where the choice was made for them, else empty.
    """

    architecture: str
    sequences: tuple[str, ...]
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
        """The network: trained weights, or random ones from the seed."""
        import torch

        from ..model.networks import build_network

        torch.manual_seed(seed)
        if self.path is not None:
            return load_model(self.path).network
        return build_network(self.architecture, input_channels(self.sequences, self.neighbouring_slices))


def find_initial_model(options: TrainOptions, preprocess: PreprocessOptions | None = None) -> InitialModel:
    """Decide what a training starts from. Quick: reads no more than a header.

    Parameters
    ----------
    options : TrainOptions
        ``init``, ``network``, ``sequences`` and ``neighbouring_slices`` decide.
    preprocess : PreprocessOptions, optional
        For a start from scratch.

    Raises
    ------
    ModelError
        If the initial model cannot be used.
    TrainingError
        If it has another network, other sequences or other neighbouring slices than the options ask for.
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
        text = f"The shipped model is a {_summary(*has)}, not a {_summary(*new)}: starting from scratch."
        return dataclasses.replace(scratch, reason=text)
    raise TrainingError(
        f"{path} is a {_summary(*has)}, not a {_summary(*wanted)}; start from scratch or choose another "
        "model."
    )


def _summary(architecture: str, sequences: tuple[str, ...], neighbours: int) -> str:
    text = f"{architecture} network for {', '.join(sequences)}"
    if not neighbours:
        return text
    return f"{text} with {neighbours} neighbouring slice{'s' if neighbours > 1 else ''} on each side"
