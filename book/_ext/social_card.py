"""Sphinx extension: what a link to a page shows in a chat, and what a search engine shows of it.

That is its title and its opening line. A picture needs an absolute address, so there is one only when `baseurl` in
`_config.yml` says where the site is; it is drawn after the build.
"""

import textwrap
from html import escape
from pathlib import Path

import matplotlib
from docutils import nodes
from matplotlib.figure import Figure

from course_utils import plots
from course_utils.lab import records

CARD = "_static/social_card.png"
RECIPE = "smallnet-source"
LINE = "Two sessions with CIFAR: build small networks, train them, measure what each idea is worth."
ALT = "The course's title above a curve of accuracy that rises over the epochs of a recorded run."


def describe(app, pagename: str, templatename: str, context: dict, doctree: nodes.document | None) -> None:
    """Add a page's meta tags. Pages without a text of their own, such as the search, have none."""
    title, text = (doctree and doctree.next_node(kind) for kind in (nodes.title, nodes.paragraph))
    if title is None or text is None:
        return
    line = textwrap.shorten(text.astext(), 200, placeholder=" …")
    tags = {
        "og:type": "article",
        "og:site_name": app.config.html_title,
        "og:title": title.astext(),
        "og:description": line,
    }
    if site := app.config.html_baseurl.rstrip("/"):
        tags |= {
            "og:url": f"{site}/{app.builder.get_target_uri(pagename)}",
            "og:image": f"{site}/{CARD}",
            "og:image:alt": ALT,
        }
    metas = [f'<meta property="{name}" content="{escape(text)}">' for name, text in tags.items()]
    metas.append(f'<meta name="description" content="{escape(line)}">')
    if site:
        metas.append('<meta name="twitter:card" content="summary_large_image">')  # other chats read it, too
    context["metatags"] += "\n".join(metas) + "\n"


def add_card(app, exception: Exception | None) -> None:
    if exception is None and app.config.html_baseurl:
        draw(Path(app.outdir, CARD), app.config.html_title)


def draw(path: Path, title: str) -> None:
    """Write the picture, 1200 × 630 pixels: title, one line, and the accuracy of a run if one is recorded."""
    with matplotlib.rc_context({**plots.STYLE, "font.size": 20, "axes.labelsize": 20}):
        figure = Figure(figsize=(12, 6.3), dpi=100)
        figure.text(0.06, 0.83, title, size=56, weight="bold")
        figure.text(0.06, 0.7, textwrap.fill(LINE, 62), size=26, va="center")
        if recorded := records.of_recipe(RECIPE):
            percents = [100 * one for one in recorded[0]["history"]["validation_accuracy"]]
            axes = figure.add_axes((0.08, 0.15, 0.86, 0.4), xlabel="epoch")
            axes.set_title("accuracy on CIFAR-100’s validation pictures, %", size=20, loc="left")
            axes.plot(range(1, len(percents) + 1), percents, color=plots.BLUE, linewidth=5)
        figure.savefig(path, dpi=100)


def setup(app) -> dict:
    app.connect("html-page-context", describe)
    app.connect("build-finished", add_card)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
