"""export: what is packed, that it is the same bytes every time, and bad archives refused."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cegppo_lab.errors import LabError
from cegppo_lab.housekeeping.arrival import import_archive
from cegppo_lab.housekeeping.export import export
from cegppo_lab.store import RunStore
from tests.unit.housekeeping_store import add_sweep, add_trial, config, final_row, tree, trial
from tests.unit.housekeeping_store import write_rows as rows


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore(tmp_path / "runs")
    add_sweep(made, "paper/s", [1, 2, 5])
    add_sweep(made, "t", [2, 3])
    for seed in (1, 2, 3):
        add_trial(made, seed, saved=[6])
    rows(made.root / trial(1) / "evaluations.jsonl", [final_row(6)])
    return made


def _names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def _trials(archive: Path) -> set[str]:
    return {name.partition("/")[0] for name in _names(archive) if not name.startswith("_")}


def test_the_same_store_gives_the_same_bytes_and_an_unpacked_archive_is_a_store(
    store: RunStore, tmp_path: Path
) -> None:
    for name in ("a.tar.gz", "b.tgz", "c.tar"):
        export(store, tmp_path / name, checkpoints=True)
        for path in store.root.rglob("*"):
            path.chmod(0o700)  # nothing that only this machine knows is in it
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tgz").read_bytes()
    names = _names(tmp_path / "c.tar")
    assert names[:-1] == sorted(tree(store))
    assert names[-1] == "_archive.json"
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        tar.extractall(tmp_path / "out", filter="data")
        mtimes = {member.mtime for member in tar.getmembers()[:-1]}
        assert all((m.uid, m.gid, m.uname, m.mode) == (0, 0, "", 0o644) for m in tar.getmembers())
    assert tree(RunStore(tmp_path / "out"), ignore=["_archive.json"]) == tree(store)
    assert mtimes == {int(p.stat().st_mtime) for p in store.root.rglob("*.json*")}
    listing = json.loads((tmp_path / "out" / "_archive.json").read_text())["files"]
    assert {name: entry["sha256"] for name, entry in listing.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in tree(store).items()
    }


def test_sweeps_and_starts_of_ids_choose_what_is_packed(store: RunStore, tmp_path: Path) -> None:
    cases: dict[tuple[str, ...], tuple[set[str], set[int]]] = {
        (): ({"paper/s", "t"}, {1, 2, 3}),
        ("t",): ({"t"}, {2, 3}),
        ("paper/s", trial(3)[:6]): ({"paper/s"}, {1, 2, 3}),
        (trial(1),): (set(), {1}),
    }
    for number, (names, (sweeps, seeds)) in enumerate(cases.items()):
        archive = tmp_path / f"{number}.tar"
        done = export(store, archive, names)
        assert set(done.sweeps) == sweeps
        assert _trials(archive) == set(done.trials) == {trial(seed) for seed in seeds}
        assert not [name for name in _names(archive) if "checkpoints" in name]


@pytest.mark.parametrize(
    ("name", "names", "told"),
    [
        ("a.tar", ["paper/z"], "unknown sweep, or start of a trial's id, 'paper/z'. Did you mean"),
        ("a.tar", [""], "3 trials begin with ''"),
        ("a.zip", [], r"name it \*.tar or \*.tar.gz"),
        ("there.tar", [], "exists; choose another name"),
        ("there.tar/a.tar", [], "cannot write"),
    ],
)
def test_mistakes_are_told_and_write_nothing(
    store: RunStore, tmp_path: Path, name: str, names: list[str], told: str
) -> None:
    (tmp_path / "there.tar").write_text("")
    with pytest.raises(LabError, match=told):
        export(store, tmp_path / name, names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "there.tar"]


def test_a_trial_in_training_goes_as_it_stands(store: RunStore, tmp_path: Path) -> None:
    folder = add_trial(store, 4, last=4, state="running", saved=[2, 4])
    with store.writer(trial(4), {}):
        with open(folder / "steps.jsonl", "a") as file:
            file.write('{"step": 5, "ti')
        done = export(store, tmp_path / "a.tar", [trial(4)], checkpoints=True)
    assert done.in_training == [trial(4)]
    there = RunStore(tmp_path / "there")
    (arrival,) = import_archive(there, tmp_path / "a.tar")
    assert arrival.outcome == "new"
    assert [row.step for row in there.run(trial(4)).steps()] == [1, 2, 3, 4]
    assert not there.run(trial(4)).checkpoints.exists()
    assert b'"ti' not in (there.root / trial(4) / "steps.jsonl").read_bytes()[-10:]


def test_a_broken_trial_and_leftovers_stay_out(store: RunStore, tmp_path: Path) -> None:
    (store.root / trial(2) / "status.json").write_text("{")
    (store.root / trial(1) / ".status.json.7.tmp").touch()
    (store.root / trial(1) / "evaluations.lock").touch()
    (store.root / trial(1) / "link").symlink_to("/etc/passwd")
    done = export(store, tmp_path / "a.tar", ["paper/s"])
    assert "status.json is not valid JSON" in done.left_out[trial(2)]
    assert _trials(tmp_path / "a.tar") == {trial(1)}
    assert not [name for name in _names(tmp_path / "a.tar") if "lock" in name or "link" in name]


# Archives that no export wrote.

Change = Callable[[tarfile.TarInfo], None]
ROW = b'{"seed": 1}'


def _write(path: Path, members: list[tuple[str, bytes, Change]], listed: bool = True) -> None:
    """An archive of ``members``, each changed, with a listing that fits if ``listed``."""
    files = {n: {"sha256": hashlib.sha256(d).hexdigest(), "bytes": len(d)} for n, d, _ in members}
    listing = json.dumps({"format": 1, "files": files}).encode()
    tail = [("_archive.json", listing, lambda member: None)] if listed else []
    with tarfile.open(path, "w") as tar:
        for name, data, change in (*members, *tail):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            change(member)
            tar.addfile(member, io.BytesIO(data))


def _of_kind(kind: bytes) -> Change:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0

    return change


def _same(member: tarfile.TarInfo) -> None:
    pass


HOSTILE: dict[str, list[tuple[str, bytes, Change]]] = {
    "absolute": [("/tmp/x/config.json", ROW, _same)],
    "up": [("../x/config.json", ROW, _same)],
    "up within": [("a/../../x", ROW, _same)],
    "dot": [("./a/config.json", ROW, _same)],
    "empty part": [("a//config.json", ROW, _same)],
    "hidden": [("a/.bashrc", ROW, _same)],
    "backslash": [("a/..\\x", ROW, _same)],
    "drive": [("C:/x", ROW, _same)],
    "control": [("a/con\nfig.json", ROW, _same)],
    "top": [("config.json", ROW, _same)],
    "own folder": [("_evaluations/config.json", ROW, _same)],
    "sweep up": [("_sweeps/../x.json", ROW, _same)],
    "sweep name": [("_sweeps/a b.json", ROW, _same)],
    "no sweep": [("_sweeps/a.json", ROW, _same)],
    "lock": [("a/lock", b"", _same)],
    "twice": [("a/config.json", ROW, _same), ("a/config.json", ROW, _same)],
    "unsorted": [("b/config.json", ROW, _same), ("a/config.json", ROW, _same)],
    "symlink": [("a/config.json", b"", _of_kind(tarfile.SYMTYPE))],
    "hardlink": [("a/config.json", b"", _of_kind(tarfile.LNKTYPE))],
    "device": [("a/config.json", b"", _of_kind(tarfile.CHRTYPE))],
    "fifo": [("a/config.json", b"", _of_kind(tarfile.FIFOTYPE))],
    "folder": [("a", b"", _of_kind(tarfile.DIRTYPE))],
    "time": [("a/config.json", ROW, lambda m: m.pax_headers.update(mtime="nan"))],
    "bomb": [("a/config.json", ROW, lambda m: setattr(m, "size", 1 << 40))],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_writes_nothing(tmp_path: Path, case: str) -> None:
    there = RunStore(tmp_path / "deep" / "runs")
    try:
        _write(tmp_path / "a.tar", HOSTILE[case])
    except OSError:  # the tar itself cannot be finished: cut short
        assert case == "bomb"
    with pytest.raises(LabError) as caught:
        list(import_archive(there, tmp_path / "a.tar"))
    assert str(tmp_path / "a.tar") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


def test_a_trial_that_is_not_what_its_id_says_is_refused(tmp_path: Path) -> None:
    there = RunStore(tmp_path / "runs")
    content = json.dumps(config(1)).encode()
    deep = b"[" * 100_000 + b"]" * 100_000
    cases = [(trial(2), content), ("aaa", b"[]"), ("bbb", b"{"), ("ccc", deep)]
    for trial_id, data in cases:
        _write(tmp_path / "a.tar", [(f"{trial_id}/config.json", data, _same)])
        (arrival,) = import_archive(there, tmp_path / "a.tar")
        assert (arrival.trial_id, arrival.outcome) == (trial_id, "refused")
        assert tree(there) == {}
    _write(tmp_path / "a.tar", [(f"{trial(1)}/config.json", content, _same)])
    assert [each.outcome for each in import_archive(there, tmp_path / "a.tar")] == ["new"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_an_archive_cut_anywhere_or_with_a_changed_byte_writes_nothing(
    store: RunStore, tmp_path: Path, name: str
) -> None:
    export(store, tmp_path / name, ["t"])
    whole = (tmp_path / name).read_bytes()
    end = whole.rstrip(b"\0")  # blocks of zeros end a tar
    there = RunStore(tmp_path / "there")
    cuts = [whole[:size] for size in range(0, len(end) - 1, max(1, len(end) // 60))]
    flips = [
        bytes([*whole[:at], whole[at] ^ 0x11, *whole[at + 1 :]])
        for at in range(0, len(end), max(1, len(end) // 60))
    ]
    expected = {k: v for k, v in tree(store).items() if k.startswith((trial(2), trial(3)))}
    expected = {k: v for k, v in expected.items() if "checkpoints" not in k}
    expected["_sweeps/t.json"] = tree(store)["_sweeps/t.json"]
    refused = 0
    for data in (*cuts, *flips):
        (tmp_path / name).write_bytes(data)
        with suppress(LabError):
            list(import_archive(there, tmp_path / name))
        if not there.root.exists():
            refused += 1
            continue
        # Only what follows the last file was hit, or bytes that pad.
        assert tree(there, ignore=["origin.json"]) == expected
        shutil.rmtree(there.root)
    assert refused > 100


@pytest.mark.parametrize("text", [None, b"", b"hello", b"\x1f\x8b\x08nothing", b"PK\3\4"])
def test_what_is_no_archive_is_told(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "a.tar").write_bytes(text)
    with pytest.raises(LabError, match=r"a\.tar"):
        list(import_archive(RunStore(tmp_path / "runs"), tmp_path / "a.tar"))
    with pytest.raises(LabError, match="no such archive"):
        list(import_archive(RunStore(tmp_path / "runs"), tmp_path))
