"""What the README says of the code is what the code says."""

from __future__ import annotations

from pathlib import Path

from cegppo_lab.cli import cli
from cegppo_lab.cli.inspect import algorithms_table
from cegppo_lab.sweep.plan import make_plan
from cegppo_lab.sweep.spec import sweep_files

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_algorithms_table_is_the_generated_one() -> None:
    assert algorithms_table() in README


def test_every_command_and_every_sweep_is_listed_with_its_size() -> None:
    for command in cli.commands:
        assert f"python -m cegppo_lab {command}" in README
    for name in sweep_files():
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.endswith(f"| {len(make_plan(name).trials)} |")
