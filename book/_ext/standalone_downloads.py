"""Sphinx extension: a page's download button hands out its notebook as a standalone one.

The file that the theme offers is the page's source, which needs the course installed around it. The
standalone copy, which carries the package in its cells, runs wherever the reader takes it. A browser that opened the
site from a folder shows a notebook as raw text instead of saving it; it saves a zip, so there is one of all of them.
"""

import shutil
from pathlib import Path

from course_utils.authoring import standalone


def replace_sources(app, exception: Exception | None) -> None:
    """After a build, put the standalone notebooks where the download buttons point to."""
    if exception is None:
        out = Path(app.outdir) / "_sources" / "notebooks"
        for source in out.glob("*.ipynb"):  # Sphinx's own copies
            source.unlink()
        standalone.write(out)
        shutil.make_archive(str(out), "zip", out)


def setup(app) -> dict:
    app.connect("build-finished", replace_sources)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
