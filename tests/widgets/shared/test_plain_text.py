"""Names that look like HTML are shown as they are."""

from __future__ import annotations

import pytest
from magicgui.widgets import Label
from qtpy.QtCore import Qt

from napari_lgg_seg.core.evaluation.compare_folders import PairCompared
from napari_lgg_seg.core.evaluation.label_pairs import LabelPair
from napari_lgg_seg.widgets.compare.columns import COLUMNS, ComparedRow
from napari_lgg_seg.widgets.shared.forms import wrap
from napari_lgg_seg.widgets.shared.plain_text import literal, show_error, show_info, show_warning
from napari_lgg_seg.widgets.shared.table_model import CohortModel

NAMES = ["<b>bold</b>", "a <img src=x>", "&lt;", "a &lt; <i>b", "<a href='http://x'>y</a>"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_not_taken_for_html(qapp, name):
    assert Qt.mightBeRichText(name)
    shown = literal(name)
    assert not Qt.mightBeRichText(shown)
    assert shown.replace("\u2060", "") == name


def test_other_text_is_unchanged():
    for text in ("x < y", "p [rescan]", "one\ntwo", "Zoë & 中"):
        assert literal(text) == text
    assert literal("esc\x1b[31m") == "esc\\x1b[31m"


@pytest.mark.parametrize("show", [show_info, show_warning, show_error])
def test_notifications_are_plain(viewer, notices, show):
    show("<b>bold</b> \x1b[31m")
    (text,) = notices
    assert not Qt.mightBeRichText(text)
    assert "\x1b" not in text


def test_labels_are_plain(qtbot):
    label = Label(value="<b>bold</b>")
    qtbot.addWidget(label.native)
    wrap(label, lines=1)
    assert label.native.textFormat() == Qt.TextFormat.PlainText


def test_tooltips_of_tables_are_plain(qapp, tmp_path):
    model = CohortModel(COLUMNS)
    pair = LabelPair("<b>x", tmp_path / "<b>x", None, None)
    model.show_rows([ComparedRow(PairCompared(pair, None, "<b>x cannot be read."))])
    tooltip = model.data(model.index(0, 0), Qt.ItemDataRole.ToolTipRole)
    assert "cannot be read" in tooltip
    assert not Qt.mightBeRichText(tooltip)
    assert model.data(model.index(0, 0)) == "<b>x"
