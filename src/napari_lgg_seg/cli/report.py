"""The command ``report``: contact sheets of segmented patients, and one HTML page about all of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.devices import DeviceChoice
from ..core.errors import ExportError, counted, failure_sentence
from ..core.options import option_help
from .console import make_console, make_progress
from .options import regular_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..core.evaluation.label_pairs import LabelPair, LabelPairs, Volumes
    from ..core.evaluation.report.html_page import Entry
    from ..core.evaluation.report.tiles import ShownProbability
    from ..core.inference.predict import Predictor

_FILES = ("index.html", "metrics.json", "metrics.csv")


def _folder(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(exists=True, file_okay=False, help=text)
    return option


def report(
    predictions: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Predicted labels: a patient folder or a folder of them."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder for index.html, metrics.json, metrics.csv and sheets/<patient>.png.")
    ],
    truth: Annotated[
        Path | None, _folder("Ground-truth masks: a patient folder or a folder of them.")
    ] = None,
    images: Annotated[
        Path | None,
        _folder(
            "The patients' slices; by default those next to the ground truth, or else next to the "
            "predictions. Without images, outlines are drawn on black."
        ),
    ] = None,
    probability: Annotated[
        bool,
        typer.Option(
            "--probability",
            help="Show the tumour probability as well. Masks do not contain it, so the model is run again "
            "on the images, and the sheet states whether its labels match PREDICTIONS.",
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            callback=regular_file,
            help="Model file for --probability (implied); the shipped model by default.",
        ),
    ] = None,
    device: Annotated[DeviceChoice, typer.Option(help=option_help("device"))] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier report.")] = False,
) -> None:
    """Draw a contact sheet of each segmented patient, and one HTML page about all of them.

    Shows slices with prediction (orange) and ground truth (blue) outlined, Dice by slice, and metrics.
    """
    from ..core.evaluation.label_pairs import find_pairs

    pairs = find_pairs(predictions, truth, images)
    _check_output(output, pairs, overwrite=overwrite)
    predictor = _load(model, device) if probability or model is not None else None
    job = _Report(output, pairs, predictions, truth, predictor, failed=list(map(str, pairs.problems)))
    job.draw_all()
    number = counted(len(job.entries) + len(job.failed), "patient")
    page = f"Open {job.write_page().resolve()}" if job.entries else "No report is written."
    make_console().say(f"{len(job.entries)} of {number} shown. {page}")
    if job.failed:
        raise typer.Exit(1)


def _check_output(output: Path, pairs: LabelPairs, *, overwrite: bool) -> None:
    """Fail before the work starts rather than when its results are written."""
    from ..core.data.label_files import check_new

    if output.exists() and not output.is_dir():
        raise ExportError(f"{output} is a file; choose a folder for the report.")
    for name in (*_FILES, *(_sheet_name(pair.name) for pair in pairs.pairs)):
        check_new(output / name, overwrite=overwrite)


def _sheet_name(patient: str) -> str:
    return f"sheets/{patient}.png"


def _load(model: Path | None, device: DeviceChoice) -> Predictor:
    from ..core import memory
    from ..core.inference.predict import predictor_for
    from ..core.model.checkpoint import DEFAULT_MODEL, load_model
    from ..core.options import SegmentOptions

    memory.keep_memory_mapped()
    return predictor_for(load_model(model or DEFAULT_MODEL), SegmentOptions(device=device))


@dataclass
class _Report:
    """One run of the command: its inputs, and the results so far."""

    output: Path
    pairs: LabelPairs
    predictions: Path
    truth: Path | None
    predictor: Predictor | None
    entries: list[Entry] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def draw_all(self) -> None:
        """Draw the sheets of all patients with a progress bar; one that fails does not stop the others."""
        console = make_console(stderr=True)
        with make_progress(console) as progress:
            for sentence in self.pairs.problems:
                console.say(f"Failed: {sentence}", style="red")
            bar = progress.add_task("Drawing", total=len(self.pairs.pairs))
            for pair in self.pairs.pairs:
                progress.update(bar, description=pair.name)
                try:
                    text = self.draw(pair)
                except Exception as error:  # noqa: BLE001 - one patient must not end the others
                    self.failed.append(failure_sentence(pair.labels, error))
                    console.say(f"Failed: {self.failed[-1]}", style="red")
                    # With --overwrite, a sheet of an earlier report must not stay.
                    with suppress(OSError):
                        (self.output / _sheet_name(pair.name)).unlink()
                else:
                    console.say(text)
                progress.advance(bar)
            for name in self.pairs.without_prediction:
                console.say(f"Not counted: {name} has no prediction in {self.predictions}.")

    def draw(self, pair: LabelPair) -> str:
        """Draw one patient's sheet; returns a line about the patient."""
        from ..core.evaluation.label_pairs import read_pair
        from ..core.evaluation.patient_metrics import measure_patient
        from ..core.evaluation.report.contact_sheet import as_webp, draw_sheet
        from ..core.evaluation.report.html_page import Entry
        from ..core.training.batch_picture import write_picture

        volumes = read_pair(pair)
        metrics = measure_patient(volumes)
        probability = None
        if self.predictor is not None and volumes.images is not None:
            probability = _predict(self.predictor, volumes, volumes.images)
        sheet = draw_sheet(volumes, metrics, probability)
        write_picture(self.output / _sheet_name(pair.name), sheet)
        self.entries.append(Entry(metrics, as_webp(sheet), (sheet.shape[1], sheet.shape[0])))
        text = f"{pair.name}: {counted(metrics.voxels, 'voxel')} in {metrics.slices} of "
        text += f"{counted(metrics.of_slices, 'slice')}."
        if metrics.agreement is not None:
            text += f" Dice {metrics.agreement.dice:.3f}."
        elif self.truth is not None:
            text += f" Not counted: {self.truth} has no ground truth for this patient."
        if self.predictor is not None and volumes.images is None:
            text += " The probability is not shown because no images were found."
        return text

    def write_page(self) -> Path:
        """Write the metrics and the page; returns the page."""
        from ..core.evaluation.patient_metrics import write_metrics
        from ..core.evaluation.report.html_page import write_page

        patients = [entry.metrics for entry in self.entries]
        write_metrics(self.output, patients, self.pairs.without_prediction, self.failed)
        page = self.output / "index.html"
        write_page(page, self.entries, self.pairs.without_prediction, self.failed)
        return page


def _predict(predictor: Predictor, volumes: Volumes, images: npt.NDArray[np.uint8]) -> ShownProbability:
    """Run the network again, and note whether its labels match the given ones."""
    from ..core.evaluation.metrics import dice
    from ..core.evaluation.report.contact_sheet import chosen_slices
    from ..core.evaluation.report.tiles import ShownProbability
    from ..core.inference.postprocess import postprocess
    from ..core.inference.predict import run_to_end
    from ..core.options import SegmentOptions

    probability = run_to_end(predictor.predict(images))
    same = dice(postprocess(probability, predictor.card.complete(SegmentOptions())), volumes.prediction)
    match = "match the prediction shown."
    if same <= 0.999:
        match = f"differ from the prediction shown (Dice {same:.3f})."
    note = (
        f"Probability: computed anew with the model {predictor.card.name}; with its default threshold and "
        f"clean-up, its labels {match}"
    )
    return ShownProbability(probability[chosen_slices(volumes)], note)
