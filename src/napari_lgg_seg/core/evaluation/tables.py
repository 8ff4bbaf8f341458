"""Results as text: the only code that writes CSV and JSON files of results, and that reads CSV files."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from ..atomic import replacing
from ..data.regular_files import read_bytes
from ..errors import ExportError, PatientError

#: Text that a spreadsheet would take for a formula (OWASP, "CSV injection"), behind any number of quotes:
#: a text that starts like the neutralised form is neutralised as well, so that reading is unambiguous.
#: The last four are the full-width forms of the first four.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
#: Characters that some spreadsheet takes for a delimiter: text with one of them is quoted.
_QUOTED = re.compile(r'[",;|\t\r\n]')
_DELIMITERS = (",", ";", "\t", "|")
_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


# --- writing -----------------------------------------------------------------------------------


def check_file(path: Path, suffix: str, *, overwrite: bool = True) -> None:
    """Check before the work starts that a file of results may be written.

    Parameters
    ----------
    path : Path
        The file.
    suffix : str
        What the name of an existing file must end in, such as ``.csv``: so that no image, mask or model is
        replaced by mistake.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ExportError
        If the path is a folder, a pipe or a device, or the file exists and its name does not end in the
        suffix, or ``overwrite`` is not set.
    """
    kind = f"{suffix[1:].upper()} file"
    if path.exists() and not path.is_file():
        raise ExportError(
            f"{path} is a {'folder' if path.is_dir() else 'pipe or device'}; give the name of a {kind}."
        )
    if path.exists() and path.suffix.lower() != suffix:
        raise ExportError(f"{path} exists already and is no {kind}; choose a name that ends in {suffix}.")
    if path.exists() and not overwrite:
        raise ExportError(f"{path} exists already; choose another file, or allow overwriting.")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file (UTF-8, commas) atomically.

    Text that a spreadsheet would evaluate as a formula gets a single quote in front, which
    :func:`read_csv` removes. Numbers stay as they are; None, NaN and infinity are empty.

    Parameters
    ----------
    path : Path
        The file; an existing one is replaced.
    header : sequence of str
        Titles of the columns.
    rows : iterable of sequence
        Values of each row, in the order of the header.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    _write(path, "".join(",".join(map(_cell, row)) + "\n" for row in (header, *rows)))


def _cell(value: object) -> str:
    if isinstance(value, Real):
        return str(value) if math.isfinite(value) else ""
    text = "" if value is None else str(value)
    if _FORMULA.match(text):
        text = f"'{text}"
    if _QUOTED.search(text) or text != text.strip():
        text = '"' + text.replace('"', '""') + '"'
    return text


def as_json(values: object) -> str:
    """Values as JSON text; NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, float) and not math.isfinite(values):
        return None
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return values


def write_json(path: Path, values: object) -> None:
    """Write values as a JSON file, atomically.

    Raises
    ------
    ExportError
        If the disk is full or the folder cannot be written.
    """
    _write(path, as_json(values) + "\n")


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        # File names that are not valid Unicode keep their bytes visible, as \udcXX.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


# --- reading -----------------------------------------------------------------------------------


def read_csv(path: str | os.PathLike[str], columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read some columns of a table that a spreadsheet or :func:`write_csv` wrote.

    The delimiter (comma, semicolon, tab or bar) is the one with which the header has all the columns.
    The text is UTF-8, UTF-16 with a byte-order mark, or else Windows-1252.

    Parameters
    ----------
    path : path
        The file, with a header row.
    columns : sequence of str
        The columns to read.

    Returns
    -------
    list of tuple of int and dict
        Number of the line, and column -> value, for each row that is not empty.

    Raises
    ------
    PatientError
        If the file cannot be read, has no rows, lacks one of the columns or has it twice, or if a row has
        more or fewer fields than the header.
    """
    text = _decoded(Path(path))
    lines = text.splitlines(keepends=True)
    if lines and re.fullmatch(r"sep=.\s*", lines[0]):  # Excel's
        text, lines = "".join(lines[1:]), lines[1:]
    first = next((line for line in lines if line.strip()), "")
    delimiter = next((d for d in _DELIMITERS if set(columns) <= set(_fields(first, d))), None)
    delimiter = delimiter or max(_DELIMITERS, key=first.count)
    rows = _rows(path, text, delimiter)
    header = next(rows, (1, []))[1]
    for column in columns:
        if header.count(column) != 1:
            wrong = "two columns" if column in header else "no column"
            raise PatientError(f"{path} has {wrong} {column}; choose a table with {', '.join(columns)}.")
    places = {column: header.index(column) for column in columns}
    found = []
    for line, row in rows:
        if len(row) < len(header) or any(row[len(header) :]):
            raise PatientError(
                f"{path} has {len(row)} fields in line {line} but {len(header)} columns; correct that line."
            )
        found.append((line, {name: _restored(row[place]) for name, place in places.items()}))
    if not found:
        raise PatientError(f"{path} lists no patients; choose another file.")
    return found


def _decoded(path: Path) -> str:
    """The text of a file."""
    try:
        data = read_bytes(path)
    except OSError as error:
        reason = error.strerror or error
        raise PatientError(
            f"{path} cannot be read as a CSV table ({reason}); choose another file."
        ) from error
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), None)
    for name in (encoding,) if encoding else ("utf-8", "cp1252", "latin-1"):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
        break
    raise PatientError(
        f"{path} cannot be read as a CSV table (it is not plain text); save it as CSV in UTF-8."
    )


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _rows(path: str | os.PathLike[str], text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row that is not empty; fields of the header without whitespace."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = True
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, [field.strip() for field in row] if header else row
                header = False
    except csv.Error as error:
        raise PatientError(
            f"{path} cannot be read as a CSV table (line {reader.line_num}: {error}); check its quotes."
        ) from error


def _restored(text: str) -> str:
    """The text of a cell before :func:`write_csv` neutralised it."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
