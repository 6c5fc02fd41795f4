"""Whatever is damaged in a finished dataset, verify finds it and says where."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from forging import Forged, encode_again, forge, vouched

from flowprep.records import Finding
from flowprep.shard.index import dataset_bytes, gather
from flowprep.shard.layout import Layout
from flowprep.verify.check import verify
from flowprep.verify.deep import check_samples
from flowprep.verify.shallow import check_dataset, load_marks

N_DAMAGES, SOME = 500, 150
TABLES = ("index", "failures", "plan", "manifest")


@pytest.fixture
def dataset(pristine: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "dataset"))


def _files(out: Path) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def _shard_of(name: str) -> str:
    """The shard that a file belongs to, "" for the files of the whole dataset."""
    return "" if name.startswith("_flowprep/") and "/shards/" not in name else Path(name).stem


def _extents(tar: Path) -> list[tuple[str, int, int]]:
    """(key, first byte, first byte behind) of each sample, as the standard library sees it."""
    with tarfile.open(tar) as opened:
        members = opened.getmembers()
    starts: dict[str, int] = {}
    for member in members:
        starts.setdefault(member.name.split(".")[0], member.offset)
    last = members[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    stops = [*list(starts.values())[1:], end]
    return [(key, start, stop) for (key, start), stop in zip(starts.items(), stops, strict=True)]


@dataclass(frozen=True)
class Damage:
    """What was done, and what verify has to name: files, shards, (shard, key) of samples."""

    what: str
    touched: list[str]
    files: set[str] = field(default_factory=set)
    shards: set[str] = field(default_factory=set)
    samples: set[tuple[str, str]] = field(default_factory=set)

    def missed(self, findings: list[Finding]) -> list[str]:
        files = self.files - {f.file for f in findings}
        shards = self.shards - {f.shard for f in findings}
        samples = self.samples - {(f.shard, f.key) for f in findings}
        missed = [*files, *shards, *(":".join(sample) for sample in samples)]
        return missed if findings else [*missed, "no finding"]


def _hit(out: Path, name: str, start: int, stop: int) -> Damage:
    """What has to be named when the bytes start..stop-1 of a file are not what they were."""
    shard = _shard_of(name)
    samples = set()
    if name.endswith(".tar"):
        extents = _extents(out / name)
        samples = {(shard, key) for key, a, b in extents if a < stop and start < b}
    shards = {shard} if shard else set()
    return Damage(f"{name} {start}..{stop}", [name], {name}, shards, samples)


def _pick(out: Path, rng: random.Random) -> str:
    """Any file that is not empty; every other time a tar."""
    names = [name for name in _files(out) if (out / name).stat().st_size]
    return rng.choice([n for n in names if n.endswith(".tar")] if rng.random() < 0.5 else names)


def _flip(out: Path, rng: random.Random) -> Damage:
    name = _pick(out, rng)
    data = bytearray((out / name).read_bytes())
    place = rng.randrange(len(data))
    expected = _hit(out, name, place, place + 1)
    data[place] ^= rng.randrange(1, 256)
    (out / name).write_bytes(data)
    return replace(expected, what=f"flip {expected.what}")


def _truncate(out: Path, rng: random.Random) -> Damage:
    name = _pick(out, rng)
    size = (out / name).stat().st_size
    left = rng.randrange(size)
    expected = _hit(out, name, left, size)
    os.truncate(out / name, left)
    return replace(expected, what=f"truncate {expected.what}")


def _delete(out: Path, rng: random.Random) -> Damage:
    name = rng.choice(_files(out))
    (out / name).unlink()
    shards = {_shard_of(name)} - {""}
    return Damage(f"delete {name}", [name], {name}, shards)


def _duplicate(out: Path, rng: random.Random) -> Damage:
    name = rng.choice(_files(out))
    path = Path(name)
    copy = (path.parent / f"{path.stem[:-1]}{rng.choice('z9')}{path.suffix}").as_posix()
    shutil.copyfile(out / name, out / copy)
    return Damage(f"duplicate {name} as {copy}", [copy], {copy})


def _swap(out: Path, rng: random.Random) -> Damage:
    one, other = rng.sample(sorted(p.stem for p in out.glob("*.tar")), 2)
    kinds = rng.choice([["tar"], ["tar", "idx"], ["tar", "idx", "json"], ["idx"], ["json"]])
    touched = []
    for kind in kinds:
        places = ["" if kind == "tar" else "_flowprep/shards/"] * 2
        a, b = (f"{p}{s}.{kind}" for p, s in zip(places, (one, other), strict=True))
        first, second = (out / a).read_bytes(), (out / b).read_bytes()
        (out / a).write_bytes(second)
        (out / b).write_bytes(first)
        touched += [a, b]
    return Damage(f"swap {kinds} of {one}, {other}", touched, set(), {one, other})


def _drop_row(out: Path, rng: random.Random) -> Damage:
    name = "_flowprep/index.parquet"
    table = pq.ParquetFile(out / name).read()
    row = rng.randrange(table.num_rows)
    gone = table.slice(row, 1).to_pylist()[0]
    sink = io.BytesIO()
    pq.write_table(table.filter(np.arange(table.num_rows) != row), sink, compression="zstd")
    (out / name).write_bytes(sink.getvalue())
    return Damage(f"drop row {row}", [name], {name}, set(), {(gone["shard"], gone["key"])})


DAMAGES = [_flip, _flip, _flip, _truncate, _delete, _duplicate, _swap, _drop_row]


def _undo(damage: Damage, dataset: Path, pristine: Path) -> None:
    for name in damage.touched:
        if (pristine / name).exists():
            shutil.copyfile(pristine / name, dataset / name)
        else:
            (dataset / name).unlink()


def _damage_and_undo(dataset: Path, pristine: Path, seeds: range) -> Counter[str]:
    """How many damages of each kind were found."""
    found: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        damage = rng.choice(DAMAGES)(dataset, rng)
        missed = damage.missed(verify(dataset))
        assert not missed, f"seed {seed}, {damage.what}: {missed}"
        found[damage.what.split()[0]] += 1
        _undo(damage, dataset, pristine)
    assert verify(dataset) == []
    return found


def test_a_whole_dataset_has_no_finding(pristine: Path) -> None:
    assert verify(pristine, deep=True) == []


def test_random_damages_are_found_and_named(dataset: Path, pristine: Path) -> None:
    assert _damage_and_undo(dataset, pristine, range(SOME)).total() == SOME


@pytest.mark.slow
def test_five_hundred_damages_are_found_and_named(dataset: Path, pristine: Path) -> None:
    found = _damage_and_undo(dataset, pristine, range(1000, 1000 + N_DAMAGES))
    print(f"found {found.total()} of {N_DAMAGES}: {dict(found)}")  # noqa: T201
    assert found.total() == N_DAMAGES


@pytest.mark.parametrize("damage", [_flip, _delete, _swap, _drop_row])
def test_the_command_exits_1_and_names_it(
    damage: Callable[..., Damage], dataset: Path, cli: Callable[..., Any]
) -> None:
    done = damage(dataset, random.Random(7))
    plain, machine = cli("verify", dataset), cli("verify", dataset, "--json")
    assert (plain.exit_code, machine.exit_code) == (1, 1)
    told = json.loads(machine.stdout)["findings"]
    assert not done.missed([Finding(**finding) for finding in told])
    names = [*done.files, *done.shards, *(key for _, key in done.samples)]
    assert [name for name in names if name not in plain.stdout] == []


def test_the_command_exits_0_on_a_whole_dataset(pristine: Path, cli: Callable[..., Any]) -> None:
    assert cli("verify", pristine).exit_code == 0
    clean = cli("verify", pristine, "--json")
    assert (clean.exit_code, json.loads(clean.stdout)["findings"]) == (0, [])


def _survives_flips(dataset: Path, name: str, places: range) -> None:
    """No byte of a table makes verify raise, and each is found."""
    path = dataset / "_flowprep" / f"{name}.parquet"
    layout, whole = Layout(dataset), path.read_bytes()
    marks, _ = load_marks(layout)
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        found = {finding.file for finding in check_dataset(layout, marks)}
        assert f"_flowprep/{name}.parquet" in found, place
    path.write_bytes(whole)


@pytest.mark.parametrize("name", TABLES)
def test_damaged_tables_never_raise(name: str, dataset: Path) -> None:
    size = (dataset / "_flowprep" / f"{name}.parquet").stat().st_size
    _survives_flips(dataset, name, range(0, size, max(1, size // 100)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TABLES)
def test_a_flip_of_any_byte_of_a_table_never_raises(name: str, dataset: Path) -> None:
    _survives_flips(
        dataset, name, range((dataset / "_flowprep" / f"{name}.parquet").stat().st_size)
    )


@pytest.mark.parametrize("other", ["1.3", "1e3", "-2", "9", '"', "[0]", "9" * 30])
@pytest.mark.parametrize("name", ["sample_offset", "sample_size", "rgb_offset", "n_frames"])
def test_numbers_of_a_mark_changed_into_others(name: str, other: str, dataset: Path) -> None:
    """A mark may still be JSON after a flip; what it says may lead out of the tar, hit as well."""
    path = dataset / "_flowprep" / "shards" / "train-000001.json"
    _reword(
        path, f'"{name}": {json.loads(path.read_text())["samples"][0][name]}', f'"{name}": {other}'
    )
    assert path.stem in {finding.shard for finding in verify(dataset)}
    os.truncate(dataset / "train-000001.tar", 700)
    assert path.stem in {finding.shard for finding in verify(dataset)}


def test_a_mark_with_other_versions(dataset: Path) -> None:
    """Nothing but its hash in dataset.json tells."""
    path = dataset / "_flowprep" / "shards" / "train-000001.json"
    numpy = json.loads(path.read_text())["versions"]["numpy"]
    _reword(path, f'"numpy": "{numpy}"', '"numpy": "9.9.9"')
    assert [(f.code, f.shard) for f in verify(dataset)] == [("mark-damaged", path.stem)]


def _reword(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_interrupted_dataset(dataset: Path) -> None:
    (dataset / "_flowprep" / "dataset.json").unlink()
    assert [finding.code for finding in verify(dataset)] == ["incomplete"]


def test_no_mark_is_left(dataset: Path) -> None:
    shards = {path.stem for path in dataset.glob("_flowprep/shards/*.json")}
    shutil.rmtree(dataset / "_flowprep" / "shards")
    (dataset / "_flowprep" / "shards").mkdir()
    assert {f.shard for f in verify(dataset) if f.code == "mark-missing"} == shards
    (dataset / "_flowprep" / "shards").rmdir()
    assert {f.shard for f in verify(dataset) if f.code == "mark-missing"} == shards


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_link(path: Path) -> None:
    """To the same bytes, outside of the dataset."""
    dataset = next(parent for parent in path.parents if (parent / "_flowprep").is_dir())
    elsewhere = dataset.parent / f"{path.name}.elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


PLACES = ["*.tar", "_flowprep/shards/*.json", "_flowprep/shards/*.idx", "_flowprep/*.*"]


def _in_turn(dataset: Path, place: str) -> list[Path]:
    """What matches, dataset.json last: without it no other table can be judged."""
    return sorted(dataset.glob(place), key=lambda path: (path.name == "dataset.json", path))


@pytest.mark.parametrize("become", [_as_folder, _as_link, _as_pipe])
@pytest.mark.parametrize("place", PLACES)
def test_something_else_in_place_of_a_file(
    become: Callable[[Path], None], place: str, dataset: Path
) -> None:
    for path in _in_turn(dataset, place):
        name = path.relative_to(dataset).as_posix()
        become(path)
        findings = verify(dataset, deep=False)
        assert name in {f.file for f in findings}
        assert not _shard_of(name) or _shard_of(name) in {f.shard for f in findings}


@pytest.fixture
def unprivileged(pristine: Path) -> Iterator[Path]:
    """A copy, and the rights of a user who is not root."""
    folder = Path(tempfile.mkdtemp(prefix="fp", dir="/tmp"))
    folder.chmod(0o755)
    dataset = Path(shutil.copytree(pristine, folder / "dataset"))
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield dataset
    if is_root:
        os.seteuid(0)
    for path in [dataset, *dataset.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("place", [*PLACES, "_flowprep/shards"])
def test_what_may_not_be_read_is_a_finding(place: str, unprivileged: Path) -> None:
    user, root = os.geteuid(), os.getuid()
    for path in _in_turn(unprivileged, place):
        os.seteuid(root)
        path.chmod(0)
        os.seteuid(user)
        name = path.relative_to(unprivileged).as_posix()
        assert name in {f.file for f in verify(unprivileged)}


def test_a_stray_file_whose_name_is_no_text(dataset: Path, cli: Callable[..., Any]) -> None:
    with open(os.fsencode(dataset) + b"/\xff.tar", "wb"):
        pass
    assert cli("verify", dataset).exit_code == 1
    told = json.loads(cli("verify", dataset, "--json").stdout)["findings"]
    assert [finding["file"] for finding in told] == ["\\udcff.tar"]


def _fewer_rgb(sample: Forged, folder: Path) -> None:
    encode_again(sample, folder, "rgb", lambda frames: frames[:-1])


def _fewer_flows(sample: Forged, folder: Path) -> None:
    encode_again(sample, folder, "flow", lambda frames: frames[:-1])


def _other_flow(sample: Forged, folder: Path) -> None:
    encode_again(sample, folder, "flow", lambda codes: np.full_like(codes, 200))


def _wrong_class(sample: Forged, folder: Path) -> None:
    sample.members["cls"] = b"1" if sample.members["cls"] == b"0" else b"0"


def _wrong_label(sample: Forged, folder: Path) -> None:
    sample.state(in_index=True, label="neither")


def _wrong_count(sample: Forged, folder: Path) -> None:
    sample.state(in_index=True, n_frames=sample.info["n_frames"] + 1)


def _index_disagrees(sample: Forged, folder: Path) -> None:
    sample.row = replace(sample.row, flow_mean_px=sample.row.flow_mean_px + 1)


def _repeated_frame(sample: Forged, folder: Path) -> None:
    index = sample.info["source_index"]
    sample.state(source_index=[index[0], *index[:-1]])


def _no_number(sample: Forged, folder: Path) -> None:
    sample.state(pts_s=[float("nan")] * sample.info["n_frames"])


def _unknown_codec(sample: Forged, folder: Path) -> None:
    sample.state(rgb_codec="no such codec")


def _unknown_map(sample: Forged, folder: Path) -> None:
    sample.state(flow_map="no such map")


def _garbage(sample: Forged, folder: Path) -> None:
    sample.members[sample.info["rgb_member"]] = bytes(1000)


def _extra_member(sample: Forged, folder: Path) -> None:
    sample.members["txt"] = b"hello"


def _other_order(sample: Forged, folder: Path) -> None:
    sample.members = dict(reversed(sample.members.items()))


def _no_json(sample: Forged, folder: Path) -> None:
    sample.members["json"] = b"[" * 100_000


FORGERIES = {
    _fewer_rgb: "RGB is",
    _fewer_flows: "flow is",
    _other_flow: "mean flow decodes to",
    _wrong_class: "cls is",
    _wrong_label: "label 'neither' is not class",
    _wrong_count: "frames",
    _index_disagrees: "flow_mean_px is",
    _repeated_frame: "source_index does not ascend",
    _no_number: "pts_s",
    _unknown_codec: "no such codec",
    _unknown_map: "no such map",
    _garbage: "RGB does not decode",
    _extra_member: "members",
    _other_order: "members",
    _no_json: "json",
}


@pytest.mark.parametrize(
    ("forgery", "told"), FORGERIES.items(), ids=lambda p: getattr(p, "__name__", "")
)
def test_deep_finds_what_the_hashes_do_not_show(
    forgery: Callable[[Forged, Path], None], told: str, dataset: Path, tmp_path: Path
) -> None:
    mark, key = forge(dataset, forgery, tmp_path)
    assert verify(dataset) == []
    findings = check_samples(Layout(dataset), mark, ["a", "b"])
    assert {(f.shard, f.key) for f in findings} == {(mark.shard, key)}
    assert told in " ".join(f.message for f in findings)


def test_deep_from_the_command_line(dataset: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    mark, key = forge(dataset, _fewer_rgb, tmp_path)
    assert cli("verify", dataset).exit_code == 0
    deep = cli("verify", dataset, "--deep", "--json")
    told = json.loads(deep.stdout)["findings"]
    assert deep.exit_code == 1
    assert [(f["shard"], f["key"]) for f in told] == [(mark.shard, key)]


def test_a_forged_place_in_the_index(dataset: Path, tmp_path: Path) -> None:
    """Readers that seek would get other bytes."""
    layout = Layout(dataset)
    marks, _ = load_marks(layout)
    number = next(i for i, mark in enumerate(marks) if mark.samples)
    row = marks[number].samples[0]
    moved = replace(row, rgb_offset=row.rgb_offset + 1, rgb_size=row.rgb_size - 1)
    rows = [moved, *marks[number].samples[1:]]
    marks[number] = vouched(layout, replace(marks[number], samples=rows))
    layout.index.write_bytes(gather(marks).index)
    layout.dataset.write_bytes(dataset_bytes(layout, gather(marks), marks[number].fingerprint))
    assert verify(dataset) == []
    findings = check_samples(layout, marks[number], ["a", "b"])
    assert [(f.key, f.message) for f in findings] == [
        (row.key, "does not lie where the index says")
    ]


def test_a_forged_index_row(dataset: Path) -> None:
    """The index is held against the marks, not only against its hash."""
    layout = Layout(dataset)
    marks, _ = load_marks(layout)
    first = next(mark for mark in marks if mark.samples)
    fewer = [replace(m, samples=m.samples[1:]) if m is first else m for m in marks]
    layout.index.write_bytes(gather(fewer).index)
    layout.dataset.write_bytes(dataset_bytes(layout, gather(marks), first.fingerprint))
    findings = verify(dataset)
    assert [(f.code, f.shard, f.key) for f in findings] == [
        ("index-row", first.shard, first.samples[0].key)
    ]
