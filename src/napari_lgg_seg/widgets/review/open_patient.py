"""The patient that is open for review: its layers, and what in them is not kept yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.cohort.edits import Edits, SavedEdits
from ...core.cohort.patient_summary import slice_to_show
from ...core.cohort.saved_labels import checksum
from ...core.cohort.sources import Opened
from ...core.data.label_files import LabelMap
from ...core.data.patients import FLAIR, SEQUENCES
from ...layers import (
    METADATA_KEY,
    PREVIEW,
    PROBABILITY,
    TRUTH,
    TUMOUR,
    described,
    find_layer,
    is_comparison,
    outline,
    patient_layers,
    patients_in,
)
from ..shared import result_layers as results
from ..shared.navigation import go_to_slice

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

#: Whether layers of each role were visible in the patient before, since a reviewer wants them so again.
Visibility = dict[str, bool]


class OpenPatient:
    """One patient in the viewer.

    Layers of other patients, and layers of nobody that were there before, are none of its own. Labels
    that were added since and lie on its grid are its own, even if the user made them.

    Parameters
    ----------
    viewer : ViewerModel
        Where it is shown at once. Layers of the same patient that are there already are taken over.
    opened : Opened
        The patient, with labels where it has any.
    looks : dict of str to bool
        From :meth:`looks` of the patient before.
    """

    def __init__(self, viewer: ViewerModel, opened: Opened, visibility: Visibility) -> None:
        self._viewer = viewer
        self._patient = opened.patient
        self.source = opened.source
        self._before = {layer for layer in viewer.layers if not self._is_described(layer)}
        self._kept: int | None = None  # checksum of the labels that were read or kept
        self._more_kept: set[int] = set()
        self._add_images()
        self.show_labels(opened)
        self._dress(visibility)
        self._look_at_tumour()

    @property
    def name(self) -> str:
        """What the patient goes by in its table."""
        return self.source.name

    @property
    def labels(self) -> Labels | None:
        """The labels that are the patient's result: the newest that were edited, before a prediction."""
        tumours = [layer for layer in self._labels() if _role(layer) == TUMOUR]
        made = [layer for layer in self._labels() if not _role(layer) and np.any(layer.data)]
        edited = [layer for layer in tumours if results.is_edited(layer)]
        return next((group[-1] for group in (edited, made, tumours) if group), None)

    @property
    def truth(self) -> Labels | None:
        """The true labels."""
        truth: Labels | None = self._find(TRUTH)
        return truth

    @property
    def is_shown(self) -> bool:
        """Whether images or truth are still in the viewer."""
        return self._find(SEQUENCES[FLAIR]) is not None or self.truth is not None

    # --- what is shown -------------------------------------------------------------------------

    def _add_images(self) -> None:
        from napari.layers import Layer

        for data in patient_layers(self._patient, prefix=bool(patients_in(self._before))):
            values, properties, _ = data
            there = self._find(properties["metadata"][METADATA_KEY]["role"])
            if there is None or there.data.shape != values.shape:
                self._viewer.add_layer(Layer.create(*data))
        if self._patient.truth is not None:
            self._more_kept.add(checksum(self._patient.truth))

    def show_labels(self, opened: Opened) -> None:
        """Show labels that were read, unless somebody paints in those that are shown."""
        shown, like = self.labels, self._find(SEQUENCES[FLAIR]) or self._find(TRUTH)
        if opened.labels is None or like is None or self._is_unkept_work(shown):
            return
        if shown is not None and results.is_edited(shown):
            self._viewer.layers.remove(shown)  # what replaces it came from whoever said that it may
        name, made_with = self._patient.name, dict(opened.status.made_with)
        if opened.probability is not None and opened.uncertainty is not None:
            results.show_maps(self._viewer, like, name, opened.probability, opened.uncertainty, made_with)
        tumour = results.show_labels(self._viewer, like, name, opened.labels, made_with)
        if opened.status.by_hand:
            results.mark_edited(tumour)
        self._kept = checksum(tumour.data)
        if self.truth is not None:
            outline(self.truth)

    def _is_unkept_work(self, layer: Labels | None) -> bool:
        return layer is not None and results.is_edited(layer) and checksum(layer.data) != self._kept

    def _dress(self, visibility: Visibility) -> None:
        for layer in self._own():
            info = described(layer)
            if info is not None and info["role"] in visibility:
                layer.visible = visibility[info["role"]]

    def _look_at_tumour(self) -> None:
        """Select the labels that are likely to be corrected, and go to where most of the tumour is."""
        tumour, flair = self.labels, self._find(SEQUENCES[FLAIR])
        like = next((layer for layer in (tumour, flair, self.truth) if layer is not None), None)
        if like is None:
            return
        self._viewer.layers.selection.active = like
        shown = [layer.data for layer in (tumour, self.truth) if layer is not None]
        go_to_slice(self._viewer, like, slice_to_show(like.data.shape[0], *shown))

    # --- whose layers are whose ----------------------------------------------------------------

    def _own(self) -> list[Layer]:
        return [layer for layer in self._viewer.layers if layer not in self._before and self._is_own(layer)]

    def _is_own(self, layer: Any) -> bool:
        if described(layer) is not None:
            return self._is_described(layer)
        return (
            bool(layer._type_string == "labels")
            and not layer.multiscale
            and layer.data.shape == self._patient.shape
        )

    def _is_described(self, layer: Any) -> bool:
        """Whether a layer says that it is this patient's."""
        info = described(layer)
        return info is not None and bool(info["patient"] == self._patient.name)

    def has(self, layer: Layer) -> bool:
        """Whether a layer of the viewer is the patient's own."""
        return layer in self._own()

    def _find(self, role: str) -> Any:
        return find_layer(self._own(), self._patient.name, role)

    def _labels(self) -> list[Labels]:
        """The patient's labels; where two of them agree is not among them."""
        return [layer for layer in self._own() if layer._type_string == "labels" and not is_comparison(layer)]

    # --- what is to be kept --------------------------------------------------------------------

    def work(self, *, accept: bool = False, leaving: bool = False) -> Edits | None:
        """What is neither read nor kept, copied; None if there is nothing.

        Parameters
        ----------
        accept : bool
            Take the labels as somebody's work even if nobody painted in them.
        leaving : bool
            Take other labels in which somebody painted as well, for instance the truth.
        """
        main = self.labels
        label_map, by_hand = None, False
        if main is not None and (accept or checksum(main.data) != self._kept):
            label_map, by_hand = self._label_map(main), accept or results.is_edited(main)
        others = self._edited_besides(main) if leaving else []
        if label_map is None and not others:
            return None
        probability = self._find(PROBABILITY)
        return Edits(
            label_map,
            by_hand,
            None if probability is None else np.array(probability.data),
            tuple((layer.name, self._label_map(layer)) for layer in others),
        )

    def was_kept(self, work: Edits) -> None:
        """Note that this is kept now."""
        if work.label_map is not None:
            self._kept = checksum(work.label_map.labels)
            main = self.labels
            if work.by_hand and main is not None and _role(main):
                results.mark_edited(main)
        self._more_kept |= {checksum(label_map.labels) for _, label_map in work.more}

    def keep(self, work: Edits) -> SavedEdits:
        """Keep work where the patient came from; this touches no layer, so that a worker may do it.

        Raises
        ------
        ResultsError, ExportError
            If something cannot be written.
        """
        return self.source.save(work, self._patient)

    def _edited_besides(self, main: Labels | None) -> list[Labels]:
        def is_edited(layer: Labels) -> bool:
            role = _role(layer)
            if role == TUMOUR:
                return results.is_edited(layer)
            return role != PREVIEW and bool(role or np.any(layer.data))

        return [
            layer
            for layer in self._labels()
            if layer != main and is_edited(layer) and checksum(layer.data) not in self._more_kept
        ]

    def _label_map(self, layer: Labels) -> LabelMap:
        info = described(layer) or {}
        return LabelMap(
            self._patient.name,
            np.array(layer.data),
            self._patient.slice_numbers,
            results.spacing_of(layer),
            self._patient.affine,
            info.get("made_with", {}),
        )

    def remove(self) -> Visibility:
        """Take the patient's layers out of the viewer; says which of them were visible, by role."""
        for layer in self._labels():
            layer.mode = "pan_zoom"  # or napari goes on drawing the brush, with nothing below
        for layer in [layer for layer in self._own() if is_comparison(layer)]:
            self._viewer.layers.remove(layer)  # which brings back into sight what it hid
        visibility = {
            info["role"]: bool(o.visible) for o in self._own() if (info := described(o)) is not None
        }
        for layer in self._own():
            self._viewer.layers.remove(layer)
        return visibility


def _role(layer: Layer) -> str:
    info = described(layer)
    return str(info["role"]) if info is not None else ""
