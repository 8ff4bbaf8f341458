"""How fast it is, beside what people use today and beside what the processor can do.

    tox run -e bench                                   # everything that is installed
    python benchmarks/speed.py measure --quick         # a try, whose figures mean little
    python benchmarks/speed.py measure --only network,window
    python benchmarks/speed.py show                    # the tables again, also into docs/speed.md

All ways to do the same take turns, each in a process of its own; what is not installed becomes a sentence in
its table (``pip install --group bench`` brings Keras, TensorFlow and ONNX Runtime). With ``LGG_DATASET``
real patients of median size are used, else made ones. Leave the machine alone meanwhile; how busy it was
before and after each section is in the file. Figures of sections that are not measured anew stay in it.
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
from speed_sections import SECTIONS, Settings
from speed_tables import tables
from speed_turns import FailedError

from napari_lgg_seg.core.atomic import replacing

FILE, DOCUMENT = EXPERIMENTS / "speed.json", DOCS / "speed.md"
PACKAGES = ("napari-lgg-seg", "torch", "openvino", "tensorflow-cpu", "tensorflow", "keras", "onnxruntime")
#: Share of the processor above which something else is at work.
_BUSY = 0.1

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def measure(
    only: Annotated[
        str, typer.Option(help=f"Sections, with commas: {', '.join(SECTIONS)}; all by default.")
    ] = "",
    dataset: Annotated[
        Path | None, typer.Option(envvar="LGG_DATASET", exists=True, file_okay=False, help="kaggle_3m.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of the network alone; others take fewer.")] = 4,
    patients: Annotated[int, typer.Option(min=1, help="Of the cohort that is compared.")] = 8,
    quick: Annotated[
        bool, typer.Option("--quick", help="As little as shows that everything works; kept in --file only.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="A cohort of 90 patients as well.")] = False,
    file: Annotated[Path | None, typer.Option(help="Where the figures go.")] = None,
) -> None:
    """Measure, print the tables, and keep the figures."""
    chosen = [name for name in SECTIONS if not only or name in only.split(",")]
    unknown = set(only.split(",")) - set(SECTIONS) if only else set()
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))} is no section.", param_hint="--only")
    target = file or (None if quick else FILE)
    sections = _read(target)
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
    file: Annotated[Path, typer.Option(exists=True, help="From measure.")] = FILE,
    document: Annotated[Path, typer.Option(exists=True, help="Whose tables are filled.")] = DOCUMENT,
) -> None:
    """Print the tables, and put them into the document."""
    sections = _read(file)
    _print(sections)
    fill(document, tables(sections))


def _section(name: str, settings: Settings, prepared: dict[str, Any]) -> dict[str, Any]:
    """The figures of a section, and what they hold for."""
    busy, began = _busy(), time.monotonic()
    found = SECTIONS[name](settings)
    minutes = (time.monotonic() - began) / 60
    about = {
        "date": date.today().isoformat(),
        "patients": "made" if settings.dataset is None else "real",
        "quick": settings.quick,
        "busy": busy,
        "busy_after": _busy(),
        "versions": _versions(),
        **prepared,
    }
    return {"about": about, "minutes": round(minutes, 2), **found}


def _busy() -> float:
    """Share of the processor that others use, over two seconds."""
    share = float(psutil.cpu_percent(2)) / 100
    if share > _BUSY:
        print(f"The processor is {share:.0%} busy with other work: figures will not mean much.", flush=True)
    return share


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _read(file: Path | None) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file is not None and file.exists() else {}


def _write(file: Path | None, sections: dict[str, Any]) -> None:
    """Keep the figures, sections in their order."""
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


if __name__ == "__main__":
    app()
