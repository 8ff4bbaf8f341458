"""Labels from files of any origin: with their place in space, or refused in one sentence."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.data.label_files import LabelMap, write_nifti, write_tiff
from napari_lgg_seg.core.data.label_reading import read_labels, read_stored_labels
from napari_lgg_seg.core.errors import LggSegError, LggSegWarning, PatientError

nibabel = pytest.importorskip("nibabel")

LABELS = np.zeros((5, 7, 9), np.uint8)  # z, y, x
LABELS[1, 1:4, 5:8] = 1
LABELS[2, 2, 0] = 1
SPACING = (5.0, 0.9, 0.8)


def save(path: Path, values: np.ndarray, affine: np.ndarray | None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


@pytest.fixture
def ours(tmp_path):
    path = tmp_path / "p_tumour.nii.gz"
    write_nifti(path, LabelMap("p", LABELS, (3, 4, 5, 6, 7), SPACING, made_with={"model": "m"}))
    return path


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SPR", "AIL", "PSL"])
@pytest.mark.parametrize("spacing", [SPACING, None])
def test_other_orders_of_the_axes_are_put_back(tmp_path, axes, spacing):
    path = tmp_path / "p_tumour.nii.gz"
    write_nifti(path, LabelMap("p", LABELS, (3, 4, 5, 6, 7), spacing))
    before = read_stored_labels(path)
    image = nibabel.load(path)
    orientations = nibabel.orientations
    turn = orientations.ornt_transform(
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(axes)
    )
    nibabel.save(image.as_reoriented(turn), path)
    after = read_stored_labels(path)
    np.testing.assert_array_equal(after.labels, LABELS)
    assert after.slice_numbers == before.slice_numbers == (3, 4, 5, 6, 7)
    if spacing is None:
        assert after.affine is before.affine is None
    else:
        np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)


def test_without_a_known_place_the_order_of_voxels_is_kept(tmp_path):
    assert read_stored_labels(save(tmp_path / "eye.nii", LABELS.T, np.eye(4))).affine is None
    np.testing.assert_array_equal(read_labels(tmp_path / "eye.nii"), LABELS)
    image = nibabel.Nifti1Image(LABELS.T, None)
    image.header["pixdim"][1:4] = 2
    nibabel.save(image, tmp_path / "none.nii.gz")
    assert read_stored_labels(tmp_path / "none.nii.gz").affine is None
    np.testing.assert_array_equal(read_labels(tmp_path / "none.nii.gz"), LABELS)


def test_a_fourth_axis_of_one_and_single_slices_are_accepted(tmp_path):
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    np.testing.assert_array_equal(
        read_labels(save(tmp_path / "4.nii.gz", LABELS.T[..., None], affine)), LABELS
    )
    np.testing.assert_array_equal(read_labels(save(tmp_path / "2.nii.gz", LABELS[1].T, affine)), LABELS[1:2])
    with pytest.raises(PatientError, match="4 dimensions"):
        read_labels(save(tmp_path / "t.nii", np.stack([LABELS.T] * 2, axis=-1), affine))


def test_nifti_2_and_big_endian_files(tmp_path):
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti2Image(LABELS.T, affine), tmp_path / "2.nii")
    np.testing.assert_array_equal(read_labels(tmp_path / "2.nii"), LABELS)
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(LABELS.T.astype(">i2"), affine, header), tmp_path / "big.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "big.nii.gz"), LABELS)


def test_resampled_labels_are_cut_with_a_notice(tmp_path):
    soft = LABELS.T.astype(np.float32)
    soft[5, 1, 0] = 0.3
    soft[6, 2, 1] = 0.8
    with pytest.warns(LggSegWarning, match=r"soft\.nii holds shades of gray"):
        np.testing.assert_array_equal(read_labels(save(tmp_path / "soft.nii", soft, np.eye(4))), LABELS)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".tif"])
@pytest.mark.parametrize(
    "content", [b"", b"a text\n", b"\x1f\x8b", b"II*\x00", b"\x00" * 600, json.dumps({"a": 1}).encode()]
)
def test_other_contents_are_refused_in_a_sentence(tmp_path, suffix, content):
    path = tmp_path / f"p_tumour{suffix}"
    path.write_bytes(content)
    with pytest.raises(PatientError, match=f"{path.name} cannot be read as labels"):
        read_labels(path)


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_values_that_are_no_labels_are_refused(tmp_path, dtype):
    values = np.zeros((3, 4, 5), dtype)
    with pytest.raises(PatientError, match=r"p\.nii"):
        read_labels(save(tmp_path / "p.nii", values, np.eye(4)))


def test_a_damaged_compressed_file_is_noticed_by_its_checksum(ours):
    content = bytearray(gzip.decompress(ours.read_bytes()))
    good = gzip.compress(bytes(content), mtime=0)
    content[-LABELS.size // 2] ^= 1
    bad = gzip.compress(bytes(content), mtime=0)
    ours.write_bytes(bad[:-8] + good[-8:])  # the data of one, the checksum of the other
    with pytest.raises(PatientError, match="CRC"):
        read_labels(ours)


def refusal_of(path: Path) -> str | None:
    """How a file is refused; None if labels can be read from it. Other errors than our own are raised."""
    try:
        labels = read_labels(path)
    except LggSegError as error:
        return str(error)
    return None if labels.ndim == 3 and labels.max() <= 1 else "not labels"


@pytest.mark.parametrize("file_format", ["tiff", "nifti", "nifti uncompressed"])
def test_damage_of_any_kind_ends_in_our_own_errors(tmp_path, file_format):
    path = tmp_path / {"tiff": "p.tif", "nifti": "p.nii.gz"}.get(file_format, "p.nii")
    write = write_tiff if file_format == "tiff" else write_nifti
    write(path, LabelMap("p", LABELS, (1, 2, 3, 4, 5), SPACING))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for step in range(150):
        damaged = bytearray(content)
        if step % 3 == 0:
            damaged = damaged[: rng.integers(len(damaged))]
        else:
            first = rng.integers(min(len(damaged), 400) if step % 3 == 1 else len(damaged))
            damaged[first : first + 4] = rng.integers(0, 256, 4, np.uint8).tobytes()
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refused += refusal_of(path) is not None
    assert refused > 40


@pytest.mark.parametrize(
    "text", ['{"slice_numbers": [1, 1, 2, 3, 4]}', '{"slice_numbers": "12345"}', "[" * 3000]
)
def test_descriptions_of_other_programs_are_ignored(tmp_path, text):
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, LABELS, ome=True, metadata={"axes": "ZYX", "Description": text})
    assert read_stored_labels(path).slice_numbers == ()
    image = nibabel.Nifti1Image(LABELS.T, np.diag([-1, -1, 1, 1]))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", text.encode()))
    nibabel.save(image, tmp_path / "p.nii.gz")
    assert read_stored_labels(tmp_path / "p.nii.gz").slice_numbers == ()


def test_pages_of_different_size_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "p.tif") as tiff:
        tiff.write(LABELS[0], photometric="minisblack")
        tiff.write(LABELS[1][:5], photometric="minisblack")
    with pytest.raises(PatientError, match="differ in size"):
        read_labels(tmp_path / "p.tif")


@pytest.mark.parametrize("change", ["fewer pages", "more pages"])
def test_another_number_of_pages_than_the_header_says_is_refused(tmp_path, change):
    path = tmp_path / "p.tif"
    write_tiff(path, LabelMap("p", LABELS))
    with tifffile.TiffFile(path) as tiff:
        header, offsets = tiff.ome_metadata, [page.offset for page in tiff.pages]
        entries = int(tiff.pages[2].tags.__len__())
    content = bytearray(path.read_bytes())
    if change == "fewer pages":
        end = offsets[2] + 2 + 12 * entries
        content[end : end + 4] = bytes(4)
    else:
        assert b'SizeZ="5"' in content
        content = content.replace(b'SizeZ="5"', b'SizeZ="3"')
    path.write_bytes(content)
    assert "SizeZ" in header
    with pytest.raises(PatientError, match=r"cannot be read as labels"):
        read_labels(path)


def test_colours_are_no_labels(tmp_path):
    tifffile.imwrite(tmp_path / "p.tif", np.zeros((3, 40, 44), np.uint8), photometric="rgb")
    with pytest.raises(PatientError, match=r"p\.tif has colours"):
        read_labels(tmp_path / "p.tif")


@pytest.mark.parametrize("axis", [(), (None,)])
def test_a_single_slice_is_reoriented(tmp_path, axis):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = 5, 6, 7
    stored = LABELS[1].T[::-1, ::-1]
    path = save(tmp_path / "p.nii", stored[..., None] if axis else stored, affine)
    np.testing.assert_array_equal(read_labels(path), LABELS[1:2])


def test_pages_that_are_turned_differently_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "p.tif") as tiff:
        for tag in (1, 2):
            turned = [(274, "H", 1, tag, False)]
            tiff.write(LABELS[1], photometric="minisblack", contiguous=False, extratags=turned)
    with pytest.raises(PatientError, match="differ"):
        read_labels(tmp_path / "p.tif")
