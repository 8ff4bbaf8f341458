"""Training losses."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from napari_lgg_seg.core.choices import LOSSES
from napari_lgg_seg.core.errors import TrainingError
from napari_lgg_seg.core.training.losses import make_loss

#: Logit of a probability of practically 1; its negative, of 0.
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


def test_a_loss_is_a_module_that_returns_a_scalar(loss, masks):
    value = loss(torch.zeros_like(masks), masks)
    assert isinstance(loss, torch.nn.Module)
    assert value.shape == ()
    assert value.dtype == torch.float32


def test_a_perfect_prediction_costs_nothing(loss, masks):
    assert loss(SURE * (2 * masks - 1), masks) == pytest.approx(0, abs=1e-3)


def test_an_empty_prediction_of_an_empty_batch_costs_nothing(loss, masks):
    assert loss(torch.full_like(masks, -SURE), 0 * masks) == pytest.approx(0, abs=1e-3)


def test_the_gradient_points_to_the_ground_truth(loss, masks):
    logits = torch.zeros_like(masks, requires_grad=True)
    loss(logits, masks).backward()
    assert (logits.grad[masks == 1] < 0).all()
    assert (logits.grad[masks == 0] > 0).all()


def test_better_predictions_cost_less(loss, masks):
    losses = [float(loss((2 * masks - 1) * sure, masks)) for sure in (-2, 0, 1, 3, 9)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Probability 1/2 everywhere: true positives 2, false negatives 2, false positives 6.
        ("bce", 0.693147),
        ("dice", 1 - (2 * 2 + 1) / (8 + 4 + 1)),
        ("bce+dice", 0.693147 + 1 - 5 / 13),
    ],
)
def test_value_of_an_undecided_prediction(name, expected):
    if name != "bce":
        pytest.importorskip("monai")
    assert make_loss(name)(torch.zeros(1, 1, 4, 4), quarter()) == pytest.approx(expected, rel=1e-5)


def test_value_of_a_prediction_that_is_confidently_wrong():
    pytest.importorskip("monai")
    masks = quarter()
    wrong = SURE * (1 - 2 * masks)
    assert make_loss("bce")(wrong, masks) == pytest.approx(SURE)
    assert make_loss("dice")(wrong, masks) == pytest.approx(1 - 1 / (12 + 4 + 1))


@pytest.mark.parametrize("name", ["dice", "bce+dice"])
def test_dice_is_computed_over_the_batch(name, masks):
    """A false-positive voxel in an empty slice costs little if another slice shows a large tumour."""
    pytest.importorskip("monai")
    logits = SURE * (2 * masks - 1)
    logits[2, 0, 0, 0] = SURE
    assert make_loss(name)(logits, masks) < 0.1


# --- names, and what they need -----------------------------------------------------------------


def test_cross_entropy_is_the_default(masks):
    logits = masks - 0.3
    assert make_loss()(logits, masks) == torch.nn.functional.binary_cross_entropy_with_logits(logits, masks)


@pytest.mark.parametrize("name", ["focal", "dice+bce", "bce+tversky", ""])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(TrainingError) as caught:
        make_loss(name)
    assert str(caught.value) == f"There is no loss {name!r}; choose one of bce, dice, bce+dice."


@pytest.mark.parametrize("name", ["dice", "bce+dice"])
def test_the_user_is_told_how_to_install_monai(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.losses", None)
    with pytest.raises(TrainingError) as caught:
        make_loss(name)
    assert str(caught.value) == (
        "A loss with Dice needs MONAI; install it with pip install 'napari-lgg-seg[train]', or train with "
        "the loss bce."
    )


def test_cross_entropy_does_not_import_monai():
    code = (
        "import sys; from napari_lgg_seg.core.training.losses import make_loss; make_loss('bce'); "
        "print([name for name in sys.modules if name.startswith('monai')])"
    )
    assert python(code) == "[]"


def test_importing_the_module_imports_no_torch():
    code = (
        "import sys; from napari_lgg_seg.core.training.losses import make_loss; "
        "print([name for name in ('torch', 'monai') if name in sys.modules])"
    )
    assert python(code) == "[]"


def python(code):
    """The output of a Python process."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()
