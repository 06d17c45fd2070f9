"""The layout of the package: which way its imports go, what they load, and how long the lesson is.

Costs about 10 s, for two interpreters of which one imports torch.
"""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "course_utils"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LESSON = ["data", "transforms", "models", "schedules", "training", "plots", "lessons"]
ROOMS = ["datasets", "exercises", "lab", "authoring"]
# The two doors through which the lesson looks: where pictures come from, and what a run's parts and first batch show.
MAY = {
    "data": {"datasets", "transforms"},
    "models": {"transforms"},
    "schedules": {"training", "exercises.first_batch", "exercises.parts"},
    "training": {"models", "exercises.first_batch", "exercises.parts"},
    "plots": {"schedules"},
    "datasets": {"datasets"},
    "exercises": {*LESSON, "exercises"},
    "lab": {*LESSON, "datasets", "exercises", "lab"},
    "authoring": {*LESSON, "datasets", "exercises", "lab", "authoring"},
    "__main__": {*LESSON, *ROOMS},
}


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, wherever in it, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in named}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("course_utils.") for name in found if name.startswith("course_utils.")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    room = module.split(".")[1] if "." in module else ""
    allowed = MAY.get(room, set())
    wrong = {name for name in imports(MODULES[module]) if not allowed & {name, name.split(".")[0]}}
    assert wrong == set(), f"{module} may import {sorted(allowed)} of ours"


def loaded(*modules: str) -> list[str]:
    """What a fresh interpreter has loaded after importing `modules`, of ours and torch."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(name for name in done.stdout.split() if name.split(".")[0] in ("course_utils", "torch"))


def test_training_loads_five_modules_of_ours():
    ours = [name.partition(".")[2] for name in loaded("course_utils.training") if name.startswith("course")]
    assert ours == ["", "exercises", "exercises.first_batch", "exercises.parts", "training"]


def test_a_page_that_shows_records_does_not_wait_for_torch():
    flat = ["plots", "schedules", "lessons", "datasets.cifar", "datasets.folders"]
    lab = [f"lab.{name}" for name in ("figures", "tables", "records", "claims", "verdicts", "gallery")]
    assert "torch" not in loaded(*(f"course_utils.{name}" for name in flat + lab))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_lesson_is_short_enough_to_read():
    sizes = {name: lines(MODULES[f"course_utils.{name}"]) for name in LESSON}
    assert sum(sizes.values()) <= 1770, sizes
    assert sizes["training"] <= 260
    tree = ast.parse(MODULES["course_utils.training"].read_text(encoding="utf-8"))
    length = {node.name: node.end_lineno - node.lineno + 1 for node in tree.body if hasattr(node, "name")}
    assert length["fit"] <= 40
    assert length["train_epoch"] <= 20


@pytest.mark.parametrize("module", MODULES)
def test_a_module_begins_with_what_it_is(module):
    assert ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8")))


def test_records_and_weights_are_installed_with_the_package():
    tools = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    lab, globs = PACKAGE / "lab", tools["setuptools"]["package-data"]["course_utils.lab"]
    packed = {path for one in globs for path in lab.glob(one)}
    assert {*lab.glob("recorded/*/seed*.json"), *lab.glob("recorded/*/seed*.pt")} <= packed


def test_the_lesson_is_what_a_student_sees_first():
    flat = {path.stem for path in PACKAGE.glob("*.py")}
    assert flat == {*LESSON, "__init__", "__main__"}
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS)
