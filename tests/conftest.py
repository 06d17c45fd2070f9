"""What all tests share: the quick profile, figures without a window, the option `--site`."""

import os
from pathlib import Path

import matplotlib
import pytest

# The kernels in which nbval runs the notebooks inherit this, whatever the shell had set.
os.environ["COURSE_PROFILE"] = "quick"

# Not by MPLBACKEND: the kernels would inherit that too, and their figures would be lost.
matplotlib.use("Agg")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for made-up records, empty so far."""
    from course_utils.lab import records

    monkeypatch.setattr(records, "RECORDED", tmp_path)
    return tmp_path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--site", type=Path, help="test this built site, instead of building one without execution"
    )
