"""The sample patient that ships with the plugin: a drawn head, nobody's, made when asked for.

The head is described by smooth functions of position in millimetres, such as the depth below the skin
or the distance to a fissure. Tissues are painted one over the other on thin planes, planes are averaged
to thick slices, and coil shading, blur and noise make an acquisition of them. Positions and shares of
tissue are sums, products and square roots, which every platform rounds alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .patients import Patient

Field = npt.NDArray[np.floating[Any]]
Point = tuple[float, float, float]

NAME, SEED = "LGG_sample", 3
SLICES, SIZE = 30, 256
#: The part of the picture that the head may reach; the rest is air.
ROWS, COLUMNS = slice(2, 242), slice(34, 222)
PIXEL_MM, SLICE_MM, LOWEST_MM = 0.94, 4.8, -51.0
#: Thin planes averaged to one slice, as offsets from its middle: this makes partial volume.
PLANE_OFFSETS_MM = (-1.2, 1.2)

#: Brightness of each tissue in pre-contrast T1, FLAIR and post-contrast T1.
TISSUES = {
    "skin": (70, 84, 76),
    "fat": (152, 178, 160),
    "muscle": (46, 52, 66),
    "bone": (9, 9, 10),
    "marrow": (66, 60, 70),
    "air": (2, 2, 2),
    "dura": (32, 42, 74),
    "csf": (18, 15, 17),
    "grey": (49, 96, 50),
    "white": (69, 80, 72),
    "deep grey": (58, 86, 62),
    "blood": (34, 26, 140),
    "lesion": (40, 142, 34),
    "enhancing": (44, 142, 104),
}

# Anatomy, in mm: x to the picture's right, y to the back, z up; 0 is mid-head, at the height of the
# thalami. Structures on both sides are given once, for x > 0.
HEAD_RADII = (75.0, 99.0, 86.0)
SCALP_MM, SKULL_MM, CORTEX_MM, SULCUS_DEPTH_MM = 5.0, 6.5, 3.4, 19.0
#: Distance between changes of sign of the textures: folds of the cortex, and three grades of grain.
FOLDS_MM = 14.5
TEXTURES_MM = (FOLDS_MM, 36.0, 14.0, 4.0)
#: Centre lines and radii, (x, y, z, r).
VENTRICLE = ((14, -46, 7, 3.2), (6, -20, 12, 4.2), (11, 4, 22, 4.8), (20, 26, 15, 5.8), (20, 50, 6, 2.2))
TEMPORAL_HORN = ((22, 26, 10, 4.5), (31, 16, -8, 2.4), (31, -4, -20, 1.8))
INSULA = ((34, -37, 0, 0), (38, -18, 0, 0), (35, 2, 0, 0))
SYLVIAN_FISSURE = ((37, -22, 0, 0), (48, -16, 0, 0), (66, -24, 0, 0))
#: Ellipsoids in the order of painting: tissue, centre, radii.
DEEP_BRAIN: tuple[tuple[str, Point, Point], ...] = (
    ("deep grey", (14, -33, 8), (7, 12, 12)),  # caudate nucleus
    ("deep grey", (26, -20, 4), (6, 17, 12)),  # putamen
    ("deep grey", (11, 0, 8), (9, 15, 10)),  # thalamus
    ("csf", (0, -8, 1), (2.4, 13, 9)),  # third ventricle
    ("csf", (0, 24, 0), (4.5, 4, 6)),  # quadrigeminal cistern
    ("csf", (0, -20, -19), (14, 8, 7)),  # suprasellar cistern
    ("blood", (9, -20, -19), (2, 2, 6)),  # carotid, middle cerebral, basilar artery
    ("blood", (17, -19, -18), (7, 1.4, 2)),
    ("blood", (0, -9, -22), (1.8, 1.8, 12)),
)
FACE: tuple[tuple[str, Point, Point], ...] = (
    ("fat", (33, -73, -36), (18, 15, 16)),  # orbit, with its muscles and nerve
    ("fat", (27, -54, -36), (10, 20, 11)),
    ("muscle", (20, -57, -36), (2.4, 15, 6)),
    ("muscle", (36, -58, -36), (2.6, 13, 6)),
    ("muscle", (28, -52, -36), (2.6, 17, 4.5)),
    ("bone", (0, -66, -36), (13, 34, 22)),  # nasal cavity; sphenoid sinus
    ("air", (6, -66, -36), (5, 28, 18)),
    ("skin", (0, -66, -36), (1.2, 28, 18)),  # the septum
    ("air", (7, -22, -38), (9, 12, 8)),
    ("skin", (32, -75, -36), (13, 13, 13)),  # eyeball and lens
    ("csf", (32, -75, -36), (11.8, 11.8, 11.8)),
    ("skin", (32, -84, -36), (4.5, 2, 4.5)),
)


class Lesion(NamedTuple):
    """Where a glioma is, how large, and where it takes up contrast agent; in mm."""

    centre: Point
    radii: Point
    spot: Point


LESION = Lesion((-29, -31, 31), (18, 20, 24), (-24, -26, 31))
MASS_EFFECT = 0.26  # how much the lesion pushes the tissue around it aside
#: Annotators draw gliomas to where they fade, so a minor share of tumour already counts.
TRUTH_SHARE = 0.35


def make_sample_patient() -> Patient:
    """Draw the sample patient: a head with a frontal glioma.

    Returns
    -------
    Patient
        ``volume`` (30, 256, 256, 3) and ``truth`` (30, 256, 256), both uint8; the same at every call.
    """
    return draw_patient(NAME, SEED, LESION)


def draw_patient(name: str, seed: int, lesion: Lesion) -> Patient:
    """Draw a patient.

    Parameters
    ----------
    name : str
        Its name.
    seed : int
        Of folds, grain and noise.
    lesion : Lesion
        Its glioma.

    Returns
    -------
    Patient
        ``volume`` (30, 256, 256, 3) and ``truth`` (30, 256, 256), both uint8.
    """
    rng = np.random.default_rng(seed)
    textures = [Texture(rng, spacing, regular=spacing == FOLDS_MM) for spacing in TEXTURES_MM]
    slices = np.zeros((SLICES, 4, SIZE, SIZE), np.float32)
    for index, z in enumerate(LOWEST_MM + SLICE_MM * np.arange(SLICES)):
        planes = [_draw_plane(float(z) + offset, textures, lesion) for offset in PLANE_OFFSETS_MM]
        slices[index, :, ROWS, COLUMNS] = sum(planes) / np.float32(len(planes))
    return Patient(
        name=name,
        folder=Path(name),
        volume=_acquire(slices[:, :3], rng),
        truth=_largest_piece(slices[:, 3] > TRUTH_SHARE),
        slice_numbers=tuple(range(1, SLICES + 1)),
    )


# --- tools of drawing --------------------------------------------------------------------------


class Places(NamedTuple):
    """Where the pixels of a plane are in the head, in mm."""

    x: Field
    y: Field
    z: Field

    @property
    def folded(self) -> Places:
        """Both sides laid on each other, for structures given once; no head has two equal sides."""
        return Places(np.abs(self.x) * (1 + 0.03 * np.sign(self.x)), self.y, self.z)


class Texture:
    """Random values in space, smooth and repeating, of mean 0 and standard deviation 1."""

    def __init__(self, rng: np.random.Generator, spacing: float, *, regular: bool = False) -> None:
        """Draw values that change sign about every ``spacing`` mm, evenly so if ``regular``."""
        smooth = 1.8  # cells: enough that linear interpolation between cells stays invisible
        values = rng.standard_normal((80, 80, 80), np.float32)
        values = ndimage.gaussian_filter(values, smooth, mode="wrap")
        if regular:
            values -= ndimage.gaussian_filter(values, 1.6 * smooth, mode="wrap")
        self._values = values / np.float32(values.std(dtype=np.float64))
        self._cells_per_mm = (3.4 if regular else 4.4) * smooth / spacing

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        """Look values up."""
        where = np.stack((z, y, x)) * np.float32(self._cells_per_mm)
        return np.asarray(ndimage.map_coordinates(self._values, where, order=1, mode="grid-wrap"))


class Grain(NamedTuple):
    """What is random in the anatomy: two independent values of each texture on a plane."""

    broad: tuple[Field, Field]
    middle: tuple[Field, Field]
    fine: tuple[Field, Field]


def _inside(depth: Field, edge: float = 1.2) -> Field:
    """Share of tissue, 0 to 1, at a depth below its boundary, which is ``edge`` mm soft."""
    t = np.clip(depth / edge + 0.5, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _ellipsoid(at: Places, centre: Point, radii: Point) -> Field:
    """Depth in mm inside an ellipsoid; negative outside."""
    scaled = [(v - c) / r for v, c, r in zip(at, centre, radii, strict=True)]
    reach = np.sqrt(sum(s * s for s in scaled))
    slope = np.sqrt(sum((s / r) * (s / r) for s, r in zip(scaled, radii, strict=True)))
    return np.asarray(reach * (1 - reach) / (slope + 1e-6))


def _tube(at: Places, line: Sequence[tuple[float, float, float, float]]) -> Field:
    """Depth in mm inside a tube along a line of points (x, y, z, radius); negative outside."""
    depth = np.full_like(at.x, -np.inf)
    for (*start, r0), (*stop, r1) in pairwise(line):
        way = [b - a for a, b in zip(start, stop, strict=True)]
        offset = [v - a for v, a in zip(at, start, strict=True)]
        along = sum(o * w for o, w in zip(offset, way, strict=True)) / sum(w * w for w in way)
        t = np.clip(along, 0, 1)
        distance = np.sqrt(sum((o - t * w) ** 2 for o, w in zip(offset, way, strict=True)))
        depth = np.maximum(depth, r0 + t * (r1 - r0) - distance)
    return depth


def _paint(picture: Field, tissue: str, share: Field) -> None:
    """Cover a (3, y, x) picture with a tissue, as far as ``share`` says."""
    for channel, brightness in zip(picture, TISSUES[tissue], strict=True):
        channel += share * (np.float32(brightness) - channel)


# --- anatomy -----------------------------------------------------------------------------------


def _draw_plane(z: float, textures: Sequence[Texture], lesion: Lesion) -> Field:
    """One thin plane, (4, y, x): brightness in the three sequences, and the share of lesion."""
    y, x = np.meshgrid(*[(np.arange(SIZE, dtype=np.float32) - SIZE / 2) * PIXEL_MM] * 2, indexing="ij")
    x, y = x[ROWS, COLUMNS], y[ROWS, COLUMNS] + 8  # heads lie a little above the picture's middle
    at = Places(x + 0.035 * y, y - 0.035 * x, z + 0.04 * x)  # and a little turned and tilted
    folds, *others = textures
    # A texture with its axes exchanged is as good as another one.
    grain = Grain(*((texture(*at), texture(at.z, at.x, at.y)) for texture in others))
    picture = np.zeros((4, *x.shape), np.float32)
    cavity = _paint_head(picture[:3], at, grain)
    white = _paint_brain(picture[:3], _displaced(at, grain, lesion), cavity, grain, folds)
    picture[3] = _paint_lesion(picture[:3], at, white, grain, lesion)
    return picture


def _displaced(at: Places, grain: Grain, lesion: Lesion) -> Places:
    """Where the brain's tissue would be without the lesion's mass effect and its own irregularity."""
    offset = [v - c for v, c in zip(at, lesion.centre, strict=True)]
    reach = 1.9 * lesion.radii[1]
    fade = np.maximum(1 - sum(o * o for o in offset) / reach**2, 0)
    x, y, z = (v - MASS_EFFECT * fade * fade * o for v, o in zip(at, offset, strict=True))
    return Places(x + 1.4 * grain.broad[0] + 0.5 * grain.middle[1], y + 1.8 * grain.broad[1], z)


def _head_depth(at: Places) -> Field:
    """Depth below the skin: an egg, narrower in front, flat-topped, long below."""
    a, b, c = HEAD_RADII
    v = (at.y - 0.05 * at.z) / b
    u = at.x / (a * (1 + 0.06 * v - 0.05 * v * v))
    up = (at.z - 8) / np.where(at.z > 8, np.float32(c), np.float32(150))
    height = up * np.sqrt(0.45 + 0.55 * up * up)  # between a ball (up) and a box (up * up)
    boxy = 0.2 + 0.2 * _inside(-10 - at.z, 40)
    reach = np.sqrt(np.maximum(u * u + v * v + height * height - boxy * u * u * v * v, 0))
    slope = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (height * 1.3 / c) ** 2)
    return np.asarray(reach * (1 - reach) / (slope + 1e-6))


def _skull_base(at: Places) -> Field:
    """Height of the skull's floor: front, middle and back fossa, sella and petrous ridges."""
    x, y, _ = at.folded
    front = -36 - 0.2 * y + 4 * _inside(14 - np.abs(x - 30), 14)
    middle = -24 - 26 * _inside(x - 20, 10) + 0.012 * np.maximum(x - 40, 0) ** 2 - 0.12 * y
    floor = front + (middle - front) * _inside(y + 40 - 0.15 * x, 9)
    floor = floor + (-72 - floor) * _inside(y - 8 - 0.55 * x, 12)
    to_ridge = np.abs(y - 4 - 0.6 * x) * 0.85
    return np.asarray(floor + 22 * _inside(9 - to_ridge, 9) * _inside(x - 20, 8) * (floor < -30))


def _paint_head(picture: Field, at: Places, grain: Grain) -> Field:
    """Scalp, skull and face; returns the depth inside the skull's cavity."""
    broad, middle, fine = grain.broad[0], grain.middle[0], grain.fine[0]
    nose = _ellipsoid(at, (0, -98, -46), (11, 16, 26))
    ears = _ellipsoid(at.folded, (74, 14, -34), (6, 12, 20))
    skin = np.maximum.reduce([_head_depth(at) + 0.9 * broad, nose, ears])
    _paint(picture, "skin", _inside(skin))
    _paint(picture, "fat", _inside(skin - 1.3) * (1 - 0.12 * np.clip(fine + 0.4 * middle, 0, 2)))
    scalp = SCALP_MM + 2.5 * np.clip(at.y / 99, -0.4, 1) + 0.5 * broad
    _paint(picture, "muscle", _inside(skin - scalp))
    temporalis = 9 * _inside(26 - np.abs(at.y + 34), 34) * _inside(12 - at.z, 34)
    skull = skin - scalp - temporalis
    _paint(picture, "bone", _inside(skull))
    thick = SKULL_MM + 0.8 * broad
    diploe = np.minimum(skull - 1.7, thick - 1.6 - skull)
    _paint(picture, "marrow", _inside(diploe) * np.clip(0.75 + 0.2 * middle, 0, 1))
    above_floor = at.z - _skull_base(at)
    _paint_face(picture, at, skin, np.minimum(skull, -above_floor) - 1.5, grain)
    cavity = np.asarray(np.minimum(skull - thick, 0.9 * above_floor))
    _paint(picture, "dura", _inside(cavity + 0.6))
    _paint(picture, "csf", _inside(cavity - 0.5))
    return cavity


def _paint_face(picture: Field, at: Places, skin: Field, below_floor: Field, grain: Grain) -> None:
    """What lies below the skull's floor: bone, muscle, air cells, the eyes in their fat, the nose."""
    if at.z.min() > 10:
        return
    middle, fine, base = grain.middle[0], grain.fine[0], _inside(below_floor)
    _paint(picture, "marrow", base * np.clip(0.5 + 0.5 * middle, 0, 1))
    _paint(picture, "muscle", base * _inside(middle + 0.3 * fine, 0.8) * _inside(np.abs(at.x) - 30, 20))
    _paint(picture, "air", base * _inside(fine - 0.2, 0.8) * _inside(at.y - 8, 12))
    for tissue, centre, radii in FACE:
        bulge = -1.0 if tissue == "fat" else 1.5  # eyes stand out, their fat does not
        depth = np.minimum(_ellipsoid(at.folded, centre, radii), skin + bulge)
        _paint(picture, tissue, _inside(depth - 1.2 * np.maximum(fine, 0) * (tissue in ("air", "fat"))))


def _paint_brain(picture: Field, at: Places, cavity: Field, grain: Grain, folds: Texture) -> Field:
    """Brain with the fluid and vessels around it; returns the share of white matter."""
    side, y, z = at.folded
    surface = cavity - 2.2 - 0.7 * grain.broad[1]
    below_tentorium = 0.75 * (3 - 0.7 * side - 0.4 * np.maximum(y - 36, 0) - z)
    cerebellum = np.minimum(below_tentorium, 0.85 * (y - 7 - 0.6 * side))
    callosum = np.sqrt(((y + 3) / 43) ** 2 + (z / 27) ** 2)  # the hemispheres are joined within 1
    fissure = np.abs(at.x + 0.7 * grain.middle[1]) + 30 * np.maximum(1 - callosum, 0)
    gap = np.minimum(_beyond_sulci(at, surface, fissure, grain, folds), _beyond_sylvian(at, grain))
    gap = np.minimum(gap, np.minimum(fissure - 0.5, np.abs(cerebellum) - 0.6))
    tissue, fluid = _inside(surface), _inside(-gap, 1.5)
    white = tissue * _inside(np.minimum(gap, surface) - CORTEX_MM + 0.4 * grain.middle[1], 2.6)
    _paint(picture, "grey", tissue)
    _paint(picture, "white", white)
    _paint(picture, "csf", tissue * fluid)
    fluid = np.maximum(tissue * fluid, _inside(cavity) - tissue)  # in the sulci and around the brain
    _paint(picture, "dura", 0.6 * fluid * _inside(0.5 - fissure) * _inside(z, 10))  # the falx
    _paint_vessels(picture, at, cavity, fluid, grain)
    _paint_deep(picture, at)
    _paint_hindbrain(picture, at, cerebellum, surface, grain)
    return white * (cerebellum < 0)


def _beyond_sulci(at: Places, surface: Field, fissure: Field, grain: Grain, folds: Texture) -> Field:
    """Distance to the edge of the nearest sulcus.

    Sulci are where a texture changes sign. It is stretched towards the middle of the head, so that
    they run inwards from the surface; they narrow on the way and end at a certain depth.
    """
    x, y, z = at
    stretch = 1 + 0.72 * np.clip(surface, 0, 30) / np.sqrt(x * x + y * y + z * z + 100)
    sway = 2.2 * grain.middle[0]
    values = folds(x * stretch + sway, y * stretch - sway, z * stretch)
    steepness = np.sqrt(sum(g * g for g in np.gradient(values, PIXEL_MM))) + 0.02
    depth = np.minimum(surface, 9 + 1.2 * fissure)
    too_deep = np.maximum(depth - SULCUS_DEPTH_MM - 5 * grain.broad[1], 0)
    return np.asarray(np.abs(values) / steepness + too_deep - 0.1 - np.clip(1 - surface / 16, 0, 1))


def _beyond_sylvian(at: Places, grain: Grain) -> Field:
    """Distance to the edge of the Sylvian fissure: along the insula, and out to the surface."""
    side, y, z = at.folded
    upright = Places(side + 1.6 * grain.middle[0], y, np.zeros_like(z))
    within = np.maximum(_tube(upright, INSULA), _tube(upright, SYLVIAN_FISSURE))
    return np.asarray(np.maximum(np.abs(z - 3) - 16, 0) - within - 0.7 - 0.3 * grain.middle[1])


def _paint_deep(picture: Field, at: Places) -> None:
    """Nuclei, cisterns, arteries of the base, and ventricles with their slightly brighter rim."""
    for tissue, centre, radii in DEEP_BRAIN:
        edge = 3.0 if tissue == "deep grey" else 1.5
        _paint(picture, tissue, _inside(_ellipsoid(at.folded, centre, radii), edge))
    ventricle = np.maximum(_tube(at.folded, VENTRICLE), _tube(at.folded, TEMPORAL_HORN))
    _paint(picture, "grey", 0.5 * _inside(ventricle + 2.5, 3))
    _paint(picture, "csf", _inside(ventricle))
    plexus = _inside(_ellipsoid(at.folded, (20, 27, 14), (2.5, 6, 4)), 2)
    _paint(picture, "blood", 0.45 * plexus * _inside(ventricle))


def _paint_hindbrain(picture: Field, at: Places, cerebellum: Field, surface: Field, grain: Grain) -> None:
    """Cerebellum with its folia, brainstem, fourth ventricle and the cistern around."""
    if at.z.min() > 12:
        return
    x, y, z = at
    room = _inside(np.minimum(cerebellum - 1, surface))
    folium = (np.sqrt(x * x * 0.55 + (y - 8) ** 2) + 1.3 * grain.middle[0]) / 4.6
    crest = np.abs(folium - np.floor(folium) - 0.5) * 2  # 1 in the furrows, 0 midway between
    core = _inside(_ellipsoid(at.folded, (20, 40, -36), (17, 14, 11)) + 3 * grain.middle[1], 8)
    _paint(picture, "grey", room)
    _paint(picture, "white", room * np.maximum(core, 0.35 * _inside(0.4 - crest, 0.8)))
    _paint(picture, "csf", room * 0.45 * _inside(crest - 0.85, 0.3) * (1 - core))
    leaning = Places(x, y - 7 - 0.3 * np.maximum(-24 - z, 0), z)
    stem = _ellipsoid(leaning, (0, 0, -36), (16, 14, 35)) + 1.2 * grain.middle[1]
    _paint(picture, "csf", 0.7 * _inside(stem + 2.2, 2) * _inside(surface) * _inside(-11 - z, 6))
    _paint(picture, "white", _inside(stem) * _inside(-4 - z, 6))
    _paint(picture, "csf", _inside(_ellipsoid(leaning, (0, 17, -33), (7, 4, 11))))


def _paint_vessels(picture: Field, at: Places, cavity: Field, fluid: Field, grain: Grain) -> None:
    """Sagittal sinus and the vessels in the sulci, which light up after contrast."""
    sinus = np.minimum(2.6 - np.abs(at.x) - 0.4 * np.maximum(cavity, 0), 3.2 - np.abs(cavity - 1))
    course = _inside(np.abs(at.y) - 20 + 0.2 * at.z, 10) * _inside(at.z, 10)
    _paint(picture, "blood", _inside(sinus, 1.5) * course)
    _paint(picture, "blood", 0.55 * fluid * _inside(grain.fine[1] - 1.3, 0.6))


def _paint_lesion(picture: Field, at: Places, white: Field, grain: Grain, lesion: Lesion) -> Field:
    """A glioma: its edge is uneven and soft, and it spreads further in white matter."""
    wander = 2.2 * grain.middle[0] + 3.0 * grain.broad[1] + 0.3 * grain.fine[0]
    along_white = 3.0 * ndimage.gaussian_filter(white, 1.5)
    share = _inside(_ellipsoid(at, lesion.centre, lesion.radii) + wander + along_white - 1.5, 7.0)
    _paint(picture, "lesion", share * np.clip(0.9 + 0.06 * grain.middle[1], 0, 1))
    _paint(picture, "enhancing", 0.6 * share * _inside(_ellipsoid(at, lesion.spot, (3, 4, 4)), 2))
    return share


# --- acquisition -------------------------------------------------------------------------------


def _acquire(slices: Field, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Coil shading, blur and noise: brightness (z, 3, y, x) -> pixels (z, y, x, 3)."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE, dtype=np.float32)] * 2, indexing="ij")
    volume = np.empty((len(slices), SIZE, SIZE, 3), np.uint8)
    for channel, (blur, noise) in enumerate(((0.7, 1.5), (0.8, 2.0), (0.65, 2.0))):
        shading = 1 + (0.06 - 0.03 * channel) * x + 0.1 * y + 0.12 * (x * x + y * y)
        for index, picture in enumerate(slices[:, channel]):
            signal = ndimage.gaussian_filter(picture, blur) * shading
            real, imaginary = noise * rng.standard_normal((2, SIZE, SIZE), np.float32)
            magnitude = np.sqrt((signal + real) ** 2 + imaginary**2)  # hence Rician noise
            volume[index, ..., channel] = np.clip(np.rint(magnitude - noise), 0, 255)
    return volume


def _largest_piece(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    labels, _ = ndimage.label(mask)
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax(), np.uint8)
