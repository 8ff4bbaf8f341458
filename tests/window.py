"""What tests of the window share: wait for threads, compare layers, check messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QLabel


def threads_done() -> bool:
    """Whether no worker is running."""
    return bool(QThreadPool.globalInstance().activeThreadCount() == 0)


def assert_message(text: str) -> None:
    """A message for the user: complete sentences, without a traceback."""
    assert text.endswith("."), text
    assert "\n" not in text
    assert "Traceback" not in text


def layer_names(viewer: Any) -> list[str]:
    """Names of all layers."""
    return [layer.name for layer in viewer.layers]


def layer_of(viewer: Any, role: str, patient: str | None = None) -> Any:
    """The only layer with a role, of a patient if there are several."""
    (layer,) = [
        layer
        for layer in viewer.layers
        if layer.metadata["lgg"]["role"] == role
        and (patient is None or layer.metadata["lgg"]["patient"] == patient)
    ]
    return layer


def contents(viewer: Any) -> dict[str, Any]:
    """A copy of the values of each layer, by its name."""
    return {layer.name: np.array(layer.data) for layer in viewer.layers}


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Whether two results of :func:`contents` are equal."""
    assert list(before) == list(after)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)


def visible_text(widget: Any) -> str:
    """The text of all labels of a widget."""
    return "\n".join(label.text() for label in widget.native.findChildren(QLabel))


def raising(error: BaseException) -> Callable[..., Any]:
    """A function that raises an exception, whatever its arguments."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail
