"""Whole patients written in the dataset's layout, never over another."""

from __future__ import annotations

import numpy as np
import pytest
from label_writing import write_masks

from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import ExportError

LABELS = np.random.default_rng(0).integers(0, 2, (4, 9, 7)).astype(np.uint8)


def content(folder):
    """Every file below a folder, hidden ones too, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("images", "masks"), [(True, True), (True, False), (False, True), (True, (6,))])
def test_a_patient_is_written_and_read_back(tmp_path, write_slices, images, masks):
    write_slices(tmp_path / "first", "TCGA_HT_1_2", range(5, 8), images=images, masks=masks)
    first = read_patient(tmp_path / "first")
    paths = write_patient(tmp_path / "second", first)
    second = read_patient(tmp_path / "second")
    assert entries(tmp_path / "second") == entries(tmp_path / "first") == sorted(p.name for p in paths)
    for attribute in ("name", "slice_numbers", "filled_sequences", "slices_without_mask"):
        assert getattr(second, attribute) == getattr(first, attribute)
    np.testing.assert_array_equal(second.volume, first.volume)
    np.testing.assert_array_equal(second.truth, first.truth)


def test_a_patient_in_memory_is_written_and_read_back(tmp_path, make_patient):
    patient = make_patient(shape=(3, 20, 24))
    write_patient(tmp_path, patient)
    again = read_patient(tmp_path)
    np.testing.assert_array_equal(again.volume, patient.volume)
    np.testing.assert_array_equal(again.truth, patient.truth)


def test_patient_is_not_written_over_another(tmp_path, make_patient):
    write_masks(tmp_path, "p", LABELS)
    before = content(tmp_path)
    with pytest.raises(ExportError, match="holds slices already"):
        write_patient(tmp_path, make_patient())
    assert content(tmp_path) == before
