from __future__ import annotations

from itertools import pairwise

import pytest

from napari_lgg_seg.core.training.callbacks import EarlyStopping, learning_rate_at
from napari_lgg_seg.core.training.history import EpochRecord
from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.run import epoch_seed, step_seed


def test_learning_rate_rises_and_falls():
    assert learning_rate_at(0, 0.01) == 0
    assert learning_rate_at(0.025, 0.01) == pytest.approx(0.005)
    assert learning_rate_at(0.05, 0.01) == pytest.approx(0.01)
    assert learning_rate_at(0.525, 0.01) == pytest.approx(0.005)
    assert learning_rate_at(1, 0.01) == pytest.approx(0)
    rates = [learning_rate_at(step / 200, 0.01) for step in range(201)]
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert max(rates) == pytest.approx(0.01)


def test_learning_rate_without_warm_up():
    assert learning_rate_at(0, 0.01, warm_up=0) == 0.01


def test_learning_rate_of_warm_up_alone():
    assert learning_rate_at(0.5, 0.01, warm_up=1) == pytest.approx(0.005)


def test_every_epoch_and_seed_has_its_own_randomness():
    seeds = {epoch_seed(TrainOptions(seed=seed), epoch) for seed in range(10) for epoch in range(1, 200)}
    assert len(seeds) == 10 * 199


def test_every_step_and_process_has_its_own_randomness():
    seeds = {
        step_seed(TrainOptions(seed=seed), epoch, step, rank)
        for seed in (0, 1, -1, 10**9)
        for epoch in range(1, 20)
        for step in range(50)
        for rank in range(4)
    }
    assert len(seeds) == 4 * 19 * 50 * 4
    assert min(seeds) >= 0
    assert max(seeds) < 2**63


class Training:
    """What early stopping looks at: a history of (epoch, Dice), and whether it was told to stop."""

    def __init__(self, *rows):
        self.history = [EpochRecord(epoch, 0, 0.1, 1e-3, 1.0, 0.0, {"a": dice}) for epoch, dice in rows]
        self.reasons = []

    def stop(self, reason):
        self.reasons.append(reason)


@pytest.mark.parametrize(
    ("rows", "stops"),
    [
        ([(0, 0.5), (1, 0.4)], False),
        ([(0, 0.5), (1, 0.4), (2, 0.5)], True),
        ([(0, 0.5), (1, 0.4), (2, 0.6)], False),
        # Validations of an epoch that short calls have cut into pieces are one validation.
        ([(0, 0.5), (1, 0.4), (1, 0.4), (1, 0.3)], False),
        ([(0, 0.5), (1, 0.4), (1, 0.6), (2, 0.5)], False),
    ],
)
def test_patience_counts_epochs(rows, stops):
    training = Training(*rows)
    EarlyStopping(2).after_epoch(training, training.history[-1])
    assert bool(training.reasons) == stops
