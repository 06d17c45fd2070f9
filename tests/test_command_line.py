"""`python -m course_utils`: every verb explains itself, and an error is one line and exit code 1."""

import re
import subprocess
import sys

import pytest

VERBS = "fetch list run sweep verify examine table bench sync exercises execute standalone"


def course(*args):
    return subprocess.run(
        [sys.executable, "-m", "course_utils", *args], capture_output=True, text=True, timeout=120
    )


def test_help_names_every_verb():
    text = course("--help").stdout
    for verb in VERBS.split():
        assert re.search(rf"\n    {verb}\s", text), verb  # a long name has its line to itself


def test_list_names_the_recipes():
    done = course("list")
    assert done.returncode == 0, done.stderr
    assert "smallnet-source" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("run", "nonsense"), "error: unknown recipe 'nonsense'"),
        (("fetch", "cifar1000"), "error: nothing to fetch for 'cifar1000'"),
    ],
)
def test_an_error_is_one_line(args, message):
    done = course(*args)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
