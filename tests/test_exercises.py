"""The exercise notebooks are what their solutions generate, and give no solution away."""

from pathlib import Path

import jupytext
import nbformat
import pytest

from course_utils.authoring import exercises, sync as authoring

SOLUTIONS = sorted(authoring.NOTEBOOKS.glob("*_solutions.py"))
each_notebook = pytest.mark.parametrize("solutions", SOLUTIONS, ids=lambda path: path.stem)

TEXT = """\
# %% [markdown]
# Half of 64, and how to halve?

# %% tags=["hide-cell", "nbval-ignore-output", "solution"]
# <solution>
# stub: half = ...
secret = 64 // 2
half = secret
# </solution>
print(half)

# %% tags=["hide-cell", "solution"]
def halve(x):
    # <solution>
    # stub: ...
    return x // 2
    # </solution>

# %% [markdown] tags=["solution"]
# The secret is 32.

# %%
assert halve(64) == half
"""


@pytest.fixture
def written(tmp_path) -> Path:
    """The exercises that were written from a small solutions notebook."""
    (tmp_path / "sums_solutions.py").write_text(TEXT, encoding="utf-8")
    exercises.write(tmp_path)
    return tmp_path / "sums_exercises.py"


def test_solutions_give_way_to_stubs(written):
    task, half, halve, check = jupytext.read(written).cells
    assert task.source == "Half of 64, and how to halve?"
    assert half.source == "# your answer here\nhalf = ...\nprint(half)"
    assert halve.source == "def halve(x):\n    # your answer here\n    ..."
    assert check.source == "assert halve(64) == half"
    assert [cell.metadata.get("tags", []) for cell in (half, halve)] == [["nbval-ignore-output"], []]


def test_both_twins_are_written_and_agree(written):
    assert authoring.differences(written.with_suffix(".ipynb"), written) == []
    nbformat.validate(nbformat.read(written.with_suffix(".ipynb"), as_version=4))


def test_writing_twice_changes_nothing(written):
    twins = written, written.with_suffix(".ipynb")
    before = [path.read_bytes() for path in twins]
    exercises.write(written.parent)
    assert [path.read_bytes() for path in twins] == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# stub: half = ...\n", ""),
        ("# </solution>\nprint", "print"),
        ("# <solution>\n# stub: half", "# stub: half"),
        ("    # stub: ...\n", ""),
    ],
    ids=["no stub", "no end", "no start", "no stub in a function"],
)
def test_a_solution_that_would_be_given_away_is_refused(tmp_path, old, new):
    assert old in TEXT
    (tmp_path / "sums_solutions.py").write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sums_solutions\.py: a code cell tagged `solution` needs"):
        exercises.write(tmp_path)


def test_execute_passes_exercises_over(written):
    before = written.with_suffix(".ipynb").read_bytes()
    written.with_name("sums_solutions.py").unlink()
    authoring.execute(written.parent)  # would fail at its assert
    assert written.with_suffix(".ipynb").read_bytes() == before


def test_both_lessons_have_exercises():
    assert [path.name[:3] for path in SOLUTIONS] == ["01_", "02_"]


@each_notebook
def test_exercises_are_what_the_solutions_generate(solutions, tmp_path):
    fresh = tmp_path / "fresh.ipynb"
    jupytext.write(exercises.exercises(solutions), fresh)
    stored = solutions.with_name(solutions.name.replace("_solutions", "_exercises"))
    advice = "run `python -m course_utils exercises`"
    assert authoring.differences(fresh, stored) == [], advice
    assert authoring.differences(fresh, stored.with_suffix(".ipynb")) == [], advice


@each_notebook
def test_every_exercise_has_a_task_a_solution_its_reasoning_and_a_check(solutions):
    parts = "".join(text_of(cell) for cell in jupytext.read(solutions).cells).split("\n## ")
    tasks = [part for part in parts if part[0].isdigit()]
    assert 6 <= len(tasks) <= 8
    for task in tasks:
        for needed in ("# <solution>", "The reasoning", "checks."):
            assert needed in task, (needed, task)


def text_of(cell) -> str:
    return f"\n{cell.source}\n"
