"""Sphinx extension: a link to a term of the glossary shows the definition when pointed at, focused or tapped.

The definition is in the page, behind the link, and `course.css` shows it. `glossary_tips.js` adds what CSS cannot do:
a first tap that does not leave the page, and Escape. Without either, the link still leads to the glossary.
"""

from html import escape

from docutils import nodes

GLOSSARY = "book/glossary"


class Tip(nodes.Inline, nodes.Element):
    """A definition; it is no part of the page's text."""


def add_tips(app, doctree: nodes.document, docname: str) -> None:
    if docname == GLOSSARY or GLOSSARY not in app.env.found_docs:  # as in a book of a few pages
        return
    entries = app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item)
    known = {name: one.children[-1].astext() for one in entries for name in one.next_node(nodes.term)["ids"]}
    for link in list(doctree.findall(nodes.reference)):
        if words := known.get(link.get("refuri", "").partition("#")[2]):
            link["classes"].append("term")
            link.parent.insert(link.parent.index(link) + 1, Tip(words=words))


def open_tip(writer, node: Tip) -> None:
    writer.body.append(f'<span class="tip" role="tooltip">{escape(node["words"])}')


def setup(app) -> dict:
    app.add_node(Tip, html=(open_tip, lambda writer, node: writer.body.append("</span>")))
    app.connect("doctree-resolved", add_tips)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
