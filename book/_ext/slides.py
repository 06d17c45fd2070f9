"""Sphinx extension: ten slides a session, each session one HTML file, made from the lesson as it ran on CIFAR.

Where that run is not stored, they are made from the lesson as it is.

A cell tagged `slide` begins a slide, with the lesson's last heading above it; so does one tagged `slide-output`, of
which only the output is shown. What is tagged `slide-more` goes on the same slide. Arrow keys turn the pages.
"""

import re
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode, v4

from course_utils.authoring.in_full import LESSONS
from course_utils.authoring.sync import NOTEBOOKS

STARTS = {"slide", "slide-output"}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
html {{ scroll-snap-type: y mandatory; color-scheme: light dark;
  font: clamp(15px, .56rem + 1.9vmin, 36px)/1.4 system-ui, sans-serif }}  /* rem, for those who enlarge the page */
body {{ margin: 0 }}
section {{ scroll-snap-align: start; box-sizing: border-box; min-height: 100vh; padding: 4vmin 8vmin;
  display: flex; flex-direction: column; justify-content: center; position: relative }}
footer {{ position: absolute; right: 3vmin; bottom: 2vmin; opacity: .7 }}
h1, h2 {{ line-height: 1.15 }}
pre {{ font-size: .72em; line-height: 1.3; overflow-x: auto; margin: .6em 0 }}
.output_stream pre {{ font-size: 1em }}
img, svg {{ max-width: 100%; max-height: 72vh; background: white; border-radius: 6px }}
img {{ width: 100%; object-fit: contain }}
.prompt, .anchor-link {{ display: none }}
@media print {{ section {{ break-after: page }} }}
</style>
<main>
{slides}
</main>
<script>
addEventListener("keydown", (event) => {{
  const step = {{ ArrowRight: 1, ArrowLeft: -1 }}[event.key];
  if (!step || event.target.closest("pre") || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const slides = [...document.querySelectorAll("section")];
  const here = slides.findLastIndex((slide) => slide.offsetTop <= scrollY + innerHeight / 2);
  slides[here + step]?.scrollIntoView();
  event.preventDefault();
}});
</script>
</html>
"""


def slides(notebook: NotebookNode) -> list[NotebookNode]:
    """A notebook for each slide of `notebook`."""
    found, heading = [], ""
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        if tags & STARTS or ("slide-more" in tags and not found):
            title = [v4.new_markdown_cell(heading)] if cell.cell_type == "code" else []
            found.append(v4.new_notebook(cells=title, metadata=notebook.metadata))
        if tags & STARTS or "slide-more" in tags:
            cell.source = cell.source[max(cell.source.find("\n## "), 0) :].strip()  # from its own heading on
            if alt := cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
                cell.metadata["alt"] = alt  # where nbconvert looks for it
            found[-1].cells.append(cell)
        headings = re.findall(r"^## .*", cell.source, re.M) if cell.cell_type == "markdown" else []
        heading = headings[-1] if headings else heading
    return found


def render(notebook: NotebookNode) -> str:
    """The slides as one HTML page that asks for nothing else."""
    exporter = HTMLExporter(template_name="basic")
    exporter.config.TagRemovePreprocessor.remove_input_tags = {"slide-output", "remove-input"}
    exporter.register_preprocessor("nbconvert.preprocessors.TagRemovePreprocessor", enabled=True)
    pages = [exporter.from_notebook_node(slide)[0] for slide in slides(notebook)]
    sections = [
        f'<section id="{n}">{page}<footer>{n} / {len(pages)}</footer></section>'
        for n, page in enumerate(pages, 1)
    ]
    title = notebook.cells[0].source.partition("\n")[0].lstrip("# ")
    return PAGE.format(title=title, slides="\n".join(sections))


def write(app, exception: Exception | None) -> None:
    """After a build, put the slides into the site, at `_static/slides`."""
    if exception is None:
        out = Path(app.outdir, "_static", "slides")
        out.mkdir(exist_ok=True)
        for name, in_full in LESSONS.items():
            path = in_full if in_full.exists() else NOTEBOOKS / f"{name}.ipynb"
            page = render(nbformat.read(path, as_version=4))
            (out / f"{name}.html").write_text(page, encoding="utf-8")


def setup(app) -> dict:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
