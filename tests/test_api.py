"""The public Python API, beyond the examples in its docstrings."""

from __future__ import annotations

import html

import numpy as np
import pytest
import tifffile
from flair_model import write_flair_model

import napari_lgg_seg as lgg
from napari_lgg_seg.core.data.discover import find_by_name
from napari_lgg_seg.core.data.label_reading import read_labels
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.errors import CorrectedError, ExistingMasksError, ImageError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return lgg.load_model(write_flair_model(tmp_path_factory.mktemp("models") / "bright FLAIR.safetensors"))


@pytest.fixture
def patient(tmp_path, make_patient):
    write_patient(tmp_path / "patient", make_patient())
    return lgg.read_patient(tmp_path / "patient")


def test_all_public_names_are_there():
    assert set(lgg.__all__) <= set(dir(lgg))
    for name in lgg.__all__:
        assert getattr(lgg, name).__doc__
    assert {"read_patient", "segment", "write_labels", "LggSegError", "train", "segment_cohort"} <= set(
        lgg.__all__
    )
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lgg.no_such_name


@pytest.mark.parametrize("file_format", ["masks", "tiff", "nifti"])
def test_read_segment_write_and_read_back(tmp_path, patient, model, file_format):
    result = lgg.segment(patient, model, lgg.SegmentOptions(device="cpu"))
    files = lgg.write_labels(tmp_path / "out", result, file_format)
    assert files
    (found,) = find_by_name("labels", tmp_path / "out").patients.values()
    np.testing.assert_array_equal(read_labels(found), result.labels)
    assert result.measurements.voxels == int(result.labels.sum()) > 0


def test_written_labels_are_protected(tmp_path, patient, model):
    result = lgg.segment(patient, model, lgg.SegmentOptions(device="cpu"))
    file = lgg.write_labels(tmp_path / "out", result)[0]
    with pytest.raises(ExistingMasksError):
        lgg.write_labels(tmp_path / "out", result)
    lgg.write_labels(tmp_path / "out", result, overwrite=True)
    file.write_bytes(file.read_bytes() + b"0")
    with pytest.raises(CorrectedError, match=file.name):
        lgg.write_labels(tmp_path / "out", result, overwrite=True)
    lgg.write_labels(tmp_path / "out", result, replace_corrected=True)


def test_a_cohort_finds_written_labels_finished(tmp_path, patient, model):
    options = lgg.SegmentOptions(device="cpu")
    lgg.write_labels(tmp_path / "out", lgg.segment(patient, model, options))
    events = list(lgg.segment_cohort(patient.folder, tmp_path / "out", model.path, options))
    assert isinstance(events[-1], lgg.PatientSkipped)


def test_progress_is_passed_on(patient, model):
    events = []
    lgg.segment(patient, model, lgg.SegmentOptions(device="cpu", batch_size=2), on_event=events.append)
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == events[-1].total == len(patient.slice_numbers)


def test_averaging_the_mirror_image_makes_the_answer_symmetric(patient, model):
    import dataclasses

    mirrored = dataclasses.replace(patient, volume=patient.volume[:, :, ::-1].copy(), truth=None)
    options = lgg.SegmentOptions(device="cpu", tta=True)
    straight = lgg.segment(patient, model, options).probability
    turned = lgg.segment(mirrored, model, options).probability[:, :, ::-1]
    assert np.abs(straight - turned).mean() < 0.01


def test_masks_alone_cannot_be_segmented(patient, model):
    import dataclasses

    with pytest.raises(ImageError, match="nothing to segment"):
        lgg.segment(dataclasses.replace(patient, volume=None), model)


def test_the_engine_is_chosen_and_the_headers_name_it(tmp_path, patient, model):
    result = lgg.segment(patient, model, lgg.SegmentOptions(device="cpu", engine="torch"))
    assert result.engine == "torch"
    (file,) = lgg.write_labels(tmp_path / "out", result, "tiff")
    assert '"engine": "torch"' in html.unescape(tifffile.TiffFile(file).ome_metadata)


@pytest.mark.usefixtures("openvino")
def test_openvino_by_itself_and_when_asked_for(tmp_path, patient, model):
    expected = lgg.segment(patient, model, lgg.SegmentOptions(device="cpu", engine="torch"))
    for engine in ("auto", "openvino"):
        result = lgg.segment(patient, model, lgg.SegmentOptions(device="cpu", engine=engine))
        assert result.engine == "openvino"
        assert result.made_with()["engine"] == "openvino"
        np.testing.assert_allclose(result.probability, expected.probability, atol=0.05)


def test_the_earlier_names_work_and_warn(tmp_path, patient, model):
    result = lgg.segment(patient, model, lgg.SegmentOptions(device="cpu"))
    with pytest.warns(DeprecationWarning, match="write_labels"):
        files = lgg.write_masks(tmp_path / "out", result)
    assert len(files) == len(patient.slice_numbers)
    with pytest.warns(DeprecationWarning, match="measurements"):
        assert result.figures == result.measurements


def test_the_events_of_a_cohort_and_the_error_are_public(tmp_path, patient):
    path = write_flair_model(tmp_path / "model.safetensors")
    options = lgg.SegmentOptions(device="cpu")
    events = list(lgg.segment_cohort(patient.folder, tmp_path / "out", path, options))
    assert isinstance(events[0], lgg.CohortFound)
    assert isinstance(events[-1], lgg.PatientSegmented)
    assert all(isinstance(event, lgg.PatientProgress) for event in events[1:-1])
    with pytest.raises(lgg.LggSegError, match=r"missing\.safetensors"):
        lgg.load_model(tmp_path / "missing.safetensors")


def test_every_event_of_a_training_is_public():
    from typing import get_args

    from napari_lgg_seg.core.cohort.run import CohortEvent
    from napari_lgg_seg.core.training.events import TrainEvent

    for event in {*get_args(TrainEvent), *get_args(CohortEvent)}:
        assert getattr(lgg, event.__name__) is event
