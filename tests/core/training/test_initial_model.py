"""Where a training starts: the model that ships, another one, or random weights."""

from __future__ import annotations

import pytest
import torch
from narrow_network import narrow_network

from napari_lgg_seg.core.data.patients import SEQUENCES
from napari_lgg_seg.core.errors import ModelError, TrainingError
from napari_lgg_seg.core.model.checkpoint import DEFAULT_MODEL, ModelCard, load_model, read_card, save_model
from napari_lgg_seg.core.model.networks import build_network
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training.initial_model import find_initial_model
from napari_lgg_seg.core.training.options import TrainOptions


@pytest.fixture(scope="module", autouse=True)
def _narrow():
    with narrow_network():
        yield


@pytest.fixture(scope="module")
def flair_model(tmp_path_factory):
    """A model of FLAIR alone."""
    path = tmp_path_factory.mktemp("start") / "flair.safetensors"
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
def neighbours_model(tmp_path_factory):
    """A model that sees one neighbouring slice on each side."""
    path = tmp_path_factory.mktemp("start") / "neighbours.safetensors"
    save_model(path, build_network("unet", 9), ModelCard("Neighbours", neighbouring_slices=1))
    return path


@pytest.mark.parametrize("init", [None, "default"])
@pytest.mark.parametrize(
    "wanted",
    [{}, {"network": "unet"}, {"network": "unet", "sequences": "all"}, {"neighbouring_slices": 0}],
)
def test_the_shipped_model_where_it_fits(init, wanted):
    start = find_initial_model(TrainOptions(init=init, **wanted), PreprocessOptions(working_size=17))
    card = read_card(DEFAULT_MODEL)
    assert (start.path, start.card, start.reason) == (DEFAULT_MODEL, card, "")
    assert start.preprocess == card.preprocess
    assert start.seen == card.seen_patients()


@pytest.mark.parametrize("wanted", [{"network": "buda"}, {"sequences": "flair"}, {"neighbouring_slices": 2}])
def test_from_scratch_where_the_shipped_model_does_not_fit(wanted):
    start = find_initial_model(TrainOptions(**wanted), PreprocessOptions(working_size=17))
    assert start.path is None
    assert start.card is None
    assert start.architecture == wanted.get("network", "unet")
    assert start.sequences == (("FLAIR",) if "sequences" in wanted else SEQUENCES)
    assert start.neighbouring_slices == wanted.get("neighbouring_slices", 0)
    assert start.preprocess.working_size == 17
    assert start.reason.startswith("The shipped model is a unet network for ")
    assert ("with 2 neighbouring slices" in start.reason) == ("neighbouring_slices" in wanted)
    assert start.reason.endswith(": starting from scratch.")
    assert start.seen == set()


@pytest.mark.parametrize("wanted", [{"network": "buda"}, {"sequences": "flair"}, {"neighbouring_slices": 1}])
def test_the_shipped_model_is_refused_where_it_was_asked_for_and_does_not_fit(wanted):
    with pytest.raises(
        TrainingError, match=r"is a unet network for .*, not a .*; start from scratch or .*\.$"
    ):
        find_initial_model(TrainOptions(init="default", **wanted))


def test_from_scratch_as_asked_for():
    start = find_initial_model(TrainOptions(init="scratch"))
    assert (start.architecture, start.sequences, start.preprocess) == ("unet", SEQUENCES, PreprocessOptions())
    assert (start.path, start.card, start.reason) == (None, None, "")
    assert start.neighbouring_slices == 0


@pytest.mark.parametrize(
    ("wanted", "channels"), [({"neighbouring_slices": 3}, 21), ({"sequences": "flair"}, 3)]
)
def test_from_scratch_with_neighbouring_slices(wanted, channels):
    start = find_initial_model(TrainOptions(init="scratch", **{"neighbouring_slices": 1, **wanted}))
    assert start.build(0).down[0][0].in_channels == channels


@pytest.mark.parametrize("wanted", [{}, {"sequences": "flair"}, {"network": "unet"}])
def test_another_model_brings_all_it_needs(flair_model, wanted):
    start = find_initial_model(
        TrainOptions(init=str(flair_model), **wanted), PreprocessOptions(working_size=17)
    )
    assert (start.path, start.architecture, start.sequences) == (flair_model, "unet", ("FLAIR",))
    assert start.preprocess.working_size == 48
    assert start.seen == {"a", "b", "c"}


@pytest.mark.parametrize("wanted", [{"sequences": "all"}, {"network": "buda"}])
def test_another_model_is_refused_where_it_does_not_fit(flair_model, wanted):
    with pytest.raises(TrainingError, match=r"flair\.safetensors is a unet network for FLAIR, not a .*\.$"):
        find_initial_model(TrainOptions(init=str(flair_model), **wanted))


@pytest.mark.parametrize("wanted", [{}, {"neighbouring_slices": 1}])
def test_a_model_with_neighbouring_slices_keeps_them(neighbours_model, wanted):
    start = find_initial_model(TrainOptions(init=str(neighbours_model), **wanted))
    assert (start.neighbouring_slices, start.sequences) == (1, SEQUENCES)
    assert start.build(0).down[0][0].in_channels == 9


@pytest.mark.parametrize("neighbours", [0, 2])
def test_a_model_with_other_neighbouring_slices_is_refused(neighbours_model, neighbours):
    with pytest.raises(
        TrainingError, match=r"with 1 neighbouring slice on each side, not a unet network for .*; .*\.$"
    ):
        find_initial_model(TrainOptions(init=str(neighbours_model), neighbouring_slices=neighbours))


@pytest.mark.parametrize("kind", ["absent", "text"])
def test_a_file_that_is_no_model_is_refused(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    if kind == "text":
        path.write_text("no model")
    with pytest.raises(ModelError, match=r"model\.safetensors .*\.$"):
        find_initial_model(TrainOptions(init=str(path)))


def test_weights_of_the_file_or_of_the_seed(flair_model):
    built = find_initial_model(TrainOptions(init=str(flair_model))).build(0).state_dict()
    saved = load_model(flair_model).network.state_dict()
    assert all(torch.equal(built[name], saved[name]) for name in saved)
    scratch = find_initial_model(TrainOptions(init="scratch"))
    first, again, other = (scratch.build(seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
