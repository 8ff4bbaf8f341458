"""Associations of shape features with genomic clusters, tested as in the original study.

The study (Buda, Saha, Mazurowski 2019, arXiv:1906.03720) conducted Fisher's exact test for 10 hypotheses,
pairs of a shape feature and a genomic classification, and called p < 0.005 significant (Bonferroni, 0.05 /
10). Its classifications are the molecular subtype by IDH mutation and 1p/19q co-deletion, and the clusters
of DNA methylation, gene expression (RNASeq), DNA copy number, microRNA and the cluster of clusters.

The study does not say which 10 pairs it tested or how it dichotomised the features. Therefore all pairs of
the three features and the five classifications in the dataset's ``data.csv`` are tested (it lacks the
molecular subtype), 15 in total. Each p-value is given uncorrected, to compare with the study's 0.005, and
corrected for the number of tests made here. A feature is split at its median over the patients of the test,
as the same group did in Mazurowski et al., Proc. SPIE 9785 (2016): low up to the median, high above.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import PatientError
from ..tables import read_csv
from .shape import FEATURES, Shape

#: The study's classifications, by the columns of the dataset's ``data.csv``.
CLUSTERS = ("RNASeqCluster", "MethylationCluster", "miRNACluster", "CNCluster", "COCCluster")
#: The study's significance level: 0.05 / 10.
STUDY_LEVEL = 0.005

_PATIENT = "Patient"
#: Fisher's test enumerates at most this many tables, and simulates as many if there are more.
_MOST_TABLES = 500_000
#: Tables that are simulated at a time, which bounds the memory.
_BATCH = 20_000
#: How spreadsheets, pandas, R and TCGA write a missing value, in any case and with any marks around it.
_MISSING = re.compile(
    r"[^\w+]*(na|n/a|n\.a|nan|none|null|unknown|missing|not (available|applicable))?[^\w+]*", re.IGNORECASE
)
#: pandas writes the clusters of a column with missing values as 2.0.
_WHOLE_NUMBER = re.compile(r"\+?0*(\d+)([.,]0*)?", re.ASCII)

Clusters = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Association:
    """Fisher's exact test of one feature against one classification.

    Attributes
    ----------
    feature, cluster : str
        The shape feature and the column of the classification.
    patients : int
        Patients that have both.
    median : float
        The feature's median, at which it is split.
    above_median, cluster_sizes : dict of str to int
        By cluster: patients above the median, and all patients.
    p : float
        Uncorrected p-value.
    corrected : float
        Bonferroni-corrected p-value: times the number of tests, at most 1.
    """

    feature: str
    cluster: str
    patients: int
    median: float
    above_median: dict[str, int]
    cluster_sizes: dict[str, int]
    p: float
    corrected: float


@dataclass(frozen=True)
class Discrimination:
    """How well BEVR separates RNASeq cluster R2 from the other clusters.

    Attributes
    ----------
    patients, positive : int
        Patients with both values, and those of them in R2.
    auc : float
        Area under the ROC curve: the probability that a patient in R2 has a lower BEVR than a patient in
        another cluster, ties counted half. Below 0.5 if R2 tends to have the higher BEVR.
    lower, upper : float
        95 % bootstrap interval of the AUC over patients.
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
        None if no patient, or every patient, is in R2.
    unmatched : tuple of str
        Patients with shape features that are not in the table of clusters.
    without_tumour : tuple of str
        Patients without tumour and hence without features.
    """

    associations: tuple[Association, ...]
    r2: Discrimination | None
    unmatched: tuple[str, ...]
    without_tumour: tuple[str, ...]


def read_clusters(path: str | os.PathLike[str]) -> Clusters:
    """Read genomic clusters from a CSV table with the columns of the dataset's ``data.csv``.

    Parameters
    ----------
    path : path
        The table.

    Returns
    -------
    dict
        Patient (such as ``TCGA_CS_4941``) -> column -> cluster; missing values (an empty field, ``NaN``,
        ``N/A``, ``?``) are left out, and ``2.0`` is the cluster ``2``.

    Raises
    ------
    PatientError
        If the file cannot be read, lacks one of the columns, or lists a patient twice.
    """
    clusters: Clusters = {}
    for line, fields in read_csv(path, (_PATIENT, *CLUSTERS)):
        row = {column: value.strip() for column, value in fields.items()}
        name = row[_PATIENT]
        if not name:
            raise PatientError(f"{path} has no patient's name in line {line}; add it, or remove the line.")
        if name in clusters:
            raise PatientError(f"{path} lists {name} twice; remove one of the lines.")
        clusters[name] = {
            column: _cluster(row[column]) for column in CLUSTERS if not _MISSING.fullmatch(row[column])
        }
    return clusters


def _cluster(text: str) -> str:
    number = _WHOLE_NUMBER.fullmatch(text)
    return number[1] if number else text


def associate(shapes: Mapping[str, Shape], clusters: Clusters) -> Study:
    """Test every feature against every classification.

    Parameters
    ----------
    shapes : mapping of str to Shape
        By patient; a date after the patient's name in ``clusters`` (``TCGA_CS_4941_19960909``) is ignored.
    clusters : dict
        From :func:`read_clusters`.

    Returns
    -------
    Study
        Without the classifications in which the patients form a single cluster.

    Raises
    ------
    PatientError
        If no patient with a tumour is in both tables, or if two shapes are of the same patient.
    """
    matched, unmatched = _match(shapes, clusters)
    with_tumour = {name: shape for name, shape in matched.items() if shape.voxels}
    if not with_tumour:
        raise PatientError("No patient with a tumour is in both tables; choose tables of the same patients.")
    tests = []
    for column in CLUSTERS:
        labels = {name: clusters[name][column] for name in with_tumour if column in clusters[name]}
        if len(set(labels.values())) > 1:
            tests += [_test(feature, column, with_tumour, labels) for feature in FEATURES]
    return Study(
        associations=tuple(replace(test, corrected=min(1.0, test.p * len(tests))) for test in tests),
        r2=_discriminate_r2(with_tumour, clusters),
        unmatched=tuple(unmatched),
        without_tumour=tuple(name for name, shape in shapes.items() if not shape.voxels),
    )


def _match(shapes: Mapping[str, Shape], clusters: Clusters) -> tuple[dict[str, Shape], list[str]]:
    """Shapes by the patients' names in ``clusters``, and the names that are not in it."""
    matched: dict[str, Shape] = {}
    unmatched = []
    for name, shape in shapes.items():
        known = name if name in clusters else re.sub(r"_\d{8}$", "", name)
        if known in matched:
            raise PatientError(f"{name} is the second examination of {known}; keep only one in the table.")
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
    above = [int((values[members == name] > median).sum()) for name in names]
    return Association(
        feature=feature,
        cluster=column,
        patients=len(values),
        median=median,
        above_median=dict(zip(names, above, strict=True)),
        cluster_sizes=dict(zip(names, sizes, strict=True)),
        p=fisher_exact(above, sizes),
        corrected=1.0,
    )


def fisher_exact(counts: Sequence[int], sizes: Sequence[int]) -> float:
    """Two-sided Fisher's exact test of a 2 x k table (Freeman and Halton 1951).

    The p-value is the total probability of all tables with the same margins that are at most as probable as
    the observed one. SciPy only simulates tables larger than 2 x 2, which is too coarse for small p-values:
    here they are enumerated, and simulated with a fixed seed only if there are more than half a million.

    Parameters
    ----------
    counts : sequence of int
        Members of each of the k clusters that are in the first class.
    sizes : sequence of int
        All members of each cluster, at least one.

    Returns
    -------
    float
        The p-value; 1 if there is only one such table.
    """
    from scipy import stats

    observed, totals = np.asarray(counts, dtype=np.int64), np.asarray(sizes, dtype=np.int64)
    # The counts of all clusters but the largest are free; the margin determines the last one.
    order = np.argsort(totals, kind="stable")
    observed, totals = observed[order], totals[order]
    if np.prod(totals[:-1] + 1.0) > _MOST_TABLES:
        if totals.max() == 1:  # all tables are equally probable
            return 1.0
        method = stats.MonteCarloMethod(n_resamples=_MOST_TABLES, rng=0, batch=_BATCH)
        result = stats.fisher_exact(np.stack([observed, totals - observed]), method=method)
        return float(np.asarray(result.pvalue).item())  # an array if there are fewer than 2 per cluster
    margin = int(observed.sum())
    probabilities = stats.multivariate_hypergeom.pmf(_all_tables(totals, margin), totals, margin)
    # As in R: probabilities that differ only by rounding count as equal.
    limit = stats.multivariate_hypergeom.pmf(observed, totals, margin) * (1 + 1e-7)
    return float(probabilities[probabilities <= limit].sum() / probabilities.sum())


def _all_tables(sizes: npt.NDArray[np.int64], margin: int) -> npt.NDArray[np.int64]:
    """First rows of all tables with these margins, shape (tables, k)."""
    free = np.indices(tuple(sizes[:-1] + 1)).reshape(len(sizes) - 1, -1).T
    last = margin - free.sum(axis=1)
    possible = (last >= 0) & (last <= sizes[-1])
    tables: npt.NDArray[np.int64] = np.column_stack([free[possible], last[possible]]).astype(np.int64)
    return tables


def _discriminate_r2(shapes: Mapping[str, Shape], clusters: Clusters) -> Discrimination | None:
    labels = {name: clusters[name]["RNASeqCluster"] for name in shapes if "RNASeqCluster" in clusters[name]}
    in_r2 = np.array([label.upper() in ("2", "R2") for label in labels.values()], dtype=np.bool_)
    if in_r2.all() or not in_r2.any():
        return None
    # Irregular tumours have a low BEVR, and R2 is the cluster of the irregular ones.
    scores = -np.array([shapes[name].bevr for name in labels], dtype=np.float64)
    lower, upper = auc_interval(scores[in_r2], scores[~in_r2])
    return Discrimination(
        patients=len(labels),
        positive=int(in_r2.sum()),
        auc=auc(scores[in_r2], scores[~in_r2]),
        lower=lower,
        upper=upper,
    )


def auc(positive: npt.NDArray[np.floating], negative: npt.NDArray[np.floating]) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counted half.

    Parameters
    ----------
    positive, negative : ndarray of float
        One-dimensional scores, at least one of each.
    """
    return float(_auc(positive, negative))


def auc_interval(
    positive: npt.NDArray[np.floating],
    negative: npt.NDArray[np.floating],
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the AUC.

    Parameters
    ----------
    positive, negative : ndarray of float
        One-dimensional scores, at least one of each; the two groups are resampled separately.
    resamples : int
        Number of bootstrap resamples.
    seed : int
        Seed of the random generator.

    Returns
    -------
    lower, upper : float
    """
    from scipy.stats import bootstrap

    # SciPy wants two observations or more; a single one resamples to itself, however often it is repeated.
    samples = [scores if len(scores) > 1 else np.repeat(scores, 2) for scores in (positive, negative)]
    interval = bootstrap(
        samples, _auc, n_resamples=resamples, batch=200, vectorized=True, method="percentile", rng=seed
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _auc(positive: npt.NDArray[np.floating], negative: npt.NDArray[np.floating], axis: int = -1) -> Any:
    """The AUC along an axis: the Mann-Whitney U statistic as a share of its maximum."""
    from scipy.stats import mannwhitneyu

    # The statistic does not depend on the method; this is the fastest for its unused p-value.
    u = mannwhitneyu(positive, negative, axis=axis, method="asymptotic").statistic
    return u / (positive.shape[axis] * negative.shape[axis])
