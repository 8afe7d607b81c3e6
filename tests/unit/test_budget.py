"""A budget stops a call when it is used up, and is understood or refused before anything starts."""

from __future__ import annotations

import pytest

from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError
from cegppo_lab.sweep.budget import Budget, parse_budget
from cegppo_lab.sweep.meter import Meter

RUNTIME = resolve({"runtime.cpus": 2, "runtime.gpus": 8, "runtime.nodes": 4}).runtime


class Clock:
    """A clock that the test sets, hours."""

    def __init__(self) -> None:
        self.hours = 0.0

    def __call__(self) -> float:
        return self.hours * 3600


def _meter(amount: float, unit: str) -> tuple[Meter, Clock]:
    clock = Clock()
    return Meter(Budget(amount, unit), RUNTIME, clock), clock


@pytest.mark.parametrize("text", ["40gpuh", "40 GPUh", "40.0gpuh"])
def test_a_budget_is_hours_of_a_kind(text: str) -> None:
    assert parse_budget(text, RUNTIME) == Budget(40, "gpuh")


@pytest.mark.parametrize("text", ["40", "gpuh", "-1h", "0h", "1e3h", "40 days", "nanh"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="40gpuh, 12cpuh or 8h"):
        parse_budget(text, RUNTIME)


def test_gpu_hours_of_trials_without_a_gpu_would_never_end() -> None:
    with pytest.raises(LabError, match=r"runtime.gpus=0.*say e.g. 12cpuh"):
        parse_budget("40gpuh", resolve({}).runtime)


@pytest.mark.parametrize(("unit", "rate"), [("gpuh", 32), ("cpuh", 8)])
def test_every_running_trial_uses_its_resources(unit: str, rate: float) -> None:
    meter, clock = _meter(rate * 3, unit)
    meter.started("a")
    clock.hours = 1
    meter.started("b")
    assert meter.used() == rate
    clock.hours = 1.5
    meter.ended("a")
    assert not meter.stop_all()
    clock.hours = 2.5  # a: 1.5 hours, b: 1.5 hours
    assert meter.used() == pytest.approx(rate * 3)
    assert meter.stop_all()


def test_a_waiting_trial_uses_nothing_and_one_that_ends_twice_counts_once() -> None:
    meter, clock = _meter(1, "gpuh")
    clock.hours = 5
    assert meter.used() == 0
    meter.started("a")
    clock.hours = 5.01
    meter.started("a")  # Tune says so again after a failure
    meter.ended("a")
    meter.ended("a")
    clock.hours = 9
    assert meter.used() == pytest.approx(0.32)


def test_wall_time_passes_whatever_runs() -> None:
    meter, clock = _meter(2, "h")
    clock.hours = 1.9
    assert not meter.stop_all()
    clock.hours = 2
    assert meter.stop_all()
