"""How a running evaluation looks: a bar on a terminal, a line a quarter elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class EvaluationProgress:
    """Follows the evaluations of one call, one after the other; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._told: dict[str, int] = {}

    def __enter__(self) -> EvaluationProgress:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Print ``line`` as it is, above the bars."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def update(self, name: str, done: int, wanted: int) -> None:
        """Of the evaluation ``name``, ``done`` of ``wanted`` responses are stored."""
        if not self._console.is_terminal:
            quarter = 4 * done // wanted
            if quarter != self._told.get(name):
                self.say(f"{name}  {done}/{wanted} responses")
            self._told[name] = quarter
            return
        if name not in self._told:
            self._told[name] = self._bars.add_task(name, total=wanted, completed=done)
        self._bars.update(self._told[name], completed=done)
