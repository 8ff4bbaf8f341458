"""The command ``train``: a cohort's folder -> model file, with progress on the terminal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.choices import (
    MOST_NEIGHBOURS,
    CleanUp,
    Draw,
    NetworkName,
    Optimiser,
    SequenceChoice,
)
from ..core.devices import DeviceChoice
from ..core.errors import TrainingError
from ..core.options import option_help
from ..core.training.losses import Loss
from ..core.training.options import TrainOptions, default_summary
from .console import INTERRUPTED, in_a_line, make_console, make_progress, threshold_option
from .train_patients import find_patients, old_patients, split

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from ..core.training.callbacks import Callback
    from ..core.training.events import TrainEvent
    from ..core.training.run import Run


def _help(name: str) -> str:
    text = option_help(name, TrainOptions)
    return f"{text} {default_summary(name)}" if getattr(TrainOptions(), name) is None else text


def _help_without_default(name: str) -> str:
    return option_help(name, TrainOptions)


def train(
    cohort: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="A folder of patient folders.")
    ],
    output: Annotated[Path, typer.Option(help="The model file to write, ending in .safetensors.")],
    init: Annotated[
        str | None, typer.Option(metavar="default|MODEL|scratch", help=_help_without_default("init"))
    ] = None,
    network: Annotated[NetworkName | None, typer.Option(help=_help_without_default("network"))] = None,
    sequences: Annotated[SequenceChoice | None, typer.Option(help=_help_without_default("sequences"))] = None,
    neighbouring_slices: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_NEIGHBOURS, help=_help_without_default("neighbouring_slices")),
    ] = None,
    loss: Annotated[Loss, typer.Option(help=_help("loss"))] = "bce",
    epochs: Annotated[int | None, typer.Option(min=1, help=_help("epochs"))] = None,
    slices_per_epoch: Annotated[int | None, typer.Option(min=1, help=_help("slices_per_epoch"))] = None,
    batch_size: Annotated[int, typer.Option(min=1, help=_help("batch_size"))] = 8,
    optimiser: Annotated[Optimiser | None, typer.Option(help=_help("optimiser"))] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help=_help("learning_rate"))] = None,
    patience: Annotated[int, typer.Option(min=0, help=_help("patience"))] = 10,
    validation: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the patients kept for validation.")
    ] = 0.2,
    validation_patients: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A text file with the names of the patients kept for validation, one a line, instead.",
        ),
    ] = None,
    corrected: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A results folder of the Cohort widget: train on those patients of COHORT whose labels "
            "somebody corrected or accepted, with these labels as the truth.",
        ),
    ] = None,
    rehearse: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A folder of patients with masks to train on again, so that the model forgets nothing: for "
            "instance those that it was trained on. They never validate.",
        ),
    ] = None,
    rehearse_share: Annotated[
        float, typer.Option(min=0, max=0.95, help="Share of those among the training patients.")
    ] = 0.5,
    validate_every: Annotated[int | None, typer.Option(min=1, help=_help("validate_every"))] = None,
    freeze_encoder: Annotated[bool, typer.Option("--freeze-encoder", help=_help("freeze_encoder"))] = False,
    average_decay: Annotated[
        float | None, typer.Option(min=0, max=0.9999, help=_help("average_decay"))
    ] = None,
    tumour_share: Annotated[float, typer.Option(min=0, max=1, help=_help("tumour_share"))] = 0.55,
    draw: Annotated[Draw, typer.Option(help=_help("draw"))] = "slices",
    small_size: Annotated[int, typer.Option(min=16, help=_help("small_size"))] = 128,
    small_share: Annotated[float | None, typer.Option(min=0, max=1, help=_help("small_share"))] = None,
    crop_share: Annotated[float, typer.Option(min=0, max=1, help=_help("crop_share"))] = 0.0,
    augmentation: Annotated[float, typer.Option(min=0, max=3, help=_help("augmentation"))] = 1.0,
    threshold: Annotated[Any, threshold_option(_help_without_default("threshold"))] = None,
    clean_up: Annotated[CleanUp | None, typer.Option(help=_help_without_default("clean_up"))] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help=_help_without_default("max_minutes"))
    ] = None,
    seed: Annotated[int, typer.Option(help=_help("seed"))] = 0,
    device: Annotated[DeviceChoice, typer.Option(help=_help("device"))] = "auto",
    batch_picture: Annotated[
        Path | None, typer.Option(help="Write a PNG picture of the first batch, as the network sees it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUTPUT's training state.")] = False,
) -> None:
    """Train a network on a cohort, split by patient: fine-tune a model, or start from scratch.

    OUTPUT is the best model so far; its training state and history.csv are in OUTPUT's .state folder.
    Several GPUs: torchrun --nproc-per-node N -m napari_lgg_seg train ...
    """
    from ..core import memory
    from ..core.training import distributed
    from ..core.training.train import check_output
    from ..core.training.train import train as run

    options = TrainOptions(
        init=init,
        network=network,
        sequences=sequences,
        neighbouring_slices=neighbouring_slices,
        loss=loss,
        epochs=epochs,
        slices_per_epoch=slices_per_epoch,
        batch_size=batch_size,
        optimiser=optimiser,
        learning_rate=learning_rate,
        patience=patience,
        validate_every=validate_every,
        freeze_encoder=freeze_encoder,
        average_decay=average_decay,
        tumour_share=tumour_share,
        draw=draw,
        small_size=small_size,
        small_share=small_share,
        crop_share=crop_share,
        augmentation=augmentation,
        threshold=threshold,
        clean_up=clean_up,
        max_minutes=max_minutes,
        seed=seed,
        device=device,
    )
    if output.parent.is_file():
        raise TrainingError(f"{output.parent} is a file; choose a folder for the model.")
    check_output(output, resume=resume)
    memory.keep_memory_mapped()
    with distributed.joined(device) as processes, _told_to_stop() as told:
        console = make_console(stderr=True, quiet=not processes.is_main)
        patients = find_patients(cohort, corrected, console)
        training, held_out = split(patients, options, validation, validation_patients, console)
        if rehearse is not None:
            training += old_patients(rehearse, patients, len(training), rehearse_share, seed, console)
        callbacks = [_stop_when(told)]
        if batch_picture and processes.is_main:
            callbacks.append(_draw_first_batch(batch_picture))
        with (
            _Display(console) as display,
            closing(run(training, held_out, output, options, callbacks=callbacks, resume=resume)) as events,
        ):
            for event in events:
                display.show(event)
                if told and processes.count == 1:  # several end together, by the callback
                    break
    if told:
        console.print(f"Stopped by {told[0]}. Go on with --resume.")
        raise typer.Exit(INTERRUPTED)
    if processes.is_main:
        print(f"The best model is in {output.resolve()}")  # noqa: T201 - the result


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
            images, masks = run.prepared(run.cohort.take(run.plan()[0]))
            write_picture(path, batch_picture(images, masks, neighbours=run.start.neighbouring_slices))

    return DrawFirstBatch()


@contextmanager
def _told_to_stop() -> Iterator[list[str]]:
    """Collect the signals that ask this program to end, so that a step can be finished first.

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
    console : Console
        Where it is shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = make_progress(console, left=True)
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
                self._print(f"{when}: {in_a_line(event.summary)}")
            case EpochDone():
                self._print(_about_epoch(event))
                self._best = event.best
            case Notice():
                self._print(event.text, style="yellow")
            case Ended():
                self._progress.update(self._bar, description=f"Done{self._best_summary()}")
                self._print(event.reason)
                if self._best == self._before:
                    self._print("No epoch was better than the model it started from; that is what was saved.")

    def _best_summary(self) -> str:
        return f", best Dice {self._best:.3f}" if self._best >= 0 else ""

    def _print(self, text: str, style: str | None = None) -> None:
        self._progress.console.print(text, style=style, markup=False, soft_wrap=True)


def _about_epoch(event: Any) -> str:
    text = f"Epoch {event.epoch} of {event.epochs}: loss {event.loss:.4f}"
    if event.validation is not None:
        text += f"; validation: {in_a_line(event.validation)}; best mean {event.best:.4f}"
    return text
