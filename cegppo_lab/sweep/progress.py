"""How a running sweep looks: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from cegppo_lab import metrics as names
from cegppo_lab.store import RunStore
from cegppo_lab.sweep.plan import state_of
from cegppo_lab.trial import Trial


@dataclass
class _Row:
    trial: Trial
    state: str
    step: int
    steps: int
    started: float | None = None
    started_at: int = 0
    ended: float | None = None
    shown: dict[str, float] = field(default_factory=dict)


class Progress:
    """Follows the trials of one call; a context manager.

    ``concurrent``: how many trials run at a time, for the estimate of the time left.
    """

    def __init__(
        self, store: RunStore, trials: list[Trial], concurrent: int, console: Console
    ) -> None:
        self._console, self._concurrent = console, max(concurrent, 1)
        self._rows = {
            trial.trial_id: _Row(
                trial,
                state_of(store, trial),
                store.run(trial.trial_id).status().step,
                trial.config.trainer.steps,
            )
            for trial in trials
        }
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._table)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, trial_id: str, step: int, shown: dict[str, float]) -> None:
        """A trial has done ``step`` steps and measured ``shown`` in the last one."""
        row = self._rows[trial_id]
        if row.started is None:
            row.started, row.started_at = time.monotonic(), step
        quarter = 4 * step // row.steps > 4 * row.step // row.steps
        row.state, row.step, row.shown, row.ended = "running", step, shown or row.shown, None
        if not self._console.is_terminal and quarter and step < row.steps:
            self._tell(self._line(row))

    def finish(self, trial_id: str, state: str, reason: str = "") -> None:
        """A trial ended in ``state``."""
        row = self._rows[trial_id]
        row.state, row.ended = state, time.monotonic()
        if reason or not self._console.is_terminal:
            why = f" ({reason})" if reason else ""
            self._tell(self._line(row) + why)

    def _tell(self, line: str) -> None:
        """Print ``line`` as it is: brackets in it are no markup, and files have no width."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Estimate from the steps of this call; None until some trial has done a few."""
        rows = [row for row in self._rows.values() if row.started and row.step > row.started_at]
        if not rows:
            return None
        now = time.monotonic()
        seconds = sum((row.ended or now) - row.started for row in rows)
        pace = seconds / sum(row.step - row.started_at for row in rows)
        missing = [row.steps - row.step for row in self._rows.values() if self._open(row)]
        return max(max(missing, default=0), sum(missing) / self._concurrent) * pace

    @staticmethod
    def _open(row: _Row) -> bool:
        return row.state not in ("done", "stopped", "failed")

    def _line(self, row: _Row) -> str:
        left = self.seconds_left()
        shown = "".join(f"  {key} {value}" for key, value in _values(row.shown).items())
        eta = f"  sweep left {_duration(left)}" if left else ""
        return (
            f"{row.trial.trial_id}  {row.trial.arm}  seed {row.trial.seed}  {row.state}  "
            f"step {row.step}/{row.steps}{shown}{eta}"
        )

    def _table(self) -> Table:
        left = self.seconds_left()
        table = Table(box=None, caption=f"time left: {_duration(left)}", caption_justify="left")
        for column in ("trial", "arm"):
            table.add_column(column, no_wrap=True)
        for column in ("seed", "step", "reward", "entropy"):
            table.add_column(column, justify="right")
        table.add_column("state")
        for row in self._rows.values():
            values = _values(row.shown)
            table.add_row(
                row.trial.trial_id,
                escape(row.trial.arm),
                str(row.trial.seed),
                f"{row.step}/{row.steps}",
                values.get("reward", ""),
                values.get("entropy", ""),
                row.state,
            )
        return table


def _values(shown: dict[str, float]) -> dict[str, str]:
    columns = {"reward": names.REWARD_MEAN, "entropy": names.ENTROPY}
    return {title: f"{shown[key]:.3f}" for title, key in columns.items() if key in shown}


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown yet"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"
