"""One training in several processes, one for each GPU: PyTorch's own engine, started by ``torchrun``.

The processes share every batch and act as one. All that the training needs of that is here; with one
process each of these does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .. import devices
from ..errors import TrainingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them.

    Attributes
    ----------
    rank : int
        This process; 0 is the main one, which alone writes files.
    count : int
        How many there are.
    local_rank : int
        This process among those of its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """What this process does of what all work on."""
        return items[self.rank :: self.count]

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network for the forward pass of a step: gradients are averaged over the processes."""
        if self.count == 1:
            return network
        from torch import nn

        if device.type == "cuda":  # it raises on the CPU
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return nn.parallel.DistributedDataParallel(network)

    def whole_batch(self, own: Tensor, total: int) -> Tensor:
        """The batch of all processes, of which only this one's part carries gradients.

        A loss of it is the loss of one process with the whole batch, whatever sums it takes (Dice
        takes three); its gradients with regard to this part are exact, too. Their sum over the
        processes is the whole gradient, of which ``DistributedDataParallel`` gives the average.

        Parameters
        ----------
        own : Tensor
            Shape (n, ...), this process's :meth:`share` of the batch.
        total : int
            Slices in the batch of all processes.
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
        """Whether a flag is set in any process."""
        if self.count == 1:
            return flag
        import torch
        from torch import distributed

        votes = torch.tensor(float(flag), device=device)
        distributed.all_reduce(votes)
        return bool(votes)

    def merged(self, own: Mapping[str, T]) -> dict[str, T]:
        """What all processes found, together, in the same order everywhere."""
        if self.count == 1:
            return dict(own)
        from torch import distributed

        found: list[dict[str, T]] = [{} for _ in range(self.count)]
        distributed.all_gather_object(found, dict(own))
        return dict(sorted((name, value) for part in found for name, value in part.items()))

    def from_main(self, value: T) -> T:
        """The main process's value, in all of them."""
        if self.count == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()


_current = Processes()


def current() -> Processes:
    """The processes of this training; a single one unless :func:`joined` says otherwise."""
    return _current


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes that ``torchrun`` started, if it did, for the length of a block.

    Parameters
    ----------
    device : str
        What the user asked for: decides how the processes talk (NCCL between GPUs, else Gloo).

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
    distributed.init_process_group(backend)
    try:
        yield _current
    except RuntimeError as error:  # what Gloo and NCCL raise when a peer is gone
        raise lost_process(error) from error
    finally:
        _current = Processes()
        distributed.destroy_process_group()


def lost_process(error: BaseException) -> TrainingError:
    """What to tell the user when the processes can no longer talk to each other."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return TrainingError(
        "Another process of this training ended or cannot be reached, so all of them end; the best model "
        f"and the last state are kept - go on with --resume ({reason})."
    )
