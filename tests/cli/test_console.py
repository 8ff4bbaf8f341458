"""What the commands print: names and messages as they are, and sentences instead of tracebacks."""

from __future__ import annotations

import html
import json
import os
import warnings

import pytest
import tifffile
from program import NAME, OTHER, THIRD

from napari_lgg_seg.cli import app
from napari_lgg_seg.cli.console import (
    make_console,
    make_progress,
    make_table,
    printable,
    show_warnings_plainly,
)
from napari_lgg_seg.core.errors import LggSegWarning
from napari_lgg_seg.core.evaluation.study.shape_table import read_shapes

NAMES = ["p [rescan]", "p[bold red]", "[%", ":smile:", "<b>bold", "{task.description}", "a\\[b", "=1+1"]
if os.name == "posix":
    NAMES += ["bell\x07", "red\x1b[31m", "two\nlines", "\x9b31m", "left\u202eright"]


@pytest.mark.parametrize("name", [*NAMES, "[/]", "[/red]", "[link=x]y[/link]"])
def test_names_are_printed_literally(capsys, name):
    console = make_console()
    table = make_table(name, title=name)
    table.add_row(name)
    console.print(table)
    console.say(name, style="red")
    with make_progress(console) as progress:
        progress.add_task(name, total=1)
        progress.refresh()
    out = capsys.readouterr().out
    assert out.count(printable(name)) >= 4
    assert printable(name).isprintable()
    assert not set("\x07\x1b\x9b\u202e") & set(out)


def test_long_names_are_not_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    table = make_table("Patient", "Dice", title="")
    table.add_row("x" * 70, "0.5")
    make_console().print(table)
    make_console().say("y" * 200)
    out = capsys.readouterr().out
    assert out.count("x") == 70
    assert "y" * 200 in out


def test_bytes_that_are_not_unicode_are_printed(capsys):
    make_console().say(os.fsdecode(b"caf\xe9"))
    assert capsys.readouterr().out == "caf\\udce9\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows does not allow such names")
@pytest.mark.parametrize("name", ["p [rescan]", "[bold]", "<b>x", "esc\x1b[31m", "=1+1", " @x "])
def test_commands_print_names_literally(run, make_head, tmp_path, name):
    predictions, truth = tmp_path / "predictions", tmp_path / "truth"
    for folder in (predictions, truth):
        folder.mkdir()
        tifffile.imwrite(folder / f"{name}_tumour.tif", make_head()[1])
        (folder / f"{name}2_tumour.tif").write_bytes(b"no TIFF")
    done = [run("shape", predictions, "--csv", tmp_path / "shapes.csv")]
    assert list(read_shapes(tmp_path / "shapes.csv")) == [name]
    done += [run("evaluate", predictions, truth, "--json", tmp_path / "dice.json")]
    assert list(json.loads((tmp_path / "dice.json").read_text())["dice"]) == [name]
    done += [run("report", predictions, "--truth", truth, "--output", tmp_path / "report")]
    page = (tmp_path / "report" / "index.html").read_text()
    assert html.escape(name) in page
    assert html.escape(f"{name}2_tumour.tif") in page
    for code, out, err in done:
        assert code == 1
        assert printable(name) in out + err
        assert printable(f"{name}2_tumour.tif") in err
        assert "\x1b" not in out + err


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyError("x"), "KeyError ('x')"),
        (RuntimeError("first\nsecond"), "RuntimeError (first)"),
        (MemoryError(), "not enough memory"),
        (OSError(36, "File name too long", "/a/[b]"), "/a/[b] cannot be used (File name too long)"),
    ],
)
def test_an_unexpected_error_is_a_sentence(run, monkeypatch, tmp_path, error, says):
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("napari_lgg_seg.core.data.masks.write_patient", fails)
    done = run("sample", tmp_path / "x")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith("Error: ")
    assert says in line


def test_ctrl_c_ends_with_130(run, monkeypatch, tmp_path):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_lgg_seg.core.data.masks.write_patient", stopped)
    assert run("sample", tmp_path / "x").code == 130


def test_developers_get_the_traceback(monkeypatch, tmp_path):
    monkeypatch.setenv("LGG_TRACEBACK", "1")
    monkeypatch.setattr("sys.argv", ["napari-lgg-seg", "info", str(tmp_path / "missing")])
    with pytest.raises(Exception, match="missing"):
        app.main()


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", ".", "--output", "x", "--threshold", "nan"],
        ["segment", ".", "--output", "x", "--workers", "9" * 30],
        ["train", ".", "--output", "x.safetensors", "--validation", "nan"],
        ["train", ".", "--output", "x.safetensors", "--rehearse-share", "nan"],
        ["sample", "x", "--patients", "9" * 30],
        ["sample", "x", "--patients", "9" * 5000],
        ["evaluate", ".", "no [rescan] folder"],
    ],
)
def test_wrong_usage_is_one_line(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("Error: Invalid value for ")
    assert line.endswith(f". See napari-lgg-seg {arguments[0]} --help.")
    assert arguments[-2].startswith("-") or arguments[-1] in line


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "PIPE"],
        ["associate", "PIPE", "PIPE"],
        ["calibrate-coarse", "PIPE", "."],
        ["segment", ".", "--output", "x", "--model", "PIPE"],
        ["report", ".", "--output", "x", "--model", "PIPE"],
        ["train", ".", "--output", "x.safetensors", "--validation-patients", "PIPE"],
        ["train", ".", "--output", "x.safetensors", "--init", "PIPE"],
    ],
    ids=" ".join,
)
def test_pipes_are_refused_rather_than_waited_for(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("PIPE")
    done = run(*arguments)
    assert done.code == 2
    assert "'PIPE' is not a regular file" in done.err


def test_results_do_not_replace_other_files(run, write, tmp_path):
    folder = write()
    image, table = folder / f"{NAME}_1.tif", tmp_path / "data.csv"
    table.write_text("mine")
    before = image.read_bytes()
    for path, command in (
        (table, ["evaluate", folder, folder, "--json", table]),
        (folder, ["evaluate", folder, folder, "--json", folder]),
        (image, ["evaluate", folder, folder, "--json", image]),
        (image, ["shape", folder, "--csv", image, "--overwrite"]),
        (image, ["associate", table, table, "--json", image]),
        (table, ["associate", table, table, "--json", table]),
        (image, ["train", folder, "--output", tmp_path / "x.safetensors", "--batch-picture", image]),
        (image, ["train", folder, "--output", image]),
        (image, ["report", folder, "--output", image, "--overwrite"]),
    ):
        done = run(*command)
        assert done.code == 1
        (line,) = done.err.splitlines()
        assert line.startswith("Error: ")
        assert str(path) in line
    assert table.read_text() == "mine"
    assert image.read_bytes() == before
    assert run("shape", folder, "--csv", tmp_path / "new.txt").code == 0


def test_warnings_are_one_plain_line_each(capsys, monkeypatch):
    others = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: others.append(str(message)))
    warnings.simplefilter("always")
    show_warnings_plainly()
    for text in ("The masks of [A] are soft.", "Another text.", "The masks of [A] are soft."):
        warnings.warn(text, LggSegWarning, stacklevel=1)
    warnings.warn("for developers", UserWarning, stacklevel=1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == ["Warning: The masks of [A] are soft.", "Warning: Another text."]
    assert others == ["for developers"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_pipes_are_not_replaced(run, write, tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    folder = write()
    for command in (
        ["evaluate", folder, folder, "--json", pipe],
        ["shape", folder, "--csv", pipe, "--overwrite"],
        ["report", folder, "--output", pipe, "--overwrite"],
    ):
        done = run(*command)
        assert done.code == 1
        assert str(pipe) in done.err
    assert pipe.is_fifo()


def test_the_current_folder_is_a_folder(run, write, tmp_path, monkeypatch):
    monkeypatch.chdir(write())
    assert run("evaluate", ".", ".").code == 0
    assert run("shape", ".", "--csv", "shapes.csv").code == 0


# --- one patient among others ------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), ValueError("bad"), MemoryError(), EOFError()]
)
@pytest.mark.parametrize("command", ["evaluate", "report", "shape"])
def test_a_failing_patient_does_not_end_the_others(
    run, write, dataset, tmp_path, monkeypatch, command, error
):
    from napari_lgg_seg.core.data import label_reading
    from napari_lgg_seg.core.evaluation import label_pairs

    for name in (NAME, OTHER, THIRD):
        write(name, shape=(3, 32, 32))
    read = label_reading.read_stored_labels

    def fails_once(path):
        if path.name == OTHER:
            raise error
        return read(path)

    for module in (label_reading, label_pairs):
        monkeypatch.setattr(module, "read_stored_labels", fails_once)
    options = {
        "evaluate": [dataset, "--json", tmp_path / "out.json"],
        "report": ["--truth", dataset, "--output", tmp_path / "out"],
        "shape": ["--csv", tmp_path / "out.csv"],
    }
    done = run(command, dataset, *options[command])
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith(("Failed:", "Not counted:"))]
    assert str(dataset / OTHER) in line
    if command == "shape":
        assert list(read_shapes(tmp_path / "out.csv")) == [THIRD, NAME]
        assert "2 of 3 patients measured" in done.out
        return
    file = tmp_path / ("out.json" if command == "evaluate" else "out/metrics.json")
    (failed,) = json.loads(file.read_text())["failed"]
    assert str(dataset / OTHER) in failed
    assert ("2 patients: mean Dice 1.0000" if command == "evaluate" else "2 of 3 patients shown") in done.out


def test_a_sheet_of_an_earlier_report_does_not_stay(run, write, dataset, tmp_path):
    for name in (NAME, OTHER):
        write(name, shape=(3, 32, 32))
    report = ["report", dataset, "--output", tmp_path / "out"]
    assert run(*report).code == 0
    (dataset / NAME / f"{NAME}_2_mask.tif").write_bytes(b"no TIFF")
    assert run(*report, "--overwrite").code == 1
    assert [file.name for file in (tmp_path / "out" / "sheets").iterdir()] == [f"{OTHER}.png"]


def test_evaluate_names_patients_without_ground_truth(run, write, dataset, tmp_path):
    folder = write(NAME)
    write(OTHER)
    done = run("evaluate", dataset, folder, "--json", tmp_path / "dice.json")
    assert done.code == 0
    assert f"Not counted: {OTHER} has no ground truth in {folder}." in done.out
    assert "; 1 not counted, see above" in done.out
    assert json.loads((tmp_path / "dice.json").read_text())["without_truth"] == [OTHER]
