"""The cohort browser's controls and their layout."""

from __future__ import annotations

from collections.abc import Callable

from magicgui.widgets import CheckBox, ComboBox, Container, Label, LineEdit, ProgressBar, PushButton
from qtpy.QtWidgets import QSizePolicy

from ...core.options import SegmentOptions, option_help
from ..shared.forms import form, path_edit, rows, side_by_side, wrap
from ..shared.model_chooser import ModelChooser
from ..shared.table_view import CohortTable
from .columns import ALL_STATES, SHOWN_STATES

#: Shortcuts for the whole window in Qt's notation; napari.yaml declares them in napari's.
NEXT_KEYS, PREVIOUS_KEYS = "Ctrl+PgDown", "Ctrl+PgUp"


class CohortControls:
    """All controls of the browser.

    Parameters
    ----------
    table : CohortTable
        The patients.
    set_status : callable
        Called with a message about a chosen file that is not a model.
    """

    def __init__(self, table: CohortTable, set_status: Callable[[str], None]) -> None:
        self.table = table
        self._make_folders_and_filters()
        self._make_review()
        self._make_runs(set_status)

    def _make_folders_and_filters(self) -> None:
        self.dataset = path_edit("d", "Patients", "The folder that holds the patients' folders.")
        self.results = path_edit(
            "d",
            "Results",
            "Where the labels, probabilities and states of the patients are saved; never among the images.",
        )
        self.text = LineEdit(
            tooltip="Show patients whose names contain these words, for instance an institution."
        )
        self.text.native.setPlaceholderText("Filter by name")
        self.text.native.setClearButtonEnabled(True)
        self.state = ComboBox(choices=(ALL_STATES, *SHOWN_STATES), tooltip="Show patients in one state only.")
        self.uncertain_first = PushButton(
            text="Most uncertain first",
            tooltip="Sort by uncertainty: first patients in whom no tumour was found, then by 1 - expected "
            "Dice.",
        )
        self.found = Label(value="")

    def _make_review(self) -> None:
        self.previous = PushButton(
            text="< Previous", tooltip=f"Open the previous patient in the table ({PREVIOUS_KEYS})."
        )
        self.following = PushButton(
            text="Next >", tooltip=f"Open the next patient in the table ({NEXT_KEYS})."
        )
        self.accept = PushButton(
            text="Accept",
            tooltip="Save the open patient's labels as corrected: no prediction replaces them without "
            "asking.",
        )
        self.status = Label(value="")

    def _make_runs(self, set_status: Callable[[str], None]) -> None:
        self.model = ModelChooser(set_status)
        # On by default because it improves the uncertainty, by which patients are sorted.
        self.tta = CheckBox(
            text="Test-time augmentation (mirror)", value=SegmentOptions().tta, tooltip=option_help("tta")
        )
        self.segment_selected = PushButton(
            text="Segment selected",
            tooltip="Segment the selected patients in the background. Asks before corrected labels are "
            "replaced.",
        )
        self.segment_all = PushButton(
            text="Segment all",
            tooltip="Segment all patients in the background, except those with corrected labels and those "
            "already segmented with this model.",
        )
        self.cancel = PushButton(
            text="Cancel", visible=False, tooltip="Stop; results of finished patients are kept."
        )
        self.progress = ProgressBar(min=0, max=1, value=0, visible=False)
        self.export = PushButton(
            text="Export masks...",
            tooltip="Write the saved labels of the selected patients as <patient>_<n>_mask.tif.",
        )
        self.run_status = Label(value="")

    def show_running(self, *, running: bool) -> None:
        """Show the controls to cancel a run, or those to start one."""
        for control in (self.segment_selected, self.segment_all, self.export):
            control.visible = not running
        for control in (self.dataset, self.results, self.model.combo, self.tta):
            control.enabled = not running
        self.cancel.text, self.cancel.enabled = "Cancel", True
        self.cancel.visible = self.progress.visible = running

    def column(self) -> Container:
        """All controls, top to bottom in the order of the work; the table takes the free height."""
        column = Container(
            widgets=[
                side_by_side(self.text, self.state, self.uncertain_first),
                self.found,
                side_by_side(self.previous, self.following, self.accept),
                self.status,
                rows(self.model.combo),
                self.tta,
                side_by_side(self.segment_selected, self.segment_all, self.export),
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
        expanding = QSizePolicy.Policy.Expanding  # otherwise napari leaves the space below it empty
        column.native.setSizePolicy(expanding, expanding)
        column.margins = (0, 0, 0, 0)
        return column
