"""The cohort browser's controls: what they are called, and where they stand.

Nothing here knows patients or runs anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, Label, LineEdit, ProgressBar, PushButton
from qtpy.QtWidgets import QSizePolicy

from ...core.options import option_help
from ..shared.forms import form, path_edit, rows, wrap
from ..shared.model_chooser import ModelChooser
from ..shared.table_view import CohortTable
from .columns import ALL_STATES, SHOWN_STATES

#: Keys that work wherever the window has the focus, in Qt's words; napari.yaml declares them in napari's.
NEXT_KEYS, PREVIOUS_KEYS = "Ctrl+PgDown", "Ctrl+PgUp"


class CohortControls:
    """All controls of the browser.

    Parameters
    ----------
    table : CohortTable
        The patients.
    say : callable
        Takes a sentence about a chosen file that is no model.
    """

    def __init__(self, table: CohortTable, say: Callable[[str], None]) -> None:
        self.table = table
        self.dataset = path_edit("d", "Patients", "The folder that holds the patients' folders.")
        self.results = path_edit(
            "d",
            "Results",
            "Where labels, probabilities and the state of each patient are kept; never among the patients' "
            "images.",
        )
        self.text = LineEdit(
            tooltip="Show patients whose names hold these words, for instance an institution."
        )
        self.text.native.setPlaceholderText("Filter by name")
        self.text.native.setClearButtonEnabled(True)
        self.state = ComboBox(choices=(ALL_STATES, *SHOWN_STATES), tooltip="Show patients in one state only.")
        self.uncertain_first = PushButton(
            text="Most uncertain first",
            tooltip="Sort the patients in the order in which they deserve a look: those in whom nothing was "
            "found, then those whose prediction is least sure.",
        )
        self.found = Label(value="")
        self.previous = PushButton(
            text="< Previous", tooltip=f"Open the patient above in the table ({PREVIOUS_KEYS})."
        )
        self.following = PushButton(
            text="Next >", tooltip=f"Open the patient below in the table ({NEXT_KEYS})."
        )
        self.accept = PushButton(
            text="Accept",
            tooltip="Keep the labels of the open patient as they are now, as corrected: no prediction "
            "replaces them unasked.",
        )
        self.status = Label(value="")
        self.model = ModelChooser(say)
        # On at first: the order of review is by uncertainty, which it makes better.
        self.tta = CheckBox(text="Average mirror image", value=True, tooltip=option_help("tta"))
        self.segment_selected = PushButton(
            text="Segment selected",
            tooltip="Find the tumour in the selected patients, in the background. Corrected labels are "
            "replaced only if you say so.",
        )
        self.segment_all = PushButton(
            text="Segment all",
            tooltip="Find the tumour, in the background, in all patients but those with corrected labels and "
            "those that this model has segmented already.",
        )
        self.cancel = PushButton(
            text="Cancel", visible=False, tooltip="Stop; patients that are done stay done."
        )
        self.progress = ProgressBar(min=0, max=1, value=0, visible=False)
        self.export = PushButton(
            text="Export masks...",
            tooltip="Write the kept labels of the selected patients as <patient>_<n>_mask.tif.",
        )
        self.run_status = Label(value="")

    def show_running(self, *, running: bool) -> None:
        """Let a run over patients be cancelled, or be started."""
        for control in (self.segment_selected, self.segment_all, self.export):
            control.visible = not running
        for control in (self.dataset, self.results, self.model.combo, self.tta):
            control.enabled = not running
        self.cancel.text, self.cancel.enabled = "Cancel", True
        self.cancel.visible = self.progress.visible = running

    def column(self) -> Container:
        """All controls, top to bottom in the order of the work, the table where there is room."""
        column = Container(
            widgets=[
                _beside(self.text, self.state, self.uncertain_first),
                self.found,
                _beside(self.previous, self.following, self.accept),
                self.status,
                rows(self.model.combo),
                self.tta,
                _beside(self.segment_selected, self.segment_all, self.export),
                self.cancel,
                self.progress,
                self.run_status,
            ],
            labels=False,
        )
        layout = column.native.layout()
        layout.insertWidget(0, form(self.dataset, self.results))
        layout.insertWidget(2, self.table, 1)
        for text, lines in ((self.found, 1), (self.status, 2), (self.run_status, 1)):
            wrap(text, lines)
        expanding = QSizePolicy.Policy.Expanding  # or napari would leave the room below it empty
        column.native.setSizePolicy(expanding, expanding)
        column.margins = (0, 0, 0, 0)
        return column


def _beside(*widgets: Any) -> Container:
    container = Container(widgets=widgets, layout="horizontal", labels=False)
    container.margins = (0, 0, 0, 0)
    return container
