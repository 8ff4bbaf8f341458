"""What the processor could do at most: its widest instructions, times clock, times cores."""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

#: Number format -> instruction sets, the widest first, with the operations that a core does by them in a
#: cycle; a multiplication and an addition are two. AMX: one tile product in 16 cycles. The others: two
#: instructions a cycle, which is the most that there is; some processors do one.
RATES: dict[str, tuple[tuple[str, int], ...]] = {
    "fp32": (("avx512f", 64), ("fma", 32), ("sse2", 8)),
    "bf16": (("amx_bf16", 1024), ("avx512_bf16", 128)),
    "int8": (("amx_int8", 2048), ("avx512_vnni", 256), ("avx_vnni", 128)),
}


def read_flags(cpuinfo: str) -> frozenset[str]:
    """The instruction sets that Linux names."""
    lines = [line for line in cpuinfo.splitlines() if line.startswith("flags")]
    return frozenset(lines[0].partition(":")[2].split()) if lines else frozenset()


def widest(flags: Collection[str]) -> dict[str, tuple[str, int]]:
    """For each number format the instruction set used, and operations a cycle and core."""
    found = {}
    for name, sets in RATES.items():
        here = [(flag, rate) for flag, rate in sets if flag in flags]
        if here:
            found[name] = here[0]
    return found


def describe_processor() -> dict[str, Any]:
    """Name, cores, clock in GHz as the system names it, and GFLOP/s by number format where they are known."""
    import psutil

    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    clock = psutil.cpu_freq()
    ghz = max(clock.max, clock.current) / 1000 if clock is not None else None
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    rates = widest(read_flags(text))
    return {
        "name": names[0] if names else platform.processor() or platform.machine(),
        "cores": cores,
        "ghz": ghz,
        "instructions": {name: flag for name, (flag, _) in rates.items()},
        "gflops": {name: rate * cores * ghz for name, (_, rate) in rates.items()} if ghz else {},
    }
