"""Sphinx extension: keeps a figure and its per cent sign on one line, where a page's text has a space between them."""

import re

from docutils import nodes


def keep_together(app, doctree: nodes.document, docname: str) -> None:
    """Put a no-break space before each per cent sign that follows a figure, but not in code."""
    for text in list(doctree.findall(nodes.Text)):
        if " %" in text and not isinstance(text.parent, (nodes.literal, nodes.literal_block)):
            text.parent.replace(text, nodes.Text(re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)))


def setup(app) -> dict:
    app.connect("doctree-resolved", keep_together)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
