"""What computes a network: PyTorch on any device, as it is or compiled, or OpenVINO on the CPU.

Which of them, with how many threads and in which number format is decided in :mod:`.devices`; what the
network sees and what becomes of its answer, in :mod:`.predict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .. import devices, memory
from ..errors import EngineError, reason
from .fold import fold_batch_norm

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..model.checkpoint import ModelCard


class Engine(Protocol):
    """A network made ready for one device, its batch normalisation folded."""

    @property
    def name(self) -> str:
        """One of :data:`napari_lgg_seg.core.devices.ENGINE_CHOICES`, without "auto"."""

    def logits(self, slices: Tensor) -> Tensor:
        """What the network says of slices.

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
            As PyTorch raises them, if the device fails or has too little memory.
        EngineError
            If the engine fails and PyTorch may still do.
        """


def make_engine(
    name: str, network: nn.Module, channels: int, device: torch.device, card: ModelCard | None = None
) -> Engine:
    """Make a network ready; it is copied, not changed.

    Parameters
    ----------
    name : str
        From :func:`napari_lgg_seg.core.devices.choose_engine`.
    network : Module
        One of :mod:`napari_lgg_seg.core.model.networks`.
    channels : int
        Input channels of a slice.
    device : torch.device
        Where it computes.
    card : ModelCard, optional
        The model's; "openvino-int8" needs it.

    Raises
    ------
    RuntimeError
        As PyTorch raises it, if the device does not take the network.
    EngineError
        If OpenVINO cannot take the network.
    ValueError
        If there is no card for "openvino-int8".
    """
    if name == "torch-compile":
        return CompiledEngine(network, device)
    if name.startswith("openvino"):
        from .openvino import OpenVinoEngine

        rounded = name == devices.INT8_ENGINE
        if rounded and card is None:
            raise ValueError("To round a network to 8 bits takes the card of its model.")
        return OpenVinoEngine(network, channels, card if rounded else None)
    return TorchEngine(network, device)


class TorchEngine:
    """PyTorch, in the number format that suits the device."""

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


class CompiledEngine(TorchEngine):
    """PyTorch with code that is made for the network and the device, by the compiler that is there."""

    name = "torch-compile"

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__(network, device)
        self._network = devices.compiled(self._network)

    def logits(self, slices: Tensor) -> Tensor:
        """See :class:`Engine`."""
        try:
            return super().logits(slices)
        except Exception as error:  # compilers fail in many ways; all mean the same
            if memory.is_out_of_memory(error):
                raise
            raise EngineError(f"torch.compile failed ({reason(error)})") from error
