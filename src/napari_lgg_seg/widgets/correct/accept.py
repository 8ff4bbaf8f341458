"""What Accept in the Correct widget does: labels count as corrected, so that a training learns from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...core.cohort.sources import CohortSource
from ...core.errors import LggSegError
from ...layers import TRUTH, TUMOUR, described
from ..cohort import messages
from ..finetune.labelled import labelled_in
from ..shared.result_layers import mark_edited

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from ..review.open_patient import OpenPatient
    from ..review.review_session import ReviewSession

Say = Callable[[str], None]


def accept(session: ReviewSession, viewer: ViewerModel, layer: Labels, owner: object, say: Say) -> None:
    """Let labels count as corrected as they are now.

    Parameters
    ----------
    desk : ReviewSession
        That knows whether a cohort's patient is open; then the labels are kept among its results.
    viewer : ViewerModel
        Where the labels are.
    layer : Labels
        The labels.
    owner : object
        Who asks the desk.
    say : callable
        Takes a sentence about what became of them.
    """
    case = session.case
    if case is not None and isinstance(case.source, CohortSource) and case.has(layer):
        _accept_open_patient(session, case, case.source, layer, owner, say)
        return
    info = described(layer)
    if info is None:
        say(f"'{layer.name}' belongs to no patient; choose these labels in Fine-tune's table of patients.")
    elif info["role"] == TUMOUR:
        mark_edited(layer)
        name = info["patient"]
        say(
            f"{name}: '{layer.name}' counts as corrected, and Fine-tune proposes it as the truth. "
            f"{messages.to_learn_from(_corrected_in(viewer))}"
        )
    else:
        say(f"'{layer.name}' is the truth of {info['patient']}; Fine-tune learns from it as it is.")


def _accept_open_patient(
    session: ReviewSession, case: OpenPatient, source: CohortSource, layer: Labels, owner: object, say: Say
) -> None:
    main = case.labels
    if main is None:
        say(messages.NOTHING_TO_ACCEPT)
    elif main != layer:
        say(f"The labels of {case.name} that can be accepted are '{main.name}'; choose those under Labels.")
    else:
        session.accept(owner, say, lambda: say(_accepted(source)))


def _accepted(source: CohortSource) -> str:
    try:
        corrected = messages.to_learn_from(len(source.results.corrected()))
    except LggSegError as error:
        corrected = str(error)
    return f"{messages.accepted(source.name)} {corrected}"


def _corrected_in(viewer: ViewerModel) -> int:
    """How many of the open patients have corrected labels, which are proposed as truth."""
    proposed = [row.proposed for row in labelled_in(viewer.layers)]
    roles = [info["role"] for layer in proposed if layer is not None and (info := described(layer))]
    return sum(role != TRUTH for role in roles)
