"""The user's preferences, from napari's own settings (``Preferences > LGG segmentation``).

napari stores them in ``napari-lgg-seg.yaml`` next to its own settings. napari before 0.9 has no plugin
settings; there the defaults apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core.choices import Threshold
from .core.devices import DeviceChoice

PLUGIN = "napari-lgg-seg"

#: The colour-blind-safe palette of Okabe and Ito.
COLOURS = {
    "vermilion": "#d55e00",
    "sky blue": "#56b4e9",
    "yellow": "#f0e442",
    "bluish green": "#009e73",
    "reddish purple": "#cc79a7",
    "orange": "#e69f00",
    "blue": "#0072b2",
}
#: Threshold preferences: the one in the model file, the one that maximises the expected Dice, a fixed one.
MODELS_OWN, AUTOMATIC, FIXED = "the model's own", "automatic", "fixed"


@dataclass(frozen=True)
class Preferences:
    """All preferences; each is a property in the manifest's ``configurations``.

    Attributes
    ----------
    device : str
        "auto", "cpu", "cuda" or "mps".
    model : str
        Model file selected at first; the shipped model if empty.
    threshold : str
        "the model's own", "automatic" or "fixed".
    fixed_threshold : float
        The fixed threshold.
    tumour_colour, truth_colour : str
        Names in :data:`COLOURS`.
    dataset_folder : str
        Where dialogs for patients start, and the cohort listed at first; none if empty.
    autosave_seconds : int
        Seconds from the last brush stroke until edits are saved.
    """

    device: DeviceChoice = "auto"
    model: str = ""
    threshold: str = MODELS_OWN
    fixed_threshold: float = 0.5
    tumour_colour: str = "vermilion"
    truth_colour: str = "sky blue"
    dataset_folder: str = ""
    autosave_seconds: int = 3

    @property
    def threshold_to_use(self) -> Threshold | None:
        """The threshold of new results; None for the model's own."""
        if self.threshold == AUTOMATIC:
            return "auto"
        return self.fixed_threshold if self.threshold == FIXED else None


#: Section of the manifest's ``configurations`` -> the preferences in it.
SECTIONS = {
    "segmentation": ("device", "model", "threshold", "fixed_threshold"),
    "display": ("tumour_colour", "truth_colour"),
    "files": ("dataset_folder", "autosave_seconds"),
}


def preferences() -> Preferences:
    """The current preferences."""
    settings = _settings()
    if settings is None:
        return Preferences()
    return Preferences(
        **{
            name: getattr(getattr(settings, section), name)
            for section, names in SECTIONS.items()
            for name in names
        }
    )


def colour(name: str) -> str:
    """The preferred "tumour_colour" or "truth_colour" as #rrggbb."""
    return COLOURS[getattr(preferences(), name)]


def dataset_folder() -> str:
    """The preferred dataset folder, where dialogs start; empty if it does not exist."""
    folder = preferences().dataset_folder
    return folder if folder and Path(folder).is_dir() else ""


def _settings() -> Any:
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9
        return None
    try:
        return get_plugin_settings(PLUGIN)
    except (KeyError, AssertionError):  # not registered with napari, or a settings file that holds a list
        return None
