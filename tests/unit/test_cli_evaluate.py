"""The evaluate command: a mistake is one line before a model is loaded; nothing is done twice."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.evaluations import Entry, Result
from cegppo_lab.cli import cli, main
from cegppo_lab.evaluate import engines
from cegppo_lab.models import local_folder
from cegppo_lab.store import DONE, RunStore
from tests.unit.mlflow_database import new_database

WALK = """
title: Table walk
source: the embedded task
task: {name: table_walk}
count: 12
samples: 2
temperature: 1.0
top_p: 1.0
max_tokens: 52
"""
SUMS = """
title: Sums
source: by hand
task: {name: math, path: sums.jsonl}
count: 2
max_tokens: 16
"""
LISTED = '{"problem": "1+1?", "answer": "2"}\n{"problem": "1+2?", "answer": "3"}\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two benchmarks, no network, and a policy without a chat template."""
    (tmp_path / "walk.yaml").write_text(WALK)
    (tmp_path / "sums.yaml").write_text(SUMS)
    (tmp_path / "sums.jsonl").write_text(LISTED)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "nofield.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    (tmp_path / "a_file").write_text("")
    shutil.copytree(local_folder("table_walk"), tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The policies that are loaded, as it goes."""
    found: list[str] = []
    make = engines.make_engine

    def counted(name: str, policy: object, runtime: object) -> object:
        found.append(policy.label)
        return make(name, policy, runtime)

    monkeypatch.setattr(engines, "make_engine", counted)
    return found


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[Entry]]:
    """What reports were asked to show; drawing them takes seconds and is tested elsewhere."""
    found: list[list[Entry]] = []

    def write(root: Path, name: str, entries: list[Entry], out: Path) -> Result:
        assert (root, out) == (Path("runs/_evaluations"), Path("report") / name)
        found.append(entries)
        return Result("the table", [], out / "index.html")

    monkeypatch.setattr("analysis.evaluations.write_evaluations", write)
    return found


def _trial(trial_id: str, *, checkpoint: bool) -> None:
    content = {"task": {"name": "table_walk"}, "model": {"dtype": "float32"}}
    with RunStore("runs").writer(trial_id, content) as run:
        run.set_status(DONE, step=8, steps=8)
    if checkpoint:
        folder = Path("runs") / trial_id / "checkpoints" / "step_000008"
        shutil.copytree(local_folder("table_walk"), folder / "policy")
        (folder / "state.json").write_text(json.dumps({"step": 8}))


def _lab(*words: str) -> str:
    path = Path("here.db").absolute()
    uri = f"sqlite:///{path}" if path.exists() else new_database(path)
    result = CliRunner().invoke(cli, ["evaluate", *words, "--mlflow", uri])
    assert result.exit_code == 0, result.output
    return result.output


def _values() -> dict[str, float]:
    """The newest value of every metric of the one run, or of both."""
    with sqlite3.connect("here.db") as database:
        return dict(database.execute("select key, value from latest_metrics").fetchall())


def _logged() -> int:
    """Values that were ever written."""
    with sqlite3.connect("here.db") as database:
        return database.execute("select count(*) from metrics").fetchone()[0]


WALK_ON = ["table_walk", "benchmarks=[walk.yaml]"]
MISTAKES = [
    (["tabel_walk"], "unknown policy 'tabel_walk'. Did you mean 'table_walk'"),
    (["abcd"], "2 trials begin with 'abcd': abcd1, abcd2; give more of the id"),
    (["abcd2"], "trial abcd2 has no whole checkpoint"),
    (["sweep:mine"], "no sweep 'mine' was run in runs"),
    (["no/where", "benchmarks=[walk.yaml]"], "'no/where' is not on this machine"),
    (["plain", "benchmarks=[walk.yaml]"], "'plain' has no chat template; say chat_template=false"),
    (["./plain"], "say what to evaluate './plain' on: benchmarks=[NAME,...], of aime24"),
    (["table_walk", "benchmarks=[wlak]"], "unknown benchmark 'wlak'"),
    (["table_walk", "benchmarks=[walk.yaml,walk.yaml]"], "a benchmark is named twice"),
    ([*WALK_ON, "smaples=2"], "unknown key 'smaples'. Did you mean 'samples'"),
    ([*WALK_ON, "samples=0"], "evaluate.samples=0: input should be greater than or equal to 1"),
    ([*WALK_ON, "engine=vlm"], "evaluate.engine='vlm': input should be 'embedded' or 'vllm'"),
    ([*WALK_ON, "engine=vllm"], "pip install"),
    ([*WALK_ON, "name=../x"], "evaluate.name='../x'"),
    ([*WALK_ON, "aime24.samples=2"], "'aime24' is neither a group of keys nor a benchmark of"),
    ([*WALK_ON, "walk.smaples=2"], "unknown key of walk 'smaples'. Did you mean 'samples'"),
    ([*WALK_ON, "walk.count=13"], "must have 13 problems, not 12"),
    ([*WALK_ON, "runtime.threads=0"], "evaluate.runtime.threads=0"),
    ([*WALK_ON, "runtime.device=cuda"], "this process sees no GPU; say runtime.device=cpu"),
    ([*WALK_ON, "--store", "a_file"], "cannot write to a_file"),
    ([*WALK_ON, "--out", "a_file/x"], "cannot write to a_file/x"),
    (["table_walk", "benchmarks=[aime24]"], "the hub cannot be reached"),
    (["table_walk", "benchmarks=[sums.yaml]", "sums.task.path=gone.jsonl"], "no such file"),
    (["table_walk", "benchmarks=[sums.yaml]", "sums.task.path=empty.jsonl"], "is empty"),
    (
        ["table_walk", "benchmarks=[sums.yaml]", "sums.task.path=nofield.jsonl"],
        "has no field 'problem'; set sums.task.problem_field to one of: answer, question",
    ),
    (["name=mine"], "no evaluation 'mine' in runs (there: none yet)"),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda part: " ".join(part)[:50])
def test_a_mistake_is_one_line_before_any_policy_is_loaded(
    loaded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    _trial("abcd1", checkpoint=True)
    _trial("abcd2", checkpoint=False)
    monkeypatch.setattr(sys, "argv", ["cegppo_lab", "evaluate", *words])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert told in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert loaded == []
    assert not Path("runs/_evaluations").exists()


def test_a_gated_policy_and_gated_problems_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from httpx import Request, Response
    from huggingface_hub.errors import GatedRepoError

    def gated(*_: object, **__: object) -> None:
        raise GatedRepoError("no", response=Response(403, request=Request("GET", "https://hub")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", gated)
    for words in (["some/model", "benchmarks=[walk.yaml]"], ["table_walk", "benchmarks=[aime24]"]):
        result = CliRunner().invoke(cli, ["evaluate", *words])
        assert "is gated: accept its terms" in str(result.exception)


def test_a_second_call_loads_no_policy_and_a_larger_k_only_adds(
    loaded: list[str], drawn: list[list[Entry]]
) -> None:
    told = _lab(*WALK_ON, "batch_size=10")
    assert "table_walk  walk  24/24 responses" in told
    assert "the table\nreport: report/evaluate/index.html" in told
    (folder,) = Path("runs/_evaluations").glob("[!_]*")
    log = (folder / "samples.jsonl").read_bytes()
    first = pd.read_parquet(folder / "samples.parquet")
    values = _values()
    assert values["val-core/walk/acc/mean_at_2"] == pytest.approx(first["correct"].mean())
    assert set(values) > {"val-core/walk/acc/pass_at_2", "val-core/walk/acc/maj_at_2"}
    assert values["response_length/mean"] == pytest.approx(first["length"].mean())
    assert values["response_length/clip_ratio"] == pytest.approx(first["truncated"].mean())

    _lab(*WALK_ON)
    _lab()
    assert loaded == ["table_walk"]
    assert (folder / "samples.jsonl").read_bytes() == log
    assert (_values(), _logged()) == (values, len(values))
    assert drawn == [[Entry("table_walk", "walk", folder.name, 2, None)]] * 3

    _lab(*WALK_ON, "samples=3")
    assert loaded == ["table_walk", "table_walk"]
    assert (folder / "samples.jsonl").read_bytes().startswith(log)
    more = pd.read_parquet(folder / "samples.parquet")
    assert len(more) == 36
    pd.testing.assert_frame_equal(more[more["sample"] < 2].reset_index(drop=True), first)
    assert "val-core/walk/acc/mean_at_3" in _values()
    _lab(*WALK_ON, "samples=1")
    assert len(loaded) == 2
    assert len(list(Path("mlartifacts").rglob("samples.parquet"))) == 1


def test_a_part_of_a_benchmark_is_never_called_by_its_plain_name(drawn: list[list[Entry]]) -> None:
    told = _lab(*WALK_ON, "problems=3", "samples=1")
    assert "walk_first_3  3/3 responses" in told
    assert (drawn[0][0].samples, drawn[0][0].problems) == (1, 3)
    assert set(_values()) > {"val-core/walk_first_3/acc/mean_at_1"}
    assert not [key for key in _values() if "/walk/" in key]
    _lab(*WALK_ON, "samples=1")
    assert set(_values()) > {"val-core/walk_first_3/acc/mean_at_1", "val-core/walk/acc/mean_at_1"}


def test_a_trial_is_told_the_verdicts_of_its_checkpoint() -> None:
    _trial("abcd1", checkpoint=True)
    trials = [{"trial_id": "abcd1", "arm": "GRPO", "seed": 1}]
    sweep = {"name": "mine", "question": "q", "notes": [], "overrides": [], "arms": []}
    RunStore("runs").write_manifest({**sweep, "trials": trials, "plan_id": "p", "created": 1.0})
    _lab("sweep:mine", "benchmarks=[walk.yaml]")
    (record,) = RunStore("runs").run("abcd1").evaluations()
    (folder,) = Path("runs/_evaluations").glob("[!_]*")
    rows = pd.read_parquet(folder / "samples.parquet")
    assert (record.step, record.benchmark, record.evaluation) == (8, "walk", folder.name)
    assert record.problem == rows["problem"].tolist()
    assert record.sample == rows["sample"].tolist()
    assert record.correct == rows["correct"].tolist()
    assert len(list(Path("mlartifacts/mine").rglob("evaluations.jsonl"))) == 1
    config = json.loads((folder / "config.json").read_text())
    assert (config["policy"]["trial_id"], config["policy"]["given"]) == ("abcd1", "sweep:mine")


def test_without_mlflow_a_line_says_what_to_type(drawn: list[list[Entry]]) -> None:
    words = ["evaluate", *WALK_ON, "samples=1", "problems=2", "--mlflow", "http://127.0.0.1:9"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    note = next(line for line in result.output.splitlines() if line.startswith("note: no mirror"))
    assert "type: python -m cegppo_lab evaluate name=evaluate" in note
    assert len(drawn) == 1
    assert "runs in MLflow" in _lab("name=evaluate")
    assert "val-core/walk_first_2/acc/mean_at_1" in _values()
