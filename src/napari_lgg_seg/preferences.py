"""What the user prefers, from napari's own settings (``Preferences > LGG segmentation``).

napari keeps them in ``napari-lgg-seg.yaml`` beside its own settings. A napari before 0.9 has no settings of
plugins: there everything is as the defaults say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .core.choices import Threshold
from .core.devices import DeviceChoice

PLUGIN = "napari-lgg-seg"

#: Okabe and Ito's colours, told apart by colour-blind people, by their usual names.
COLOURS = {
    "vermilion": "#d55e00",
    "sky blue": "#56b4e9",
    "yellow": "#f0e442",
    "bluish green": "#009e73",
    "reddish purple": "#cc79a7",
    "orange": "#e69f00",
    "blue": "#0072b2",
}
#: What a new patient's threshold is: the model's own, that which promises the largest Dice, or a fixed one.
MODELS_OWN, AUTOMATIC, FIXED = "the model's own", "automatic", "fixed"


@dataclass(frozen=True)
class Preferences:
    """All preferences; each is a property of the manifest's ``configurations``, in the section named here.

    Attributes
    ----------
    device : str
        "auto", "cpu", "cuda" or "mps".
    model : str
        Model file to begin with; the shipped model if empty.
    threshold : str
        "the model's own", "automatic" or "fixed".
    fixed_threshold : float
        That threshold.
    tumour_colour, truth_colour : str
        Names in :data:`COLOURS`.
    dataset_folder : str
        Where dialogs for patients begin, and which cohort is listed at first; none if empty.
    autosave_seconds : int
        From the last stroke until edits are kept.
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


#: Section of the manifest's ``configurations`` -> its preferences.
SECTIONS = {
    "segmentation": ("device", "model", "threshold", "fixed_threshold"),
    "display": ("tumour_colour", "truth_colour"),
    "files": ("dataset_folder", "autosave_seconds"),
}


def preferences() -> Preferences:
    """The preferences as they are set now."""
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


def remember(name: str, value: Any) -> None:
    """Set a preference for later sessions, too; nothing happens where napari keeps none.

    Parameters
    ----------
    name : str
        Of a field of :class:`Preferences`.
    value : object
        Of that field's type.
    """
    settings = _settings()
    if settings is not None:
        section = next(section for section, names in SECTIONS.items() if name in names)
        setattr(getattr(settings, section), name, value)


def colour(name: str) -> str:
    """The colour "tumour_colour" or "truth_colour" as #rrggbb."""
    return COLOURS[getattr(preferences(), name)]


def dataset_folder() -> str:
    """Where dialogs for patients begin: the preferred folder if it is there."""
    folder = preferences().dataset_folder
    return folder if folder and Path(folder).is_dir() else ""


def _settings() -> Any:
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return None
    try:
        return get_plugin_settings(PLUGIN)
    except KeyError:  # napari is used without the plugin being registered
        return None
