"""Shape features against genomic clusters, as in the original study, and against other masks' features.

The study (Buda, Saha, Mazurowski 2019, arXiv:1906.03720) conducted Fisher's exact test for 10 hypotheses,
pairs of a shape feature and a genomic classification, and called p < 0.005 significant (Bonferroni, 0.05 /
10). Its classifications are the molecular subtype by IDH mutation and 1p/19q co-deletion, and the clusters
of DNA methylation, gene expression (RNASeq), DNA copy number, microRNA and the cluster of clusters.

Not known here are which 10 pairs it tested and how it made classes of a feature. So all pairs of the three
features and the five of its classifications that the dataset's ``data.csv`` holds are tested (the molecular
subtype is not in it), which is 15, and each p-value is given as it is, to be held against the study's 0.005,
and corrected for the tests made here. A feature is halved at its median over the patients of the test: low
up to the median, high above, as the same group did in Mazurowski et al., Proc. SPIE 9785 (2016).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import PatientError
from .shape import FEATURES, Shape, read_table

FloatArray = npt.NDArray[np.float64]

#: The study's classifications, by the columns of the dataset's ``data.csv``.
CLUSTERS = ("RNASeqCluster", "MethylationCluster", "miRNACluster", "CNCluster", "COCCluster")
#: Below it, a p-value was significant in the study: 0.05 / 10.
STUDY_LEVEL = 0.005

_PATIENT = "Patient"
# Beyond so many tables they are drawn at random instead: memory and time stay small.
_EXACT_TABLES = 500_000
_DRAWS = 500_000

Clusters = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Association:
    """Fisher's exact test of one feature against one classification.

    Attributes
    ----------
    feature, cluster : str
        What was tested.
    patients : int
        Those that have both.
    median : float
        Where the feature was halved.
    high, of : dict of str to int
        Patients above the median, and all patients, by cluster.
    p : float
        The test's p-value, uncorrected.
    corrected : float
        Times the number of tests made (Bonferroni), at most 1.
    """

    feature: str
    cluster: str
    patients: int
    median: float
    high: dict[str, int]
    of: dict[str, int]
    p: float
    corrected: float


@dataclass(frozen=True)
class Discrimination:
    """How well BEVR tells RNASeq cluster R2 from the others.

    Attributes
    ----------
    patients, positive : int
        Patients with both, and those of R2 among them.
    auc : float
        Probability that a patient of R2 has a lower BEVR than one of the others, ties counted half:
        always in this direction, so that it may be below 0.5.
    lower, upper : float
        95 % interval of the AUC, by bootstrap over patients.
    """

    patients: int
    positive: int
    auc: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Study:
    """All tests of one cohort.

    Attributes
    ----------
    associations : tuple of Association
        By classification, then by feature.
    r2 : Discrimination or None
        None where there is no patient of R2, or none of the others.
    unmatched : tuple of str
        Patients with a shape that the clusters' table does not hold.
    without_tumour : tuple of str
        Patients without features.
    """

    associations: tuple[Association, ...]
    r2: Discrimination | None
    unmatched: tuple[str, ...]
    without_tumour: tuple[str, ...]


def read_clusters(path: str | os.PathLike[str]) -> Clusters:
    """Genomic clusters by patient and column, of a table like the dataset's ``data.csv``.

    Returns
    -------
    dict
        Patient (such as ``TCGA_CS_4941``) -> column -> cluster; empty fields are left out.

    Raises
    ------
    PatientError
        If the file cannot be read, lacks one of the columns, or holds a patient twice.
    """
    clusters: Clusters = {}
    for row in read_table(path, (_PATIENT, *CLUSTERS)):
        name = row[_PATIENT]
        if name in clusters:
            raise PatientError(f"{path} holds {name} twice; remove one of the lines.")
        clusters[name] = {column: row[column] for column in CLUSTERS if row[column]}
    return clusters


def associate(shapes: Mapping[str, Shape], clusters: Clusters) -> Study:
    """Test every feature against every classification.

    Parameters
    ----------
    shapes : mapping of str to Shape
        By patient; a date after the clusters' name (``TCGA_CS_4941_19960909``) is left out.
    clusters : dict
        As :func:`read_clusters` gives them.

    Raises
    ------
    PatientError
        If no patient with features is in both, or if two shapes are of the same patient.
    """
    matched, unmatched = _match(shapes, clusters)
    with_tumour = {name: shape for name, shape in matched.items() if shape.voxels}
    if not with_tumour:
        raise PatientError(
            "No patient with a tumour is in both tables; choose tables with the same patients' names."
        )
    tests = []
    for column in CLUSTERS:
        labels = {name: clusters[name][column] for name in with_tumour if column in clusters[name]}
        if len(set(labels.values())) > 1:
            tests += [_test(feature, column, with_tumour, labels) for feature in FEATURES]
    return Study(
        associations=tuple(replace(test, corrected=min(1.0, test.p * len(tests))) for test in tests),
        r2=_r2(with_tumour, clusters),
        unmatched=tuple(unmatched),
        without_tumour=tuple(name for name, shape in shapes.items() if not shape.voxels),
    )


def _match(shapes: Mapping[str, Shape], clusters: Clusters) -> tuple[dict[str, Shape], list[str]]:
    """Shapes by the clusters' names, and the names that have no clusters."""
    matched: dict[str, Shape] = {}
    unmatched = []
    for name, shape in shapes.items():
        known = name if name in clusters else re.sub(r"_\d{8}$", "", name)
        if known in matched:
            raise PatientError(f"{name} is the second examination of {known}; leave one in the table.")
        if known in clusters:
            matched[known] = shape
        else:
            unmatched.append(name)
    return matched, unmatched


def _test(feature: str, column: str, shapes: Mapping[str, Shape], labels: Mapping[str, str]) -> Association:
    values = np.array([getattr(shapes[name], feature) for name in labels], dtype=np.float64)
    members = np.array(list(labels.values()))
    median = float(np.median(values))
    names = sorted(set(labels.values()))
    sizes = [int((members == name).sum()) for name in names]
    high = [int((values[members == name] > median).sum()) for name in names]
    return Association(
        feature=feature,
        cluster=column,
        patients=len(values),
        median=median,
        high=dict(zip(names, high, strict=True)),
        of=dict(zip(names, sizes, strict=True)),
        p=fisher_exact(high, sizes),
        corrected=1.0,
    )


def fisher_exact(counts: Sequence[int], sizes: Sequence[int]) -> float:
    """Fisher's exact test of a 2 x k table (Freeman and Halton 1951), two-sided.

    The probability, with all margins fixed, of the tables that are at most as probable as this one. It
    is summed over all tables; where there are more than half a million (many large clusters), it is
    estimated from half a million tables drawn with a fixed seed.

    Parameters
    ----------
    counts : sequence of int
        Members of each of k clusters that are in the first class.
    sizes : sequence of int
        All members of each cluster.

    Returns
    -------
    float
        Between 0 and 1; 1 where there is nothing to tell.
    """
    observed, of = np.asarray(counts, dtype=np.int64), np.asarray(sizes, dtype=np.int64)
    total = int(observed.sum())
    # All clusters' counts but the largest's are free; that one's follows from the total.
    order = np.argsort(of, kind="stable")
    observed, of = observed[order], of[order]
    exact = float(np.prod(of[:-1] + 1.0)) <= _EXACT_TABLES
    tables = _all_tables(of, total) if exact else _drawn_tables(of, total)
    chances = _log_chance(tables, of)
    # As in R: tables whose probabilities differ by rounding only count as equally probable.
    extreme = chances <= _log_chance(observed[None], of)[0] + 1e-7
    if not exact:
        return (int(extreme.sum()) + 1) / (len(tables) + 1)
    shares = np.exp(chances - chances.max())
    return min(1.0, float(shares[extreme].sum() / shares.sum()))


def _all_tables(sizes: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """All counts, shape (tables, k), that are possible with this total."""
    free = np.indices(tuple(sizes[:-1] + 1)).reshape(len(sizes) - 1, -1).T
    last = total - free.sum(axis=1)
    possible = (last >= 0) & (last <= sizes[-1])
    tables: npt.NDArray[np.int64] = np.column_stack([free[possible], last[possible]]).astype(np.int64)
    return tables


def _drawn_tables(sizes: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    draws = np.random.default_rng(0).multivariate_hypergeometric(
        sizes, total, size=_DRAWS, method="marginals"
    )
    return draws.astype(np.int64)


def _log_chance(tables: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> FloatArray:
    """Logarithm of the tables' probabilities, but for a summand that all with the same margins share."""
    from scipy.special import gammaln

    chance: FloatArray = -(gammaln(tables + 1.0) + gammaln(sizes - tables + 1.0)).sum(axis=1)
    return chance


def _r2(shapes: Mapping[str, Shape], clusters: Clusters) -> Discrimination | None:
    """RNASeq cluster R2 against the others by BEVR."""
    labels = {name: clusters[name]["RNASeqCluster"] for name in shapes if "RNASeqCluster" in clusters[name]}
    in_r2 = np.array([label in ("2", "R2") for label in labels.values()], dtype=np.bool_)
    if in_r2.all() or not in_r2.any():
        return None
    # Irregular tumours have a low BEVR, and those of R2 are the irregular ones.
    scores = -np.array([shapes[name].bevr for name in labels], dtype=np.float64)
    rng = np.random.default_rng(0)
    drawn = [
        auc(rng.choice(scores[in_r2], in_r2.sum()), rng.choice(scores[~in_r2], (~in_r2).sum()))
        for _ in range(2000)
    ]
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    return Discrimination(
        patients=len(labels),
        positive=int(in_r2.sum()),
        auc=auc(scores[in_r2], scores[~in_r2]),
        lower=float(lower),
        upper=float(upper),
    )


def auc(positive: npt.NDArray[np.floating], negative: npt.NDArray[np.floating]) -> float:
    """Area under the ROC curve: the chance that a positive scores higher than a negative, ties half.

    Parameters
    ----------
    positive, negative : ndarray of float
        Scores of at least one each.
    """
    difference = positive[:, None] - negative[None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


# --- agreement of two sets of masks ------------------------------------------------------------


@dataclass(frozen=True)
class FeatureAgreement:
    """How well a feature of predicted masks agrees with that of manual ones.

    Attributes
    ----------
    patients : int
        Pairs.
    pearson, spearman : float or None
        Correlation; None where one side does not vary.
    mean_difference : float
        Predicted minus manual (Bland and Altman 1986).
    lower, upper : float
        Limits of agreement: mean difference -+ 1.96 standard deviations of the differences.
    """

    patients: int
    pearson: float | None
    spearman: float | None
    mean_difference: float
    lower: float
    upper: float


def feature_agreement(predicted: Sequence[float], manual: Sequence[float]) -> FeatureAgreement:
    """Correlation and Bland-Altman figures of paired values.

    Parameters
    ----------
    predicted, manual : sequence of float
        Of the same patients in the same order, at least two.

    Raises
    ------
    ValueError
        If they are not as many, or fewer than two.
    """
    from scipy.stats import rankdata

    left, right = np.asarray(predicted, dtype=np.float64), np.asarray(manual, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or len(left) < 2:
        raise ValueError(f"values of shapes {left.shape} and {right.shape}; two or more pairs are needed")
    differences = left - right
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    return FeatureAgreement(
        patients=len(left),
        pearson=_correlation(left, right),
        spearman=_correlation(rankdata(left), rankdata(right)),
        mean_difference=mean,
        lower=mean - 1.96 * spread,
        upper=mean + 1.96 * spread,
    )


def shape_agreement(
    predicted: Mapping[str, Shape], manual: Mapping[str, Shape]
) -> dict[str, FeatureAgreement]:
    """Agreement of each feature over the patients that have a tumour in both.

    Raises
    ------
    PatientError
        If they are fewer than two.
    """
    names = [name for name in manual if name in predicted and manual[name].voxels and predicted[name].voxels]
    if len(names) < 2:
        raise PatientError(
            f"{len(names)} patients have a tumour in both tables; agreement needs two or more."
        )
    return {
        feature: feature_agreement(
            [getattr(predicted[name], feature) for name in names],
            [getattr(manual[name], feature) for name in names],
        )
        for feature in FEATURES
    }


def _correlation(left: FloatArray, right: FloatArray) -> float | None:
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])
