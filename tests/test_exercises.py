"""The exercise notebooks are what their solutions generate, and give no solution away."""

import re

import jupytext
import nbformat
import numpy as np
import pytest

from course_utils.authoring import exercises, sync
from course_utils.lab.verdicts import percents

SOLUTIONS = sorted(sync.NOTEBOOKS.glob("*_solutions.py"))

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
def solutions(tmp_path):
    (tmp_path / "sums_solutions.py").write_text(TEXT, encoding="utf-8")
    return tmp_path / "sums_solutions.py"


def test_solutions_give_way_to_stubs(solutions):
    task, half, halve, check = exercises.exercises(solutions).cells
    assert task.source == "Half of 64, and how to halve?"
    assert half.source == "# your answer here\nhalf = ...\nprint(half)"
    assert halve.source == "def halve(x):\n    # your answer here\n    ..."
    assert check.source == "assert halve(64) == half"
    assert [cell.metadata.get("tags", []) for cell in (half, halve)] == [["nbval-ignore-output"], []]


# No stub, no end, no start, and no stub in a function.
GONE = ("# stub: half = ...\n", "# </solution>\n", "# <solution>\n", "    # stub: ...\n")


@pytest.mark.parametrize("gone", GONE)
def test_a_solution_that_would_be_given_away_is_refused(solutions, gone):
    assert gone in TEXT
    solutions.write_text(TEXT.replace(gone, "", 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sums_solutions\.py: expected lines from `# <solution>`"):
        exercises.made(solutions.parent)


def test_a_solution_whose_tag_is_misspelt_is_refused(solutions):
    solutions.write_text(TEXT.replace('"solution"', '"solutions"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sums_solutions\.py: expected the tag `solution` on the cell"):
        exercises.made(solutions.parent)
    prose = TEXT.replace('[markdown] tags=["solution"]', '[markdown] tags=["Solution"]')
    solutions.write_text(prose, encoding="utf-8")
    with pytest.raises(ValueError, match="expected the tag `solution` on the cell\nThe secret is 32"):
        exercises.made(solutions.parent)


def test_both_lessons_have_exercises_that_were_not_run():
    paths = exercises.made(sync.NOTEBOOKS)
    assert [path.name for path in paths] == ["01_smallnet_exercises.ipynb", "02_resnet_exercises.ipynb"]
    for path in paths:
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_accuracies_of_the_exercise_on_intervals_are_the_recorded_ones():
    cells = jupytext.read(sync.NOTEBOOKS / "02_resnet_solutions.py").cells
    [cell] = [cell for cell in cells if cell.source.startswith("project =")]
    exec(cell.source, given := {"np": np})
    for name, recipe in (("project", "source"), ("with_gelu", "gelu"), ("twice_the_epochs", "long")):
        np.testing.assert_allclose(given[name], percents(f"smallnet-{recipe}")[:3], atol=0.005)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_exercise_has_a_task_a_solution_its_reasoning_and_a_check(path):
    text = "\n".join(cell.source for cell in jupytext.read(path).cells)
    tasks = [part for part in re.split(r"^## ", text, flags=re.M) if part[0].isdigit()]
    assert 6 <= len(tasks) <= 8
    needed = ("# <solution>", "The reasoning", "checks.")
    assert [(part, task) for task in tasks for part in needed if part not in task] == []
