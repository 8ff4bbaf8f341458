"""The project's speed targets, compared with what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from results import as_table

from napari_lgg_seg.core.devices import INT8_ENGINE
from napari_lgg_seg.core.training.options import TrainOptions
from speed.formatting import (
    Measurement,
    Measurements,
    Section,
    factor,
    median,
    milliseconds,
    number,
    percent,
    speedup,
)
from speed.sections import AUTOMATIC_ENGINES
from speed.settings import SIZE, WORKING_SIZE


@dataclass(frozen=True)
class Target:
    """A value that should be at least, or below, a limit.

    Attributes
    ----------
    text : str
        What the value is, for the table.
    section : str
        The section that measures it.
    value : callable
        From the section's measurements to the value; None where it was not measured.
    limit : float
        What should be reached.
    show : callable
        How limit and value are written.
    at_least : bool
        Whether the value should be at least the limit, instead of below it.
    """

    text: str
    section: str
    value: Callable[[Section], float | None]
    limit: float
    show: Callable[[float], str] = factor
    at_least: bool = False

    def row(self, sections: Mapping[str, Section]) -> list[str]:
        """The target, what was measured, and whether it was met."""
        found = self.value(sections[self.section]) if self.section in sections else None
        sign = ">=" if self.at_least else "<"
        row = [self.text, f"{sign} {self.show(self.limit)}"]
        if found is None:
            return [*row, "", "not measured"]
        met = found >= self.limit if self.at_least else found < self.limit
        return [*row, self.show(found), "met" if met else "**not met**"]


# --- values ------------------------------------------------------------------------------------


def network_rate(section: Section, name: str) -> float | None:
    """GFLOP/s of a method for the network alone, counting only the operations that it does."""
    seconds = median(section["methods"].get(name))
    if seconds is None:
        return None
    counts = section["gflop"]["buda" if name.startswith("study") else "unet"]
    share = median(section["methods"][name], "share_of_pixels")
    # The input for patients is counted as a share of whole slices at the shipped model's working size.
    sizes = {"working": section["working_size"]}
    sizes |= dict.fromkeys(("full-resolution", "coarse-to-fine"), WORKING_SIZE)
    size = sizes.get(name.split()[1], section["size"])
    return counts[str(size)] * (1 if share is None else share) / seconds


def _network_speedup(
    what: str, engines: Sequence[str] = AUTOMATIC_ENGINES
) -> Callable[[Section], float | None]:
    """The speed-up over Keras in batches of the fastest of some engines."""

    def value(section: Section) -> float | None:
        methods = section["methods"]
        found = [speedup(methods["keras batch"], methods.get(f"{engine} {what}")) for engine in engines]
        return max((f for f in found if f is not None), default=None)

    return value


def _share_of_matrix_product(section: Section) -> float | None:
    product = median(section["methods"]["bf16 product"], "gflops")
    rates = [network_rate(section, f"{name} whole") for name in AUTOMATIC_ENGINES]
    known = [rate for rate in rates if rate is not None]
    return max(known) / product if known and product else None


def _automatic(methods: Measurements) -> Measurement | None:
    """The method that runs by default."""
    measured = (methods[name] for name in AUTOMATIC_ENGINES if median(methods.get(name)) is not None)
    return next(measured, None)


def _program_speedup(engine: str | None = None) -> Callable[[Section], float | None]:
    def value(section: Section) -> float | None:
        programs = section["programs"]
        return speedup(programs["keras"], programs.get(engine) if engine else _automatic(programs))

    return value


def _smallest_step_speedup(keras_size: int | None, our_size: int | None) -> Callable[[Section], float | None]:
    """The smallest speed-up of a training step over all batch sizes; at all equal sizes if none is given."""

    def value(section: Section) -> float | None:
        methods = section["methods"]
        steps = [(size, batch) for size, batch in section["steps"] if keras_size in (None, size)]
        found = [
            speedup(methods.get(f"keras {size} {batch}"), methods.get(f"ours {our_size or size} {batch}"))
            for size, batch in steps
        ]
        return min((f for f in found if f is not None), default=None)

    return value


def _training_speedup(section: Section) -> float | None:
    """The speed-up per slice of a training from scratch with the default options, small slices first."""
    options = TrainOptions(init="scratch").complete(fine_tuning=False)
    methods, batch, share = section["methods"], options.batch_size, options.small_share
    keras = methods.get(f"keras {WORKING_SIZE} {batch}")
    small = methods.get(f"ours {options.small_size} {batch}")
    large = methods.get(f"ours {WORKING_SIZE} {batch}")
    if median(keras) is None or median(small) is None or median(large) is None:
        return None
    assert small is not None
    assert large is not None
    assert share is not None
    rounds = zip(small["seconds"], large["seconds"], strict=False)
    return speedup(keras, {"seconds": [share * s + (1 - share) * w for s, w in rounds]})


def _waiting(section: Section) -> float | None:
    return max((c["waiting"] for c in section["cohorts"].values() if "waiting" in c), default=None)


def _memory_relative_to(other: Callable[[Section], Measurement]) -> Callable[[Section], float | None]:
    """Peak memory of the largest cohort, relative to that of something else in the section."""

    def value(section: Section) -> float | None:
        found = [cohort["peak_mb"] for cohort in section["cohorts"].values() if "peak_mb" in cohort]
        peak = other(section).get("peak_mb")
        return found[-1] / peak if len(found) > 1 and peak else None

    return value


def _longest_later_freeze(section: Section) -> float | None:
    return max((run["stall"] for run in section.get("runs", [])[1:]), default=None)


def _first_slices(section: Section) -> float | None:
    return section["runs"][0]["first_slices"] if section.get("runs") else None


def _slider(section: Section) -> float | None:
    return median(section.get("threshold"), "labels")


def _added_start_up(section: Section) -> float | None:
    napari = section["napari"]
    if "problem" in napari:
        return None
    pairs = zip(napari["with"], napari["without"], strict=True)
    return median({"seconds": [with_plugin - without for with_plugin, without in pairs]})


# --- targets -----------------------------------------------------------------------------------

_INT8 = "the same in 8 bits, which is opt-in"
TARGETS = (
    Target(
        "network alone, whole slices: speed-up over Keras in batches",
        *("network", _network_speedup("whole"), 3),
        at_least=True,
    ),
    Target(_INT8, "network", _network_speedup("whole", [INT8_ENGINE]), 3, at_least=True),
    Target(
        "network alone, coarse to fine: speed-up over Keras in batches",
        *("network", _network_speedup("coarse-to-fine"), 8),
        at_least=True,
    ),
    Target(_INT8, "network", _network_speedup("coarse-to-fine", [INT8_ENGINE]), 8, at_least=True),
    Target(
        "network alone, whole slices: rate relative to PyTorch's bf16 matrix product",
        *("network", _share_of_matrix_product, 0.85, percent),
        at_least=True,
    ),
    Target(
        "cohort from folders to mask files, start-up included: speed-up over Keras",
        *("cohort", _program_speedup(), 6),
        at_least=True,
    ),
    Target(_INT8, "cohort", _program_speedup(INT8_ENGINE), 6, at_least=True),
    Target(
        "one patient, warm: share of time outside the network",
        *("patient", lambda s: median(_automatic(s["warm"]), "outside"), 0.15, percent),
    ),
    Target(
        f"training step, ours on the head at {WORKING_SIZE}, Keras on whole slices of {SIZE}: speed-up",
        *("training", _smallest_step_speedup(SIZE, WORKING_SIZE), 3),
        at_least=True,
    ),
    Target(
        "training step at equal sizes, worst size and batch: speed-up over Keras",
        *("training", _smallest_step_speedup(None, None), 3),
        at_least=True,
    ),
    Target(
        "training from scratch, small slices first (the default): speed-up over Keras",
        *("training", _training_speedup, 3),
        at_least=True,
    ),
    Target("training: share of time waiting for data", "training", _waiting, 0.05, percent),
    Target(
        "window: longest freeze from the second run on", "window", _longest_later_freeze, 0.05, milliseconds
    ),
    Target("window: time to the first slices, first run", "window", _first_slices, 2, milliseconds),
    Target("window: time from threshold slider to new labels", "window", _slider, 0.05, milliseconds),
    Target("time that the plugin adds to napari's start-up", "start", _added_start_up, 0.03, milliseconds),
    Target(
        "peak memory of `segment`, largest patient",
        *("growth", lambda s: s["largest"].get("peak_mb"), 1500, lambda value: number(value, "MB", 4)),
    ),
    Target(
        "peak memory of `segment`, largest cohort relative to its largest patient alone",
        *("growth", _memory_relative_to(lambda s: s["alone"]), 1.1),
    ),
    Target(
        "the same relative to one patient of median size",
        *("growth", _memory_relative_to(lambda s: next(iter(s["cohorts"].values()))), 1.1),
    ),
)


def targets_table(sections: Mapping[str, Section]) -> str:
    """Each target and what was measured."""
    return as_table(["", "target", "measured", ""], [target.row(sections) for target in TARGETS])
