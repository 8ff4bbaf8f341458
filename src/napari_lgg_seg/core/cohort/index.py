"""Status of each patient of a cohort, stored in a small JSON file in the results folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..atomic import replacing
from ..errors import ResultsError

#: States of a patient, in the order in which they are reached.
State = Literal["new", "segmented", "corrected", "exported"]
STATES: tuple[str, ...] = get_args(State)
INDEX_NAME = "cohort.json"

_SCHEMA = 1
_LOCKS: dict[Path, threading.RLock] = {}


@dataclass(frozen=True)
class PatientStatus:
    """What is known about a patient's labels.

    Attributes
    ----------
    state : str
        One of :data:`STATES`.
    by_hand : bool
        Whether the user corrected or accepted the labels, so that no prediction may replace them without
        permission. Exporting does not change it.
    uncertainty : float or None
        Mean entropy of the last prediction in bits
        (:func:`napari_lgg_seg.core.inference.uncertainty.mean_entropy`).
    expected_dice : float or None
        Expected Dice of the last prediction
        (:func:`napari_lgg_seg.core.inference.uncertainty.expected_dice`).
    nothing_found : bool
        Whether the last prediction was empty, regardless of later edits.
    made_with : dict
        Model and options of the last prediction.
    """

    state: State = "new"
    by_hand: bool = False
    uncertainty: float | None = None
    expected_dice: float | None = None
    nothing_found: bool = False
    made_with: Mapping[str, Any] = field(default_factory=dict)


class CohortIndex:
    """The statuses in a results folder; may be shared between threads.

    Every change reads the file again, so that changes by other windows are not lost.

    Parameters
    ----------
    folder : Path
        The results folder; created with the first change.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / INDEX_NAME
        #: Shared by all indices of the same folder.
        self.lock = _LOCKS.setdefault(self.path.resolve(), threading.RLock())

    def read(self) -> dict[str, PatientStatus]:
        """All statuses, by the patients' folder names.

        Raises
        ------
        ResultsError
            If the file exists but cannot be read; it is not overwritten then.
        """
        with self.lock:
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
            except (FileNotFoundError, NotADirectoryError):  # the latter is reported when writing
                return {}
            except (OSError, ValueError) as error:
                raise self._unusable(str(error)) from error
        try:
            if content["schema"] > _SCHEMA:
                raise self._unusable("a newer version of napari-lgg-seg wrote it")
            return {name: _status_from(**values) for name, values in content["patients"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._unusable(f"{type(error).__name__}: {error}") from error

    def status(self, name: str) -> PatientStatus:
        """A patient's status; a new one if there is none.

        Raises
        ------
        ResultsError
            As :meth:`read`.
        """
        return self.read().get(name, PatientStatus())

    def change(self, names: Iterable[str], **changes: Any) -> dict[str, PatientStatus]:
        """Change fields of several patients' statuses in one write.

        Returns
        -------
        dict of str to PatientStatus
            The changed statuses.

        Raises
        ------
        ResultsError
            As :meth:`read`.
        ExportError
            If the file cannot be written; it is left unchanged.
        """
        with self.lock:
            statuses = self.read()
            changed = {name: replace(statuses.get(name, PatientStatus()), **changes) for name in names}
            statuses |= changed
            patients = {name: asdict(statuses[name]) for name in sorted(statuses)}
            text = json.dumps({"schema": _SCHEMA, "patients": patients}, indent=1)
            with replacing(self.path) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
        return changed

    def _unusable(self, reason: str) -> ResultsError:
        return ResultsError(
            f"{self.path} cannot be read ({' '.join(reason.split())}); repair it or move it away, or choose "
            "another results folder."
        )


def _status_from(**values: Any) -> PatientStatus:
    """A status from its stored fields; fields of later versions are ignored.

    Raises
    ------
    ValueError
        If a value is invalid.
    """
    known = {name: value for name, value in values.items() if name in PatientStatus.__dataclass_fields__}
    status = PatientStatus(**known)
    metrics = (status.uncertainty, status.expected_dice)
    numbers = all(metric is None or isinstance(metric, int | float) for metric in metrics)
    flags = all(isinstance(flag, bool) for flag in (status.by_hand, status.nothing_found))
    if status.state not in STATES or not numbers or not flags:
        raise ValueError(f"{values} is not a patient's status")
    return status
