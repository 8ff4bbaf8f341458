"""Command-line options made from an options dataclass, so that no default, limit or help is written twice."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from ..core.choices import OptionsError, Threshold, parse_threshold


def takes_options(
    options: type[Any],
    *,
    only: Collection[str] | None = None,
    metavars: Mapping[str, str] | None = None,
    about_default: Callable[[str], str] = lambda _: "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command that takes ``options``: the fields of a dataclass become its options.

    Parameters
    ----------
    options : type
        A frozen dataclass whose fields are described by :func:`napari_lgg_seg.core.choices.option`.
    only : collection of str, optional
        The fields that become options; all by default.
    metavars : mapping of str to str, optional
        What stands for a field's value in the help, if not its type.
    about_default : callable
        A sentence about the default of a field whose default is None; added to its help.
    """
    fields = [f for f in dataclasses.fields(options) if only is None or f.name in only]
    hints = get_type_hints(options)

    def parameter(field: dataclasses.Field[Any]) -> inspect.Parameter:
        text = field.metadata["help"]
        if field.default is None:
            text = f"{text} {about_default(field.name)}".rstrip()
        kind: Any = hints[field.name]
        more: dict[str, Any] = {"metavar": (metavars or {}).get(field.name)}
        lowest, highest = field.metadata["limits"]
        if lowest is not None or highest is not None:
            more |= {"min": lowest, "max": highest}
        if kind == Threshold | None:
            kind, more = Any, {"parser": threshold, "metavar": "auto|NUMBER"}
        names = [f"--{field.name.replace('_', '-')}"]  # or a flag would get a --no- form as well
        annotation: Any = Annotated[kind, typer.Option(*names, help=text, **more)]
        return inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation
        )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in signature.parameters.values()
            if p.name != "options"
        ]
        parameters = [*own, *map(parameter, fields)]

        @wraps(command)
        def run(**values: Any) -> None:
            chosen = options(**{f.name: values.pop(f.name) for f in fields})
            command(**values, options=chosen)

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def regular_file(value: Path | None) -> Path | None:
    """Callback of a path: refuse pipes and devices, which could be waited for without end."""
    if value is not None and value.exists() and not (value.is_file() or value.is_dir()):
        raise typer.BadParameter(f"{str(value)!r} is not a regular file.")
    return value


def not_nan(value: float) -> float:
    """Callback of a number with limits: refuse NaN, which is neither below nor above them."""
    if math.isnan(value):
        raise typer.BadParameter("nan is not a number.")
    return value


def threshold(text: str) -> Threshold:
    """Parse the value of ``--threshold``: a number or auto."""
    try:
        return parse_threshold(text)
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error


def with_settings(options: Any, settings: Sequence[str]) -> Any:
    """The options with settings of the form ``name=value`` made.

    Raises
    ------
    typer.BadParameter
        If a name is not a field of the options, or a value is not of its type or outside its limits.
    """
    hints, changes = get_type_hints(type(options)), {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in hints:
            known = ", ".join(f.name for f in dataclasses.fields(options))
            raise typer.BadParameter(
                f"{setting!r} is not NAME=VALUE with one of the names {known}.", param_hint="--set"
            )
        try:
            changes[name] = _converted(value.strip(), hints[name])
        except (ValueError, OptionsError) as error:
            raise typer.BadParameter(f"{value!r} is not a value of {name}.", param_hint="--set") from error
    try:
        return dataclasses.replace(options, **changes)
    except OptionsError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from error


def _converted(value: str, hint: Any) -> Any:
    """A typed value of an annotation such as ``int | None``."""
    if hint == Threshold | None:
        return parse_threshold(value)
    for kind in get_args(hint) or (hint,):
        if kind in (int, float, str):
            return kind(value)
        if get_origin(kind) is Literal or isinstance(kind, str):
            return value  # checked by the options themselves
    raise ValueError(value)


def settings_help(options: type[Any], names: Collection[str], about_default: Callable[[str], str]) -> str:
    """Help about options that are settings only, a paragraph each."""
    fields = (f for f in dataclasses.fields(options) if f.name in names)
    return "\n\n".join(f"{f.name}: {f.metadata['help']} {about_default(f.name)}".rstrip() for f in fields)
