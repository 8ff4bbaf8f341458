"""A folder that holds what the examples in the documentation name, and a program that is quick in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import flair_model
import pytest
from narrow_network import narrow_network

from napari_lgg_seg.core.cohort.store import ResultStore
from napari_lgg_seg.core.data.masks import write_patient
from napari_lgg_seg.core.model import checkpoint
from napari_lgg_seg.core.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
#: Folders of patients; the names say nothing but must differ within a cohort.
COHORTS = {
    "COHORT": ("TCGA_DU_0001_19990101", "TCGA_HT_0002_20000202", "TCGA_CS_0003_20000303"),
    "OLD": ("TCGA_FG_0011_19990101", "TCGA_FG_0012_19990101"),
    "OTHERS": ("TCGA_DU_0021_19990101", "TCGA_DU_0022_19990101", "TCGA_CS_0023_19990101"),
    "kaggle_3m": ("TCGA_DU_6404_19850629", "TCGA_HT_7602_19951103", "TCGA_CS_4941_19960909"),
}
#: As in the dataset's data.csv, as far as it is read.
CLUSTERS = ("RNASeqCluster", "MethylationCluster", "miRNACluster", "CNCluster", "COCCluster")


@pytest.fixture
def sandbox(
    tmp_path: Path,
    make_patient: Callable[..., Any],
    run: Callable[..., Any],
    quick: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The current folder: patients, a model, results, named as the placeholders in the documentation are."""
    monkeypatch.chdir(tmp_path)
    write_patient(Path("PATIENT"), make_patient("TCGA_EZ_0031_19990101", shape=(4, 32, 32)))
    for cohort, names in COHORTS.items():
        for seed, name in enumerate(names):
            write_patient(Path(cohort, name), make_patient(name, shape=(4, 32, 32), seed=seed))
    lines = [f"{name[:12]},{number % 2 + 1}" + 4 * ",1" for number, name in enumerate(COHORTS["kaggle_3m"])]
    Path("kaggle_3m/data.csv").write_text("\n".join([f"Patient,{','.join(CLUSTERS)}", *lines]) + "\n")
    Path("MODEL.safetensors").write_bytes(quick.read_bytes())
    _segment_in_the_window("COHORT", "COHORT-results", run)
    # The tutorial writes its cohort itself, and segments and corrects it in the window.
    assert run("sample", "samples", "--patients", 2).code == 0
    _segment_in_the_window("samples", "cohort-results", run)
    return tmp_path


def _segment_in_the_window(cohort: str, results: str, run: Callable[..., Any]) -> None:
    """Leave what the Cohort widget leaves when all patients were segmented and accepted."""
    assert run("segment", cohort, "--format", "tiff", "--output", results).code == 0
    for folder in Path(cohort).iterdir():
        ResultStore(Path(results)).patient(folder.name).accept()


@pytest.fixture
def quick(
    tmp_path: Path, make_patient: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Small networks, sample patients and trainings; gives the model in place of the shipped one."""
    import napari_lgg_seg as lgg
    from napari_lgg_seg.core.data import phantom, phantom_cohort

    for name in lgg.__all__:  # every module that names the shipped model must be loaded
        getattr(lgg, name)

    def sample(name: str = "LGG_sample", seed: int = 0) -> Any:
        return make_patient(name, shape=(4, 32, 32), seed=seed)

    def samples(count: int) -> Iterator[Any]:
        return (sample(f"TCGA_XA_{number:04d}_20000101", number) for number in range(count))

    complete = TrainOptions.complete
    monkeypatch.setattr(phantom, "make_sample_patient", sample)
    monkeypatch.setattr(phantom_cohort, "make_sample_patients", samples)
    monkeypatch.setattr(
        TrainOptions,
        "complete",
        lambda self, **start: replace(complete(self, **start), epochs=1, slices_per_epoch=2, batch_size=2),
    )
    with narrow_network():
        flair_model._one_channel_unet.cache_clear()
        model = flair_model.write_flair_model(
            tmp_path / "shipped" / "default.safetensors",
            training_patients=COHORTS["OLD"],
            validation_patients=COHORTS["COHORT"][:1],
        )
        flair_model._one_channel_unet.cache_clear()
        shipped = checkpoint.DEFAULT_MODEL
        for name, module in list(sys.modules.items()):
            if name.startswith("napari_lgg_seg.") and hasattr(module, "DEFAULT_MODEL"):
                monkeypatch.setattr(module, "DEFAULT_MODEL", model)
        for function in (checkpoint.load_model, checkpoint.read_card):
            defaults = tuple(model if value == shipped else value for value in function.__defaults__ or ())
            monkeypatch.setattr(function, "__defaults__", defaults)
        yield model
