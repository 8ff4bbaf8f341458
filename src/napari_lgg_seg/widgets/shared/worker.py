"""Workers whose failures come back as messages for the user."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from ...core.errors import LggSegError

Yielded = TypeVar("Yielded")
Returned = TypeVar("Returned")


@dataclass(frozen=True)
class Failure:
    """Why a worker ended early, in one sentence for the user."""

    message: str


def returns_failure(
    work: Callable[..., Generator[Yielded, None, Returned]],
) -> Callable[..., Generator[Yielded, None, Returned | Failure]]:
    """Make a generator return a :class:`Failure` where it would raise.

    napari's generator workers swallow RuntimeError, which torch raises for almost everything, and show
    other exceptions as tracebacks. Exceptions that are neither ours nor RuntimeError are bugs and propagate.
    """

    @wraps(work)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Yielded, None, Returned | Failure]:
        try:
            return (yield from work(*args, **kwargs))
        except LggSegError as error:
            return Failure(str(error))
        except MemoryError:
            return Failure("There is not enough memory; close other images or programs and try again.")
        except RuntimeError as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            return Failure(f"The computation failed ({reason}); try another device.")

    return wrapper


def unexpected(error: Exception) -> str:
    """A message about an exception that is none of ours."""
    return f"{error} ({type(error).__name__})."
