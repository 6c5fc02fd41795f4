"""A dataset that goes on: other labels, samples that leave, videos that come.

What came out is read with tarfile, WebDataset and pyarrow, and held against a model in plain
Python; `verify --deep` has to agree after every step.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds

from flowprep.records import Finding
from flowprep.verify.check import verify

Cli = Callable[..., Any]
Video = Callable[..., Path]
LOCAL = ["--executor", "local", "--workers", 1]
FIXED = [*LOCAL, "--engine", "constant", "--size", 48, "--clip-frames", 3, "--quiet"]


@dataclass
class Dataset:
    """A dataset, its source, and commands on it."""

    src: Path
    out: Path
    cli: Cli
    options: list[str] = field(default_factory=list)

    def extract(self, *more: object, code: int = 0) -> str:
        options = ["--max-failures", 1, *self.options, *more]
        places = ["--src", self.src, "--out", self.out]
        return self._run("extract", *places, *FIXED, *options, code=code)

    def relabel(
        self, labels: dict[str, str], *more: object, by: str = "path", code: int = 0
    ) -> str:
        table = self.out.with_suffix(".csv")
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([(by, "label"), *labels.items()])
        return self._run("relabel", self.out, table, *more, code=code)

    def remove(self, *names: str, code: int = 0) -> str:
        listed = self.out.with_suffix(".txt")
        listed.write_text("".join(f"{name}\n" for name in names))
        return self._run("remove", self.out, "--keys", listed, code=code)

    def lift(self, *names: str, code: int = 0) -> str:
        chosen = [part for name in names for part in ("--key", name)]
        return self._run("remove", self.out, "--lift", *chosen, code=code)

    def repair(self, *more: object, code: int = 0) -> str:
        return self._run(
            "verify", self.out, "--repair", "--src", self.src, *LOCAL, *more, code=code
        )

    def show(self, key: str) -> str:
        return self._run("show", self.out, key, code=0)

    def verify(self, *more: object, code: int = 0) -> str:
        return self._run("verify", self.out, *more, code=code)

    def check_deep(self) -> None:
        assert self.deep_findings() == []

    def deep_findings(self) -> list[Finding]:
        """Of `verify --deep`; without processes of its own, which cost a second."""
        one = ThreadPoolExecutor(1)
        with mock.patch("flowprep.verify.check._executor", return_value=one):
            return verify(self.out, deep=True)

    def _run(self, *arguments: object, code: int) -> str:
        ended = self.cli(*arguments)
        assert ended.exit_code == code, ended.output
        return str(ended.output)

    def members(self) -> dict[str, bytes]:
        """Every member of every tar, by the standard library."""
        found = {}
        for path in sorted(self.out.glob("*.tar")):
            with tarfile.open(path) as tar:
                for info in tar:
                    file = tar.extractfile(info)
                    assert file is not None
                    assert info.name not in found
                    found[info.name] = file.read()
        return found

    def keys(self) -> set[str]:
        return {name.partition(".")[0] for name in self.members()}

    def table(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.out / "_flowprep" / name).to_pylist()
        return rows

    def labels(self) -> dict[str, str]:
        """Key -> label in the index."""
        return {row["key"]: row["label"] for row in self.table("index.parquet")}

    def classes(self) -> list[str]:
        return (self.out / "_flowprep" / "classes.txt").read_text().splitlines()

    def told(self) -> dict[str, tuple[str, str]]:
        """Key -> label in the sample's json, class by its .cls ("" = none)."""
        told, classes = {}, self.classes()
        for path in sorted(self.out.glob("*.tar")):
            stream = io.BytesIO(path.read_bytes())
            files = wds.tariterators.tar_file_expander([{"url": path.name, "stream": stream}])
            for sample in wds.tariterators.group_by_keys(files):
                cls = sample.get("cls")
                label = json.loads(sample["json"])["label"]
                told[sample["__key__"]] = (label, classes[int(cls)] if cls else "")
        return told

    def hashes(self) -> dict[str, tuple[str, int]]:
        """Tar -> sha256 and the time it was written."""
        return {p.name: (_sha256(p), p.stat().st_mtime_ns) for p in self.out.glob("*.tar")}

    def keys_of(self, path: str) -> set[str]:
        return {row["key"] for row in self.table("plan.parquet") if row["path"] == path}

    def shards_of(self, keys: set[str]) -> set[str]:
        rows = self.table("index.parquet")
        return {f"{row['shard']}.tar" for row in rows if row["key"] in keys}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _copy(template: Dataset, folder: Path) -> Dataset:
    src, out = folder / "src", folder / "out"
    shutil.copytree(template.src, src)
    shutil.copytree(template.out, out)
    return Dataset(src, out, template.cli, template.options)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, video: Video, cli: Cli) -> Dataset:
    """Two classes of three videos of four clips, and a broken video; eight shards."""
    folder = tmp_path_factory.mktemp("living")
    for number in range(6):
        video(folder / "src" / "ab"[number % 2] / f"clip{number}.mp4", number, 12)
    (folder / "src" / "b" / "broken.mp4").write_bytes(b"no video")
    made = Dataset(folder / "src", folder / "out", cli)
    made.extract()
    return made


@pytest.fixture
def dataset(template: Dataset, tmp_path: Path) -> Dataset:
    return _copy(template, tmp_path)


@pytest.fixture(scope="module")
def bare_template(template: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same videos without labels."""
    folder = tmp_path_factory.mktemp("bare")
    made = Dataset(template.src, folder / "out", template.cli, ["--labels", "none"])
    made.extract()
    return made


@pytest.fixture
def bare(bare_template: Dataset, tmp_path: Path) -> Dataset:
    return _copy(bare_template, tmp_path)


def test_relabel_changes_the_index_and_no_tar(dataset: Dataset) -> None:
    before, labels, told = dataset.hashes(), dataset.labels(), dataset.told()
    key = min(dataset.keys_of("b/clip1.mp4"))
    said = dataset.relabel({"a/clip0.mp4": "zebra", "b/broken.mp4": "ape", "no.mp4": "x"})
    assert "5 clips have another label now, 0 the same; 20 are not in the table" in said
    assert "1 rows match nothing: no.mp4" in said
    assert "4 samples' own json and .cls tell an older label" in said
    dataset.relabel({key: "a", **dict.fromkeys(dataset.keys_of("a/clip2.mp4"), "a")}, by="key")
    expected = labels | dict.fromkeys(dataset.keys_of("a/clip0.mp4"), "zebra") | {key: "a"}
    assert dataset.labels() == expected
    assert dataset.classes() == ["a", "b", "ape", "zebra"]
    rows = dataset.table("index.parquet")
    assert all(dataset.classes()[row["label_index"]] == row["label"] for row in rows)
    assert {r["key"]: r["label"] for r in dataset.table("plan.parquet")}.items() >= expected.items()
    assert dataset.hashes() == before
    assert dataset.told() == told
    assert {row["key"]: row["tar_label"] for row in rows} == labels
    assert '"label": "zebra"' in dataset.show(min(dataset.keys_of("a/clip0.mp4")))
    dataset.check_deep()


@pytest.mark.slow
def test_exports_follow_the_index(dataset: Dataset, tmp_path: Path) -> None:
    dataset.relabel({"a/clip0.mp4": "zebra"})
    dataset._run("export", dataset.out, "--to", "npz", "--out", tmp_path / "npz", code=0)
    found = {}
    for path in (tmp_path / "npz").rglob("*.npz"):
        with np.load(path) as sample:
            found[str(sample["key"])] = str(sample["label"])
            assert dataset.classes()[sample["label_index"]] == str(sample["label"])
    assert found == dataset.labels()


def test_training_follows_the_index(dataset: Dataset) -> None:
    from train.data.table import load_table

    dataset.relabel({"a/clip0.mp4": "zebra"})
    table = load_table(str(dataset.out), val_share=0)
    found = {
        key: table.classes[label]
        for key, label in zip(table.key_N.to_pylist(), table.label_N.tolist(), strict=True)
    }
    assert found == dataset.labels()
    assert "zebra" in found.values()


def test_relabel_into_the_samples(dataset: Dataset) -> None:
    """What an earlier relabel left in the samples is brought up to date as well."""
    dataset.relabel({"a/clip0.mp4": "b"})
    before, members = dataset.hashes(), dataset.members()
    dataset.relabel({"b/clip1.mp4": "c", "b/clip3.mp4": "b"}, "--cls")
    keys = dataset.keys_of("a/clip0.mp4") | dataset.keys_of("b/clip1.mp4")
    assert _changed(before, dataset.hashes()) == dataset.shards_of(keys)
    assert dataset.told() == {key: (label, label) for key, label in dataset.labels().items()}
    changed = _changed(members, dataset.members())
    assert changed == {f"{key}.{suffix}" for key in keys for suffix in ("cls", "json")}
    assert list(dataset.members()) == list(members)
    for name in changed - {f"{key}.cls" for key in keys}:
        old, new = json.loads(members[name]), json.loads(dataset.members()[name])
        assert _changed(old, new) == {"label", "label_index"}
    dataset.check_deep()
    again = dataset.hashes()
    assert "0 clips have another label" in dataset.relabel({"b/clip1.mp4": "c"}, "--cls")
    assert dataset.hashes() == again


def test_labels_for_a_dataset_that_had_none(bare: Dataset, video: Video) -> None:
    labels = {f"{'ab'[n % 2]}/clip{n}.mp4": f"class {n % 3}" for n in range(6)}
    some = dict(list(labels.items())[:2])
    assert "--cls every sample needs a label, and 16 would" in bare.relabel(some, "--cls", code=2)
    bare.relabel(some)
    assert sorted(set(bare.labels().values())) == ["", "class 0", "class 1"]
    assert set(bare.told().values()) == {("", "")}
    bare.check_deep()
    video(bare.src / "a" / "new.mp4", 7, 6)
    bare.extract()  # labels may be partial, and no sample has a .cls
    bare.check_deep()
    assert set(bare.told().values()) == {("", "")}
    bare.relabel({**labels, "a/new.mp4": "class 1"}, "--cls")
    assert bare.told() == {key: (label, label) for key, label in bare.labels().items()}
    assert len(bare.told()) == 26
    bare.check_deep()
    video(bare.src / "a" / "newer.mp4", 8, 6)
    assert "has a label (.cls), and 2 of the clips to make have none" in bare.extract(code=2)
    bare.check_deep()


def test_the_order_of_classes_is_given(dataset: Dataset, tmp_path: Path) -> None:
    listed = tmp_path / "classes.txt"
    for text, problem in (
        ("b\na\nc\n", "does not begin with the 2 classes"),
        ("a\nb\nd\n", "lacks c"),
        ("a\nb\nc\nc\n", "has a class twice"),
    ):
        listed.write_text(text)
        assert problem in dataset.relabel({"a/clip0.mp4": "c"}, "--classes", listed, code=2)
    listed.write_text("a\nb\nz\nc\n")
    dataset.relabel({"a/clip0.mp4": "c"}, "--classes", listed)
    assert dataset.classes() == ["a", "b", "z", "c"]
    dataset.check_deep()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("path,label\na/clip0.mp4,x\na/clip0.mp4,y\n", "a/clip0.mp4 more than once"),
        ("path,key,label\na,b,c\n", "has both columns key and path"),
        ("path,label\nnowhere.mp4,x\n", "labels no clip"),
        ('path,label\na/clip0.mp4,"x\ny"\n', "holds a line break"),
        ("path,label\na/clip0.mp4,  \n", "nothing but blanks"),
    ],
)
def test_a_table_that_cannot_be_used_changes_nothing(
    text: str, problem: str, template: Dataset, tmp_path: Path, tree: Any
) -> None:
    table, before = tmp_path / "table.csv", tree(template.out)
    table.write_text(text)
    ended = template.cli("relabel", template.out, table)
    assert (ended.exit_code, problem in ended.stderr) == (2, True), ended.stderr
    assert tree(template.out) == before


def _names(value: Any, found: set[str]) -> set[str]:
    """All text in what JSON or a table holds."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            _names(item, found)
    elif isinstance(value, str):
        found.add(value)
    return found


def _traces(out: Path, word: str) -> list[str]:
    """Files below `out` in which a word is, packed or not."""
    found = []
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text += "\n".join(_names(pq.read_table(path).to_pylist(), set())).encode()
        if word.encode() in text + path.name.encode():
            found.append(path.name)
    return found


def test_remove_takes_all_traces_and_stays(dataset: Dataset) -> None:
    before, members = dataset.hashes(), dataset.members()
    whole, single = dataset.keys_of("a/clip0.mp4"), min(dataset.keys_of("b/clip1.mp4"))
    gone = whole | {single}
    touched = dataset.shards_of(gone)
    said = dataset.remove("a/clip0.mp4", single, "b/broken.mp4")
    assert "removed: 5 samples and 1 failures" in said
    assert _changed(before, dataset.hashes()) == touched
    left = {n: data for n, data in members.items() if n.partition(".")[0] not in gone}
    assert dataset.members() == left
    assert list(dataset.members()) == list(left)
    assert _traces(dataset.out, "clip0") == _traces(dataset.out, "broken") == []
    assert _traces(dataset.out, single) == []
    assert dataset.table("failures.parquet") == []
    assert {row["path"] for row in dataset.table("manifest.parquet")} == {
        f"{'ab'[n % 2]}/clip{n}.mp4" for n in range(1, 6)
    }
    dataset.check_deep()
    after = {p: p.read_bytes() for p in dataset.out.rglob("*") if p.is_file()}
    dataset.extract()
    assert {p: p.read_bytes() for p in dataset.out.rglob("*") if p.is_file()} == after


@pytest.mark.slow
def test_what_was_removed_can_be_let_back(dataset: Dataset) -> None:
    keys, single = dataset.keys_of("a/clip0.mp4"), min(dataset.keys_of("b/clip1.mp4"))
    members = dataset.members()
    dataset.remove("a/clip0.mp4", single)
    assert "2 had been removed already" in dataset.remove("a/clip0.mp4", single)
    assert "lift the path of the file" not in dataset.lift(single)
    assert "1 of 1 names were not removed" in dataset.lift("b/clip3.mp4", code=2)
    dataset.extract()
    assert dataset.keys() == {name.partition(".")[0] for name in members} - keys
    dataset.lift("a/clip0.mp4")
    dataset.extract("--retry-failed")
    assert dataset.members() == members
    dataset.check_deep()


def test_unknown_names_are_told_before_anything_is_touched(template: Dataset, tree: Any) -> None:
    before = tree(template.out)
    said = template.remove("a/clip0.mp4", "nope", "a/none.mp4", code=2)
    assert "2 of 3 names are not in" in said
    assert "a/none.mp4, nope" in said
    assert tree(template.out) == before


def test_the_keys_may_come_from_a_pipe(dataset: Dataset) -> None:
    from click.testing import CliRunner

    from flowprep.cli import main

    arguments = ["remove", str(dataset.out), "--keys", "-"]
    done = CliRunner().invoke(main, arguments, input="a/clip0.mp4\r\n\n")
    assert (done.exit_code, "removed: 4 samples" in done.output) == (0, True)


def test_a_shard_keeps_its_failure_when_its_samples_go(dataset: Dataset) -> None:
    rows = dataset.table("failures.parquet")
    shard = rows[0]["shard"]
    gone = {row["key"] for row in dataset.table("index.parquet") if row["shard"] == shard}
    assert gone
    dataset.remove(*gone)
    assert dataset.table("failures.parquet") == rows
    assert not (dataset.out / f"{shard}.tar").exists()
    dataset.check_deep()
    dataset.remove(rows[0]["key"])
    assert not list(dataset.out.rglob(f"{shard}.*"))
    dataset.check_deep()


@pytest.mark.slow
def test_everything_goes_and_comes_back(dataset: Dataset) -> None:
    members = dataset.members()
    paths = {row["path"] for row in dataset.table("plan.parquet")}
    dataset.remove(*paths)
    assert dataset.members() == {}
    dataset.check_deep()
    dataset.extract()
    assert dataset.members() == {}
    dataset.lift(*paths)
    dataset.extract()
    assert dataset.members() == members
    dataset.check_deep()


def test_what_goes_whole_needs_no_room(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A takedown on a full disk makes room."""
    monkeypatch.setattr("flowprep.run.change.free_bytes", lambda _: 0)
    key = min(dataset.keys())
    shards = {r["key"]: r["shard"] for r in dataset.table("plan.parquet")}
    assert [*shards.values()].count(shards[key]) > 1
    assert "make room" in dataset.remove(key, code=2)
    whole = [k for k, shard in shards.items() if shard == shards[key]]
    dataset.remove(*whole)
    assert not set(whole) & dataset.keys()
    dataset.check_deep()


def test_the_list_of_what_was_removed_is_not_lost_in_silence(dataset: Dataset) -> None:
    dataset.remove("a/clip0.mp4")
    path = dataset.out / "_flowprep" / "removed.parquet"
    data = path.read_bytes()
    empty = io.BytesIO()
    pq.write_table(pq.read_table(path).slice(0, 0), empty)
    for damage in (None, b"", empty.getvalue()):
        path.unlink(missing_ok=True)
        if damage is not None:
            path.write_bytes(damage)
        assert "removed.parquet" in dataset.verify(code=1)
        assert "nothing else tells what was removed" in dataset.extract(code=2)
        assert "nothing else tells what was removed" in dataset.repair(code=2)
    path.write_bytes(data)
    dataset.check_deep()


def test_a_failure_that_was_relabelled_keeps_its_label(dataset: Dataset, video: Video) -> None:
    dataset.relabel({"b/broken.mp4": "a", "b/clip1.mp4": "a"})
    tars = dataset.hashes()
    dataset.extract()
    assert dataset.hashes() == tars
    video(dataset.src / "b" / "broken.mp4", 9, 3)
    dataset.extract("--retry-failed")
    (key,) = dataset.keys_of("b/broken.mp4")
    assert dataset.labels()[key] == "a"
    assert dataset.told()[key] == ("a", "a")
    assert {dataset.labels()[key] for key in dataset.keys_of("b/clip1.mp4")} == {"a"}
    dataset.check_deep()


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)


def _damage(dataset: Dataset, path: str) -> None:
    """Hit the first sample of a source file."""
    row = next(r for r in dataset.table("index.parquet") if r["path"] == path)
    _flip(dataset.out / f"{row['shard']}.tar", row["rgb_offset"] + 100)


def test_repaired_after_relabel_and_remove(dataset: Dataset, tree: Any) -> None:
    dataset.relabel({"a/clip0.mp4": "new", "b/clip1.mp4": "a"})
    dataset.remove("a/clip2.mp4", min(dataset.keys_of("b/clip3.mp4")))
    before = tree(dataset.out)
    tables = [dataset.out / "_flowprep" / n for n in ("classes.txt", "manifest.parquet")]
    _damage(dataset, "a/clip0.mp4")
    tables[0].unlink()
    dataset.repair()
    assert tree(dataset.out) == before
    _damage(dataset, "b/clip3.mp4")
    shutil.rmtree(dataset.out / "_flowprep" / "shards")
    tables[1].write_bytes(b"")
    dataset.repair()
    assert tree(dataset.out) == before


def test_classes_that_no_sample_has_are_kept(dataset: Dataset) -> None:
    """Nothing but classes.txt and dataset.json tells them."""
    dataset.relabel({f"a/clip{n}.mp4": "new" for n in (0, 2, 4)})
    dataset.relabel({f"a/clip{n}.mp4": "b" for n in (0, 2, 4)})
    assert dataset.classes() == ["a", "b", "new"]
    (dataset.out / "_flowprep" / "dataset.json").unlink()
    dataset.extract()
    assert dataset.classes() == ["a", "b", "new"]
    (dataset.out / "_flowprep" / "dataset.json").unlink()
    dataset.repair()
    assert dataset.classes() == ["a", "b", "new"]
    (dataset.out / "_flowprep" / "classes.txt").unlink()
    (dataset.out / "_flowprep" / "dataset.json").unlink()
    dataset.repair()
    assert dataset.classes() == ["a", "b"]
    dataset.check_deep()


@pytest.mark.parametrize(
    "loss", ["cut", *(pytest.param(n, marks=pytest.mark.slow) for n in ("flip", "gone"))]
)
def test_damage_does_not_hold_up_a_removal(loss: str, dataset: Dataset) -> None:
    """What is damaged stays known as that, and can be repaired."""
    rows = dataset.table("index.parquet")
    shard = max({r["shard"] for r in rows}, key=lambda s: sum(r["shard"] == s for r in rows))
    first, second, *_ = (row for row in rows if row["shard"] == shard)
    members = dataset.members()
    tar = dataset.out / f"{shard}.tar"
    if loss == "flip":
        _flip(tar, second["flow_offset"])
    elif loss == "cut":
        tar.write_bytes(tar.read_bytes()[: second["flow_offset"]])
    else:
        tar.unlink()
    dataset.remove(first["key"])
    assert second["key"] in dataset.verify(code=1)
    dataset.repair()
    left = {n: data for n, data in members.items() if n.partition(".")[0] != first["key"]}
    assert dataset.members() == left
    dataset.check_deep()


@pytest.mark.slow
def test_damage_does_not_hold_up_new_labels(dataset: Dataset) -> None:
    _damage(dataset, "a/clip0.mp4")
    key = next(r["key"] for r in dataset.table("index.parquet") if r["path"] == "a/clip0.mp4")
    dataset.relabel({"a/clip0.mp4": "b"}, "--cls")
    assert key in dataset.verify(code=1)
    dataset.repair()
    dataset.check_deep()
    dataset.relabel({"a/clip0.mp4": "b"}, "--cls")
    assert dataset.told() == {key: (label, label) for key, label in dataset.labels().items()}
    dataset.check_deep()


def test_a_forged_label_is_found(dataset: Dataset) -> None:
    """Only the label that the index knows of may be in a sample."""
    dataset.relabel({"a/clip0.mp4": "b"})
    _forge_label(dataset, "a/clip0.mp4")
    findings = dataset.deep_findings()
    assert {(finding.code, finding.key[:5]) for finding in findings} == {("sample", "clip0")}
    assert "label is ('b', 1), the index says that the tar has ('a', 0)" in {
        finding.message for finding in findings
    }


def _forge_label(dataset: Dataset, path: str) -> None:
    """Let one json tell the label of the index, all hashes computed anew."""
    from flowprep.shard.index import canonical

    row = next(r for r in dataset.table("index.parquet") if r["path"] == path)
    internal, tar = dataset.out / "_flowprep", dataset.out / f"{row['shard']}.tar"
    data = tar.read_bytes()
    place = slice(row["json_offset"], row["json_offset"] + row["json_size"])
    told = data[place].replace(b'"label": "a", "label_index": 0', b'"label": "b", "label_index": 1')
    data = data[: place.start] + told + data[place.stop :]
    tar.write_bytes(data)
    sample = data[row["sample_offset"] : row["sample_offset"] + row["sample_size"]]
    mark = json.loads((internal / "shards" / f"{row['shard']}.json").read_bytes())
    entry = next(s for s in mark["samples"] if s["key"] == row["key"])
    entry["sha256"] = hashlib.sha256(sample).hexdigest()
    mark["tar_sha256"] = hashlib.sha256(data).hexdigest()
    (internal / "shards" / f"{row['shard']}.json").write_bytes(canonical(mark))
    index = pq.read_table(internal / "index.parquet")
    rows = [r | {"sha256": entry["sha256"]} if r["key"] == row["key"] else r
            for r in index.to_pylist()]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=index.schema), internal / "index.parquet")
    body = json.loads((internal / "dataset.json").read_bytes())
    del body["sha256"]
    body["shards"][row["shard"]] = hashlib.sha256(canonical(mark)).hexdigest()
    body["files"]["index.parquet"] = _sha256(internal / "index.parquet")
    signed = body | {"sha256": hashlib.sha256(canonical(body)).hexdigest()}
    (internal / "dataset.json").write_bytes(canonical(signed))


def test_what_is_not_finished_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.out / "_flowprep" / "dataset.json").unlink()
    assert "is not finished, or damaged" in dataset.remove("a/clip0.mp4", code=2)
    assert "is not finished, or damaged" in dataset.relabel({"a/clip0.mp4": "b"}, code=2)
    nowhere = Dataset(dataset.src, tmp_path / "nowhere", dataset.cli)
    assert "no such folder" in nowhere.remove("a", code=2)
    assert not nowhere.out.exists()


def test_another_command_that_has_the_dataset_is_waited_for(dataset: Dataset) -> None:
    import fcntl

    with (dataset.out / "_flowprep" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in use by another flowprep command" in dataset.remove("a/clip0.mp4", code=2)
        said = dataset.relabel({"a/clip0.mp4": "b"}, code=2)
        assert "in use by another flowprep command" in said


@dataclass
class Walk:
    """Steps in some order, and what has to be there: path of each video -> label, what is out.

    Each step returns the tars that it may change.
    """

    dataset: Dataset
    video: Video
    rng: random.Random
    labels: dict[str, str]
    out_paths: set[str] = field(default_factory=set)
    out_keys: dict[str, str] = field(default_factory=dict)  # key -> path

    def take(self, name: str) -> None:
        before = self.dataset.hashes()
        allowed = getattr(self, name)(self.rng.choice(self._there()))
        after = self.dataset.hashes()
        assert _changed(before, after) <= allowed, name
        if name == "repair":
            assert {n: h for n, (h, _) in after.items()} == {n: h for n, (h, _) in before.items()}
        self.dataset.check_deep()
        self._check()

    def _there(self) -> list[str]:
        return sorted(self.labels.keys() - self.out_paths)

    def _check(self) -> None:
        there = {row["key"]: row["path"] for row in self.dataset.table("index.parquet")}
        assert set(there.values()) == set(self._there())
        assert not there.keys() & self.out_keys.keys()
        assert self.dataset.keys() == there.keys()
        assert self.dataset.labels() == {key: self.labels[path] for key, path in there.items()}
        listed = {row["path"] for row in self.dataset.table("manifest.parquet")}
        failed = {row["path"] for row in self.dataset.table("failures.parquet")}
        assert listed == set(there.values()) | failed

    def relabel(self, path: str) -> set[str]:
        self.labels[path] = self.rng.choice("abcd")
        to_cls = self.rng.random() < 0.5
        self.dataset.relabel({path: self.labels[path]}, *["--cls"] * to_cls)
        return set(self.dataset.hashes()) if to_cls else set()

    def append(self, path: str) -> set[str]:
        before, name = (
            set(self.dataset.hashes()),
            f"{self.rng.choice('abe')}/{len(self.labels)}.mp4",
        )
        self.video(self.dataset.src / name, len(self.labels), 6)
        self.dataset.extract()
        self.labels[name] = name[0]
        return set(self.dataset.hashes()) - before

    def remove(self, path: str) -> set[str]:
        touched = self.dataset.shards_of(self.dataset.keys_of(path))
        if len(self._there()) > 2:
            self.dataset.remove(path)
            self.out_paths.add(path)
        return touched

    def remove_key(self, path: str) -> set[str]:
        key, *others = sorted(self.dataset.keys_of(path))
        touched = self.dataset.shards_of({key})
        if others:
            self.dataset.remove(key)
            self.out_keys[key] = path
        return touched

    def lift(self, _: str) -> set[str]:
        """It comes back with the label that the source has."""
        before = set(self.dataset.hashes())
        for key, path in list(self.out_keys.items())[:1]:
            if path not in self.out_paths:
                self.dataset.lift(key)
                del self.out_keys[key]
                self.dataset.extract()
                assert self.dataset.labels()[key] == path[0]
                self.dataset.relabel({path: self.labels[path]})
        return set(self.dataset.hashes()) - before

    def repair(self, path: str) -> set[str]:
        _damage(self.dataset, path)
        self.dataset.repair()
        return self.dataset.shards_of(self.dataset.keys_of(path))

    def retry(self, _: str) -> set[str]:
        before = set(self.dataset.hashes())
        self.dataset.extract("--retry-failed")
        assert set(self.dataset.hashes()) == before
        return {f"{row['shard']}.tar" for row in self.dataset.table("failures.parquet")}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_steps_in_any_order(seed: int, dataset: Dataset, video: Video) -> None:
    labels = {row["path"]: row["label"] for row in dataset.table("index.parquet")}
    walk = Walk(dataset, video, random.Random(seed), labels)
    for _ in range(20):
        steps = ["relabel", "append", "remove", "remove_key", "lift", "repair", "retry"]
        walk.take(walk.rng.choice(steps))
    dataset.verify("--deep", "--recompute", 5, "--src", dataset.src)
