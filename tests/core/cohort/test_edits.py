"""Saving a user's edits of an open patient to the results."""

from __future__ import annotations

import numpy as np
import tifffile

from napari_lgg_seg.core.cohort.edits import Edits, save_edits
from napari_lgg_seg.core.cohort.index import INDEX_NAME
from napari_lgg_seg.core.data.discover import find_by_name
from napari_lgg_seg.core.data.label_files import LabelMap

NAME = "TCGA_DU_0001_19990101"


def label_map(labels):
    return LabelMap(NAME, labels, tuple(range(1, len(labels) + 1)))


def test_edits_by_hand_are_saved_as_corrected(results, labels):
    saved = save_edits(NAME, Edits(label_map(labels), by_hand=True), results)
    assert saved.status.state == "corrected"
    assert saved.sentence == ""
    np.testing.assert_array_equal(results.read_labels(NAME), labels)


def test_a_new_prediction_does_not_replace_corrected_labels(results, labels, probability):
    edits = Edits(label_map(labels), by_hand=False, probability=probability)
    assert save_edits(NAME, edits, results).status.state == "segmented"
    results.write_corrected(NAME, label_map(1 - labels))
    saved = save_edits(NAME, edits, results)
    assert saved.status.state == "corrected"
    assert "not saved" in saved.sentence
    np.testing.assert_array_equal(results.read_labels(NAME), 1 - labels)


def test_further_labels_get_separate_files(results, labels):
    edits = Edits(None, more=(("truth", label_map(labels)), ("a/b_1", label_map(labels))))
    sentences = [save_edits(NAME, edits, results).sentence for _ in range(2)]
    files = sorted((results.folder / NAME).iterdir())
    assert len(files) == 4
    assert all(sum(str(file) in sentence for sentence in sentences) == 1 for file in files)
    for file in files:
        np.testing.assert_array_equal(tifffile.imread(file), labels)
    assert results.status(NAME).state == "new"
    # They are taken neither for slices, which would block labels, nor for the patient's result.
    save_edits(NAME, Edits(label_map(labels), by_hand=True), results)
    assert find_by_name("labels", results.folder).patients == {NAME: results.labels_file(NAME)}
    assert {file.name for file in results.folder.iterdir()} == {NAME, INDEX_NAME}


def test_outdated_edits_are_not_written(results, labels):
    edits = Edits(label_map(labels), by_hand=True)
    edits.is_old.set()
    saved = save_edits(NAME, edits, results)
    assert saved.status.state == "new"
    assert results.read_labels(NAME) is None
