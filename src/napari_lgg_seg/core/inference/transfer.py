"""Copies to and from a device, overlapped with its computation where it supports that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DeviceTransfer:
    """Copies batches to a device and results back, synchronously.

    Attributes
    ----------
    ahead : int
        Number of further batches that may be started before a result is waited for.
    """

    ahead = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def send_raw(self, tensor: Tensor) -> Tensor:
        """Copy raw slices to where they are resampled; here the CPU."""
        return tensor

    def send(self, tensor: Tensor) -> Tensor:
        """Copy network input to the device, unless it is there already."""
        return tensor.to(self.device)

    def fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Request a result; the returned function waits for it and returns it on the CPU."""
        return tensor.cpu


class CudaTransfer(DeviceTransfer):
    """Prepares and copies the next batch while a CUDA device computes the current one.

    Copies use pinned memory and one stream per direction, so that the host only waits for results. Slices
    are sent as raw uint8, a quarter of their size in fp32, and resampled on the device.
    """

    ahead = 1

    def __init__(self, device: torch.device) -> None:
        import torch

        super().__init__(device)
        self._upload = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._download = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send_raw(self, tensor: Tensor) -> Tensor:
        """See :class:`DeviceTransfer`; here the device."""
        return self.send(tensor)

    def send(self, tensor: Tensor) -> Tensor:
        """See :class:`DeviceTransfer`."""
        import torch

        if tensor.device.type == "cuda":
            return tensor
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._upload):
            sent = tensor.pin_memory().to(self.device, non_blocking=True)
        computing.wait_stream(self._upload)
        sent.record_stream(computing)  # otherwise its memory could be reused while it is still needed
        return sent

    def fetch(self, tensor: Tensor) -> Callable[[], Tensor]:
        """See :class:`DeviceTransfer`."""
        import torch

        self._download.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._download):
            fetched = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            fetched.copy_(tensor, non_blocking=True)
            # A blocking event sleeps instead of spinning, which leaves the core to other threads.
            arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            arrived.record()
        tensor.record_stream(self._download)

        def wait() -> Tensor:
            arrived.synchronize()
            return fetched

        return wait


def transfer_to(device: torch.device) -> DeviceTransfer:
    """The transfer that suits a device."""
    return CudaTransfer(device) if device.type == "cuda" else DeviceTransfer(device)
