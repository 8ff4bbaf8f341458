"""The writers: labels layers as dataset masks, TIFF and NIfTI."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.errors import ExistingMasksError, ExportError
from napari_lgg_seg.layers import describe
from napari_lgg_seg.reader import get_reader
from napari_lgg_seg.writers import write_dataset_masks

NAME = "TCGA_DU_0001_19990101"


@pytest.fixture
def labels() -> np.ndarray:
    """Three slices with two labels, the middle one empty."""
    values = np.zeros((3, 8, 6), np.uint8)
    values[0, 2:5, 1:3] = 1
    values[2, 4:7, 2:6] = 2
    return values


@pytest.fixture(autouse=True)
def _plugin(npe2pm) -> Iterator[None]:
    """Only our plugin is there to save layers."""
    with npe2pm.tmp_plugin(package="napari-lgg-seg"):
        yield


@pytest.fixture
def make_layer(labels) -> Callable[..., Any]:
    """Factory: a labels layer, by default the result for slices 5 to 7 of a patient."""
    from napari.layers import Labels

    def make(data: np.ndarray = labels, **properties: Any) -> Any:
        properties.setdefault("metadata", describe(NAME, "tumour", [5, 6, 7]))
        return Labels(data, **properties)

    return make


def meta_of(numbers: list[int], patient: str = NAME) -> dict[str, Any]:
    return {"metadata": describe(patient, "tumour", numbers)}


def save(layer: Any, folder: Path) -> list[str]:
    """Save like File > Save does with our name filter."""
    return layer.save(str(folder), plugin="napari-lgg-seg")


def test_layer_is_saved_as_a_folder_of_masks(tmp_path, make_layer, labels):
    written = save(make_layer(), tmp_path / "masks")
    assert [Path(file) for file in written] == [
        tmp_path / "masks" / f"{NAME}_{n}_mask.tif" for n in (5, 6, 7)
    ]
    visible = sorted(path for path in tmp_path.rglob("*") if not path.name.startswith("."))
    assert visible == [tmp_path / "masks", *(Path(file) for file in written)]
    for file, page in zip(written, labels, strict=True):
        pixels = tifffile.imread(file)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, np.where(page, 255, 0))


def test_other_programs_open_the_masks(tmp_path, make_layer, labels):
    image = pytest.importorskip("PIL.Image")
    (first, *_) = save(make_layer(), tmp_path / "masks")
    with image.open(first) as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), np.where(labels[0], 255, 0))


def test_saved_masks_open_again_as_they_were(tmp_path, make_layer, labels):
    save(make_layer(), tmp_path / "masks")
    ((data, properties, kind),) = get_reader(str(tmp_path / "masks"))(str(tmp_path / "masks"))
    assert kind == "labels"
    np.testing.assert_array_equal(data, labels != 0)
    assert properties["metadata"]["lgg"]["patient"] == NAME
    assert properties["metadata"]["lgg"]["slice_numbers"] == [5, 6, 7]


def test_layer_list_saves_selected_labels(tmp_path, make_layer):
    from napari.components import LayerList

    layers = LayerList([make_layer()])
    layers.selection.add(layers[0])
    assert len(layers.save(str(tmp_path / "masks"), selected=True, plugin="napari-lgg-seg")) == 3


def test_masks_of_a_foreign_layer_are_named_after_the_folder(tmp_path, make_layer):
    written = save(make_layer(metadata={}), tmp_path / "Painted by hand")
    assert [Path(file).name for file in written] == [f"Painted by hand_{n}_mask.tif" for n in (1, 2, 3)]


def test_slices_are_renumbered_if_some_were_added_or_removed(tmp_path, make_layer, labels, monkeypatch):
    said = []
    monkeypatch.setattr("napari_lgg_seg.widgets.shared.plain_text.show_info", said.append)
    written = save(make_layer(labels[:2]), tmp_path / "masks")
    assert [Path(file).name for file in written] == [f"{NAME}_{n}_mask.tif" for n in (1, 2)]
    assert "numbered from 1 to 2" in said[0]


def test_a_2d_layer_is_one_slice(tmp_path, make_layer, labels):
    (file,) = save(make_layer(labels[0], metadata={}), tmp_path / "plane")
    assert Path(file).name == "plane_1_mask.tif"
    np.testing.assert_array_equal(tifffile.imread(file), np.where(labels[0], 255, 0))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, bool])
def test_labels_of_any_whole_numbers_become_bytes(tmp_path, labels, dtype):
    files = write_dataset_masks(str(tmp_path / "masks"), labels.astype(dtype), meta_of([1, 2, 3]))
    assert {tifffile.imread(file).dtype for file in files} == {np.dtype(np.uint8)}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (np.zeros((3, 8, 6), np.float32), "float32"),
        (np.zeros((2, 3, 8, 6), np.uint8), "4 dimensions"),
        (np.zeros((0, 8, 6), np.uint8), "dimensions"),
    ],
    ids=["float", "4 dimensions", "empty"],
)
def test_labels_that_cannot_be_masks_are_refused(tmp_path, data, word):
    with pytest.raises(ExportError, match=word):
        write_dataset_masks(str(tmp_path / "masks"), data, {})
    assert not (tmp_path / "masks").exists()


def test_saving_a_layer_among_the_datasets_masks_is_refused(tmp_path, write_slices, make_layer):
    write_slices(tmp_path, NAME)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ExportError, match="truth") as error:
        save(make_layer(), tmp_path)
    assert not isinstance(error.value, ExistingMasksError), "the user must not be offered to overwrite"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_older_masks_are_kept(tmp_path, make_layer, labels):
    folder = tmp_path / "masks"
    save(make_layer(np.zeros_like(labels)), folder)
    with pytest.raises(ExistingMasksError, match=re.escape(str(folder))):
        save(make_layer(), folder)
    assert len(list(folder.glob("*.tif"))) == 3
    assert not any(tifffile.imread(file).any() for file in folder.glob("*.tif"))


def test_a_failure_half_way_leaves_nothing(tmp_path, labels, monkeypatch):
    write, calls = tifffile.imwrite, []

    def full_at_the_third(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    monkeypatch.setattr(tifffile, "imwrite", full_at_the_third)
    with pytest.raises(ExportError, match="No space left"):
        write_dataset_masks(str(tmp_path / "masks"), labels, meta_of([1, 2, 3]))
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="permissions work otherwise there")
def test_masks_get_the_default_file_permissions(tmp_path, make_layer):
    plain = tmp_path / "plain"
    plain.touch()
    for file in save(make_layer(), tmp_path / "masks"):
        assert stat.S_IMODE(Path(file).stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


# --- TIFF and NIfTI ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".tif", ".tiff", ".nii.gz", ".nii"])
def test_the_extension_selects_the_format_and_labels_are_kept(tmp_path, make_layer, labels, ending):
    layer = make_layer(scale=(5, 0.9, 0.8), units=("mm",) * 3, axis_labels=("z", "y", "x"))
    (written,) = layer.save(str(tmp_path / f"mine{ending}"), plugin="napari-lgg-seg")
    assert written == str(tmp_path / f"mine{ending}")
    if ending.startswith(".tif"):
        np.testing.assert_array_equal(tifffile.imread(written), labels)
        with tifffile.TiffFile(written) as tiff:
            assert 'PhysicalSizeZ="5.0" PhysicalSizeZUnit="mm"' in tiff.ome_metadata
        return
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(written)
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels.T)
    np.testing.assert_allclose(image.affine, np.diag([-0.8, -0.9, 5, 1]), rtol=1e-6)


def test_nifti_takes_the_patients_affine_from_the_metadata(tmp_path, make_layer):
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    layer = make_layer(metadata=describe(NAME, "tumour", [5, 6, 7], affine=affine))
    (written,) = layer.save(str(tmp_path / "mine.nii.gz"), plugin="napari-lgg-seg")
    np.testing.assert_allclose(nibabel.load(written).affine, affine)


def test_units_other_than_lengths_give_no_spacing(tmp_path, make_layer):
    (written,) = make_layer(scale=(5, 1, 1)).save(str(tmp_path / "mine.tif"), plugin="napari-lgg-seg")
    with tifffile.TiffFile(written) as tiff:
        assert 'PhysicalSizeZUnit="pixel"' in tiff.ome_metadata


def test_merged_labels_are_reported(tmp_path, make_layer, monkeypatch):
    heard = []
    monkeypatch.setattr("napari.utils.notifications.show_info", heard.append)
    save(make_layer(), tmp_path / "many")
    assert len(heard) == 1
    assert "all labels were written as tumour" in heard[0]
    save(make_layer(np.ones((3, 4, 4), np.uint8)), tmp_path / "one")
    assert len(heard) == 1


def test_the_three_writers_have_different_names(npe2pm):
    writers = npe2pm.get_manifest("napari-lgg-seg").contributions.writers
    names = [writer.display_name for writer in writers]
    assert len(names) == len(set(names)) == 3
    assert all(names)


# --- place in space ----------------------------------------------------------------------------

TURNED = np.array([[1, 0, 0, 60], [0, 0.8, -0.6, 5], [0, 0.6, 0.8, -7], [0, 0, 0, 1]], float)
PLACES = {
    "scale": {},
    "translate": {"translate": (3, 4, 5)},
    "rotate": {"translate": (3, 4, 5), "rotate": 30},
    "shear": {"shear": (0.1, 0.2, 0)},
    "affine": {"translate": (3, 4, 5), "affine": TURNED},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("unit", "size"), [("mm", 1), ("um", 0.001), ("pixel", 1)])
def test_nifti_keeps_the_place_of_each_voxel(make_layer, tmp_path, place, unit, size):
    nibabel = pytest.importorskip("nibabel")
    layer = make_layer(scale=(5, 0.9, 0.8), units=(unit,) * 3, **PLACES[place])
    save(layer, tmp_path / "labels.nii.gz")
    image = nibabel.load(tmp_path / "labels.nii.gz")
    for z, y, x in ((0, 0, 0), (2, 7, 5), (1, 3, 2)):
        world = np.array(layer.data_to_world((z, y, x))) * size
        expected = [-world[2], -world[1], world[0]]
        np.testing.assert_allclose((image.affine @ [x, y, z, 1])[:3], expected, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == ("unknown" if unit == "pixel" else "mm")


def test_nifti_prefers_the_patients_own_affine(make_layer, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    metadata = describe(NAME, "tumour", [5, 6, 7], affine=TURNED)
    layer = make_layer(scale=(5, 0.9, 0.8), units=("mm",) * 3, translate=(3, 4, 5), metadata=metadata)
    save(layer, tmp_path / "labels.nii.gz")
    np.testing.assert_allclose(nibabel.load(tmp_path / "labels.nii.gz").affine, TURNED, atol=1e-5)


@pytest.mark.parametrize("name", ["labels.tif", "labels.nii.gz", "labels.masks"])
def test_multiscale_labels_are_saved_at_full_resolution(make_layer, labels, tmp_path, name):
    from napari_lgg_seg.core.data.label_reading import read_labels

    if name.endswith("gz"):
        pytest.importorskip("nibabel")
    save(make_layer([labels, labels[:, ::2, ::2]], multiscale=True), tmp_path / name)
    path = tmp_path / name.removesuffix(".masks")
    if path.is_dir():
        assert tifffile.imread(sorted(path.glob("*_mask.tif"))[0]).shape == labels.shape[1:]
    else:
        np.testing.assert_array_equal(read_labels(path), labels != 0)
