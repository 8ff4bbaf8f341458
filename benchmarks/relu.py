"""What ReLU on 16-bit integers is worth on the CPU: a batch through the network with it, and with torch's.

    python benchmarks/relu.py

Both take turns in one process; medians and their ratio are printed.
"""

from __future__ import annotations

import statistics
import time
from copy import deepcopy

import torch
from torch import nn

from napari_lgg_seg.core import memory
from napari_lgg_seg.core.inference.fold import fold_batch_norm
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.model.networks import ReLU

ROUNDS = 7


def main() -> None:
    """Print seconds a slice of 192 x 192, in batches of 8, in bf16."""
    memory.keep_memory_mapped()
    ours = fold_batch_norm(load_model().network).to(torch.bfloat16, memory_format=torch.channels_last)
    networks = {"torch": with_torchs_relu(ours), "on integers": ours}
    batch = torch.randn(8, 3, 192, 192).to(torch.bfloat16, memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for network in networks.values():
            network(batch)
        for _ in range(ROUNDS):
            for name, network in networks.items():
                began = time.perf_counter()
                network(batch)
                seconds[name].append((time.perf_counter() - began) / len(batch))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.4f} s a slice")
    print(f"ratio {medians['on integers'] / medians['torch']:.2f}")


def with_torchs_relu(network: nn.Module) -> nn.Module:
    """A copy whose ReLUs are torch's."""
    network = deepcopy(network)
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place, module in enumerate(block):
            if isinstance(module, ReLU):
                block[place] = nn.ReLU(inplace=True)
    return network


if __name__ == "__main__":
    main()
