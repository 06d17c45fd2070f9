"""Sphinx extension: ten slides a session, made from the lesson's own cells, as one HTML file that needs nothing else.

A cell tagged `slide` begins a slide, and one tagged `slide-more` goes on the same. Code is shown with its output;
`slide-output` leaves the code out. Page Down, a click on the number, or a swipe goes to the next slide.
"""

import re
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
html {{ scroll-snap-type: y mandatory; color-scheme: light dark;
  font: clamp(16px, 2.2vmin, 28px)/1.4 system-ui, sans-serif }}
body {{ margin: 0 }}
section {{ scroll-snap-align: start; box-sizing: border-box; min-height: 100vh; padding: 4vmin 8vmin;
  display: flex; flex-direction: column; justify-content: center }}
section > a {{ align-self: flex-end; color: inherit; opacity: .8 }}
h1, h2, h3 {{ line-height: 1.15 }}
pre {{ font-size: .8em; overflow-x: auto }}
img, svg {{ max-width: 100%; max-height: 60vh; background: white }}
.prompt, .anchor-link {{ display: none }}
@media print {{ section {{ break-after: page }} }}
</style>
{slides}
</html>
"""


def slides(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """A notebook for each slide, with the cells of `notebook` that are tagged for it."""
    found = []
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        if "slide" in tags:
            found.append(nbformat.v4.new_notebook(metadata=notebook.metadata))
        if tags & {"slide", "slide-more"}:
            found[-1].cells.append(cell)
    return found


def render(source: Path) -> str:
    """The slides of the lesson `source` as one HTML page."""
    exporter = HTMLExporter(template_name="basic")
    exporter.register_preprocessor("nbconvert.preprocessors.TagRemovePreprocessor", enabled=True)
    exporter.config.TagRemovePreprocessor.remove_input_tags = {"slide-output"}
    bodies = [exporter.from_notebook_node(slide)[0] for slide in slides(nbformat.read(source, as_version=4))]
    numbered = [
        f'<section id="{n}">{body}<a href="#{n % len(bodies) + 1}">{n}/{len(bodies)}</a></section>'
        for n, body in enumerate(bodies, 1)
    ]
    title = re.search(r"<h1[^>]*>(.*?)<", bodies[0])[1]
    return PAGE.format(title=title, slides="\n".join(numbered))


def write(app, exception: Exception | None) -> None:
    """After a build, put the lessons' slides into the site, at `_static/slides`."""
    if exception is None:
        out = Path(app.outdir, "_static", "slides")
        out.mkdir(exist_ok=True)
        for lesson in ("01_smallnet", "02_resnet"):
            page = render(Path(app.srcdir, "notebooks", f"{lesson}.ipynb"))
            (out / f"{lesson}.html").write_text(page, encoding="utf-8")


def setup(app) -> dict:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
