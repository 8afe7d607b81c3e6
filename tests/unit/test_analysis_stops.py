"""Runs that were stopped: every table and answer that leaves them out says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis import comparisons, tables
from analysis.answer import answer
from analysis.paper_tables import paper_table
from analysis.stops import EXPLANATION
from cegppo_lab.store import FAILED, PENDING, RUNNING, STOPPED, Status
from tests.unit.synthetic_tables import SEEDS, STEPS, apart, run, sweep

ARMS = ("GRPO", "DAPO", "CISPO")
AT = 12


def data_with(stopped: dict[str, int], state: str = STOPPED):
    """Three arms; of those in ``stopped`` so many runs ended at step 12 of 20."""
    runs = []
    for arm in ARMS:
        for place, seed in enumerate(SEEDS):
            early = place < stopped.get(arm, 0)
            made = run(arm, seed, apart, last=AT if early else STEPS)
            status = Status(state, "entropy_below", AT, STEPS) if early else made.status
            runs.append(replace(made, status=status))
    return sweep(runs)


def row(frame, arm, quantity):
    return frame[(frame["arm"] == arm) & (frame["quantity"] == quantity)].iloc[0]


def test_an_arm_that_lost_runs_is_marked_wherever_its_end_is_told() -> None:
    data = data_with({"DAPO": 2})
    frame = tables.results_table(data)
    for quantity in ("entropy_end", "accuracy_end", "entropy_end_difference"):
        found = row(frame, "DAPO", quantity)
        assert (found["n_seeds"], found["n_planned"], found["n_stopped"]) == (4, 6, 2)
        assert tables.cell(found).endswith("(4 of 6 seeds, 2 stopped)")
    start = row(frame, "DAPO", "entropy_start")
    assert (start["n_seeds"], start["n_stopped"]) == (6, 0)
    assert set(frame.loc[frame["arm"] != "DAPO", "n_stopped"]) == {0}
    markdown, terminal = tables.to_markdown(frame), tables.to_terminal(frame)
    rows = [line for line in markdown.splitlines() if line.startswith("| DAPO")]
    assert rows
    assert all("2 stopped" in line for line in rows)
    assert "2 stopped" not in "".join(line for line in markdown.splitlines() if "GRPO |" in line)
    assert any(line.startswith("| DAPO | 6 of 6 |") for line in rows)  # the cells say it there
    assert EXPLANATION in markdown
    assert "4/6, 2 stopped" in terminal
    assert EXPLANATION in " ".join(terminal.split())
    assert all("DAPO (" in said and ", 2 stopped)" in said for said in answer(data)[:1])


def test_a_reference_that_lost_runs_marks_every_difference_to_it() -> None:
    data = data_with({"GRPO": 1, "DAPO": 2})
    compared = comparisons.comparisons_table(data)
    stops = dict(zip(compared["arm"], compared["n_stopped"], strict=True))
    assert stops == {"DAPO": 2, "CISPO": 1}  # the two arms lost the same seed
    for section in comparisons.sections(compared):
        told = {line[0]: line[1] for line in section.rows}
        assert told == {"DAPO": "4 of 6, 2 stopped", "CISPO": "5 of 6, 1 stopped"}
    assert EXPLANATION in comparisons.sentences(compared)


def test_an_arm_whose_every_run_was_stopped_stays_in_the_table() -> None:
    data = data_with({"DAPO": len(SEEDS)})
    frame = tables.results_table(data)
    assert tables.cell(row(frame, "DAPO", "entropy_end")) == "n/a (0 of 6 seeds, 6 stopped)"
    assert row(frame, "DAPO", "entropy_start")["n_seeds"] == 6
    assert len(data.early_ends()) == 6
    for text in (tables.to_markdown(frame), tables.to_terminal(frame)):
        assert "DAPO" in text
        assert "6 stopped" in text


def test_one_run_left_is_marked_though_it_has_no_interval() -> None:
    frame = tables.results_table(data_with({"DAPO": len(SEEDS) - 1}))
    assert tables.cell(row(frame, "DAPO", "entropy_end")).endswith("no interval), 5 stopped")


@pytest.mark.parametrize("state", [FAILED, RUNNING, PENDING])
def test_a_run_that_is_not_finished_was_not_stopped(state) -> None:
    data = data_with({"DAPO": 2}, state)
    frame, compared = tables.results_table(data), comparisons.comparisons_table(data)
    assert not frame["n_stopped"].any()
    assert not compared["n_stopped"].any()
    assert EXPLANATION not in tables.to_markdown(frame)
    assert "stopped" not in "".join(answer(data))


def test_a_run_stopped_after_what_is_averaged_is_in_it() -> None:
    data = data_with({"DAPO": 2})
    mid = row(tables.results_table(data), "DAPO", "entropy_mid")
    assert mid["at"] == "steps 10 to 11"
    assert (mid["n_seeds"], mid["n_stopped"]) == (6, 0)


def test_a_paper_table_names_the_runs_that_are_in_none_of_its_values() -> None:
    table = paper_table(1, [data_with({"DAPO": 2})])
    (note,) = [note for note in table.notes if "stopped early" in note]
    assert note.startswith("DAPO of sweep algorithms: 2 of 6 runs stopped early (at step 12, 12)")
    assert "stopped" not in " ".join(paper_table(1, [data_with({})]).notes)
