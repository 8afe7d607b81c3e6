"""Sweep files: how arms come from axes, and how mistakes in a file are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cegppo_lab.errors import LabError
from cegppo_lab.sweep.spec import SweepSpec, load_spec, split_overrides, sweep_files

HEAD = "question: why\nseeds: [1]\n"


def _spec(**keys: Any) -> SweepSpec:
    return SweepSpec(**{"name": "s", "question": "why", "seeds": [1]} | keys)


def _load(folder: Path, text: str | bytes, changes: dict[str, Any] | None = None) -> SweepSpec:
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_spec(str(path), changes)


def test_no_arm_and_no_axis_is_one_arm() -> None:
    assert _spec().points() == [("run", {})]


def test_grid_axes_are_crossed() -> None:
    spec = _spec(grid={"algorithm.beta1": [0.5, 1], "trainer.lr": [1e-5, 2e-5]})
    assert spec.points() == [
        ("beta1=0.5, lr=1e-05", {"algorithm.beta1": 0.5, "trainer.lr": 1e-5}),
        ("beta1=0.5, lr=2e-05", {"algorithm.beta1": 0.5, "trainer.lr": 2e-5}),
        ("beta1=1, lr=1e-05", {"algorithm.beta1": 1, "trainer.lr": 1e-5}),
        ("beta1=1, lr=2e-05", {"algorithm.beta1": 1, "trainer.lr": 2e-5}),
    ]


def test_zipped_axes_run_in_parallel() -> None:
    spec = _spec(zip={"algorithm.beta1": [0.5, 1.0], "algorithm.beta2": [1.0, 0.5]})
    assert [values for _, values in spec.points()] == [
        {"algorithm.beta1": 0.5, "algorithm.beta2": 1.0},
        {"algorithm.beta1": 1.0, "algorithm.beta2": 0.5},
    ]


def test_arms_times_grid_times_zip_in_this_order() -> None:
    spec = _spec(
        arms={"A": {"algorithm": "grpo"}, "B": {"algorithm": "dapo"}},
        grid={"trainer.steps": [1, 2]},
        zip={"task.words": [5, 6], "task.states": [7, 8]},
    )
    names = [name for name, _ in spec.points()]
    assert names == [
        f"{arm} steps={steps}, words={words}, states={states}"
        for arm in "AB"
        for steps in (1, 2)
        for words, states in ((5, 7), (6, 8))
    ]
    assert spec.points()[5][1] == {
        "algorithm": "dapo",
        "trainer.steps": 1,
        "task.words": 6,
        "task.states": 8,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD + "zip: {a.b: [1, 2], c.d: [1]}", r"zipped axes differ.*a.b has 2, c.d has 1"),
        (HEAD + "grid: {a.b: []}", r"axis a.b has no values"),
        (HEAD + "grid: {a.b: [1]}\nzip: {a.b: [1]}", r"a.b is both under grid and under zip"),
        (HEAD + "grid: {a.b: 1}", r"mine.yaml.grid.a.b=1: .*list"),
        (HEAD + "grd: {}", r"unknown key of mine.yaml 'grd'. Did you mean 'grid'"),
        (HEAD + "arms: {A: }", r"mine.yaml.arms.A=None"),
        (HEAD + "arms: [A]", r"mine.yaml.arms=\['A'\]"),
        (HEAD + "name: ../../evil", r"mine.yaml.name='../../evil'"),
        (HEAD + "name: ''", r"mine.yaml.name=''"),
        (HEAD + "1: 2", r"mine.yaml"),
        ("question: why\nseeds: [1, 2, 1]", r"a seed is listed twice"),
        ("question: why\nseeds: []", r"mine.yaml.seeds=\[\]"),
        ("question: why\nseeds: [-1]", r"mine.yaml.seeds.0=-1"),
        ("question: why\nseeds: [one]", r"mine.yaml.seeds.0='one'"),
        ("question: why", r"mine.yaml.seeds is missing"),
        ("seeds: [1]", r"mine.yaml.question is missing"),
        (HEAD + "seeds: [2]", r"mine.yaml is not valid YAML at line 3: key 'seeds' is given twice"),
        (HEAD + "arms:\n  A: {}\n  A: {}", r"at line 5: key 'A' is given twice"),
        (HEAD + "arms: {A: {}", r"mine.yaml is not valid YAML at line \d"),
        (HEAD + "? [1]\n: 2", r"not valid YAML at line 3"),
        (HEAD + "\0", r"mine.yaml is not valid YAML"),
        ("- a\n- b", r"mine.yaml must be a mapping"),
        ("", r"mine.yaml must be a mapping"),
        (b"question: \xff\xfe", r"mine.yaml is not a text file in UTF-8"),
    ],
)
def test_a_mistake_in_a_file_is_told_in_one_line(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    with pytest.raises(LabError, match=told) as caught:
        _load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_merged_key_may_be_given_again(tmp_path: Path) -> None:
    spec = _load(
        tmp_path, HEAD + "arms:\n  A: &a {x.y: 1, x.z: 2}\n  B: {<<: *a, x.z: 3}\n  C: {<<: *a}\n"
    )
    assert spec.arms["B"] == {"x.y": 1, "x.z": 3}
    assert spec.arms["C"] == spec.arms["A"] == {"x.y": 1, "x.z": 2}


def test_changes_reach_the_keys_of_the_sweep(tmp_path: Path) -> None:
    changes = {"seeds": [5], "grid.trainer.lr": [1e-5], "name": "short"}
    spec = _load(tmp_path, HEAD + "grid: {algorithm.beta1: [0.5]}", changes)
    assert (spec.seeds, spec.name) == ([5], "short")
    assert spec.grid == {"algorithm.beta1": [0.5], "trainer.lr": [1e-5]}
    assert _load(tmp_path, HEAD + "grid:", {"grid.a.b": [1]}).grid == {"a.b": [1]}


@pytest.mark.parametrize("key", ["seeds.x", "name.x", "question.x.y"])
def test_a_key_under_a_value_is_told(tmp_path: Path, key: str) -> None:
    with pytest.raises(LabError, match=f"{key}: .* has no keys of its own"):
        _load(tmp_path, HEAD + "name: n", {key: 1})


def test_the_name_is_the_files_unless_it_says_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps" / "paper").mkdir(parents=True)
    for file in ("paper/betas.yaml", "v1.2.yaml"):
        (tmp_path / "sweeps" / file).write_text(HEAD)
    assert _load(tmp_path, HEAD).name == "mine"
    assert load_spec("paper/betas").name == "paper/betas"
    assert load_spec("v1.2").name == "v1.2"


def test_a_sweep_here_goes_before_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = sweep_files()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "quickstart.yaml").write_text("question: mine\nseeds: [1]")
    assert set(sweep_files()) == set(shipped)
    assert load_spec("quickstart").question == "mine"


@pytest.mark.parametrize("name", ["quickstrat", "nothere.yaml", ".", "sweeps", ""])
def test_an_unknown_sweep_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(LabError, match=r"unknown sweep .*Allowed: .*beta_grid, .*quickstart"):
        load_spec(name)


def test_words_go_to_the_sweep_or_to_its_trials() -> None:
    mine, rest = split_overrides(
        {"seeds": [1], "grid.trainer.lr": [1], "trainer.steps": 2, "algorithm": "dapo"}
    )
    assert mine == {"seeds": [1], "grid.trainer.lr": [1]}
    assert rest == {"trainer.steps": 2, "algorithm": "dapo"}
    with pytest.raises(LabError, match=r"unknown key 'sedes'. Did you mean 'seeds'"):
        split_overrides({"sedes": [1]})
    with pytest.raises(LabError, match=r"say seeds=\[3\]"):
        split_overrides({"seed": 3})
