"""A menu of devices: those that are present, once torch was asked, and whichever suits best."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from magicgui.widgets import ComboBox
from napari.qt.threading import create_worker

from ...preferences import preferences

_AUTO = "auto"


class DeviceChooser:
    """A combo box of devices; it begins with the preferred one.

    Parameters
    ----------
    tooltip : str
        What a device is for.

    Attributes
    ----------
    combo : ComboBox
        The menu.
    """

    def __init__(self, tooltip: str) -> None:
        preferred = preferences().device
        self._devices = [("Auto", _AUTO)]
        if preferred != _AUTO:  # until it is known whether it is there
            self._devices.append((preferred.upper(), preferred))
        self.combo = ComboBox(
            label="Device", choices=lambda _: self._devices, value=preferred, tooltip=tooltip
        )
        self._looking: Any = None

    def look(self) -> None:
        """Ask torch, in a worker since importing it takes a while, which devices are present."""
        self._looking = create_worker(present_devices, _connect={"returned": self._show})

    def close(self) -> None:
        """The widget is gone: nobody wants to know."""
        if self._looking is not None:
            with suppress(RuntimeError):  # at the program's end Qt may have taken the signals away already
                self._looking.returned.disconnect(self._show)

    def _show(self, present: list[tuple[str, str]]) -> None:
        self._looking = None
        chosen = self.combo.value
        self._devices = [(f"Auto ({present[0][0]})", _AUTO), *present]
        self.combo.reset_choices()
        self.combo.value = chosen if chosen in self.combo.choices else _AUTO


def present_devices() -> list[tuple[str, str]]:
    """Names for people and for torch of the devices present."""
    from ...core import devices

    return [
        (devices.describe_device(devices.choose_device(name)), name) for name in devices.available_devices()
    ]
