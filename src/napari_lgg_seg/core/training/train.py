"""Patients -> model file: the training loop, a generator of events.

The caller decides what to draw and when to stop; closing the generator ends the training. The best
model so far is always on disk, and so is the state from which the training can go on. What happens
around the steps is the business of callbacks: :mod:`.callbacks`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

from ..errors import TrainingError
from ..inference.predict import Notice
from ..model.preprocess import PreprocessOptions
from . import distributed
from .callbacks import Callback, EarlyStopping, HistoryCsv, KeepBest, KeepState, LearningRate, TimeBudget
from .events import Ended, EpochDone, StepDone, TrainEvent, Validated
from .initial_model import find_initial_model
from .options import TrainOptions
from .paths import state_file, state_folder
from .run import Run, Source
from .state import load_state, remove_leftovers


def train(
    training: Sequence[Source],
    validation: Sequence[Source],
    output: Path,
    options: TrainOptions | None = None,
    preprocess: PreprocessOptions | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> Generator[TrainEvent, None, None]:
    """Train a network from scratch, or fine-tune a trained one.

    Parameters
    ----------
    training, validation : sequence of Patient, Path or PatientFiles
        Patients with truth, their folders, or patients of a cohort with corrected labels; none may be in
        both.
    output : Path
        The best model so far, by mean Dice per validation patient, is kept here; the training state
        and a table of its history beside it in ``<output stem>.state``.
    options : TrainOptions, optional
        See there.
    preprocess : PreprocessOptions, optional
        Working size and normalisation of a model from scratch.
    callbacks : sequence of Callback
        Called after the standard ones.
    resume : bool
        Go on from the training state if there is one.

    Yields
    ------
    PatientRead, StepDone, PatientValidated, Validated, EpochDone, Notice or Ended
        See :mod:`napari_lgg_seg.core.training.events`. Close the generator to stop; the best model and the
        state after the last step stay on disk.

    Raises
    ------
    TrainingError
        If a patient is in both sets, truth is missing, or the loss is no longer a number.
    ModelError, DeviceError, ExportError
        If the initial model cannot be used, the device fails, or the disk is full.
    """
    options = options or TrainOptions()
    initial = find_initial_model(options, preprocess)
    options = options.complete(fine_tuning=initial.card is not None)
    check_output(output, resume=resume)
    run = Run(initial, validation, output, options)
    hooks: list[Callback] = []
    try:
        yield from run.read(training)
        yield from _prepare(run, resume=resume)
        hooks = [*standard_callbacks(run), *callbacks]
        for hook in hooks:
            hook.at_start(run)
        if initial.card is not None and not run.history:
            yield from _validate(run, hooks)
        yield from _epochs(run, hooks)
        if run.stopped is not None and not run.is_validated:
            yield from _validate(run, hooks)
        yield Ended(run.stopped or f"All {options.epochs} epochs are done.")
    except GeneratorExit:  # the caller closed it
        _end(run, hooks)
        raise
    except BaseException:
        with suppress(Exception):  # what failed first is what the user should know
            _end(run, hooks)
        raise
    _end(run, hooks)


def _epochs(run: Run, hooks: Sequence[Callback]) -> Iterator[TrainEvent]:
    """The training itself: epochs of steps, with whatever the callbacks do around them."""
    epochs, validate_every = run.options.epochs or 1, run.options.validate_every or 1
    while run.epoch < epochs and not run.should_stop():
        for batch in run.batches():
            for hook in hooks:
                hook.before_step(run)
            loss = run.step(batch)
            for hook in hooks:
                hook.after_step(run)
            yield from run.take_notices()
            yield StepDone(run.steps_done, run.steps, run.epoch + 1, loss)
            if run.should_stop():
                return
        due = (run.epoch + 1) % validate_every == 0 or run.epoch + 1 == epochs
        if due:
            yield from run.validate()
        record = run.end_epoch(validated=due)
        for hook in hooks:
            hook.after_epoch(run, record)
        yield EpochDone(run.epoch, epochs, record.loss or 0.0, record.validation, run.best)


def _end(run: Run, hooks: Sequence[Callback]) -> None:
    """Let every callback end, and give memory and files back, whatever else fails."""
    with ExitStack() as stack:
        stack.callback(run.close)
        for hook in reversed(hooks):
            stack.callback(hook.at_end, run)


def _validate(run: Run, hooks: Sequence[Callback]) -> Iterator[TrainEvent]:
    """A validation outside of an epoch: of the initial model, and where a training was stopped."""
    yield from run.validate()
    for hook in hooks:
        hook.after_epoch(run, run.history[-1])
    assert run.history[-1].validation is not None
    yield Validated(run.steps_done, run.epoch, run.history[-1].validation, run.best)


def standard_callbacks(run: Run) -> list[Callback]:
    """What every training does around its steps, as its options say; one process alone writes files."""
    options = run.options
    hooks: list[Callback] = [LearningRate()]
    if run.processes.is_main:
        hooks += [KeepBest(run.output), HistoryCsv(state_folder(run.output) / "history.csv")]
    if options.patience:
        hooks.append(EarlyStopping(options.patience))
    if options.max_minutes is not None:
        hooks.append(TimeBudget(options.max_minutes))
    if run.processes.is_main:  # last, so that the state never knows of a model that is not on disk yet
        hooks.append(KeepState(state_file(run.output)))
    return hooks


def _prepare(run: Run, *, resume: bool) -> Iterator[Notice]:
    """Take up the state from disk where it is wanted, and say what the user should know."""
    if run.processes.is_main:
        remove_leftovers(run.output)
    if run.initial.reason:
        yield Notice(run.initial.reason)
    validation = run.split()["validation"]
    seen = sorted(run.initial.seen & set(validation))
    if seen:
        yield Notice(
            f"The initial model was trained on {len(seen)} of the {len(validation)} validation patients "
            f"({seen[0]}{', ...' if len(seen) > 1 else ''}): their Dice flatters it."
        )
    if resume and not load_state(run, state_file(run.output)):
        yield Notice(f"There is no training state beside {run.output.name}: starting anew.")
        aside = keep_aside(run.output) if run.processes.is_main else None
        if aside is not None:
            yield Notice(f"The model that was in {run.output.name} is kept in {aside.name}.")


def keep_aside(output: Path) -> Path | None:
    """Give a model file that is in the way another name; returns it, or None if there was no file."""
    if not output.exists():
        return None
    aside = next(
        path
        for number in count(1)
        if not (path := output.with_name(f"{output.stem}-before-{number}{output.suffix}")).exists()
    )
    output.rename(aside)
    return aside


def check_output(output: Path, *, resume: bool) -> None:
    """Refuse an output that would replace an older model or training, unless that is resumed.

    Raises
    ------
    TrainingError
        If the name has another ending, or the file or its state exists and ``resume`` is not set.
    """
    if output.suffix != ".safetensors":
        raise TrainingError(f"{output} must end in .safetensors; choose such a name for the model.")
    if resume or not distributed.current().is_main:
        return
    for path in (output, state_file(output)):
        if path.exists():
            raise TrainingError(f"{path} exists already; choose another name, or go on with --resume.")
