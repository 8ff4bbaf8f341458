"""Anatomy of the synthetic patient: tissues are painted over one another on a thin plane of the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .phantom_shapes import Field, Grain, Places, Point, Texture, ellipsoid, inside, tube

#: Height and width of a slice in pixels, and the size of a pixel.
SIZE, PIXEL_MM = 256, 0.94
#: The part of the image that the head can reach; the rest is air.
ROWS, COLUMNS = slice(2, 242), slice(34, 222)

#: Intensity of each tissue in pre-contrast T1, FLAIR and post-contrast T1.
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

# Anatomy in mm: x to the right of the image, y to the back, z up; the origin is the middle of the head at
# the height of the thalami. Structures on both sides are defined once, for x > 0.
HEAD_RADII = (75.0, 99.0, 86.0)
SCALP_MM, SKULL_MM, CORTEX_MM, SULCUS_DEPTH_MM = 5.0, 6.5, 3.4, 19.0
#: Distances between sign changes of the textures: cortical folds, and three scales of grain.
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
    """A glioma: centre, radii, and centre of its contrast-enhancing part, in mm."""

    centre: Point
    radii: Point
    spot: Point


#: How strongly a lesion displaces the surrounding tissue.
MASS_EFFECT = 0.26


def _paint(picture: Field, tissue: str, share: Field) -> None:
    """Blend a tissue into an image, (3, y, x), with the fraction ``share`` per pixel."""
    for channel, brightness in zip(picture, TISSUES[tissue], strict=True):
        channel += share * (np.float32(brightness) - channel)


def draw_plane(z: float, textures: Sequence[Texture], lesion: Lesion) -> Field:
    """One thin plane, (4, y, x): intensities of the three sequences, and the fraction of lesion."""
    y, x = np.meshgrid(*[(np.arange(SIZE, dtype=np.float32) - SIZE / 2) * PIXEL_MM] * 2, indexing="ij")
    x, y = x[ROWS, COLUMNS], y[ROWS, COLUMNS] + 8  # the head is slightly above the centre
    at = Places(x + 0.035 * y, y - 0.035 * x, z + 0.04 * x)  # and slightly rotated and tilted
    folds, *others = textures
    # Swapping a texture's axes gives an independent one.
    grain = Grain(*((texture(*at), texture(at.z, at.x, at.y)) for texture in others))
    picture = np.zeros((4, *x.shape), np.float32)
    cavity = _paint_head(picture[:3], at, grain)
    white = _paint_brain(picture[:3], _displaced(at, grain, lesion), cavity, grain, folds)
    picture[3] = _paint_lesion(picture[:3], at, white, grain, lesion)
    return picture


def _displaced(at: Places, grain: Grain, lesion: Lesion) -> Places:
    """Positions of brain tissue without mass effect and irregularity."""
    offset = [v - c for v, c in zip(at, lesion.centre, strict=True)]
    reach = 1.9 * lesion.radii[1]
    fade = np.maximum(1 - sum(o * o for o in offset) / reach**2, 0)
    x, y, z = (v - MASS_EFFECT * fade * fade * o for v, o in zip(at, offset, strict=True))
    return Places(x + 1.4 * grain.broad[0] + 0.5 * grain.middle[1], y + 1.8 * grain.broad[1], z)


def _head_depth(at: Places) -> Field:
    """Depth below the skin: egg-shaped, narrower at the front, flat at the top, elongated below."""
    a, b, c = HEAD_RADII
    v = (at.y - 0.05 * at.z) / b
    u = at.x / (a * (1 + 0.06 * v - 0.05 * v * v))
    up = (at.z - 8) / np.where(at.z > 8, np.float32(c), np.float32(150))
    height = up * np.sqrt(0.45 + 0.55 * up * up)  # between a sphere (up) and a box (up * up)
    boxy = 0.2 + 0.2 * inside(-10 - at.z, 40)
    reach = np.sqrt(np.maximum(u * u + v * v + height * height - boxy * u * u * v * v, 0))
    slope = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (height * 1.3 / c) ** 2)
    return np.asarray(reach * (1 - reach) / (slope + 1e-6))


def _skull_base(at: Places) -> Field:
    """Height of the skull base: anterior, middle and posterior fossa, sella and petrous ridges."""
    x, y, _ = at.folded
    front = -36 - 0.2 * y + 4 * inside(14 - np.abs(x - 30), 14)
    middle = -24 - 26 * inside(x - 20, 10) + 0.012 * np.maximum(x - 40, 0) ** 2 - 0.12 * y
    floor = front + (middle - front) * inside(y + 40 - 0.15 * x, 9)
    floor = floor + (-72 - floor) * inside(y - 8 - 0.55 * x, 12)
    to_ridge = np.abs(y - 4 - 0.6 * x) * 0.85
    return np.asarray(floor + 22 * inside(9 - to_ridge, 9) * inside(x - 20, 8) * (floor < -30))


def _paint_head(picture: Field, at: Places, grain: Grain) -> Field:
    """Scalp, skull and face; returns the depth inside the cranial cavity."""
    broad, middle, fine = grain.broad[0], grain.middle[0], grain.fine[0]
    nose = ellipsoid(at, (0, -98, -46), (11, 16, 26))
    ears = ellipsoid(at.folded, (74, 14, -34), (6, 12, 20))
    skin = np.maximum.reduce([_head_depth(at) + 0.9 * broad, nose, ears])
    _paint(picture, "skin", inside(skin))
    _paint(picture, "fat", inside(skin - 1.3) * (1 - 0.12 * np.clip(fine + 0.4 * middle, 0, 2)))
    scalp = SCALP_MM + 2.5 * np.clip(at.y / 99, -0.4, 1) + 0.5 * broad
    _paint(picture, "muscle", inside(skin - scalp))
    temporalis = 9 * inside(26 - np.abs(at.y + 34), 34) * inside(12 - at.z, 34)
    skull = skin - scalp - temporalis
    _paint(picture, "bone", inside(skull))
    thick = SKULL_MM + 0.8 * broad
    diploe = np.minimum(skull - 1.7, thick - 1.6 - skull)
    _paint(picture, "marrow", inside(diploe) * np.clip(0.75 + 0.2 * middle, 0, 1))
    above_floor = at.z - _skull_base(at)
    _paint_face(picture, at, skin, np.minimum(skull, -above_floor) - 1.5, grain)
    cavity = np.asarray(np.minimum(skull - thick, 0.9 * above_floor))
    _paint(picture, "dura", inside(cavity + 0.6))
    _paint(picture, "csf", inside(cavity - 0.5))
    return cavity


def _paint_face(picture: Field, at: Places, skin: Field, below_floor: Field, grain: Grain) -> None:
    """Structures below the skull base: bone, muscle, air cells, orbits with eyes, nose."""
    if at.z.min() > 10:
        return
    middle, fine, base = grain.middle[0], grain.fine[0], inside(below_floor)
    _paint(picture, "marrow", base * np.clip(0.5 + 0.5 * middle, 0, 1))
    _paint(picture, "muscle", base * inside(middle + 0.3 * fine, 0.8) * inside(np.abs(at.x) - 30, 20))
    _paint(picture, "air", base * inside(fine - 0.2, 0.8) * inside(at.y - 8, 12))
    for tissue, centre, radii in FACE:
        bulge = -1.0 if tissue == "fat" else 1.5  # eyes protrude, orbital fat does not
        depth = np.minimum(ellipsoid(at.folded, centre, radii), skin + bulge)
        _paint(picture, tissue, inside(depth - 1.2 * np.maximum(fine, 0) * (tissue in ("air", "fat"))))


def _paint_brain(picture: Field, at: Places, cavity: Field, grain: Grain, folds: Texture) -> Field:
    """Brain with surrounding fluid and vessels; returns the fraction of white matter."""
    side, y, z = at.folded
    surface = cavity - 2.2 - 0.7 * grain.broad[1]
    below_tentorium = 0.75 * (3 - 0.7 * side - 0.4 * np.maximum(y - 36, 0) - z)
    cerebellum = np.minimum(below_tentorium, 0.85 * (y - 7 - 0.6 * side))
    callosum = np.sqrt(((y + 3) / 43) ** 2 + (z / 27) ** 2)  # below 1, the hemispheres are connected
    fissure = np.abs(at.x + 0.7 * grain.middle[1]) + 30 * np.maximum(1 - callosum, 0)
    gap = np.minimum(_beyond_sulci(at, surface, fissure, grain, folds), _beyond_sylvian(at, grain))
    gap = np.minimum(gap, np.minimum(fissure - 0.5, np.abs(cerebellum) - 0.6))
    tissue, fluid = inside(surface), inside(-gap, 1.5)
    white = tissue * inside(np.minimum(gap, surface) - CORTEX_MM + 0.4 * grain.middle[1], 2.6)
    _paint(picture, "grey", tissue)
    _paint(picture, "white", white)
    _paint(picture, "csf", tissue * fluid)
    fluid = np.maximum(tissue * fluid, inside(cavity) - tissue)  # in the sulci and around the brain
    _paint(picture, "dura", 0.6 * fluid * inside(0.5 - fissure) * inside(z, 10))  # the falx
    _paint_vessels(picture, at, cavity, fluid, grain)
    _paint_deep(picture, at)
    _paint_hindbrain(picture, at, cerebellum, surface, grain)
    return white * (cerebellum < 0)


def _beyond_sulci(at: Places, surface: Field, fissure: Field, grain: Grain, folds: Texture) -> Field:
    """Distance to the edge of the nearest sulcus.

    Sulci are where a texture changes sign. The texture is stretched towards the middle of the head, so that
    sulci run inwards from the surface; they get narrower and end at a certain depth.
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
    """Distance to the edge of the Sylvian fissure, along the insula and out to the surface."""
    side, y, z = at.folded
    upright = Places(side + 1.6 * grain.middle[0], y, np.zeros_like(z))
    within = np.maximum(tube(upright, INSULA), tube(upright, SYLVIAN_FISSURE))
    return np.asarray(np.maximum(np.abs(z - 3) - 16, 0) - within - 0.7 - 0.3 * grain.middle[1])


def _paint_deep(picture: Field, at: Places) -> None:
    """Nuclei, cisterns, basal arteries, and ventricles with a slightly brighter rim."""
    for tissue, centre, radii in DEEP_BRAIN:
        edge = 3.0 if tissue == "deep grey" else 1.5
        _paint(picture, tissue, inside(ellipsoid(at.folded, centre, radii), edge))
    ventricle = np.maximum(tube(at.folded, VENTRICLE), tube(at.folded, TEMPORAL_HORN))
    _paint(picture, "grey", 0.5 * inside(ventricle + 2.5, 3))
    _paint(picture, "csf", inside(ventricle))
    plexus = inside(ellipsoid(at.folded, (20, 27, 14), (2.5, 6, 4)), 2)
    _paint(picture, "blood", 0.45 * plexus * inside(ventricle))


def _paint_hindbrain(picture: Field, at: Places, cerebellum: Field, surface: Field, grain: Grain) -> None:
    """Cerebellum with folia, brainstem, fourth ventricle and the surrounding cistern."""
    if at.z.min() > 12:
        return
    x, y, z = at
    room = inside(np.minimum(cerebellum - 1, surface))
    folium = (np.sqrt(x * x * 0.55 + (y - 8) ** 2) + 1.3 * grain.middle[0]) / 4.6
    crest = np.abs(folium - np.floor(folium) - 0.5) * 2  # 1 in the furrows, 0 midway between
    core = inside(ellipsoid(at.folded, (20, 40, -36), (17, 14, 11)) + 3 * grain.middle[1], 8)
    _paint(picture, "grey", room)
    _paint(picture, "white", room * np.maximum(core, 0.35 * inside(0.4 - crest, 0.8)))
    _paint(picture, "csf", room * 0.45 * inside(crest - 0.85, 0.3) * (1 - core))
    leaning = Places(x, y - 7 - 0.3 * np.maximum(-24 - z, 0), z)
    stem = ellipsoid(leaning, (0, 0, -36), (16, 14, 35)) + 1.2 * grain.middle[1]
    _paint(picture, "csf", 0.7 * inside(stem + 2.2, 2) * inside(surface) * inside(-11 - z, 6))
    _paint(picture, "white", inside(stem) * inside(-4 - z, 6))
    _paint(picture, "csf", inside(ellipsoid(leaning, (0, 17, -33), (7, 4, 11))))


def _paint_vessels(picture: Field, at: Places, cavity: Field, fluid: Field, grain: Grain) -> None:
    """Sagittal sinus and vessels in the sulci, which are bright after contrast."""
    sinus = np.minimum(2.6 - np.abs(at.x) - 0.4 * np.maximum(cavity, 0), 3.2 - np.abs(cavity - 1))
    course = inside(np.abs(at.y) - 20 + 0.2 * at.z, 10) * inside(at.z, 10)
    _paint(picture, "blood", inside(sinus, 1.5) * course)
    _paint(picture, "blood", 0.55 * fluid * inside(grain.fine[1] - 1.3, 0.6))


def _paint_lesion(picture: Field, at: Places, white: Field, grain: Grain, lesion: Lesion) -> Field:
    """A glioma with an irregular, soft border that spreads further in white matter."""
    wander = 2.2 * grain.middle[0] + 3.0 * grain.broad[1] + 0.3 * grain.fine[0]
    along_white = 3.0 * ndimage.gaussian_filter(white, 1.5)
    share = inside(ellipsoid(at, lesion.centre, lesion.radii) + wander + along_white - 1.5, 7.0)
    _paint(picture, "lesion", share * np.clip(0.9 + 0.06 * grain.middle[1], 0, 1))
    _paint(picture, "enhancing", 0.6 * share * inside(ellipsoid(at, lesion.spot, (3, 4, 4)), 2))
    return share
