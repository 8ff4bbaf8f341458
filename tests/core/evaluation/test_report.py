from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from napari_lgg_seg.core.data.label_files import LabelMap, write_labels
from napari_lgg_seg.core.data.masks import write_masks, write_patient
from napari_lgg_seg.core.data.patients import read_patient
from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation.html_page import Entry, write_page
from napari_lgg_seg.core.evaluation.label_pairs import LabelPair, Volumes, find_pairs, read_pair
from napari_lgg_seg.core.evaluation.report import measure_cohort, measure_patient, write_metrics

NAME, OTHER = "TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202"


def boxes(*corners, shape=(6, 20, 20)):
    """Labels with boxes, each (z, y, x, size along z, y and x)."""
    labels = np.zeros(shape, np.uint8)
    for z, y, x, depth, height, width in corners:
        labels[z : z + depth, y : y + height, x : x + width] = 1
    return labels


def measured(prediction, truth=None, name=NAME, first=1):
    numbers = tuple(range(first, first + len(prediction)))
    return measure_patient(Volumes(name, numbers, prediction, truth))


# --- figures of a patient ----------------------------------------------------------------------


def test_figures_by_hand():
    # Truth: two lesions of 2 x 4 x 4 and 1 x 2 x 2. Prediction: half of the first, and one invented.
    truth = boxes((1, 2, 2, 2, 4, 4), (4, 15, 15, 1, 2, 2))
    prediction = boxes((1, 2, 2, 2, 4, 2), (5, 10, 10, 1, 3, 3))
    metrics = measured(prediction, truth, first=9)
    assert (metrics.voxels, metrics.slices, metrics.of_slices, metrics.lesions) == (25, 3, 6, 2)
    agreement = metrics.agreement
    assert (agreement.true_voxels, agreement.true_slices, agreement.true_lesions) == (36, 3, 2)
    assert (agreement.missed_lesions, agreement.false_positive_lesions) == (1, 1)
    assert agreement.dice == pytest.approx(2 * 16 / (25 + 36))
    assert agreement.slice_dice == pytest.approx({10: 2 / 3, 11: 2 / 3, 13: 0, 14: 0})
    assert agreement.median_slice_dice == pytest.approx(1 / 3)
    assert (agreement.false_voxels_on_empty_slices, agreement.worst_slice) == (9, 14)


def test_pieces_that_touch_by_a_corner_are_one():
    assert measured(boxes((1, 2, 2, 1, 2, 2), (2, 4, 4, 1, 2, 2))).lesions == 1
    assert measured(boxes((1, 2, 2, 1, 2, 2), (3, 4, 4, 1, 2, 2))).lesions == 2


def test_equal_masks():
    truth = boxes((1, 2, 2, 2, 4, 4))
    agreement = measured(truth, truth).agreement
    assert (agreement.dice, agreement.median_slice_dice, agreement.hd95, agreement.surface_dice) == (
        1,
        1,
        0,
        1,
    )
    assert (agreement.missed_lesions, agreement.false_positive_lesions) == (0, 0)


def test_a_moved_plane_is_as_far_as_it_was_moved():
    truth, prediction = (boxes((2, 3, x, 1, 10, 1)) for x in (4, 7))
    agreement = measured(prediction, truth).agreement
    assert (agreement.hd95, agreement.surface_dice) == (3, 0)
    agreement = measured(boxes((3, 3, 4, 1, 10, 1)), truth).agreement
    assert (agreement.hd95, agreement.surface_dice) == (1, 1)


@pytest.mark.parametrize(
    ("predicted", "true", "dice", "surface_dice", "missed", "invented"),
    [(0, 1, 0, 0, 1, 0), (1, 0, 0, 0, 0, 1), (0, 0, 1, 1, 0, 0)],
)
def test_empty_masks(predicted, true, dice, surface_dice, missed, invented):
    box = boxes((1, 2, 2, 2, 4, 4))
    agreement = measured(box * predicted, box * true).agreement
    assert (agreement.dice, agreement.surface_dice, agreement.hd95) == (dice, surface_dice, None)
    assert (agreement.missed_lesions, agreement.false_positive_lesions) == (missed, invented)
    assert agreement.median_slice_dice == (0 if predicted or true else None)


def test_prediction_only():
    metrics = measured(boxes((1, 2, 2, 2, 4, 4)))
    assert metrics.agreement is None
    assert metrics.as_row()["voxels"] == 32
    assert metrics.as_row()["dice"] is None


# --- figures of a cohort -----------------------------------------------------------------------


def cohort_of(shares):
    """Patients of whose truth, 16 columns, so many were found."""
    truth = boxes((1, 2, 2, 2, 4, 16))
    return [
        measured(boxes((1, 2, 2, 2, 4, share)), truth, f"P{number}") for number, share in enumerate(shares)
    ]


def test_cohort_figures():
    patients = cohort_of([16, 8, 2, 0])
    cohort = measure_cohort([*patients, measured(boxes())])
    assert cohort.summary.patients == 4
    assert cohort.summary.mean == pytest.approx((1 + 2 / 3 + 2 / 9 + 0) / 4)
    assert cohort.summary.median == pytest.approx((2 / 3 + 2 / 9) / 2)
    assert cohort.summary.below_half == ("P3", "P2")
    assert cohort.summary.missed == ("P3",)
    low, high = cohort.mean_interval
    assert 0 < low < cohort.summary.mean < high < 1
    assert cohort == measure_cohort(patients)


def test_interval_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    patients = cohort_of([16, 15, 14, 14, 12, 11, 9, 5])
    scores = [p.agreement.dice for p in patients]
    theirs = stats.bootstrap((scores,), np.mean, method="percentile", random_state=1).confidence_interval
    assert measure_cohort(patients).mean_interval == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_one_patient_has_no_interval_and_none_no_figures():
    assert measure_cohort(cohort_of([8])).mean_interval is None
    assert measure_cohort([measured(boxes())]) is None


def test_figures_as_files(tmp_path):
    patients = [*cohort_of([16, 0]), measured(boxes(), name="no, truth")]
    write_metrics(tmp_path, patients, ["left out"], ["broken."])
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["cohort"]["summary"]["mean"] == 0.5
    assert metrics["patients"][0]["agreement"]["slice_dice"] == {"2": 1, "3": 1}
    assert (metrics["without_prediction"], metrics["failed"]) == (["left out"], ["broken."])
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["patient"], row["dice"]) for row in rows] == [
        ("P0", "1.0"),
        ("P1", "0.0"),
        ("no, truth", ""),
    ]
    assert [row["false_voxels_on_empty_slices"] for row in rows] == ["0", "0", ""]
    assert not {"slice_dice", "spacing", "predicted_voxels"} & set(rows[0])


# --- finding and reading -----------------------------------------------------------------------


def test_cases_are_matched_by_name_whatever_the_format(tmp_path, make_patient):
    for name in (NAME, OTHER):
        write_patient(tmp_path / "truth" / f"folder of {name}", make_patient(name))
    truth = make_patient(NAME).truth
    write_masks(tmp_path / "out" / NAME, NAME, truth)
    write_labels(tmp_path / "out", LabelMap("third", truth), "tiff")
    cases = find_pairs(tmp_path / "out", tmp_path / "truth")
    by_name = {case.name: case for case in cases.cases}
    folder = tmp_path / "truth" / f"folder of {NAME}"
    assert by_name[NAME] == LabelPair(NAME, tmp_path / "out" / NAME, folder, folder)
    assert by_name["third"] == LabelPair("third", tmp_path / "out" / "third" / "third_tumour.tif", None, None)
    assert cases.without_prediction == (OTHER,)
    assert cases.problems == ()


def test_a_single_patient_is_matched_whatever_its_names(tmp_path, make_patient):
    patient = make_patient(NAME)
    write_patient(tmp_path / "truth", patient)
    write_masks(tmp_path / "out", "by hand", patient.truth)
    (case,) = find_pairs(tmp_path / "out", tmp_path / "truth").cases
    assert (case.name, case.images) == (NAME, tmp_path / "truth")
    (case,) = find_pairs(tmp_path / "out", images=tmp_path / "truth").cases
    assert (case.name, case.truth, case.images) == ("by hand", None, tmp_path / "truth")


def test_images_may_be_elsewhere(tmp_path, make_patient):
    patient = make_patient(NAME)
    write_patient(tmp_path / "images" / NAME, patient)
    for folder in ("truth", "out"):
        write_masks(tmp_path / folder / NAME, NAME, patient.truth)
    (case,) = find_pairs(tmp_path / "out", tmp_path / "truth").cases
    assert case.images is None
    (case,) = find_pairs(tmp_path / "out", tmp_path / "truth", tmp_path / "images").cases
    np.testing.assert_array_equal(read_pair(case).images, patient.volume)


def test_a_folder_of_two_patients_spoils_only_itself(tmp_path, make_patient):
    truth = make_patient(NAME).truth
    write_masks(tmp_path / "out" / NAME, NAME, truth)
    for name in (OTHER, "third"):
        write_masks(tmp_path / name, name, truth)
        for file in (tmp_path / name).iterdir():
            (tmp_path / "out" / "mixed").mkdir(exist_ok=True)
            file.rename(tmp_path / "out" / "mixed" / file.name)
    cases = find_pairs(tmp_path / "out")
    assert [case.name for case in cases.cases] == [NAME]
    (problem,) = cases.problems
    assert "two patients" in problem
    assert str(tmp_path / "out" / "mixed") in problem
    with pytest.raises(PatientError, match="two patients"):
        find_pairs(tmp_path / "out" / "mixed")


@pytest.mark.parametrize("empty", ["predictions", "truth", "images"])
def test_a_folder_of_nothing_is_a_sentence(tmp_path, make_patient, empty):
    folders = {name: tmp_path / name for name in ("predictions", "truth", "images")}
    for name, folder in folders.items():
        folder.mkdir()
        if name != empty:
            write_patient(folder / NAME, make_patient(NAME))
    with pytest.raises(PatientError, match=re.escape(str(folders[empty]))):
        find_pairs(**folders)


def test_slice_numbers_are_those_of_the_files(tmp_path, write_slices, make_patient):
    write_slices(tmp_path / "truth", NAME, range(9, 12))
    mask = read_patient(tmp_path / "truth").truth
    write_labels(tmp_path / "out", LabelMap(NAME, mask), "tiff")
    (case,) = find_pairs(tmp_path / "out", tmp_path / "truth").cases
    assert read_pair(case).slice_numbers == (9, 10, 11)
    (case,) = find_pairs(tmp_path / "out").cases
    assert read_pair(case).slice_numbers == (1, 2, 3)


def test_other_grids_are_a_sentence(tmp_path, make_patient):
    patient = make_patient(NAME)
    write_patient(tmp_path / "truth", patient)
    write_masks(tmp_path / "out", NAME, patient.truth[:-1])
    (case,) = find_pairs(tmp_path / "out", tmp_path / "truth").cases
    with pytest.raises(PatientError, match=r"5 x 64 x 64 voxels but .*6 x 64 x 64"):
        read_pair(case)


# --- the page ----------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """Tags with their attributes, text of the table's cells, and open tags that were never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(tmp_path: Path, patients, **more) -> tuple[str, Parsed]:
    entries = [Entry(metrics, metrics.patient.encode(), (30, 20)) for metrics in patients]
    write_page(tmp_path / "index.html", entries, **more)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    return text, Parsed(text)


def test_page_needs_nothing_else(tmp_path):
    text, page = page_of(tmp_path, cohort_of([16, 4, 0]))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    for _, attributes in page.tags:
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:image/webp;base64,").startswith("data:image/webp;base64,")
    assert page.open == []
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_page_has_every_patient_worst_first(tmp_path):
    _, page = page_of(tmp_path, [*cohort_of([16, 0, 4]), measured(boxes(), name="without truth")])
    pictures = [a["src"].partition(",")[2] for tag, a in page.tags if tag == "img"]
    names = [base64.b64decode(picture).decode() for picture in pictures]
    assert names == ["P1", "P2", "P0", "without truth"]
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    rows = [a["data-sheet"] for tag, a in page.tags if tag == "tr" and "data-sheet" in a]
    assert rows == sections
    assert {f"#{section}" for section in sections} <= set(links)


def test_page_says_how_good_the_cohort_is(tmp_path):
    patients = cohort_of([16, 8, 2, 0])
    _, page = page_of(tmp_path, patients, without_prediction=["left out"], failed=["x is broken."])
    text = " ".join(page.text)
    low, high = measure_cohort(patients).mean_interval
    assert f"95 % interval {low:.3f} to {high:.3f}" in text
    for words in (
        "0.472",
        "2 of 4",
        "1 of 4",
        "Voxels on",
        "empty slices",
        "left out",
        "x is broken.",
        "not a medical device",
    ):
        assert words in text


def test_page_without_truth_shows_no_figures_that_need_it(tmp_path):
    _, page = page_of(tmp_path, [measured(boxes((1, 2, 2, 2, 4, 4)), name=n) for n in ("b", "a")])
    text = " ".join(page.text[page.text.index("LGG segmentation report") :])
    assert "Dice" not in text
    assert "32" in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", 'a" onload="x', "a&b $title ${x}", "Zoë 中"])
def test_names_are_escaped(tmp_path, name):
    metrics = measured(boxes((1, 2, 2, 2, 4, 4)), boxes((1, 2, 2, 2, 4, 3)), name)
    _, page = page_of(tmp_path, [metrics], without_prediction=[name], failed=[name])
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert next(a["alt"] for tag, a in page.tags if tag == "img") == f"Contact sheet of {name}"
    assert name in page.text
