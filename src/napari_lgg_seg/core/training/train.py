"""The training loop: patients in, model file out, as a generator of events.

The caller shows the events and decides when to stop: closing the generator ends the training. The best model
and the state to resume from are always on disk. Everything around the steps is done by :mod:`.callbacks`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from ..atomic import NO_LOCKS, cannot_write
from ..errors import LggSegError, TrainingError
from ..inference.predict import Notice
from ..model.preprocess import PreprocessOptions
from . import distributed
from .callbacks import Callback, EarlyStopping, HistoryCsv, KeepBest, KeepState, LearningRate, TimeBudget
from .events import Ended, EpochDone, StepDone, TrainEvent, Validated
from .initial_model import find_initial_model, with_normalisation
from .options import TrainOptions
from .paths import lock_file, state_file, state_folder
from .patients import Source
from .run import Run
from .state import load_state, remove_leftovers, saved_normalisation
from .validation import validate


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
        Patients with ground truth, their folders, or files that are read on demand; no patient in both.
    output : Path
        The model file, ending in .safetensors: the best model so far, by mean Dice per validation patient.
        The training state and history.csv are written to the folder ``<output stem>.state`` next to it.
    options : TrainOptions, optional
        Options of the training.
    preprocess : PreprocessOptions, optional
        Working size and normalisation of a model trained from scratch.
    callbacks : sequence of Callback
        Called after the standard callbacks.
    resume : bool
        Whether to resume from the training state, if there is one.

    Yields
    ------
    PatientRead, StepDone, SlicesDone, PatientValidated, Validated, EpochDone, Notice or Ended
        See :mod:`napari_lgg_seg.core.training.events`. Close the generator to stop: the best model and the
        state after the last step stay on disk.

    Raises
    ------
    TrainingError
        If a patient is in both sets, ground truth is missing, the loss is not finite, or another training
        is writing to the same output.
    ModelError, DeviceError, ExportError
        If the initial model cannot be used, the device fails, or the disk is full.
    """
    options = options or TrainOptions()
    initial = find_initial_model(options, preprocess)
    if resume and initial.card is None:
        initial = with_normalisation(
            initial, distributed.current().from_main(saved_normalisation(state_file(output)))
        )
    options = options.complete(fine_tuning=initial.card is not None)
    check_name(output)
    with locked_output(output):
        check_output(output, resume=resume)
        run = Run(initial, validation, output, options)
        yield from _train(run, training, callbacks, resume=resume)


def _train(
    run: Run, training: Sequence[Source], callbacks: Sequence[Callback], *, resume: bool
) -> Iterator[TrainEvent]:
    """A training whose output is locked: read the patients, then train and validate."""
    hooks: list[Callback] = []
    with _finishing(run, hooks):
        yield from run.read(training)
        yield from _prepare(run, resume=resume)
        hooks += [*standard_callbacks(run), *callbacks]
        for hook in hooks:
            hook.at_start(run)
        if run.initial.card is not None and not run.history:
            yield from _validate(run, hooks)
        yield from _epochs(run, hooks)
        if run.stopped is not None and not run.is_validated:
            yield from _validate(run, hooks)
        yield Ended(run.stopped or f"All {run.options.epochs} epochs are done.")


def _epochs(run: Run, hooks: Sequence[Callback]) -> Iterator[TrainEvent]:
    """The training itself: epochs of steps, with the callbacks' hooks around them."""
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
            yield from validate(run)
        record = run.end_epoch(validated=due)
        for hook in hooks:
            hook.after_epoch(run, record)
        yield EpochDone(run.epoch, epochs, record.loss or 0.0, record.validation, run.best)


@contextmanager
def _finishing(run: Run, hooks: Sequence[Callback]) -> Iterator[None]:
    """Call the callbacks' last hook and release memory and files, however the training ends."""

    def finish() -> None:
        with ExitStack() as stack:  # each is called even if others fail
            stack.callback(run.close)
            for hook in reversed(hooks):
                stack.callback(hook.at_end, run)

    try:
        yield
    except GeneratorExit:  # the caller closed the training
        finish()
        raise
    except BaseException:
        with suppress(Exception):  # the first error is the one to report
            finish()
        raise
    finish()


def _validate(run: Run, hooks: Sequence[Callback]) -> Iterator[TrainEvent]:
    """Validate outside of an epoch: the initial model, or the weights when the training was stopped."""
    yield from validate(run)
    record = run.history[-1]
    for hook in hooks:
        hook.after_epoch(run, record)
    assert record.validation is not None
    yield Validated(run.steps_done, run.epoch, record.validation, run.best)


def standard_callbacks(run: Run) -> list[Callback]:
    """Create the callbacks that the options ask for; only the main process writes files."""
    options = run.options
    hooks: list[Callback] = [LearningRate()]
    if run.processes.is_main:
        hooks += [KeepBest(run.output), HistoryCsv(state_folder(run.output) / "history.csv")]
    if options.patience:
        hooks.append(EarlyStopping(options.patience))
    if options.max_minutes is not None:
        hooks.append(TimeBudget(options.max_minutes))
    if run.processes.is_main:  # last, so that the state never refers to a model that is not on disk yet
        hooks.append(KeepState(state_file(run.output)))
    return hooks


def _prepare(run: Run, *, resume: bool) -> Iterator[Notice]:
    """Load the state to resume from, if asked to, and yield what the user should know."""
    if run.processes.is_main:
        remove_leftovers(run.output)
    if run.initial.reason:
        yield Notice(run.initial.reason)
    validation = run.split()["validation"]
    seen = sorted(run.initial.seen & set(validation))
    if seen:
        yield Notice(
            f"The initial model was trained on {len(seen)} of the {len(validation)} validation patients "
            f"({seen[0]}{', ...' if len(seen) > 1 else ''}), so their Dice is too optimistic."
        )
    if resume and not load_state(run, state_file(run.output)):
        yield Notice(f"There is no training state next to {run.output.name}; starting a new training.")
        renamed = rename_existing(run.output) if run.processes.is_main else None
        if renamed is not None:
            yield Notice(f"The existing {run.output.name} was renamed to {renamed.name}.")


def rename_existing(output: Path) -> Path | None:
    """Rename a model file that would be replaced; returns its new path, or None if there was no file."""
    if not output.exists():
        return None
    numbered = (output.with_name(f"{output.stem}-before-{number}{output.suffix}") for number in count(1))
    renamed = next(path for path in numbered if not path.exists())
    output.rename(renamed)
    return renamed


def check_output(output: Path, *, resume: bool) -> None:
    """Refuse an output that would replace an existing model or training, unless that is resumed.

    Raises
    ------
    TrainingError
        If the name does not end in .safetensors, or the file or its state exists and ``resume`` is not set.
    """
    check_name(output)
    if resume or not distributed.current().is_main:
        return
    for path in (output, state_file(output)):
        if path.exists():
            raise TrainingError(
                f"{path} exists already; choose another name, or continue its training with --resume."
            )


def check_name(output: Path) -> None:
    """Refuse an output whose name is not that of a model file.

    Raises
    ------
    TrainingError
        If the name does not end in .safetensors.
    """
    if output.suffix != ".safetensors":
        raise TrainingError(f"{output} must end in .safetensors; choose such a name for the model.")


@contextmanager
def locked_output(output: Path) -> Iterator[None]:
    """Keep other trainings from writing the same model file and state folder.

    Raises
    ------
    TrainingError
        In all processes of a training, if another one is writing to this output.
    ExportError
        In all processes, if the state folder cannot be written.
    """
    processes = distributed.current()
    with ExitStack() as held:
        refused = processes.from_main(_lock(output, held) if processes.is_main else None)
        if refused is not None:
            raise refused
        yield


def _lock(output: Path, held: ExitStack) -> LggSegError | None:
    """Lock an output until ``held`` is closed; returns the reason if that is not possible."""
    from filelock import FileLock, Timeout

    path = lock_file(output)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not bound to a thread: a generator may be closed by another one than it was started in.
        lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
        held.enter_context(lock)
    except Timeout:
        return TrainingError(
            f"Another training is writing {output}; wait until it has ended or choose another output."
        )
    except OSError as error:
        if error.errno not in NO_LOCKS:  # there, training without a lock is better than not at all
            return cannot_write(path.parent, error)
    return None
