from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.training.losses import LOSSES, make_loss

#: Logits of voxels that are surely tumour, and surely not.
SURE = 20.0


@pytest.fixture
def masks():
    masks = torch.zeros(3, 1, 16, 16)
    masks[0, 0, 4:12, 4:10] = 1
    masks[1, 0, 2:5, 2:5] = 1
    return masks


@pytest.fixture(params=LOSSES)
def loss(request):
    if request.param != "bce":
        pytest.importorskip("monai")
    return make_loss(request.param)


def quarter():
    """A slice of 16 voxels, 4 of them tumour."""
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., :2, :2] = 1
    return masks


# --- every loss --------------------------------------------------------------------------------


def test_it_is_a_module_that_returns_a_scalar(loss, masks):
    value = loss(torch.zeros_like(masks), masks)
    assert isinstance(loss, torch.nn.Module)
    assert value.shape == ()
    assert value.dtype == torch.float32


def test_perfect_and_sure_is_near_0(loss, masks):
    assert loss(SURE * (2 * masks - 1), masks) == pytest.approx(0, abs=1e-3)


def test_empty_batch_with_empty_prediction_is_near_0(loss, masks):
    assert loss(torch.full_like(masks, -SURE), 0 * masks) == pytest.approx(0, abs=1e-3)


def test_gradient_points_to_the_truth(loss, masks):
    logits = torch.zeros_like(masks, requires_grad=True)
    loss(logits, masks).backward()
    assert (logits.grad[masks == 1] < 0).all()
    assert (logits.grad[masks == 0] > 0).all()


def test_better_is_less(loss, masks):
    losses = [float(loss((2 * masks - 1) * sure, masks)) for sure in (-2, 0, 1, 3, 9)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)


# --- values by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Probability 1/2 everywhere: 2 of 4 tumour voxels found, 2 missed, 6 of the 12 others invented.
        ("bce", 0.693147),
        ("dice", 1 - (2 * 2 + 1) / (8 + 4 + 1)),
        ("bce+dice", 0.693147 + 1 - 5 / 13),
        ("bce+tversky", 0.693147 + 1 - (2 + 1) / (2 + 0.3 * 6 + 0.7 * 2 + 1)),
    ],
)
def test_undecided_by_hand(name, expected):
    if name != "bce":
        pytest.importorskip("monai")
    assert make_loss(name)(torch.zeros(1, 1, 4, 4), quarter()) == pytest.approx(expected, rel=1e-5)


def test_wrong_and_sure_costs_its_logit_and_all_of_dice():
    pytest.importorskip("monai")
    masks = quarter()
    wrong = SURE * (1 - 2 * masks)
    assert make_loss("bce")(wrong, masks) == pytest.approx(SURE)
    assert make_loss("dice")(wrong, masks) == pytest.approx(1 - 1 / (12 + 4 + 1))


@pytest.mark.parametrize("name", ["dice", "bce+dice", "bce+tversky"])
def test_overlap_is_over_the_batch(name, masks):
    """One false voxel in an empty slice costs little beside a large tumour in another."""
    pytest.importorskip("monai")
    logits = SURE * (2 * masks - 1)
    logits[2, 0, 0, 0] = SURE
    assert make_loss(name)(logits, masks) < 0.1


def test_tversky_minds_a_missed_voxel_more_than_an_invented_one(masks):
    pytest.importorskip("monai")
    logits = SURE * (2 * masks - 1)
    missed, invented = logits.clone(), logits.clone()
    missed[0, 0, 4, 4] = -SURE
    invented[0, 0, 0, 0] = SURE
    tversky, dice, cross_entropy = make_loss("bce+tversky"), make_loss("bce+dice"), make_loss("bce")
    n = masks.sum()
    assert cross_entropy(missed, masks) == pytest.approx(float(cross_entropy(invented, masks)))
    overlap = [float(tversky(x, masks) - cross_entropy(x, masks)) for x in (missed, invented)]
    assert overlap[0] == pytest.approx(float(1 - n / (n + 0.7)), rel=1e-2)
    assert overlap[1] == pytest.approx(float(1 - (n + 1) / (n + 1.3)), rel=1e-2)
    assert overlap[0] > 2 * overlap[1]
    assert dice(missed, masks) == pytest.approx(float(dice(invented, masks)), rel=0.05)


# --- names -------------------------------------------------------------------------------------


def test_cross_entropy_and_dice_by_default(masks):
    pytest.importorskip("monai")
    logits = masks - 0.3
    assert make_loss()(logits, masks) == make_loss("bce")(logits, masks)


@pytest.mark.parametrize("name", ["focal", "dice+bce", "tversky", ""])
def test_unknown_name_is_refused_with_the_names(name):
    with pytest.raises(TrainingError, match=r"bce, dice, bce\+dice, bce\+tversky\.$") as caught:
        make_loss(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", LOSSES)
def test_without_monai_the_user_is_told_how_to_install_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    if name == "bce":
        make_loss(name)
        return
    with pytest.raises(TrainingError, match=r"^Training needs MONAI; .*napari-lgg-seg\[train\]'\.$"):
        make_loss(name)


def test_names_can_be_listed_without_torch():
    code = (
        "import sys; from napari_lgg_seg.core.training.losses import LOSSES; "
        "print(LOSSES, [m for m in ('torch', 'monai') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == f"{LOSSES} []"
