"""The sections of the speed benchmarks: which methods run alternately in each, and what is stored of them."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from napari_lgg_seg.core.devices import INT8_ENGINE
from speed.rounds import (
    FailedError,
    Group,
    call,
    package_path,
    run_alternately,
    run_program,
    run_programs_alternately,
)
from speed.settings import TINY, WORKING_SIZE, Settings, count_slices

PROGRAM = [sys.executable, "-m", "napari_lgg_seg"]
#: The engines that are compared; and those that "auto" chooses from, the first that is installed.
ENGINES = ("torch", "openvino", INT8_ENGINE)
AUTOMATIC_ENGINES = ("openvino", "torch")
#: Size and batch of the training steps; the first part of a training from scratch has the smallest size.
STEPS = ((128, 8), (192, 8), (192, 16), (256, 8), (256, 16))


# --- network -----------------------------------------------------------------------------------


def network(settings: Settings) -> dict[str, Any]:
    """Seconds per slice of the network alone, and the rate of matrix products measured in the same rounds."""
    counts = {"one": settings.one, "batch": settings.batch}
    sizes = [settings.size, settings.working_size]
    return {
        **counts,
        "size": settings.size,
        "working_size": settings.working_size,
        "gflop": call("speed.networks:count_operations", {"sizes": [*sizes, WORKING_SIZE]}),
        "processor": describe_processor(),
        "methods": run_alternately(_network_groups(settings, counts, sizes), settings.rounds),
    }


def _network_groups(settings: Settings, counts: Mapping[str, int], sizes: Sequence[int]) -> list[Group]:
    side, slices = (512, 2) if settings.quick else (4096, 8)
    patients = settings.folders(1 if settings.quick else 2)
    shared = {"reference": settings.reference, **counts}
    keras = {"network": settings.network, **shared}
    groups = [
        Group(("fp32 product", "bf16 product"), "speed.networks:matrix_product_methods", {"side": side}),
        Group(("keras one", "keras batch"), "speed.keras_baseline:network_methods", keras),
    ]
    for name, architecture in (("torch", "unet"), ("study", "buda")):
        options = {"architecture": architecture, "size": settings.size, **counts}
        groups.append(Group((f"{name} one", f"{name} batch"), "speed.networks:torch_methods", options))
    groups.append(Group(("onnx one", "onnx batch"), "speed.networks:onnx_methods", shared))
    for name in ENGINES:
        options = {"engine": name, "sizes": sizes, "slices": slices}
        groups.append(Group((f"{name} whole", f"{name} working"), "speed.networks:engine_methods", options))
    for name in ENGINES:
        for label, full_resolution in (("full-resolution", True), ("coarse-to-fine", False)):
            options = {"engine": name, "full_resolution": full_resolution, "folders": patients}
            groups.append(Group((f"{name} {label}",), "speed.networks:patient_input_methods", options))
    return groups


def describe_processor() -> dict[str, Any]:
    """Name, physical cores, and clock in GHz where the system reports it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    clock = psutil.cpu_freq()
    return {
        "name": names[0] if names else platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "ghz": max(clock.max, clock.current) / 1000 if clock is not None else None,
    }


# --- patients ----------------------------------------------------------------------------------


def patient(settings: Settings) -> dict[str, Any]:
    """Seconds from a folder to mask files: with everything loaded, and from a cold start."""
    folders = settings.folders(1 if settings.quick else 2)
    output = {"folders": folders, "output": str(settings.work / "masks")}
    groups = [
        Group(("keras",), "speed.keras_baseline:patient_methods", {"network": settings.network, **output}),
        Group(("study",), "speed.study_baseline:patient_methods", output),
        *(Group((name,), "speed.pipeline:patient_methods", {"engine": name, **output}) for name in ENGINES),
    ]
    first = folders[:1]
    empty = settings.work / "empty cache"
    try:
        fresh = run_program(_ours(first)(settings.work / "first"), XDG_CACHE_HOME=str(empty))
    except FailedError as failure:
        fresh = {"problem": str(failure)}
    return {
        "slices": [count_slices(folder) for folder in folders],
        "warm": run_alternately(groups, settings.few),
        "cold": run_programs_alternately(
            {**_programs(settings, first), "study": _study(first)}, settings.few
        ),
        "first run ever": fresh,
    }


def cohort(settings: Settings) -> dict[str, Any]:
    """Seconds for several patients, start-up included for every program."""
    folders = settings.folders(settings.patients)
    return {
        "slices": [count_slices(folder) for folder in folders],
        "programs": run_programs_alternately(_programs(settings, folders), settings.few),
    }


def growth(settings: Settings) -> dict[str, Any]:
    """Seconds and peak memory of ``segment`` for growing cohorts, and for the largest patient.

    ``alone`` is the largest patient of the largest cohort.
    """
    _once(_ours(settings.folders(1))(settings.work / "first"))  # converts the network before it is measured
    found: dict[str, Any] = {"cohorts": {}}
    alone = ""
    for count in settings.cohorts:
        folders = settings.folders(count)
        if len(folders) < count:
            found["cohorts"][str(count)] = {"problem": f"there are only {len(folders)} patients"}
            continue
        found["cohorts"][str(count)] = _once(_ours(folders)(settings.work / f"cohort of {count}"))
        found["cohorts"][str(count)]["slices"] = sum(count_slices(folder) for folder in folders)
        alone = max(sorted(folders), key=count_slices)
    largest = settings.largest()
    measured = {
        folder: _once(_ours([folder])(settings.work / Path(folder).name)) | {"slices": count_slices(folder)}
        for folder in {alone, largest}
    }
    return found | {"alone": measured[alone], "largest": measured[largest]}


def _once(command: Sequence[str]) -> dict[str, Any]:
    try:
        return run_program(command)
    except FailedError as failure:
        return {"problem": str(failure)}


def _ours(folders: Sequence[str], *options: str) -> Callable[[Path], list[str]]:
    common = [*PROGRAM, "segment", *folders, "--device", "cpu", *options]
    return lambda output: [*common, "--output", str(output)]


def _programs(settings: Settings, folders: Sequence[str]) -> dict[str, Callable[[Path], list[str]]]:
    keras = [sys.executable, "-m", "speed.keras_baseline", settings.network, *folders]
    ours = {engine: _ours(folders, "--engine", engine) for engine in ENGINES}
    return {"keras": lambda output: [*keras, str(output)], **ours}


def _study(folders: Sequence[str]) -> Callable[[Path], list[str]]:
    return lambda output: [sys.executable, "-m", "speed.study_baseline", *folders, str(output)]


# --- training ----------------------------------------------------------------------------------


def training(settings: Settings) -> dict[str, Any]:
    """Seconds per slice of a training step; peak memory and the time spent waiting for data of a training."""
    steps = ((TINY, 2),) if settings.quick else STEPS
    names = [f"{size} {batch}" for size, batch in steps]
    folders = settings.folders(2 if settings.quick else 6)
    counts = (2,) if settings.quick else (4, 20)
    options = {"size_and_batch": steps}
    groups = [
        Group(tuple(f"keras {name}" for name in names), "speed.keras_baseline:training_methods", options),
        Group(
            tuple(f"ours {name}" for name in names),
            "speed.pipeline:training_methods",
            {**options, "folders": folders},
        ),
    ]
    return {
        "steps": [list(step) for step in steps],
        "methods": run_alternately(groups, settings.few),
        "cohorts": {str(count): _training(settings, count) for count in counts},
    }


def _training(settings: Settings, count: int) -> dict[str, Any]:
    """A short training from scratch on a cohort, with one validation patient."""
    folders = settings.folders(count)
    root = settings.work / f"to train on {count}"
    root.mkdir()
    for folder in folders:
        (root / Path(folder).name).symlink_to(folder, target_is_directory=True)
    validation = root.with_suffix(".txt")
    validation.write_text(Path(folders[0]).name, encoding="utf-8")
    model = settings.work / f"model {count}.safetensors"
    short = ["--init", "scratch", "--epochs", "1", "--set", f"slices_per_epoch={2 if settings.quick else 64}"]
    command = [*PROGRAM, "train", str(root), "--output", str(model), "--device", "cpu", *short]
    found = _once([*command, "--set", "small_share=0", "--validation-patients", str(validation)])
    if "problem" in found:
        return found
    with model.with_suffix(".state").joinpath("history.csv").open(encoding="utf-8") as file:
        waiting = float(list(csv.DictReader(file))[-1]["waiting"])
    slices = sum(count_slices(folder) for folder in folders[1:])
    # Three sequences and the mask, one byte per voxel each.
    return {**found, "waiting": waiting, "slices": slices, "data_mb": slices * 4 * WORKING_SIZE**2 / 1e6}


# --- parts, start-up, window -------------------------------------------------------------------


def parts(settings: Settings) -> dict[str, Any]:
    """Seconds to read a patient, to clean up its labels, and to apply a new threshold."""
    (folder,) = settings.folders(1)
    group = Group(
        ("tifffile", "read", "clean-up", "threshold"),
        "speed.pipeline:part_methods",
        {"folder": folder, "slices": settings.threshold_slices},
    )
    return {
        "slices": count_slices(folder),
        "threshold_slices": settings.threshold_slices,
        "methods": run_alternately([group], max(5, settings.rounds)),
    }


def start(settings: Settings) -> dict[str, Any]:
    """Seconds to import the package, and what the plugin adds to napari's start-up."""
    programs = {
        "python": ["-c", "pass"],
        "package": ["-c", "import napari_lgg_seg"],
        "program": ["-m", "napari_lgg_seg", "--help"],
        "torch": ["-c", "import torch"],
    }
    commands = {name: _python(arguments) for name, arguments in programs.items()}
    napari = _napari_start_up(2 if settings.quick else 6 * settings.rounds + 1)
    plugin = Group(("plugin",), "speed.startup:plugin_methods")
    return {
        "programs": run_programs_alternately(commands, settings.rounds),
        "napari": napari,
        "plugin": run_alternately([plugin], 1)["plugin"],
    }


def _napari_start_up(rounds: int) -> dict[str, Any]:
    """Seconds until a viewer exists, with and without the plugin, or ``{"problem": sentence}``.

    There are many rounds, because the difference is small compared with the whole.
    """
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    environment = os.environ | package_path() | ({} if has_display() else {"QT_QPA_PLATFORM": "offscreen"})
    for number in range(rounds):
        # Each of the two runs first equally often.
        for plugin in list(seconds)[:: 1 if number % 2 else -1]:
            command = [sys.executable, "-m", "speed.startup", plugin, str(time.time())]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                return {"problem": (done.stderr.strip().splitlines() or ["napari did not start"])[-1]}
            seconds[plugin].append(float(done.stdout.split()[-1]))
    return {plugin: values[1:] for plugin, values in seconds.items()}  # the first ones fill the caches


def _python(arguments: Sequence[str]) -> Callable[[Path], list[str]]:
    return lambda _: [sys.executable, *arguments]


def window(settings: Settings) -> dict[str, Any]:
    """How long the window freezes during runs, and how soon it shows something."""
    if not has_display():
        return {"problem": "there is no display"}
    runs = 2 if settings.quick else 3
    try:
        return call("speed.window:measure", {"folder": settings.threshold_folder(), "runs": runs})
    except FailedError as failure:
        return {"problem": str(failure)}


def has_display() -> bool:
    """Whether a window can be shown."""
    if os.environ.get("QT_QPA_PLATFORM", "") in ("offscreen", "minimal"):
        return False
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


#: The sections in the order in which they run.
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
