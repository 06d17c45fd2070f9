"""The book: its table of contents, a build without executing the notebooks, and what the pages load.

Costs about 8 s, nearly all of it the one build that all tests of the site share.
"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"

LOADING_LINKS = {"stylesheet", "preload", "modulepreload", "icon", "shortcut", "manifest"}


def toc_files() -> list[str]:
    """The pages named in _toc.yml, relative to the root and without suffix, the front page first."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    sections = [section for chapter in chapters for section in chapter.get("sections", [])]
    return [toc["root"], *(entry["file"] for entry in chapters + sections)]


class Page(HTMLParser):
    """Collects of one page: its title, what it loads, where it links, its ids and whether it has math."""

    def __init__(self, path: Path):
        super().__init__()
        self.title, self.loads, self.links, self.ids, self.tags = "", [], [], set(), set()
        self.inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.inside = tag
        self.tags.add(tag)
        self.ids.add(values.get("id"))
        if tag == "a":
            self.links.append(values.get("href") or "")
        elif tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            self.loads.append(values["href"])
        elif tag != "link":
            self.loads += [values[name] for name in ("src", "poster", "data") if values.get(name)]
            self.loads += [part.split()[0] for part in (values.get("srcset") or "").split(",") if part]
        self.loads += css_addresses(values.get("style") or "")

    def handle_data(self, text: str) -> None:
        if self.inside == "title":
            self.title += text
        elif self.inside == "style":
            self.loads += css_addresses(text)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


def css_addresses(css: str) -> list[str]:
    """Everything that a style sheet fetches: url(…) and @import "…"."""
    found = re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", css)
    return [first or second for first, second in found]


def is_outside(address: str) -> bool:
    """Whether loading `address` would leave the site."""
    return bool(urlsplit(address).netloc) and not address.startswith("data:")


def pages(site: Path) -> list[Path]:
    """Every page of the built site; the theme's own templates are none."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def test_toc_names_files_that_exist():
    for name in toc_files():
        assert (ROOT / f"{name}.md").exists() or (ROOT / f"{name}.ipynb").exists(), name


def test_toc_names_every_page_and_notebook():
    notebooks = (ROOT / "notebooks").glob("*.ipynb")
    shown = [
        path for path in notebooks if not path.stem.endswith("_exercises")
    ]  # those pages show the solutions
    found = [*BOOK.rglob("*.md"), *shown]
    names = {path.relative_to(ROOT).with_suffix("").as_posix() for path in found}
    assert names == set(toc_files())


def test_site_has_every_page_with_its_title(site):
    for name in toc_files():
        page = Page(site / f"{name}.html")
        assert "h1" in page.tags, name
        assert re.fullmatch(r"\S.* — Training on a Budget\s*", page.title.strip()), page.title


def test_ci_runs_what_the_readme_says():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    book, tests = (line for line in lines if line.startswith("pip install -r"))
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert tests in script
    assert f"{book.partition(' && ')[2]} -W --keep-going -n" in script


def test_index_leads_to_the_front_page(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    target = f"{toc_files()[0]}.html"
    assert f"url={target}" in index
    assert target in Page(site / "index.html").links


def test_site_loads_nothing_from_outside(site):
    loads = {(page, address) for page in pages(site) for address in Page(page).loads}
    for sheet in site.rglob("*.css"):
        addresses = css_addresses(sheet.read_text(encoding="utf-8"))
        loads |= {(sheet, address) for address in addresses}
    assert len(loads) > 20
    assert [(path.name, address) for path, address in loads if is_outside(address)] == []


def test_what_the_site_loads_and_links_is_there(site):
    missing = []
    for path in pages(site):
        page = Page(path)
        for address in page.loads + page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment) if target.suffix == ".html" else ""
            if not target.exists() or (anchor and anchor not in Page(target).ids):
                missing.append((path.name, address))
    assert missing == []


def test_a_figure_and_its_per_cent_sign_stay_on_one_line(site):
    text = (site / "book" / "session2" / "getting_to_94.html").read_text(encoding="utf-8")
    article = re.search(r"<article\b.*?</article>", text, re.DOTALL)[0]
    # No code, and no alternative texts.
    prose = re.sub(r"<(pre|code)\b.*?</\1>|<[^>]*>", "", article, flags=re.DOTALL)
    assert "94\N{NO-BREAK SPACE}%" in prose
    assert re.findall(r".*\d %.*", prose) == []


def test_equations_are_mathml(site):
    page = site / "book" / "intro.html"
    text = page.read_text(encoding="utf-8")
    assert re.search(r'<math [^>]*display="block"', text)
    assert re.search(r'<math [^>]*display="inline"', text)
    assert not any("MathJax" in address for path in pages(site) for address in Page(path).loads)


def build_page(tmp_path: Path, source: str) -> tuple[subprocess.CompletedProcess, Page]:
    """Build one reStructuredText page with Sphinx and the book's MathML extension alone."""
    (tmp_path / "index.rst").write_text(source, encoding="utf-8")
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.append({str(BOOK / '_ext')!r})\nextensions = ['native_mathml']\n"
    )
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(tmp_path)]
    result = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True)
    return result, Page(tmp_path / "out" / "index.html")


def test_equations_are_numbered_and_aligned(tmp_path):
    source = r"""
Title
=====

.. math::
   :label: energy

   \begin{aligned} a &= \log K \\ b &< 2 \end{aligned}

See :eq:`energy`.
"""
    result, page = build_page(tmp_path, source)
    assert (result.returncode, result.stderr) == (0, "")
    assert "equation-energy" in page.ids
    assert "#equation-energy" in page.links
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert html.count("<mtr>") == 2
    assert '<span class="eqno">(1)' in html
    assert '<mi>log</mi><mspace width="0.167em" /><mi>K</mi>' in html


def test_a_wrong_equation_fails_the_build(tmp_path):
    source = r"""
Title
=====

:math:`\frac{1}{2`

:math:`\nosuchthing{x}`

:math:`\left( x`

:math:`a & b`
"""
    result, page = build_page(tmp_path, source)
    assert result.returncode != 0
    for line, complaint in [
        (5, "unbalanced braces"),
        (7, r"unknown command \nosuchthing"),
        (9, "ExtraLeftOrMissingRightError"),
        (11, "not well-formed"),
    ]:
        warning = [text for text in result.stderr.splitlines() if f"index.rst:{line}:" in text]
        assert len(warning) == 1, result.stderr
        assert complaint in warning[0]
    assert "math" not in page.tags
