"""Every command and every Python example in README.md, CONTRIBUTING.md and docs/ works.

Commands of the program are run, in a folder that holds what the placeholders name (see conftest.py). What
cannot be run in a test is listed in ``NOT_RUN`` and ``PARSED``, with the reason, and checked as far as
possible. Any other program is a failure, so that no new example is left out by accident.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from napari_lgg_seg.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Options with which a command of the program is parsed but not run, and why.
PARSED = {
    "--window": "opens a window and waits for the user; the widgets' tests drive it",
    "--workers": "starts processes, which takes long; tests/cli/test_segment_cluster.py runs it",
    "--scheduler": "needs a running dask scheduler; tests/cli/test_segment_cluster.py starts one",
    "--engine": "needs an optional engine; tests/core/inference/test_engines.py runs it",
}
#: Programs that are not run, and why. Their arguments are checked where that says something.
NOT_RUN = {
    "venv": "creates an environment",
    "pip": "installs packages; extras, groups and files must exist",
    "tox": "creates environments and runs these tests; the environment must exist",
    "pytest": "runs these tests; the paths must exist",
    "benchmarks": "takes minutes to days and often the dataset; script, commands and options must exist",
    "torchrun": "needs several GPUs; the command that it starts is parsed",
    "napari": "opens a window and waits for the user",
    "ruff": "tox runs it",
    "mypy": "tox runs it",
    "sudo": "installs packages of the system",
    "build": "for releases",
    "twine": "for releases",
    "git": "for releases",
}
PROGRAM = ("napari-lgg-seg", "napari_lgg_seg")


class Block(NamedTuple):
    """A fenced block: the line it begins in, its language and its text."""

    line: int
    language: str
    text: str


class Command(NamedTuple):
    """A program, its arguments, and the line as it is written."""

    program: str
    arguments: list[str]
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\S*)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(text.count("\n", 0, match.start()) + 2, match[1], match[2])


def commands(text: str) -> Iterator[Command]:
    """The commands of a block of shell, or of one line."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield _command(words, line)
                words = []


def _command(words: list[str], line: str) -> Command:
    while "=" in words[0]:  # a variable for this command
        words = words[1:]
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program in ("python", "python3"):
        program, *arguments = arguments[arguments[0] == "-m" :]
    if program.startswith("benchmarks/"):
        program, arguments = "benchmarks", [program, *arguments]
    return Command(program, arguments, line.strip())


# --- what is run -------------------------------------------------------------------------------


WITH_EXAMPLES = [p for p in PAGES if any(block.language in ("sh", "python") for block in blocks(p))]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_work(page: Path, sandbox: Path, run: Callable[..., Any]) -> None:
    """In the order of the page, in one folder."""
    problems = []
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.language == "python":
            try:
                exec(compile(block.text, where, "exec"), names)
            except Exception as error:  # noqa: BLE001 - whatever it is, the reader would meet it
                problems.append(f"{where}: {type(error).__name__}: {error}")
        if block.language == "sh":
            for command in commands(block.text):
                if problem := _try(command, run):
                    problems.append(f"{where}: {command.text}\n    {problem}")
    assert not problems, "\n".join(problems)


def _try(command: Command, run: Callable[..., Any]) -> str:
    """Run a command, or check what can be checked; says what is wrong."""
    program, arguments = command.program, command.arguments
    if program in PROGRAM and not PARSED.keys() & set(arguments):
        done = run(*arguments)
        return "" if done.code == 0 else f"exit code {done.code}: {done.err or done.out}"
    if program in PROGRAM:
        return parsing_error(arguments)
    if program in NOT_RUN:
        return CHECKS.get(program, lambda _: "")(arguments)
    return f"{program} is neither run nor listed in NOT_RUN of tests/docs/test_examples.py"


def parsing_error(arguments: list[str]) -> str:
    """What is wrong with the arguments of a command of the program, which is not run."""
    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    if name not in group.commands:
        return f"there is no command {name}"
    try:
        group.commands[name].make_context(name, list(rest))
    except Exception as error:  # noqa: BLE001 - typer's own class is not public
        return str(getattr(error, "message", error))
    return ""


# --- what is not run ---------------------------------------------------------------------------


def _check_pip(arguments: list[str]) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    for before, word in zip(["", *arguments], arguments, strict=False):
        asked = re.fullmatch(r"(?:\.|napari-lgg-seg)\[([^]]+)\]", word)
        if asked and (missing := set(asked[1].split(",")) - set(extras)):
            return f"there is no extra {', '.join(missing)}"
        if before == "--group" and word not in groups:
            return f"there is no dependency group {word}"
        if before in ("-c", "-r") and not (ROOT / word).exists():
            return f"there is no file {word}"
    return ""


def _check_tox(arguments: list[str]) -> str:
    own, _, rest = " ".join(arguments).partition(" -- ")
    name = re.search(r"-e (\S+)", own)
    if name is None:
        return ""
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    if f"[testenv:{name[1]}]" not in tox:
        return f"there is no environment {name[1]}"
    if name[1] == "bench" and rest:
        starts = re.search(r"python (benchmarks/.*) \{posargs\}", tox)
        return _check_benchmark([*starts[1].split(), *rest.split()]) if starts else "bench runs no benchmark"
    return _check_pytest(rest.split()) if name[1] == "tests" else ""


def _check_pytest(arguments: list[str]) -> str:
    before = ""
    for word in arguments:
        if not word.startswith("-") and before not in ("-k", "-m") and not (ROOT / word).exists():
            return f"there is no {word}"
        before = word
    return ""


def _check_benchmark(arguments: list[str]) -> str:
    """By the names in the script: some of them cannot be imported without the packages they compare with."""
    script, *rest = arguments
    path = ROOT / script
    if not path.exists():
        return f"there is no {script}"
    files = path.glob("*.py") if path.is_dir() else [path]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for number, word in enumerate(rest):
        name = word.removeprefix("--").replace("-", "_")
        if word.startswith("--") and not re.search(rf"\b{name}\b|{word}\b", text):
            return f"{script} has no option {word}"
        if number == 0 and "@app.command" in text and f"def {name}(" not in text:
            return f"{script} has no command {word}"
    return ""


def _check_torchrun(arguments: list[str]) -> str:
    if "-m" not in arguments:
        return "it must start -m napari_lgg_seg"
    program, *rest = arguments[arguments.index("-m") + 1 :]
    return parsing_error(rest) if program in PROGRAM else f"{program} is not the program"


CHECKS: dict[str, Callable[[list[str]], str]] = {
    "pip": _check_pip,
    "tox": _check_tox,
    "pytest": _check_pytest,
    "benchmarks": _check_benchmark,
    "torchrun": _check_torchrun,
}


# --- the rest of the pages ---------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_say_what_they_are(page: Path) -> None:
    """Only then are examples found: sh, python, text, or a directive of the site."""
    for block in blocks(page):
        known = block.language in ("sh", "python", "text") or block.language.startswith("{")
        assert known, f"{page.name}:{block.line}: a block of {block.language or 'no language'}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_sentences_exist(page: Path) -> None:
    """``napari-lgg-seg COMMAND --option`` between words: the command and its options."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    group: Any = typer.main.get_command(app)
    for text in re.findall(r"`napari-lgg-seg ([a-z][^`]*)`", prose):
        name, *words = text.split()
        assert name in group.commands, text
        options = {option for parameter in group.commands[name].params for option in parameter.opts}
        asked = {word for word in words if word.startswith("--")}
        assert asked <= options | {"--help"}, text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_modules_exist(page: Path) -> None:
    """Modules as paths below the repository or the package, or with dots."""
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:core|cli|widgets|tests|benchmarks|src)/[\w/]+(?:\.py)?)`", text):
        assert (ROOT / name).exists() or (ROOT / "src/napari_lgg_seg" / name).exists(), name
    for name in re.findall(r"`napari_lgg_seg\.([\w.]+)`", text):
        assert _exists(name), name


def _exists(dotted: str) -> bool:
    """Whether a module of the package, or something in one, has this name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath("src/napari_lgg_seg", *parts[:length])
        if module.with_suffix(".py").exists():
            found = module.with_suffix(".py").read_text(encoding="utf-8")
            return all(re.search(rf"\b{part}\b", found) for part in parts[length:])
        if module.is_dir():
            return length == len(parts)
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    """Links within the repository; from docs/ to elsewhere they must be URLs, for the site."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = (page.parent / target).resolve()
        assert path.is_file(), f"{page.name}: {target}"
        assert page.parent == ROOT or path.is_relative_to(ROOT / "docs"), f"{page.name}: {target}"


def test_the_reference_has_all_public_names() -> None:
    import napari_lgg_seg as lgg

    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"auto(?:function|class|exception):: (\w+)", page))
    deprecated = {"write_masks"}
    assert listed == set(lgg.__all__) - deprecated


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 120
