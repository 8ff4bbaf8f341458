"""Exceptions whose message is one sentence for the user: what is wrong, with which file, what to do.

None derives from ``RuntimeError``: napari's generator workers swallow that one in silence.
"""

from __future__ import annotations


class LggSegError(Exception):
    """Base of every error that this package raises on purpose."""


class PatientError(LggSegError):
    """A patient folder or slice file that cannot be used."""


class ModelError(LggSegError):
    """A model file that cannot be used."""


class DeviceError(LggSegError):
    """A device that is not there, or that failed while computing."""


class EngineError(LggSegError):
    """An engine that cannot compute here; PyTorch takes over, so that users see it as a notice only."""


class ImageError(LggSegError):
    """An image that cannot be segmented."""


class ExportError(LggSegError):
    """Masks that cannot be written where the user asked."""


class ExistingMasksError(ExportError):
    """Masks from before are where the user asked; they may be replaced if the user says so."""


class ResultsError(LggSegError):
    """A cohort's folder of results that cannot be used."""


class CorrectedError(ResultsError):
    """Labels that somebody corrected are where a prediction would go; it may replace them if asked to."""


class TrainingError(LggSegError):
    """A training that cannot start or go on."""


class ComparisonError(LggSegError):
    """Masks that cannot be compared."""


class CorrectionError(LggSegError):
    """A correction that the labels do not allow."""


class RecoveryError(LggSegError):
    """Edits of an earlier session that cannot be read."""


class ClusterError(LggSegError):
    """Worker processes that cannot be started, reached or used."""


def reason(error: BaseException) -> str:
    """What another package's error says, as a part of a sentence of ours."""
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
