"""The commands ``shape`` and ``associate``: the original study's shape features and their associations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import counted, failure_sentence
from .console import PlainConsole, make_console, make_progress, make_table
from .options import regular_file

if TYPE_CHECKING:
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
    from ..core.data.discover import find_by_name
    from ..core.data.label_reading import read_stored_labels
    from ..core.evaluation.study.shape import measure_shape
    from ..core.evaluation.study.shape_table import write_shapes
    from ..core.evaluation.tables import check_file

    check_file(csv, ".csv", overwrite=overwrite)
    console = make_console(stderr=True)
    found = find_by_name("labels", *masks)
    failures = [str(problem) for problem in (*found.problems, *found.empty)]
    for failure in failures:
        _print_failure(failure, console)
    shapes: dict[str, Shape] = {}
    with make_progress(console) as progress:
        for name, path in progress.track(found.patients.items(), description="Measuring"):
            try:
                stored = read_stored_labels(path).as_tumour()
                shapes[name] = measure_shape(stored.labels, stored.slice_numbers)
            except Exception as error:  # noqa: BLE001 - one patient must not end the others
                failures.append(failure_sentence(path, error))
                _print_failure(failures[-1], console)
    if shapes:
        write_shapes(csv, shapes, overwrite=overwrite)
        _show_shapes(shapes)
    empty = sum(not shape.voxels for shape in shapes.values())
    patients = counted(len(shapes) + len(failures), "patient")
    table = f"The table is {csv.resolve()}" if shapes else "No table is written."
    make_console().say(f"{len(shapes)} of {patients} measured, {empty} without tumour. {table}")
    if failures:
        raise typer.Exit(1)


def associate(
    shapes: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, callback=regular_file, help="A table written by shape."),
    ],
    clusters: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            callback=regular_file,
            help="Genomic clusters by patient, as in the dataset's data.csv.",
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
    from ..core.evaluation.tables import check_file, write_json

    if json_file is not None:
        check_file(json_file, ".json")
    failed: list[str] = []
    study = test(read_shapes(shapes, failed.append), read_clusters(clusters))
    _show_study(study, clusters)
    for sentence in failed:
        make_console(stderr=True).say(f"Not counted: {sentence}", style="red")
    if json_file is not None:
        write_json(json_file, {**dataclasses.asdict(study), "failed": failed})
    if failed:
        raise typer.Exit(1)


def _print_failure(sentence: str, console: PlainConsole) -> None:
    console.say(f"Failed: {sentence}", style="red")


def _show_shapes(shapes: dict[str, Shape]) -> None:
    from ..core.evaluation.study.shape import FEATURES
    from ..core.evaluation.study.shape_table import NO_TUMOUR

    table = make_table("Patient", title="Shape features")
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
    from ..core.evaluation.study.associate import STUDY_LEVEL

    console = make_console()
    tests = len(study.associations)
    columns = ("Clusters", "Feature", "Patients", "p", f"p x {tests}", "Above the median")
    table = make_table(*columns, title="Fisher's exact test: feature above its median, by cluster")
    for test in study.associations:
        high = ", ".join(
            f"{name}: {test.above_median[name]} of {size}" for name, size in test.cluster_sizes.items()
        )
        p = f"{test.p:.3g}{' *' if test.p < STUDY_LEVEL else ''}"
        table.add_row(
            test.cluster, test.feature.upper(), str(test.patients), p, f"{test.corrected:.3g}", high
        )
    console.print(table)
    console.say(f"* below {STUDY_LEVEL}, the original study's level (0.05 / 10 tests).")
    if study.r2 is not None:
        console.say(
            f"Low BEVR as a test for RNASeq cluster R2: AUC {study.r2.auc:.3f} (95 % interval "
            f"{study.r2.lower:.3f} to {study.r2.upper:.3f}); {study.r2.positive} of "
            f"{counted(study.r2.patients, 'patient')} {'is' if study.r2.positive == 1 else 'are'} in R2."
        )
    for name in study.without_tumour:
        console.say(f"Not counted: {name} has no tumour.")
    for name in study.unmatched:
        console.say(f"Not counted: {name} is not in {clusters}.")
