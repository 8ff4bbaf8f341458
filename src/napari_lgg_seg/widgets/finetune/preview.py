"""The preview of a training: the current model's labels of one validation patient, as a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from ...core.data.patients import Patient
from ...layers import (
    PREVIEW,
    add_layers,
    find_layer,
    patient_layers,
    preview_properties,
    same_patient,
)
from ..review.paint_events import is_painting
from ..segment.inputs import grid_of, proposed_sequences, subjects_in
from ..shared.navigation import go_to_largest
from ..shared.result_layers import Subject, grid_properties

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels


class Preview:
    """One labels layer over a patient's FLAIR, updated after each validation.

    Parameters
    ----------
    viewer : Viewer
        Where it is shown.
    shown : bool
        Whether it is switched on.
    """

    def __init__(self, viewer: ViewerModel, *, shown: bool) -> None:
        self._viewer = viewer
        self.shown = shown
        self._layer: Labels | None = None
        self._name: str | None = None
        self._labels: npt.NDArray[np.uint8] | None = None
        self._patient: Patient | None = None
        self._subjects: dict[str, str] = {}

    def start(self, subjects: Mapping[str, str]) -> None:
        """Forget the previous training; its layer stays as it is.

        Parameters
        ----------
        subjects : mapping of str to str
            By name, what identifies the patients of this training that are open: another patient with the
            same name can be open, too.
        """
        self._subjects = dict(subjects)
        self._layer = self._name = self._labels = self._patient = None

    def offer_patient(self, patient: Patient) -> None:
        """Provide a validation patient whose images are added when needed, if they are not open."""
        self._patient = patient

    def update(self, name: str, labels: npt.NDArray[np.uint8]) -> None:
        """Show the labels of a validation patient; the first patient that can be shown is kept."""
        if self._name not in (None, name) or not self._can_show(name, labels.shape):
            return
        self._name, self._labels = name, labels
        if self.shown:
            self._show()

    def switch(self, *, shown: bool) -> None:
        """Show the layer, or remove it."""
        self.shown = shown
        if shown and self._labels is not None:
            self._show()
        elif self.is_open:
            self._viewer.layers.remove(self._layer)

    @property
    def is_open(self) -> bool:
        """Whether the layer is in the viewer."""
        return self._layer is not None and self._layer in self._viewer.layers

    def is_layer(self, layer: Any) -> bool:
        """Whether a layer is the preview."""
        return self._layer is not None and layer == self._layer  # either may be a proxy

    def _can_show(self, name: str, grid: tuple[int, ...]) -> bool:
        offered = self._patient is not None and self._patient.name == name
        return offered or self._flair(name, grid) is not None

    def _flair(self, name: str, grid: tuple[int, ...]) -> Image | None:
        for subject in subjects_in(self._viewer.layers):
            flair = proposed_sequences(self._viewer.layers, subject)["FLAIR"]
            if subject.id == self._subjects.get(name) and flair is not None and grid_of(flair) == grid:
                return flair
        return None

    def _show(self) -> None:
        assert self._name is not None
        assert self._labels is not None
        if self.is_open and self._layer.data.shape == self._labels.shape:  # type: ignore[union-attr]
            self._layer.data = self._labels  # type: ignore[union-attr]
            return
        # Adding a layer selects it, which would interrupt painting in another one.
        active = self._viewer.layers.selection.active
        flair = self._flair(self._name, self._labels.shape)
        opens_patient = flair is None
        if flair is None:
            flair = None if is_painting(active) else self._open_patient()
        if flair is None:
            return
        subject = Subject(self._subjects[self._name], self._name)
        before = find_layer(self._viewer.layers, subject.id, PREVIEW)
        if before is not None:
            self._viewer.layers.remove(before)
        properties = {**grid_properties(flair, subject, PREVIEW), **preview_properties(self._name)}
        self._layer = self._viewer.add_labels(self._labels, **properties)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        if opens_patient:
            go_to_largest(self._viewer, self._layer)

    def _open_patient(self) -> Image | None:
        """Add the layers of the offered patient; only once, in case the user removes them.

        They cover other layers, so this is not done while the user is painting.
        """
        patient, self._patient = self._patient, None
        if patient is None or patient.name != self._name:
            return None
        known = same_patient(self._viewer.layers, patient.name, str(patient.folder))
        self._subjects[patient.name] = known or ""
        if self._flair(patient.name, patient.shape) is None:
            subject = self._subjects[patient.name] = uuid4().hex
            add_layers(self._viewer, patient_layers(patient, prefix=True, subject=subject))
        return self._flair(patient.name, patient.shape)
