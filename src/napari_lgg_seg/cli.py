"""The command line: the core without a window. Exit code 0 done, 1 something failed, 2 wrong usage."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_report import report
from .cli_shape import associate, shape
from .cli_train import in_a_line, threshold_option, train
from .core.devices import DeviceChoice
from .core.errors import LggSegError, PatientError
from .core.formats import FileFormat
from .core.options import CleanUp, SegmentOptions, option_help

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from .core.metrics import Summary
    from .core.predict import Predictor

app = typer.Typer(
    name="napari-lgg-seg",
    help="Segment lower-grade glioma in brain MRI. For research; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


DeviceOption = Annotated[DeviceChoice, typer.Option(help=option_help("device"))]
ThresholdOption = Annotated[Any, threshold_option(option_help("threshold"))]


def main() -> None:
    """Run the command line; errors of ours are one sentence, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        app()
    except LggSegError as error:
        _console(stderr=True).print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(1) from error


@app.command()
def segment(
    folders: Annotated[
        list[Path],
        typer.Argument(exists=True, file_okay=False, help="Patient folders, or dataset folders of patients."),
    ],
    output: Annotated[Path, typer.Option(help="Results go to OUTPUT/<patient>/.")],
    model: Annotated[Path | None, typer.Option(help="A model file; the shipped one by default.")] = None,
    file_format: Annotated[
        FileFormat,
        typer.Option(
            "--format",
            help="masks: <patient>_<n>_mask.tif, as in the dataset; tiff: one <patient>_tumour.tif; nifti: "
            "one <patient>_tumour.nii.gz.",
        ),
    ] = "masks",
    device: DeviceOption = "auto",
    threshold: ThresholdOption = None,
    clean_up: Annotated[CleanUp | None, typer.Option(help=option_help("clean_up"))] = None,
    smallest_volume: Annotated[int, typer.Option(min=1, help=option_help("smallest_volume"))] = 100,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help=option_help("fill_holes"))] = False,
    tta: Annotated[bool, typer.Option("--tta", help=option_help("tta"))] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help=option_help("batch_size"))] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of an earlier run.")
    ] = False,
) -> None:
    """Segment patients and write their masks."""
    from .core import devices
    from .core.checkpoint import DEFAULT_MODEL, load_model
    from .core.predict import Predictor

    options = SegmentOptions(threshold, clean_up, smallest_volume, fill_holes, tta, batch_size, device)
    patients = _find_patients(folders)
    devices.keep_memory_mapped()
    predictor = Predictor(load_model(model or DEFAULT_MODEL), device, batch_size, tta=tta)
    job = _Job(predictor, options, output, file_format, overwrite)
    failed = 0
    with _progress(_console(stderr=True)) as progress:
        bar = progress.add_task("Segmenting", total=len(patients))
        for number, folder in enumerate(patients):
            progress.update(bar, description=folder.name)
            try:
                text = job.segment(folder, lambda share: progress.update(bar, completed=number + share))  # noqa: B023
            except LggSegError as error:
                failed += 1
                progress.console.print(f"Failed: {error}", style="red", markup=False, soft_wrap=True)
            else:
                progress.console.print(text, markup=False, soft_wrap=True)
            progress.update(bar, completed=number + 1)
    done = len(patients) - failed
    summary = f"{done} of {len(patients)} patients segmented on {devices.describe_device(predictor.device)}."
    print(f"{summary} Results are in {output.resolve()}" if done else summary)  # noqa: T201 - the result
    if failed:
        raise typer.Exit(1)


@dataclass
class _Job:
    """What all patients of one call of ``segment`` share."""

    predictor: Predictor
    options: SegmentOptions
    output: Path
    file_format: FileFormat
    overwrite: bool
    written: set[str] = field(default_factory=set)

    def segment(self, folder: Path, show: Callable[[float], None]) -> str:
        """Segment one patient, showing the share that is done; returns a line about the result."""
        from .api import segment, write_masks
        from .core.metrics import dice
        from .core.patients import find_slices, read_patient
        from .core.predict import Event, Notice

        name = find_slices(folder).name
        if name in self.written:
            raise PatientError(
                f"{folder} holds {name} once more; rename one of them or segment it on its own."
            )
        self._check_target(name)
        notices: list[str] = []

        def pass_on(event: Event) -> None:
            if isinstance(event, Notice):
                notices.append(event.text)
            else:
                show(event.done / event.total)

        patient = read_patient(folder)
        result = segment(patient, options=self.options, predictor=self.predictor, on_event=pass_on)
        write_masks(self.output, result, self.file_format, overwrite=self.overwrite)
        self.written.add(name)
        text = f"{name}: {result.figures.in_words()}"
        if patient.truth is not None and not patient.unmarked:
            text += f" Dice with truth {dice(result.labels, patient.truth):.3f}."
        return " ".join([text, *notices])

    def _check_target(self, patient: str) -> None:
        """Refuse before the work what would be refused after it."""
        from .core.export import check_folder
        from .core.formats import check_new, target_file

        if self.file_format == "masks":
            check_folder(self.output / patient, patient, overwrite=self.overwrite)
        else:
            check_new(target_file(self.output, patient, self.file_format), overwrite=self.overwrite)


def _find_patients(folders: list[Path]) -> list[Path]:
    """Patient folders among, or inside, the given folders, each once, in the given order.

    Broken ones are among them, and folders that are neither: reading them says what is wrong.
    """
    from .core.patients import has_slices

    found: dict[Path, Path] = {}
    for folder in folders:
        inside = [] if has_slices(folder) else [f for f in sorted(folder.iterdir()) if has_slices(f)]
        for patient in inside or [folder]:
            found.setdefault(patient.resolve(), patient)
    return list(found.values())


@app.command()
def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Predicted masks: a patient folder or a folder of them."
        ),
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="True masks: a patient folder or a folder of them."
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file as well.")
    ] = None,
) -> None:
    """Score masks against the truth: Dice per patient over the whole volume."""
    from rich.table import Table

    from .core.evaluate import evaluate_folders

    scores, summary, missing = evaluate_folders(predictions, truth)
    console = _console()
    table = Table("Patient", "Dice", title="Dice per patient over the volume")
    for name, score in scores.items():
        table.add_row(name, f"{score:.4f}")
    console.print(table)
    for name in missing:
        console.print(
            f"Not counted: {name} has no prediction in {predictions}.", markup=False, soft_wrap=True
        )
    console.print(in_a_line(summary))
    if json_file is not None:
        figures = {**_as_figures(summary), "dice": scores, "without_prediction": missing}
        _write_text(json_file, json.dumps(figures, indent=2) + "\n")


@app.command()
def sample(
    folder: Annotated[
        Path,
        typer.Argument(help="An empty or new folder for the sample patient, or for the patients' folders."),
    ],
    patients: Annotated[
        int | None,
        typer.Option(min=1, help="Make a cohort of so many patients that differ, with a folder for each."),
    ] = None,
) -> None:
    """Write the made sample patient, or a cohort of made patients, in the dataset's layout."""
    from .core.export import write_patient
    from .core.phantom import make_sample_patient
    from .core.phantom_cohort import make_sample_patients

    if patients is not None:
        with _progress(_console(stderr=True)) as progress:
            for patient in progress.track(make_sample_patients(patients), patients, description="Drawing"):
                write_patient(folder / patient.name, patient)
        print(f"{patients} made patients are in {folder.resolve()}")  # noqa: T201 - the result
        return
    files = write_patient(folder, make_sample_patient())
    print(f"{len(files)} files of the sample patient are in {folder.resolve()}")  # noqa: T201 - the result


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the sample patient and its masks go.")] = Path(
        "lgg-demo"
    ),
    window: Annotated[
        bool, typer.Option("--window", help="Open the sample patient in napari with Segment docked instead.")
    ] = False,
) -> None:
    """Segment the made sample patient with the shipped model: the whole way, to see that it works."""
    if window:
        _open_window()
        return
    from .core.export import write_patient
    from .core.patients import has_slices
    from .core.phantom import make_sample_patient

    patient = make_sample_patient()
    source = folder / "patients" / patient.name
    if not has_slices(source):
        write_patient(source, patient)
    segment([source], output=folder / "masks", overwrite=True)


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

    from .core.checkpoint import DEFAULT_MODEL, read_card

    path = model or DEFAULT_MODEL
    card = dataclasses.asdict(read_card(path))
    print(f"{path}\n{json.dumps(card, indent=2, ensure_ascii=False)}")  # noqa: T201 - the result


app.command()(report)
app.command()(train)
app.command()(shape)
app.command()(associate)


def _as_figures(summary: Summary) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(summary)


def _write_text(path: Path, text: str) -> None:
    from .core.export import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
    )
