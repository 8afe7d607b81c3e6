"""The store's own files in MLflow: there whenever a trial rests, and never uploaded for nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mirrored import manifest, query, tags_of, train, uri, values

from cegppo_lab.errors import LabError
from cegppo_lab.store import DONE, EvalRecord, RunStore, StepRecord, TokenSample
from cegppo_lab.tracking import Mirror, mirror_sweep
from cegppo_lab.tracking import files as files_module

ALL = {"config.json", "provenance.json", "status.json", "evals.jsonl", "tokens.jsonl"}


def artifacts(where: str, run_name: str) -> Path:
    """The folder of the artifacts ``store/`` of a run."""
    sql = f"select artifact_uri from runs where name = '{run_name}' and lifecycle_stage = 'active'"
    [(place,)] = query(where, sql)
    return Path(place.removeprefix("file://")) / "store"


def same(store: RunStore, trial_id: str, folder: Path) -> bool:
    """Whether ``folder`` has all the files of the trial, byte by byte."""
    return {path.name for path in folder.iterdir()} == ALL and all(
        (folder / name).read_bytes() == (store.root / trial_id / name).read_bytes() for name in ALL
    )


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files that were uploaded, as it goes."""
    from mlflow import MlflowClient

    names: list[str] = []
    write = MlflowClient.log_artifact

    def counted(self: MlflowClient, run_id: str, path: str, folder: str) -> None:
        write(self, run_id, path, folder)
        names.append(Path(path).name)

    monkeypatch.setattr(MlflowClient, "log_artifact", counted)
    return names


def test_a_trial_has_its_files_and_the_sweep_its_manifest(store: RunStore, tmp_path: Path) -> None:
    train(store, "t1", range(0, 4), DONE)
    report = mirror_sweep(store, "demo", uri(tmp_path))
    assert report.files == len(ALL) + 1
    assert same(store, "t1", artifacts(uri(tmp_path), "GRPO seed 11"))
    logged = json.loads((artifacts(uri(tmp_path), "demo") / "manifest.json").read_text())
    assert logged == store.manifest("demo")


def test_only_what_changed_is_uploaded_again(
    store: RunStore, tmp_path: Path, uploads: list[str]
) -> None:
    train(store, "t1", range(0, 4), DONE)
    mirror_sweep(store, "demo", uri(tmp_path))
    uploads.clear()
    before = query(uri(tmp_path), "select * from tags order by 1, 2, 3")
    assert mirror_sweep(store, "demo", uri(tmp_path)).files == 0
    assert query(uri(tmp_path), "select * from tags order by 1, 2, 3") == before

    token = TokenSample(4, 1, 0, [0.5], [1.0], [1.0], [0.3], [7], [0], [False])
    with store.writer("t1", {}) as writer:
        evals = [EvalRecord(4, "walk", ["a"], [0], [1.0])]
        writer.append(StepRecord(4, {"actor/entropy": 0.2}, evals, tokens=token))
    store.write_manifest(manifest("demo", "p2"))
    assert mirror_sweep(store, "demo", uri(tmp_path)).files == 3
    assert uploads == ["manifest.json", "evals.jsonl", "tokens.jsonl"]
    assert same(store, "t1", artifacts(uri(tmp_path), "GRPO seed 11"))
    logged = json.loads((artifacts(uri(tmp_path), "demo") / "manifest.json").read_text())
    assert logged["plan_id"] == "p2"


def test_files_wait_for_the_end_of_training(store: RunStore, tmp_path: Path) -> None:
    train(store, "t1", range(0, 4))
    with store.writer("t1", {}) as writer:
        assert mirror_sweep(store, "demo", uri(tmp_path)).files == 1  # the manifest
        assert not artifacts(uri(tmp_path), "GRPO seed 11").exists()
        writer.append(StepRecord(9, {"actor/entropy": 0.2}))
        mirror_sweep(store, "demo", uri(tmp_path))
    assert mirror_sweep(store, "demo", uri(tmp_path)).files == len(ALL)
    assert same(store, "t1", artifacts(uri(tmp_path), "GRPO seed 11"))


def test_a_file_with_a_new_time_alone_is_read_once_and_not_uploaded(
    store: RunStore, tmp_path: Path, uploads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(store, "t1", range(0, 4), DONE)
    mirror_sweep(store, "demo", uri(tmp_path))
    uploads.clear()
    os.utime(store.root / "t1" / "evals.jsonl")
    assert mirror_sweep(store, "demo", uri(tmp_path)).files == 0
    monkeypatch.setattr(files_module, "sha256_of", lambda path: pytest.fail(f"{path} was read"))
    mirror_sweep(store, "demo", uri(tmp_path))
    assert uploads == []


def test_another_process_uploads_nothing_again(store: RunStore, tmp_path: Path) -> None:
    train(store, "t1", range(0, 4), DONE)
    code = (
        "import sys; from cegppo_lab.store import RunStore; from cegppo_lab.tracking import sync;"
        "print(sync(RunStore(sys.argv[1]), None, sys.argv[2])[0].files)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(store.root), uri(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(ALL) + 1}\n"
    assert mirror_sweep(store, "demo", uri(tmp_path)).files == 0


def test_runs_of_another_store_keep_their_files(store: RunStore, tmp_path: Path) -> None:
    train(store, "t1", range(0, 3), DONE)
    mirror_sweep(store, "demo", uri(tmp_path))
    tags = tags_of(uri(tmp_path), "GRPO seed 11")
    other = RunStore(tmp_path / "other")
    other.write_manifest(manifest("demo"))
    train(other, "t1", range(0, 5), DONE, begun=1_700_009_000.0)
    assert mirror_sweep(other, "demo", uri(tmp_path)).files == 0
    assert same(store, "t1", artifacts(uri(tmp_path), "GRPO seed 11"))
    assert tags_of(uri(tmp_path), "GRPO seed 11") == tags


@pytest.mark.parametrize("calls", [0, 2, 3, 5, 8])
def test_a_kill_during_the_uploads_leaves_no_trace(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    from mlflow import MlflowClient

    class Killed(BaseException):
        pass

    left = [calls]

    def dying(write: Callable) -> Callable:
        def wrapped(*args: object, **kwargs: object) -> object:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return write(*args, **kwargs)

        return wrapped

    train(store, "t1", range(0, 4), DONE)
    with monkeypatch.context() as patch:
        for name in ("log_artifact", "log_text", "set_tag"):
            patch.setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))
        with pytest.raises(Killed):
            mirror_sweep(store, "demo", uri(tmp_path))
    mirror_sweep(store, "demo", uri(tmp_path))
    assert same(store, "t1", artifacts(uri(tmp_path), "GRPO seed 11"))
    assert (artifacts(uri(tmp_path), "demo") / "manifest.json").exists()
    assert mirror_sweep(store, "demo", uri(tmp_path)).files == 0


def test_where_files_cannot_be_written_the_numbers_still_are(
    store: RunStore, tmp_path: Path
) -> None:
    (tmp_path / "mlartifacts").write_text("a file where the folder should be")
    train(store, "t1", range(0, 4), DONE)
    told: list[str] = []
    mirror = Mirror(store, "demo", uri(tmp_path), say=told.append)
    mirror.start()
    [problem] = mirror.stop(60)
    assert told == [problem]
    assert "does not take the files" in problem
    assert "python -m cegppo_lab sync" in problem
    with pytest.raises(LabError, match="numbers"):
        mirror_sweep(store, "demo", uri(tmp_path))
    (tmp_path / "mlartifacts").unlink()
    assert mirror_sweep(store, "demo", uri(tmp_path)).steps == 0
    mirror_sweep(store, "demo", uri(tmp_path, "direct"))
    assert values(uri(tmp_path)) == values(uri(tmp_path, "direct"))
    assert same(store, "t1", artifacts(uri(tmp_path), "GRPO seed 11"))
