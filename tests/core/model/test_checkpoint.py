from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_lgg_seg.core.errors import ExportError, ModelError
from napari_lgg_seg.core.model.checkpoint import (
    HEADER_KEY,
    SCHEMA_VERSION,
    ModelCard,
    load_model,
    read_card,
    save_model,
)
from napari_lgg_seg.core.model.networks import build_network
from napari_lgg_seg.core.model.preprocess import PreprocessOptions

CARD = ModelCard(
    name="Test U-Net, ünïcode",
    preprocess=PreprocessOptions(working_size=160, clip_percentile=99.0, head_threshold=0.2, margin=3),
    threshold=0.4,
    training_patients=("a", "b"),
    validation_patients=("c",),
    training={"epochs": 3, "seed": 1, "history": [{"epoch": 1, "mean": 0.5}], "max_minutes": None},
    results={"validation": {"c": 0.5}},
    data="synthetic",
    licence="CC0",
    intended_use="Tests.",
    created="2025-01-01",
)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, unet):
    """A valid model file; tests must not modify it."""
    path = tmp_path_factory.mktemp("models") / "good model ü.safetensors"
    save_model(path, unet, CARD)
    return path


def refusal(path, read=load_model) -> str:
    with pytest.raises(ModelError) as error:
        read(path)
    text = str(error.value)
    assert path.name in text
    assert text.endswith(".")
    assert "\n" not in text
    assert not re.search(r"\. [A-Z]", text), "more than one sentence"
    return text


def write_header(path, header, tensors=None):
    """Write a small safetensors file with ``header`` as the model card, or without one."""
    save_file(
        tensors or {"x": torch.zeros(1)}, path, metadata=None if header is None else {HEADER_KEY: header}
    )


# --- round trip --------------------------------------------------------------------------------


def test_weights_survive_a_round_trip(model_file, unet):
    loaded = load_model(model_file)
    assert not loaded.network.training
    assert loaded.path == model_file
    before, after = unet.state_dict(), loaded.network.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        if tensor.ndim == 4:
            torch.testing.assert_close(after[name], tensor.half().float(), rtol=0, atol=0)
        else:  # biases and batch normalisation
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)


def test_loaded_network_computes_the_same(model_file, unet):
    images = torch.randn(1, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(load_model(model_file).network(images), unet(images), atol=0.02, rtol=0.02)


def test_only_convolution_kernels_are_stored_in_half_precision(model_file):
    assert 21e6 < model_file.stat().st_size < 22e6
    tensors = load_file(model_file)
    for name, tensor in tensors.items():
        if "num_batches_tracked" not in name:
            assert tensor.dtype == (torch.float16 if tensor.ndim == 4 else torch.float32), name
    assert sum(t.dtype == torch.float16 for t in tensors.values()) == 20
    assert sum("running_var" in name for name in tensors) == 19


def test_card_survives_a_round_trip(model_file):
    assert read_card(model_file) == CARD
    assert read_card(str(model_file)) == CARD
    assert load_model(model_file).card == CARD


def test_reading_a_card_does_not_import_torch(model_file):
    code = (
        "import sys; from napari_lgg_seg.core.model.checkpoint import read_card; "
        "print(read_card(sys.argv[1]).threshold, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(model_file)], capture_output=True, check=True)
    assert run.stdout.split() == [b"0.4", b"False"]


def test_cards_of_version_0_1_0_are_read(tmp_path):
    """The names of two fields have changed since, and one field did not exist."""
    values = asdict(replace(CARD, coarse_threshold=0.2))
    values["figures"], values["quick_look"] = values.pop("results"), values.pop("coarse_threshold")
    del values["earlier_patients"]
    path = tmp_path / "old.safetensors"
    write_header(path, json.dumps(values))
    assert read_card(path) == replace(CARD, coarse_threshold=0.2)


def test_summary_names_what_a_model_was_trained_on_and_how_good_it_is():
    card = replace(CARD, earlier_patients=("d",), results={"summary": {"mean": 0.876, "median": 0.9}})
    assert "trained on 2 patients, fine-tuned from a model trained on 1;" in card.summary()
    assert "Dice per patient 0.88 (mean), 0.90 (median) in 1 validation patients" in card.summary()
    assert "Dice" not in CARD.summary()


def test_one_input_channel(tmp_path):
    path = tmp_path / "flair.safetensors"
    save_model(path, build_network("unet", 1), replace(CARD, sequences=("FLAIR",)))
    assert load_model(path).network(torch.zeros(1, 1, 16, 16)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize("architecture", ["unet", "buda"])
@pytest.mark.parametrize(("neighbours", "sequences"), [(1, CARD.sequences), (3, ("FLAIR",))])
def test_neighbouring_slices_survive_a_round_trip(tmp_path, architecture, neighbours, sequences):
    path = tmp_path / "m.safetensors"
    channels = (2 * neighbours + 1) * len(sequences)
    network = build_network(architecture, channels).eval()
    card = replace(CARD, architecture=architecture, sequences=sequences, neighbouring_slices=neighbours)
    save_model(path, network, card)
    model = load_model(path)
    assert model.card == read_card(path) == card
    images = torch.randn(1, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model.network(images), network(images), atol=0.02, rtol=0.02)


def test_saving_replaces_the_file_and_leaves_no_temporary_files(tmp_path):
    path = tmp_path / "new folder" / "m.safetensors"
    network = build_network("unet", 3)
    for name in ("first", "second"):
        save_model(path, network, replace(CARD, name=name))
    assert read_card(path).name == "second"
    assert list(path.parent.iterdir()) == [path]


def test_saving_does_not_change_the_network(tmp_path):
    network = build_network("unet", 3).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_model(tmp_path / "m.safetensors", network, CARD)
    assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype


# --- a save that fails -------------------------------------------------------------------------


def test_full_disk_leaves_the_old_file_intact(tmp_path, unet):
    """The operating system's file size limit simulates a full disk."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "m.safetensors"
    save_model(path, unet, CARD)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"m\.safetensors could not be written") as error:
            save_model(path, unet, replace(CARD, name="other"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value).endswith(".")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_card_that_cannot_be_serialised_leaves_the_old_file_intact(tmp_path, unet):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        save_model(path, unet, replace(CARD, results={"x": object()}))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_created(tmp_path, unet):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match=r"could not be written"):
        save_model(tmp_path / "file" / "m.safetensors", unet, CARD)


# --- invalid files -----------------------------------------------------------------------------


reads = pytest.mark.parametrize("read", [load_model, read_card])


@reads
def test_missing_file(tmp_path, read):
    assert "cannot be opened" in refusal(tmp_path / "gone.safetensors", read)


@reads
def test_folder_instead_of_a_file(tmp_path, read):
    assert "cannot be opened" in refusal(tmp_path, read)


@reads
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix files")
def test_named_pipe_instead_of_a_file(tmp_path, read):
    os.mkfifo(tmp_path / "x.safetensors")
    assert "cannot be opened (it is not a regular file)" in refusal(tmp_path / "x.safetensors", read)


@reads
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        b"hello, this is a text, not a model\n" * 20,
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (50).to_bytes(8, "little") + b'{"__metadata__": {}}',
        (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        (2**63).to_bytes(8, "little") + b"{}",
    ],
    ids=["empty", "short", "text", "no metadata", "list", "cut", "no text", "deep", "huge"],
)
def test_malformed_file(tmp_path, read, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert "is not a napari-lgg-seg model" in refusal(path, read)


@reads
def test_safetensors_of_another_program(tmp_path, read):
    path = tmp_path / "foreign.safetensors"
    write_header(path, None)
    assert "is not a napari-lgg-seg model" in refusal(path, read)
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "pt"})
    assert "is not a napari-lgg-seg model" in refusal(path, read)


@reads
def test_pickle_file(tmp_path, read):
    path = tmp_path / "x.safetensors"
    torch.save({"x": torch.zeros(1)}, path)
    assert "is not a napari-lgg-seg model" in refusal(path, read)


@reads
@pytest.mark.parametrize(
    "header", ["", "no json", "[]", "1", "null", "{}", '{"schema_version": null}', "[" * 100_000]
)
def test_card_of_another_kind(tmp_path, read, header):
    path = tmp_path / "x.safetensors"
    write_header(path, header)
    assert "damaged model card" in refusal(path, read)


@reads
@pytest.mark.parametrize(
    "key",
    ["name", "schema_version", "sequences", "preprocess", "training_patients", "validation_patients"],
)
def test_card_without_a_required_field(tmp_path, read, key):
    values = asdict(CARD)
    del values[key]
    path = tmp_path / "x.safetensors"
    write_header(path, json.dumps(values))
    assert key in refusal(path, read)


@reads
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "newer version"),
        ({"schema_version": SCHEMA_VERSION + 1, "unheard_of": 1}, "newer version"),
        ({"schema_version": "1"}, "damaged"),
        ({"unheard_of": 1}, "unheard_of"),
        (
            {"architecture": "transformer"},
            "should be 'unet' or 'buda', not 'transformer'",
        ),
        ({"architecture": ["unet"]}, "damaged"),
        ({"sequences": []}, "sequences: tuple should have at least 1 item"),
        ({"sequences": ["T2"]}, "sequences[0]: input should be 'pre-contrast', 'FLAIR' or"),
        ({"sequences": ["FLAIR", "FLAIR"]}, "sequences: one appears twice"),
        ({"sequences": 3}, "damaged"),
        ({"neighbouring_slices": 4}, "neighbouring_slices: input should be less than or equal to 3, not 4"),
        (
            {"neighbouring_slices": -1},
            "should be greater than or equal to 0, not -1",
        ),
        ({"neighbouring_slices": 1.0}, "neighbouring_slices: input should be a valid integer, not 1.0"),
        ({"neighbouring_slices": "1"}, "neighbouring_slices: input should be a valid integer, not '1'"),
        ({"neighbouring_slices": None}, "neighbouring_slices: input should be a valid integer, not None"),
        ({"threshold": 0}, "threshold: input should be greater than 0, not 0"),
        ({"threshold": 1.5}, "(threshold: input should be less than or equal to 1, not 1.5)"),
        ({"threshold": float("nan")}, "NaN is not a JSON number"),
        ({"threshold": "high"}, "(threshold: input should be a valid number, not 'high')"),
        ({"clean_up": "most"}, "clean_up: input should be 'off', 'small', 'minor' or"),
        ({"coarse_threshold": 1.5}, "coarse_threshold: input should be less than 1, not 1.5"),
        (
            {"preprocess": {"working_size": 0}},
            "preprocess.working_size: input should be greater",
        ),
        (
            {"preprocess": {"working_size": 100_000}},
            "than or equal to 4096, not 100000",
        ),
        (
            {"preprocess": {"working_size": 20.5}},
            "should be a valid integer, not 20.5",
        ),
        (
            {"preprocess": {"working_size": "large"}},
            "should be a valid integer, not 'large'",
        ),
        (
            {"preprocess": {"clip_percentile": 200}},
            "should be less than or equal to 100, not 200",
        ),
        ({"preprocess": {"unheard_of": 1}}, "unheard_of"),
        ({"preprocess": None}, "damaged"),
    ],
)
def test_card_with_an_invalid_value(tmp_path, read, change, complaint):
    path = tmp_path / "x.safetensors"
    write_header(path, json.dumps(asdict(CARD) | change))
    assert complaint in refusal(path, read)


@reads
@pytest.mark.parametrize("share", [0.001, 0.3, 0.999, "one byte less"])
def test_truncated_file(tmp_path, model_file, read, share):
    content = model_file.read_bytes()
    path = tmp_path / "truncated.safetensors"
    path.write_bytes(content[: len(content) - 1 if share == "one byte less" else int(share * len(content))])
    assert "is damaged" in refusal(path, read)


def test_random_bytes_and_flipped_bytes(tmp_path):
    good, path = tmp_path / "good.safetensors", tmp_path / "random.safetensors"
    write_header(good, CARD.to_json())
    rng = np.random.default_rng(0)
    for _ in range(100):
        path.write_bytes(rng.bytes(rng.integers(0, 300)))
        assert "is not a napari-lgg-seg model" in refusal(path, read_card)
        changed = bytearray(good.read_bytes())
        changed[rng.integers(0, 16)] ^= 1 << rng.integers(0, 8)  # in the length and the first keys
        path.write_bytes(changed)
        refusal(path, read_card)


def changed_tensors(tensors, change):
    if change == "missing":
        del tensors["head.weight"]
    elif change == "additional":
        tensors["foot.weight"] = torch.zeros(1)
    elif change == "NaN":
        tensors["head.bias"] = torch.full_like(tensors["head.bias"], torch.nan)
    elif change == "integers":
        tensors["head.bias"] = tensors["head.bias"].to(torch.int8)
    elif change == "another shape":
        tensors["head.weight"] = torch.zeros(2, 64, 3, 3)
    else:
        tensors = {"x": torch.zeros(1)}
    return tensors


@pytest.mark.parametrize(
    "change", ["missing", "additional", "another shape", "all others", "NaN", "integers"]
)
def test_weights_of_another_network(tmp_path, model_file, change):
    path = tmp_path / "x.safetensors"
    write_header(path, CARD.to_json(), changed_tensors(load_file(model_file), change))
    complaints = {"NaN": "weights that are NaN", "integers": "weights of type int8"}
    assert complaints.get(change, "do not fit a 'unet' network") in refusal(path)
    assert read_card(path) == CARD


def test_card_with_another_number_of_channels(tmp_path, model_file):
    path = tmp_path / "x.safetensors"
    for change in ({"sequences": ("FLAIR",)}, {"neighbouring_slices": 1}):
        write_header(path, replace(CARD, **change).to_json(), load_file(model_file))
        assert "do not fit" in refusal(path)


def set_one(name, value, dtype=None):
    """Change one value of a tensor, or its type."""

    def change(tensors):
        tensor = tensors[name] = tensors[name].to(dtype or tensors[name].dtype)
        tensor.view(-1)[0] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_one("head.weight", float("nan")), r"weights that are NaN or infinite \(head\.weight\)"),
        (set_one("head.bias", float("-inf")), r"weights that are NaN or infinite \(head\.bias\)"),
        (set_one("head.bias", 1e300, torch.float64), r"weights that are NaN or infinite \(head\.bias\)"),
        (set_one("head.weight", 1, torch.int32), r"weights of type int32 instead of floating point"),
        (set_one("head.bias", 1, torch.bool), r"weights of type bool instead of floating point"),
        ("running_var", r"a negative variance \(.*running_var\)"),
    ],
)
def test_weights_that_nothing_can_be_computed_with(tmp_path, model_file, change, problem):
    path, tensors = tmp_path / "x.safetensors", load_file(model_file)
    if change == "running_var":
        change = set_one(next(name for name in tensors if name.endswith(change)), -0.5)
    change(tensors)
    write_header(path, CARD.to_json(), tensors)
    text = refusal(path)
    assert re.search(problem, text)
    assert text.endswith("copy the file again or retrain the model.")


def test_weights_beyond_half_precision_are_saved_in_full(tmp_path, model_file):
    network = load_model(model_file).network
    with torch.no_grad():
        network.head.weight[0, 0, 0, 0] = 1e6
    path = tmp_path / "large.safetensors"
    save_model(path, network, CARD)
    assert load_file(path)["head.weight"][0, 0, 0, 0] == 1e6


def test_models_of_version_0_1_0_keep_their_normalisation(tmp_path):
    values = asdict(CARD)
    assert values["preprocess"].pop("normalisation") == "head", "the default of a new model"
    path = tmp_path / "old.safetensors"
    write_header(path, json.dumps(values))
    assert read_card(path).preprocess == replace(CARD.preprocess, normalisation="volume")
    assert read_card().preprocess.normalisation == "volume", "the shipped model's"
    values["preprocess"]["normalisation"] = "unheard of"
    write_header(path, json.dumps(values))
    assert "should be 'head' or 'volume', not 'unheard of'" in refusal(path, read_card)


@pytest.mark.parametrize("name", ["down.0.0.bias", "down.2.3.bias", "up.1.enlarge.1.weight", "head.bias"])
@pytest.mark.parametrize("value", [65000, -2e4])
def test_a_single_weight_that_drowns_the_others_is_refused(tmp_path, model_file, name, value):
    tensors = load_file(model_file)
    tensors[name] = tensors[name].float()
    tensors[name].view(-1)[0] = value
    path = tmp_path / "x.safetensors"
    write_header(path, CARD.to_json(), tensors)
    assert f"has a weight of {abs(value):g} ({name})" in refusal(path)
