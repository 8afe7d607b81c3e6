"""A loss in a file of a user's own, and a folder to have it in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from cegppo_lab.algorithms import outside
from cegppo_lab.cli import cli
from cegppo_lab.compose import resolve
from cegppo_lab.errors import LabError

TAPER = """
import torch
from cegppo_lab.algorithms import Algorithm, Coefficient

class Taper(Algorithm):
    '''1 where A > 0, min(ratio, taper) elsewhere.

    And more.
    '''
    taper: Coefficient = 1.0

    def weight(self, batch):
        return torch.where(batch.advantages > 0, 1.0, batch.ratio.clamp(max=self.taper))

    def objective(self, batch):
        ratio = (batch.log_prob - batch.old_log_prob).exp().detach()
        return torch.where(batch.advantages > 0, 1.0, ratio.clamp(max=self.taper)) * (
            batch.log_prob * batch.advantages)
"""
REFERENCE = "my_losses:Taper"
PRESET = "conf/algorithm/{}.yaml"
Write = Callable[..., None]


def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write files in the present folder, as if no process had imported any of them."""
    before = set(sys.modules)

    def forget() -> None:
        outside._FOUND.clear()
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
                del sys.modules[name]

    def files(by_path: Mapping[str, str] | None = None, /, **modules: str) -> None:
        forget()
        by_module = {f"{name}.py": text for name, text in modules.items()}
        for name, text in {**(by_path or {}), **by_module}.items():
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit within a second must count
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    outside.entry_points.cache_clear()
    yield files
    forget()
    outside.entry_points.cache_clear()


def refused(algorithm: str) -> str:
    """Why ``algorithm=...`` is no run."""
    with pytest.raises(LabError) as error:
        resolve({"algorithm": algorithm})
    return str(error.value)


def lab(*words: str, code: int = 0) -> str:
    """What a command prints in this process; its exit status must be ``code``."""
    result = CliRunner().invoke(cli, words)
    if isinstance(result.exception, LabError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output
