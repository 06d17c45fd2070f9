"""Sphinx extension: the solutions' pages leave out the marks from which the exercises are made."""

import json

from course_utils.authoring.exercises import MARK


def leave_out(app, docname: str, source: list[str]) -> None:
    """Take the lines with a mark out of the code of a solutions notebook, before it becomes a page."""
    if docname.endswith("_solutions"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["source"] = MARK.sub("", "".join(cell["source"])).rstrip("\n")
        source[0] = json.dumps(notebook)


def setup(app) -> dict:
    app.connect("source-read", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
