"""OpenVINO on the CPU: the network converted from PyTorch, kept on disk, and nothing told to anybody.

Importing OpenVINO sends usage figures over the network unless that is prevented before. Therefore
:func:`load_openvino` is the only place that imports it.
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
from ..errors import EngineError
from .fold import fold_batch_norm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..model.checkpoint import ModelCard

#: Converted networks that are kept, about 40 MiB each; every fine-tuned model has one of its own.
_KEPT = 4
#: Seconds after which what another process began to write is taken for abandoned.
_ABANDONED = 24 * 3600
_FILE = "network.xml"
_TELEMETRY = "openvino_telemetry"


class OpenVinoEngine:
    """A network in OpenVINO; see :class:`napari_lgg_seg.core.inference.engines.Engine`.

    Parameters
    ----------
    network : Module
        Any whose forward can be traced; it is copied, not changed.
    channels : int
        Input channels of a slice.
    eight_bits_for : ModelCard, optional
        Compute the inner levels in 8 bits, rounded as suits the slices that this model sees.

    Raises
    ------
    EngineError
        If OpenVINO is not there, cannot be loaded, or does not take the network.
    """

    name = "openvino"

    def __init__(self, network: nn.Module, channels: int, eight_bits_for: ModelCard | None = None) -> None:
        if eight_bits_for is not None:
            self.name = devices.INT8_ENGINE
        try:
            self._request = _compiled(network, channels, eight_bits_for).create_infer_request()
        except Exception as error:  # OpenVINO's converter raises many kinds; all mean the same
            raise _failure(error) from error

    def logits(self, slices: Tensor) -> Tensor:
        """See :class:`napari_lgg_seg.core.inference.engines.Engine`."""
        import torch

        try:
            result = self._request.infer([slices.contiguous().numpy()], share_inputs=True)
        except RuntimeError as error:
            if memory.is_out_of_memory(error):
                raise
            raise _failure(error) from error
        return torch.from_numpy(result[0])[:, 0]


def load_openvino() -> Any:
    """The module ``openvino``, whose telemetry is kept from loading, whatever is installed.

    OpenVINO does without ``openvino_telemetry`` where that cannot be imported: it is made so, for the
    whole process. If somebody else has imported OpenVINO with it before, it is taken away from the
    converter, which alone uses it.
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
    """Where converted networks are kept."""
    from platformdirs import user_cache_path

    return user_cache_path("napari-lgg-seg", appauthor=False) / "openvino"


def _compiled(network: nn.Module, channels: int, card: ModelCard | None) -> Any:
    """The network ready to run: compiled from the cache if it is there, else converted and put there.

    What is kept is the converted network. To compile it takes a fifteenth of the time of converting it,
    and what that gives suits this processor, these settings and this OpenVINO alone: OpenVINO's own cache,
    which is not safe for several processes at once, would save little. A cache that is damaged, full or
    not writable is done without, and begun anew the next time.
    """
    openvino = load_openvino()
    core, settings = openvino.Core(), devices.openvino_settings()
    folder = cache_folder() / _key(network, openvino.__version__, card)
    if folder.is_dir():
        with suppress(OSError):  # a folder that is for reading only is as good
            os.utime(folder)
        try:
            return core.compile_model(folder / _FILE, "CPU", settings)
        except RuntimeError:
            shutil.rmtree(folder, ignore_errors=True)
    model = _converted(openvino, network, channels, card)
    with suppress(OSError, RuntimeError):
        _keep(openvino, model, folder)
    return core.compile_model(model, "CPU", settings)


def _key(network: nn.Module, version: str, card: ModelCard | None) -> str:
    """A name for what is kept of a network: by its structure, its weights, and the versions at work."""
    digest = hashlib.sha256(f"{__version__} {version} {network}".encode())
    if card is not None:
        seen = f"{card.preprocess} {card.sequences} {card.neighbouring_slices}"
        digest.update(f"inner levels in 8 bits {seen}".encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:32]


def _converted(openvino: Any, network: nn.Module, channels: int, card: ModelCard | None) -> Any:
    """The network as OpenVINO's, for any number and size of slices; its weights as exact as they are.

    With a model's card its inner levels are rounded to 8 bits.
    """
    import torch

    folded = fold_batch_norm(network).cpu().float()
    if card is not None:
        from .int8 import example_slices, quantize

        folded = quantize(folded, example_slices(card))
    model = openvino.convert_model(folded, example_input=torch.zeros(1, channels, 32, 32))
    model.reshape([-1, channels, -1, -1])
    return model


def _keep(openvino: Any, model: Any, folder: Path) -> None:
    """Put a converted network on disk, whole or not at all, and drop those that were not used for long."""
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=cache) as temporary:
        written = Path(temporary) / folder.name
        written.mkdir()
        openvino.save_model(model, written / _FILE, compress_to_fp16=False)
        written.rename(folder)  # refused where another process was quicker
    kept = sorted((f.stat().st_mtime, f) for f in cache.iterdir())
    whole = [f for _, f in kept if not f.name.startswith(".")]
    abandoned = [f for changed, f in kept if f.name.startswith(".") and changed < time.time() - _ABANDONED]
    for old in (*whole[:-_KEPT], *abandoned):
        shutil.rmtree(old, ignore_errors=True)


def _failure(error: Exception) -> EngineError:
    """The last line of OpenVINO's message says what is wrong; those before it, where in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return EngineError(f"OpenVINO failed ({(lines or [type(error).__name__])[-1].rstrip('.')})")
