"""The Fine-tune widget's controls: what they are called, what they offer, and the options they stand for.

Nothing here knows layers' contents or runs anything.
"""

from __future__ import annotations

from datetime import date
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import (
    CheckBox,
    ComboBox,
    FloatSpinBox,
    Label,
    ProgressBar,
    PushButton,
    SpinBox,
)

from ...core.choices import LOSSES
from ...core.cohort.results import default_results_folder
from ...core.options import option_help
from ...core.training.options import TrainOptions, default_summary
from ...core.training.paths import state_folder
from ...preferences import dataset_folder
from ..shared.forms import Choice, Choices, folded, let_shrink, path_edit, rows
from .messages import GO_ON

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

OPEN_PATIENTS, FOLDER = "Patients open in the viewer", "Folder of patients..."
CORRECTED = "Corrected patients of a cohort"
#: What "Start from" offers after the models: another file, and random weights.
OTHER_MODEL, FROM_SCRATCH = "Choose a model file...", "Scratch (random weights)"
_MODELS = "Models (*.safetensors)"
_DEFAULTS = TrainOptions()


class FineTuneControls:
    """All controls of the widget but the table and the plot.

    Parameters
    ----------
    models : callable
        Which models are offered; asked again whenever choices are reset.
    device : ComboBox
        The menu of devices.
    """

    def __init__(self, models: Choices, device: ComboBox) -> None:
        self.source = ComboBox(
            label="Train on",
            choices=(OPEN_PATIENTS, FOLDER, CORRECTED),
            tooltip="Patients that are open, with the labels that you choose for each; a folder in the "
            "layout of the LGG MRI dataset; or those of a cohort whose labels you corrected or accepted.",
        )
        self.folder = path_edit("d", "Folder", "The folder that holds the patients' folders.")
        self.found = Label(value="")
        self.patients = path_edit("d", "Patients", "The cohort's folder, which holds the patients' folders.")
        self.results = path_edit("d", "Results", "Where Cohort keeps the corrected labels of its patients.")
        self.old = path_edit(
            "d",
            "Old patients",
            "A folder of patients with masks to train on again, so that the model forgets nothing: for "
            "instance those that it was trained on. They never validate. Leave it empty for none.",
        )
        self.old_share = FloatSpinBox(
            label="Share of old patients",
            value=0.5,
            min=0,
            max=0.95,
            step=0.05,
            tooltip="Among the patients that train; the seed draws which of them.",
        )
        self.old_found = Label(value="")
        preferred = dataset_folder()
        if preferred:
            self.folder.value = self.patients.value = preferred
            self.results.value = default_results_folder(Path(preferred))
        self.start_from = Choice(
            label="Start from",
            choices=models,
            tooltip="The model whose weights are tuned. From scratch, a training needs dozens of patients "
            "and hours.",
        )
        self.output = path_edit(
            "w", "Save as", "Where the best model goes. An older file is never replaced.", _MODELS
        )
        self.resume = CheckBox(
            text=GO_ON,
            tooltip="Take up the training that was stopped, with the same patients and options.",
            visible=False,
        )
        self.device = device
        self.button = PushButton(text="Start", enabled=False, tooltip="Train the model.")
        self.progress = ProgressBar(min=0, max=1, value=0, visible=False)
        self.status = Label(value="")
        self.preview = CheckBox(
            text="Preview",
            value=True,
            tooltip="After each epoch, show what the model finds by now in a validation patient, in a layer "
            "of its own. Of a folder, the first validation patient is opened for it.",
        )
        for combo in (self.source, self.start_from, self.device):
            let_shrink(combo)
        self._make_options()

    def _make_options(self) -> None:
        self.epochs = _automatic("epochs", "Epochs", 0, max=1000, step=1)
        self.slices_per_epoch = _automatic("slices_per_epoch", "Slices per epoch", 0, max=100_000, step=10)
        self.learning_rate = _automatic("learning_rate", "Learning rate", 5, max=0.1, step=0.0001)
        self.loss = ComboBox(
            label="Loss", choices=LOSSES, value=_DEFAULTS.loss, tooltip=option_help("loss", TrainOptions)
        )
        self.patience = _number("patience", "Patience", max=1000)
        self.batch_size = _number("batch_size", "Batch size", min=1, max=256)
        self.validation_share = FloatSpinBox(
            label="Validation share",
            value=0.2,
            min=0.05,
            max=0.9,
            step=0.05,
            tooltip="Share of the patients that the model is judged on and never learns from; at least one.",
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
        """What must not change during a training, besides the table of patients."""
        whom = [self.source, self.folder, self.patients, self.results, self.old, self.old_share]
        return [*whom, self.start_from, self.output, self.resume, self.device]

    def folded(self) -> QWidget:
        """What is rarely needed, behind a title."""
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
    """A name for a model that no file has yet, under the user's home."""
    folder = folder or Path.home() / "napari-lgg-seg"
    return unused(folder / f"{date.today().isoformat()} fine-tuned.safetensors")


def unused(path: Path) -> Path:
    """A path itself, or the first with a number after its name, that no model or training state has."""
    stem = path.stem
    names = (stem if number == 1 else f"{stem} {number}" for number in count(1))
    candidates = (path.with_name(f"{name}{path.suffix}") for name in names)
    return next(free for free in candidates if not free.exists() and not state_folder(free).exists())


def _number(name: str, label: str, **limits: Any) -> SpinBox:
    value = getattr(_DEFAULTS, name)
    return SpinBox(label=label, value=value, tooltip=option_help(name, TrainOptions), **{"min": 0, **limits})


def _automatic(name: str, label: str, decimals: int, **limits: Any) -> FloatSpinBox:
    """A number that may be left open; magicgui's box for whole numbers cannot say so in a word."""
    tooltip = f"{option_help(name, TrainOptions)} {default_summary(name)}"
    box = FloatSpinBox(label=label, value=0, min=0, tooltip=tooltip, **limits)
    box.native.setDecimals(decimals)
    box.native.setSpecialValueText("automatic")
    return box
