"""The CSV table of patients' shape features."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np

from ...atomic import replacing
from ...errors import ExportError, PatientError
from .shape import FEATURES, Shape

#: The note on a mask without tumour.
NO_TUMOUR = "no tumour"

_COLUMNS = ("patient", *(field.name for field in fields(Shape)), "note")


def check_table(path: Path, *, overwrite: bool) -> None:
    """Check that a table may be written.

    Parameters
    ----------
    path : Path
        The file.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ExportError
        If the file exists and ``overwrite`` is not set, or if the path is a folder.
    """
    if path.is_dir():
        raise ExportError(f"{path} is a folder; give the name of a CSV file.")
    if path.exists() and not overwrite:
        raise ExportError(f"{path} exists already; choose another file, or allow overwriting.")


def write_shapes(
    path: str | os.PathLike[str], shapes: Mapping[str, Shape], *, overwrite: bool = False
) -> None:
    """Write patients' shape features as a CSV table, atomically.

    Parameters
    ----------
    path : path
        The file.
    shapes : mapping of str to Shape
        By patient, in the order of the table.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    ExportError
        If the file exists and ``overwrite`` is not set, or cannot be written.
    """
    path = Path(path)
    check_table(path, overwrite=overwrite)
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for patient, shape in shapes.items():
            values = [getattr(shape, field.name) for field in fields(Shape)]
            note = "" if shape.voxels else NO_TUMOUR
            writer.writerow([patient, *("" if value is None else value for value in values), note])


def read_shapes(path: str | os.PathLike[str]) -> dict[str, Shape]:
    """Read a table written by :func:`write_shapes`.

    Parameters
    ----------
    path : path
        The CSV file.

    Returns
    -------
    dict of str to Shape
        By patient, in the order of the table.

    Raises
    ------
    PatientError
        If the file cannot be read, lacks a column, contains an invalid number, or lists a patient twice.
    """
    shapes: dict[str, Shape] = {}
    for line, row in enumerate(read_table(path, _COLUMNS[:-1]), start=2):
        try:
            values = {name: float(row[name]) if row[name] else None for name in FEATURES}
            index, voxels = int(row["slice"]) if row["slice"] else None, int(row["voxels"])
            if voxels and not all(value is not None and np.isfinite(value) for value in values.values()):
                raise ValueError("a tumour without features")
        except ValueError as error:
            raise PatientError(
                f"{path} has an invalid value in line {line} ({error}); write the table again with shape."
            ) from error
        if row["patient"] in shapes:
            raise PatientError(f"{path} lists {row['patient']} twice; write the table again with shape.")
        shapes[row["patient"]] = Shape(**values, slice=index, voxels=voxels)
    return shapes


def read_table(path: str | os.PathLike[str], columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read some columns of a CSV file.

    Parameters
    ----------
    path : path
        The file, UTF-8 with a header row.
    columns : tuple of str
        The columns to read.

    Returns
    -------
    list of dict
        Column -> value for each row, without surrounding whitespace; missing fields are empty.

    Raises
    ------
    PatientError
        If the file cannot be read, has no rows, or lacks one of the columns.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            header = reader.fieldnames or ()
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PatientError(f"{path} cannot be read as a CSV table ({error}); choose another file.") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise PatientError(f"{path} has no column {missing[0]}; choose a table with {', '.join(columns)}.")
    if not rows:
        raise PatientError(f"{path} lists no patients; choose another file.")
    return [{name: (row[name] or "").strip() for name in columns} for row in rows]
