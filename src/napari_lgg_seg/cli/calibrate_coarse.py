"""The command ``calibrate-coarse``: whether and from which probability a model can work coarse to fine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.devices import DeviceChoice
from ..core.errors import ModelError
from ..core.options import option_help
from .options import regular_file


def calibrate_coarse(
    model: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, callback=regular_file, help="A model file.")
    ],
    cohort: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="The folder with its validation patients.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Write the model with the threshold found; without it, only measure.")
    ] = None,
    device: Annotated[DeviceChoice, typer.Option(help=option_help("device"))] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Find the threshold of a model for working coarse to fine.

    Coarse to fine: every second slice at half resolution first; only regions above the threshold are
    computed at full resolution. Several thresholds are tried on the model's validation patients in COHORT,
    until labels agree with those of full resolution everywhere: Dice 0.999 over all voxels and 0.99 for
    each patient.
    """
    import dataclasses

    from ..core import memory
    from ..core.data.label_files import check_new
    from ..core.data.patients import read_patient
    from ..core.errors import counted
    from ..core.inference.calibrate_coarse import calibrate
    from ..core.model.checkpoint import load_model, save_model
    from ..core.training.train import check_name
    from .console import make_console

    loaded = load_model(model)
    names = loaded.card.validation_patients
    if not names:
        raise ModelError(
            f"{model} names no validation patients to try thresholds on; choose a model that does."
        )
    if output is not None:
        check_name(output)
        check_new(output, overwrite=overwrite)
    memory.keep_memory_mapped()
    console = make_console()
    patients = [read_patient(cohort / name) for name in names]
    found = None
    for tried in calibrate(loaded, patients, device):
        console.say(
            f"{tried.threshold:g}: Dice with full resolution {tried.overall:.5f} over all voxels, "
            f"{tried.worst:.4f} in the worst of {counted(len(patients), 'patient')}; "
            f"{tried.pixel_share:.0%} of the work"
        )
        found = tried.threshold if tried.acceptable else None
    console.say(
        "No threshold keeps the labels and saves time: everything is computed at full resolution."
        if found is None
        else f"The threshold is {found:g}."
    )
    if output is not None:
        save_model(output, loaded.network, dataclasses.replace(loaded.card, coarse_threshold=found))
        console.say(f"{output} is written.")
