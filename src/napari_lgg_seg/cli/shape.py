"""The commands ``shape`` and ``associate``: the original study's shape features and what they go with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import LggSegError, PatientError
from .console import make_console

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.evaluation.associate import Study
    from ..core.evaluation.shape import Shape


def shape(
    masks: Annotated[
        list[Path],
        typer.Argument(
            exists=True, help="Masks in any format that segment writes: patient folders, or folders of them."
        ),
    ],
    csv: Annotated[Path, typer.Option("--csv", help="The table to write, one line for each patient.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a table of before.")] = False,
) -> None:
    """Measure the original study's shape features: BEVR, ASD and MF of each patient's mask.

    BEVR: tumour volume / volume of the smallest ellipsoid around it. ASD and MF: angular standard deviation
    and fluctuation of the margin, in the slice with the largest tumour area (counted from 0, as in napari).
    """
    from rich.progress import track

    from ..core.data.label_files import read_labels
    from ..core.evaluation.shape import check_table, measure_shape, write_shapes

    check_table(csv, overwrite=overwrite)
    console = make_console(stderr=True)
    patients, failures = _find_masks(masks)
    for failure in failures:
        _say_failed(failure, console)
    shapes: dict[str, Shape] = {}
    for name, path in track(patients.items(), "Measuring", console=console, transient=True):
        try:
            shapes[name] = measure_shape(read_labels(path))
        except LggSegError as error:
            failures.append(error)
            _say_failed(error, console)
    if shapes:
        write_shapes(csv, shapes, overwrite=overwrite)
        _show_shapes(shapes)
    empty = sum(not shape.voxels for shape in shapes.values())
    summary = f"{len(shapes)} of {len(shapes) + len(failures)} patients measured, {empty} without tumour."
    print(f"{summary} The table is {csv.resolve()}" if shapes else summary)  # noqa: T201 - the result
    if failures:
        raise typer.Exit(1)


def associate(
    shapes: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A table that shape wrote.")],
    clusters: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="Genomic clusters by patient, as in the dataset's data.csv."
        ),
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file as well.")
    ] = None,
) -> None:
    """Test the shape features against genomic clusters, as the original study did."""
    import dataclasses

    from ..core.atomic import replacing
    from ..core.evaluation.associate import associate as test
    from ..core.evaluation.associate import read_clusters
    from ..core.evaluation.shape import read_shapes

    study = test(read_shapes(shapes), read_clusters(clusters))
    _show_study(study, clusters)
    if json_file is not None:
        with replacing(json_file) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(study), indent=2) + "\n", encoding="utf-8")


def _find_masks(paths: Iterable[Path]) -> tuple[dict[str, Path], list[LggSegError]]:
    """Masks by patient among, or inside, the given paths, each once, and what is wrong with others."""
    found: dict[str, Path] = {}
    failures: list[LggSegError] = []
    for path in paths:
        here, broken = _masks_in(path)
        failures += broken
        if not here and not broken:
            failures.append(
                PatientError(f"{path} holds no masks; choose a patient's folder, or one of them.")
            )
        for name, masks in here.items():
            if found.setdefault(name, masks).resolve() != masks.resolve():
                failures.append(PatientError(f"{masks} holds {name} once more; measure it on its own."))
    return found, failures


def _masks_in(path: Path) -> tuple[dict[str, Path], list[LggSegError]]:
    """Masks by patient in a file or folder, and what is wrong with broken patients of it."""
    from ..core.data.discover import has_slices
    from ..core.data.label_files import find_labels

    if path.is_file():
        return {path.name.partition("_tumour.")[0]: path}, []
    try:
        return find_labels(path), []
    except LggSegError as error:
        if has_slices(path):
            return {}, [error]
    # One broken patient must not hide the others of the folder.
    found: dict[str, Path] = {}
    failures: list[LggSegError] = []
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            here, broken = _masks_in(folder)
            found |= here
            failures += broken
    return found, failures


def _say_failed(error: LggSegError, console: Console) -> None:
    console.print(f"Failed: {error}", style="red", markup=False, soft_wrap=True)


def _show_shapes(shapes: dict[str, Shape]) -> None:
    from rich.table import Table

    from ..core.evaluation.shape import FEATURES, NO_TUMOUR

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

    from ..core.evaluation.associate import STUDY_LEVEL

    console = make_console()
    tests = len(study.associations)
    table = Table(title="Fisher's exact test: feature above its median, by cluster")
    for name in ("Clusters", "Feature", "Patients", "p", f"p x {tests}", "Above the median"):
        table.add_column(name)
    for test in study.associations:
        high = ", ".join(f"{name}: {test.high[name]} of {test.of[name]}" for name in test.of)
        p = f"{test.p:.3g}{' *' if test.p < STUDY_LEVEL else ''}"
        table.add_row(
            test.cluster, test.feature.upper(), str(test.patients), p, f"{test.corrected:.3g}", high
        )
    console.print(table)
    console.print(f"* below {STUDY_LEVEL}, the original study's level (0.05 / 10 tests).")
    if study.r2 is not None:
        console.print(
            f"RNASeq cluster R2 against the others by its low BEVR: AUC {study.r2.auc:.3f} (95 % interval "
            f"{study.r2.lower:.3f} to {study.r2.upper:.3f}); R2 are {study.r2.positive} of "
            f"{study.r2.patients} patients.",
            soft_wrap=True,
        )
    for name in study.without_tumour:
        console.print(f"Not counted: {name} has no tumour.", markup=False, soft_wrap=True)
    for name in study.unmatched:
        console.print(f"Not counted: {name} is not in {clusters}.", markup=False, soft_wrap=True)
