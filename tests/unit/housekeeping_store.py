"""Small stores on disk, whole as the trainers leave them, for the tests of housekeeping."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from cegppo_lab.store import RunStore
from cegppo_lab.trial import content_id

STEPS = 6


def config(seed: int) -> dict[str, Any]:
    """A stored configuration; its id is ``content_id`` of it."""
    return {
        "seed": seed,
        "algorithm": {"name": "grpo", "clip_low": 0.2},
        "model": {"name": "tiny", "weights_hash": "abc"},
        "trainer": {"name": "embedded", "steps": STEPS},
    }


def trial(seed: int) -> str:
    """The id of the trial with this seed."""
    return content_id(config(seed))


def add_trial(
    store: RunStore,
    seed: int,
    *,
    last: int = STEPS,
    state: str = "done",
    saved: Sequence[int] = (),
    started: float = 100.0,
    reason: str = "",
) -> Path:
    """Write a trial up to step ``last``, as trained from time ``started`` on; its folder.

    ``saved``: steps with a checkpoint.
    """
    folder = store.root / trial(seed)
    times = {step: started + step for step in range(last + 1)}
    _json(folder / "config.json", config(seed))
    _json(folder / "provenance.json", [{"started": started, "resumed_from": 0}])
    _json(folder / "status.json", _status(state, reason, last, times[last]))
    write_rows(folder / "steps.jsonl", [step_row(seed, s, times[s]) for s in range(1, last + 1)])
    write_rows(folder / "evals.jsonl", [_eval_row(s, times[s]) for s in range(0, last + 1, 2)])
    write_rows(folder / "tokens.jsonl", [_token_row(s) for s in range(1, last + 1)])
    (folder / "lock").touch()
    for step in saved:
        add_checkpoint(folder, step)
    return folder


def step_row(seed: int, step: int, time: float) -> dict[str, Any]:
    """A row of steps.jsonl."""
    return {"step": step, "time": time, "metrics": {"actor/entropy": 1 / (seed + step)}}


def add_checkpoint(folder: Path, step: int, state: int | None = None) -> Path:
    """Write ``checkpoints/step_.../`` as the embedded trainer does; its folder."""
    checkpoint = folder / "checkpoints" / f"step_{step:06d}"
    _json(checkpoint / "state.json", {"step": step if state is None else state})
    _json(checkpoint / "policy" / "config.json", {"model_type": "qwen2"})
    save_file({"w": np.full(300, step, np.float32)}, checkpoint / "policy" / "model.safetensors")
    save_file({"w/exp_avg": np.ones(300, np.float32)}, checkpoint / "optimizer.safetensors")
    return checkpoint


def add_sweep(store: RunStore, name: str, seeds: Sequence[int]) -> None:
    """Write the manifest of a sweep with one arm."""
    rows = [{"trial_id": trial(seed), "arm": "GRPO", "seed": seed} for seed in seeds]
    arms = [{"name": "GRPO", "algorithm": "grpo", "differs": {}}]
    manifest = {"name": name, "question": "?", "arms": arms, "trials": rows, "plan_id": "p"}
    _json(store.root / "_sweeps" / f"{name}.json", manifest)


def tree(store: RunStore, *, ignore: Sequence[str] = ()) -> dict[str, bytes]:
    """The store's files by path, without locks, empty folders and files named in ``ignore``."""
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in sorted(store.root.rglob("*"))
        if path.is_file() and not path.name.endswith("lock") and path.name not in ignore
    }


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines as the store does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")  # as ``write_json``


def _status(state: str, reason: str, step: int, time: float) -> dict[str, Any]:
    return {"state": state, "reason": reason, "step": step, "steps": STEPS, "time": time}


def _eval_row(step: int, time: float) -> dict[str, Any]:
    verdicts = {"problem": ["p", "q"], "sample": [0, 0], "correct": [1.0, 0.0]}
    return {"step": step, "benchmark": "b", **verdicts, "time": time}


def _token_row(step: int) -> dict[str, Any]:
    lists = ("probability", "ratio", "advantage", "entropy", "token", "position", "outside")
    return {"step": step, "inside_count": 1, "outside_count": 0, **{name: [1] for name in lists}}


def final_row(step: int, samples: int = 2) -> dict[str, Any]:
    """A row of evaluations.jsonl."""
    return {
        **_eval_row(step, 500.0),
        "problem": ["p"] * samples,
        "sample": list(range(samples)),
        "correct": [1.0] * samples,
        "evaluation": "e1",
    }
