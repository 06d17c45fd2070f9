"""Sphinx extension: a button that opens a notebook in Colab, and one to the repository, once there is a repository.

Its address and tag stand in `_config.yml`, where they are empty: a course nobody hosts has no address that somebody
else could register and fill. The theme's own launch buttons also appear on pages that are no notebooks.
"""

from functools import partial

from course_utils.authoring import repository


def offer(app, config) -> None:
    """Check what is configured, before the theme reads it. Raises ValueError for what is no address or no tag."""
    options = config.html_theme_options
    if found := repository.checked(options.get("repository_url"), options.get("repository_branch")):
        app.connect("html-page-context", partial(add_buttons, *found), priority=502)  # after the theme's


def add_buttons(url: str, tag: str, app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Append to a page's buttons the group of those that lead to the repository at its tag."""
    links = [link(f"{url}/tree/{tag}", "Repository", "See the source", "fab fa-github")]
    if pagename.startswith("notebooks/"):
        colab = url.replace("https://github.com/", "https://colab.research.google.com/github/")
        name = pagename.replace("_solutions", "_exercises")  # which have no page of their own
        notebook = f"{colab}/blob/{tag}/{name}.ipynb"
        links.insert(0, link(notebook, "Colab", "Open in Colab", "_static/images/logo_colab.png"))
    group = {"type": "group", "tooltip": "Open elsewhere", "icon": "fas fa-rocket", "buttons": links}
    context["header_buttons"].append(group)


def link(url: str, text: str, tooltip: str, icon: str) -> dict[str, str]:
    """A button as the theme's template takes it."""
    return {"type": "link", "url": url, "text": text, "tooltip": tooltip, "icon": icon}


def setup(app) -> dict:
    app.connect("config-inited", offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
