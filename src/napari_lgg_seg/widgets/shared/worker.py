"""Workers whose failures and warnings come back as messages for the user.

The reader imports this module without a window, so napari is imported inside functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from ...core.errors import LggSegError, LggSegWarning, reason

#: Characters of a path that a message shows; longer ones are cut off at the start.
_LONGEST_PATH = 200

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
    other exceptions as tracebacks. Other exceptions than ours, of the system and RuntimeError are bugs, and
    propagate.
    """

    @wraps(work)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Yielded, None, Returned | Failure]:
        try:
            return (yield from work(*args, **kwargs))
        except LggSegError as error:
            return Failure(str(error))
        except OSError as error:
            return Failure(cannot_be_read(error))
        except MemoryError:
            return Failure("There is not enough memory; close other images or programs and try again.")
        except RuntimeError as error:
            return Failure(f"The computation failed ({reason(error)}); try another device.")

    return wrapper


def cannot_be_read(error: OSError) -> str:
    """A message about a file or folder that the system refuses: without permission, too long a name..."""
    path = str(error.filename or "A file or folder")
    shown = path if len(path) <= _LONGEST_PATH else f"...{path[-_LONGEST_PATH:]}"
    return f"{shown} cannot be read ({error.strerror or reason(error)}); check its name and permissions."


def unexpected(error: Exception) -> str:
    """A message about an exception that is none of ours."""
    return f"{error} ({type(error).__name__})."


# --- warnings ----------------------------------------------------------------------------------

#: Texts that were shown since work was last started.
_shown: set[str] = set()


def create_worker(
    work: Callable[..., Any], *args: Any, _connect: dict[str, Any] | None = None, **kwargs: Any
) -> Any:
    """Napari's ``create_worker``, which also shows warnings for the user; napari's own drops them all."""
    from napari.qt.threading import create_worker as create

    show_warnings()
    connect = {**(_connect or {}), "warned": lambda warning: _show(*warning[:2])}
    return create(work, *args, _connect=connect, **kwargs)


def show_warnings() -> None:
    """From now on, show warnings for the user as notifications, each text once until the next call.

    This is not undone: workers that overlap put each other's ways to show warnings back in place, so that
    only one that is there before and after all of them hears everything.
    """
    _shown.clear()
    before = warnings.showwarning
    if getattr(before, "shows_notifications", False):
        return

    def showwarning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if not _show(message, category):
            before(message, category, *place, **more)

    showwarning.shows_notifications = True  # type: ignore[attr-defined]
    warnings.showwarning = showwarning
    warnings.simplefilter("always", LggSegWarning)


def _show(message: Any, category: type[Warning]) -> bool:
    """Show a warning, if it is for the user; returns whether it is."""
    if not issubclass(category, LggSegWarning):
        return False
    text = str(message)
    if text not in _shown:
        from .plain_text import show_warning

        _shown.add(text)
        show_warning(text)
    return True
