"""The Fine-tune widget's controls and the options they set."""

from __future__ import annotations

from datetime import date
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Label,
    ProgressBar,
    PushButton,
    SpinBox,
)

from ...core.choices import LOSSES
from ...core.cohort.store import default_results_folder
from ...core.options import option_help
from ...core.training.options import TrainOptions, default_summary
from ...core.training.paths import state_folder
from ...preferences import dataset_folder
from ..shared.float_box import FloatBox
from ..shared.forms import Choice, Choices, allow_narrow, folded, path_edit, rows
from .messages import RESUME

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

OPEN_PATIENTS, FOLDER = "Patients open in the viewer", "Folder of patients..."
CORRECTED = "Corrected patients of a cohort"
#: Choices of "Start from" after the models: another file, and random weights.
OTHER_MODEL, FROM_SCRATCH = "Choose a model file...", "Scratch (random weights)"
_MODELS = "Models (*.safetensors)"
_DEFAULTS = TrainOptions()


class FineTuneControls:
    """All controls of the widget except the table and the plot.

    Parameters
    ----------
    models : callable
        Returns the models to choose from; called again whenever choices are reset.
    device : ComboBox
        The menu of devices.
    """

    def __init__(self, models: Choices, device: ComboBox) -> None:
        self._make_sources()
        self.start_from = Choice(
            label="Start from",
            choices=models,
            tooltip="The model to fine-tune. Training from scratch needs dozens of patients and hours.",
        )
        self.output = path_edit(
            "w", "Save as", "Where to save the best model. An existing file is never replaced.", _MODELS
        )
        self.resume = CheckBox(
            text=RESUME,
            tooltip="Continue the training that was stopped, with the same patients and options.",
            visible=False,
        )
        self.device = device
        self.button = PushButton(text="Start", enabled=False, tooltip="Train the model.")
        self.progress = ProgressBar(min=0, max=1, value=0, visible=False)
        self.status = Label(value="")
        self.preview = CheckBox(
            text="Preview",
            value=True,
            tooltip="After each epoch, show the current model's labels of a validation patient in a layer of "
            "its own. If none is open, the first validation patient is opened.",
        )
        for combo in (self.source, self.start_from, self.device):
            allow_narrow(combo)
        self._make_options()

    def _make_sources(self) -> None:
        self.source = ComboBox(
            label="Train on",
            choices=(OPEN_PATIENTS, FOLDER, CORRECTED),
            tooltip="Open patients with the labels that you choose for each; a folder in the layout of the "
            "LGG MRI dataset; or the patients of a cohort whose labels you have corrected or accepted.",
        )
        self.folder = path_edit("d", "Folder", "The folder that holds the patients' folders.")
        self.found = Label(value="")
        self.patients = path_edit("d", "Patients", "The cohort's folder, which holds the patients' folders.")
        self.results = path_edit("d", "Results", "Where Cohort saves the corrected labels of its patients.")
        self.old = path_edit(
            "d",
            "Old patients",
            "A folder of patients with masks, for instance those that the model was trained on. Training on "
            "them again keeps the model from forgetting them. They are never used for validation. Leave it "
            "empty for none.",
        )
        self.old_share = FloatBox(
            label="Share of old patients",
            value=0.5,
            min=0,
            max=0.95,
            step=0.05,
            tooltip="Share of old patients among the training patients; the seed decides which ones.",
        )
        self.old_found = Label(value="")
        preferred = dataset_folder()
        if preferred:
            self.folder.value = self.patients.value = preferred
            self.results.value = default_results_folder(Path(preferred))

    def _make_options(self) -> None:
        self.epochs = _automatic("epochs", "Epochs", max=1000, step=1)
        self.slices_per_epoch = _automatic("slices_per_epoch", "Slices per epoch", max=100_000, step=10)
        self.learning_rate = _automatic("learning_rate", "Learning rate", whole=False, max=0.1, step=0.0001)
        self.loss = ComboBox(
            label="Loss", choices=LOSSES, value=_DEFAULTS.loss, tooltip=option_help("loss", TrainOptions)
        )
        self.patience = _number("patience", "Patience", max=1000)
        self.batch_size = _number("batch_size", "Batch size", min=1, max=256)
        self.validation_share = FloatBox(
            label="Validation share",
            value=0.2,
            min=0.05,
            max=0.9,
            step=0.05,
            tooltip="Share of the patients used to validate the model and not to train it; at least one.",
        )
        self.seed = _number("seed", "Seed", max=2**31 - 1)

    def options(self) -> TrainOptions:
        """The options as they are set.

        Raises
        ------
        OptionsError
            If one is outside its limits.
        """
        return TrainOptions(
            init=str(self.start_from.value),
            loss=self.loss.value,
            epochs=int(self.epochs.value) or None,
            slices_per_epoch=int(self.slices_per_epoch.value) or None,
            learning_rate=self.learning_rate.value or None,
            batch_size=self.batch_size.value,
            patience=self.patience.value,
            seed=self.seed.value,
            device=self.device.value,
        )

    def choosing(self) -> list[Any]:
        """Controls that are disabled during a training."""
        sources = [self.source, self.folder, self.patients, self.results, self.old, self.old_share]
        return [*sources, self.start_from, self.output, self.resume, self.device]

    def folded(self) -> QWidget:
        """Rarely needed controls, in a section that can be expanded."""
        return folded(
            "Options",
            rows(
                self.epochs,
                self.slices_per_epoch,
                self.learning_rate,
                self.loss,
                self.patience,
                self.batch_size,
                self.validation_share,
                self.seed,
            ),
        )


def default_output(folder: Path | None = None) -> Path:
    """An unused name for a model file, by default in the user's home folder."""
    folder = folder or Path.home() / "napari-lgg-seg"
    return unused(folder / f"{date.today().isoformat()} fine-tuned.safetensors")


def unused(path: Path) -> Path:
    """The path, with a number appended if a model file or training state has it already."""
    stem = path.stem
    names = (stem if number == 1 else f"{stem} {number}" for number in count(1))
    candidates = (path.with_name(f"{name}{path.suffix}") for name in names)
    return next(free for free in candidates if not free.exists() and not state_folder(free).exists())


def _number(name: str, label: str, **limits: Any) -> SpinBox:
    value = getattr(_DEFAULTS, name)
    return SpinBox(label=label, value=value, tooltip=option_help(name, TrainOptions), **{"min": 0, **limits})


def _automatic(name: str, label: str, *, whole: bool = True, **limits: Any) -> FloatBox:
    """A number that can be "automatic", which magicgui's SpinBox for integers cannot show."""
    tooltip = f"{option_help(name, TrainOptions)} {default_summary(name)}"
    box = FloatBox(label=label, value=0, min=0, tooltip=tooltip, **limits)
    if whole:
        box.native.setDecimals(0)
    box.native.setSpecialValueText("automatic")
    return box
