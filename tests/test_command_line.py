"""`python -m course_utils`: every verb explains itself, an error is one line, and terminals of all kinds are served."""

import inspect
import os
import pkgutil
import re
import signal
import subprocess
import sys

import pytest

from course_utils import __main__ as command_line

VERBS = command_line.STUDENTS | command_line.AUTHORS
CALLED = {"json": "path", "from_notebook": "notebook", "lesson": "name"}  # what the functions call these
COURSE = [sys.executable, "-m", "course_utils"]


def course(*args, **environment):
    settings = {"capture_output": True, "text": True, "timeout": 120, "env": os.environ | environment}
    return subprocess.run([*COURSE, *args], **settings)


def test_help_groups_every_verb(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["course_utils", "--help"])
    with pytest.raises(SystemExit):
        command_line.main()
    students, authors = capsys.readouterr().out.split("for students:")[1].split("for authors:")
    found = [re.findall(r"^    ([\w-]+) ", text, re.M) for text in (students, authors)]
    assert found[0] == ["list", "fetch", "run", "table", "verify", "bench", "standalone"]
    of_records, of_notebooks = (
        ["sweep", "examine", "gallery", "curves", "live"],
        ["sync", "exercises", "execute"],
    )
    assert found[1] == [*of_records, *of_notebooks, "execute-full"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("run", "nonsense"), 1, "error: unknown recipe 'nonsense'.*smallnet-source"),
        (("fetch", "cifar1000"), 1, "error: .*'cifar1000'"),
        (("run", "smallnet-source", "--seed", "-1"), 2, ".*--seed: seeds are 0 or more, found '-1'"),
        (("sweep", "--seeds", "0", "1.5"), 2, ".*--seeds: seeds are 0 or more, found '1.5'"),
    ],
)
def test_an_error_is_one_line(args, code, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["course_utils", *args])
    try:
        found = command_line.main()
    except SystemExit as usage:
        found = usage.code
    assert found == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 or code == 2, "only a misspelt command has its usage above"
    assert re.match(message, said[-1])


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_hands_its_arguments_on_in_the_functions_order(verb):
    function, _, *arguments = VERBS[verb]
    if isinstance(function, str):
        function = pkgutil.resolve_name(f"course_utils.{function}")
    given = [flag.lstrip("-").replace("-", "_") for flag, _ in arguments]
    taken = inspect.signature(function).bind(*given).arguments
    assert taken == {CALLED.get(name, name): name for name in given}


def test_a_home_is_found_behind_an_equals_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert command_line.parser().parse_args(["verify", "--root=~/there"]).root == tmp_path / "there"
    assert command_line.parser().parse_args(["standalone", "--out=~/there"]).out == tmp_path / "there"


def test_a_terminal_that_knows_only_ascii_and_python_without_docstrings():
    for verb, settings in (("table", {"PYTHONIOENCODING": "ascii"}), ("list", {"PYTHONOPTIMIZE": "2"})):
        done = course(verb, PYTHONUTF8="0", LC_ALL="C", **settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert "smallnet-source" in done.stdout


@pytest.mark.parametrize("args", [["list"], ["--help"]])
def test_a_reader_that_stops_early_is_no_error(args):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COURSE, *args], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_is_one_line(capsys, monkeypatch):
    def interrupted():
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setitem(command_line.STUDENTS, "list", (interrupted, ""))
    monkeypatch.setattr(sys, "argv", ["course_utils", "list"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    try:
        assert command_line.main() == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "stopped\n"
