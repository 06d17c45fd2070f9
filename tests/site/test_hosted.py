"""What a link to the site shows elsewhere, with and without a fork's address.

Costs about 6 s, for a build of a few pages with an address configured. It is strict, and so also says whether the
theme and its companions agree.
"""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from course_utils.authoring import repository

URL, TAG = "https://github.com/a-school/its-course", "v1.2"
HOME = "https://a-school.github.io/its-course"


def metas(page: Path) -> dict[str, str]:
    """A page's meta tags, by name or property."""
    return dict(re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)"', page.read_text("utf-8")))


def links(page: Path) -> set[str]:
    return set(re.findall(r'href="(https?://[^"]+)"', page.read_text("utf-8")))


def pages(site: Path) -> list[Path]:
    return [*sorted((site / "book").rglob("*.html")), *sorted((site / "notebooks").glob("*.html"))]


# ---- without an address ----


def test_without_an_address_there_is_none_to_follow(site):
    config = yaml.safe_load(repository.CONFIG.read_text(encoding="utf-8"))
    if repository.configured() or config["html"].get("baseurl"):
        pytest.skip("book/_config.yml names an address")
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

FEW = ["book/intro", "book/session1/convolutions", "book/references", "notebooks/01_smallnet"]
FEW += ["notebooks/01_smallnet_solutions"]


@pytest.fixture(scope="module")
def hosted(tmp_path_factory, build) -> Path:
    """A few pages of the site of a fork that has set its addresses."""
    out = tmp_path_factory.mktemp("hosted")
    result = build(out, FEW, repository={"url": URL, "branch": TAG}, html={"baseurl": HOME})
    assert result.returncode == 0, result.stdout + result.stderr
    return out / "_build" / "html"


def test_notebooks_open_in_colab_at_the_tag(hosted):
    assert len(pages(hosted)) == len(FEW)
    for page in pages(hosted):
        found = {link for link in links(page) if "colab" in link}
        name = page.stem.replace("_solutions", "_exercises")  # a student wants to solve them
        at = f"https://colab.research.google.com/github/a-school/its-course/blob/{TAG}/notebooks/{name}.ipynb"
        assert found == ({at} if page.parent.name == "notebooks" else set())
        assert f"{URL}/tree/{TAG}" in links(page)


def test_a_link_shows_a_picture(hosted):
    tags = metas(hosted / "book" / "intro.html")
    assert tags["og:url"] == f"{HOME}/book/intro.html"
    with Image.open(hosted / tags["og:image"].removeprefix(f"{HOME}/")) as card:
        assert card.size == (1200, 630)
        assert len(card.convert("RGB").getcolors(1 << 20)) > 50


def test_a_build_refuses_a_placeholder():
    path = repository.CONFIG.parent / "_ext" / "launch_button.py"
    spec = importlib.util.spec_from_file_location("launch_button", path)
    spec.loader.exec_module(button := importlib.util.module_from_spec(spec))
    options = {"repository_url": "https://example.org/you/your-fork", "repository_branch": TAG}
    with pytest.raises(ValueError, match=r"expected https://github.com/<owner>/<name>.*book/_config\.yml"):
        button.offer(None, SimpleNamespace(html_theme_options=options))
