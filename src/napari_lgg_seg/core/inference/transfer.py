"""Copies to a device and back, next to its computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DeviceTransfer:
    """The way to a device and back: one batch after the other.

    Attributes
    ----------
    ahead : int
        Batches that may be under way while another one's result is waited for.
    """

    ahead = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def send_raw(self, tensor: Tensor) -> Tensor:
        """Bring slices as they were read to where they are resampled: the CPU."""
        return tensor

    def send(self, tensor: Tensor) -> Tensor:
        """Bring what the network needs to the device, if it is not there."""
        return tensor.to(self.device)

    def fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Ask for a result; what is returned waits for it and gives it, on the CPU."""
        return tensor.cpu


class CudaTransfer(DeviceTransfer):
    """The way to a CUDA device: the next batch is prepared and copied while this one is computed.

    Nothing waits for the device but for a result that is due: copies go from and to pinned memory, in a
    queue of their own for each direction. Slices are sent as they were read, a quarter of their size in
    fp32, and resampled there.
    """

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        import torch

        super().__init__(device)
        self._there = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._back = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send_raw(self, tensor: Tensor) -> Tensor:
        """See :class:`DeviceTransfer`; to the device."""
        return self.send(tensor)

    def send(self, tensor: Tensor) -> Tensor:
        """See :class:`DeviceTransfer`."""
        import torch

        if tensor.device.type == "cuda":
            return tensor
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._there):
            sent = tensor.pin_memory().to(self.device, non_blocking=True)
        computing.wait_stream(self._there)
        sent.record_stream(computing)  # else its memory would be free for the next copy too early
        return sent

    def fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """See :class:`DeviceTransfer`."""
        import torch

        self._back.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._back):
            fetched = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            fetched.copy_(tensor, non_blocking=True)
            # Waiting for it leaves the core to what is done beside.
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record()
        tensor.record_stream(self._back)

        def wait() -> Tensor:
            arrived.synchronize()
            return fetched

        return wait


def transfer_to(device: torch.device) -> DeviceTransfer:
    """The way to a device and back."""
    return CudaTransfer(device) if device.type == "cuda" else DeviceTransfer(device)
