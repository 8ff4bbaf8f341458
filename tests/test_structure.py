"""The shape of the package: what each folder holds, and which way its imports point."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import napari_lgg_seg

PACKAGE = "napari_lgg_seg"
FOLDER = Path(napari_lgg_seg.__file__).parent

#: What each part may import, besides itself; deeper parts of the package are listed under their folder.
BELOW = {
    "core.data": {"core"},
    "core.model": {"core.data", "core"},
    "core.evaluation": {"core.model", "core.data", "core"},
    "core.inference": {"core.evaluation", "core.model", "core.data", "core"},
    "core.training": {"core.inference", "core.evaluation", "core.model", "core.data", "core"},
    "core.cohort": {"core.training", "core.inference", "core.evaluation", "core.model", "core.data", "core"},
}
CORE = {"core", *BELOW}
#: Modules at the top of core: what all others may use.
LEAVES = {"errors", "choices", "options", "devices", "memory", "atomic", "prefetch"}
#: napari's hooks at the top of the package that widgets may use.
SHARED_HOOKS = {"layers", "placement", "preferences"}


def module_name(file: Path) -> str:
    parts = file.relative_to(FOLDER).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(FOLDER.rglob("*.py"))}


@cache
def imports(module: str) -> frozenset[str]:
    """Modules of the package that a module imports, anywhere in its code; "" is the package itself."""
    return frozenset(_imports(module))


def _imports(module: str) -> Iterator[str]:
    file = FILES[module]
    parts = module.split(".") if module else []
    package = parts if file.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            elif (node.module or "").split(".")[0] == PACKAGE:
                base = (node.module or "").split(".")[1:]
            else:
                continue
            name = ".".join(filter(None, base))
            for alias in node.names:
                inner = f"{name}.{alias.name}" if name else alias.name
                yield inner if inner in FILES else name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield alias.name.partition(".")[2]


def part(module: str) -> str:
    """The part of the package that a module belongs to, as in ``BELOW``."""
    top, _, rest = module.partition(".")
    second = rest.partition(".")[0]
    if top == "core":
        return f"core.{second}" if f"core.{second}" in BELOW else "core"
    return top if (FOLDER / top).is_dir() else ""


def entries(folder: str) -> list[str]:
    return sorted(e.name for e in (FOLDER / folder).iterdir() if e.name != "__pycache__")


def test_folders_show_their_content_at_a_glance():
    assert len(entries("core")) <= 14, entries("core")
    assert len(entries("widgets")) <= 10, entries("widgets")
    assert {Path(name).stem for name in entries("core") if name.endswith(".py")} == {*LEAVES, "__init__"}


def test_imports_are_seen_by_these_tests():
    assert "core.training.run" in imports("core.training.train")
    assert "core.errors" in imports("core.data.patients")
    assert any(name.startswith("core.") for name in imports("widgets.segment.widget"))


def test_no_imports_in_circles():
    graph = {name: imports(name) - {name, ""} for name in FILES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("core")])
def test_core_imports_only_what_lies_below(module):
    own = part(module)
    allowed = BELOW.get(own, set()) | {own}
    wrong = {name for name in imports(module) if name != "_version" and part(name) not in allowed}
    assert not wrong


@pytest.mark.parametrize("module", [name for name in FILES if name.partition(".")[0] in ("widgets", "cli")])
def test_window_and_command_line_import_core_and_themselves(module):
    own = module.partition(".")[0]
    allowed = CORE | {own}
    hooks = SHARED_HOOKS if own == "widgets" else set()
    wrong = {
        name
        for name in imports(module)
        if part(name) not in allowed and name not in hooks and name != "_version"
    }
    assert not wrong


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith(("core", "cli"))])
def test_core_and_command_line_know_no_window(module):
    """Only the command that opens a window imports napari."""
    wrong = {"qtpy", "magicgui", "superqt", "pyqtgraph", "typer" if module.startswith("core") else ""}
    wrong |= {"napari"} - ({"napari"} if module == "cli.app" else set())
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not wrong & {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").partition(".")[0] not in wrong


def test_each_public_class_has_one_home():
    homes: dict[str, list[str]] = {}
    for module, file in FILES.items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    assert not {name: places for name, places in homes.items() if len(places) > 1}
