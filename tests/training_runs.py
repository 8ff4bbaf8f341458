"""Helpers for tests that run whole trainings of a narrow network on small patients."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from napari_lgg_seg.core.inference.predict import Notice
from napari_lgg_seg.core.model.checkpoint import load_model
from napari_lgg_seg.core.model.networks import UNet
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training.callbacks import Callback
from napari_lgg_seg.core.training.events import StepDone, TrainEvent
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.train import train

#: Three steps per epoch, of 4, 3 and 3 slices.
OPTIONS = TrainOptions(
    init="scratch",
    epochs=2,
    slices_per_epoch=10,
    batch_size=4,
    small_size=16,
    small_share=0.2,
    validate_every=1,
    seed=5,
    device="cpu",
)
PREPROCESS = PreprocessOptions(working_size=32)
#: Folder of the modules that scripts in subprocesses import.
TESTS = Path(__file__).parent

Event = TypeVar("Event")


def start(
    patients: Sequence[Any],
    output: Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Iterator[TrainEvent]:
    """Start a training on (training patients, validation patients), with changes to ``OPTIONS``."""
    changed = dataclasses.replace(OPTIONS, **options)
    return train(*patients, output, changed, PREPROCESS, callbacks=callbacks, resume=resume)


def until(work: Any, kind: type, number: int = 1) -> list[TrainEvent]:
    """Events up to the number-th of a kind; then the training is closed."""
    events: list[TrainEvent] = []
    for event in work:
        events.append(event)
        if isinstance(event, kind) and len(of(events, kind)) == number:
            break
    work.close()
    return events


def of(events: Iterable[object], kind: type[Event]) -> list[Event]:
    """Events of a kind."""
    return [event for event in events if isinstance(event, kind)]


def step_losses(events: Iterable[object]) -> list[float]:
    return [event.loss for event in of(events, StepDone)]


def notices(events: Iterable[object]) -> list[str]:
    return [event.text for event in of(events, Notice)]


def about(losses: list[float]) -> Any:
    """Equal up to rounding; a different slice or weight would change a loss by far more."""
    return pytest.approx(losses, rel=1e-5)


def history_rows(output: Path) -> list[dict[str, str]]:
    """The rows of history.csv next to a model file."""
    with (output.with_name(f"{output.stem}.state") / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> list[str]:
    """All files and folders below a folder, by relative path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).network.state_dict()


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def note_batch_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A list that fills with the shapes of the batches that the network is trained on."""
    shapes, forward = [], UNet.forward

    def noted(network: UNet, slices: torch.Tensor) -> torch.Tensor:
        if network.training:
            shapes.append(tuple(slices.shape))
        return forward(network, slices)

    monkeypatch.setattr(UNet, "forward", noted)
    return shapes
