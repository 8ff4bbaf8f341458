"""What became of each patient of a cohort, kept in one small JSON file among the results."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..atomic import replacing
from ..errors import ResultsError

#: What can have become of a patient, in this order.
State = Literal["new", "segmented", "corrected", "exported"]
STATES: tuple[str, ...] = get_args(State)
INDEX_NAME = "cohort.json"

_SCHEMA = 1
_LOCKS: dict[Path, threading.RLock] = {}


@dataclass(frozen=True)
class PatientStatus:
    """What is known about one patient's labels besides the labels themselves.

    Attributes
    ----------
    state : str
        One of :data:`STATES`.
    by_hand : bool
        Whether somebody corrected or accepted the labels: no prediction may replace them unasked. It
        stays when they are exported.
    uncertainty : float or None
        Of the last prediction, in bits (:func:`napari_lgg_seg.core.inference.uncertainty.mean_entropy`).
    expected_dice : float or None
        What the last prediction promised (:func:`napari_lgg_seg.core.inference.uncertainty.expected_dice`).
    nothing_found : bool
        Whether the last prediction was empty, whatever was drawn since.
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
    """The records of a results folder; several threads may use one.

    Every change reads the file anew, so that what another window wrote meanwhile is kept.

    Parameters
    ----------
    folder : Path
        The results folder; it is made with the first change.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / INDEX_NAME
        #: One for all that use the folder.
        self.lock = _LOCKS.setdefault(self.path.resolve(), threading.RLock())

    def read(self) -> dict[str, PatientStatus]:
        """All records, by the patients' folder names.

        Raises
        ------
        ResultsError
            If the file is there and cannot be read; it is never written over then.
        """
        with self.lock:
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
            except (FileNotFoundError, NotADirectoryError):  # writing says what is wrong with the latter
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
        """A patient's record; a new one if there is none.

        Raises
        ------
        ResultsError
            As :meth:`read`.
        """
        return self.read().get(name, PatientStatus())

    def change(self, names: Iterable[str], **changes: Any) -> dict[str, PatientStatus]:
        """Change fields of patients' records, all of them in one write.

        Returns
        -------
        dict of str to PatientStatus
            The changed records.

        Raises
        ------
        ResultsError
            As :meth:`read`.
        ExportError
            If the file cannot be written; it stays as it was.
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
    """A record as the file has it; fields of later versions are left out.

    Raises
    ------
    ValueError
        If a value is not what it must be.
    """
    known = {name: value for name, value in values.items() if name in PatientStatus.__dataclass_fields__}
    status = PatientStatus(**known)
    metrics = (status.uncertainty, status.expected_dice)
    sure = all(figure is None or isinstance(figure, int | float) for figure in metrics)
    flags = all(isinstance(flag, bool) for flag in (status.by_hand, status.nothing_found))
    if status.state not in STATES or not sure or not flags:
        raise ValueError(f"{values} is no patient's record")
    return status
