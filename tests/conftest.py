"""Shared fixtures: small synthetic patients in memory and on disk, a network, and the real dataset."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from flair_model import write_flair_model
from program import Done

from napari_lgg_seg.cli import app as cli
from napari_lgg_seg.core import devices
from napari_lgg_seg.core.data.patients import Patient

UInt8 = npt.NDArray[np.uint8]

# Read when napari's settings are imported, after this file. The path is empty since napari's fixtures reset
# the settings, which would overwrite the user's own.
os.environ["NAPARI_CONFIG"] = ""
# Read before the first convolution, so that a small cache set by one test does not slow down the others.
os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "1024"
# Read when Qt starts: draw offscreen without a display.
if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def _write_tiff(path: Path, pixels: npt.NDArray[np.generic], writer: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if writer == "pillow":
        pytest.importorskip("PIL.Image").fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")


@pytest.fixture(scope="session")
def write_slices() -> Callable[..., tuple[UInt8, UInt8]]:
    """Factory: write slices in the dataset's layout; returns images and masks (0 and 255)."""

    def write(
        folder: Path,
        name: str = "TCGA_DU_0001_19990101",
        numbers: int | Iterable[int] = 3,
        *,
        images: bool = True,
        masks: bool | Iterable[int] = True,
        shape: tuple[int, int] = (12, 10),
        writer: str = "tifffile",
    ) -> tuple[UInt8, UInt8]:
        numbers = tuple(range(1, numbers + 1) if isinstance(numbers, int) else numbers)
        marked = set(numbers if masks is True else masks or ())
        rng = np.random.default_rng(len(numbers))
        image = rng.integers(0, 256, (len(numbers), *shape, 3), np.uint8)
        mask = rng.integers(0, 2, (len(numbers), *shape), np.uint8) * np.uint8(255)
        for index, number in enumerate(numbers):
            if images:
                _write_tiff(folder / f"{name}_{number}.tif", image[index], writer)
            if number in marked:
                _write_tiff(folder / f"{name}_{number}_mask.tif", mask[index], writer)
        return image, mask

    return write


@pytest.fixture(scope="session")
def make_head() -> Callable[..., tuple[UInt8, UInt8]]:
    """Factory: a grey ellipse with a tumour that is bright in FLAIR; returns volume and ground truth."""

    def make(
        shape: tuple[int, int, int] = (6, 64, 64), *, tumour: bool = True, seed: int = 0
    ) -> tuple[UInt8, UInt8]:
        rng = np.random.default_rng(seed)
        axes = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
        z, y, x = np.meshgrid(*axes, indexing="ij")
        head = (y / 0.75) ** 2 + (x / 0.6) ** 2 < 1
        lesion = (z / 0.7) ** 2 + ((y - 0.2) / 0.25) ** 2 + ((x - 0.2) / 0.25) ** 2 < 1
        truth = (lesion & head & tumour).astype(np.uint8)
        volume = head[..., None] * rng.integers(60, 100, (*shape, 3))
        volume[..., 1] += 110 * truth
        return volume.astype(np.uint8), truth

    return make


@pytest.fixture(scope="session")
def make_patient(make_head: Callable[..., tuple[UInt8, UInt8]]) -> Callable[..., Patient]:
    """Factory: a :class:`Patient` in memory with a volume from ``make_head``."""

    def make(name: str = "TCGA_DU_0001_19990101", **head: object) -> Patient:
        volume, truth = make_head(**head)
        return Patient(name, Path(name), volume, truth, tuple(range(1, len(volume) + 1)))

    return make


@pytest.fixture(autouse=True)
def _torch_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests use PyTorch, which some of them patch; those of OpenVINO request its fixture."""
    monkeypatch.setattr(devices, "available_engines", lambda: ("torch",))


@pytest.fixture
def openvino(_torch_by_default: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module ``openvino``, chosen by "auto", with a separate cache in ``tmp_path / "cache"``."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO (extra openvino) is not installed")
    from napari_lgg_seg.core.inference import openvino as openvino_engine

    monkeypatch.setattr(devices, "available_engines", lambda: ("openvino", "torch"))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    return openvino_engine.load_openvino()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that is fast and finds the tumour of synthetic patients."""
    return write_flair_model(tmp_path_factory.mktemp("models") / "bright FLAIR.safetensors")


@pytest.fixture(scope="session")
def unet():
    """The U-Net with seeded weights and non-trivial batch normalisation; must not be modified."""
    import torch

    from napari_lgg_seg.core.model.networks import build_network

    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = build_network("unet", 3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, lowest in (
                (module.running_mean, -0.2),
                (module.running_var, 0.8),
                (module.weight, 0.8),
                (module.bias, -0.2),
            ):
                values.data.copy_(lowest + 0.4 * torch.rand(values.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Function that waits until a condition is true, for a minute at most."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert condition()

    return wait


@pytest.fixture(scope="session")
def lgg_dataset() -> Path:
    """The dataset's folder ``kaggle_3m``, from the environment variable LGG_DATASET."""
    folder = os.environ.get("LGG_DATASET")
    if not folder:
        pytest.skip("LGG_DATASET does not name the dataset's folder kaggle_3m")
    return Path(folder)


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., Done]:
    """Factory: run the command line in this process, as its entry point does."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")  # so that malloc is not changed

    def run_(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["napari-lgg-seg", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(end.value.code or 0, out, err)

    return run_
