"""The command line: the core without a window. Exit code 0 done, 1 something failed, 2 wrong usage."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import LggSegError, counted, reason
from ..core.options import SegmentOptions
from .calibrate_coarse import calibrate_coarse
from .console import (
    INTERRUPTED,
    dice_summary,
    make_console,
    make_progress,
    make_table,
    show_warnings_plainly,
)
from .options import regular_file
from .renamed import translated
from .report import report
from .segment import segment, segment_folders
from .shape import associate, shape
from .train import EPILOG, train

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


#: typer's class of errors in the usage, which has no public name.
_UsageError: Any = typer.BadParameter.__base__
_ISSUES = "https://github.com/napari-lgg-seg/napari-lgg-seg/issues"


def main() -> None:
    """Run the command line; whatever goes wrong is one sentence, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = make_console(stderr=True)
    show_warnings_plainly()
    arguments, warnings = translated(sys.argv[1:])
    for warning in warnings:
        console.say(f"Warning: {warning}", style="yellow")
    try:
        code = app(arguments, prog_name=str(app.info.name), standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        if os.environ.get("LGG_TRACEBACK"):
            raise
        code = 2 if isinstance(error, _UsageError) else 1
        if message := _message(error):
            console.say(f"Error: {message}", style="red")
    raise SystemExit(code or 0)


def _message(error: Exception) -> str:
    """What went wrong, in one sentence; empty if the help was printed instead."""
    if isinstance(error, _UsageError):
        if type(error).__name__ == "NoArgsIsHelpError":
            return ""
        where = f" See {error.ctx.command_path} --help." if error.ctx is not None else ""
        return f"{error.format_message().rstrip('.')}.{where}"
    if isinstance(error, LggSegError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory; close other programs, or process fewer patients at once."
    if isinstance(error, OSError) and error.filename is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        return f"{name} cannot be used ({error.strerror or error}); choose another path."
    return (
        f"This should not have happened: {type(error).__name__} ({reason(error)}); please report it at "
        f"{_ISSUES}. With LGG_TRACEBACK=1 in the environment, the program says where."
    )


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
    from ..core.evaluation.tables import check_file, write_json

    if json_file is not None:
        check_file(json_file, ".json")
    scores: dict[str, float] = {}
    without_prediction: list[str] = []
    without_truth: list[str] = []
    failed: list[str] = []
    for event in compare_folders(predictions, truth):
        if isinstance(event, PairsFound):
            without_prediction = list(event.without_prediction)
            without_truth = list(event.without_truth)
            failed = list(event.problems)
        elif event.metrics is None:
            failed.append(f"{event.pair.name}: {event.problem}")
        elif event.metrics.agreement is not None:
            scores[event.pair.name] = event.metrics.agreement.dice
    console = make_console()
    if scores:
        _show_scores(scores)
    missing = [f"{name} has no prediction in {predictions}." for name in without_prediction]
    missing += [f"{name} has no ground truth in {truth}." for name in without_truth]
    for sentence in missing:
        console.say(f"Not counted: {sentence}")
    for sentence in failed:
        make_console(stderr=True).say(f"Not counted: {sentence}", style="red")
    # Without a score, there are no mean and median, but a file of an earlier run must not stay.
    summary = summarise(scores) if scores else None
    text = dice_summary(summary) if summary is not None else "No patient could be scored."
    left_out = len(missing) + len(failed)
    console.say(f"{text}; {left_out} not counted, see above" if summary and left_out else text)
    if json_file is not None:
        results = _NOTHING_SCORED if summary is None else dataclasses.asdict(summary)
        left_out_names = {"without_prediction": without_prediction, "without_truth": without_truth}
        write_json(json_file, {**results, "dice": scores, **left_out_names, "failed": failed})
    if failed:
        raise typer.Exit(1)


def _show_scores(scores: dict[str, float]) -> None:
    table = make_table("Patient", "Dice", title="Dice per patient over the volume")
    for name, score in scores.items():
        table.add_row(name, f"{score:.4f}")
    make_console().print(table)


@app.command()
def sample(
    folder: Annotated[
        Path,
        typer.Argument(help="A new or empty folder for the sample patient, or for the patients' folders."),
    ],
    patients: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Write a cohort of this many different patients, each in a folder of its own.",
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
        verb = "is" if patients == 1 else "are"
        make_console().say(f"{counted(patients, 'synthetic patient')} {verb} in {folder.resolve()}")
        return
    files = write_patient(folder, make_sample_patient())
    make_console().say(f"{len(files)} files of the sample patient are in {folder.resolve()}")


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
    # By the entry of the menu: after add_plugin_dock_widget, it would dock a second widget, because napari
    # registers the first one by the plugin's package name, and looks it up by the plugin's display name.
    actions = _menu_actions(viewer.window.main_menu)
    next(action for action in actions if action.objectName() == "napari-lgg-seg.segment_widget").trigger()
    napari.run()


def _menu_actions(menu: Any) -> Iterator[Any]:
    """All actions of a menu bar or a menu, those of its submenus included."""
    for action in menu.actions():
        yield action
        if action.menu() is not None:
            yield from _menu_actions(action.menu())


@app.command()
def info(
    model: Annotated[
        Path | None,
        typer.Argument(callback=regular_file, help="A model file; the shipped one by default."),
    ] = None,
) -> None:
    """Print what a model file says about itself."""
    import dataclasses

    from ..core.evaluation.tables import as_json
    from ..core.model.checkpoint import DEFAULT_MODEL, read_card

    path = model or DEFAULT_MODEL
    card = dataclasses.asdict(read_card(path))
    console = make_console()
    for line in (str(path), *as_json(card).split("\n")):
        console.say(line)


app.command()(calibrate_coarse)
app.command()(report)
app.command(epilog=EPILOG)(train)
app.command()(shape)
app.command()(associate)
