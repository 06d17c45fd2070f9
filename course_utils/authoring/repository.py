"""The repository that a fork is hosted in, if it is: its address and tag, and the notebooks' cell that needs them.

Both are empty until a fork sets them in `book/_config.yml`. So no notebook installs from an address that nobody owns.
"""

import re
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[2] / "book" / "_config.yml"

# In percent format. Where the course is at hand, the cell does nothing.
SETUP_TAG = "setup"
SETUP = f"""\
# %% tags=["remove-cell", "{SETUP_TAG}"]
# Opened without the course around it, as in Colab: install the course first.
import importlib.util
import subprocess
import sys

if not importlib.util.find_spec("course_utils"):
    course = "git+{{url}}@{{tag}}"
    command = [sys.executable, "-m", "pip", "install", course]
    subprocess.run(command, check=True)

"""


def configured(config: Path = CONFIG) -> tuple[str, str] | None:
    """The repository that the book's configuration names, as `checked` returns it."""
    import yaml  # only those who write the course need it

    block = yaml.safe_load(config.read_text(encoding="utf-8")).get("repository") or {}
    return checked(block.get("url"), block.get("branch"))


def checked(url: str | None, tag: str | None) -> tuple[str, str] | None:
    """A repository's address and tag, or None if both are empty.

    Raises ValueError unless the address is one on GitHub, from where alone Colab opens notebooks, and the tag
    looks like a version: a branch moves on, and a notebook opened next year would install another course.
    """
    if not url and not tag:
        return None
    advice = "Set both in `repository:` in book/_config.yml, or leave both empty."
    if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+(?<!\.git)", str(url)):
        raise ValueError(f"url: expected https://github.com/<owner>/<name>, found {url!r}. {advice}")
    if not re.fullmatch(r"v?\d[\w.-]*", str(tag)):
        raise ValueError(f'branch: expected a tag such as "v1.0", not a branch, found {tag!r}. {advice}')
    return url, str(tag)


def with_setup(text: str, found: tuple[str, str] | None) -> str:
    """A notebook in percent format with the set-up cell for the repository `found`, in place of an older one.

    Without a repository, or in a notebook that does not import the package, there is none.
    """
    text = re.sub(rf'^# %% tags=\["remove-cell", "{SETUP_TAG}"\]\n.*?(?=^# %%)', "", text, flags=re.M | re.S)
    if not found or not re.search(r"^(from|import) course_utils", text, re.M):
        return text
    url, tag = found
    before_code = re.search(r"^# %%(?! \[markdown\])", text, re.M).start()
    return text[:before_code] + SETUP.format(url=url, tag=tag) + text[before_code:]


def is_setup(cell) -> bool:
    """Whether a notebook's cell is its set-up cell."""
    return SETUP_TAG in cell.metadata.get("tags", [])
