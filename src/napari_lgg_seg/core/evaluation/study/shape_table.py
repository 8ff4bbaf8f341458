"""The CSV table of patients' shape features."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import PatientError
from ..tables import check_file, read_csv, write_csv
from .shape import FEATURES, Shape

#: The note on a mask without tumour.
NO_TUMOUR = "no tumour"

_COLUMNS = ("patient", *(field.name for field in dataclasses.fields(Shape)), "note")
_NUMBER = re.compile(r"\+?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)


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
        If the name does not end in .csv, the file exists and ``overwrite`` is not set, or it cannot be
        written.
    """
    path = Path(path)
    check_file(path, ".csv", overwrite=overwrite)
    rows = (
        [patient, *dataclasses.astuple(shape), "" if shape.voxels else NO_TUMOUR]
        for patient, shape in shapes.items()
    )
    write_csv(path, _COLUMNS, rows)


def read_shapes(
    path: str | os.PathLike[str], on_problem: Callable[[str], object] | None = None
) -> dict[str, Shape]:
    """Read a table written by :func:`write_shapes`.

    Parameters
    ----------
    path : path
        The CSV file; one that a spreadsheet has saved again, with decimal commas, is read as well.
    on_problem : callable, optional
        Called with one sentence for each row with an invalid value, which is then left out. Without it, such
        a row is an error.

    Returns
    -------
    dict of str to Shape
        By patient, in the order of the table.

    Raises
    ------
    PatientError
        If the file cannot be read, lacks a column, lists a patient twice, or has no valid row.
    """
    shapes: dict[str, Shape] = {}
    problems = []
    for line, row in read_csv(path, _COLUMNS[:-1]):
        name = row["patient"]
        if name in shapes:
            raise PatientError(f"{path} lists {name} twice; write the table again with shape.")
        try:
            shapes[name] = _shape(row)
        except ValueError as error:
            problems.append(
                f"{path} has an invalid value in line {line} ({error}); write the table again with shape."
            )
    if problems and (on_problem is None or not shapes):
        raise PatientError(problems[0])
    for problem in problems:
        assert on_problem is not None
        on_problem(problem)
    return shapes


def _shape(row: Mapping[str, str]) -> Shape:
    """The features of a row; raises ValueError if one of them is impossible."""
    if not row["patient"].strip():
        raise ValueError("no patient's name")
    bevr, asd, mf = (_number(row[name], name) for name in FEATURES)
    index, voxels = (_whole(row[name], name) for name in ("slice", "voxels"))
    if voxels is None:
        raise ValueError("no number of voxels")
    if voxels and None in (bevr, asd, mf, index):
        raise ValueError("a tumour without features")
    if bevr is not None and not 0 < bevr <= 1:
        raise ValueError(f"a bevr of {bevr:g}, which is not between 0 and 1")
    return Shape(bevr, asd, mf, index, voxels)


def _number(text: str, column: str) -> float | None:
    """A number with a decimal point or comma, 0 or more; None for an empty field."""
    text = text.strip()
    number = float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else math.nan
    if text and not math.isfinite(number):
        raise ValueError(f"{column} is {text[:40]!r}, not a number of 0 or more")
    return number if text else None


def _whole(text: str, column: str) -> int | None:
    """A whole number; None for an empty field. Thousands separators are refused."""
    text = text.strip()
    if text and not re.fullmatch(r"[0-9]{1,15}(\.0)?", text):
        raise ValueError(f"{column} is {text[:40]!r}, not a whole number of 0 or more")
    return int(text.removesuffix(".0")) if text else None
