"""Which training states can be resumed: of the same patients and options, also of version 0.1.0."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch
from training_runs import OPTIONS, PREPROCESS, about, files, of, start, step_losses, until

from napari_lgg_seg.core.errors import ExportError, TrainingError
from napari_lgg_seg.core.model.checkpoint import load_model, read_card, save_model
from napari_lgg_seg.core.model.preprocess import PreprocessOptions
from napari_lgg_seg.core.training.events import Ended, StepDone
from napari_lgg_seg.core.training.train import train

pytestmark = pytest.mark.usefixtures("narrow")


def change_options(state, remove=(), **add):
    """Change the options in a state file."""
    found = torch.load(state, weights_only=True)
    for name in remove:
        del found["options"][name]
    found["options"] |= add
    torch.save(found, state)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 6}, "seed 5, not 6"),
        ({"batch_size": 5}, "batch size 4, not 5"),
        ({"loss": "dice"}, "loss bce, not dice"),
        ({"learning_rate": 1e-3}, "learning rate 0.002, not 0.001"),
        ({"slices_per_epoch": 9}, "slices per epoch 10, not 9"),
    ],
)
@pytest.mark.usefixtures("one_step")
def test_other_options_are_refused(patients, output, options, words):
    if options.get("loss") == "dice":
        pytest.importorskip("monai")
    before = output.read_bytes()
    with pytest.raises(TrainingError, match=rf"last\.pt belongs to a training with {words}; .*\.$"):
        list(start(patients, output, resume=True, **options))
    assert output.read_bytes() == before


@pytest.mark.usefixtures("one_step")
def test_another_initial_model_is_refused(patients, output, initial):
    with pytest.raises(TrainingError, match="with init scratch, not "):
        list(start(patients, output, resume=True, init=str(initial)))


@pytest.mark.usefixtures("one_step")
def test_another_working_size_is_refused(patients, output):
    work = train(*patients, output, OPTIONS, PreprocessOptions(working_size=48), resume=True)
    with pytest.raises(TrainingError, match=r"working size 32, not 48"):
        list(work)


@pytest.mark.usefixtures("one_step")
def test_other_patients_are_refused(patients, output, make_patient):
    others = patients[0], [make_patient("third")]
    with pytest.raises(TrainingError, match=r"to a training with other patients; .*\.$"):
        list(start(others, output, resume=True))
    with pytest.raises(TrainingError, match=r"to a training with other patients; .*\.$"):
        list(start(patients[::-1], output, resume=True))


@pytest.mark.usefixtures("one_step")
def test_some_options_may_change(patients, output):
    changed = {"epochs": 1, "patience": 3, "validate_every": 5, "max_minutes": 60.0, "device": "auto"}
    events = list(start(patients, output, resume=True, **changed))
    assert [event.step for event in of(events, StepDone)] == [2, 3]
    assert events[-1] == Ended("All 1 epochs are done.")


# --- states of earlier versions ----------------------------------------------------------------

#: Options of version 0.1.0 that were removed, as it wrote them if they were not used.
REMOVED = {"freeze_encoder": False, "draw": "slices", "crop_share": 0.0}


@pytest.mark.usefixtures("one_step")
def test_a_state_of_version_0_1_0_is_resumed(patients, output, state, whole_run):
    change_options(state, **REMOVED)
    events = list(start(patients, output, resume=True))
    assert step_losses(events) == about(step_losses(whole_run[0])[1:])
    assert set(torch.load(state, weights_only=True)["options"]) == {
        field.name for field in dataclasses.fields(OPTIONS)
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("freeze_encoder", True), ("draw", "patients"), ("crop_share", 0.5), ("loss", "bce+tversky")],
)
@pytest.mark.usefixtures("one_step")
def test_a_state_with_a_removed_option_is_refused(patients, output, state, name, value):
    change_options(state, **{**REMOVED, name: value})
    before = state.read_bytes()
    expected = f"training with {name.replace('_', ' ')} {value}, which this version no longer supports; "
    with pytest.raises(TrainingError) as caught:
        list(start(patients, output, resume=True))
    assert expected in str(caught.value)
    assert str(caught.value).endswith("resume it with version 0.1.0, or choose another output.")
    assert state.read_bytes() == before


@pytest.mark.usefixtures("one_step")
def test_an_option_newer_than_the_state_had_its_default(patients, output, state):
    change_options(state, remove=["neighbouring_slices"])
    with pytest.raises(TrainingError, match=r"with neighbouring slices None, not 1; .*\.$"):
        list(start(patients, output, resume=True, neighbouring_slices=1))
    events = until(start(patients, output, resume=True), StepDone)
    assert [event.step for event in of(events, StepDone)] == [2]


@pytest.mark.usefixtures("one_step")
def test_a_state_older_than_muon_was_trained_with_adamw(patients, output, state):
    change_options(state, remove=["optimiser"])
    with pytest.raises(TrainingError, match=r"with optimiser adamw, not muon; .*\.$"):
        list(start(patients, output, resume=True))


# --- damaged files and full disks --------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no state", "cut", "other"])
def test_a_damaged_state_is_refused(patients, output, state, content):
    state.parent.mkdir()
    if content in ("cut", "other"):
        torch.save({"network": {"weight": torch.zeros(1000)}}, state)
        content = state.read_bytes()[: 2000 if content == "cut" else None]
    state.write_bytes(content)
    with pytest.raises(TrainingError, match=r"last\.pt is damaged; .*\.$"):
        list(start(patients, output, resume=True))
    assert state.read_bytes() == content


WRONG = {
    "epoch": ["1", None, -1, 1.5, 2, True, 10**400],
    "step_in_epoch": ["1", None, -1, 0, 10**6],
    "steps_done": ["1", None, -1, 0, 7],
    "part": ["1", None, 0, -1, 1.5],
    "minutes": ["1", None, -1.0, float("nan"), float("inf")],
    "losses": [None, 3, ["1"], [float("nan")], [], [0.5] * 3],
    "history": [None, {}, [3], [[]], [{}], [{"epoch": 1}]],
    "split": [None, [], {}, {"training": "a", "validation": "b"}],
    "options": [None, [], 3],
    "preprocess": [None, [], {}, {"working_size": "32"}],
    "network": [None, [], {}, {"weight": torch.zeros(1)}, {"weight": "text"}],
    "average": [None, {}],
    "optimiser": [None, {}, {"state": {}, "param_groups": []}],
    "scaler": [None, 3],
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.usefixtures("one_step")
def test_a_state_with_a_wrong_or_missing_value_is_refused(patients, output, state, name):
    good = torch.load(state, weights_only=True)
    for value in WRONG[name]:
        torch.save({**good, name: value}, state)
        with pytest.raises(TrainingError, match=r"last\.pt (is damaged|belongs to .*); .*\.$"):
            list(start(patients, output, resume=True))
    torch.save({key: value for key, value in good.items() if key != name}, state)
    with pytest.raises(TrainingError, match=r"last\.pt is damaged; .*\.$"):
        list(start(patients, output, resume=True))


@pytest.mark.usefixtures("one_step")
def test_a_state_with_weights_that_are_not_finite_is_refused(patients, output, state):
    found = torch.load(state, weights_only=True)
    next(iter(found["network"].values())).fill_(torch.nan)
    torch.save(found, state)
    with pytest.raises(TrainingError, match=r"last\.pt is damaged; .*\.$"):
        list(start(patients, output, resume=True))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix files")
@pytest.mark.usefixtures("one_step")
def test_a_state_that_is_no_regular_file_is_refused(patients, output, state):
    state.unlink()
    os.mkfifo(state)
    with pytest.raises(TrainingError, match=r"last\.pt cannot be opened \(it is not a regular file\); .*\.$"):
        list(start(patients, output, resume=True))


def test_a_full_disk_leaves_model_and_old_state_intact(patients, output, state):
    """The system's limit on file sizes stands in for a full disk; only the model fits."""
    resource = pytest.importorskip("resource")
    state.parent.mkdir()
    until(start(patients, output), StepDone)
    old = state.read_bytes()
    assert output.stat().st_size < 2**20 < len(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"last\.pt could not be written \(File too large\)"):
            list(start(patients, output, resume=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_card(output).name == "my model"
    assert state.read_bytes() == old
    assert files(state.parent) == [".lock", "last.pt"]


# --- normalisation -----------------------------------------------------------------------------


def test_a_training_from_scratch_of_version_0_1_0_keeps_its_normalisation(patients, output, state):
    old = dataclasses.replace(PREPROCESS, normalisation="volume")
    until(train(*patients, output, OPTIONS, old), StepDone)
    found = torch.load(state, weights_only=True)
    assert found["preprocess"].pop("normalisation") == "volume"
    torch.save(found, state)
    list(start(patients, output, resume=True))
    assert read_card(output).preprocess == old


def test_new_trainings_measure_intensities_in_the_head(patients, output):
    list(start(patients, output, epochs=1))
    assert read_card(output).preprocess.normalisation == "head"


def test_fine_tuning_keeps_the_initial_models_normalisation(patients, output, initial, tmp_path):
    network, card = load_model(initial).network, read_card(initial)
    old = tmp_path / "old.safetensors"
    preprocess = dataclasses.replace(card.preprocess, normalisation="volume")
    save_model(old, network, dataclasses.replace(card, preprocess=preprocess))
    list(start(patients, output, init=str(old), epochs=1))
    assert read_card(output).preprocess == preprocess
