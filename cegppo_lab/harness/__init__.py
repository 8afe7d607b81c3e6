"""Benchmarks of lm-evaluation-harness (optional extra) on an embedded policy, by its Python API.

HumanEval and IFEval come from there: the first executes generated code, the second has rules of
its own in Python. Tasks, metrics and standard errors are lm-eval's; the sampling is ours.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cegppo_lab.errors import LabError, nearest
from cegppo_lab.evaluate.policies import PolicySpec
from cegppo_lab.files import write_json
from cegppo_lab.store import RunStore

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

MISSING = "lm-evaluation-harness is not installed: pip install 'cegppo-lab[harness]'"


@dataclass(frozen=True)
class HarnessSettings:
    """What to run. ``samples``: responses per problem; None elsewhere: the task's own value."""

    tasks: tuple[str, ...]
    tasks_from: str | None = None
    limit: int | None = None
    samples: int = 1
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    batch_size: int = 16
    run_generated_code: bool = False


@dataclass(frozen=True)
class Score:
    """One metric of one task over ``problems``; ``stderr`` is lm-eval's, None: it has none."""

    task: str
    metric: str
    value: float
    stderr: float | None
    problems: int


def run_harness(
    spec: PolicySpec, settings: HarnessSettings, store: RunStore, device: str = "cpu"
) -> tuple[list[Score], Path]:
    """Evaluate a policy, and keep lm-eval's results in the store.

    Returns:
        The scores, and the JSON file ``STORE/_evaluations/harness/ID/results.json``; beside it
        ``samples.json`` has every response.

    Raises:
        LabError: lm-eval or a package of a task is missing, a task is unknown, not made of
            generated text, or executes code without leave; a policy or data set cannot be had.
    """
    if find_spec("lm_eval") is None:
        raise LabError(MISSING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    manager = _index(settings)
    check_tasks(manager, settings)
    results, weights = _evaluate(spec, settings, manager, device)
    identity = {
        "policy": weights,
        "loaded": [spec.head_scale, spec.dtype, spec.chat_template],
        "settings": {k: v for k, v in asdict(settings).items() if k != "batch_size"},
        "problems": {task: _digest(_problems(rows)) for task, rows in results["samples"].items()},
        "lm_eval": version("lm-eval"),
    }
    folder = store.evaluations / "harness" / _digest(identity)[:12]
    write_json(folder / "samples.json", _plain(results.pop("samples")))
    told = {**identity, "policy_name": spec.label, "results": _plain(results)}
    write_json(folder / "results.json", told)
    return scores(results), folder / "results.json"


def _index(settings: HarnessSettings) -> TaskManager:
    """The tasks by name; lm-eval's thousands, which take seconds, only where one is asked for."""
    from lm_eval.tasks import TaskManager

    if settings.tasks_from:
        if not Path(settings.tasks_from).is_dir():
            raise LabError(f"--tasks-from {settings.tasks_from}: no such folder")
        own = TaskManager(include_path=settings.tasks_from, include_defaults=False)
        if set(settings.tasks) <= set(own.all_subtasks):
            return own
    return TaskManager(include_path=settings.tasks_from)


def check_tasks(manager: TaskManager, settings: HarnessSettings) -> None:
    """Raise ``LabError`` for a task that cannot be served; nothing is loaded or downloaded."""
    for name in settings.tasks:
        entry = manager.task_index.get(name)
        if entry is None:
            close = " or ".join(map(repr, nearest(name, manager.all_subtasks)))
            raise LabError(
                f"lm-eval {version('lm-eval')} has no task {name!r}."
                + (f" Did you mean {close}?" if close else "")
                + " All: lm-eval ls tasks; tasks of your own: --tasks-from FOLDER"
            )
        config = entry.cfg or {}
        if config.get("output_type") != "generate_until":
            raise LabError(
                f"task {name!r} is not one task of generated text; name one such as humaneval, "
                "ifeval or gsm8k (what needs log-likelihoods is not served)"
            )
        if config.get("unsafe_code") and not settings.run_generated_code:
            raise LabError(
                f"task {name!r} executes the code that the policy writes, on this machine and "
                "without a sandbox; if that is what you want, in a container, say "
                "--run-generated-code"
            )
        if settings.samples > 1 and not config.get("filter_list"):
            raise LabError(
                f"task {name!r} scores only the first response to a problem: --samples "
                f"{settings.samples} would be in vain; say --samples 1, once per --seed"
            )


def _evaluate(
    spec: PolicySpec, settings: HarnessSettings, manager: TaskManager, device: str
) -> tuple[dict[str, Any], str]:
    """lm-eval's results, and the hash of the policy's weights."""
    from httpx import HTTPError
    from lm_eval import simple_evaluate

    from cegppo_lab.harness.model import load_model

    if settings.run_generated_code:
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # the code_eval metric asks for it as well
    model = load_model(spec, settings.seed, settings.batch_size, device)
    try:
        tasks = list(manager.load(list(settings.tasks))["tasks"].values())
    except (OSError, ImportError, HTTPError) as failure:
        reason = str(failure).strip().split("\n")[0]
        raise LabError(
            f"lm-eval cannot load {', '.join(settings.tasks)}: {reason} "
            "(data sets come from the Hugging Face hub, or from its cache on this machine)"
        ) from None
    for task in tasks:
        task.set_config("repeats", settings.samples)
    results = simple_evaluate(
        model,
        tasks=tasks,
        task_manager=manager,
        limit=settings.limit,
        gen_kwargs=_sampling(settings) or None,
        apply_chat_template=spec.chat_template,
        confirm_run_unsafe_code=settings.run_generated_code,
        random_seed=settings.seed,
        numpy_random_seed=settings.seed,
        torch_random_seed=settings.seed,
        fewshot_random_seed=settings.seed,
    )
    return results, model.policy.weights_hash()


def _sampling(settings: HarnessSettings) -> dict[str, Any]:
    """The generation options that override a task's own."""
    given = {
        "do_sample": None if settings.temperature is None else settings.temperature > 0,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_gen_toks": settings.max_tokens,
    }
    return {key: value for key, value in given.items() if value is not None}


def scores(results: dict[str, Any]) -> list[Score]:
    """The metrics of lm-eval's ``results``, task by task."""
    found = []
    for task, row in results["results"].items():
        problems = results["n-samples"][task]["effective"]
        for key, value in row.items():
            name, comma, kept = key.partition(",")
            if not comma or name.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = row.get(f"{name}_stderr,{kept}")
            told = float(error) if isinstance(error, int | float) else None
            found.append(Score(task, name, float(value), told, problems))
    return found


def table(rows: Sequence[Score]) -> str:
    """The scores as aligned lines of text."""
    lines = [("task", "metric", "value", "stderr (lm-eval)", "problems")]
    for row in rows:
        error = "not given" if row.stderr is None else f"{row.stderr:.4f}"
        lines.append((row.task, row.metric, f"{row.value:.4f}", error, str(row.problems)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _problems(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Hashes of the prompts and targets of lm-eval's samples."""
    return sorted([row["prompt_hash"], row["target_hash"]] for row in rows)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """``value`` as JSON has it; functions and other objects by their names."""
    return json.loads(json.dumps(value, default=str))
