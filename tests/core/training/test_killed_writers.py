"""A training that is killed while it writes a file leaves the old content or the new one, never a mixture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from killing import kills
from narrow_network import make_narrow, narrow_network

from napari_lgg_seg.core.model.checkpoint import ModelCard, load_model, save_model
from napari_lgg_seg.core.training.callbacks import HistoryCsv
from napari_lgg_seg.core.training.history import EpochRecord
from napari_lgg_seg.core.training.paths import state_file, state_folder
from napari_lgg_seg.core.training.state import remove_leftovers, save_state

OLD, NEW = 1, 2


def output(folder: Path) -> Path:
    return folder / "model.safetensors"


# --- the writers: each writes content that says which of the two it is --------------------------


def write_model(folder, number):
    network = make_narrow(seed=number)
    save_model(output(folder), network, ModelCard(str(number)))


def old_model(folder):
    write_model(folder, OLD)


def new_model(folder):
    write_model(folder, NEW)


class State:
    """A run with nothing but a state to save; large enough to be written in several parts."""

    def __init__(self, number: int) -> None:
        self.number = number

    def state_dict(self):
        import torch

        return {"number": self.number, "tensor": torch.full((100_000,), float(self.number))}


def old_state(folder):
    save_state(State(OLD), state_file(output(folder)))


def new_state(folder):
    save_state(State(NEW), state_file(output(folder)))


def write_history(folder, epochs):
    history = [EpochRecord(n, n, 0.5, 1e-3, 1.0, 0.0, {"a": 0.5}) for n in range(1, epochs + 1)]
    callback = HistoryCsv(state_folder(output(folder)) / "history.csv")
    callback.after_epoch(SimpleNamespace(history=history), history[-1])


def old_history(folder):
    write_history(folder, 20)


def new_history(folder):
    write_history(folder, 21)


def in_place(folder):
    (folder / "file").write_text("new" * 1000)


def in_place_before(folder):
    (folder / "file").write_text("old" * 1000)


# --- what is read afterwards --------------------------------------------------------------------


def read_model(folder):
    import torch

    with narrow_network():
        model = load_model(output(folder))
    number = int(model.card.name)
    expected = make_narrow(seed=number).state_dict()
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-3, rtol=1e-3)
    return number


def read_state(folder):
    import torch

    state = torch.load(state_file(output(folder)), weights_only=True)
    assert (state["tensor"] == state["number"]).all()
    return state["number"]


def read_history(folder):
    lines = (state_folder(output(folder)) / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [str(n) for n in range(1, len(lines))]
    assert len({line.count(",") for line in lines}) == 1
    return {21: OLD, 22: NEW}[len(lines)]


@pytest.mark.parametrize(
    ("old", "new", "read", "half_written"),
    [
        # Importing torch takes longest, so these two only with half of the data, which demands more.
        (old_model, new_model, read_model, True),
        (old_state, new_state, read_state, True),
        (old_history, new_history, read_history, True),
        (old_history, new_history, read_history, False),
    ],
    ids=["model", "state", "history", "whole history"],
)
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path, old, new, read, half_written):
    found = []
    for killed in kills(old, new, tmp_path, half_written=half_written):
        found.append(read(killed.folder))
        new(killed.folder)
        assert read(killed.folder) == NEW, killed
        assert not list(killed.folder.rglob("*.tmp")), killed
    assert found == sorted(found), "once new, it stays new"
    assert set(found) == {OLD, NEW}


def test_a_training_removes_what_a_killed_one_left(tmp_path):
    seen = 0
    for killed in kills(old_history, new_history, tmp_path):
        seen += len(list(killed.folder.rglob("*.tmp")))
        remove_leftovers(output(killed.folder))
        assert not list(killed.folder.rglob("*.tmp")), killed
    assert seen > 1


@pytest.mark.parametrize(
    ("half_written", "expected"),
    [(False, ["old" * 1000, "", "new" * 1000]), (True, ["old" * 1000, "", "new" * 500])],
    ids=["killed", "half written"],
)
def test_a_writer_that_is_not_atomic_is_found_out(tmp_path, half_written, expected):
    killed = kills(in_place_before, in_place, tmp_path, half_written=half_written)
    assert [(folder / "file").read_text() for _, _, folder in killed] == expected
