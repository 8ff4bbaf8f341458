"""Signs that a folder has another layout than that of the dataset."""

from __future__ import annotations

import re

from ..errors import PatientError
from .patients import SliceFiles

#: Files that probably are a patient's images, in this or another layout.
IMAGE_ENDINGS = (".tif", ".tiff", ".nii.gz", ".nii", ".png", ".jpg", ".jpeg", ".dcm", ".nrrd", ".mha", ".mgz")

#: Names of folders that hold masks, in lower case; two letters may be a patient's initials, "gt" is not.
_MASK_FOLDERS = re.compile(
    r"gt|(ground[ _-]?)?truths?|(manual[ _-]?)?(masks?|labels?|labelstr|labelsts|segmentations?|annotations?)"
)


def check_not_masks(slices: SliceFiles) -> None:
    """Refuse a folder such as ``gt``, whose files are masks without saying so in their names."""
    folder = slices.folder
    if slices.masks or _MASK_FOLDERS.fullmatch(folder.name.lower()) is None:
        return
    raise PatientError(
        f"{folder} seems to hold masks, to judge by its name; name them <patient>_<n>_mask.tif and put them "
        "next to the images, or rename the folder if it holds images."
    )
