"""Run standalone notebooks from top to bottom, each in an empty folder, and say how long each took.

    python -m course_utils standalone
    python tests/benchmarks/standalone_notebooks.py _build/standalone/*.ipynb

Run it with the Python of an environment in which the course is not installed, only what the notebooks
need and nbclient and ipykernel; that is what Colab looks like. About a minute and a half a lesson on two
cores, which is why it is not among the tests.
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WHERE = "import course_utils, pathlib; print(pathlib.Path(course_utils.__file__).resolve().parent.parent)"


def run(path: Path) -> float:
    """Seconds that the notebook takes; raises nbclient's CellExecutionError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(WHERE))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute()
        [output] = notebook.cells[-1].outputs
        assert Path(output.text.strip()) == Path(folder).resolve(), "another course_utils was imported"
        return time.perf_counter() - started


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        print(f"{name}: {run(Path(name)):.0f} s", flush=True)
