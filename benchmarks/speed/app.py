"""How fast napari-lgg-seg is, compared with Keras, plain PyTorch, ONNX Runtime and the original study's code.

    tox run -e bench                                    # everything that is installed
    python benchmarks/speed measure --quick             # a trial run; its numbers mean little
    python benchmarks/speed measure --only network,window
    python benchmarks/speed show                        # print the tables and put them into docs/speed.md

Methods for the same task run alternately, each in a process of its own; one that is not installed becomes a
sentence in its table (``pip install --group bench`` installs Keras, TensorFlow and ONNX Runtime). With
``LGG_DATASET`` real patients of median size are used, otherwise synthetic ones. Leave the machine idle
meanwhile; the processor load before and after each section is stored as well. Sections that are not measured
again keep their stored values.
"""

from __future__ import annotations

import json
import tempfile
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from results import DOCS, EXPERIMENTS, fill

from napari_lgg_seg.core.atomic import replacing
from speed.rounds import FailedError
from speed.sections import SECTIONS
from speed.settings import Settings
from speed.tables import tables

FILE, DOCUMENT = EXPERIMENTS / "speed.json", DOCS / "speed.md"
PACKAGES = ("napari-lgg-seg", "torch", "openvino", "tensorflow-cpu", "tensorflow", "keras", "onnxruntime")
#: Processor load above which other programs disturb the measurement.
_BUSY = 0.1
#: Endings of keys in files of version 0.1.0, and what they are now.
_RENAMED_KEYS = {"ways": "methods", " windows": " full-resolution", " seen": " coarse-to-fine"}

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def measure(
    only: Annotated[
        str,
        typer.Option(help=f"Sections, separated by commas: {', '.join(SECTIONS)}; all of them by default."),
    ] = "",
    dataset: Annotated[
        Path | None, typer.Option(envvar="LGG_DATASET", exists=True, file_okay=False, help="kaggle_3m.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of the network alone; other sections have fewer.")
    ] = 4,
    patients: Annotated[int, typer.Option(min=1, help="Patients of the cohort.")] = 8,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="As little work as possible, to try it; stored in --file only."),
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="A cohort of 90 patients as well.")] = False,
    file: Annotated[Path | None, typer.Option(help="Where the results are stored.")] = None,
) -> None:
    """Measure, print the tables, and store the results."""
    chosen = [name for name in SECTIONS if not only or name in only.split(",")]
    unknown = set(only.split(",")) - set(SECTIONS) if only else set()
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))} is not a section.", param_hint="--only")
    target = file or (None if quick else FILE)
    sections = read_sections(target)
    with tempfile.TemporaryDirectory(prefix="speed-", ignore_cleanup_errors=True) as work:
        counts = (1, 2) if quick else (rounds, patients)
        settings = Settings(Path(work), dataset, *counts, quick, full)
        print("Preparing...", flush=True)
        prepared = settings.prepare()
        for name in chosen:
            print(f"Measuring {name}...", flush=True)
            try:
                sections[name] = _section(name, settings, prepared)
            except FailedError as failure:
                print(f"{name} was not measured: {failure}.", flush=True)
                continue
            _write(target, sections)
    _print(sections)


@app.command()
def show(
    file: Annotated[Path, typer.Option(exists=True, help="A file that `measure` wrote.")] = FILE,
    document: Annotated[Path, typer.Option(exists=True, help="The page to put the tables into.")] = DOCUMENT,
) -> None:
    """Print the tables, and put them into the page."""
    sections = read_sections(file)
    _print(sections)
    fill(document, tables(sections))


def _section(name: str, settings: Settings, prepared: dict[str, Any]) -> dict[str, Any]:
    """The measurements of a section, and the conditions under which they were made."""
    busy, began = _busy(), time.monotonic()
    found = SECTIONS[name](settings)
    minutes = (time.monotonic() - began) / 60
    about = {
        "date": date.today().isoformat(),
        "patients": "synthetic" if settings.dataset is None else "real",
        "quick": settings.quick,
        "busy": busy,
        "busy_after": _busy(),
        "versions": _versions(),
        **prepared,
    }
    return {"about": about, "minutes": round(minutes, 2), **found}


def _busy() -> float:
    """The processor load caused by other programs, measured over two seconds."""
    share = float(psutil.cpu_percent(2)) / 100
    if share > _BUSY:
        print(f"Other programs use {share:.0%} of the processor: do not trust the results.", flush=True)
    return share


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_sections(file: Path | None) -> dict[str, Any]:
    """The stored sections, also of files that version 0.1.0 wrote; empty without a file."""
    if file is None or not file.exists():
        return {}
    sections: dict[str, Any] = _current_keys(json.loads(file.read_text(encoding="utf-8")))
    for section in sections.values():
        if section["about"]["patients"] == "made":
            section["about"]["patients"] = "synthetic"
    return sections


def _current_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_current_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        ending = next((old for old in _RENAMED_KEYS if key.endswith(old)), None)
        name = key if ending is None else key.removesuffix(ending) + _RENAMED_KEYS[ending]
        found[name] = _current_keys(item)
    return found


def _write(file: Path | None, sections: dict[str, Any]) -> None:
    """Store the sections in their order."""
    if file is None:
        return
    ordered = {name: sections[name] for name in SECTIONS if name in sections}
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(_rounded(ordered), indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _print(sections: dict[str, Any]) -> None:
    for table in tables(sections).values():
        print(f"\n{table}")
