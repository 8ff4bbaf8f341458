"""The command ``segment``: patient folders -> results, in this process or spread over workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.choices import FileFormat
from ..core.errors import LggSegError, counted
from ..core.options import SegmentOptions
from .console import INTERRUPTED, PlainConsole, make_console, make_progress
from .options import regular_file, takes_options

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..core.cohort.run import CohortEvent


_RESUME = "The same command continues with the remaining patients."


@takes_options(SegmentOptions)
def segment(
    folders: Annotated[
        list[Path],
        # What cannot be read is reported as a failure of its own, and the others are segmented.
        typer.Argument(exists=True, readable=False, help="Patient folders, or dataset folders of patients."),
    ],
    output: Annotated[Path, typer.Option(help="Results go to OUTPUT/<patient>/.")],
    model: Annotated[
        Path | None, typer.Option(callback=regular_file, help="A model file; the shipped one by default.")
    ] = None,
    file_format: Annotated[
        FileFormat,
        typer.Option(
            "--format",
            help="masks: <patient>_<n>_mask.tif, as in the dataset; tiff: one <patient>_tumour.tif; nifti: "
            "one <patient>_tumour.nii.gz.",
        ),
    ] = "masks",
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Share the patients among this many processes (extra cluster)."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Share the patients among the workers of a running dask scheduler, for instance "
            "tcp://host:8786 (extra cluster).",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Segment all patients and replace predictions of an earlier run, nothing else.",
        ),
    ] = False,
    replace_corrected: Annotated[
        bool,
        typer.Option(
            "--replace-corrected",
            help="Replace also labels that a person corrected or accepted, or that another program made or "
            "changed. They are lost then.",
        ),
    ] = False,
    *,
    options: SegmentOptions,
) -> None:
    """Segment patients and write their masks.

    Patients whose results are there already, made from the same images with the same model and options,
    are skipped: repeating the command continues where it stopped. Corrected labels are kept.
    """
    segment_folders(
        folders,
        output,
        model,
        options,
        file_format=file_format,
        overwrite=overwrite,
        replace_corrected=replace_corrected,
        workers=workers,
        scheduler=scheduler,
    )


def segment_folders(
    folders: list[Path],
    output: Path,
    model: Path | None,
    options: SegmentOptions,
    *,
    file_format: FileFormat = "masks",
    overwrite: bool = False,
    replace_corrected: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Segment patients with progress on the terminal; ends the program with exit code 1 if any failed."""
    from ..core import memory
    from ..core.cohort.run import segment_cohort

    if workers is not None and scheduler is not None:
        raise typer.BadParameter("A scheduler has its own workers.", param_hint="--workers, --scheduler")
    memory.bound_caches()  # of workers as well
    if workers is None and scheduler is None:
        memory.keep_memory_mapped()
    stopped = False
    with _ended_like_ctrl_c(), _Display(make_console(stderr=True)) as display:
        run = segment_cohort(
            folders,
            output,
            model,
            options,
            file_format,
            overwrite=overwrite,
            replace_corrected=replace_corrected,
            workers=workers,
            scheduler=scheduler,
        )
        try:
            with closing(run) as events:
                for event in events:
                    display.show(event)
        except KeyboardInterrupt:
            stopped = True
        except LggSegError:
            if display.done:  # what there is so far, before the error is printed
                _print_summary(display, output)
            raise
    _print_summary(display, output)
    if stopped:
        rest = "Earlier results of the others are unchanged." if overwrite else _RESUME
        display.console.say(f"Stopped. {rest}")
        raise typer.Exit(INTERRUPTED)
    if display.failed:
        raise typer.Exit(1)


def _print_summary(display: _Display, output: Path) -> None:
    summary = display.summary()
    if display.segmented or display.skipped or display.corrected:
        summary += f" Results are in {os.path.realpath(output)}"
    make_console().say(summary)


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that workers are stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Display:
    """Progress of a cohort on a terminal: a bar for all patients, a line for each that is done.

    Parameters
    ----------
    console : PlainConsole
        Where it is shown.
    """

    def __init__(self, console: PlainConsole) -> None:
        self.console = console
        self.segmented = self.skipped = self.corrected = self.failed = 0
        self._patients = 0
        self._places: set[str] = set()
        self._shares: dict[Path, float] = {}
        self._progress = make_progress(console)
        self._bar: TaskID | None = None

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:  # nothing was shown before an error at the start
            self._progress.stop()

    def show(self, event: CohortEvent) -> None:
        """Show one event."""
        from ..core.cohort.patient_job import PatientFailed, PatientProgress, PatientSegmented, PatientSkipped
        from ..core.cohort.run import CohortFound
        from ..core.inference.predict import Notice

        match event:
            case CohortFound():
                self._patients = event.patients
                self._bar = self._progress.add_task("Segmenting", total=event.patients)
                self._progress.start()
            case PatientProgress():
                self._shares[event.folder] = event.share
            case PatientSegmented():
                self.segmented += 1
                self._places.add(event.runs_on)
                self._print(event.summary())
            case PatientSkipped():
                self.skipped += not event.corrected
                self.corrected += event.corrected
                self._print(event.summary(), style="yellow" if event.corrected else None)
            case PatientFailed():
                self.failed += 1
                self._print(f"Failed: {event.sentence}", style="red")
            case Notice():
                self._print(event.text, style="yellow")
        if isinstance(event, PatientSegmented | PatientSkipped | PatientFailed):
            self._shares.pop(event.folder, None)
        self._move()

    @property
    def done(self) -> int:
        """Number of patients with an outcome."""
        return self.segmented + self.skipped + self.corrected + self.failed

    def _move(self) -> None:
        """Draw the bar: patients that are done, and the shares of those in progress."""
        assert self._bar is not None
        # The result of one that is computed is still being written when the next one begins.
        names = [folder.name for folder, share in self._shares.items() if share < 1]
        text = names[0] if len(names) == 1 else f"{len(names)} patients at once" if names else "Segmenting"
        self._progress.update(self._bar, completed=self.done + sum(self._shares.values()), description=text)

    def _print(self, text: str, style: str | None = None) -> None:
        self.console.say(text, style)

    def summary(self) -> str:
        """How many patients had which outcome."""
        where = f" on {' and '.join(sorted(self._places))}" if self._places else ""
        text = f"{self.segmented} of {counted(self._patients, 'patient')} segmented{where}."
        if self.skipped:
            text += f" {self.skipped} {'was' if self.skipped == 1 else 'were'} finished before."
        if self.corrected:
            text += f" {self.corrected} kept {'its' if self.corrected == 1 else 'their'} corrected labels."
        return text
