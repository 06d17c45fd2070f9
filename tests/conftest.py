"""What all tests share: two processes, figures without a window, the option `--site`."""

import os
import sys
from pathlib import Path

import matplotlib
import pytest

WORKER = "PYTEST_XDIST_WORKER" in os.environ  # which must not start workers of its own
if WORKER:
    os.environ["OMP_NUM_THREADS"] = "1"  # two kernels with two threads each would wait for each other

# Not by MPLBACKEND: the kernels would inherit that too, and their figures would be lost.
matplotlib.use("Agg")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in two processes, a file (and so a notebook) in one of them; `-n 0` takes one."""
    whole = config.args_source is config.ArgsSource.TESTPATHS and not config.option.usepdb
    if whole and not WORKER and config.getoption("numprocesses", 0) is None:  # 0 without pytest-xdist
        config.option.numprocesses, config.option.dist = 2, "loadfile"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The networks are so small that a second thread brings nothing, and on a busy computer takes most of the time."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for made-up records, empty so far."""
    from course_utils.lab import records

    monkeypatch.setattr(records, "RECORDED", tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def drawn() -> tuple:
    """The drawn shapes to train on and to test with, an `ImageSet` each."""
    from course_utils import data

    return data.load("shapes10")


@pytest.fixture(scope="session")
def shapes(drawn):
    """Those to train on."""
    return drawn[0]


@pytest.fixture(scope="session")
def few(drawn) -> tuple:
    """A few to train on and a few to test with."""
    from course_utils import data

    return tuple(data.take(part, n) for part, n in zip(drawn, (500, 200), strict=True))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--site", type=Path, help="test this built site, instead of building one without execution"
    )
