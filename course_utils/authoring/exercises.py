"""Write the exercise notebooks from the solutions, so that the two cannot drift apart.

A solutions notebook is the source. In it the tag `solution` marks what students are not to see:

* a Markdown cell with this tag is left out of the exercises;
* in a code cell with this tag, the lines from `# <solution>` to `# </solution>` give way to the line
  `# your answer here` and to the stub, which is what stands behind `# stub:` on lines of its own.

    # <solution>
    # stub: by_hand = ...
    by_hand = 9 * 3 * 32 + 32
    # </solution>

Everything else stays, the self-checks among it. Jupytext is imported where it is used.
"""

import re
from pathlib import Path

from course_utils.authoring.sync import NOTEBOOKS

TAG, FOLDED = "solution", "hide-cell"
BLOCK = re.compile(r"( *)# <solution>\n(.*?\n) *# </solution>", re.DOTALL)


def write(folder: Path = NOTEBOOKS) -> None:
    """Write `*_exercises.py` and its `.ipynb` twin for every `*_solutions.py` in `folder`.

    Raises ValueError, and shows the cell, for a solution without a stub and for marks that do not match.
    """
    import jupytext

    for solutions in sorted(folder.glob("*_solutions.py")):
        notebook = exercises(solutions)
        path = folder / solutions.name.replace("_solutions", "_exercises")
        jupytext.write(notebook, path, fmt="py:percent")
        jupytext.write(notebook, path.with_suffix(".ipynb"))


def exercises(solutions: Path):
    """The exercise notebook (nbformat) that belongs to a solutions notebook in percent format."""
    import jupytext

    notebook = jupytext.read(solutions)
    notebook.metadata.pop("mystnb", None)  # how the book folds the solutions
    notebook.cells = [cell for cell in notebook.cells if not is_solution(cell) or cell.cell_type == "code"]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # not a random one, which would differ every time
        if is_solution(cell):
            cell.source = with_stubs(cell.source, solutions.name)
            kept = [tag for tag in cell.metadata.pop("tags") if tag not in (TAG, FOLDED)]
            cell.metadata.update({"tags": kept} if kept else {})
    return notebook


def is_solution(cell) -> bool:
    return TAG in cell.metadata.get("tags", [])


def with_stubs(source: str, where: str) -> str:
    """The source of a solution cell with each solution replaced by its stub."""
    stubbed, found = BLOCK.subn(stub, source)
    if not found or "solution>" in stubbed:
        raise ValueError(
            f"{where}: a code cell tagged `{TAG}` needs lines from `# <solution>` to `# </solution>`, with at "
            f"least one `# stub:` among them; found\n{source}"
        )
    return stubbed


def stub(block: re.Match) -> str:
    """What stands in a block's place; a block without a stub is left as it is."""
    indent, solution = block.groups()
    lines = re.findall(r"^ *# stub: (.*)$", solution, re.MULTILINE)
    return "\n".join(indent + line for line in ["# your answer here", *lines]) if lines else block.group()
