"""Text that Qt shows as it is. By default, Qt guesses: a name such as ``<b>x`` would count as HTML."""

from __future__ import annotations

import re

from napari.utils import notifications
from qtpy.QtCore import Qt

#: Control characters but line breaks: napari also prints notifications to the terminal.
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def literal(text: str) -> str:
    """Text for a tooltip, a question or a notification, which Qt does not take for HTML.

    An invisible character is put behind what begins a tag or an entity. Labels of our own are set to plain
    text instead (:func:`.forms.wrap`).
    """
    text = _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return re.sub("[<&]", "\\g<0>\u2060", text) if Qt.mightBeRichText(text) else text


def show_info(text: str) -> None:
    """Show a notification."""
    notifications.show_info(literal(text))


def show_warning(text: str) -> None:
    """Show a warning."""
    notifications.show_warning(literal(text))


def show_error(text: str) -> None:
    """Show an error."""
    notifications.show_error(literal(text))
