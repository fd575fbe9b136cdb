"""The page of benchmarks is what its records and its template make, and records say where figures come from."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import date
from pathlib import Path

import jinja2
import pytest
import torch

from benchmarks import document, record, texture_bound
from model.training.sampler import haar

RECORDS = document.load()


def test_the_page_is_what_the_records_give() -> None:
    assert document.DOCUMENT.read_text(encoding="utf-8") == document.render(RECORDS), (
        "run `python -m benchmarks.document`"
    )


def test_every_record_is_in_the_page() -> None:
    template = (document.HERE / "document.md.jinja").read_text(encoding="utf-8")
    assert [name for name in RECORDS if not re.search(rf"\b{name}\b", template)] == []


def test_a_record_that_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        document.render({name: found for name, found in RECORDS.items() if name != "stages"})


def test_another_figure_changes_the_page() -> None:
    changed = json.loads(json.dumps(RECORDS))
    changed["small_encodes"]["figures"]["encodes_per_s"] = 123456.5
    assert "123456.5 encodes a second" in document.render(changed)


@pytest.mark.parametrize("name", RECORDS)
def test_records_say_where_figures_come_from(name: str) -> None:
    found = RECORDS[name]
    assert found["origin"] in ("measured", "transcribed")
    assert date.fromisoformat(found["date"])
    assert found["figures"]
    assert found["machine"]["processor"]
    assert found["machine"]["cores"]
    if found["origin"] == "measured":
        assert found["command"].startswith("python -m benchmarks.")
        assert isinstance(found["load"], float)
        assert re.fullmatch(r"[0-9a-f]{16}", found["weights"]["codec_id"])
    assert not re.search(r"(?<![\w.])/(?:work|tmp|home|root)/", json.dumps(found)), "a path of a machine"


def test_a_run_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    argv = ["/anywhere/stages.py", "--rounds", "2", "--json", str(path), "--note=beside tests", "/data/kodak"]
    monkeypatch.setattr(sys, "argv", argv)
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int)
    parser.add_argument("folder")
    record.finish(record.parse(parser), {"count": 2, "rows": [{"a": 1, "b": 2.5}]})
    found = json.loads(path.read_text())
    assert found["command"] == "python -m benchmarks.stages --rounds 2 kodak"
    assert (found["origin"], found["note"]) == ("measured", "beside tests")
    assert found["figures"] == {"count": 2, "rows": [{"a": 1, "b": 2.5}]}
    assert "count: 2" in (shown := capsys.readouterr().out)
    assert "| 1 | 2.5 |" in shown


def test_tables_align_decimals_and_leave_gaps() -> None:
    rows: list[dict[str, object]] = [{"x": 1.5, "y": 3}, {"x": 2.25, "z": "w"}, {"x": 2e-06}]
    assert record.table(rows).splitlines()[2:] == ["| 1.50 | 3 |  |", "| 2.25 |  | w |", "| 2.0e-06 |  |  |"]


def test_an_oracle_guesses_the_finest_octaves_alone() -> None:
    torch.manual_seed(0)
    residual = torch.randn(1, 3, 32, 32)
    low, high = haar(residual)
    torch.testing.assert_close(texture_bound.unhaar(low, high), residual)
    for octaves in (1, 2):
        size = 2**octaves
        blocks = [
            torch.nn.functional.avg_pool2d(x, size) for x in (residual, texture_bound.guessed(residual, octaves, 1))
        ]
        torch.testing.assert_close(*blocks)
        without = texture_bound.guessed(residual, octaves, 0)
        torch.testing.assert_close(without, blocks[0].repeat_interleave(size, 2).repeat_interleave(size, 3))
    strong = texture_bound.guessed(residual, 1, 1).square().mean() / residual.square().mean()
    assert 0.9 < strong < 1.1
