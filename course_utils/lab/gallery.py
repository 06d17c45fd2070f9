"""Pictures of CIFAR on the book's pages, with captions that are text: what `python -m course_utils gallery` has stored.

A figure's pictures lie in one small image, `recorded/gallery/NAME.webp`, row by row; its words in `gallery.json`. Call
`show` in the last line of a page's cell. The browser cuts the image up and enlarges it pixel by pixel.
"""

import base64
import json
from itertools import count
from pathlib import Path
from typing import Any

from course_utils.lab import records
from course_utils.lab.tables import Html, tag

ACROSS = 16  # pictures in a row of the stored image


def folder() -> Path:
    return records.RECORDED / "gallery"


def path_of(name: str) -> Path:
    return folder() / f"{name}.webp"


def words_path() -> Path:
    return records.RECORDED / "gallery.json"


def words() -> dict[str, dict[str, Any]]:
    """What is said of every figure, by its name: see `authoring.gallery.Figure`."""
    return json.loads(words_path().read_text(encoding="utf-8"))


def show(name: str) -> Html:
    """The figure called `name`, as HTML that needs no other file."""
    figure, place = words()[name], count()
    n = sum(len(group["captions"]) for group in figure["groups"])
    image = base64.b64encode(path_of(name).read_bytes()).decode()
    sheet = f"--sheet: url(data:image/webp;base64,{image}); --down: {-(-n // ACROSS)}"
    groups = Html("".join(group_of(one, place) for one in figure["groups"]))
    body = tag("div", groups, class_="gallery-groups", style=f"--beside: {figure['beside']}")
    source = figure["data"].replace("cifar", "CIFAR-")
    body = Html(body + tag("figcaption", f"Pictures: {source}, A. Krizhevsky, 2009."))
    return tag("figure", body, class_="gallery", style=sheet, aria_label=figure["alt"])


def group_of(group: dict[str, Any], place: count) -> Html:
    """A title, and the pictures that come next in the image, each above its caption."""
    tiles = []
    for caption, k in zip(group["captions"], place, strict=False):
        where = f"--x: {k % ACROSS}; --y: {k // ACROSS}"
        tiles.append(tag("li", Html(tag("i", "", style=where) + tag("span", *caption.split("\n")))))
    columns = f"--columns: {group['columns']}; --narrow: {group['narrow']}"
    title = tag("p", group["title"]) if group["title"] else ""
    return tag("div", Html(title + tag("ul", Html("".join(tiles)), style=columns)))
