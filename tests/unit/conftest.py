"""What tests of attempts share: a store, a trial of six steps, and a trainer that only counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cegppo_lab.compose import resolve
from cegppo_lab.store import RunStore
from cegppo_lab.trial import Trial, make_trial
from tests.unit.counting import Counting, train_with


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


@pytest.fixture
def trial() -> Trial:
    return make_trial(resolve({"trainer.steps": 6}))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Counting], Counting]:
    """Have attempts use a trainer."""
    return partial(train_with, monkeypatch)
