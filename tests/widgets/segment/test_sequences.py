"""Models that use some of the sequences only: what is shown, and what they see."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from flair_model import write_flair_model
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget
from window import visible_text

from napari_lgg_seg.core.data.patients import SEQUENCES
from napari_lgg_seg.core.evaluation.metrics import dice
from napari_lgg_seg.widgets.segment.controls import Controls

NAME = "TCGA_DU_0001_19990101"

pytestmark = pytest.mark.filterwarnings("error:Private attribute access:FutureWarning")


@pytest.fixture
def flair_only(tmp_path):
    """A model that finds the same as the small model, from FLAIR only."""
    return write_flair_model(tmp_path / "FLAIR alone.safetensors", sequences=("FLAIR",))


def shown_sequences(widget):
    """Sequences whose controls and labels are visible once their section is expanded."""
    combos = [s for s, c in widget.controls.sequences.items() if c.native.isVisibleTo(widget.native)]
    labels = [label for label in widget.native.findChildren(QLabel) if label.isVisibleTo(widget.native)]
    assert {label.text() for label in labels} & {*SEQUENCES} == {*combos}
    return combos


def test_model_for_flair_only_shows_flair_only(viewer, open_patient, dock, small_model, flair_only):
    open_patient()
    widget = dock()
    assert shown_sequences(widget) == [*SEQUENCES]
    assert "6 slices, pre-contrast, FLAIR, post-contrast." in visible_text(widget)
    widget.offer_model(flair_only)
    assert shown_sequences(widget) == ["FLAIR"]
    assert "6 slices, FLAIR." in visible_text(widget)
    viewer.layers.remove("post-contrast")
    assert "6 slices, FLAIR." in visible_text(widget)
    widget.model.value = small_model
    assert shown_sequences(widget) == [*SEQUENCES]
    assert "post-contrast missing: FLAIR is used instead" in visible_text(widget)


def test_model_for_two_sequences_shows_both(viewer, open_patient, dock, tmp_path):
    open_patient()
    widget = dock()
    sequences = ("FLAIR", "post-contrast")
    widget.offer_model(write_flair_model(tmp_path / "two.safetensors", sequences=sequences))
    assert shown_sequences(widget) == ["FLAIR", "post-contrast"]
    viewer.layers.remove("pre-contrast")
    assert "6 slices, FLAIR, post-contrast." in visible_text(widget)
    viewer.layers.remove("post-contrast")
    assert "6 slices; post-contrast missing" in visible_text(widget)


def test_model_for_flair_only_uses_flair_only(viewer, open_patient, dock, run, flair_only):
    open_patient()
    widget = dock()
    widget.offer_model(flair_only)
    run(widget)
    expected = viewer.layers[f"{NAME} tumour"].data.copy()
    assert dice(expected, viewer.layers["ground truth"].data) > 0.85
    viewer.layers["pre-contrast"].data = 255 - viewer.layers["FLAIR"].data
    viewer.layers.remove("post-contrast")
    run(widget)
    np.testing.assert_array_equal(viewer.layers[f"{NAME} tumour"].data, expected)


def test_second_channel_of_a_colour_image_is_used_as_flair(viewer, make_head, dock, run, flair_only):
    volume, truth = make_head()
    viewer.add_image(volume, name="colour", rgb=True)
    widget = dock()
    assert "three colour channels are used as pre-contrast, FLAIR, post-contrast" in visible_text(widget)
    widget.offer_model(flair_only)
    assert "6 slices; the second colour channel is used as FLAIR." in visible_text(widget)
    run(widget)
    assert dice(viewer.layers["colour tumour"].data, truth) > 0.85


def test_grey_image_is_used_as_flair(viewer, make_head, dock, run, flair_only):
    volume, truth = make_head()
    viewer.add_image(volume[..., 1], name="gray")
    widget = dock()
    assert "missing" in visible_text(widget)
    widget.offer_model(flair_only)
    assert "missing" not in visible_text(widget)
    run(widget)
    assert dice(viewer.layers["gray tumour"].data, truth) > 0.85


def test_patient_with_grey_slices(viewer, patient_on_disk, dock, run, flair_only):
    folder = patient_on_disk()
    for path in folder.glob("*_?.tif"):
        tifffile.imwrite(path, tifffile.imread(path)[..., 1])
    viewer.open(str(folder), plugin="napari-lgg-seg")
    widget = dock()
    assert "pre-contrast and post-contrast missing: FLAIR is used instead" in visible_text(widget)
    widget.offer_model(flair_only)
    assert "6 slices, FLAIR." in visible_text(widget)
    run(widget)
    assert dice(viewer.layers[f"{NAME} tumour"].data, viewer.layers["ground truth"].data) > 0.85


def test_sequences_follow_a_model_file_that_was_rewritten(viewer, open_patient, dock, flair_only):
    open_patient()
    widget = dock()
    widget.offer_model(flair_only)
    write_flair_model(flair_only)
    widget.offer_model(flair_only)
    assert shown_sequences(widget) == [*SEQUENCES]


def test_expanded_section_grows_when_sequences_are_shown_again(qtbot):
    choices = [lambda _: [("one", 1)]] * 3
    controls = Controls(*choices, layers=lambda _: [("Use FLAIR instead", None)])
    section = controls.folded()[0]
    column = QWidget()
    qtbot.addWidget(column)
    QVBoxLayout(column).addWidget(section)
    column.layout().addStretch()
    column.resize(300, 400)
    column.show()
    section.expand(animate=False)
    content = section.content()
    full = content.sizeHint().height()
    qtbot.waitUntil(lambda: content.height() == full)
    controls.show_sequences(("FLAIR",))
    qtbot.waitUntil(lambda: content.height() < full)
    controls.show_sequences(SEQUENCES)
    qtbot.waitUntil(lambda: content.height() == full)
