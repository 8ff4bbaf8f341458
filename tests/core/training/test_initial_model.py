"""What a training starts from: the shipped model, another one, or random weights."""

from __future__ import annotations

import pytest
import torch

from napari_lgg_seg.core.data.patients import SEQUENCES
from napari_lgg_seg.core.errors import ModelError, TrainingError
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, ModelCard, load_model, read_card, save_model
from napari_lgg_seg.core.model.networks import build_network
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training.initial_model import find_initial_model
from napari_lgg_seg.core.training.options import TrainOptions

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def flair_model(narrow, tmp_path_factory):
    """A model that sees FLAIR alone."""
    path = tmp_path_factory.mktemp("models") / "flair.safetensors"
    preprocess = PreprocessOptions(working_size=48)
    card = ModelCard(
        "Flair",
        sequences=("FLAIR",),
        preprocess=preprocess,
        training_patients=("a", "b"),
        earlier_patients=("c",),
    )
    save_model(path, build_network("unet", 1), card)
    return path


@pytest.fixture(scope="module")
def neighbours_model(narrow, tmp_path_factory):
    """A model that sees one neighbouring slice on each side."""
    path = tmp_path_factory.mktemp("models") / "neighbours.safetensors"
    save_model(path, build_network("unet", 9), ModelCard("Neighbours", neighbouring_slices=1))
    return path


@pytest.mark.parametrize("init", [None, "default"])
@pytest.mark.parametrize(
    "wanted",
    [{}, {"network": "unet"}, {"network": "unet", "sequences": "all"}, {"neighbouring_slices": 0}],
)
def test_the_shipped_model_is_used_if_it_matches(init, wanted):
    initial = find_initial_model(TrainOptions(init=init, **wanted), PreprocessOptions(working_size=17))
    card = read_card(DEFAULT_MODEL)
    assert (initial.path, initial.card, initial.reason) == (DEFAULT_MODEL, card, "")
    assert initial.preprocess == card.preprocess
    assert initial.seen == card.seen_patients()


@pytest.mark.parametrize("wanted", [{"network": "buda"}, {"sequences": "flair"}, {"neighbouring_slices": 2}])
def test_from_scratch_if_the_shipped_model_does_not_match(wanted):
    initial = find_initial_model(TrainOptions(**wanted), PreprocessOptions(working_size=17))
    assert initial.path is None
    assert initial.card is None
    assert initial.architecture == wanted.get("network", "unet")
    assert initial.sequences == (("FLAIR",) if "sequences" in wanted else SEQUENCES)
    assert initial.neighbouring_slices == wanted.get("neighbouring_slices", 0)
    assert initial.preprocess.working_size == 17
    assert initial.reason.startswith("The shipped model is a unet network for ")
    assert ("with 2 neighbouring slices" in initial.reason) == ("neighbouring_slices" in wanted)
    assert initial.reason.endswith("; starting from scratch.")
    assert initial.seen == set()


@pytest.mark.parametrize("wanted", [{"network": "buda"}, {"sequences": "flair"}, {"neighbouring_slices": 1}])
def test_the_shipped_model_is_refused_if_asked_for_without_a_match(wanted):
    with pytest.raises(
        TrainingError, match=r"is a unet network for .*, not a .*; start from scratch or .*\.$"
    ):
        find_initial_model(TrainOptions(init="default", **wanted))


def test_from_scratch_if_asked_for():
    initial = find_initial_model(TrainOptions(init="scratch"))
    assert (initial.architecture, initial.sequences, initial.preprocess) == (
        "unet",
        SEQUENCES,
        PreprocessOptions(),
    )
    assert (initial.path, initial.card, initial.reason) == (None, None, "")
    assert initial.neighbouring_slices == 0


@pytest.mark.parametrize(
    ("wanted", "channels"), [({"neighbouring_slices": 3}, 21), ({"sequences": "flair"}, 3)]
)
def test_from_scratch_with_neighbouring_slices(wanted, channels):
    initial = find_initial_model(TrainOptions(init="scratch", **{"neighbouring_slices": 1, **wanted}))
    assert initial.build(0).down[0][0].in_channels == channels


@pytest.mark.parametrize("wanted", [{}, {"sequences": "flair"}, {"network": "unet"}])
def test_another_model_keeps_its_own_sequences_and_preprocessing(flair_model, wanted):
    initial = find_initial_model(
        TrainOptions(init=str(flair_model), **wanted), PreprocessOptions(working_size=17)
    )
    assert (initial.path, initial.architecture, initial.sequences) == (flair_model, "unet", ("FLAIR",))
    assert initial.preprocess.working_size == 48
    assert initial.seen == {"a", "b", "c"}


@pytest.mark.parametrize("wanted", [{"sequences": "all"}, {"network": "buda"}])
def test_another_model_is_refused_if_it_does_not_match(flair_model, wanted):
    with pytest.raises(TrainingError, match=r"flair\.safetensors is a unet network for FLAIR, not a .*\.$"):
        find_initial_model(TrainOptions(init=str(flair_model), **wanted))


@pytest.mark.parametrize("wanted", [{}, {"neighbouring_slices": 1}])
def test_a_model_with_neighbouring_slices_keeps_them(neighbours_model, wanted):
    initial = find_initial_model(TrainOptions(init=str(neighbours_model), **wanted))
    assert (initial.neighbouring_slices, initial.sequences) == (1, SEQUENCES)
    assert initial.build(0).down[0][0].in_channels == 9


@pytest.mark.parametrize("neighbours", [0, 2])
def test_a_model_with_other_neighbouring_slices_is_refused(neighbours_model, neighbours):
    with pytest.raises(
        TrainingError, match=r"with 1 neighbouring slice on each side, not a unet network for .*; .*\.$"
    ):
        find_initial_model(TrainOptions(init=str(neighbours_model), neighbouring_slices=neighbours))


@pytest.mark.parametrize("kind", ["absent", "text"])
def test_a_file_that_is_not_a_model_is_refused(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    if kind == "text":
        path.write_text("no model")
    with pytest.raises(ModelError, match=r"model\.safetensors .*\.$"):
        find_initial_model(TrainOptions(init=str(path)))


def test_weights_come_from_the_file_or_the_seed(flair_model):
    built = find_initial_model(TrainOptions(init=str(flair_model))).build(0).state_dict()
    saved = load_model(flair_model).network.state_dict()
    assert all(torch.equal(built[name], saved[name]) for name in saved)
    scratch = find_initial_model(TrainOptions(init="scratch"))
    first, again, other = (scratch.build(seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
