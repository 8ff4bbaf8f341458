"""The command ``report``: contact sheets of segmented patients, and a page about all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.devices import DeviceChoice
from ..core.errors import ExportError, LggSegError
from ..core.options import option_help

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..core.evaluation.html_page import Entry
    from ..core.evaluation.label_pairs import LabelPair, LabelPairs, Volumes
    from ..core.evaluation.tiles import ShownProbability
    from ..core.inference.predict import Predictor


def report(
    predictions: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Predicted labels: a patient folder or a folder of them."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Gets index.html, metrics.json, metrics.csv and sheets/<patient>.png.")
    ],
    truth: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="True masks: a patient folder or a folder of them."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="The patients' slices; by default those beside the truth, or else beside the predictions. "
            "Without images the outlines are on black.",
        ),
    ] = None,
    probability: Annotated[
        bool,
        typer.Option(
            "--probability",
            help="Show the probability as well. Masks do not hold it, so the model is run again on the "
            "images, and the sheet says how far its labels are those of PREDICTIONS.",
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="The model file for --probability, which it implies; the shipped one by default."),
    ] = None,
    device: Annotated[DeviceChoice, typer.Option(help=option_help("device"))] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the report of an earlier run.")
    ] = False,
) -> None:
    """Draw contact sheets of segmented patients, and one page (HTML) about all of them.

    Slices with prediction (orange) and truth (blue) outlined, Dice by slice, and figures.
    """
    from ..core.evaluation.label_pairs import find_pairs
    from .console import make_console, make_progress

    cases = find_pairs(predictions, truth, images)
    _check_output(output, cases, overwrite=overwrite)
    predictor = _load(model, device) if probability or model is not None else None
    job = _Report(output, cases, truth, predictor, failed=list(cases.problems))
    with make_progress(make_console(stderr=True)) as progress:
        for sentence in cases.problems:
            progress.console.print(f"Failed: {sentence}", style="red", markup=False, soft_wrap=True)
        bar = progress.add_task("Drawing", total=len(cases.cases))
        for case in cases.cases:
            progress.update(bar, description=case.name)
            try:
                text = job.add(case)
            except LggSegError as error:
                job.failed.append(str(error))
                progress.console.print(f"Failed: {error}", style="red", markup=False, soft_wrap=True)
            else:
                progress.console.print(text, markup=False, soft_wrap=True)
            progress.advance(bar)
    done = f"{len(job.entries)} of {len(job.entries) + len(job.failed)} patients shown."
    if job.entries:
        done += f" Open {job.finish().resolve()}"
    print(done)  # noqa: T201 - the result
    if job.failed:
        raise typer.Exit(1)


def _check_output(output: Path, cases: LabelPairs, *, overwrite: bool) -> None:
    """Refuse before the work what would be refused after it."""
    from ..core.data.label_files import check_new

    if output.is_file():
        raise ExportError(f"{output} is a file; choose a folder for the report.")
    names = ["index.html", "metrics.json", "metrics.csv", *(_sheet_name(case.name) for case in cases.cases)]
    for name in names:
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
    """What all patients of one call of ``report`` share, and what is known of them so far."""

    output: Path
    cases: LabelPairs
    truth: Path | None
    predictor: Predictor | None
    entries: list[Entry] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, case: LabelPair) -> str:
        """Draw one patient's sheet; returns a line about the patient."""
        from ..core.evaluation.contact_sheet import as_webp, draw_sheet
        from ..core.evaluation.html_page import Entry
        from ..core.evaluation.label_pairs import read_pair
        from ..core.evaluation.report import measure_patient
        from ..core.training.batch_picture import write_picture

        volumes = read_pair(case)
        metrics = measure_patient(volumes)
        probability = None
        if self.predictor is not None and volumes.images is not None:
            probability = _probability(self.predictor, volumes, volumes.images)
        sheet = draw_sheet(volumes, metrics, probability)
        write_picture(self.output / _sheet_name(case.name), sheet)
        self.entries.append(Entry(metrics, as_webp(sheet), (sheet.shape[1], sheet.shape[0])))
        text = f"{case.name}: {metrics.voxels:,} voxels in {metrics.slices} of {metrics.of_slices} slices."
        if metrics.agreement is not None:
            text += f" Dice {metrics.agreement.dice:.3f}."
        elif self.truth is not None:
            text += f" {self.truth} has no truth for it."
        if self.predictor is not None and volumes.images is None:
            text += " No images were found, so there is no probability."
        return text

    def finish(self) -> Path:
        """Write the figures and the page; returns the page."""
        from ..core.evaluation.html_page import write_page
        from ..core.evaluation.report import write_metrics

        patients = [entry.metrics for entry in self.entries]
        write_metrics(self.output, patients, self.cases.without_prediction, self.failed)
        page = self.output / "index.html"
        write_page(page, self.entries, self.cases.without_prediction, self.failed)
        return page


def _probability(predictor: Predictor, volumes: Volumes, images: npt.NDArray[np.uint8]) -> ShownProbability:
    """Run the network, and say how far it agrees with the given labels; values of the slices shown."""
    from ..core.evaluation.contact_sheet import chosen_slices
    from ..core.evaluation.metrics import dice
    from ..core.evaluation.tiles import ShownProbability
    from ..core.inference.postprocess import postprocess
    from ..core.inference.predict import run_to_end
    from ..core.options import SegmentOptions

    probability = run_to_end(predictor.predict(images))
    same = dice(postprocess(probability, predictor.card.complete(SegmentOptions())), volumes.prediction)
    values = probability[chosen_slices(volumes)]
    note = (
        f"Probability: of the model {predictor.card.name}, run again for this sheet; with its own threshold "
        "and clean-up it gives "
    )
    if same > 0.999:
        return ShownProbability(values, f"{note}the prediction shown.")
    return ShownProbability(values, f"{note}other labels than the prediction shown (Dice {same:.3f}).")
