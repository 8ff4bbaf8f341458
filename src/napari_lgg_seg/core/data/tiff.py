"""Read TIFF files as an image viewer displays them: their tags decide what the pixels mean."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from ..errors import LggSegError, PatientError, reason
from .regular_files import check_regular

Pixels = npt.NDArray[Any]

_PHOTOMETRIC = tifffile.PHOTOMETRIC
#: For each value of the orientation tag, from stored to displayed pixels, (..., y, x).
_ORIENTATIONS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[..., ::-1],
    3: lambda p: p[..., ::-1, ::-1],
    4: lambda p: p[..., ::-1, :],
    5: lambda p: p.swapaxes(-1, -2),
    6: lambda p: p.swapaxes(-1, -2)[..., ::-1],
    7: lambda p: p.swapaxes(-1, -2)[..., ::-1, ::-1],
    8: lambda p: p.swapaxes(-1, -2)[..., ::-1, :],
}
#: What the pages of a stack have in common.
_SAME_IN_STACK = ("shape", "dtype", "bitspersample", "photometric", "planarconfig", "compression")
_SAME_TAGS = ("Orientation", "ColorMap")
#: Bits of the tag for the kind of page: a thumbnail, or a transparency mask.
_NOT_AN_IMAGE = 0b101


@dataclass(frozen=True)
class Displayed:
    """Pixels as they are displayed.

    Attributes
    ----------
    pixels : ndarray
        Shape (y, x) or (y, x, 3), or (n, y, x) for several pages; in the file's own type, 0 is black.
    coloured : bool
        Whether the last axis is that of red, green and blue.
    coloured_palette : bool
        Whether the colours are those of a palette.
    """

    pixels: Pixels
    coloured: bool = False
    coloured_palette: bool = False


def read_slice(path: Path) -> Displayed:
    """Read a TIFF file with a single image; thumbnails are ignored.

    Raises
    ------
    PatientError
        If it is no such file, is truncated, or its pixels have a meaning that is not supported.
    """
    with _opened(path, "a TIFF slice", "copy it again from its source") as tiff:
        pages = _images(tiff)
        _check_complete(pages, path)
        if len(pages) > 1:
            raise ValueError("it has several pages")
        # A slice has few, small strips: starting threads would cost more time than it saves.
        return _as_displayed(pages[0].asarray(maxworkers=1), pages[0])


def read_stack(path: Path) -> Displayed:
    """Read a TIFF file with one image or a stack of images of the same size.

    Raises
    ------
    PatientError
        As :func:`read_slice`.
    """
    with _opened(path, "labels", "write it again") as tiff:
        pages = _images(tiff)
        _check_complete(pages, path)
        if len({_kind(page) for page in pages}) > 1:
            raise ValueError("its pages differ in size or type")
        if len(tiff.series) == 1:
            if len(tiff.series[0].pages) != len(tiff.pages) or None in list(tiff.series[0].pages):
                raise ValueError("it has another number of pages than its header says")
            return _as_displayed(tiff.series[0].asarray(), pages[0])
        return _as_displayed(np.stack([page.asarray() for page in pages]), pages[0])


def channels_of(path: Path) -> int | None:
    """1 for an 8-bit grayscale slice, 3 for a colour one, None for anything else. Reads the header only."""
    try:
        check_regular(path)
        with without_logging(), tifffile.TiffFile(path) as tiff:
            page, *others = _images(tiff)
            if others or page.dtype != np.uint8:
                return None
            return {2: 1, 3: 3 if page.samplesperpixel == 3 else None}.get(page.ndim)
    except Exception:  # noqa: BLE001 - tifffile raises many kinds of errors on files that are not TIFFs
        return None


@contextmanager
def _opened(path: Path, kind: str, advice: str) -> Generator[tifffile.TiffFile, None, None]:
    """Open a file, and turn whatever happens while it is read into one of our own errors."""
    try:
        check_regular(path)
        with without_logging() as damage, tifffile.TiffFile(path) as tiff:
            yield tiff
        if damage:
            raise ValueError("its list of pages is damaged")
    except LggSegError:
        raise
    except Exception as error:  # tifffile and its decoders raise many kinds of errors on broken files
        if "imagecodecs" in str(error):
            raise PatientError(
                f"{path} is compressed in a way that needs the package imagecodecs; install it with: "
                "pip install 'napari-lgg-seg[codecs]'."
            ) from error
        raise PatientError(f"{path} cannot be read as {kind} ({reason(error)}); {advice}.") from error


@contextmanager
def without_logging() -> Generator[list[str], None, None]:
    """Collect what tifffile logs about a broken list of pages: it would be read as a shorter one.

    Everything else that it logs, about tags that are not used, is dropped.
    """
    damage: list[str] = []
    thread = threading.get_ident()

    def log_nothing(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        if record.levelno >= logging.ERROR and "TiffPages" in (text := record.getMessage()):
            damage.append(text)
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(log_nothing)
    try:
        yield damage
    finally:
        logger.removeFilter(log_nothing)


def _images(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    # Whole pages, not the "frames" that share the first one's tags: a page may differ from the first.
    pages = [tiff.pages.first, *(page.aspage() for page in tiff.pages[1:])]
    return [page for page in pages if not page.subfiletype & _NOT_AN_IMAGE] or pages[:1]


def _check_complete(pages: Iterable[tifffile.TiffPage], path: Path) -> None:
    size = path.stat().st_size
    for page in pages:
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not segments or any(count <= 0 or offset + count > size for offset, count in segments):
            raise ValueError("it is truncated")
        stored = sum(count for _, count in segments)
        if page.compression == tifffile.COMPRESSION.NONE and not _fits(page, stored):
            raise ValueError("its tags do not fit its size")


def _kind(page: tifffile.TiffPage) -> tuple[Any, ...]:
    tags = (page.tags.get(name) for name in _SAME_TAGS)
    properties = tuple(getattr(page, name) for name in _SAME_IN_STACK)
    return (*properties, *(None if tag is None else str(tag.value) for tag in tags))


def _fits(page: tifffile.TiffPage, stored: int) -> bool:
    """Whether a page without compression takes as many bytes as its tags say."""
    if page.is_tiled:
        return True  # tiles are padded in ways that depend on the program
    planes = page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
    row = (page.imagewidth * page.samplesperpixel // planes * page.bitspersample + 7) // 8
    rows = planes * page.imagelength
    padded = len(page.databytecounts) * min(page.rowsperstrip, page.imagelength)
    return bool(
        rows * row <= stored <= max(rows, padded) * row
    )  # the last strip may be as long as the others


def _as_displayed(pixels: Pixels, page: tifffile.TiffPage) -> Displayed:
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
        pixels = np.moveaxis(pixels, -3, -1)
    coloured = page.samplesperpixel > 1
    photometric = page.photometric
    if photometric == _PHOTOMETRIC.MINISWHITE:
        pixels = _inverted(pixels, page.bitspersample)
    elif photometric == _PHOTOMETRIC.PALETTE:
        pixels = _through_palette(pixels, page)
        coloured = bool((pixels != pixels[..., :1]).any())
        pixels = pixels if coloured else pixels[..., 0]
    elif photometric not in (_PHOTOMETRIC.MINISBLACK, _PHOTOMETRIC.RGB) and not _is_colour_jpeg(page):
        raise ValueError(f"its colours, {_PHOTOMETRIC(photometric).name}, are not supported")
    tag = page.tags.get("Orientation")
    turn = _ORIENTATIONS[1 if tag is None else int(tag.value)]
    pixels = np.moveaxis(turn(np.moveaxis(pixels, -1, 0)), 0, -1) if coloured else turn(pixels)
    return Displayed(pixels, coloured, coloured and photometric == _PHOTOMETRIC.PALETTE)


def _is_colour_jpeg(page: tifffile.TiffPage) -> bool:
    """Whether the pixels were YCbCr in the file, and RGB after decoding."""
    return page.photometric == _PHOTOMETRIC.YCBCR and page.compression == tifffile.COMPRESSION.JPEG


def _inverted(pixels: Pixels, bits: int) -> Pixels:
    if pixels.dtype.kind == "b":
        return ~pixels
    if pixels.dtype.kind != "u":
        raise ValueError(f"its inverted {pixels.dtype} pixels are not supported")
    inverted: Pixels = pixels.dtype.type(2**bits - 1) - pixels
    return inverted


def _through_palette(pixels: Pixels, page: tifffile.TiffPage) -> npt.NDArray[np.uint8]:
    palette = np.asarray(page.colormap)
    if palette.max(initial=0) > 255:  # as the format demands; some programs write 8 bits
        palette = palette >> 8
    colours: npt.NDArray[np.uint8] = palette.astype(np.uint8)[:, pixels.astype(np.intp)]
    return np.moveaxis(colours, 0, -1)
