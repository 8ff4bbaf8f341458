"""Seeds of a training: a resumed one draws the same, and no two draws share a seed."""

from __future__ import annotations

from napari_lgg_seg.core.training.options import TrainOptions
from napari_lgg_seg.core.training.run import epoch_seed, step_seed


def test_every_epoch_and_seed_has_its_own_randomness():
    seeds = {epoch_seed(TrainOptions(seed=seed), epoch) for seed in range(10) for epoch in range(1, 200)}
    assert len(seeds) == 10 * 199


def test_every_step_and_process_has_its_own_randomness():
    seeds = {
        step_seed(TrainOptions(seed=seed), epoch, step, rank)
        for seed in (0, 1, 10**9, 2**31 - 1)
        for epoch in range(1, 20)
        for step in range(50)
        for rank in range(4)
    }
    assert len(seeds) == 4 * 19 * 50 * 4
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
