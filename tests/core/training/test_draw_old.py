"""Drawing patients of earlier trainings to be trained on again."""

from __future__ import annotations

import pytest

from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.training.split import draw_old

OLD = [f"old {number}" for number in range(20)]


@pytest.mark.parametrize(("share", "count"), [(0, 0), (0.5, 4), (0.2, 1), (0.75, 12), (0.95, 20)])
def test_the_number_drawn_makes_up_the_share(share, count):
    drawn = draw_old(OLD, 4, share, seed=3)
    assert len(set(drawn)) == len(drawn) == count
    assert set(drawn) <= set(OLD)


def test_the_draw_depends_on_the_seed_only():
    assert draw_old(OLD, 5, 0.5, 0) == draw_old(OLD[::-1], 5, 0.5, 0)
    assert draw_old(OLD, 5, 0.5, 0) != draw_old(OLD, 5, 0.5, 1)


@pytest.mark.parametrize("share", [-0.1, 1])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(TrainingError, match="share of old patients"):
        draw_old(OLD, 5, share, 0)
