"""The optimiser Muon: SGD with momentum whose update matrices are orthogonalised.

K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024),
https://kellerjordan.github.io/posts/muon/. Updates are scaled as in J. Liu et al., *Muon is scalable for LLM
training* (2025), https://arxiv.org/abs/2502.16982, so that AdamW's learning rates and weight decay fit.
torch's Muon accepts only matrices; here a convolution's kernel becomes a matrix with a row per output channel
(per input channel, if the convolution is transposed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

#: Decay of the momentum, and its weight in each update (Nesterov).
MOMENTUM = 0.95
#: AdamW's parameters, for all parameters except the hidden kernels.
BETAS, EPSILON = (0.9, 0.999), 1e-8
#: Newton-Schulz iterations, and the coefficients of their polynomial.
ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
#: Root mean square of an update, in units of the learning rate: about that of AdamW.
UPDATE_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for the kernels of hidden convolutions, AdamW for all other parameters.

    Parameters
    ----------
    network : nn.Module
        The network to train; its first and last kernel do not count as hidden.
    lr : float
        Learning rate of both optimisers.
    weight_decay : float
        Decoupled weight decay of both.
    dtype : torch.dtype
        Precision of the matrix products; bf16 is enough.
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float, dtype: torch.dtype) -> None:
        kernels = [p for p in network.parameters() if p.ndim == 4]
        hidden = {id(p) for p in kernels[1:-1]}
        groups = [
            {
                "params": [p for p in network.parameters() if (id(p) in hidden) == is_hidden],
                "hidden": is_hidden,
            }
            for is_hidden in (True, False)
        ]
        super().__init__([g for g in groups if g["params"]], {"lr": lr, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            if group["hidden"]:
                for parameter in parameters:
                    self._update_kernel(parameter, group["lr"])
            else:
                self._update_others(parameters, group["lr"])

    def _update_kernel(self, kernel: Tensor, rate: float) -> None:
        state, gradient = self.state[kernel], kernel.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        matrix = gradient.lerp(momentum, MOMENTUM).flatten(1)
        update = orthogonalise(matrix.to(self._dtype)) * (UPDATE_RMS * max(matrix.shape) ** 0.5)
        kernel.add_(update.reshape(kernel.shape).to(kernel.dtype), alpha=-rate)

    def _update_others(self, parameters: list[Tensor], rate: float) -> None:
        """One step of Adam, https://arxiv.org/abs/1412.6980."""
        for parameter in parameters:
            if not self.state[parameter]:
                zero = torch.zeros_like(parameter)
                self.state[parameter] = {"steps": torch.zeros(()), "mean": zero, "square": zero.clone()}
        states: list[dict[str, Any]] = [self.state[p] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        means, squares = [s["mean"] for s in states], [s["square"] for s in states]
        for state in states:
            state["steps"] += 1
        torch._foreach_lerp_(means, gradients, 1 - BETAS[0])
        torch._foreach_mul_(squares, BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - BETAS[1])
        steps = [float(state["steps"]) for state in states]
        sizes = torch._foreach_div(squares, [1 - BETAS[1] ** n for n in steps])
        torch._foreach_sqrt_(sizes)
        torch._foreach_add_(sizes, EPSILON)
        factors = [-rate / (1 - BETAS[0] ** n) for n in steps]
        torch._foreach_addcdiv_(parameters, means, sizes, factors)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Find the nearest matrix whose singular values are all about 1 (0.7 to 1.2), by Newton-Schulz iteration.

    Parameters
    ----------
    matrix : Tensor
        Shape (m, n), floating point; zeros stay zeros.

    Returns
    -------
    Tensor
        Same shape and dtype.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = x.addmm(gram.addmm(gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
