"""The speed table: every row can be measured, and the two loops of claim S16 differ in nothing but the loss."""

import inspect
from importlib.util import find_spec

import pytest

from course_utils.lab import bench, tables
from course_utils.lab.claims import CLAIMS
from course_utils.lab.verdicts import Bench


def test_every_row_of_the_speed_table_can_be_measured():
    rows = {row.pop("what"): row for row in bench.table(rounds=1, scale=0.01)}
    assert len(rows) == 13 + 2 * sum(find_spec(module) is not None for module in bench.OTHERS)
    assert all(row["value"] > 0 for what, row in rows.items() if "memory" not in what), rows
    claimed = [part.quantity for one in CLAIMS.values() for part in one.parts]
    assert {len(rows[one.recipe]["rounds"]) for one in claimed if isinstance(one, Bench)} == {1}


def test_the_table_is_printed_and_written_as_the_book_reads_it(empty, monkeypatch, capsys):
    monkeypatch.setattr(bench, "table", lambda: [{"what": "a row", "bound": "> 1", "value": 2.0}])
    bench.main(empty / "bench.json")
    said = capsys.readouterr().out
    assert "a row" in said
    assert ("lightning: not installed, left out" in said) == (find_spec("lightning") is None)
    assert "<td>a row</td><td>&gt; 1</td><td>2.000</td>" in tables.bench()
    monkeypatch.setattr(bench, "table", None)
    with pytest.raises(ValueError, match="the table .* cannot be written"):  # before anything is measured
        bench.main(empty)


def test_the_loops_differ_in_the_loss_alone():
    passed, written = (inspect.getsource(loop).split('"""')[2] for loop in (bench.source, bench.written_in))
    assert passed != written
    assert passed.replace("loss_fn(", "cross_entropy(") == written
