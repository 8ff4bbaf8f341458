"""Run a network with OpenVINO on the CPU: convert it from PyTorch and cache it on disk.

OpenVINO telemetry is disabled. Since importing OpenVINO already sends usage statistics, :func:`load_openvino`
is the only place that imports it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..._version import __version__
from .. import devices, memory
from ..data.regular_files import read_bytes, read_text
from ..errors import EngineError
from .fold import fold_batch_norm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..model.checkpoint import ModelCard

#: Number of converted networks to keep in the cache, about 40 MiB each.
_CACHE_SIZE = 4
#: Largest file of a converted network that is read, in bytes.
_LARGEST = 2**31
#: Seconds after which another process's temporary files are considered abandoned.
_ABANDONED = 24 * 3600
_FILE = "network.xml"
_CHECKSUM = "network.sha256"
_TELEMETRY = "openvino_telemetry"


class OpenVinoEngine:
    """A network in OpenVINO, see :class:`napari_lgg_seg.core.inference.engines.Engine`.

    Parameters
    ----------
    network : Module
        Must be traceable; it is copied, not changed.
    channels : int
        Input channels per slice.
    int8_card : ModelCard, optional
        Quantize the inner levels to int8, calibrated on input as described by this model's card.

    Raises
    ------
    EngineError
        If OpenVINO is not installed, cannot be loaded, or cannot convert the network.
    """

    name = "openvino"

    def __init__(self, network: nn.Module, channels: int, int8_card: ModelCard | None = None) -> None:
        if int8_card is not None:
            self.name = devices.INT8_ENGINE
        try:
            self._request = _compiled(network, channels, int8_card).create_infer_request()
        except Exception as error:  # OpenVINO's converter raises many kinds of errors
            raise _failure(error) from error

    def logits(self, slices: Tensor) -> Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        import torch

        try:
            result = self._request.infer([slices.contiguous().numpy()], share_inputs=True)
            return torch.from_numpy(result[0])[:, 0]
        except Exception as error:
            if memory.is_out_of_memory(error):
                raise
            raise _failure(error) from error


def load_openvino() -> Any:
    """Import the module ``openvino`` with its telemetry disabled.

    OpenVINO runs without ``openvino_telemetry`` if that cannot be imported, which is enforced for the whole
    process. If OpenVINO was imported before, telemetry is replaced in its converter, the only part to use it.
    """
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # importing it raises ImportError
    import openvino

    for name, module in list(sys.modules.items()):
        used = getattr(module, "tm", None) if name.startswith("openvino.tools.ovc.") else None
        if used is not None and used.__name__.startswith(_TELEMETRY):
            from openvino.tools.ovc import telemetry_stub

            module.tm = telemetry_stub  # type: ignore[attr-defined]
    return openvino


def cache_folder() -> Path:
    """Folder of converted networks."""
    from platformdirs import user_cache_path

    return user_cache_path("napari-lgg-seg", appauthor=False) / "openvino"


def _compiled(network: nn.Module, channels: int, card: ModelCard | None) -> Any:
    """The compiled network, from the cache if possible, else converted and cached.

    The cache holds converted networks. Compiling takes only a fifteenth of the time of converting, and its
    result depends on processor, settings and version: OpenVINO's own cache, which is not safe for concurrent
    processes, would save little. If the cache is damaged, closed, full or read-only, it is ignored.
    """
    openvino = load_openvino()
    core, settings = openvino.Core(), devices.openvino_settings()
    key = _key(network, openvino.__version__, card)
    with suppress(Exception):
        folder = cache_folder() / key
        if _is_whole(folder):
            compiled = core.compile_model(folder / _FILE, "CPU", settings)
            with suppress(OSError):  # a read-only cache works as well
                os.utime(folder)
            return compiled
    model = _converted(openvino, network, channels, card)
    with suppress(Exception):
        _store(openvino, model, cache_folder() / key)
    return core.compile_model(model, "CPU", settings)


def _is_whole(folder: Path) -> bool:
    try:
        return read_text(folder / _CHECKSUM) == _checksum(folder)
    except (OSError, UnicodeDecodeError):
        return False


def _checksum(folder: Path) -> str:
    """SHA-256 of a converted network: a flipped bit in its weights would go unnoticed."""
    digest = hashlib.sha256()
    for path in (folder / _FILE, (folder / _FILE).with_suffix(".bin")):
        digest.update(read_bytes(path, _LARGEST))
    return digest.hexdigest()


def _key(network: nn.Module, version: str, card: ModelCard | None) -> str:
    """Cache key of a network: a hash of its structure, weights, int8 calibration and package versions."""
    digest = hashlib.sha256(f"{__version__} {version} {network}".encode())
    if card is not None:
        seen = f"{card.preprocess} {card.sequences} {card.neighbouring_slices}"
        digest.update(f"inner levels in 8 bits {seen}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:32]


def _converted(openvino: Any, network: nn.Module, channels: int, card: ModelCard | None) -> Any:
    """Convert a network for any number and size of slices, with its weights in full precision.

    With a model's card, its inner levels are quantized to int8.
    """
    import torch

    folded = fold_batch_norm(network).cpu().float()
    if card is not None:
        from .int8 import example_slices, quantize

        folded = quantize(folded, example_slices(card))
    model = openvino.convert_model(folded, example_input=torch.zeros(1, channels, 32, 32))
    model.reshape([-1, channels, -1, -1])
    return model


def _store(openvino: Any, model: Any, folder: Path) -> None:
    """Write a converted network to the cache atomically, and remove the least recently used ones.

    It takes the place of whatever cannot be used there.
    """
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=cache) as temporary:
        written = Path(temporary) / folder.name
        written.mkdir()
        openvino.save_model(model, written / _FILE, compress_to_fp16=False)
        openvino.Core().read_model(written / _FILE)  # fails if the disk was full
        (written / _CHECKSUM).write_text(_checksum(written), encoding="ascii")
        if not _is_whole(folder):
            _remove(folder)
        written.rename(folder)  # fails if another process was faster
    entries = sorted((f.stat().st_mtime, f) for f in cache.iterdir())
    complete = [f for _, f in entries if not f.name.startswith(".")]
    abandoned = [f for changed, f in entries if f.name.startswith(".") and changed < time.time() - _ABANDONED]
    for old in (*complete[:-_CACHE_SIZE], *abandoned):
        _remove(old)


def _remove(path: Path) -> None:
    """Remove a folder or whatever is in its place, if possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:  # rmtree would open a pipe and wait
        with suppress(OSError):
            path.unlink()


def _failure(error: Exception) -> EngineError:
    """An error with the last line of OpenVINO's message; the others name locations in its source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return EngineError(f"OpenVINO failed ({(lines or [type(error).__name__])[-1].rstrip('.')})")
