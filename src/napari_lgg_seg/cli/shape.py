"""The commands ``shape`` and ``associate``: the original study's shape features and their associations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import LggSegError
from .console import make_console, write_text

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.evaluation.study.associate import Study
    from ..core.evaluation.study.shape import Shape


def shape(
    masks: Annotated[
        list[Path],
        typer.Argument(
            exists=True, help="Masks in any format that segment writes: patient folders or folders of them."
        ),
    ],
    csv: Annotated[Path, typer.Option("--csv", help="The table to write, one row per patient.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing table.")] = False,
) -> None:
    """Measure the original study's shape features: BEVR, ASD and MF of each patient's mask.

    BEVR: tumour volume / volume of the smallest ellipsoid around it.
    ASD: angular standard deviation of the margin, in the slice with the largest tumour area.
    MF: margin fluctuation, in the same slice (counted from 0, as in napari).
    """
    from rich.progress import track

    from ..core.data.discover import find_by_name
    from ..core.data.label_reading import read_labels
    from ..core.evaluation.study.shape import measure_shape
    from ..core.evaluation.study.shape_table import check_table, write_shapes

    check_table(csv, overwrite=overwrite)
    console = make_console(stderr=True)
    found = find_by_name("labels", *masks)
    failures = [str(problem) for problem in (*found.problems, *found.empty)]
    for failure in failures:
        _print_failure(failure, console)
    shapes: dict[str, Shape] = {}
    for name, path in track(found.patients.items(), "Measuring", console=console, transient=True):
        try:
            shapes[name] = measure_shape(read_labels(path))
        except LggSegError as error:
            failures.append(str(error))
            _print_failure(failures[-1], console)
    if shapes:
        write_shapes(csv, shapes, overwrite=overwrite)
        _show_shapes(shapes)
    empty = sum(not shape.voxels for shape in shapes.values())
    summary = f"{len(shapes)} of {len(shapes) + len(failures)} patients measured, {empty} without tumour."
    print(f"{summary} The table is {csv.resolve()}" if shapes else summary)  # noqa: T201 - the result
    if failures:
        raise typer.Exit(1)


def associate(
    shapes: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A table written by shape.")],
    clusters: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="Genomic clusters by patient, as in the dataset's data.csv."
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results to this file.")
    ] = None,
) -> None:
    """Test the shape features against genomic clusters, as the original study did."""
    import dataclasses

    from ..core.evaluation.study.associate import associate as test
    from ..core.evaluation.study.associate import read_clusters
    from ..core.evaluation.study.shape_table import read_shapes

    study = test(read_shapes(shapes), read_clusters(clusters))
    _show_study(study, clusters)
    if json_file is not None:
        write_text(json_file, json.dumps(dataclasses.asdict(study), indent=2) + "\n")


def _print_failure(sentence: str, console: Console) -> None:
    console.print(f"Failed: {sentence}", style="red", markup=False, soft_wrap=True)


def _show_shapes(shapes: dict[str, Shape]) -> None:
    from rich.table import Table

    from ..core.evaluation.study.shape import FEATURES
    from ..core.evaluation.study.shape_table import NO_TUMOUR

    table = Table("Patient", title="Shape features")
    for name in ("BEVR", "ASD", "MF", "Slice", "Voxels"):
        table.add_column(name, justify="right")
    for name, shape in shapes.items():
        if shape.voxels:
            features = [f"{getattr(shape, feature):.4f}" for feature in FEATURES]
            table.add_row(name, *features, str(shape.slice), f"{shape.voxels:,}")
        else:
            table.add_row(name, NO_TUMOUR, "", "", "", "0")
    make_console().print(table)


def _show_study(study: Study, clusters: Path) -> None:
    from rich.table import Table

    from ..core.evaluation.study.associate import STUDY_LEVEL

    console = make_console()
    tests = len(study.associations)
    table = Table(title="Fisher's exact test: feature above its median, by cluster")
    for name in ("Clusters", "Feature", "Patients", "p", f"p x {tests}", "Above the median"):
        table.add_column(name)
    for test in study.associations:
        high = ", ".join(
            f"{name}: {test.above_median[name]} of {size}" for name, size in test.cluster_sizes.items()
        )
        p = f"{test.p:.3g}{' *' if test.p < STUDY_LEVEL else ''}"
        table.add_row(
            test.cluster, test.feature.upper(), str(test.patients), p, f"{test.corrected:.3g}", high
        )
    console.print(table)
    console.print(f"* below {STUDY_LEVEL}, the original study's level (0.05 / 10 tests).")
    if study.r2 is not None:
        console.print(
            f"Low BEVR as a test for RNASeq cluster R2: AUC {study.r2.auc:.3f} (95 % interval "
            f"{study.r2.lower:.3f} to {study.r2.upper:.3f}); {study.r2.positive} of {study.r2.patients} "
            "patients are in R2.",
            soft_wrap=True,
        )
    for name in study.without_tumour:
        console.print(f"Not counted: {name} has no tumour.", markup=False, soft_wrap=True)
    for name in study.unmatched:
        console.print(f"Not counted: {name} is not in {clusters}.", markup=False, soft_wrap=True)
