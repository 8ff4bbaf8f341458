"""What commands print besides their results."""

from __future__ import annotations

import warnings

from napari_lgg_seg.cli.console import show_warnings_plainly
from napari_lgg_seg.core.errors import LggSegWarning


def test_warnings_are_one_plain_line_each(capsys, monkeypatch):
    others = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: others.append(str(message)))
    warnings.simplefilter("always")
    show_warnings_plainly()
    for text in ("The masks of [A] are soft.", "Another text.", "The masks of [A] are soft."):
        warnings.warn(text, LggSegWarning, stacklevel=1)
    warnings.warn("for developers", UserWarning, stacklevel=1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == ["Warning: The masks of [A] are soft.", "Warning: Another text."]
    assert others == ["for developers"]
