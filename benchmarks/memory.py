"""What keeping freed memory mapped is worth: a training step and an inference batch, with and without.

    python benchmarks/memory.py

Each variant runs in a process of its own, the two in turn, and the medians and their ratio are printed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

ROUNDS = 5


def measure(keep: bool) -> dict[str, float]:
    """Seconds a slice of 192 x 192, in batches of 8, on the CPU."""
    import torch

    from napari_lgg_seg.core import devices, memory
    from napari_lgg_seg.core.inference.fold import fold_batch_norm
    from napari_lgg_seg.core.model.networks import UNet

    if keep:
        memory.keep_memory_mapped()
    cpu = torch.device("cpu")
    slices = torch.randn(8, 3, 192, 192).contiguous(memory_format=torch.channels_last)
    network = UNet().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)

    def training_step() -> None:
        with devices.autocast(cpu):
            loss = network(slices).float().square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    dtype = devices.inference_dtype(cpu)
    folded = fold_batch_norm(network).to(dtype=dtype, memory_format=torch.channels_last)

    def inference() -> None:
        with torch.inference_mode():
            folded(slices.to(dtype))

    return {"training": _seconds(training_step) / 8, "inference": _seconds(inference) / 8}


def _seconds(work) -> float:  # noqa: ANN001
    work(), work()
    times = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Run the variants in turn and print medians and ratios."""
    results: dict[str, list[dict[str, float]]] = {"keep": [], "default": []}
    for _ in range(ROUNDS):
        for variant in results:
            output = subprocess.run([sys.executable, __file__, variant], check=True, capture_output=True)
            results[variant].append(json.loads(output.stdout))
    for job in ("training", "inference"):
        keep, default = (statistics.median(r[job] for r in results[v]) for v in ("keep", "default"))
        print(f"{job}: {keep:.3f} s a slice kept, {default:.3f} by default, ratio {keep / default:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1] == "keep")))
    else:
        main()
