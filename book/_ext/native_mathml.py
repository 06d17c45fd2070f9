"""Sphinx extension: write every equation as MathML while the book is built.

Browsers draw MathML themselves and screen readers read it, so the pages need no MathJax and no
network. An equation that cannot be converted is a warning that names its page and line.
"""

import re
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)


def to_mathml(latex: str, display: str) -> str:
    """One equation as a `<math>` element; `display` is "inline" or "block".

    Raises ValueError where latex2mathml would quietly write something wrong: it prints unknown
    commands letter for letter, and closes braces that were left open.
    """
    bare = re.sub(r"\\[{}]", "", latex)
    if bare.count("{") != bare.count("}"):
        raise ValueError("unbalanced braces")
    # latex2mathml lays out align*, but not its twins for use inside an equation; and it leaves no
    # space between a function's name and its argument.
    latex = re.sub(r"\{(aligned|split)\}", "{align*}", latex)
    latex = re.sub(r"\\(log|ln|exp)(\s+(?=[a-zA-Z0-9])|\s*(?=\\))", r"\\\1\\,", latex)
    mathml = convert(latex, display=display)
    if unknown := re.search(r"\\\w+", " ".join(ElementTree.fromstring(mathml).itertext())):
        raise ValueError(f"unknown command {unknown[0]}")
    return mathml


def equation(translator, node: nodes.Element, display: str) -> str:
    """The node's MathML, or its source as code when it cannot be converted."""
    latex = node.astext().strip()
    try:
        return to_mathml(latex, display)
    except Exception as error:  # the converter raises a dozen kinds, StopIteration among them
        reason = str(error) or type(error).__name__
        logger.warning("equation %r: %s", latex, reason, location=node, type="mathml")
        return f"<code>{translator.encode(latex)}</code>"


def visit_inline(translator, node: nodes.math) -> None:
    translator.body.append(equation(translator, node, "inline"))
    raise nodes.SkipNode


def visit_block(translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(equation(translator, node, "block") + "</div>\n")
    raise nodes.SkipNode


def setup(app) -> dict:
    # Sphinx prefers a renderer that was added to its own MathJax one, and then leaves MathJax out.
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
