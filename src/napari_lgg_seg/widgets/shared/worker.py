"""What the widgets share: a worker for long work, whose failures come back as sentences."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from ...core.errors import LggSegError

Yielded = TypeVar("Yielded")
Returned = TypeVar("Returned")


@dataclass(frozen=True)
class Failure:
    """Why a piece of work ended early, in one sentence for the user."""

    sentence: str


def returns_failure(
    work: Callable[..., Generator[Yielded, None, Returned]],
) -> Callable[..., Generator[Yielded, None, Returned | Failure]]:
    """Make a generator return a :class:`Failure` where it would raise.

    napari's generator workers lose a RuntimeError without a word, and torch raises little else; and
    what they do not lose, napari shows as a traceback. Our own errors are sentences already. Any
    other exception but RuntimeError is a bug of ours and goes its usual way.
    """

    def softly(*args: Any, **kwargs: Any) -> Generator[Yielded, None, Returned | Failure]:
        try:
            return (yield from work(*args, **kwargs))
        except LggSegError as error:
            return Failure(str(error))
        except MemoryError:
            return Failure("There is not enough memory; close other images or programs and try again.")
        except RuntimeError as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            return Failure(f"The computation failed ({reason}); try another device.")

    return softly
