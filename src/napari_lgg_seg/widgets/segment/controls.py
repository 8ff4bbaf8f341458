"""The Segment widget's controls and the options they set."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Label,
    ProgressBar,
    PushButton,
    SpinBox,
)

from ...core import devices
from ...core.data.patients import FLAIR, SEQUENCES
from ...core.options import SegmentOptions, option_help
from ...preferences import preferences
from ..shared.float_box import FloatBox, ThresholdSlider
from ..shared.forms import Choice, Choices, folded, rows, side_by_side

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from ...core.model.checkpoint import ModelCard

#: Names of the ways to clean up connected components.
_CLEAN_UP = [
    ("Keep all components", "off"),
    ("Remove components below a volume", "small"),
    ("Remove small components", "minor"),
    ("Keep the largest component", "largest"),
]
_CLEAN_UP_HELP = (
    "What happens to separate components of the segmentation. Small components have less than a quarter of "
    "the largest one's volume. Keeping only the largest one loses second lesions."
)
_SPACING_HELP = (
    "Voxel spacing in millimetres, if you know it; the dataset's files do not contain it. It sets the scale "
    "of the layers, and volumes are given in millilitres."
)


class Controls:
    """All controls of the widget.

    Parameters
    ----------
    subjects : callable
        Returns the patients to choose from; called again whenever choices are reset.
    model, device : ComboBox
        The menus of models and of devices.
    layers : callable
        Takes the chosen patient and returns the layers that can be its sequences.
    """

    def __init__(self, subjects: Choices, model: ComboBox, device: ComboBox, layers: Choices) -> None:
        self._preferred = preferences()
        self.patient = ComboBox(
            label="Patient",
            choices=subjects,
            tooltip="The patients and images that are open. Any 2D or 3D image can be segmented.",
        )
        self.model, self.device = model, device
        self.about = Label(value="")
        self.button = PushButton(
            text="Segment", tooltip="Segment the tumour in all slices of the patient (Ctrl+Alt+G)."
        )
        self.progress = ProgressBar(min=0, max=1, value=0, visible=False)
        self.threshold = ThresholdSlider(
            label="Threshold", value=0.5, min=0.01, max=0.99, step=0.01, tooltip=option_help("threshold")
        )
        self.automatic = CheckBox(
            text="Automatic threshold",
            tooltip="Picks, per patient, the threshold that maximises the expected Dice. Move the slider to "
            "set another one.",
        )
        self.status = Label(value="")
        self.previous = PushButton(text="< tumour slice", tooltip="Previous slice with tumour (Ctrl+Alt+B).")
        self.following = PushButton(text="tumour slice >", tooltip="Next slice with tumour (Ctrl+Alt+N).")
        self.export = PushButton(
            text="Export masks...",
            tooltip="Write the selected labels, or the result last worked on, as <patient>_<n>_mask.tif.",
        )
        self.sequences = {
            sequence: Choice(
                label=sequence,
                choices=lambda _: layers(self.patient.value),
                tooltip=f"The layer that holds {sequence}.",
            )
            for sequence in SEQUENCES
        }
        self._make_options()
        self.spacing = {
            axis: FloatBox(label=f"{axis} (mm)", value=0, min=0, max=100, step=0.1, tooltip=_SPACING_HELP)
            for axis in "zyx"
        }

    def _make_options(self) -> None:
        self.clean_up = ComboBox(label="Clean-up", choices=_CLEAN_UP, tooltip=_CLEAN_UP_HELP)
        self.smallest_volume = SpinBox(
            label="Smallest volume (voxels)",
            value=100,
            min=1,
            max=10**6,
            tooltip=option_help("smallest_volume"),
        )
        self.fill_holes = CheckBox(label="Fill holes", tooltip=option_help("fill_holes"))
        self.tta = CheckBox(label="Test-time augmentation (mirror)", tooltip=option_help("tta"))
        self.full_resolution = CheckBox(
            label="Full resolution everywhere", tooltip=option_help("full_resolution")
        )
        self.current_slice = CheckBox(
            label="Current slice only",
            tooltip="Segment only the slice in view and leave the others as they are: a quick first test.",
        )
        self.batch_size = SpinBox(
            label="Batch size", value=0, min=0, max=256, tooltip=f"{option_help('batch_size')} 0: automatic."
        )
        self.engine = ComboBox(
            label="Engine",
            choices=[
                ("Auto", "auto"),
                *((devices.ENGINE_NAMES[name], name) for name in devices.offered_engines()),
            ],
            tooltip=option_help("engine"),
        )

    def options(self) -> SegmentOptions:
        """The options as they are set."""
        return SegmentOptions(
            threshold="auto" if self.automatic.value else self.threshold.value,
            clean_up=self.clean_up.value,
            smallest_volume=self.smallest_volume.value,
            fill_holes=self.fill_holes.value,
            tta=self.tta.value,
            full_resolution=self.full_resolution.value,
            batch_size=self.batch_size.value or None,
            device=self.device.value,
            engine=self.engine.value,
        )

    def set_defaults(self, card: ModelCard) -> None:
        """Set threshold and clean-up to the preferred or the model's own, without emitting events."""
        preferred = self._preferred.threshold_to_use
        threshold = card.threshold if preferred is None else preferred
        for control in (self.automatic, self.threshold, self.clean_up):
            control.changed.block()
        self.automatic.value = threshold == "auto"
        if not isinstance(threshold, str):
            self.threshold.value = threshold
        self.clean_up.value = card.clean_up
        for control in (self.automatic, self.threshold, self.clean_up):
            control.changed.unblock()

    def show_threshold(self, threshold: float) -> None:
        """Move the slider to the patient's automatic threshold, without emitting an event."""
        with self.threshold.changed.blocked():
            self.threshold.value = threshold

    def show_sequences(self, wanted: Collection[str]) -> None:
        """Hide sequences that the model does not use; FLAIR stays because it defines the grid."""
        for sequence, combo in self.sequences.items():
            combo.visible = sequence in wanted or sequence == SEQUENCES[FLAIR]

    def column(self) -> list[Any]:
        """The controls that are always visible, top to bottom."""
        return [
            rows(self.patient, self.model, self.device),
            self.about,
            self.button,
            self.progress,
            rows(self.threshold, self.automatic),
            self.status,
            side_by_side(self.previous, self.following),
            self.export,
        ]

    def folded(self) -> list[QWidget]:
        """Rarely needed controls, in sections that can be expanded."""
        return [
            folded("Sequences", rows(*self.sequences.values())),
            folded(
                "Options",
                rows(
                    self.clean_up,
                    self.smallest_volume,
                    self.fill_holes,
                    self.tta,
                    self.full_resolution,
                    self.current_slice,
                    self.batch_size,
                    self.engine,
                ),
            ),
            folded("Voxel size", rows(*self.spacing.values())),
        ]
