"""Make the exercise notebooks from the solutions, so that the two cannot drift apart.

In a solutions notebook the tag `solution` marks what students are not to see. A Markdown cell with it is left out. In a
code cell with it, the lines from `# <solution>` to `# </solution>` give way to `# your answer here` and to the stub,
which is what stands behind `# stub:` on lines of its own:

    # <solution>
    # stub: by_hand = ...
    by_hand = 9 * 3 * 32 + 32
    # </solution>
"""

import re
from pathlib import Path

import jupytext
from nbformat import NotebookNode

TAG, FOLDED = "solution", "hide-cell"
MARK = re.compile(r"^ *# (?:</?solution>|stub:.*)\n?", re.MULTILINE)  # a line that only makes the exercises
BLOCK = re.compile(r"( *)# <solution>\n(.*?\n) *# </solution>", re.DOTALL)


def made(folder: Path) -> dict[Path, NotebookNode]:
    """{path of the `*_exercises.ipynb`: notebook as the `*_solutions.py` makes it}"""
    return {
        path.with_name(path.name.replace("_solutions.py", "_exercises.ipynb")): exercises(path)
        for path in sorted(folder.glob("*_solutions.py"))
    }


def exercises(solutions: Path) -> NotebookNode:
    """The exercises that belong to a solutions notebook in percent format.

    Raises ValueError, and shows the cell, for a solution without a stub or its tag and for marks that do not match.
    """
    notebook = jupytext.read(solutions)
    notebook.metadata.pop("mystnb", None)  # how the book folds the solutions
    notebook.cells = [cell for cell in notebook.cells if not is_solution(cell) or cell.cell_type == "code"]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # not a random one, which would differ every time
        if is_solution(cell):
            cell.source = with_stubs(cell.source, solutions.name)
            tags = [tag for tag in cell.metadata.pop("tags") if tag not in (TAG, FOLDED)]
            cell.metadata.update({"tags": tags} if tags else {})
        elif MARK.search(cell.source) or TAG in " ".join(cell.metadata.get("tags", [])).lower():
            raise ValueError(f"{solutions.name}: expected the tag `{TAG}` on the cell\n{cell.source}")
    return notebook


def is_solution(cell: NotebookNode) -> bool:
    return TAG in cell.metadata.get("tags", [])


def with_stubs(source: str, where: str) -> str:
    """The source of a solution cell with each solution replaced by its stub."""
    stubbed, found = BLOCK.subn(stub, source)
    if not found or "solution>" in stubbed:
        expected = f"lines from `# <solution>` to `# </solution>` in a code cell tagged `{TAG}`"
        raise ValueError(f"{where}: expected {expected}, with `# stub:` among them, found\n{source}")
    return stubbed


def stub(block: re.Match) -> str:
    """What stands in a block's place; a block without a stub is left as it is."""
    indent, solution = block.groups()
    lines = re.findall(r"^ *# stub: (.*)$", solution, re.MULTILINE)
    return "\n".join(indent + line for line in ["# your answer here", *lines]) if lines else block.group()
