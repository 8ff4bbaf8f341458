"""A viewer with or without a display, small patients and models, and answers to dialogs."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_lgg_seg.core.data.patients import Patient

if TYPE_CHECKING:
    from qtpy.QtGui import QAction
    from qtpy.QtWidgets import QWidget

TIMEOUT_MS = 180_000  # for a busy machine; quiet ones need seconds

_WITHOUT_WINDOWS = ("offscreen", "minimal")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a real window need a display."""
    if os.environ.get("QT_QPA_PLATFORM", "") in _WITHOUT_WINDOWS:
        for item in items:
            if item.get_closest_marker("real_window"):
                item.add_marker(pytest.mark.skip(reason="there is no display"))


@pytest.fixture(autouse=True, scope="session")
def _fake_opengl() -> Iterator[None]:
    """Stand in for the two OpenGL functions that napari's layers call, where there is no OpenGL.

    Qt's offscreen platform has no OpenGL context. ``glGetString`` then returns None, in which napari
    searches for extensions, and ``glGetIntegerv`` returns 0 as the largest texture: both raise as soon as
    an image layer is added. Nothing is drawn there anyway, so any sensible value will do.
    """
    if os.environ.get("QT_QPA_PLATFORM", "") not in _WITHOUT_WINDOWS:
        yield
        return
    gl = pytest.importorskip("OpenGL.GL")
    text, numbers = gl.glGetString, gl.glGetIntegerv

    def get_numbers(name: Any) -> Any:
        value = numbers(name)
        return value if value is not None and np.any(value) else 2048

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gl, "glGetString", lambda name: text(name) or b"")
        patch.setattr(gl, "glGetIntegerv", get_numbers)
        yield


@pytest.fixture(autouse=True)
def _own_user_data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autosaved edits of the user are not offered to tests, nor mixed with theirs."""
    home = str(tmp_path_factory.mktemp("home"))
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, home)


@pytest.fixture(autouse=True)
def sessions_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of this test's records of unfinished reviews; the cache of summaries is its own, too."""
    from napari_lgg_seg.core.cohort import unfinished
    from napari_lgg_seg.widgets.cohort import widget as cohort
    from napari_lgg_seg.widgets.compare import widget as compare

    folder = tmp_path_factory.mktemp("user")
    for module in (cohort, compare):
        monkeypatch.setattr(module, "default_cache_file", lambda: folder / "patients.sqlite")
    monkeypatch.setattr(unfinished, "default_folder", lambda: folder / "sessions")
    return folder / "sessions"


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    """A viewer as plugins get it: a proxy with public attributes only."""
    from napari.settings import get_settings

    assert get_settings().config_path is None, "the tests would change the user's own settings"
    return make_napari_viewer_proxy()


@pytest.fixture
def prefer() -> Iterator[Callable[..., None]]:
    """Factory: set preferences in napari's settings, as the user does, until the end of the test."""
    from napari.settings import get_plugin_settings

    from napari_lgg_seg.preferences import PLUGIN, SECTIONS, Preferences

    settings = get_plugin_settings(PLUGIN)
    assert settings.config_path is None, "the tests would change the user's own settings"

    def prefer_(**values: Any) -> None:
        for name, value in values.items():
            section = next(section for section, names in SECTIONS.items() if name in names)
            setattr(getattr(settings, section), name, value)

    yield prefer_
    prefer_(**vars(Preferences()))


@pytest.fixture
def notices() -> Iterator[list[str]]:
    """Notifications that napari shows, as they come."""
    from napari.utils.notifications import notification_manager

    shown: list[str] = []

    def show(notification: Any) -> None:
        shown.append(str(notification.message))

    notification_manager.notification_ready.connect(show)
    yield shown
    notification_manager.notification_ready.disconnect(show)


@pytest.fixture
def wait_until(qtbot: Any) -> Callable[[Callable[[], bool]], None]:
    """Process Qt events until a condition holds."""
    return lambda condition: qtbot.waitUntil(condition, timeout=TIMEOUT_MS)


@pytest.fixture
def menu_action(viewer: Any) -> Callable[..., QAction]:
    """Factory: the action behind a path of visible names in the menu bar."""

    def find(*names: str) -> QAction:
        menu = viewer.window.main_menu
        action = None
        for name in names:
            # napari adds the plugin's name to its commands.
            actions = {
                a.text().replace("&", "").removesuffix(" (LGG segmentation)"): a for a in menu.actions()
            }
            assert name in actions, f"{name} is not among {sorted(actions)}"
            action = actions[name]
            menu = action.menu()
        assert action is not None
        return action

    return find


@pytest.fixture
def choose_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | None], None]:
    """Factory: set the answer to the next folder dialogs; None for Cancel."""
    from qtpy.QtWidgets import QFileDialog

    def choose(folder: Path | None) -> None:
        answer = "" if folder is None else str(folder)
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: answer)

    return choose


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Factory: set the answer to questions, for instance "Yes"; returns the list of questions asked."""
    from qtpy.QtWidgets import QMessageBox

    asked: list[str] = []

    def answer_(button: str) -> list[str]:
        def question(parent: Any, title: str, text: str, *_: Any, **__: Any) -> Any:
            asked.append(text)
            return getattr(QMessageBox.StandardButton, button)

        monkeypatch.setattr(QMessageBox, "question", question)
        return asked

    return answer_


@pytest.fixture
def patient_on_disk(tmp_path: Path, make_patient: Callable[..., Patient]) -> Callable[..., Path]:
    """Factory: write a small patient with images and masks; returns its folder."""
    from napari_lgg_seg.core.data.masks import write_patient

    def write(name: str = "TCGA_DU_0001_19990101", **head: object) -> Path:
        folder = tmp_path / "patients" / name
        write_patient(folder, make_patient(name, **head))
        return folder

    return write


@pytest.fixture
def find_button() -> Callable[[QWidget, str], Any]:
    """Factory: the button with a text in a widget."""
    from qtpy.QtWidgets import QPushButton

    def find(parent: QWidget, text: str) -> Any:
        (button,) = [b for b in parent.findChildren(QPushButton) if b.text() == text]
        return button

    return find


class Gate:
    """Holds the network in a batch until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self._open.wait(TIMEOUT_MS / 1000)

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.clear()
        self.reached.clear()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Makes every run wait in its first batch, so that a test can act in the middle of it."""
    from napari_lgg_seg.core.model.networks import UNet

    gate, forward = Gate(), UNet.forward

    def wait_and_compute(network: UNet, slices: Any) -> Any:
        gate.pass_through()
        return forward(network, slices)

    monkeypatch.setattr(UNet, "forward", wait_and_compute)
    yield gate
    gate.open()


# --- the Segment widget ------------------------------------------------------------------------


@pytest.fixture
def open_patient(viewer, patient_on_disk):
    """Factory: open a small patient in the viewer."""

    def open_(name="TCGA_DU_0001_19990101", **head):
        viewer.open(str(patient_on_disk(name, **head)), plugin="napari-lgg-seg")

    return open_


@pytest.fixture
def dock(viewer, small_model):
    """Factory: dock the Segment widget and choose the small model."""

    def dock_():
        _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Segment")
        widget.offer_model(small_model)
        return widget

    return dock_


@pytest.fixture
def click(find_button):
    """Factory: click the button with a text."""
    return lambda widget, text: find_button(widget.native, text).click()


@pytest.fixture
def run(click, wait_until):
    """Factory: click Segment and wait until the run is over."""

    def run_(widget):
        click(widget, "Segment")
        wait_until(lambda: widget.button.text == "Segment")

    return run_


# --- the Fine-tune widget ----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_known_models():
    """Models of one test are not listed in the next."""
    from napari_lgg_seg.widgets.shared.known_models import known_models

    known_models.clear()


@pytest.fixture
def tuned(tmp_path):
    """Path for the tuned model; the large state next to it is removed at the end."""
    folder = tmp_path / "tuned"
    yield folder / "my model.safetensors"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def dock_finetune(viewer, small_model, tuned):
    """Factory: dock the Fine-tune widget, set up for a short training of the small model."""

    def dock_(epochs=2):
        _, widget = viewer.window.add_plugin_dock_widget("napari-lgg-seg", "Fine-tune")
        widget.start_from(small_model)
        c = widget.controls
        c.epochs.value, c.slices_per_epoch.value, c.batch_size.value = epochs, 4, 2
        c.output.value, c.device.value = tuned, "auto"
        return widget

    return dock_


@pytest.fixture
def train(click, wait_until):
    """Factory: click Start and wait until the training is over."""

    def train_(widget):
        click(widget, "Start")
        wait_until(lambda: widget.button.text == "Start")

    return train_


@pytest.fixture
def asked(monkeypatch):
    """Records what the core is asked to train; nothing is trained, and the events can be chosen."""

    from napari_lgg_seg.core.training import train as train_module
    from napari_lgg_seg.core.training.events import Ended

    class Asked:
        events = (Ended("All 2 epochs are done."),)

        def __call__(self, training, validation, output, options, *, resume):
            self.training, self.validation = training, validation
            self.output, self.options, self.resume = output, options, resume
            for event in self.events:
                if isinstance(event, Exception):
                    raise event
                yield event

        @property
        def patients(self):
            return {p.name: p for p in [*self.training, *self.validation]}

    asked = Asked()
    # A generator, like the real one.
    monkeypatch.setattr(train_module, "train", lambda *args, **kwargs: asked(*args, **kwargs))
    return asked


@pytest.fixture
def open_patients(open_patient):
    """Factory: open small, different patients; returns their names."""

    def open_(count=3):
        names = [f"TCGA_DU_000{n}_19990101" for n in range(1, count + 1)]
        for seed, name in enumerate(names):
            open_patient(name, seed=seed)
        return names

    return open_
