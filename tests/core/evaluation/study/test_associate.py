from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
import scipy.stats

from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation.study.associate import (
    CLUSTERS,
    associate,
    auc,
    auc_interval,
    fisher_exact,
    read_clusters,
)
from napari_lgg_seg.core.evaluation.study.shape import FEATURES, Shape

HEADER = ",".join(["Patient", *CLUSTERS, "gender"])


def shape(bevr: float, asd: float = 0.1, mf: float = 0.1) -> Shape:
    return Shape(bevr, asd, mf, 3, 100)


EMPTY = Shape(None, None, None, None, 0)


def in_rnaseq(clusters: dict[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"RNASeqCluster": label} for name, label in clusters.items()}


# --- Fisher's test -----------------------------------------------------------------------------


@pytest.mark.parametrize("table", [[[8, 2], [1, 5]], [[3, 1], [1, 3]], [[10, 0], [0, 10]], [[4, 4], [4, 4]]])
def test_two_by_two_tables_agree_with_scipy(table):
    counts, sizes = table[0], np.sum(table, axis=0)
    assert fisher_exact(counts, sizes) == pytest.approx(scipy.stats.fisher_exact(table).pvalue, rel=1e-6)


def test_p_value_of_three_pairs_by_hand():
    # There are 20 ways to choose 3 of 6: 8 take one of each pair, 12 both of one pair and one of another.
    assert fisher_exact((2, 0, 1), (2, 2, 2)) == pytest.approx(12 / 20)
    assert fisher_exact((1, 1, 1), (2, 2, 2)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("counts", "sizes"), [((4, 1, 2), (4, 5, 5)), ((0, 3, 3, 1), (3, 3, 4, 3)), ((5, 0), (6, 6))]
)
def test_p_value_is_the_share_of_choices_that_are_as_improbable(counts, sizes):
    def chance(table: tuple[int, ...]) -> int:
        return int(np.prod([comb(size, count) for size, count in zip(sizes, table, strict=True)]))

    members = [cluster for cluster, size in enumerate(sizes) for _ in range(size)]
    seen = chance(counts)
    rare = total = 0
    for chosen in itertools.combinations(members, sum(counts)):
        total += 1
        rare += chance(tuple(chosen.count(cluster) for cluster in range(len(sizes)))) <= seen
    assert fisher_exact(counts, sizes) == pytest.approx(rare / total)


def test_order_of_clusters_and_side_of_the_median_do_not_matter():
    p = fisher_exact((15, 4, 5, 12), (18, 23, 9, 23))
    assert fisher_exact((12, 15, 4, 5), (23, 18, 23, 9)) == pytest.approx(p)
    assert fisher_exact((3, 19, 4, 11), (18, 23, 9, 23)) == pytest.approx(p)


def test_tables_that_are_too_many_to_enumerate_are_simulated():
    counts, sizes = (50, 30, 40, 20, 35), (70, 60, 70, 50, 65)
    table = np.array([counts, np.subtract(sizes, counts)])
    # With expected counts this large, the chi-squared test comes close.
    p = fisher_exact(counts, sizes)
    assert p == pytest.approx(scipy.stats.chi2_contingency(table).pvalue, rel=0.2)
    assert fisher_exact(counts, sizes) == p


@pytest.mark.parametrize("patients", [2, 12, 19, 20, 70, 110])
def test_a_cluster_for_each_patient_tells_nothing(patients):
    counts = [n % 2 for n in range(patients)]
    assert fisher_exact(counts, [1] * patients) == pytest.approx(1)


def test_clusters_of_fewer_than_two_patients_on_average_are_tested():
    assert 0.8 < fisher_exact([1, 0] * 20 + [1, 1, 0], [1] * 40 + [2, 2, 2]) < 0.9


# --- the study ---------------------------------------------------------------------------------


def test_features_are_split_at_their_median_and_tested_against_each_classification():
    names = [f"TCGA_CS_{n}" for n in range(8)]
    shapes = {f"{name}_19990101": shape(0.1 * n, asd=1 - 0.1 * n) for n, name in enumerate(names)}
    clusters = {
        name: {"RNASeqCluster": "2" if n < 4 else "1", "COCCluster": str(n % 2)}
        for n, name in enumerate(names)
    }
    study = associate(shapes, clusters)
    assert [(a.cluster, a.feature) for a in study.associations] == [
        (cluster, feature) for cluster in ("RNASeqCluster", "COCCluster") for feature in FEATURES
    ]
    bevr, asd, mf = study.associations[:3]
    assert bevr.above_median == {"1": 4, "2": 0}
    assert bevr.cluster_sizes == {"1": 4, "2": 4}
    assert bevr.median == pytest.approx(0.35)
    assert asd.above_median == {"1": 0, "2": 4}
    assert bevr.p == pytest.approx(2 / comb(8, 4))
    assert bevr.corrected == pytest.approx(6 * bevr.p)
    # All are equal, so that no patient is above the median.
    assert (mf.above_median, mf.p, mf.corrected) == ({"1": 0, "2": 0}, 1, 1)
    assert study.associations[3].p == 1
    assert study.unmatched == study.without_tumour == ()


def test_auc_is_the_probability_that_r2_has_the_lower_bevr():
    clusters = in_rnaseq({"a": "2", "b": "2", "c": "1", "d": "3", "e": "4"})
    irregular = {"a": shape(0.2), "b": shape(0.4), "c": shape(0.4), "d": shape(0.5), "e": shape(0.3)}
    found = associate(irregular, clusters).r2
    # a is below all three; b is below d, equal to c, above e.
    assert found.auc == pytest.approx((3 + 1 + 0.5) / 6)
    assert (found.positive, found.patients) == (2, 5)
    assert 0 <= found.lower <= found.auc <= found.upper <= 1
    regular = {name: shape(1 - value.bevr) for name, value in irregular.items()}
    assert associate(regular, clusters).r2.auc == pytest.approx(1 - found.auc)


def test_auc_needs_patients_inside_and_outside_r2():
    shapes = {"a": shape(0.2), "b": shape(0.3)}
    assert associate(shapes, in_rnaseq({"a": "1", "b": "3"})).r2 is None
    assert associate(shapes, in_rnaseq({"a": "2", "b": "2"})).r2 is None
    assert associate(shapes, {"a": {}, "b": {}}).r2 is None


def test_auc_of_scores():
    assert auc(np.array([2.0, 3]), np.array([0.0, 1])) == 1
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5


def test_auc_interval_is_reproducible_and_shrinks_with_more_patients():
    rng = np.random.default_rng(0)
    few, many = ((rng.normal(1, 1, n), rng.normal(0, 1, n)) for n in (15, 300))
    assert auc_interval(*few) == auc_interval(*few)
    for groups in (few, many):
        lower, upper = auc_interval(*groups)
        assert 0.5 < lower < auc(*groups) < upper < 1
    assert np.ptp(auc_interval(*many)) < 0.5 * np.ptp(auc_interval(*few))


def test_auc_interval_with_a_single_patient_in_one_group():
    lower, upper = auc_interval(np.array([2.0]), np.array([0.0, 1, 3]))
    assert 0 <= lower < 2 / 3 < upper <= 1


def test_patients_without_a_cluster_are_excluded_test_by_test():
    shapes = {"a": shape(0.2), "b": shape(0.4), "c": shape(0.6), "d": EMPTY, "stranger": shape(0.9)}
    clusters = in_rnaseq({"a": "1", "b": "2", "d": "3"}) | {"c": {"CNCluster": "1"}}
    study = associate(shapes, clusters)
    assert {(a.cluster, a.patients) for a in study.associations} == {("RNASeqCluster", 2)}
    assert set(study.associations[0].cluster_sizes) == {"1", "2"}
    assert study.unmatched == ("stranger",)
    assert study.without_tumour == ("d",)


def test_a_name_with_a_date_may_be_in_the_clusters_table_itself():
    shapes = {"x_19990101": shape(0.2), "y": shape(0.3)}
    clusters = in_rnaseq({"x_19990101": "1", "x": "2", "y": "2"})
    assert associate(shapes, clusters).associations[0].cluster_sizes == {"1": 1, "2": 1}


def test_two_examinations_of_a_patient_are_refused():
    shapes = {"x_19990101": shape(0.2), "x_20000101": shape(0.3)}
    with pytest.raises(PatientError, match=r"x_20000101.*second"):
        associate(shapes, in_rnaseq({"x": "1"}))


@pytest.mark.parametrize("shapes", [{}, {"other": shape(0.2)}, {"x": EMPTY}])
def test_no_patient_in_both_tables_is_refused(shapes):
    with pytest.raises(PatientError, match="No patient"):
        associate(shapes, in_rnaseq({"x": "1"}))


def test_empty_fields_of_the_clusters_table_are_left_out(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text(f"{HEADER}\nTCGA_CS_1,2,4,,1,1,2\n TCGA_CS_2 ,,,,,, \n", encoding="utf-8-sig")
    assert read_clusters(file) == {
        "TCGA_CS_1": {"RNASeqCluster": "2", "MethylationCluster": "4", "CNCluster": "1", "COCCluster": "1"},
        "TCGA_CS_2": {},
    }


@pytest.mark.parametrize(
    "missing",
    ["nan", "NaN", "-", "--", "NA", "N/A", "n/a", "none", "None", "null", "?", "  ", "#N/A", "<NA>", "-nan"],
)
def test_missing_values_are_no_cluster(tmp_path, missing):
    file = tmp_path / "data.csv"
    file.write_text(f"{HEADER}\na,{missing},1,,,,2\nb,2,{missing},,,,2\n")
    assert read_clusters(file) == {"a": {"MethylationCluster": "1"}, "b": {"RNASeqCluster": "2"}}


def test_a_number_is_the_same_cluster_however_it_is_written(tmp_path):
    file = tmp_path / "data.csv"
    written = ("2", "2.0", '"2,0"', "02", "2.", "1.0", "10", "1.0", "0", "2.5", "R2", "+")
    lines = [f"p{n},{label},,,,,2" for n, label in enumerate(written)]
    file.write_text("\n".join([HEADER, *lines]) + "\n")
    clusters = read_clusters(file)
    found = [clusters[f"p{n}"]["RNASeqCluster"] for n in range(len(written))]
    assert found == ["2", "2", "2", "2", "2", "1", "10", "1", "0", "2.5", "R2", "+"]


def test_clusters_that_pandas_wrote_as_floats_are_compared_with_r2(tmp_path):
    file = tmp_path / "data.csv"
    labels = ("2.0", "2.0", "1.0", "3.0", "nan", "")
    lines = [f"p{n},{label},,,,,2" for n, label in enumerate(labels)]
    file.write_text("\n".join([HEADER, *lines]) + "\n")
    study = associate({f"p{n}": shape(0.1 + 0.1 * n) for n in range(6)}, read_clusters(file))
    assert (study.r2.patients, study.r2.positive, study.r2.auc) == (4, 2, 1)
    assert study.associations[0].cluster_sizes == {"1": 1, "2": 2, "3": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Patient,RNASeqCluster\na,1\n", "no column MethylationCluster"),
        (f"{HEADER}\na,1,,,,,\na,2,,,,,\n", "a twice"),
        (f"{HEADER}\na,1\n", "2 fields in line 2 but 7 columns"),
        (f"{HEADER}\n,1,,,,,\n", "no patient.s name in line 2"),
        (f"{HEADER}\n", "no patients"),
    ],
)
def test_broken_cluster_tables_are_refused_in_one_sentence(tmp_path, text, says):
    file = tmp_path / "data.csv"
    file.write_text(text)
    with pytest.raises(PatientError, match=says):
        read_clusters(file)
