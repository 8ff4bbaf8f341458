"""The Fine-tune widget: one column in the order of the work, from the patients to the tuned model."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Label
from qtpy.QtWidgets import QFileDialog

from ...core.errors import LggSegError, TrainingError
from ...core.model.checkpoint import DEFAULT_MODEL, read_card
from ...core.options import option_help
from ...core.training.events import EpochDone, Notice, PatientValidated, Validated
from ...core.training.initial_model import DEFAULT, SCRATCH, find_initial_model
from ...core.training.options import TrainOptions
from ...core.training.paths import state_file
from ...core.training.split import split_patients
from ...core.training.train import check_output
from ..shared.device_chooser import DeviceChooser
from ..shared.docking import SingleDock, TabbedDock, on_mouse_enter, on_undocked
from ..shared.forms import rows, wrap
from ..shared.known_models import known_models, preferred_model
from ..shared.scrolling import ScrollingColumn, scroll_into_view
from ..shared.worker import Failure, cannot_be_read, create_worker, unexpected
from . import messages
from .controls import FROM_SCRATCH, OTHER_MODEL, FineTuneControls, default_output, unused
from .job import JobEvent, Outcome, PatientToShow, StepsDone, TrainJob, TrainWorker, run_training
from .labelled import PatientArrays, may_show_tumour
from .preview import Preview
from .sources import Sources

if TYPE_CHECKING:
    import napari.viewer

_DEFAULT_NAME = "Default U-Net"


class FineTuneWidget(Container):
    """Dock widget: trains a model on the user's patients in a worker, and shows the progress.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where patients are found and the preview is shown.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        if find_spec("pyqtgraph") is None:
            self._show_only(messages.NEEDS_EXTRA)
            return
        self._viewer = napari_viewer
        self._worker: Any = None
        self._job: TrainJob | None = None
        self._progress = messages.Progress(1)
        self._outcome = ""
        preferred, self._model_problem = preferred_model()
        self._devices = DeviceChooser(option_help("device", TrainOptions))
        self._initial_model = DEFAULT
        self._preview = Preview(napari_viewer, shown=True)
        self.controls = FineTuneControls(models=lambda _: self._models(), device=self._devices.combo)
        c = self.controls
        self.button, self.status = c.button, c.status
        self.sources = Sources(napari_viewer, c, self._changed)
        self._lay_out()
        c.output.value = default_output()
        self._connect()
        if preferred is not None:
            c.start_from.value = str(preferred)
        self._layers_changed()
        self._devices.find_devices()

    def _show_only(self, message: str) -> None:
        text = Label(value=message)
        self.append(text)
        wrap(text, lines=3)
        self.native.layout().addStretch()

    def _lay_out(self) -> None:
        from .training_plot import TrainingPlot

        c = self.controls
        self.plot = TrainingPlot(self._viewer.theme)
        self.plot.hide()
        column = Container(
            widgets=[
                rows(c.source),
                rows(c.folder, c.patients, c.results),
                c.found,
                rows(c.old, c.old_share),
                c.old_found,
                rows(c.start_from, c.output, c.device),
                c.resume,
                c.button,
                c.progress,
                c.status,
                c.preview,
            ],
            labels=False,
        )
        layout = column.native.layout()
        layout.insertWidget(1, self.sources.table)
        layout.insertWidget(8, c.folded())
        layout.addWidget(self.plot)
        layout.addStretch()
        wrap(c.found, lines=1)
        wrap(c.old_found, lines=1)
        wrap(c.status, lines=4)
        self._column = column
        self.native.layout().addWidget(ScrollingColumn(column.native))

    def _connect(self) -> None:
        c = self.controls
        c.button.clicked.connect(self._clicked)
        c.start_from.changed.connect(self._initial_model_chosen)
        for control in (c.output, c.resume, c.validation_share, c.seed):
            control.changed.connect(self._changed)
        c.preview.changed.connect(lambda shown: self._preview.switch(shown=shown))
        events = self._viewer.layers.events
        events.inserted.connect(self._layers_changed)
        events.removed.connect(self._layers_changed)
        self._viewer.events.theme.connect(self._theme_changed)
        known_models.added.connect(self._models_changed)
        self.native.destroyed.connect(self._closed)
        on_undocked(self.native, self.stop)
        TabbedDock(self.native)
        SingleDock(self.native, "Fine-tune", self._viewer)
        on_mouse_enter(self.native, self._layers_changed)

    # --- choosing ------------------------------------------------------------------------------

    def _models(self) -> list[tuple[str, str | None]]:
        known = [(name, str(path)) for name, path in known_models.known()]
        shipped = [(_DEFAULT_NAME, DEFAULT)] if DEFAULT_MODEL.exists() else []
        return [*shipped, *known, (OTHER_MODEL, None), (FROM_SCRATCH, SCRATCH)]

    def _models_changed(self, _: Any = None) -> None:
        self.controls.start_from.reset_choices()

    def _initial_model_chosen(self, chosen: str | None) -> None:
        if chosen is None:
            self.controls.start_from.value = self._initial_model
            name, _ = QFileDialog.getOpenFileName(self.native, "Choose a model", "", "Models (*.safetensors)")
            if name:
                self.start_from(Path(name))
            return
        self._initial_model, self._model_problem = chosen, ""
        self._changed()

    def start_from(self, path: Path) -> None:
        """List a model file and start from it; a file that is not a model is refused with a message."""
        try:
            read_card(path)
        except LggSegError as error:
            self._set_status(str(error))
            return
        known_models.add(path)
        self.controls.start_from.value = str(path)

    def _layers_changed(self, event: Any = None) -> None:
        removed = event is not None and event.type == "removed"
        if removed and self._preview.is_layer(event.value) and self.controls.preview.value:
            self.controls.preview.value = False  # or the next epoch would bring it back
        if self._worker is None:
            self.sources.update()
            self._describe()

    def _split(self) -> tuple[list[str], list[str]]:
        """Names of the training and of the validation patients."""
        options = self.controls.options()
        share = self.controls.validation_share.value
        return split_patients(self.sources.names(), share, options.seed, find_initial_model(options).seen)

    # --- describing ----------------------------------------------------------------------------

    def _set_status(self, text: str) -> None:
        self.status.value = text

    def _changed(self, _: Any = None) -> None:
        """Replace the message about the last training after the user has changed something."""
        self._outcome = ""
        self._describe()

    def _describe(self) -> None:
        """Show how the last training ended, what Start would do, or what is missing for it."""
        if self._worker is not None:
            return
        output = self.controls.output.value
        unfinished = bool(output.name) and _is_file(state_file(output))
        self.controls.resume.visible = unfinished
        if not unfinished:
            with self.controls.resume.changed.blocked():
                self.controls.resume.value = False
        try:
            problem, text = self._problem(), ""
            if not problem:
                resume = bool(self.controls.resume.value)
                training, validation = self._split()
                old = self.sources.old(len(training), self.controls.seed.value)
                text = messages.ready(training, validation, len(old), resume=resume)
        except LggSegError as error:
            problem = str(error)
        except OSError as error:  # of the name to save as, for instance if it is too long
            problem = cannot_be_read(error)
        self.button.enabled = not problem
        self._set_status(self._outcome or f"{self._model_problem} {problem or text}".strip())

    def _problem(self) -> str:
        """Why a training cannot start; empty if it can."""
        c = self.controls
        problem = self.sources.problem()
        if problem:
            return problem
        if not c.resume.value:
            output = c.output.value
            for path in (output, state_file(output)):
                if path.exists():
                    return messages.exists_already(output.name, unfinished=state_file(output).is_file())
        check_output(c.output.value, resume=c.resume.value)
        return ""

    def _theme_changed(self, _: Any = None) -> None:
        self.plot.set_theme(self._viewer.theme)

    # --- running -------------------------------------------------------------------------------

    def _clicked(self) -> None:
        if self._worker is not None:
            self.stop()
        elif (job := self._prepare()) is not None:
            # What is changed while corrections are being saved does not count.
            self.sources.save_first(self._set_status, partial(self._start, job))

    def run(self) -> None:
        """Train, like a click on Start."""
        if self._worker is None and (job := self._prepare()) is not None:
            self._start(job)

    def _prepare(self) -> TrainJob | None:
        """The training as it is set now; None if it cannot start, which is shown."""
        self._changed()
        if not self.button.enabled:
            return None
        try:
            return self._make_job()
        except LggSegError as error:
            self._set_status(str(error))
            return None

    def _start(self, job: TrainJob) -> None:
        if self._worker is not None:
            return
        try:
            fine_tuning = find_initial_model(job.options).card is not None
        except LggSegError as error:
            self._set_status(str(error))
            return
        self._job, epochs = job, job.options.complete(fine_tuning=fine_tuning).epochs or 1
        self._progress = messages.Progress(epochs)
        self._preview.start(job.subjects)
        self.plot.start(epochs)
        if job.resume and job.output.exists():
            self._plot_earlier(job.output)
        self.plot.show()
        self._set_running(running=True)
        scroll_into_view(self.button.native)
        self._set_status(self._progress.text)
        self._worker = create_worker(
            run_training,
            job,
            _worker_class=TrainWorker,
            _connect={
                "yielded": self._show,
                "returned": [_offer, self._returned],
                "errored": self._errored,
                "finished": self._finished,
            },
        )

    def _plot_earlier(self, path: Path) -> None:
        """Plot the Dice of the training that is resumed, as recorded in its best model."""
        for row in read_card(path).training["history"]:
            if row["dice_mean"] is not None:
                self.plot.add_dice(row["epoch"], row["dice_mean"])

    def _make_job(self) -> TrainJob:
        c = self.controls
        training, validation = self._split()
        sources = self.sources.patients()
        old = self.sources.old(len(training), c.seed.value)
        subjects = self.sources.subjects()
        unseen = self.sources.from_files and not subjects.keys() & set(validation)
        to_show = sources[validation[0]] if unseen and c.preview.value else None
        if not any(may_show_tumour(sources[name]) for name in training) and not old:
            raise TrainingError(messages.NO_TUMOUR)
        return TrainJob(
            (*(sources[name] for name in training), *old),
            tuple(sources[name] for name in validation),
            c.output.value,
            c.options(),
            c.resume.value,
            None if isinstance(to_show, PatientArrays) else to_show,
            subjects,
        )

    def stop(self) -> None:
        """End the training after its current step; the best model and the state are saved."""
        if self._worker is not None and self.button.enabled:
            self.button.text, self.button.enabled = "Stopping...", False
            self._set_status(messages.STOPPING)
            self._worker.quit()

    def _set_running(self, *, running: bool) -> None:
        c = self.controls
        for control in c.choosing():
            control.enabled = not running
        self.sources.table.setEnabled(not running)
        c.progress.visible = running
        c.progress.max, c.progress.value = 0, 0
        self.button.text, self.button.enabled = "Stop" if running else "Start", True

    def _show(self, event: JobEvent) -> None:
        """Show an event of the training."""
        progress = self._progress
        progress.update(event)
        if isinstance(event, StepsDone):
            steps = range(event.step - len(event.losses) + 1, event.step + 1)
            self.plot.add_losses([step * progress.epochs / event.steps for step in steps], event.losses)
        elif isinstance(event, Validated | EpochDone):
            summary = event.summary if isinstance(event, Validated) else event.validation
            if summary is not None:
                self.plot.add_dice(event.epoch, summary.mean)
        elif isinstance(event, PatientValidated):
            self._preview.update(event.name, event.labels)
        elif isinstance(event, PatientToShow):
            self._preview.offer_patient(event.patient)
        elif isinstance(event, Notice):
            progress.notices.append(event.text)
        if self.button.enabled:
            self.controls.progress.max, self.controls.progress.value = progress.total, progress.done
            self._set_status(" ".join([*progress.notices[-1:], progress.text]))

    def _returned(self, result: Outcome | Failure) -> None:
        assert self._job is not None
        job, output = self._job, self.controls.output
        if isinstance(result, Failure):
            unfinished = _is_file(state_file(job.output))
            self._outcome = messages.failed(result.message, job.output, unfinished=unfinished)
            return
        changed = messages.labels_changed(self.sources.changed_since([*job.training, *job.validation]))
        parts = [messages.ended(result, self._progress.epochs), changed, *self._progress.notices]
        self._outcome = " ".join(part for part in parts if part)
        if not result.stopped and output.value == job.output:
            with output.changed.blocked():
                output.value = unused(output.value)

    def _errored(self, error: Exception) -> None:
        self._outcome = f"Training failed: {unexpected(error)}"

    def _finished(self) -> None:
        self._worker = self._job = None
        self._set_running(running=False)
        self._layers_changed()

    def _closed(self) -> None:
        """Stop the training, which saves its best model, and disconnect; the widget is gone."""
        events = self._viewer.layers.events
        events.inserted.disconnect(self._layers_changed)
        events.removed.disconnect(self._layers_changed)
        self._viewer.events.theme.disconnect(self._theme_changed)
        known_models.added.disconnect(self._models_changed)
        self.sources.close()
        self._devices.close()
        worker, self._worker = self._worker, None
        if worker is not None:
            # _offer stays connected, so that the model is listed in other widgets.
            worker.returned.disconnect(self._returned)
            worker.yielded.disconnect(self._show)
            worker.errored.disconnect(self._errored)
            worker.finished.disconnect(self._finished)
            worker.quit()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _offer(result: Outcome | Failure) -> None:
    """List the model of a training in all widgets, even if the widget that started it is gone."""
    if isinstance(result, Outcome) and result.card is not None:
        known_models.add(result.path)
