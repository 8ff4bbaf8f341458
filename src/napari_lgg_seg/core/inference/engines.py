"""Engines that run a network: PyTorch on any device, OpenVINO on the CPU.

:mod:`.devices` decides which one runs, in which number format and with how many threads; :mod:`.predict`
prepares the input and uses the output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .. import devices
from .fold import fold_batch_norm
from .openvino import OpenVinoEngine

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..model.checkpoint import ModelCard


class Engine(Protocol):
    """A network prepared for one device, with batch normalisation folded."""

    @property
    def name(self) -> str:
        """One of :data:`napari_lgg_seg.core.devices.ENGINE_CHOICES`, without "auto"."""

    def logits(self, slices: Tensor) -> Tensor:
        """Run the network on a batch of slices.

        Parameters
        ----------
        slices : Tensor of float32
            Shape (n, c, h, w), normalised, on the engine's device.

        Returns
        -------
        Tensor of float32
            Shape (n, h, w), before the sigmoid, on the same device.

        Raises
        ------
        RuntimeError, MemoryError
            As raised by PyTorch if the device fails or runs out of memory.
        EngineError
            If the engine fails but PyTorch may still work.
        """


def make_engine(
    name: str, network: nn.Module, channels: int, device: torch.device, card: ModelCard | None = None
) -> Engine:
    """Prepare a network for inference; the network is copied, not changed.

    Parameters
    ----------
    name : str
        From :func:`napari_lgg_seg.core.devices.choose_engine`.
    network : Module
        One of :mod:`napari_lgg_seg.core.model.networks`.
    channels : int
        Input channels per slice.
    device : torch.device
        Where the network runs.
    card : ModelCard, optional
        The model's card; required by "openvino-int8".

    Raises
    ------
    RuntimeError
        As raised by PyTorch if the network cannot be moved to the device.
    EngineError
        If OpenVINO cannot convert the network.
    ValueError
        If "openvino-int8" is asked for without a card.
    """
    if name.startswith("openvino"):
        int8 = name == devices.INT8_ENGINE
        if int8 and card is None:
            raise ValueError("Quantizing a network to int8 requires the model's card.")
        return OpenVinoEngine(network, channels, card if int8 else None)
    return TorchEngine(network, device)


class TorchEngine:
    """PyTorch, in the number format that is fastest on the device."""

    name = "torch"

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        import torch

        self._dtype = devices.inference_dtype(device)
        self._network = fold_batch_norm(network).to(
            device=device,
            dtype=self._dtype,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )

    def logits(self, slices: Tensor) -> Tensor:
        """See :class:`Engine`."""
        import torch

        x = slices.to(self._dtype).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self._network(x)[:, 0].float()
        return logits
