"""Some damaged datasets of the many that fuzz_shards.py makes, and the ways in that they showed."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fenced import MIB, Fence, Limits
from fuzz_shards import Maker, Tally, make_datasets, sign
from judge_shard import SAME, Damage, Verdict, judge, ready

from flowprep.errors import FlowprepError
from flowprep.shard.index import load_index
from flowprep.shard.layout import Layout
from flowprep.shard.plan import load_plan
from flowprep.shard.reader import iter_samples, read_at
from flowprep.verify import check
from flowprep.verify.check import verify
from train.data.reader import ShardReader, Span
from train.data.table import load_table

SOME = range(1_000_000, 1_000_050)
INDEX = "_flowprep/index.parquet"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_datasets(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(judge, ready, Limits(wall_s=60, memory_bytes=3072 * MIB)) as fence:
        yield fence


@pytest.fixture
def dataset(datasets: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(datasets["x264"], tmp_path / "dataset"))


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting others for verify --deep would take seconds each time."""
    monkeypatch.setattr(check, "_executor", lambda deep, n_marks: ThreadPoolExecutor(1))


@pytest.fixture
def tar(dataset: Path) -> Path:
    return min(dataset.glob("*.tar"))


def test_a_whole_dataset_reads_the_same_every_time(
    datasets: dict[str, Path], fence: Fence, tmp_path: Path
) -> None:
    """Otherwise the damages below would prove nothing."""
    for name, pristine in datasets.items():
        whole = (pristine / INDEX).read_bytes()
        same = Damage(pristine, tmp_path / name / "out", INDEX, whole)
        verdict: Verdict = fence.ask(same).value
        assert verdict.ended.pop("verify") == verdict.ended.pop("verify --deep") == "silent"
        assert set(verdict.ended.values()) == {SAME}, verdict


def test_a_damaged_dataset_is_found_refused_or_read_as_promised(
    datasets: dict[str, Path], fence: Fence, tmp_path: Path
) -> None:
    maker, tally = Maker(datasets, tmp_path), Tally()
    for seed in SOME:
        job = maker.job(seed)
        tally.add(job, fence.ask(job.damage))
    assert tally.bad == []
    assert all(len(tally.ended[reader]) > 1 for reader in ("iter_samples", "train", "verify"))
    assert tally.worst_mib[0] < 512


def _with_header(tar: Path, change: Callable[[tarfile.TarInfo], object]) -> None:
    """The first member's header, changed and with the checksum that fits."""
    data = tar.read_bytes()
    info = tarfile.TarInfo.frombuf(data[:512], "utf-8", "surrogateescape")
    change(info)
    made = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    tar.write_bytes(made + data[512:])


@pytest.mark.parametrize("size", [10**6, 8**11 - 1, 2**40, 2**62])
def test_a_member_that_lies_about_its_size_is_refused_at_once(tar: Path, size: int) -> None:
    """Python would make room for what the header says."""
    _with_header(tar, lambda info: setattr(info, "size", size))
    with pytest.raises(ValueError, match=f"claims {size:,} bytes"):
        list(iter_samples(tar))


@pytest.mark.parametrize("kind", "12345S67")
def test_what_is_no_plain_file_is_no_member(tar: Path, kind: str) -> None:
    """Links, devices, folders, pipes, sparse files. 7 is an old name of a plain one."""

    def become(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = kind.encode(), "/etc/hostname"

    size = len(tar.read_bytes())
    _with_header(tar, become)
    if kind == "7":
        assert len(list(iter_samples(tar))) > 0
        return
    with pytest.raises(ValueError):
        list(iter_samples(tar))
    assert len(tar.read_bytes()) == size


@pytest.mark.parametrize("size", [10**6, 2**40, 2**62, -1])
@pytest.mark.parametrize("offset", [0, 10**6, 2**62])
def test_a_row_that_leads_out_of_its_tar_is_refused(dataset: Path, size: int, offset: int) -> None:
    layout = Layout(dataset)
    shard, row = load_index(layout.index)[0]
    path, lying = layout.tar(shard), replace(row, rgb_offset=offset, rgb_size=size)
    with pytest.raises(ValueError, match=f"rgb of {row.key} leads out"):
        read_at(path, lying)


NAMES = ["\x1b[2J\x1b[1;1Hall is well", "\udcff\udcfe", "a\nno findings: every byte checked"]


@pytest.mark.parametrize("name", NAMES, ids=["escape", "bytes", "lines"])
def test_names_of_strangers_are_shown_as_what_they_are(
    dataset: Path, tar: Path, cli: Callable[..., Any], name: str
) -> None:
    """They once reached the terminal as they were, or ended verify with a UnicodeEncodeError."""
    _with_header(tar, lambda info: setattr(info, "name", f"{name}.cls"))
    assert any(finding.key == name for finding in verify(dataset, deep=True))
    plain, machine = cli("verify", dataset, "--deep"), cli("verify", dataset, "--deep", "--json")
    assert (plain.exit_code, machine.exit_code) == (1, 1)
    assert all(c.isprintable() for line in plain.stdout.split("\n") for c in line)
    assert "no findings: every byte checked" not in plain.stdout.split("\n")
    assert json.loads(machine.stdout)["findings"]


@pytest.mark.parametrize("name", ["index.parquet", "dataset.json", "classes.txt", "config.toml"])
@pytest.mark.parametrize("kind", ["pipe", "endless", "folder"])
def test_training_opens_plain_files_only(dataset: Path, name: str, kind: str) -> None:
    path = dataset / "_flowprep" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(FlowprepError, match=f"{name} .*not a file|not a file"):
        load_table(str(dataset), val_share=0)


@pytest.mark.parametrize("name", ["index.parquet", "classes.txt", "config.toml"])
def test_training_takes_no_table_that_nobody_vouches_for(dataset: Path, name: str) -> None:
    """Labels swapped in classes.txt would train the wrong network without a word."""
    path = dataset / "_flowprep" / name
    if name == "classes.txt":
        path.write_text("b\na\n")
    elif name == "config.toml":
        path.write_text(path.read_text() + "\n")
    else:
        index = pq.read_table(path)
        labels = pa.array(["b" if v == "a" else "a" for v in index["label"].to_pylist()])
        at = index.schema.get_field_index("label")
        pq.write_table(index.set_column(at, "label", labels), path)
    with pytest.raises(FlowprepError, match=f"{name} is not the one that dataset.json vouches"):
        load_table(str(dataset), val_share=0)


def _signed(dataset: Path, name: str, data: bytes) -> None:
    signed = sign(dataset, name, data)
    (dataset / name).write_bytes(data)
    (dataset / "_flowprep" / "dataset.json").write_bytes(signed)


@pytest.mark.parametrize("change", ["fewer", "text", "nulls"])
def test_a_signed_index_of_another_form_is_refused(dataset: Path, change: str) -> None:
    table = pq.read_table(dataset / INDEX)
    at = table.schema.get_field_index("json_size")
    columns = {
        "fewer": table.drop_columns(["json_size"]),
        "text": table.set_column(at, "json_size", pa.array(["1"] * len(table))),
        "nulls": table.set_column(at, "json_size", pa.nulls(len(table), pa.int64())),
    }
    sink = io.BytesIO()
    pq.write_table(columns[change], sink)
    _signed(dataset, INDEX, sink.getvalue())
    with pytest.raises(FlowprepError, match=r"index\.parquet does not read"):
        load_table(str(dataset), val_share=0)
    with pytest.raises(ValueError, match="not in the form"):
        load_index(dataset / INDEX)
    with pytest.raises(ValueError, match="not in the form"):
        load_plan(dataset / INDEX)


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 50_000, "\xff", "[settings"])
def test_a_signed_config_of_another_form_is_refused(dataset: Path, text: str) -> None:
    _signed(dataset, "_flowprep/config.toml", text.encode("latin-1"))
    with pytest.raises(FlowprepError, match="not TOML"):
        load_table(str(dataset), val_share=0)
    assert verify(dataset) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flow_zero_code", 18.0),
        ("flow_px_per_code", 0.5),
        ("flow_bound_px", 10.0),
        ("flow_map", "i3d"),
        ("flow_bound_px", -1.0),
        ("flow_map", "magic"),
    ],
)
def test_a_coding_that_contradicts_itself_is_refused(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    """A digit changed in the json once scaled the flow that a network was trained on."""
    table = load_table(str(dataset), val_share=0)
    reader = ShardReader(table)
    data = json.loads(reader._member(0, "json").read())
    member = reader._member
    changed = json.dumps(data | {name: value}).encode()
    monkeypatch.setattr(
        reader, "_member", lambda row, of: io.BytesIO(changed) if of == "json" else member(row, of)
    )
    with pytest.raises(ValueError, match=r"do not fit the map|is not usable|unknown flow map"):
        reader.read(0, None, Span(0, 1))
    reader.close()


def test_nothing_nested_reaches_the_stack(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ShardReader(load_table(str(dataset), val_share=0))
    monkeypatch.setattr(reader, "_member", lambda row, of: io.BytesIO(b"[" * 200_000))
    with pytest.raises(ValueError, match="nested too deeply"):
        reader.read(0, None, Span(0, 1))
    reader.close()
