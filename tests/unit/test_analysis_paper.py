"""``python -m analysis``: all targets from one source, or one clear line and nothing written."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from analysis.__main__ import main
from analysis.paper import ALL, Feeds, write_paper
from cegppo_lab.errors import LabError
from cegppo_lab.metrics import ENTROPY
from cegppo_lab.store import RunStore
from tests.unit.synthetic_paper import SEEDS, SWEEPS, Memory, run, sweep
from tests.unit.synthetic_sweep import ARMS, manifest, write_trial
from tests.unit.test_analysis_report import Page


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("made") / "paper"


@pytest.fixture(scope="module")
def result(out):
    return write_paper(Feeds(Memory()), ALL, out)


def test_all_writes_every_file_with_its_provenance(result, out):
    figures = {f"figure{n}.{x}" for n in range(1, 7) for x in ("png", "pdf", "json")}
    tables = {f"table{n}.{x}" for n in (1, 2) for x in ("md", "tex", "csv", "json")}
    assert {path.name for path in out.iterdir()} == figures | tables | {"claims.json", "index.html"}
    assert [path.name for path in result.paths] == sorted(path.name for path in out.iterdir())
    sidecar = json.loads((out / "figure4.json").read_text())
    assert sidecar["sweep"] == "algorithms"
    assert sidecar["code"] == ["0123abcd"]
    assert sidecar["query"]["arms"][1]["beta1"] == 0.75
    assert len(sidecar["trials"]) == len(SEEDS) * len(SWEEPS["algorithms"])
    assert sidecar["trials"][0]["trial_id"] in Image.open(out / "figure4.png").info["Source"]


def test_claims_json_has_what_a_reader_needs(result, out):
    ledger = json.loads((out / "claims.json").read_text())
    assert {entry["id"] for entry in ledger} == {f"C{n}" for n in range(1, 14)}
    for entry in ledger:
        assert entry["verdict"] in {"holds", "refuted", "inconclusive", "untested"}
        assert {"statement", "scale", "estimate", "low", "high", "n_seeds", "trials"} <= set(entry)
    grpo = next(entry for entry in ledger if entry["id"] == "C1")
    assert grpo["verdict"] == "holds"  # from 1 to 0.2
    assert grpo["scale"] == "embedded"


def test_the_page_is_one_file_that_tells_all(result, out):
    html = (out / "index.html").read_text()
    page = Page(html)
    text = " ".join(page.words)
    assert page.open == []
    assert "http" not in html
    assert not any(tag in {"script", "link", "iframe"} for tag, _ in page.tags)
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert [i["src"].startswith("data:image/png") for i in images] == [True] * 6
    assert "The paper's 13 claims, tested at embedded scale: holds: " in text
    assert all(f"A note of {name}." in text for name in SWEEPS)
    assert all(f"python -m cegppo_lab sweep {name}" in text for name in SWEEPS)


@pytest.mark.parametrize("target", ["figure1", "table2", "claims"])
def test_a_single_target_writes_its_own_files_only(tmp_path, target):
    made = write_paper(Feeds(Memory()), target, tmp_path / "one")
    assert {path.name.partition(".")[0] for path in made.paths} == {target}


@pytest.mark.parametrize("target", ["figure4", "table1", "claims"])
def test_the_same_numbers_give_the_same_files(result, out, tmp_path, target):
    made = write_paper(Feeds(Memory()), target, tmp_path / "again")
    assert all(path.read_bytes() == (out / path.name).read_bytes() for path in made.paths)


def test_all_tells_what_cannot_be_made_and_makes_the_rest(tmp_path):
    runs = [run(arm, seed) for arm in ("GRPO", "CE-GPPO(0.75, 1)") for seed in SEEDS]
    source = Memory({"algorithms": sweep("algorithms", runs)})
    made = write_paper(Feeds(source), ALL, tmp_path / "p")
    names = {path.name for path in made.paths}
    assert {"figure2.png", "figure4.png", "table1.md", "claims.json", "index.html"} <= names
    assert "figure3.png" not in names
    told = [problem for problem in made.problems if problem.startswith("Not made: figure3 needs")]
    assert len(told) == 1
    assert "python -m cegppo_lab sweep beta_grid" in told[0]


def test_a_sweep_of_ones_own_and_the_clusters_can_be_named(tmp_path):
    mine = [run(arm, seed) for arm in ("GRPO", "CE-GPPO(0.75, 1)") for seed in SEEDS]
    big = [run(a, s, model="r1-distill-qwen-7b", trainer="verl") for a in ("GRPO",) for s in SEEDS]
    source = Memory(
        {"mine": sweep("mine", mine), "paper/algorithms": sweep("paper/algorithms", big)}
    )
    named = write_paper(Feeds(source, ["mine"]), "figure4", tmp_path / "a")
    assert json.loads(named.paths[0].read_text())["sweep"] == "mine"
    cluster = write_paper(Feeds(source), "figure4", tmp_path / "b")
    assert json.loads(cluster.paths[0].read_text())["scale"] == ["paper"]
    with pytest.raises(LabError, match="needs sweep algorithms"):
        write_paper(Feeds(source, scale="embedded"), "figure4", tmp_path / "c")


def test_one_seed_gives_values_and_refuses_intervals(tmp_path):
    runs = [run(arm, 11) for arm in ("GRPO", "DAPO", "CE-GPPO(0.75, 1)")]
    made = write_paper(
        Feeds(Memory({"algorithms": sweep("algorithms", runs)})), ALL, tmp_path / "p"
    )
    table = next(path for path in made.paths if path.name == "table1.md").read_text()
    assert "1 seed: no interval" in table
    ledger = json.loads((tmp_path / "p" / "claims.json").read_text())
    assert {entry["verdict"] for entry in ledger} == {"untested"}


def fails(tmp_path, *words):
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "deep" / "out")])
    assert isinstance(done.exception, LabError), done.output
    assert sorted(tmp_path.rglob("*")) == before
    text = str(done.exception)
    assert "\n" not in text
    return text


def test_mistakes_are_one_line_and_write_nothing(tmp_path):
    store = RunStore(tmp_path / "runs")
    where = ["--store", str(store.root)]
    assert "figure2" in fails(tmp_path, "figur2", *where)
    assert "python -m cegppo_lab sweep algorithms" in fails(tmp_path, "figure2", *where)
    store.write_manifest(manifest("algorithms", ARMS[:1]))
    assert "has a step" in fails(tmp_path, "figure2", *where)
    write_trial(store, ARMS[0], 11, last=3, at=lambda *_: {ENTROPY: 0.5})
    assert "no run of algorithms has logged" in fails(tmp_path, "figure4", *where).lower()
    assert "--mlflow" in fails(tmp_path, "figure4", *where, "--experiment", "x")
    assert "--mapping" in fails(
        tmp_path, "claims", "--mlflow", "sqlite:///x.db", "--experiment", "x"
    )


def test_runs_on_other_versions_of_a_benchmark_are_refused(tmp_path):
    views = [run("GRPO", seed) for seed in SEEDS]
    views[0].config["task"]["version"] = 2
    with pytest.raises(LabError, match=r"different versions of table_walk.*version 2: 0011"):
        sweep("algorithms", views)
