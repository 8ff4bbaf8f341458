"""Labels as dataset masks, TIFF and NIfTI: what other programs read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from label_writing import write_labels

from napari_lgg_seg.core.data.discover import find_by_name
from napari_lgg_seg.core.data.label_files import LabelMap
from napari_lgg_seg.core.data.label_reading import read_labels
from napari_lgg_seg.core.errors import ExportError, PatientError

ALL_FORMATS = ("masks", "tiff", "nifti")


@pytest.fixture
def labels() -> np.ndarray:
    volume = np.zeros((4, 6, 8), np.uint8)
    volume[1:3, 1:4, 2:7] = 1
    volume[2, 5, 0] = 1
    return volume


def read_only_labels(folder: Path) -> np.ndarray:
    """The labels of the one patient in a folder."""
    (found,) = find_by_name("labels", folder).patients.values()
    return read_labels(found)


@pytest.mark.parametrize("file_format", ALL_FORMATS)
def test_each_format_reads_back_equal(tmp_path: Path, labels: np.ndarray, file_format: str) -> None:
    files = write_labels(tmp_path, LabelMap("p", labels), file_format)
    assert all(file.is_file() for file in files)
    np.testing.assert_array_equal(read_only_labels(tmp_path), labels)


def test_files_have_the_documented_names(tmp_path: Path, labels: np.ndarray) -> None:
    assert write_labels(tmp_path, LabelMap("p", labels), "tiff") == [tmp_path / "p" / "p_tumour.tif"]
    assert write_labels(tmp_path, LabelMap("p", labels), "nifti") == [tmp_path / "p" / "p_tumour.nii.gz"]
    assert write_labels(tmp_path, LabelMap("p", labels, (3, 4, 5, 6)))[0] == tmp_path / "p" / "p_3_mask.tif"


def test_tiff_is_compressed_and_knows_axes_and_voxel_size(tmp_path: Path) -> None:
    labels = np.zeros((20, 64, 64), np.uint8)
    (path,) = write_labels(tmp_path, LabelMap("p", labels, spacing=(5.0, 0.9, 0.8)), "tiff")
    assert path.stat().st_size < labels.nbytes / 4
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].axes == "ZYX"
        assert tiff.series[0].shape == labels.shape
        text = tiff.ome_metadata
    for part in ('PhysicalSizeZ="5.0"', 'PhysicalSizeY="0.9"', 'PhysicalSizeX="0.8"', 'SizeXUnit="mm"'):
        assert part in text


def test_nifti_axes_are_reversed_and_in_radiological_orientation(tmp_path: Path, labels: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel")
    (path,) = write_labels(tmp_path, LabelMap("p", labels, spacing=(5.0, 0.9, 0.8)), "nifti")
    image = nibabel.load(path)
    assert image.shape == (8, 6, 4)
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels.T)
    np.testing.assert_allclose(image.affine, np.diag([-0.8, -0.9, 5.0, 1.0]), rtol=1e-6)
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_allclose(image.header.get_zooms(), (0.8, 0.9, 5.0), rtol=1e-6)


def test_nifti_keeps_the_patients_own_affine(tmp_path: Path, labels: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[0, 2.0, 0, 7], [1.0, 0, 0, -3], [0, 0, 3.0, 5], [0, 0, 0, 1]])
    (path,) = write_labels(tmp_path, LabelMap("p", labels, affine=affine), "nifti")
    np.testing.assert_allclose(nibabel.load(path).affine, affine)


@pytest.mark.parametrize("file_format", ["tiff", "nifti"])
def test_simpleitk_sees_the_same_voxels(tmp_path: Path, labels: np.ndarray, file_format: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    (path,) = write_labels(tmp_path, LabelMap("p", labels), file_format)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labels)


@pytest.mark.parametrize("file_format", ["tiff", "nifti"])
@pytest.mark.parametrize(("highest", "dtype"), [(3, np.uint8), (300, np.uint16), (70_000, np.uint32)])
def test_many_labels_are_kept_in_the_smallest_type(
    tmp_path: Path, labels: np.ndarray, file_format: str, highest: int, dtype: type
) -> None:
    many = labels.astype(np.int64)
    many[0, 0, 0] = highest
    (path,) = write_labels(tmp_path, LabelMap("p", many), file_format)
    if file_format == "tiff":
        written = tifffile.imread(path)
    else:
        written = np.asarray(pytest.importorskip("nibabel").load(path).dataobj).T
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, many)


def test_headers_say_how_labels_were_made(tmp_path: Path, labels: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel")
    made = LabelMap("p", labels, made_with={"model": "Default U-Net", "options": {"threshold": 0.4}})
    (tiff,) = write_labels(tmp_path, made, "tiff")
    (nifti,) = write_labels(tmp_path, made, "nifti")
    with tifffile.TiffFile(tiff) as file:
        assert "Default U-Net" in file.ome_metadata
    assert b"0.4" in nibabel.load(nifti).header.extensions[0].get_content()


@pytest.mark.parametrize("file_format", ["tiff", "nifti"])
@pytest.mark.parametrize("shape", [(6, 8), (2, 4, 6, 8)])
def test_2d_and_4d_labels_are_written_whole(tmp_path: Path, file_format: str, shape: tuple[int, ...]) -> None:
    labels = np.zeros(shape, np.uint8)
    labels[..., 1:3, 2:5] = 1
    (path,) = write_labels(tmp_path, LabelMap("p", labels), file_format)
    if file_format == "tiff":
        np.testing.assert_array_equal(tifffile.imread(path), labels)
    else:
        written = np.asarray(pytest.importorskip("nibabel").load(path).dataobj)
        np.testing.assert_array_equal(np.squeeze(written.T), labels)


@pytest.mark.parametrize("file_format", ALL_FORMATS)
@pytest.mark.parametrize(
    "labels", [np.zeros((2, 3, 4), np.float32), np.zeros(5, np.uint8)], ids=["float", "one axis"]
)
def test_labels_of_the_wrong_kind_are_refused(tmp_path: Path, labels: np.ndarray, file_format: str) -> None:
    with pytest.raises(ExportError, match="must"):
        write_labels(tmp_path, LabelMap("p", labels), file_format)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_missing_nibabel_is_named(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(ExportError, match=r"pip install 'napari-lgg-seg\[nifti\]'"):
        write_labels(tmp_path, LabelMap("p", labels), "nifti")


def test_error_names_a_broken_file(tmp_path: Path) -> None:
    broken = tmp_path / "p_tumour.tif"
    broken.write_bytes(b"not a TIFF")
    with pytest.raises(PatientError, match=r"p_tumour\.tif"):
        read_labels(broken)
