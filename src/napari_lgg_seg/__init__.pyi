# The public Python API: read a patient, load a model, segment, write labels; cohorts; compare; train.
from .core.cohort.patient_job import PatientFailed as PatientFailed
from .core.cohort.patient_job import PatientProgress as PatientProgress
from .core.cohort.patient_job import PatientSegmented as PatientSegmented
from .core.cohort.patient_job import PatientSkipped as PatientSkipped
from .core.cohort.run import CohortFound as CohortFound
from .core.cohort.run import segment_cohort as segment_cohort
from .core.cohort.store import write_labels as write_labels
from .core.cohort.store import write_masks as write_masks
from .core.data.patients import Patient as Patient
from .core.data.patients import read_patient as read_patient
from .core.errors import LggSegError as LggSegError
from .core.evaluation.compare import Agreement as Agreement
from .core.evaluation.compare import compare as compare
from .core.inference.predict import Notice as Notice
from .core.inference.predict import SlicesDone as SlicesDone
from .core.inference.segmentation import Segmentation as Segmentation
from .core.inference.segmentation import segment as segment
from .core.model.checkpoint import load_model as load_model
from .core.options import SegmentOptions as SegmentOptions
from .core.training.callbacks import Callback as Callback
from .core.training.events import Ended as Ended
from .core.training.events import EpochDone as EpochDone
from .core.training.events import PatientRead as PatientRead
from .core.training.events import PatientValidated as PatientValidated
from .core.training.events import StepDone as StepDone
from .core.training.events import Validated as Validated
from .core.training.options import TrainOptions as TrainOptions
from .core.training.train import train as train

__all__: list[str]
__version__: str
