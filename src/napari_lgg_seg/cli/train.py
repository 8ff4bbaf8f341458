"""The command ``train``: a cohort's folder -> model file, with progress on the terminal."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import TrainingError
from ..core.training.options import TrainOptions, default_summary
from .console import INTERRUPTED, PlainConsole, dice_summary, make_console, make_progress
from .options import not_nan, regular_file, settings_help, takes_options, with_settings
from .train_patients import find_patients, old_patients, split

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ..core.training.callbacks import Callback
    from ..core.training.distributed import Processes
    from ..core.training.events import TrainEvent
    from ..core.training.patients import Source
    from ..core.training.run import Run

#: The options of a training that most users may want to change; the others are for ``--set``.
_USUAL = (
    "init",
    "network",
    "sequences",
    "loss",
    "epochs",
    "batch_size",
    "learning_rate",
    "threshold",
    "clean_up",
    "patience",
    "max_minutes",
    "seed",
    "device",
)
_RECIPE = [f.name for f in dataclasses.fields(TrainOptions) if f.name not in _USUAL]
#: The end of the command's help.
EPILOG = "Names for --set:\n\n" + settings_help(TrainOptions, _RECIPE, default_summary)


@takes_options(
    TrainOptions, only=_USUAL, metavars={"init": "default|MODEL|scratch"}, about_default=default_summary
)
def train(
    cohort: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A folder of patient folders.")
    ],
    output: Annotated[Path, typer.Option(help="The model file to write, ending in .safetensors.")],
    validation: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.9, callback=not_nan, help="Share of the patients held out for validation."
        ),
    ] = 0.2,
    validation_patients: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            callback=regular_file,
            help="A text file with the names of the validation patients, one per line, instead.",
        ),
    ] = None,
    corrected: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A results folder of the Cohort widget: train on those patients of COHORT whose labels the "
            "user corrected or accepted, with these labels as ground truth.",
        ),
    ] = None,
    rehearse: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A folder of patients with masks to train on again, so that the model does not forget them: "
            "for instance those that it was trained on. They are never used for validation.",
        ),
    ] = None,
    rehearse_share: Annotated[
        float,
        typer.Option(min=0, max=0.95, callback=not_nan, help="Share of those among the training patients."),
    ] = 0.5,
    batch_picture: Annotated[
        Path | None, typer.Option(help="Write a PNG picture of the first batch, as the network sees it.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Another option of the recipe, see below; can be repeated."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUTPUT's training state.")] = False,
    *,
    options: TrainOptions,
) -> None:
    """Train a network on a cohort, split by patient: fine-tune a model, or start from scratch.

    OUTPUT is the best model so far; its training state and history.csv are in OUTPUT's .state folder.
    Several GPUs: torchrun --nproc-per-node N -m napari_lgg_seg train ...
    """
    from ..core import memory
    from ..core.evaluation.tables import check_file
    from ..core.training import distributed
    from ..core.training.train import check_output

    options = with_settings(options, settings or [])
    regular_file(None if options.init is None else Path(options.init))
    if output.parent.is_file():
        raise TrainingError(f"{output.parent} is a file; choose a folder for the model.")
    check_output(output, resume=resume)
    if batch_picture is not None:
        check_file(batch_picture, ".png")
    memory.keep_memory_mapped()
    with distributed.joined(options.device) as processes, _told_to_stop() as told:
        console = make_console(stderr=True, quiet=not processes.is_main)
        patients = find_patients(cohort, corrected, console)
        training, held_out = split(patients, options, validation, validation_patients, console)
        if rehearse is not None:
            training += old_patients(rehearse, patients, len(training), rehearse_share, options.seed, console)
        callbacks = [_stop_when(told)]
        if batch_picture and processes.is_main:
            callbacks.append(_draw_first_batch(batch_picture))
        _run(training, held_out, output, options, callbacks, console, processes, told, resume=resume)
    if told:
        console.say(f"Stopped by {told[0]}. Go on with --resume.")
        raise typer.Exit(INTERRUPTED)
    if processes.is_main:
        make_console().say(f"The best model is in {output.resolve()}")


def _run(
    training: list[Source],
    validation: list[Source],
    output: Path,
    options: TrainOptions,
    callbacks: list[Callback],
    console: PlainConsole,
    processes: Processes,
    told: list[str],
    *,
    resume: bool,
) -> None:
    """Train with progress on the terminal."""
    from ..core.training.train import train as run

    with (
        _Display(console) as display,
        closing(run(training, validation, output, options, callbacks=callbacks, resume=resume)) as events,
    ):
        for event in events:
            display.show(event)
            if told and processes.count == 1:  # several processes stop together, by the callback
                break


def _stop_when(told: list[str]) -> Callback:
    """A callback that ends the training, in all its processes, once one was told to stop."""
    from ..core.training.callbacks import Callback

    class StopWhenTold(Callback):
        def after_step(self, run: Run) -> None:
            if told:
                run.stop(f"Stopped by {told[0]}.")

    return StopWhenTold()


def _draw_first_batch(path: Path) -> Callback:
    """A callback that draws the first batch: the slices as the network sees them, with their masks."""
    from ..core.training.batch_picture import batch_picture, write_picture
    from ..core.training.callbacks import Callback

    class DrawFirstBatch(Callback):
        def at_start(self, run: Run) -> None:
            images, masks = run.prepared(run.dataset.take(run.plan()[0]))
            write_picture(path, batch_picture(images, masks, neighbours=run.initial.neighbouring_slices))

    return DrawFirstBatch()


@contextmanager
def _told_to_stop() -> Iterator[list[str]]:
    """Collect the signals that ask the program to end, so that the current step is finished first.

    A second Ctrl-C ends it at once.
    """
    told: list[str] = []

    def hear(number: int, frame: Any) -> None:
        if told and number == signal.SIGINT:
            raise KeyboardInterrupt
        told.append("Ctrl-C" if number == signal.SIGINT else "the system")

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Display:
    """Progress of a training on a terminal: a bar for the steps, a line for each validation.

    Parameters
    ----------
    console : PlainConsole
        Where it is shown.
    """

    def __init__(self, console: PlainConsole) -> None:
        self._console, self._progress = console, make_progress(console)
        self._bar: TaskID = self._progress.add_task("Reading patients", total=None)
        self._best = -1.0
        self._before: float | None = None

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: TrainEvent) -> None:
        """Show one event."""
        from ..core.inference.predict import Notice
        from ..core.training.events import (
            Ended,
            EpochDone,
            PatientRead,
            PatientValidated,
            StepDone,
            Validated,
        )

        match event:
            case PatientRead():
                self._progress.update(self._bar, total=event.total, completed=event.done)
            case StepDone():
                text = f"Epoch {event.epoch}, loss {event.loss:.3f}{self._best_summary()}"
                self._progress.update(self._bar, total=event.steps, completed=event.step, description=text)
            case PatientValidated():
                text = f"Validating, {event.done} of {event.total}{self._best_summary()}"
                self._progress.update(self._bar, description=text)
            case Validated():
                self._best = event.best
                if not event.step:
                    self._before = event.best
                when = "Before training" if not event.step else f"After step {event.step}"
                self._print(f"{when}: {dice_summary(event.summary)}")
            case EpochDone():
                self._print(_about_epoch(event))
                self._best = event.best
            case Notice():
                self._print(event.text, style="yellow")
            case Ended():
                self._progress.update(self._bar, description=f"Done{self._best_summary()}")
                self._print(event.reason)
                if self._best == self._before:
                    self._print("No epoch was better than the initial model, which is what was saved.")

    def _best_summary(self) -> str:
        return f", best Dice {self._best:.3f}" if self._best >= 0 else ""

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.say(text, style)


def _about_epoch(event: Any) -> str:
    text = f"Epoch {event.epoch} of {event.epochs}: loss {event.loss:.4f}"
    if event.validation is not None:
        text += f"; validation: {dice_summary(event.validation)}; best mean {event.best:.4f}"
    return text
