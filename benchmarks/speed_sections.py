"""The sections of the benchmark suite: which ways take turns in each, and what is kept of them as JSON."""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speed_limit import describe_processor
from speed_turns import FailedError, Group, call, programs_in_turn, run_program, take_turns

from napari_lgg_seg.core.devices import ENGINE_CHOICES, INT8_ENGINE

HERE = Path(__file__).parent
PROGRAM = [sys.executable, "-m", "napari_lgg_seg"]
#: Everything that can compute the network here; what of it computes whole patients; and which of these is
#: taken unasked, the first that is there.
ENGINES = tuple(name for name in ENGINE_CHOICES if name != "auto")
PATIENT_ENGINES = ("torch", "openvino", INT8_ENGINE)
AUTOMATIC_ENGINES = ("openvino", "torch")
#: Whole slices, and what the shipped model works on.
SIZE, WORKING_SIZE = 256, 192
#: Slices of the largest patient of the dataset, and of the one whose threshold is moved.
MOST_SLICES, THRESHOLD_SLICES = 88, 60
#: In a try: sides of slices, and slices of patients.
TINY, FEW_SLICES = 64, 4
#: Size and batch of the training steps; the first part of a training from scratch has the smallest.
STEPS = ((128, 8), (192, 8), (192, 16), (256, 8), (256, 16))
#: Patients of the cohorts over which time and memory are followed.
COHORTS, WHOLE_COHORT = (1, 5, 20), 90


@dataclass
class Settings:
    """What is measured on, and how often.

    Attributes
    ----------
    work : Path
        An empty folder for whatever is written.
    dataset : Path or None
        The dataset's folder; made patients without it, and in a try.
    rounds : int
        Turns of the network alone; the longer sections have fewer.
    patients : int
        Of the cohort that is segmented end to end.
    quick, full : bool
        As little as shows that it works; a cohort of 90 as well.
    """

    work: Path
    dataset: Path | None
    rounds: int
    patients: int
    quick: bool = False
    full: bool = False
    _made: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.quick:
            self.dataset = None

    @property
    def size(self) -> int:
        """Side of whole slices."""
        return TINY if self.quick else SIZE

    @property
    def working_size(self) -> int:
        """Side of the slices that the shipped model works on, where it is given slices."""
        return TINY // 2 if self.quick else WORKING_SIZE

    @property
    def threshold_slices(self) -> int:
        """Slices of the patient whose threshold is moved."""
        return 2 * FEW_SLICES if self.quick else THRESHOLD_SLICES

    @property
    def one(self) -> int:
        """Slices that are computed one at a time in a turn."""
        return 1 if self.quick else 4

    @property
    def batch(self) -> int:
        """Slices of a large batch."""
        return 2 if self.quick else 16

    @property
    def few(self) -> int:
        """Turns of longer work."""
        return 1 if self.quick else max(2, self.rounds // 2)

    @property
    def cohorts(self) -> tuple[int, ...]:
        """How many patients the growing cohorts have."""
        if self.quick:
            return (*COHORTS[:1], 2)
        return (*COHORTS, WHOLE_COHORT) if self.full else COHORTS

    @property
    def network(self) -> str:
        """The network's file in Keras."""
        return str(self.work / "network.keras")

    @property
    def reference(self) -> str:
        """The file of slices with the network's answer."""
        return str(self.work / "reference.npz")

    def folders(self, count: int) -> list[str]:
        """Patients of median size, the most median first; made ones without a dataset."""
        if self.dataset is None:
            return self._made["patients"][:count]
        sizes = {folder: size for folder in sorted(self.dataset.iterdir()) if (size := _slices(folder))}
        middle = statistics.median(sizes.values()) if sizes else 0
        return [str(f) for f in sorted(sizes, key=lambda f: (abs(sizes[f] - middle), f.name))[:count]]

    def largest(self) -> str:
        """The patient with the most slices; a made one without a dataset."""
        if self.dataset is None:
            return self._made["long"][1]
        return str(max(sorted(self.dataset.iterdir()), key=_slices))

    def threshold_folder(self) -> str:
        """The made patient whose threshold is moved."""
        return self._made["long"][0]

    def prepare(self) -> dict[str, Any]:
        """Write what the sections share; what cannot be written is told by those who miss it."""
        # The user's own caches and edits are left alone, and a first run is a first run.
        os.environ |= {
            "XDG_CACHE_HOME": str(self.work / "cache"),
            "XDG_DATA_HOME": str(self.work / "data"),
            "NAPARI_CONFIG": "",
        }
        count = max(self.patients, *self.cohorts) if self.dataset is None else 0
        made = {"folder": str(self.work / "patients"), "count": count}
        made |= {"slices": [self.threshold_slices, 3 * FEW_SLICES if self.quick else MOST_SLICES]}
        made |= {"size": self.size, "first": FEW_SLICES if self.quick else None}
        self._made = call("speed_ways:make_patients", made)
        about = call("speed_ways:prepare", {"reference": self.reference, "size": self.size})
        model = call("speed_ways:model_file", {})
        try:
            call("speed_keras:save", {"network": self.network, "weights": model, "size": self.size})
        except FailedError as failure:
            about["keras"] = str(failure)
        return about


def _slices(folder: Path) -> int:
    return sum(not name.stem.endswith("_mask") for name in folder.glob("*.tif")) if folder.is_dir() else 0


# --- network -----------------------------------------------------------------------------------


def network(settings: Settings) -> dict[str, Any]:
    """Seconds a slice of the network alone, and how fast the processor multiplies matrices meanwhile."""
    turns = {"one": settings.one, "batch": settings.batch}
    shared = {"reference": settings.reference, **turns}
    side, slices = (512, 2) if settings.quick else (4096, 8)
    sizes = [settings.size, settings.working_size]
    engines = {"sizes": sizes, "slices": slices}
    seen = {"folders": settings.folders(1 if settings.quick else 2)}
    groups = [
        Group(("fp32 product", "bf16 product"), "speed_ways:multiplication_ways", {"side": side}),
        Group(
            ("keras one", "keras batch"), "speed_keras:network_ways", {"network": settings.network, **shared}
        ),
        Group(
            ("torch one", "torch batch"),
            "speed_ways:torch_ways",
            {"architecture": "unet", "size": settings.size, **turns},
        ),
        Group(
            ("study one", "study batch"),
            "speed_ways:torch_ways",
            {"architecture": "buda", "size": settings.size, **turns},
        ),
        Group(("onnx one", "onnx batch"), "speed_ways:onnx_ways", shared),
        *(
            Group((f"{name} whole", f"{name} working"), "speed_ways:engine_ways", {"engine": name, **engines})
            for name in ENGINES
        ),
        *(
            Group(
                (f"{name} {what}",),
                "speed_ways:window_ways",
                {"engine": name, "full_resolution": full_resolution, **seen},
            )
            for name in PATIENT_ENGINES
            for what, full_resolution in (("windows", True), ("seen", False))
        ),
    ]
    return {
        **turns,
        "size": settings.size,
        "working_size": settings.working_size,
        "gflop": call("speed_ways:count_operations", {"sizes": [*sizes, WORKING_SIZE]}),
        "processor": describe_processor(),
        "ways": take_turns(groups, settings.rounds),
    }


# --- patients ----------------------------------------------------------------------------------


def patient(settings: Settings) -> dict[str, Any]:
    """Seconds from a folder to mask files: with everything loaded, and from a cold start."""
    folders = settings.folders(1 if settings.quick else 2)
    output = {"folders": folders, "output": str(settings.work / "masks")}
    groups = [
        Group(("keras",), "speed_keras:patient_ways", {"network": settings.network, **output}),
        Group(("study",), "speed_study:patient_ways", output),
        *(Group((name,), "speed_ways:patient_ways", {"engine": name, **output}) for name in PATIENT_ENGINES),
    ]
    first = folders[:1]
    empty = settings.work / "empty cache"
    try:
        fresh = run_program(_ours(first)(settings.work / "first"), XDG_CACHE_HOME=str(empty))
    except FailedError as failure:
        fresh = {"problem": str(failure)}
    return {
        "slices": [_slices(Path(folder)) for folder in folders],
        "warm": take_turns(groups, settings.few),
        "cold": programs_in_turn({**_programs(settings, first), "study": _study(first)}, settings.few),
        "first run ever": fresh,
    }


def cohort(settings: Settings) -> dict[str, Any]:
    """Seconds for several patients, start-up counted on all sides."""
    folders = settings.folders(settings.patients)
    return {
        "slices": [_slices(Path(folder)) for folder in folders],
        "programs": programs_in_turn(_programs(settings, folders), settings.few),
    }


def growth(settings: Settings) -> dict[str, Any]:
    """Seconds and peak memory of ``segment``, over cohorts of growing size and for the largest patient.

    ``alone`` is the largest patient of the largest cohort.
    """
    _once(_ours(settings.folders(1))(settings.work / "first"))  # converts the network, which is not counted
    found: dict[str, Any] = {"cohorts": {}}
    alone = ""
    for count in settings.cohorts:
        folders = settings.folders(count)
        if len(folders) < count:
            found["cohorts"][str(count)] = {"problem": f"there are {len(folders)} patients only"}
            continue
        found["cohorts"][str(count)] = _once(_ours(folders)(settings.work / f"cohort of {count}"))
        found["cohorts"][str(count)]["slices"] = sum(_slices(Path(folder)) for folder in folders)
        alone = max(sorted(folders), key=lambda folder: _slices(Path(folder)))
    largest = settings.largest()
    measured = {
        folder: _once(_ours([folder])(settings.work / Path(folder).name)) | {"slices": _slices(Path(folder))}
        for folder in {alone, largest}
    }
    return found | {"alone": measured[alone], "largest": measured[largest]}


def _once(command: Sequence[str]) -> dict[str, Any]:
    try:
        return run_program(command)
    except FailedError as failure:
        return {"problem": str(failure)}


def _ours(folders: Sequence[str], *options: str) -> Callable[[Path], list[str]]:
    return lambda output: [
        *PROGRAM,
        "segment",
        *folders,
        "--output",
        str(output),
        "--device",
        "cpu",
        *options,
    ]


def _programs(settings: Settings, folders: Sequence[str]) -> dict[str, Callable[[Path], list[str]]]:
    keras = [sys.executable, str(HERE / "speed_keras.py"), settings.network, *folders]
    ours = {engine: _ours(folders, "--engine", engine) for engine in PATIENT_ENGINES}
    return {"keras": lambda output: [*keras, str(output)], **ours}


def _study(folders: Sequence[str]) -> Callable[[Path], list[str]]:
    return lambda output: [sys.executable, str(HERE / "speed_study.py"), *folders, str(output)]


# --- training ----------------------------------------------------------------------------------


def training(settings: Settings) -> dict[str, Any]:
    """Seconds a slice of a training step; memory, and time spent waiting for data, of a training."""
    steps = ((TINY, 2),) if settings.quick else STEPS
    names = [f"{size} {batch}" for size, batch in steps]
    folders = settings.folders(2 if settings.quick else 6)
    counts = (2,) if settings.quick else (4, 20)
    options = {"size_and_batch": steps}
    groups = [
        Group(tuple(f"keras {name}" for name in names), "speed_keras:training_ways", options),
        Group(
            tuple(f"ours {name}" for name in names),
            "speed_ways:training_ways",
            {**options, "folders": folders},
        ),
    ]
    return {
        "steps": [list(step) for step in steps],
        "ways": take_turns(groups, settings.few),
        "cohorts": {str(count): _training(settings, count) for count in counts},
    }


def _training(settings: Settings, count: int) -> dict[str, Any]:
    """A short training from scratch on a cohort, one of whose patients validates."""
    folders = settings.folders(count)
    root = settings.work / f"to train on {count}"
    root.mkdir()
    for folder in folders:
        (root / Path(folder).name).symlink_to(folder, target_is_directory=True)
    validation = root.with_suffix(".txt")
    validation.write_text(Path(folders[0]).name, encoding="utf-8")
    model = settings.work / f"model {count}.safetensors"
    short = ["--init", "scratch", "--epochs", "1", "--slices-per-epoch", "2" if settings.quick else "64"]
    command = [*PROGRAM, "train", str(root), "--output", str(model), "--device", "cpu", *short]
    found = _once([*command, "--small-share", "0", "--validation-patients", str(validation)])
    if "problem" in found:
        return found
    with model.with_suffix(".state").joinpath("history.csv").open(encoding="utf-8") as file:
        waiting = float(list(csv.DictReader(file))[-1]["waiting"])
    slices = sum(_slices(Path(folder)) for folder in folders[1:])
    # Three sequences and the mask, a byte each.
    return {**found, "waiting": waiting, "slices": slices, "data_mb": slices * 4 * WORKING_SIZE**2 / 1e6}


# --- parts, start, window ----------------------------------------------------------------------


def parts(settings: Settings) -> dict[str, Any]:
    """Seconds for reading a patient, for clean-up, and for a new threshold."""
    (folder,) = settings.folders(1)
    group = Group(
        ("tifffile", "read", "clean-up", "threshold"),
        "speed_ways:part_ways",
        {"folder": folder, "slices": settings.threshold_slices},
    )
    return {
        "slices": _slices(Path(folder)),
        "threshold_slices": settings.threshold_slices,
        "ways": take_turns([group], max(5, settings.rounds)),
    }


def start(settings: Settings) -> dict[str, Any]:
    """What importing costs, and what the plugin adds to napari's start."""
    programs = {
        "python": ["-c", "pass"],
        "package": ["-c", "import napari_lgg_seg"],
        "program": ["-m", "napari_lgg_seg", "--help"],
        "torch": ["-c", "import torch"],
    }
    commands = {name: _python(arguments) for name, arguments in programs.items()}
    viewers: dict[str, list[float]] = {"with": [], "without": []}
    environment = os.environ | ({} if has_display() else {"QT_QPA_PLATFORM": "offscreen"})
    problem = None
    # The first ones fill the caches; there are many, since the difference is small beside the whole.
    for turn in range(2 if settings.quick else 6 * settings.rounds + 1):
        # Each of the two comes first as often as the other.
        for word, seconds in list(viewers.items())[:: 1 if turn % 2 else -1]:
            command = [sys.executable, str(HERE / "speed_start.py"), word, str(time.time())]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                problem = (done.stderr.strip().splitlines() or ["napari did not start"])[-1]
            else:
                seconds.append(float(done.stdout.split()[-1]))
    napari: dict[str, Any] = {word: seconds[1:] for word, seconds in viewers.items()}
    plugin = Group(("plugin",), "speed_start:plugin_ways")
    return {
        "programs": programs_in_turn(commands, settings.rounds),
        "napari": {"problem": problem} if problem else napari,
        "plugin": take_turns([plugin], 1)["plugin"],
    }


def _python(arguments: Sequence[str]) -> Callable[[Path], list[str]]:
    return lambda _: [sys.executable, *arguments]


def window(settings: Settings) -> dict[str, Any]:
    """Stalls of the window's thread during runs, and how soon something is seen."""
    if not has_display():
        return {"problem": "there is no display"}
    runs = 2 if settings.quick else 3
    try:
        return call("speed_window:measure", {"folder": settings.threshold_folder(), "runs": runs})
    except FailedError as failure:
        return {"problem": str(failure)}


def has_display() -> bool:
    """Whether a window can be shown here."""
    if os.environ.get("QT_QPA_PLATFORM", "") in ("offscreen", "minimal"):
        return False
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


#: In the order in which they are measured.
SECTIONS: Mapping[str, Callable[[Settings], dict[str, Any]]] = {
    "network": network,
    "patient": patient,
    "cohort": cohort,
    "training": training,
    "parts": parts,
    "start": start,
    "window": window,
    "growth": growth,
}
