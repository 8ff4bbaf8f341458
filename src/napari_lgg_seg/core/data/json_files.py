"""Reads JSON that may be damaged or come from elsewhere, and checks it against a dataclass.

The type hints of the dataclass are the schema, ``Annotated`` ones with their limits; pydantic checks them
without converting anything, so that "1" is no number. pydantic is imported on first use.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import Ge, Le, MinLen

from .regular_files import read_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

#: Common limits of fields.
Count = Annotated[int, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1 + 1e-6)]  # a mean may exceed 1 by rounding
NotNegative = Annotated[float, Ge(0)]
#: Seconds since the epoch, at most those of the year 3000, which ``time.localtime`` can convert.
Time = Annotated[float, Ge(0), Le(32_503_680_000)]
Names = tuple[Annotated[str, MinLen(1)], ...]

_LARGEST = 2**63
#: Longest excerpt of a wrong value in an error message.
_EXCERPT = 40


class JsonError(ValueError):
    """JSON that is not valid or not as expected; the message is a phrase that names the field."""


def parse(text: str) -> Any:
    """Parse JSON strictly: no NaN or infinity, no 64-bit overflow, and no field twice.

    Raises
    ------
    JsonError
        If the text is anything else.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except JsonError:
        raise
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error
    except ValueError as error:
        raise JsonError(f"it is not JSON: {error}" if text.strip() else "it is empty") from error


def build(kind: type[T], values: Any) -> T:
    """Make a dataclass, or anything else that pydantic knows, from parsed JSON.

    Raises
    ------
    JsonError
        If a field is missing, or has another type or a value outside its limits.
    """
    from pydantic import ValidationError

    schema: Any = kind  # hashable, which mypy does not know
    try:
        # As JSON, in which a list can be a tuple although nothing else is converted.
        text = json.dumps(values, allow_nan=False)
        built: T = _adapter(schema).validate_json(text, strict=True)
    except ValidationError as error:
        raise JsonError(_phrase(error, values)) from error
    except (TypeError, ValueError) as error:  # ValidationError is a ValueError
        raise JsonError(f"it holds something that is not JSON: {error}") from error
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error
    return built


def read_values(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises
    ------
    JsonError
        If it is not a regular file, cannot be read, or holds something else.
    """
    try:
        values = parse(read_text(path))
    except OSError as error:
        raise JsonError(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise JsonError("it is not UTF-8 text") from error
    if not isinstance(values, dict):
        raise JsonError("it does not hold a JSON object")
    return values


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _phrase(error: ValidationError, values: Any) -> str:
    """The first problem, as "threshold: input should be less than or equal to 1, not 1.5"."""
    first: Mapping[str, Any] = error.errors(include_url=False)[0]
    field, message = "", first["msg"][:1].lower() + first["msg"][1:].rstrip(".")
    for step in first["loc"]:
        try:
            values = values[step]
        except (LookupError, TypeError):
            if first["type"] != "missing":  # it names an alternative of the type, not a field
                continue
        field += f"[{step}]" if isinstance(step, int) else f".{step}"
    if first["type"] not in ("missing", "json_invalid", "unexpected_keyword_argument", "too_short"):
        value = repr(first["input"])
        message += f", not {value if len(value) <= _EXCERPT else value[:_EXCERPT] + '...'}"
    return " ".join(f"{field[1:]}: {message}".removeprefix(": ").split())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise JsonError(f"{next(name for name in names if names.count(name) > 1)!r} appears twice")
    return values


def _refuse_constant(text: str) -> float:
    raise JsonError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise JsonError(f"{text[:_EXCERPT]} is too large a number")
    return value


def _integer(text: str) -> int:
    # By length first: Python refuses to convert very long ones.
    if len(text) > 20 or abs(value := int(text)) >= _LARGEST:
        raise JsonError(f"{text[:_EXCERPT]} is too large a number")
    return value
