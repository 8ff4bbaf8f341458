"""A menu of the devices that torch finds."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from magicgui.widgets import ComboBox
from napari.qt.threading import create_worker

from ...core import devices
from ...preferences import preferences

_AUTO = "auto"


class DeviceChooser:
    """A combo box of devices, with the preferred one selected at first.

    Parameters
    ----------
    tooltip : str
        Tooltip of the menu.

    Attributes
    ----------
    combo : ComboBox
        The menu.
    """

    def __init__(self, tooltip: str) -> None:
        preferred = preferences().device
        self._devices = [("Auto", _AUTO)]
        if preferred != _AUTO:  # until it is known whether it is present
            self._devices.append((preferred.upper(), preferred))
        self.combo = ComboBox(
            label="Device", choices=lambda _: self._devices, value=preferred, tooltip=tooltip
        )
        self._worker: Any = None

    def find_devices(self) -> None:
        """Ask torch which devices are present, in a worker since importing torch takes a while."""
        self._worker = create_worker(present_devices, _connect={"returned": self._show})

    def close(self) -> None:
        """Disconnect from the worker; the widget is gone."""
        if self._worker is not None:
            with suppress(RuntimeError):  # at exit, Qt may have deleted the signals already
                self._worker.returned.disconnect(self._show)

    def _show(self, present: list[tuple[str, str]]) -> None:
        self._worker = None
        chosen = self.combo.value
        self._devices = [(f"Auto ({present[0][0]})", _AUTO), *present]
        self.combo.reset_choices()
        self.combo.value = chosen if chosen in self.combo.choices else _AUTO


def present_devices() -> list[tuple[str, str]]:
    """Display name and torch's name of each device present."""
    return [
        (devices.describe_device(devices.choose_device(name)), name) for name in devices.available_devices()
    ]
