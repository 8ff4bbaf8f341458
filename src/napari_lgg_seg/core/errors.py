"""Exceptions whose message is one sentence for the user: what is wrong, with which file, what to do next.

None derives from ``RuntimeError``, which napari's generator workers swallow silently.
"""

from __future__ import annotations


class LggSegError(Exception):
    """Base class of all errors that this package raises intentionally."""


class LggSegWarning(UserWarning):
    """Something about the data that the user should know; the result is still right."""


class PatientError(LggSegError):
    """A patient folder or slice file that cannot be used."""


class ModelError(LggSegError):
    """A model file that cannot be used."""


class DeviceError(LggSegError):
    """A device that is not available, or that failed while computing."""


class EngineError(LggSegError):
    """An engine that does not work here; PyTorch takes over, so that users see only a notice."""


class ImageError(LggSegError):
    """An image that cannot be segmented."""


class ExportError(LggSegError):
    """Masks or other files that cannot be written to the chosen location."""


class BusyError(ExportError):
    """A folder that another window or program has been writing to for too long."""


class ExistingMasksError(ExportError):
    """Masks exist already; they may be replaced with the user's permission."""


class ResultsError(LggSegError):
    """A cohort's results folder that cannot be used."""


class CorrectedError(ResultsError):
    """A prediction would replace corrected labels; it may do so with the user's permission."""


class ChangedError(ResultsError):
    """Results that another window or program has changed since they were read."""


class TrainingError(LggSegError):
    """A training that cannot start or continue."""


class ComparisonError(LggSegError):
    """Masks that cannot be compared."""


class CorrectionError(LggSegError):
    """A correction that cannot be applied to the labels."""


class RecoveryError(LggSegError):
    """Autosaved edits that cannot be read."""


class DamagedEditsError(RecoveryError):
    """Autosaved edits that can never be read, unlike those that cannot be opened at the moment."""


class ClusterError(LggSegError):
    """Worker processes that cannot be started, reached or used."""


def reason(error: BaseException) -> str:
    """First line of another package's error, at most 120 characters, to be part of a sentence."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = (message.strip().splitlines() or [""])[0].strip().rstrip(".")
    if not any(map(str.isalpha, text)):  # nothing, or a number such as a missing key
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 120 else f"{text[:117]}..."


def failure_sentence(subject: object, error: Exception) -> str:
    """One sentence about a failure: our own message, or another package's with what it concerns."""
    if isinstance(error, LggSegError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{subject} needs more memory than there is; close other programs, or use a larger computer."
    return f"{subject} cannot be processed ({type(error).__name__}: {reason(error)}); check its files."


def counted(number: int, noun: str, plural: str = "s") -> str:
    """A number and its noun: "1 patient", "2,000 patients"."""
    return f"{number:,} {noun}{'' if number == 1 else plural}"
