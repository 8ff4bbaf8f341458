"""The reader: which paths are ours, and the layers of patients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_lgg_seg.core.data.patients import SEQUENCES
from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.reader import get_reader

NAME = "TCGA_DU_0001_19990101"
OTHER = "TCGA_HT_0002_20000202"


@pytest.fixture
def notices(monkeypatch) -> list[str]:
    """Notifications of the reader."""
    shown = []
    monkeypatch.setattr("napari.utils.notifications.show_info", shown.append)
    return shown


def read(*paths: Path) -> list:
    """Read like napari: one path as text, several as a list."""
    argument = [str(path) for path in paths] if len(paths) > 1 else str(paths[0])
    reader = get_reader(argument)
    assert reader is not None, "not ours"
    return reader(argument)


def names(layers: list) -> list[str]:
    return [properties["name"] for _, properties, _ in layers]


def refusal(*paths: Path) -> str:
    with pytest.raises(PatientError) as error:
        read(*paths)
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


# --- not ours ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "/nowhere/at/all",
        "a\0b.tif",
        "x_1.tif",
        "a" * 5000,
        "https://example.org/x_1.tif",
        [],
        [""],
        None,
        3,
    ],
    ids=repr,
)
def test_invalid_paths_are_not_ours(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert get_reader(path) is None


def write_text(path: Path) -> None:
    path.write_text("text, whatever its name says")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_float(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.float32))


def write_gray(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8))


def write_stack(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((5, 8, 8), np.uint8), photometric="minisblack")


@pytest.mark.parametrize("write", [write_text, write_nothing, write_float, write_gray, write_stack])
@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
def test_foreign_files_and_folders_of_them_are_not_ours(tmp_path, write, as_folder):
    for number in (1, 2):
        write(tmp_path / f"image_{number}.tif")
    assert get_reader(str(tmp_path if as_folder else tmp_path / "image_1.tif")) is None


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8), np.float32), np.zeros((8, 8, 3), np.uint8)], ids=["float", "rgb"]
)
def test_foreign_pixels_under_a_masks_name_are_not_ours(tmp_path, pixels):
    file = tmp_path / "image_1_mask.tif"
    tifffile.imwrite(file, pixels)
    assert get_reader(str(file)) is None


@pytest.mark.parametrize("name", ["slice.tif", "1.tif", "patient_one.tif", "patient_1.png", ".patient_1.tif"])
def test_slices_under_other_names_are_not_ours(tmp_path, name):
    tifffile.imwrite(tmp_path / name, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    assert get_reader(str(tmp_path / name)) is None
    assert get_reader(str(tmp_path)) is None


def test_folder_of_pngs_is_not_ours(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for number in (1, 2):
        image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"image_{number}.png")
    assert get_reader(str(tmp_path)) is None


def test_one_foreign_path_among_ours_is_not_ours(tmp_path, write_slices):
    write_slices(tmp_path / "a", NAME)
    write_text(tmp_path / "notes.txt")
    assert get_reader([str(tmp_path / "a"), str(tmp_path / "notes.txt")]) is None


def test_get_reader_reads_no_pixels(tmp_path, write_slices, monkeypatch):
    write_slices(tmp_path, NAME, 3)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("pixels were read"))
    for path in (tmp_path, tmp_path / f"{NAME}_1.tif", tmp_path / f"{NAME}_1_mask.tif"):
        assert get_reader(str(path)) is not None


# --- a patient ---------------------------------------------------------------------------------


def test_layers_of_a_patient(tmp_path, write_slices):
    image, mask = write_slices(tmp_path / "any name", NAME, 12)
    layers = read(tmp_path / "any name")
    assert names(layers) == [*SEQUENCES, "ground truth"]
    assert [kind for _, _, kind in layers] == ["image", "image", "image", "labels"]
    assert [data.dtype for data, _, _ in layers] == [np.uint8] * 4
    for channel in range(3):
        np.testing.assert_array_equal(layers[channel][0], image[..., channel])
    np.testing.assert_array_equal(layers[3][0], mask // 255)
    assert set(np.unique(layers[3][0])) == {0, 1}


def test_only_flair_is_shown_of_the_images(tmp_path, write_slices):
    write_slices(tmp_path, NAME)
    layers = read(tmp_path)
    assert [properties["visible"] for _, properties, kind in layers if kind == "image"] == [
        False,
        True,
        False,
    ]
    assert layers[3][1].get("visible", True)


def test_contrast_limits_are_those_of_the_volume(tmp_path, make_patient):
    from napari_lgg_seg.core.data.masks import write_patient

    patient = make_patient(NAME)
    patient.volume[-1, ..., 0] = 0
    write_patient(tmp_path, patient)
    for channel, (data, properties, _) in enumerate(read(tmp_path)[:3]):
        low, high = properties["contrast_limits"]
        assert low == 0, channel
        assert 0.9 * data.max() <= high <= data.max(), channel


def test_contrast_limits_of_a_black_volume_are_a_range(tmp_path):
    tifffile.imwrite(tmp_path / f"{NAME}_1.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    for _, properties, _ in read(tmp_path):
        assert properties["contrast_limits"][0] < properties["contrast_limits"][1]


def test_all_layers_lie_on_one_grid(tmp_path, write_slices):
    write_slices(tmp_path, NAME)
    layers = read(tmp_path)
    assert len({data.shape for data, _, _ in layers}) == 1
    for key in ("scale", "units", "axis_labels"):
        assert len({properties[key] for _, properties, _ in layers}) == 1, key
    assert layers[0][1]["axis_labels"] == ("z", "y", "x")


def test_metadata_describe_the_layer(tmp_path, write_slices):
    write_slices(tmp_path, NAME, range(7, 10))
    layers = read(tmp_path)
    subject = layers[0][1]["metadata"]["lgg"]["subject"]
    assert isinstance(subject, str)
    for role, (_, properties, _) in zip((*SEQUENCES, "truth"), layers, strict=True):
        assert properties["metadata"]["lgg"] == {
            "schema": 1,
            "subject": subject,
            "patient": NAME,
            "role": role,
            "slice_numbers": [7, 8, 9],
            "filled_sequences": [],
            "affine": None,
            "folder": str(tmp_path),
            "number_width": 1,
        }
        json.dumps(properties["metadata"])  # so that writers and remote viewers can keep it


def test_metadata_list_sequences_filled_with_flair(tmp_path, make_patient):
    from napari_lgg_seg.core.data.masks import write_patient

    patient = make_patient(NAME)
    patient.volume[..., 0] = patient.volume[..., 1]
    write_patient(tmp_path, patient)
    assert [p["metadata"]["lgg"]["filled_sequences"] for _, p, _ in read(tmp_path)] == [["pre-contrast"]] * 4


def test_napari_creates_layers_from_the_data(tmp_path, write_slices):
    from napari.layers import Image, Labels, Layer

    write_slices(tmp_path, NAME)
    made = [Layer.create(*layer) for layer in read(tmp_path)]
    assert [type(layer) for layer in made] == [Image, Image, Image, Labels]
    assert made[3].colormap.map(0)[3] == 0, "background hides the image"
    assert made[3].colormap.map(1)[3] == 1


def test_patient_without_masks_has_no_ground_truth(tmp_path, write_slices, notices):
    write_slices(tmp_path, NAME, masks=False)
    assert names(read(tmp_path)) == list(SEQUENCES)
    assert notices == []


def test_slices_without_a_mask_are_reported(tmp_path, write_slices, notices):
    _, mask = write_slices(tmp_path, NAME, 3, masks=[2])
    truth = read(tmp_path)[3][0]
    np.testing.assert_array_equal(truth[1], mask[1] // 255)
    assert not truth[[0, 2]].any()
    (text,) = notices
    assert NAME in text
    assert "2 of 3 slices have no mask" in text


def test_folder_of_masks_only_is_one_labels_layer(tmp_path, write_slices):
    _, mask = write_slices(tmp_path, NAME, images=False)
    ((data, properties, kind),) = read(tmp_path)
    assert (properties["name"], kind) == ("ground truth", "labels")
    np.testing.assert_array_equal(data, mask // 255)


def test_folder_behind_a_link(tmp_path, write_slices):
    image, _ = write_slices(tmp_path / "real", NAME)
    link = tmp_path / "link"
    try:
        link.symlink_to(tmp_path / "real", target_is_directory=True)
    except OSError:
        pytest.skip("this system does not allow links")
    np.testing.assert_array_equal(read(link)[1][0], image[..., 1])


# --- several, parts, datasets ------------------------------------------------------------------


def test_second_folder_carries_its_patient_as_prefix(tmp_path, write_slices):
    write_slices(tmp_path / "b", OTHER)
    write_slices(tmp_path / "a", NAME)
    layers = read(tmp_path / "b", tmp_path / "a")
    assert names(layers) == [
        *SEQUENCES,
        "ground truth",
        *(f"{NAME} {role}" for role in (*SEQUENCES, "ground truth")),
    ]
    assert [p["metadata"]["lgg"]["patient"] for _, p, _ in layers] == [OTHER] * 4 + [NAME] * 4
    assert [p["metadata"]["lgg"]["role"] for _, p, _ in layers[4:]] == [*SEQUENCES, "truth"]


def test_one_slice_file_opens_with_its_mask(tmp_path, write_slices):
    image, mask = write_slices(tmp_path, NAME, 4)
    layers = read(tmp_path / f"{NAME}_3.tif")
    assert names(layers) == [*SEQUENCES, "ground truth"]
    np.testing.assert_array_equal(layers[1][0], image[2:3, ..., 1])
    np.testing.assert_array_equal(layers[3][0], mask[2:3] // 255)
    assert layers[0][1]["metadata"]["lgg"]["slice_numbers"] == [3]


def test_slice_files_of_one_patient_are_one_volume_in_numeric_order(tmp_path, write_slices):
    image, _ = write_slices(tmp_path, NAME, 12)
    layers = read(*(tmp_path / f"{NAME}_{n}.tif" for n in (10, 9, 2)))
    assert len(layers) == 4
    np.testing.assert_array_equal(layers[1][0], image[[1, 8, 9], ..., 1])


def test_slice_files_of_two_patients_are_two_volumes(tmp_path, write_slices):
    write_slices(tmp_path, NAME)
    write_slices(tmp_path, OTHER)
    layers = read(tmp_path / f"{NAME}_1.tif", tmp_path / f"{OTHER}_1.tif", tmp_path / f"{NAME}_2.tif")
    assert [data.shape[0] for data, _, _ in layers] == [2] * 4 + [1] * 4


def test_mask_file_alone_is_one_labels_layer(tmp_path, write_slices):
    _, mask = write_slices(tmp_path, NAME)
    ((data, _, kind),) = read(tmp_path / f"{NAME}_2_mask.tif")
    assert kind == "labels"
    np.testing.assert_array_equal(data, mask[1:2] // 255)


def test_dataset_folder_opens_its_first_patient_and_says_how_to_open_the_others(
    tmp_path, write_slices, notices
):
    for name in (OTHER, NAME, "TCGA_HT_0003_20000303"):
        write_slices(tmp_path / "kaggle_3m" / name, name)
    (tmp_path / "kaggle_3m" / "data.csv").write_text("Patient\n")
    layers = read(tmp_path / "kaggle_3m")
    assert {p["metadata"]["lgg"]["patient"] for _, p, _ in layers} == {NAME}
    (text,) = notices
    assert "3 patients" in text
    assert NAME in text
    assert "Open LGG patient..." in text


# --- ours but broken ---------------------------------------------------------------------------


def test_missing_slice_is_named(tmp_path, write_slices):
    write_slices(tmp_path, NAME, [1, 2, 4])
    assert str(tmp_path / f"{NAME}_3.tif") in refusal(tmp_path)


def test_mask_without_image_is_named(tmp_path, write_slices):
    write_slices(tmp_path, NAME)
    (tmp_path / f"{NAME}_3.tif").unlink()
    assert str(tmp_path / f"{NAME}_3_mask.tif") in refusal(tmp_path)


def test_slice_of_another_size_is_named(tmp_path, write_slices):
    write_slices(tmp_path, NAME)
    tifffile.imwrite(tmp_path / f"{NAME}_2.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    assert str(tmp_path / f"{NAME}_2.tif") in refusal(tmp_path)


@pytest.mark.parametrize("kind", ["", "_mask"])
def test_truncated_file_is_named(tmp_path, write_slices, kind):
    write_slices(tmp_path, NAME)
    file = tmp_path / f"{NAME}_2{kind}.tif"
    file.write_bytes(file.read_bytes()[:-20])
    assert str(file) in refusal(tmp_path)


def test_nothing_is_loaded_if_the_second_of_two_is_broken(tmp_path, write_slices):
    write_slices(tmp_path / "a", NAME)
    write_slices(tmp_path / "b", OTHER, [1, 3])
    assert str(tmp_path / "b" / f"{OTHER}_2.tif") in refusal(tmp_path / "a", tmp_path / "b")


# --- real patients -----------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_dataset_opens_its_first_patient(lgg_dataset, notices):
    layers = read(lgg_dataset)
    first = min(folder.name for folder in lgg_dataset.iterdir() if folder.is_dir())
    assert names(layers) == [*SEQUENCES, "ground truth"]
    assert layers[0][1]["metadata"]["lgg"]["patient"] == first
    file = lgg_dataset / first / f"{first}_1.tif"
    np.testing.assert_array_equal(layers[1][0][0], tifffile.imread(file)[..., 1])
    assert len(notices) == 1
