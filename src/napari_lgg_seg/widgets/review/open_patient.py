"""The patient that is open for review: its layers, and which of its labels are not saved yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from ...core.cohort.edits import Edits, KnownRevision, SavedEdits
from ...core.cohort.patient_summary import slice_to_show
from ...core.cohort.saved_labels import checksum
from ...core.cohort.sources import Opened
from ...core.data.label_files import LabelMap
from ...core.data.patients import FLAIR, SEQUENCES
from ...layers import (
    COMPARISON_KEY,
    METADATA_KEY,
    PREVIEW,
    PROBABILITY,
    TRUTH,
    TUMOUR,
    current_layer,
    described,
    find_layer,
    is_comparison,
    outline,
    patient_layers,
    patients_in,
    same_patient,
    spacing_of,
    subject_of,
)
from ..shared import result_layers as results
from ..shared.navigation import go_to_slice

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

#: Whether the layer of each role was visible; carried over from one patient to the next.
Visibility = dict[str, bool]


class OpenPatient:
    """One patient in the viewer.

    Layers of other patients and foreign layers that were there before do not belong to it. Labels added
    later on its grid do, even if the user created them.

    Parameters
    ----------
    viewer : ViewerModel
        Where the patient is shown at once. Layers of the same patient that are already open are reused.
    opened : Opened
        The patient, with labels if it has any.
    visibility : dict of str to bool
        Visibility of the previous patient's layers, by role.
    """

    def __init__(self, viewer: ViewerModel, opened: Opened, visibility: Visibility) -> None:
        self._viewer = viewer
        self._patient = opened.patient
        self.source = opened.source
        known = same_patient(viewer.layers, self._patient.name, str(self._patient.folder))
        self._subject = results.Subject(known or uuid4().hex, self._patient.name)
        self._foreign = {
            layer for layer in viewer.layers if described(layer) is None or not self._is_own(layer)
        }
        self._saved: int | None = None  # checksum of the labels as last read or saved
        self._saved_probability: int | None = None
        self._known = KnownRevision(opened.revision)
        self._saved_others: set[int] = set()
        self._add_images()
        self.show_labels(opened)
        self._apply_visibility(visibility)
        self._go_to_tumour()

    @property
    def name(self) -> str:
        """The patient's name in its table."""
        return self.source.name

    @property
    def labels(self) -> Labels | None:
        """The patient's result: the labels edited last, otherwise the prediction shown last."""
        tumours = [layer for layer in self._labels() if _role(layer) == TUMOUR]
        drawn = [layer for layer in self._labels() if not _role(layer) and np.any(layer.data)]
        edited = [layer for layer in tumours if results.is_edited(layer)]
        result: Labels | None = current_layer(next(filter(None, (edited, drawn, tumours)), []))
        return result

    @property
    def truth(self) -> Labels | None:
        """The ground truth."""
        truth: Labels | None = self._find(TRUTH)
        return truth

    @property
    def is_shown(self) -> bool:
        """Whether images or ground truth are still in the viewer."""
        return self._find(SEQUENCES[FLAIR]) is not None or self.truth is not None

    # --- showing -------------------------------------------------------------------------------

    def _add_images(self) -> None:
        from napari.layers import Layer

        prefix = bool(patients_in(self._foreign))
        for data in patient_layers(self._patient, prefix=prefix, subject=self._subject.id):
            values, properties, _ = data
            existing = self._find(properties["metadata"][METADATA_KEY]["role"])
            if existing is None or existing.data.shape != values.shape:
                self._viewer.add_layer(Layer.create(*data))
        if self._patient.truth is not None:
            self._saved_others.add(checksum(self._patient.truth))

    def show_labels(self, opened: Opened) -> None:
        """Show labels that were read, unless those shown have unsaved edits."""
        shown, reference = self.labels, self._find(SEQUENCES[FLAIR]) or self._find(TRUTH)
        if opened.labels is None or reference is None or self._has_unsaved_edits(shown):
            return
        if shown is not None and results.is_edited(shown):
            self._viewer.layers.remove(shown)  # the user agreed to replace it
        subject, made_with = self._subject, dict(opened.status.made_with)
        if opened.probability is not None and opened.uncertainty is not None:
            layer = results.show_maps(
                self._viewer, reference, subject, opened.probability, opened.uncertainty, made_with
            )
            self._saved_probability = checksum(layer.data)
        tumour = results.show_labels(self._viewer, reference, subject, opened.labels, made_with)
        if opened.status.by_hand:
            results.mark_edited(tumour)
        self._saved, self._known.value = checksum(tumour.data), opened.revision
        if self.truth is not None:
            outline(self.truth)

    def _has_unsaved_edits(self, layer: Labels | None) -> bool:
        return layer is not None and results.is_edited(layer) and checksum(layer.data) != self._saved

    def _apply_visibility(self, visibility: Visibility) -> None:
        for layer in self._own():
            info = described(layer)
            if info is not None and info["role"] in visibility:
                layer.visible = visibility[info["role"]]

    def _go_to_tumour(self) -> None:
        """Select the labels that are likely to be corrected, and show the slice with the most tumour."""
        tumour, flair = self.labels, self._find(SEQUENCES[FLAIR])
        reference = next((layer for layer in (tumour, flair, self.truth) if layer is not None), None)
        if reference is None:
            return
        self._viewer.layers.selection.active = reference
        shown = [layer.data for layer in (tumour, self.truth) if layer is not None]
        go_to_slice(self._viewer, reference, slice_to_show(reference.data.shape[0], *shown))

    # --- which layers --------------------------------------------------------------------------

    def _own(self) -> list[Layer]:
        return [layer for layer in self._viewer.layers if layer not in self._foreign and self._is_own(layer)]

    def _is_own(self, layer: Any) -> bool:
        if is_comparison(layer):
            compared = layer.metadata[COMPARISON_KEY]
            others = [other for other in self._viewer.layers if not is_comparison(other)]
            return any(str(other.unique_id) in compared and self._is_own(other) for other in others)
        if described(layer) is not None:
            return self._is_described(layer)
        return (
            bool(layer._type_string == "labels")
            and not layer.multiscale
            and layer.data.shape == self._patient.shape
        )

    def _is_described(self, layer: Any) -> bool:
        """Whether a layer is marked as this patient's."""
        return described(layer) is not None and subject_of(layer) == self._subject.id

    def has(self, layer: Layer) -> bool:
        """Whether a layer of the viewer belongs to this patient."""
        return layer in self._own()

    def _find(self, role: str) -> Any:
        return find_layer(self._own(), self._subject.id, role)

    def _labels(self) -> list[Labels]:
        """The patient's labels layers without comparisons."""
        return [
            layer
            for layer in self._own()
            if layer._type_string == "labels" and not is_comparison(layer) and not layer.multiscale
        ]

    # --- saving --------------------------------------------------------------------------------

    def edits(self, *, accept: bool = False, leaving: bool = False) -> Edits | None:
        """A copy of the labels that are not saved yet; None if there are none.

        Parameters
        ----------
        accept : bool
            Treat the labels as corrected even if they were not edited.
        leaving : bool
            Include other edited labels, for instance the ground truth.
        """
        main = self.labels
        label_map, by_hand, is_stored = None, False, main is not None and checksum(main.data) == self._saved
        if main is not None and (accept or not is_stored):
            label_map, by_hand = self._label_map(main), accept or results.is_edited(main)
        others = self._other_edited_labels(main) if leaving else []
        if label_map is None and not others:
            return None
        probability = self._find(PROBABILITY)
        if by_hand and probability is not None and checksum(probability.data) == self._saved_probability:
            probability = None  # it is stored already
        return Edits(
            label_map,
            by_hand,
            None if probability is None else np.array(probability.data),
            self._known,
            is_stored,
            leaving,
            tuple((layer.name, self._label_map(layer)) for layer in others),
        )

    def mark_saved(self, edits: Edits) -> None:
        """Note that these edits are saved."""
        if edits.probability is not None:
            self._saved_probability = checksum(edits.probability)
        if edits.label_map is not None:
            self._saved = checksum(edits.label_map.labels)
            main = self.labels
            if edits.by_hand and main is not None and _role(main):
                results.mark_edited(main)
        self._saved_others |= {checksum(label_map.labels) for _, label_map in edits.more}

    def save(self, edits: Edits) -> SavedEdits:
        """Save edits where the patient came from; touches no layer, so that a worker may call it.

        Raises
        ------
        ResultsError, ExportError
            If a file cannot be written.
        """
        return self.source.save(edits, self._patient)

    def _other_edited_labels(self, main: Labels | None) -> list[Labels]:
        def is_edited(layer: Labels) -> bool:
            role = _role(layer)
            if role == TUMOUR:
                return results.is_edited(layer)
            return role != PREVIEW and bool(role or np.any(layer.data))

        return [
            layer
            for layer in self._labels()
            if layer != main and is_edited(layer) and checksum(layer.data) not in self._saved_others
        ]

    def _label_map(self, layer: Labels) -> LabelMap:
        info = described(layer) or {}
        return LabelMap(
            self._patient.name,
            np.array(layer.data),
            self._patient.slice_numbers,
            spacing_of(layer),
            self._patient.affine,
            info.get("made_with", {}),
            self._patient.number_width,
        )

    def remove(self) -> Visibility:
        """Remove the patient's layers from the viewer; returns their visibility by role."""
        for layer in self._labels():
            layer.mode = "pan_zoom"  # napari would keep drawing the brush of a removed layer
        for layer in [layer for layer in self._own() if is_comparison(layer)]:
            self._viewer.layers.remove(layer)  # shows again what the comparison had hidden
        visibility = {
            info["role"]: bool(o.visible) for o in self._own() if (info := described(o)) is not None
        }
        for layer in self._own():
            self._viewer.layers.remove(layer)
        return visibility


def _role(layer: Layer) -> str:
    info = described(layer)
    return str(info["role"]) if info is not None else ""
