"""Accept in the Correct widget: labels count as corrected, so that a model can be trained on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...core.cohort.sources import CohortSource
from ...core.cohort.store import ResultStore
from ...core.errors import LggSegError
from ...layers import TRUTH, TUMOUR, described
from ..finetune.labelled import labelled_patients
from ..review.messages import NOTHING_TO_ACCEPT, accepted, corrected_so_far
from ..shared.result_layers import mark_edited

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from ..review.open_patient import OpenPatient
    from ..review.review_session import ReviewSession

SetStatus = Callable[[str], None]


def accept(
    session: ReviewSession, viewer: ViewerModel, layer: Labels, owner: object, set_status: SetStatus
) -> None:
    """Accept labels as they are now.

    Parameters
    ----------
    session : ReviewSession
        If the labels belong to its open patient of a cohort, they are saved among the cohort's results.
    viewer : ViewerModel
        Where the labels are.
    layer : Labels
        The labels.
    owner : object
        The widget that makes the request.
    set_status : callable
        Called with a message about the outcome.
    """
    patient = session.patient
    if patient is not None and isinstance(patient.source, CohortSource) and patient.has(layer):
        _accept_open_patient(session, patient, patient.source, layer, owner, set_status)
        return
    info = described(layer)
    if info is None:
        set_status(
            f"'{layer.name}' belongs to no patient; choose these labels in Fine-tune's table of patients."
        )
    elif info["role"] == TUMOUR:
        mark_edited(layer)
        name = info["patient"]
        set_status(
            f"{name}: '{layer.name}' counts as corrected, and Fine-tune proposes it as ground truth. "
            f"{corrected_so_far(_corrected_in(viewer))}"
        )
    else:
        set_status(f"'{layer.name}' is the ground truth of {info['patient']}; Fine-tune uses it as it is.")


def _accept_open_patient(
    session: ReviewSession,
    patient: OpenPatient,
    source: CohortSource,
    layer: Labels,
    owner: object,
    set_status: SetStatus,
) -> None:
    main = patient.labels
    if main is None:
        set_status(NOTHING_TO_ACCEPT)
    elif main != layer:
        set_status(f"Only '{main.name}' can be accepted for {patient.name}; choose it under Labels.")
    else:
        session.accept(owner, set_status, lambda: set_status(_accepted(source)))


def _accepted(source: CohortSource) -> str:
    try:
        statuses = ResultStore(source.results.folder.parent).corrected().found.values()
        corrected = corrected_so_far(sum(status.state != "foreign" for status in statuses))
    except LggSegError as error:
        corrected = str(error)
    return f"{accepted(source.name)} {corrected}"


def _corrected_in(viewer: ViewerModel) -> int:
    """How many open patients have corrected labels, which Fine-tune proposes as ground truth."""
    proposed = [row.proposed for row in labelled_patients(viewer.layers)]
    roles = [info["role"] for layer in proposed if layer is not None and (info := described(layer))]
    return sum(role != TRUTH for role in roles)
