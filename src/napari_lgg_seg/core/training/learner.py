"""The network being trained: weights and their moving average, optimiser, loss, and the optimiser step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import devices, memory
from ..errors import DeviceError, TrainingError
from ..inference.predict import Notice
from . import distributed
from .distributed import Processes
from .initial_model import InitialModel
from .options import TrainOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Tensors = list[Tensor] | tuple[Tensor, ...]


class Learner:
    """Everything that an optimiser step changes.

    Parameters
    ----------
    initial : InitialModel
        Network and weights to start from.
    options : TrainOptions
        With all defaults filled in.
    processes : Processes
        The processes that share each step.
    device : torch.device
        Where the network is trained.

    Attributes
    ----------
    network : nn.Module
        The network with the weights of the last step.
    optimiser : torch.optim.Optimizer
        Muon or AdamW.
    steps : int
        Completed steps.
    notices : list of Notice
        What the user should know; emptied by the run.
    """

    def __init__(
        self, initial: InitialModel, options: TrainOptions, processes: Processes, device: torch.device
    ) -> None:
        import torch

        from .losses import make_loss

        self.options, self.processes, self.device = options, processes, device
        self._fine_tuning = initial.card is not None
        self.network: nn.Module = initial.build(options.seed).to(
            self.device, memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        self._average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=self._update_average, use_buffers=True
        )
        if self._fine_tuning:  # otherwise the first step would replace the initial weights
            self._average.n_averaged.fill_(1)
        self._forward = self.processes.wrap(self.network, self.device)
        self.optimiser = self._new_optimiser()
        self.scaler = devices.gradient_scaler(self.device)
        self.loss = make_loss(options.loss)
        # If memory is short, the slices of a step are computed in parts of this size.
        self._part = options.batch_size
        self.steps = 0
        self.notices: list[Notice] = []

    def _new_optimiser(self) -> torch.optim.Optimizer:
        import torch

        from .muon import Muon

        rate, decay = self.options.learning_rate or 0.0, self.options.weight_decay
        if self.options.optimiser == "muon":
            return Muon(self.network, rate, decay, devices.matrix_dtype(self.device))
        return torch.optim.AdamW(self.network.parameters(), lr=rate, weight_decay=decay, fused=True)

    @property
    def averaged(self) -> nn.Module:
        """The network with the averaged weights; the network itself before the first step."""
        return self._average.module if self.steps else self.network

    def learn(self, images: Tensor, masks: Tensor, whole: int) -> float:
        """Do one optimiser step.

        Parameters
        ----------
        images, masks : Tensor
            This process's share of the batch, on the device: (n, c, h, h) and (n, 1, h, h).
        whole : int
            Number of slices in the batch of all processes.

        Returns
        -------
        float
            Loss of the batch.

        Raises
        ------
        TrainingError
            If the loss or gradient is not finite, or another process has ended.
        DeviceError
            If the device fails, or has too little memory for a single slice.
        """
        import torch

        self.network.train()
        loss = self._gradients_within_memory(images, masks, whole)
        try:
            self.scaler.unscale_(self.optimiser)
            norm = float(
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.options.gradient_clip)
            )
            # Scaled gradients overflow now and then, and the scaler skips the step.
            if not math.isfinite(loss) or not (self.scaler.is_enabled() or math.isfinite(norm)):
                raise TrainingError(
                    f"The loss is not finite at step {self.steps + 1}; the best model so far is saved - "
                    "train again with a lower learning rate."
                )
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self._average.update_parameters(self.network)
        except RuntimeError as error:  # CUDA reports errors late; the optimiser needs memory, too
            raise self.failure(error) from error
        self.steps += 1
        return loss

    def _gradients_within_memory(self, images: Tensor, masks: Tensor, whole: int) -> float:
        """Compute the gradients, in ever smaller parts until they fit into memory; returns the loss."""
        while True:
            try:
                return self._gradients(images, masks, whole)
            except (RuntimeError, MemoryError) as error:
                self._recover(error, min(self._part, len(images)))
            # Not in the except block, where the traceback still refers to the failed step's tensors.
            self.optimiser.zero_grad(set_to_none=True)
            memory.reclaim_memory(self.device)

    def _gradients(self, images: Tensor, masks: Tensor, whole: int) -> float:
        """Compute the gradients of the batch, in parts if memory is short; returns the loss."""
        import torch

        self.optimiser.zero_grad(set_to_none=True)
        processes, total = self.processes, 0.0
        parts = zip(torch.split(images, self._part), torch.split(masks, self._part), strict=True)
        for part, part_masks in parts:
            with devices.autocast(self.device):
                logits = self._forward(part)
            count = whole if processes.count > 1 else len(part)
            loss = self.loss(
                processes.whole_batch(logits.float(), count), processes.whole_batch(part_masks, count)
            )
            share = len(part) / len(images)
            # Gradients are averaged over the processes, but each has only its part of them.
            self.scaler.scale(loss * share * processes.count).backward()
            total += share * float(loss.detach())
        return total

    def _recover(self, error: BaseException, part: int) -> None:
        """Halve the parts of a step that ran out of memory; other failures are raised for the user."""
        if not memory.is_out_of_memory(error) or part == 1 or self.processes.count > 1:
            raise self.failure(error) from error
        self._part = part // 2
        self.notices.append(Notice(f"Out of memory: each step now computes {self._part} slices at a time."))

    def failure(self, error: BaseException) -> DeviceError | TrainingError:
        """Make the error that tells the user why a step failed."""
        device = devices.describe_device(self.device)
        if memory.is_out_of_memory(error):
            return DeviceError(
                f"{device} has too little memory for a step; close other programs, or choose a smaller batch."
            )
        if self.processes.count > 1:
            return distributed.lost_process(error)
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return DeviceError(
            f"{device} failed ({reason}); the best model so far is saved - resume the training, or choose "
            "another device."
        )

    def _update_average(self, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        """Update the moving average; from scratch its decay starts low and rises to the option's."""
        import torch

        if not averaged[0].is_floating_point():  # counters; torch groups the tensors by dtype
            torch._foreach_copy_(averaged, current)
            return
        decay = self.options.average_decay or 0.0
        if not self._fine_tuning:  # forget random weights quickly
            decay = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "network": self.network.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "part": self._part,
            "steps_done": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what :meth:`state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        # Several processes compute their shares of a batch in one go.
        self._part = state["part"] if self.processes.count == 1 else self.options.batch_size
        self.steps = state["steps_done"]

    def close(self) -> None:
        """Release the device's memory."""
        self.optimiser.zero_grad(set_to_none=True)
        self.optimiser.state.clear()
        for module in (self.network, self._average):
            module.to("cpu")
        memory.reclaim_memory(self.device)
