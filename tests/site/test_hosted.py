"""What a link to the site shows elsewhere, with and without a fork's address.

Costs about 15 s, for a build with an address configured. It goes through to the end, since a strict one also says
whether the theme and its companions agree.
"""

import re
from pathlib import Path

import pytest
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
def hosted(tmp_path_factory, build) -> Path:
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


def test_a_build_refuses_a_placeholder(tmp_path, build):
    result = build(tmp_path, repository={"url": "https://example.org/you/your-fork", "branch": TAG})
    assert result.returncode != 0
    assert "expected https://github.com/<owner>/<name>" in result.stderr
    assert "book/_config.yml" in result.stderr
