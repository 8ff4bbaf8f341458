from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
import scipy.stats

from napari_lgg_seg.core.errors import PatientError
from napari_lgg_seg.core.evaluation import associate as module
from napari_lgg_seg.core.evaluation.associate import (
    CLUSTERS,
    FeatureAgreement,
    associate,
    auc,
    feature_agreement,
    fisher_exact,
    read_clusters,
    shape_agreement,
)
from napari_lgg_seg.core.evaluation.shape import FEATURES, Shape

HEADER = ",".join(["Patient", *CLUSTERS, "gender"])


def shape(bevr: float, asd: float = 0.1, mf: float = 0.1) -> Shape:
    return Shape(bevr, asd, mf, 3, 100)


EMPTY = Shape(None, None, None, None, 0)


def in_rnaseq(clusters: dict[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"RNASeqCluster": label} for name, label in clusters.items()}


# --- Fisher's test -----------------------------------------------------------------------------


@pytest.mark.parametrize("table", [[[8, 2], [1, 5]], [[3, 1], [1, 3]], [[10, 0], [0, 10]], [[4, 4], [4, 4]]])
def test_two_by_two_is_the_usual_test(table):
    counts, sizes = table[0], np.sum(table, axis=0)
    assert fisher_exact(counts, sizes) == pytest.approx(scipy.stats.fisher_exact(table).pvalue, rel=1e-6)


def test_three_pairs_by_hand():
    # 3 of 6 are chosen in 20 ways: 8 of them one of each pair, 12 both of one, one of another.
    assert fisher_exact((2, 0, 1), (2, 2, 2)) == pytest.approx(12 / 20)
    assert fisher_exact((1, 1, 1), (2, 2, 2)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("counts", "sizes"), [((4, 1, 2), (4, 5, 5)), ((0, 3, 3, 1), (3, 3, 4, 3)), ((5, 0), (6, 6))]
)
def test_p_value_is_the_share_of_all_choices_that_are_as_rare(counts, sizes):
    def chance(table: tuple[int, ...]) -> int:
        return int(np.prod([comb(size, count) for size, count in zip(sizes, table, strict=True)]))

    members = [cluster for cluster, size in enumerate(sizes) for _ in range(size)]
    seen = chance(counts)
    rare = total = 0
    for chosen in itertools.combinations(members, sum(counts)):
        total += 1
        rare += chance(tuple(chosen.count(cluster) for cluster in range(len(sizes)))) <= seen
    assert fisher_exact(counts, sizes) == pytest.approx(rare / total)


def test_order_of_the_clusters_and_sides_of_the_median_do_not_matter():
    p = fisher_exact((15, 4, 5, 12), (18, 23, 9, 23))
    assert fisher_exact((12, 15, 4, 5), (23, 18, 23, 9)) == pytest.approx(p)
    assert fisher_exact((3, 19, 4, 11), (18, 23, 9, 23)) == pytest.approx(p)


def test_many_large_clusters_are_drawn_and_agree(monkeypatch):
    counts, sizes = (15, 9, 5, 12), (18, 23, 9, 23)
    exact = fisher_exact(counts, sizes)
    monkeypatch.setattr(module, "_EXACT_TABLES", 0)
    drawn = fisher_exact(counts, sizes)
    assert drawn != exact
    assert drawn == pytest.approx(exact, rel=0.05)
    assert fisher_exact(counts, sizes) == drawn
    assert 0 < fisher_exact((40, 0, 40, 0), (40, 40, 40, 40)) < 1e-5


# --- the study ---------------------------------------------------------------------------------


def test_features_are_halved_at_their_median_and_held_against_each_classification():
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
    assert bevr.high == {"1": 4, "2": 0}
    assert bevr.of == {"1": 4, "2": 4}
    assert bevr.median == pytest.approx(0.35)
    assert asd.high == {"1": 0, "2": 4}
    assert bevr.p == pytest.approx(2 / comb(8, 4))
    assert bevr.corrected == pytest.approx(6 * bevr.p)
    # All alike: nobody is above the median.
    assert (mf.high, mf.p, mf.corrected) == ({"1": 0, "2": 0}, 1, 1)
    assert study.associations[3].p == 1
    assert study.unmatched == study.without_tumour == ()


def test_auc_is_of_r2_having_the_lower_bevr():
    clusters = in_rnaseq({"a": "2", "b": "2", "c": "1", "d": "3", "e": "4"})
    irregular = {"a": shape(0.2), "b": shape(0.4), "c": shape(0.4), "d": shape(0.5), "e": shape(0.3)}
    found = associate(irregular, clusters).r2
    # a is below all three; b is below d, level with c, above e.
    assert found.auc == pytest.approx((3 + 1 + 0.5) / 6)
    assert (found.positive, found.patients) == (2, 5)
    assert 0 <= found.lower <= found.auc <= found.upper <= 1
    regular = {name: shape(1 - value.bevr) for name, value in irregular.items()}
    assert associate(regular, clusters).r2.auc == pytest.approx(1 - found.auc)


def test_auc_without_one_side_is_none():
    shapes = {"a": shape(0.2), "b": shape(0.3)}
    assert associate(shapes, in_rnaseq({"a": "1", "b": "3"})).r2 is None
    assert associate(shapes, in_rnaseq({"a": "2", "b": "2"})).r2 is None
    assert associate(shapes, {"a": {}, "b": {}}).r2 is None


def test_auc_of_scores():
    assert auc(np.array([2.0, 3]), np.array([0.0, 1])) == 1
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5


def test_patients_are_left_out_test_by_test():
    shapes = {"a": shape(0.2), "b": shape(0.4), "c": shape(0.6), "d": EMPTY, "stranger": shape(0.9)}
    clusters = in_rnaseq({"a": "1", "b": "2", "d": "3"}) | {"c": {"CNCluster": "1"}}
    study = associate(shapes, clusters)
    assert {(a.cluster, a.patients) for a in study.associations} == {("RNASeqCluster", 2)}
    assert set(study.associations[0].of) == {"1", "2"}
    assert study.unmatched == ("stranger",)
    assert study.without_tumour == ("d",)


def test_a_name_with_a_date_may_itself_be_known():
    shapes = {"x_19990101": shape(0.2), "y": shape(0.3)}
    clusters = in_rnaseq({"x_19990101": "1", "x": "2", "y": "2"})
    assert associate(shapes, clusters).associations[0].of == {"1": 1, "2": 1}


def test_two_examinations_of_a_patient_are_refused():
    shapes = {"x_19990101": shape(0.2), "x_20000101": shape(0.3)}
    with pytest.raises(PatientError, match=r"x_20000101.*second"):
        associate(shapes, in_rnaseq({"x": "1"}))


@pytest.mark.parametrize("shapes", [{}, {"other": shape(0.2)}, {"x": EMPTY}])
def test_nobody_in_both_tables_is_refused(shapes):
    with pytest.raises(PatientError, match="No patient"):
        associate(shapes, in_rnaseq({"x": "1"}))


def test_clusters_are_read_without_their_empty_fields(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text(f"{HEADER}\nTCGA_CS_1,2,4,,1,1,2\n TCGA_CS_2 ,,,,,, \n", encoding="utf-8-sig")
    assert read_clusters(file) == {
        "TCGA_CS_1": {"RNASeqCluster": "2", "MethylationCluster": "4", "CNCluster": "1", "COCCluster": "1"},
        "TCGA_CS_2": {},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Patient,RNASeqCluster\na,1\n", "no column MethylationCluster"),
        (f"{HEADER}\na,1\na,2\n", "a twice"),
        (f"{HEADER}\n", "no patients"),
    ],
)
def test_broken_cluster_tables_are_one_sentence(tmp_path, text, says):
    file = tmp_path / "data.csv"
    file.write_text(text)
    with pytest.raises(PatientError, match=says):
        read_clusters(file)


# --- agreement ---------------------------------------------------------------------------------


def test_agreement_by_hand():
    found = feature_agreement([1.0, 2, 3, 4], [0.0, 2, 4, 2])
    # Differences 1, 0, -1, 2: mean 0.5, sum of squares around it 5.
    assert found.mean_difference == pytest.approx(0.5)
    assert found.upper - found.mean_difference == pytest.approx(1.96 * np.sqrt(5 / 3))
    assert found.mean_difference - found.lower == pytest.approx(1.96 * np.sqrt(5 / 3))
    assert found.patients == 4


def test_correlations_are_the_usual_ones():
    rng = np.random.default_rng(0)
    manual = rng.integers(0, 9, 30).astype(float)
    predicted = np.exp(manual / 3) + rng.standard_normal(30)
    found = feature_agreement(list(predicted), list(manual))
    assert found.pearson == pytest.approx(scipy.stats.pearsonr(predicted, manual).statistic)
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(predicted, manual).statistic)


def test_no_correlation_where_nothing_varies():
    assert feature_agreement([1, 1, 1], [1, 2, 3]) == FeatureAgreement(
        3, None, None, -1, -1 - 1.96, -1 + 1.96
    )


@pytest.mark.parametrize(("predicted", "manual"), [([1], [1]), ([1, 2], [1]), ([], [])])
def test_agreement_needs_pairs(predicted, manual):
    with pytest.raises(ValueError, match="pairs"):
        feature_agreement(predicted, manual)


def test_shapes_agree_feature_by_feature_where_both_have_a_tumour():
    manual = {"a": shape(0.2, 0.1), "b": shape(0.4, 0.2), "c": shape(0.9), "d": EMPTY}
    predicted = {"b": shape(0.5, 0.2), "a": shape(0.3, 0.1), "c": EMPTY, "d": shape(0.1)}
    found = shape_agreement(predicted, manual)
    assert set(found) == set(FEATURES)
    assert found["bevr"].patients == 2
    assert found["bevr"].mean_difference == pytest.approx(0.1)
    assert found["asd"].mean_difference == pytest.approx(0)
    with pytest.raises(PatientError, match="1 patients"):
        shape_agreement({"a": shape(0.1)}, manual)
