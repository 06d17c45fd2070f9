"""The book: its table of contents, a build without executing the notebooks, and what the pages load.

Costs about 8 s, nearly all of it the one build that all tests of the site share.
"""

import re
import subprocess
import sys
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"

LOADING = {"stylesheet", "preload", "modulepreload", "icon", "shortcut", "manifest"}  # kinds of <link>


def toc_files() -> list[str]:
    """The pages named in _toc.yml, relative to the root and without suffix, the front page first."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    sections = [section for chapter in chapters for section in chapter.get("sections", [])]
    return [toc["root"], *(entry["file"] for entry in chapters + sections)]


@cache
class Page(HTMLParser):
    """Collects of one page: its ids, where it links, what it loads, and its tags."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.loads, self.tags = set(), [], [], set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.tags.add(tag)
        self.ids.add(values.get("id"))
        if tag == "a":
            self.links.append(values.get("href") or "")
        elif tag != "link" or LOADING & set(values["rel"].split()):
            self.loads += [values[name] for name in ("href", "src", "poster", "data") if values.get(name)]


def test_toc_names_every_page_and_notebook():
    notebooks = (ROOT / "notebooks").glob("*.ipynb")
    # Of exercises the solutions are shown, and of a student's copies nothing.
    shown = [path for path in notebooks if not path.stem.endswith("_exercises") and "-Copy" not in path.stem]
    found = [*BOOK.rglob("*.md"), *BOOK.rglob("*.ipynb"), *shown]
    names = {path.relative_to(ROOT).with_suffix("").as_posix() for path in found}
    assert names == set(toc_files())


def test_site_has_every_page_with_its_title(site):
    title = re.escape(yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))["title"])
    for name in toc_files():
        page = Page(site / f"{name}.html")
        assert "h1" in page.tags, name
        assert re.search(rf"<title>\S.* — {title}</title>", unescape(page.text)), name


def test_ci_runs_what_the_readme_says():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    book, tests = (line for line in lines if line.startswith("pip install -r") and "&&" in line)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert f"{book} -W --keep-going -n" in script
    assert tests in script


def test_site_loads_nothing_from_outside(site, pages):
    loads = [(path.name, address) for path in pages for address in Page(path).loads]
    assert len(loads) > 20
    assert [(name, address) for name, address in loads if urlsplit(address).netloc] == []
    for sheet in [*site.rglob("*.css"), *pages]:
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"""(?:url\(|@import|srcset=)\s*["']?((?:https?:)?//[^"') ]+)""", text) == [], sheet


def test_what_the_site_loads_and_links_is_there(site, pages):
    missing = []
    for path in [site / "index.html", *pages]:
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


def test_no_figure_is_described_by_its_file_name(pages):
    described = [alt for path in pages for alt in re.findall(r'<img[^>]* alt="([^"]*)"', Page(path).text)]
    assert len(described) > 30
    assert [alt for alt in described if re.search(r"_images/|\.(png|svg)$", alt)] == []


def test_a_figure_and_its_per_cent_sign_stay_on_one_line(site):
    page = Page(site / "book" / "session2" / "getting_to_94.html")
    article = re.search(r"<article\b.*?</article>", page.text, re.DOTALL)[0]
    # No code, and no alternative texts.
    prose = re.sub(r"<(pre|code)\b.*?</\1>|<[^>]*>", "", article, flags=re.DOTALL)
    assert "94\N{NO-BREAK SPACE}%" in prose
    assert re.findall(r".*\d %.*", prose) == []


def test_equations_are_mathml(site, pages):
    text = Page(site / "book" / "intro.html").text
    assert re.search(r'<math [^>]*display="block"', text)
    assert re.search(r'<math [^>]*display="inline"', text)
    assert not any("MathJax" in address for path in pages for address in Page(path).loads)


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
    assert page.text.count("<mtr>") == 2
    assert '<span class="eqno">(1)' in page.text
    assert '<mi>log</mi><mspace width="0.167em" /><mi>K</mi>' in page.text


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
    right = "ExtraLeftOrMissingRightError"
    complaints = {5: "unbalanced braces", 7: r"command \nosuchthing", 9: right, 11: "not well-formed"}
    for line, complaint in complaints.items():
        warning = [text for text in result.stderr.splitlines() if f"index.rst:{line}:" in text]
        assert len(warning) == 1, result.stderr
        assert complaint in warning[0]
    assert "math" not in page.tags


def test_a_solutions_page_has_the_code_without_its_marks(site):
    for name in ("01_smallnet", "02_resnet"):
        text = re.sub("<[^>]+>", "", Page(site / "notebooks" / f"{name}_solutions.html").text)
        assert "checks." in text
        assert not re.search(r"solution&gt;|# stub:", text)
