"""What leaves the site: a notebook for Colab, a link in a chat, a page on paper.

Costs about 40 s, for a build with an address configured and a look at every page as it is printed. The build goes
through to the end, since a strict one also says whether the theme and its companions agree.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from conftest import ROOT, build
from PIL import Image

from course_utils.authoring import exercises, repository, standalone, sync as authoring

URL, TAG = "https://github.com/a-school/its-course", "v1.2"
HOME = "https://a-school.github.io/its-course"

PAPER = {"width": 670, "height": 1000}  # A4 between print.css's margins
PRINTED = """() => {
    const shown = element => element.checkVisibility({opacityProperty: true})
                             && element.getBoundingClientRect().height > 0;
    const all = [...document.body.querySelectorAll('*')];
    const around = '.bd-sidebar, .bd-header-article, .bd-footer-content, dialog, button, input, .prev-next-footer';
    const article = document.querySelector('.bd-article');
    const inner = element => !element.closest('math, svg, .visually-hidden') && element.clientWidth > 0;
    return {
        text: article.innerText,
        title: shown(article.querySelector('h1')),
        around: all.filter(one => one.matches(around) && shown(one)).map(one => one.outerHTML.slice(0, 80)),
        cut: all.filter(one => article.contains(one) && shown(one) && inner(one)
                               && one.scrollWidth > one.clientWidth + 1
                               && getComputedStyle(one).overflowX != 'visible').map(one => one.outerHTML.slice(0, 80)),
        width: document.scrollingElement.scrollWidth,
        folded: [...article.querySelectorAll('details > :not(summary)')].filter(
            one => !one.closest('.tag_hide-input') && !shown(one)).map(one => one.outerHTML.slice(0, 80)),
        colours: [...new Set(all.filter(one => article.contains(one) && shown(one) && one.childNodes.length)
                                .map(one => getComputedStyle(one).color))],
        ground: getComputedStyle(document.body).backgroundColor,
        breakable: [...article.querySelectorAll('img')].filter(
            one => getComputedStyle(one).breakInside != 'avoid').length,
    };
}"""


def metas(page: Path) -> dict[str, str]:
    """A page's meta tags, by name or property."""
    return dict(re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)"', page.read_text("utf-8")))


def links(page: Path) -> set[str]:
    return set(re.findall(r'href="(https?://[^"]+)"', page.read_text("utf-8")))


def pages(site: Path) -> list[Path]:
    return [*sorted((site / "book").rglob("*.html")), *sorted((site / "notebooks").glob("*.html"))]


# ---- without an address ----


def test_without_an_address_there_is_none_to_follow(site):
    if repository.configured():
        pytest.skip("book/_config.yml names a repository")
    for page in pages(site):
        assert not [link for link in links(page) if "colab" in link or "/tree/" in link], page
        assert not {"og:image", "og:url", "twitter:card"} & set(metas(page))


def test_every_page_says_what_it_is_about(site):
    found = {page: metas(page) for page in pages(site)}
    assert all(tags["og:title"] and len(tags["description"]) > 10 for tags in found.values())
    assert all(tags["og:description"] == tags["description"] for tags in found.values())
    assert len({tags["description"] for tags in found.values()}) == len(found)
    tags = found[site / "book" / "session1" / "convolutions.html"]
    assert tags["og:title"] == "Convolutions"
    assert tags["description"].startswith("What does a third convolution add")


# ---- with one ----


@pytest.fixture(scope="module")
def hosted(tmp_path_factory) -> Path:
    """The site of a fork that has set its addresses."""
    out = tmp_path_factory.mktemp("hosted")
    result = build(out, repository={"url": URL, "branch": TAG}, html={"baseurl": HOME})
    assert result.returncode == 0, result.stdout + result.stderr
    return out / "_build" / "html"


def test_notebooks_open_in_colab_at_the_tag(hosted):
    for page in pages(hosted):
        found = {link for link in links(page) if "colab" in link}
        at = f"https://colab.research.google.com/github/a-school/its-course/blob/{TAG}/notebooks/{page.stem}.ipynb"
        assert found == ({at} if page.parent.name == "notebooks" else set())
        assert f"{URL}/tree/{TAG}" in links(page)


def test_a_link_shows_a_picture(hosted):
    tags = metas(hosted / "book" / "intro.html")
    assert tags["og:url"] == f"{HOME}/book/intro.html"
    with Image.open(hosted / tags["og:image"].removeprefix(f"{HOME}/")) as card:
        assert card.size == (1200, 630)
        assert len(card.convert("RGB").getcolors(1 << 20)) > 50


def test_a_build_refuses_a_placeholder(tmp_path):
    result = build(tmp_path, repository={"url": "https://example.org/you/your-fork", "branch": TAG})
    assert result.returncode != 0
    assert "expected https://github.com/<owner>/<name>" in result.stderr
    assert "book/_config.yml" in result.stderr


@pytest.mark.parametrize(
    ("url", "tag", "complaint"),
    [
        ("http://github.com/a/b", TAG, "url: expected"),
        ("https://gitlab.com/a/b", TAG, "url: expected"),
        ("https://github.com/<owner>/<name>", TAG, "url: expected"),
        ("https://github.com/a/b.git", TAG, "url: expected"),
        ("https://github.com/a/b/", TAG, "url: expected"),
        ("", TAG, "url: expected"),
        (URL, "main", "branch: expected a tag"),
        (URL, "", "branch: expected a tag"),
        (URL, 'v1"; rm', "branch: expected a tag"),
    ],
)
def test_what_is_no_address_or_no_tag_is_refused(url, tag, complaint):
    with pytest.raises(ValueError, match=f"{complaint}.*or leave both empty"):
        repository.checked(url, tag)


# ---- the set-up cell ----


@pytest.fixture
def fork(tmp_path, monkeypatch) -> Path:
    """The notebooks of a fork that has set its address and synced."""
    config = yaml.safe_dump({"repository": {"url": URL, "branch": TAG}})
    (tmp_path / "_config.yml").write_text(config, encoding="utf-8")
    monkeypatch.setattr(repository.configured, "__defaults__", (tmp_path / "_config.yml",))
    folder = Path(shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks"))
    authoring.sync(folder)
    return folder


def cells(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def test_every_notebook_installs_the_tag_before_it_imports_anything(fork):
    for path in fork.glob("*.ipynb"):
        code = [cell for cell in cells(path) if cell.cell_type == "code"]
        assert f'course = "git+{URL}@{TAG}"' in code[0].source
        assert repository.is_setup(code[0])
        assert not any(repository.is_setup(cell) for cell in code[1:])
        assert authoring.differences(path, path.with_suffix(".py")) == []


def test_sync_and_exercises_leave_a_synced_fork_alone(fork):
    before = {path.name: path.read_bytes() for path in fork.glob("*.py")}
    authoring.sync(fork)
    exercises.write(fork)
    assert {path.name: path.read_bytes() for path in fork.glob("*.py")} == before


@pytest.mark.parametrize("path", sorted(authoring.NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_the_notebooks_have_the_cell_of_what_is_configured(path):
    text = path.read_text(encoding="utf-8")
    assert repository.with_setup(text, repository.configured()) == text


def test_the_cell_follows_the_tag_and_goes_with_the_address(fork):
    for path in (ROOT / "notebooks").glob("*.py"):
        original, text = path.read_text("utf-8"), (fork / path.name).read_text("utf-8")
        assert repository.with_setup(text, (URL, "v2")) == text.replace(TAG, "v2")
        assert repository.with_setup(text, None) == repository.with_setup(original, None)
        assert "git+" not in repository.with_setup(text, None)


def test_the_cell_does_nothing_where_the_course_is(fork):
    cell = next(cell for cell in cells(fork / "01_smallnet.ipynb") if cell.cell_type == "code")
    assert subprocess.run([sys.executable, "-c", cell.source]).returncode == 0


def test_the_cell_installs_where_the_course_is_not(fork, monkeypatch):
    cell = next(cell for cell in cells(fork / "01_smallnet.ipynb") if cell.cell_type == "code")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
    exec(cell.source, {})
    assert asked == [[sys.executable, "-m", "pip", "install", f"git+{URL}@{TAG}"]]


def test_a_standalone_notebook_needs_no_address(fork, tmp_path):
    for path in standalone.write(tmp_path / "out", fork):
        assert "git+" not in "".join(cell.source for cell in cells(path))


# ---- on paper ----


@pytest.fixture(scope="module")
def printed(site, browser) -> dict[str, dict]:
    """Every page as print shows it while the site is dark, by its name within the site."""
    found = {}
    with browser.new_context(viewport=PAPER, color_scheme="dark") as context:
        page = context.new_page()
        for path in pages(site):
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-theme=dark]")
            page.add_style_tag(
                content="* { transition: none !important }"
            )  # or colours would be met half way
            page.emulate_media(media="print")
            found[path.relative_to(site).as_posix()] = page.evaluate(PRINTED)
            page.emulate_media(media="screen")
    return found


def test_nothing_but_the_text_is_printed(printed):
    assert len(printed) > 20
    assert {name: one["around"] for name, one in printed.items() if one["around"]} == {}
    assert [name for name, one in printed.items() if not one["title"]] == []


def test_nothing_is_cut_off_at_the_right(printed):
    assert {name: one["cut"] for name, one in printed.items() if one["cut"]} == {}
    assert {name: one["width"] for name, one in printed.items() if one["width"] > PAPER["width"]} == {}


def test_what_was_folded_can_be_read(printed):
    assert {name: one["folded"] for name, one in printed.items() if one["folded"]} == {}
    solutions = printed["notebooks/01_smallnet_solutions.html"]["text"]
    assert "# </solution>" in solutions
    assert "Show the solution" not in solutions
    assert "Activate.ps1" in printed["book/how_to_run.html"]["text"]
    assert "from course_utils.lab import figures" not in printed["book/session1/convolutions.html"]["text"]


def test_print_is_dark_on_light(printed):
    for name, one in printed.items():
        assert one["ground"] in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), name
        bright = [colour for colour in one["colours"] if min(map(int, re.findall(r"\d+", colour)[:3])) > 120]
        assert bright == [], name


def test_no_figure_is_cut_in_two(printed):
    assert {name: one["breakable"] for name, one in printed.items() if one["breakable"]} == {}


def test_the_pdf_has_pages(site, browser):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((site / "book" / "how_to_run.html").as_uri())
        pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 5
