"""Sphinx extension: mends what the theme and its companions put into every page.

Thebe would run code cells on a server elsewhere. The course does not offer that, and Thebe's set-up, which
comes twice, is an error in the browser's console. Of the theme's two thousand icons, which weigh more than the
rest of a page, a dozen are in use. The role of an entry in the list of references is one that screen readers no
longer know.
"""

import re
from pathlib import Path

ICON = re.compile(r'"?([\w-]+)"?:\[\d+,\d+,\[[^]]*\],"\w+",(?:"[^"]*"|\[[^]]*\])\],?')


def mend(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Take Thebe's scripts out of a page, and make the entries of its list of references items of a list."""
    scripts = context["script_files"]
    context["script_files"] = [one for one in scripts if "thebe" not in f"{one} {one.attributes}".lower()]
    context["body"] = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')


def drop_icons(app, exception: Exception | None) -> None:
    """After a build, leave in the theme's icon script those that a page or another script names."""
    if exception is not None:
        return
    site = Path(app.outdir)
    icons = site / "_static" / "scripts" / "fontawesome.js"
    readers = [path for path in (*site.rglob("*.html"), *site.rglob("*.js")) if path != icons]
    used = {name for path in readers for name in re.findall(r"fa-([\w-]+)", path.read_text(encoding="utf-8"))}
    script = icons.read_text(encoding="utf-8")
    icons.write_text(ICON.sub(lambda icon: icon[0] if icon[1] in used else "", script), encoding="utf-8")


def setup(app) -> dict:
    app.connect("html-page-context", mend)
    app.connect("build-finished", drop_icons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
