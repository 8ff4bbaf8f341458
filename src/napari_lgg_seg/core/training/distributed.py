"""Training in several processes, one per GPU, with PyTorch's distributed package and ``torchrun``.

The processes share each batch and act as one. With a single process, all of this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .. import devices
from ..atomic import cannot_write
from ..errors import TrainingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.distributed import FileStore  # type: ignore[attr-defined]

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them.

    Attributes
    ----------
    rank : int
        Index of this process; 0 is the main process, the only one that writes files.
    count : int
        Number of processes.
    local_rank : int
        Index of this process on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and reports to the user."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's share of items that are divided among all processes."""
        return items[self.rank :: self.count]

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Wrap the network for a step's forward pass, so that gradients are averaged over the processes."""
        if self.count == 1:
            return network
        from torch import nn

        if device.type == "cuda":  # not supported on the CPU
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return nn.parallel.DistributedDataParallel(network)

    def whole_batch(self, own: Tensor, total: int) -> Tensor:
        """Gather the batch of all processes; only this process's part of it carries gradients.

        A loss computed from it is the loss of the whole batch, even if it is not a mean over slices (Dice is
        not), and its gradient for this process's part is exact. The sum of these gradients over the processes
        is the gradient of the whole batch; ``DistributedDataParallel`` computes their average.

        Parameters
        ----------
        own : Tensor
            Shape (n, ...), this process's :meth:`share` of the batch.
        total : int
            Number of slices in the batch of all processes.

        Returns
        -------
        Tensor
            Shape (total, ...).
        """
        if self.count == 1:
            return own
        import torch
        from torch import distributed

        counts = [len(range(rank, total, self.count)) for rank in range(self.count)]
        padded = own.detach().new_zeros((max(counts), *own.shape[1:]))
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        parts = [part[:count] for part, count in zip(parts, counts, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        import torch
        from torch import distributed

        votes = torch.tensor(float(flag), device=device)
        distributed.all_reduce(votes)
        return bool(votes)

    def merged(self, own: Mapping[str, T]) -> dict[str, T]:
        """Merge the results of all processes; all get the same dict, sorted by key."""
        if self.count == 1:
            return dict(own)
        from torch import distributed

        found: list[dict[str, T]] = [{} for _ in range(self.count)]
        distributed.all_gather_object(found, dict(own))
        return dict(sorted((name, value) for part in found for name, value in part.items()))

    def from_main(self, value: T) -> T:
        """Send the main process's value to all processes."""
        if self.count == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()


_current = Processes()


def current() -> Processes:
    """Return the processes of this training: a single one outside of :func:`joined`."""
    return _current


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes, if ``torchrun`` started several, for the duration of a ``with`` block.

    Parameters
    ----------
    device : str
        The device that the user asked for; decides how the processes communicate (NCCL between GPUs, else
        Gloo).

    Raises
    ------
    TrainingError
        If another process ends before this one.
    """
    global _current
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield _current
        return
    from torch import distributed

    _current = Processes(int(os.environ["RANK"]), count, int(os.environ["LOCAL_RANK"]))
    backend = devices.join_device(device, _current.local_rank)
    store = _private_store(count)
    if store is None:
        distributed.init_process_group(backend)
    else:
        distributed.init_process_group(backend, store=store, rank=_current.rank, world_size=count)
    try:
        yield _current
    except RuntimeError as error:  # raised by Gloo and NCCL if another process has ended
        raise lost_process(error) from error
    finally:
        _current = Processes()
        distributed.destroy_process_group()


def _private_store(count: int) -> FileStore | None:
    """Where the processes of one machine tell each other their addresses; None if there are several machines.

    By default they use the port of torchrun, to which every user of the network can write: another address
    would lead to a process that can make these run code. A file in the user's own folder is closed to others.
    """
    variables = os.environ
    if "TORCHELASTIC_RUN_ID" not in variables or variables.get("LOCAL_WORLD_SIZE") != str(count):
        return None
    from platformdirs import user_cache_path
    from psutil import Process
    from torch.distributed import FileStore  # type: ignore[attr-defined]

    torchrun = Process(os.getppid())  # the parent of all of them
    attempt = variables.get("TORCHELASTIC_RESTART_COUNT", "0")
    folder = user_cache_path("napari-lgg-seg", appauthor=False) / "torchrun"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise TrainingError(f"{folder} belongs to another user; remove it to train in several processes.")
    return FileStore(str(folder / f"{torchrun.pid}-{torchrun.create_time()}-{attempt}"), count)


def lost_process(error: BaseException) -> TrainingError:
    """Make the error that tells the user that the processes can no longer communicate."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return TrainingError(
        "Another process of this training ended or cannot be reached, so all of them stop; the best model "
        f"and the last state are saved - continue with --resume ({reason})."
    )
