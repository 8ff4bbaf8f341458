"""The command line: the core without a window. Exit code 0 done, 1 something failed, 2 wrong usage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import LggSegError
from ..core.options import SegmentOptions
from .calibrate_coarse import calibrate_coarse
from .console import dice_summary, make_console, make_progress, show_warnings_plainly, write_text
from .renamed import translated
from .report import report
from .segment import segment, segment_folders
from .shape import associate, shape
from .train import EPILOG, train

if TYPE_CHECKING:
    from rich.console import Console

#: Entries of a summary without any patient.
_NOTHING_SCORED: dict[str, Any] = {
    "patients": 0,
    "mean": None,
    "median": None,
    "below_half": (),
    "missed": (),
}

app = typer.Typer(
    name="napari-lgg-seg",
    help="Segment lower-grade glioma in brain MRI. For research; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; our own errors are one sentence, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    show_warnings_plainly()
    arguments, warnings = translated(sys.argv[1:])
    for warning in warnings:
        make_console(stderr=True).print(f"Warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    try:
        app(arguments)
    except LggSegError as error:
        make_console(stderr=True).print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(1) from error


app.command()(segment)


@app.command()
def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="Predicted masks: a patient folder or a folder of patient folders.",
        ),
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="Ground-truth masks: a patient folder or a folder of patient folders.",
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results to this JSON file.")
    ] = None,
) -> None:
    """Score masks against the ground truth: Dice per patient over the whole volume.

    A patient that cannot be scored is named and not counted; the others are scored nevertheless.
    """
    import dataclasses

    from ..core.evaluation.compare_folders import PairsFound, compare_folders
    from ..core.evaluation.metrics import summarise

    scores: dict[str, float] = {}
    missing: list[str] = []
    failed: list[str] = []
    for event in compare_folders(predictions, truth):
        if isinstance(event, PairsFound):
            missing = list(event.without_prediction)
            failed = list(event.problems)
        elif event.metrics is None:
            failed.append(f"{event.pair.name}: {event.problem}")
        elif event.metrics.agreement is not None:
            scores[event.pair.name] = event.metrics.agreement.dice
    console = make_console()
    if scores:
        _show_scores(scores, console)
    for name in missing:
        console.print(
            f"Not counted: {name} has no prediction in {predictions}.", markup=False, soft_wrap=True
        )
    for sentence in failed:
        make_console(stderr=True).print(f"Not counted: {sentence}", style="red", markup=False, soft_wrap=True)
    # Without a score, there are no mean and median, but a file of an earlier run must not stay.
    summary = summarise(scores) if scores else None
    console.print(dice_summary(summary) if summary is not None else "No patient could be scored.")
    if json_file is not None:
        results = _NOTHING_SCORED if summary is None else dataclasses.asdict(summary)
        results = {**results, "dice": scores, "without_prediction": missing, "failed": failed}
        write_text(json_file, json.dumps(results, indent=2) + "\n")
    if failed:
        raise typer.Exit(1)


def _show_scores(scores: dict[str, float], console: Console) -> None:
    from rich.table import Table

    table = Table("Patient", "Dice", title="Dice per patient over the volume")
    for name, score in scores.items():
        table.add_row(name, f"{score:.4f}")
    console.print(table)


@app.command()
def sample(
    folder: Annotated[
        Path,
        typer.Argument(help="A new or empty folder for the sample patient, or for the patients' folders."),
    ],
    patients: Annotated[
        int | None,
        typer.Option(
            min=1, help="Write a cohort of this many different patients, each in a folder of its own."
        ),
    ] = None,
) -> None:
    """Write the synthetic sample patient, or a cohort of synthetic patients, in the dataset's layout."""
    from ..core.data.masks import write_patient
    from ..core.data.phantom import make_sample_patient
    from ..core.data.phantom_cohort import make_sample_patients

    if patients is not None:
        with make_progress(make_console(stderr=True)) as progress:
            for patient in progress.track(make_sample_patients(patients), patients, description="Drawing"):
                write_patient(folder / patient.name, patient)
        print(f"{patients} synthetic patients are in {folder.resolve()}")  # noqa: T201 - the result
        return
    files = write_patient(folder, make_sample_patient())
    print(f"{len(files)} files of the sample patient are in {folder.resolve()}")  # noqa: T201 - the result


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the sample patient and its masks go.")] = Path(
        "lgg-demo"
    ),
    window: Annotated[
        bool, typer.Option("--window", help="Open the sample patient in napari instead, with Segment docked.")
    ] = False,
) -> None:
    """Segment the synthetic sample patient with the shipped model, to see that everything works."""
    if window:
        _open_window()
        return
    from ..core.data.discover import has_slices
    from ..core.data.masks import write_patient
    from ..core.data.phantom import make_sample_patient

    patient = make_sample_patient()
    source = folder / "patients" / patient.name
    if not has_slices(source):
        write_patient(source, patient)
    segment_folders([source], folder / "masks", None, SegmentOptions(), overwrite=True)


def _open_window() -> None:
    """Start napari with the sample patient and the Segment widget."""
    import napari

    viewer = napari.Viewer(title="napari-lgg-seg")
    viewer.open_sample("napari-lgg-seg", "sample_patient")
    viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
    napari.run()


@app.command()
def info(
    model: Annotated[Path | None, typer.Argument(help="A model file; the shipped one by default.")] = None,
) -> None:
    """Print what a model file says about itself."""
    import dataclasses

    from ..core.model.checkpoint import DEFAULT_MODEL, read_card

    path = model or DEFAULT_MODEL
    card = dataclasses.asdict(read_card(path))
    print(f"{path}\n{json.dumps(card, indent=2, ensure_ascii=False)}")  # noqa: T201 - the result


app.command()(calibrate_coarse)
app.command()(report)
app.command(epilog=EPILOG)(train)
app.command()(shape)
app.command()(associate)
