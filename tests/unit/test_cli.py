"""The command line: what it prints, and that a mistake is one line and exit status 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cegppo_lab.algorithms import algorithm_names
from cegppo_lab.cli import cli, main
from cegppo_lab.store import DONE, STOPPED, RunStore
from cegppo_lab.sweep.plan import make_plan

FILES = {
    "unknown_key.yaml": "question: q\nseeds: [1]\ngrd: {}\n",
    "twice.yaml": "question: q\nseeds: [1]\nseeds: [2]\n",
    "list.yaml": "- a\n",
    "arm.yaml": "question: q\nseeds: [1]\narms: {A: {algorithm: grop}}\n",
    "a_file": "",
}
MISTAKES = [
    (["swep"], "unknown command 'swep'. Did you mean 'sweep'"),
    (["sweep", "quickstrat"], "unknown sweep 'quickstrat'. Did you mean 'quickstart'"),
    (["sweep", "nothere.yaml"], "unknown sweep 'nothere.yaml'"),
    (["sweep", "trainer.stps=3"], "unknown key of trainer 'stps'. Did you mean 'steps'"),
    (["sweep", "trainer.steps=many"], "trainer.steps='many'"),
    (["sweep", "trainer.steps"], "unknown sweep 'trainer.steps'"),
    (["sweep", "quickstart", "5"], "'5' is not key=value"),
    (["sweep", "sedes=[1]"], "unknown key 'sedes'. Did you mean 'seeds'"),
    (["sweep", "seeds=[1,1]"], "a seed is listed twice"),
    (["sweep", "algorithm=grop"], "unknown algorithm 'grop'. Did you mean 'grpo'"),
    (["sweep", "unknown_key.yaml"], "unknown key of unknown_key.yaml 'grd'. Did you mean 'grid'"),
    (["sweep", "twice.yaml"], "key 'seeds' is given twice"),
    (["sweep", "list.yaml"], "must be a mapping"),
    (["sweep", "arm.yaml"], "unknown algorithm 'grop'"),
    (["sweep", "--store", "a_file"], "cannot write to a_file"),
    (["sweep", "--out", "a_file/x"], "cannot write to a_file/x"),
    (["plan", "--store", "a_file"], "cannot read a_file/"),
    (["train", "quickstart"], "train takes key=value words, not 'quickstart'"),
    (["train", "algorithm=grop"], "unknown algorithm 'grop'. Did you mean 'grpo'"),
    (["train", "seeds=[1]"], "unknown key 'seeds'. Did you mean 'seed'"),
    (["train", "--store", "a_file"], "cannot write to a_file"),
    (["train", "model.path=nowhere"], "'nowhere'"),
    (["figures", "quickstart"], "figures takes key=value words, not 'quickstart'"),
    (["figures", "trainer.stps=3"], "unknown key of trainer 'stps'. Did you mean 'steps'"),
    (["figures", "--store", "a_file"], "cannot write to a_file"),
    (["algorithms", "cegpo"], "unknown algorithm 'cegpo'. Did you mean 'cegppo'"),
    (["pretrain", "tabel_walk"], "unknown task 'tabel_walk'. Did you mean 'table_walk'"),
    (["report", "quickstart"], "no sweep 'quickstart' was run in"),
]
EVERY_MISTAKE = """
import json, sys
from cegppo_lab.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["cegppo_lab", *words]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, words
print([name for name in ("ray", "mlflow", "transformers") if name in sys.modules])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, but for some files with mistakes."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _lab(*words: str) -> str:
    result = CliRunner().invoke(cli, words, prog_name="python -m cegppo_lab")
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=lambda part: " ".join(part)[:40])
def test_a_mistake_is_one_line_and_exit_status_2(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["cegppo_lab", *words])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert told in printed.err
    assert not list(here.glob("runs/*/*"))


def test_mistakes_are_told_before_ray_is_imported(here: Path) -> None:
    quick = [words for words, _ in MISTAKES if words[0] in ("sweep", "plan", "train", "swep")]
    done = subprocess.run(
        [sys.executable, "-c", EVERY_MISTAKE, json.dumps(quick)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert done.stderr.count("\n") == done.stderr.count("error: ") == len(quick)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_explains_itself(name: str) -> None:
    told = _lab(name, "--help")
    assert f"python -m cegppo_lab {name}" in told
    assert name in _lab("--help")
    assert len(told) > 200


def test_plan_lists_every_trial_with_its_state(here: Path) -> None:
    trials = make_plan("quickstart", ["seeds=[1]"]).trials
    store = RunStore("elsewhere")
    for trial, state in zip(trials[:2], (DONE, STOPPED), strict=True):
        with store.writer(trial.trial_id, {}) as run:
            run.set_status(state)
    words = ["plan", "quickstart", "seeds=[1]", "--store", "elsewhere"]
    told = json.loads(_lab(*words, "--json"))
    assert told["name"] == "quickstart"
    assert [(row["trial_id"], row["arm"], row["seed"], row["state"]) for row in told["trials"]] == [
        (trial.trial_id, trial.arm, 1, state)
        for trial, state in zip(trials, ("done", "stopped", "pending", "pending"), strict=True)
    ]
    assert told["trials"][1]["config"]["algorithm"]["clip_high"] == 0.28
    lines = _lab(*words).splitlines()
    assert lines[-2] == "4 trials, 2 to run"
    assert lines[-1].startswith("price: all unknown")
    assert [line.split()[0] for line in lines[1:-2]] == [trial.trial_id for trial in trials]
    assert not (here / "runs").exists()


def test_a_bare_plan_is_the_quickstarts(here: Path) -> None:
    plain = json.loads(_lab("plan", "--json"))
    named = json.loads(_lab("plan", "quickstart", "--json", "--store", "it's \\"))
    assert plain["trials"] == named["trials"]
    assert len(plain["trials"]) == 12


def test_algorithms_are_listed_and_explained() -> None:
    told = _lab("algorithms")
    listed = told.partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == algorithm_names()
    one = _lab("algorithms", "cegppo")
    assert "algorithm.beta1=0.75" in one
    assert "algorithm.clip_high=0.2" in one
    assert "Eq." in one


def test_train_trains_one_run_and_mirrors_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, object]
) -> None:
    mirrored: list[tuple[object, ...]] = []
    monkeypatch.setattr("cegppo_lab.tracking.sync", lambda *given: mirrored.append(given) or [])
    words = [f"{key}={value}" for key, value in tiny.items()]
    told = _lab("train", *words, "trainer.steps=2", "--mlflow", "sqlite:///here.db")
    store = RunStore("runs")
    (trial_id,) = store.trial_ids()
    assert f"trial {trial_id}" in told
    assert "step 2/2  reward" in told
    assert "\ndone\n" in told
    assert [row.step for row in store.run(trial_id).steps()] == [1, 2]
    assert mirrored[0][1:] == (["train"], "sqlite:///here.db")
    assert "step" not in _lab("train", *words, "trainer.steps=2").partition("seed 0")[2]
