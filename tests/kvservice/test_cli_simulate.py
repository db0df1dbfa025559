"""`redan simulate` prints a line a run, and for one that fails what happened last and how to see it again."""

from __future__ import annotations

import re

import pytest

from kvservice.cli import run_command
from tests.simulation.planted_bugs import PLANTED_BUGS


def test_a_run_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["simulate", "--seed", "7", "--hours", "0.005"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    pattern = (
        r"seed 7: ok; \d\.\d\d virtual hours of \d nodes?; faults \d+: .+; acknowledged writes checked [\d,]+; "
        r"histories \d+; states compared [\d,]+; converged \d+ times?; speed [\d,]+ x real time\n"
    )
    assert re.fullmatch(pattern, out), out


def test_several_runs_are_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["simulate", "--seed", "7", "--hours", "0.005", "--runs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["seed 7", "seed 8", "total"]
    assert lines[-1].startswith("total: 2 runs, 0 failed; ")


def test_a_failure_ends_the_runs_and_tells_how_to_replay_it(capsys: pytest.CaptureFixture[str]) -> None:
    with PLANTED_BUGS["acknowledges alone"]():
        code = run_command(["simulate", "--seed", "0", "--hours", "0.01", "--runs", "30", "--trace", "5"])
    out, err = capsys.readouterr()
    assert code == 1
    failed = re.match(r"seed (\d+): FAILED; ", out.splitlines()[-1])
    assert failed, out
    lines = err.splitlines()
    assert lines[-1] == f"redan: replay it by: redan simulate --seed {failed[1]} --hours 0.01"
    assert lines[-2].startswith(f"redan: seed {failed[1]} failed after ")
    assert "quorum: " in lines[-2]
    assert len(lines) <= 7


def test_a_defect_that_is_no_broken_rule_is_shown_with_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvservice.simulation.process.Process.deliver", None)
    assert run_command(["simulate", "--seed", "0", "--runs", "30"]) == 1
    assert "TypeError: 'NoneType' object is not callable" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--seed", "x"), ("--seed", "-1"), ("--hours", "0"), ("--runs", "0")])
def test_bad_usage_is_refused(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    assert run_command(["simulate", option, value]) == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err
