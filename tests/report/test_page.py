"""The page of `flowprep report`, read as a browser would and against the tables it is about."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import chromium
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hostile_names import IMAGE, SCRIPT, TURNED_SHOWN

from flowprep.errors import ADVICE

Cli = Callable[..., Any]
VOID = {"meta", "img", "input", "rect", "line", "path"}


class Page(HTMLParser):
    """Elements as (name, attributes, text within); complains about what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.found.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in VOID
        one = (tag, {name: value or "" for name, value in attrs}, list[str]())
        self.found.append(one)
        self._open.append(one)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, texts in self._open:
            texts.append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        return [
            "".join(texts)
            for name, given, texts in self.found
            if name == tag and attributes.items() <= given.items()
        ]

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [given for name, given, _ in self.found if name == tag]

    def rows(self, caption: str) -> list[list[str]]:
        """The cells of the table below this caption."""
        names = [(name, "".join(texts)) for name, _, texts in self.found]
        start = names.index(("caption", caption))
        rows: list[list[str]] = []
        for name, text in names[start + 1 :]:
            if name == "table":
                break
            if name == "tr":
                rows.append([])
            elif name == "td":
                rows[-1].append(text)
        return [row for row in rows if row]


@pytest.fixture(scope="module")
def report(cli: Cli, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def write(*options: object, out: Path = made) -> Path:
        path = tmp_path_factory.mktemp("page") / "report.html"
        result = cli("report", out, "--out", path, *options)
        assert result.exit_code == 0, result.output
        return path

    return write


@pytest.fixture(scope="module")
def written(report: Callable[..., Path]) -> Path:
    return report("--samples", 4)


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def index(made: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(made / "_flowprep" / "index.parquet").to_pylist()
    return rows


def test_the_totals_are_those_of_the_tables(
    page: Page, made: Path, index: list[dict[str, Any]]
) -> None:
    totals = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    tar_bytes = sum(path.stat().st_size for path in made.glob("*.tar"))
    assert totals["planned clips"] == "15"
    assert totals["samples"] == "12" == str(len(index))
    assert totals["failed clips"] == "3"
    assert totals["frames"] == str(sum(row["n_frames"] for row in index))
    assert totals["flows"] == str(sum(row["n_flows"] for row in index))
    assert float(totals["size"].split()[0]) == pytest.approx(tar_bytes / 1e3, abs=0.5)
    seconds = sum(row["end_s"] - row["start_s"] for row in index)
    assert float(totals["duration"].split()[0]) == pytest.approx(seconds, rel=0.01)
    assert (totals["splits"], totals["classes"]) == ("2", "4")


def test_classes_and_splits_are_counted(page: Page, index: list[dict[str, Any]]) -> None:
    classes = {row[0]: int(row[1]) for row in page.rows("All 4 classes")}
    labels = Counter(row["label"] for row in index)
    assert sorted(classes.values()) == sorted(labels.values())
    assert classes[SCRIPT] == labels[SCRIPT]
    assert classes[IMAGE] == labels[IMAGE]
    splits = {row[0]: row for row in page.rows("2 splits")}
    for name in ("train", "val"):
        rows = [row for row in index if row["split"] == name]
        found = [len(rows), len({r["label"] for r in rows}), sum(r["n_frames"] for r in rows)]
        assert [int(cell) for cell in splits[name][1:4]] == found


def test_each_histogram_has_every_sample(page: Page) -> None:
    """Bars tell what they stand for: "0 s to 0.2 s: 12 samples"."""
    told = [re.fullmatch(r"(.+): (\d+) samples", text) for text in page.texts("title")]
    bars = [int(match[2]) for match in told if match]
    assert len(bars) == 4 * 24 + 6
    assert [sum(bars[i : i + 24]) for i in (0, 24, 48, 72)] == [12] * 4
    assert sum(bars[96:]) == 12


def test_failures_are_told_by_reason_with_what_to_do(page: Page, made: Path) -> None:
    failed = pq.read_table(made / "_flowprep" / "failures.parquet").to_pylist()
    rows = {row[0]: row for row in page.rows("Clips that could not be made, by reason")}
    assert {name: int(row[1]) for name, row in rows.items()} == Counter(r["reason"] for r in failed)
    for name, row in rows.items():
        assert row[-1] == ADVICE[name]
    shown = {row[0] for row in page.rows("All are in _flowprep/failures.parquet")}
    assert shown <= {row["path"] for row in failed}


def test_no_text_of_strangers_is_markup(page: Page, written: Path) -> None:
    names = Counter(name for name, _, _ in page.found)
    assert names["script"] == 1
    assert names["b"] == 0
    for name, given, _ in page.found:
        assert not [attribute for attribute in given if attribute.startswith("on")], name
        assert given.get("src", "data:").startswith("data:image/jpeg;base64,"[:5])
        assert given.get("href", "#").startswith("#")
        assert "style" not in given
    shown = page.texts("bdi")
    assert SCRIPT in shown
    assert IMAGE in shown
    assert TURNED_SHOWN in shown
    text = written.read_text(encoding="utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\u2028]", text)


def test_nothing_may_be_loaded_and_only_what_is_there_may_run(page: Page, written: Path) -> None:
    policies = [
        given["content"]
        for given in page.attributes("meta")
        if given.get("http-equiv") == "Content-Security-Policy"
    ]
    (policy,) = policies
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    text = written.read_text(encoding="utf-8")
    for kind in ("script", "style"):
        (inner,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    assert "://" not in text


def _frames(made: Path, key: str, suffix: str) -> list[np.ndarray]:
    """The frames of a member, by tarfile and PyAV alone."""
    for path in made.glob("*.tar"):
        with tarfile.open(path) as tar:
            if f"{key}.{suffix}" in tar.getnames():
                file = tar.extractfile(f"{key}.{suffix}")
                assert file is not None
                with av.open(BytesIO(file.read())) as video:
                    return [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
    raise AssertionError(key)


def _sheets(page: Page) -> Iterator[tuple[dict[str, str], np.ndarray]]:
    """(what the player is told, its sheet)."""
    sources = [given["src"] for given in page.attributes("img") if given.get("alt") == ""]
    players = [given for given in page.attributes("div") if given.get("class") == "player"]
    for given, source in zip(players, sources, strict=True):
        data = np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8)
        yield given, cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(float)


def test_the_pictures_are_the_frames_above_their_flow(page: Page, made: Path) -> None:
    """The flow goes to the right by DX_PX everywhere: red, at its full length."""
    keys = page.texts("h3")
    assert len(keys) == 4
    for key, (given, sheet) in zip(keys, _sheets(page), strict=True):
        frames = _frames(made, key, "rgb.mp4")
        n, cell_height = int(given["data-n"]), int(given["data-cell-height"])
        assert n == len(frames) - 1 == 5
        for i, frame in enumerate(frames[:n]):
            left, height, width = i * int(given["data-cell-width"]), *frame.shape[:2]
            shown = sheet[:height, left : left + width]
            errors = [float(np.abs(shown - other).mean()) for other in frames]
            assert np.argmin(errors) == i
            assert errors[i] < 8
            flow = sheet[cell_height : cell_height + height, left : left + width]
            assert np.abs(flow - (255, 0, 0)).max() < 12


def test_the_same_seed_shows_the_same(report: Callable[..., Path], written: Path) -> None:
    assert report("--samples", 4).read_bytes() == written.read_bytes()
    others = [Page(report("--samples", 9, "--seed", s).read_text()).texts("h3") for s in (1, 2)]
    assert others[0] != others[1]


def test_chosen_samples_come_first_and_no_other_tar_is_read(
    report: Callable[..., Path], made: Path, index: list[dict[str, Any]], tmp_path: Path
) -> None:
    one, other = (row for row in (index[-1], index[0]))
    assert one["shard"] != other["shard"]
    options = ["--samples", 0, "--key", one["key"], "--key", one["key"]]
    whole = report(*options)
    assert Page(whole.read_text()).texts("h3") == [one["key"]]
    copy = Path(shutil.copytree(made, tmp_path / made.name))
    for path in copy.glob("*.tar"):
        if path.stem != one["shard"]:
            path.unlink()
    assert report(*options, out=copy).read_bytes() == whole.read_bytes()


def test_a_damaged_dataset_is_shown_with_its_doubts(
    report: Callable[..., Path], made: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / made.name))
    tars = sorted(copy.glob("*.tar"))
    tars[0].unlink()
    tars[1].write_bytes(b"\0" * tars[1].stat().st_size)
    table = pq.read_table(copy / "_flowprep" / "index.parquet")
    pq.write_table(table.slice(0, 11), copy / "_flowprep" / "index.parquet")
    for name in ("config.toml", "plan.parquet", "classes.txt"):
        (copy / "_flowprep" / name).write_bytes(b"\xff damaged")
    (copy / "_flowprep" / "runs.jsonl").write_bytes(b'{"cut": ')
    page = Page(report("--samples", 20, out=copy).read_text(encoding="utf-8"))
    doubts = "\n".join(page.texts("p", **{"class": "doubt"}))
    assert "index.parquet is not what dataset.json vouches for" in doubts
    assert f"{tars[0].name} is missing" in doubts
    assert "config.toml does not read" in doubts
    assert doubts.count("It does not read: ") >= 2
    assert len(page.texts("h3")) == 11
    (copy / "_flowprep" / "pending.json").touch()
    doubts = "\n".join(Page(report(out=copy).read_text()).texts("p", **{"class": "doubt"}))
    assert "A relabel or remove is not finished" in doubts
    (copy / "_flowprep" / "dataset.json").unlink()
    page = Page(report(out=copy).read_text(encoding="utf-8"))
    assert "It is not finished" in page.texts("p", **{"class": "doubt"})[0]


def test_a_dataset_without_a_sample(
    report: Callable[..., Path], made: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / made.name))
    path = copy / "_flowprep" / "index.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    page = Page(report(out=copy).read_text(encoding="utf-8"))
    totals = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert (totals["samples"], totals["failed clips"], totals["planned clips"]) == ("0", "3", "15")


def test_runs_and_stages_are_told(page: Page, made: Path) -> None:
    line = json.loads((made / "_flowprep" / "runs.jsonl").read_text())
    (row,) = page.rows("1 run")
    assert row[:2] == [line["started"], "done"]
    assert [int(cell) for cell in (row[3], row[4], row[6])] == [15, line["flows"], 1]
    stages = page.rows("By stage, all runs together; stages of a worker overlap")
    assert {row[0] for row in stages} == set(line["cpu_s"])
    assert max(line["cpu_s"], key=line["cpu_s"].__getitem__) == stages[0][0]


def test_suspects_of_the_index_and_of_the_frames(
    report: Callable[..., Path], cli: Cli, tmp_path: Path, made: Path
) -> None:
    """Still clips by flow and by equal frames, saturated ones, a black one."""
    copy = Path(shutil.copytree(made, tmp_path / made.name))
    path = copy / "_flowprep" / "index.parquet"
    table = pq.read_table(path)
    n = table.num_rows
    changes: dict[str, list[Any]] = {
        "flow_mean_px": [0.01] + [3.0] * (n - 1),
        "identical_pairs": [0, 5] + [0] * (n - 2),
        "flow_saturated_share": [0.0] * (n - 2) + [0.5, 0.02],
    }
    for name, values in changes.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, [values])
    pq.write_table(table, path)
    keys = table["key"].to_pylist()
    page = Page(report(out=copy).read_text(encoding="utf-8"))
    summaries = page.texts("summary")
    assert summaries[0].endswith("equal frames only: 2 samples")
    assert summaries[1].endswith("beyond the bound: 2 samples")
    tables = page.rows("All of them")
    assert [row[0] for row in tables] == keys[:2]
    assert keys[-2] in "".join(page.texts("details"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--key", "nope"], "no sample 'nope'"),
        (["--key", "a.mp4"], "a.mp4 has 2 clips"),
        (["--samples", "60", "--key", "a-1"], "too many"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    options: list[str], says: str, cli: Cli, made: Path, tmp_path: Path
) -> None:
    result = cli("report", made, "--out", tmp_path / "r.html", *options)
    assert result.exit_code == 2
    assert says in result.output
    assert not list(tmp_path.iterdir())


def test_the_page_does_not_go_into_the_dataset(cli: Cli, made: Path) -> None:
    result = cli("report", made, "--out", made / "report.html")
    assert (result.exit_code, "lies in the dataset" in result.output) == (2, True)


def test_it_plays_in_a_browser_and_nothing_sticks_out(written: Path, tmp_path: Path) -> None:
    program = chromium.find()
    if program is None:
        pytest.skip("needs Chromium")
    browser = chromium.Browser(program)
    try:
        for width, dark in ((380, False), (1024, True), (1600, False)):
            browser.open(written, width, dark=dark)
            browser.until(lambda: browser.run("players.size") == 4)
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert browser.run(WIDEST) <= width
            assert browser.run(CUT) == []
            assert [url for url in browser.requests() if not url.startswith("data:image/")] == [
                written.as_uri()
            ]
            assert browser.complaints() == []
        first = browser.run(SHOWN)
        browser.until(lambda: browser.run(SHOWN) != first)
        browser.run("document.querySelector('.player button').click()")
        stopped = browser.run(SHOWN)
        time.sleep(0.3)  # some frames long
        assert browser.run(SHOWN) == stopped
        browser.run("document.querySelector('.player button').click()")
        browser.until(lambda: browser.run(SHOWN) != stopped)
        browser.run("document.getElementById('all').click()")
        assert set(browser.run(BUTTONS)) == {"Play"}
        assert browser.complaints() == []
    finally:
        browser.close()


SHOWN = "document.querySelector('.player canvas').toDataURL()"
BUTTONS = "[...document.querySelectorAll('.player button')].map((b) => b.textContent)"
WIDEST = """Math.max(...[...document.querySelectorAll('body *')]
  .filter((e) => !e.closest('.scroll, .overview') && !e.hidden)
  .map((e) => e.getBoundingClientRect().right))"""
CUT = """[...document.querySelectorAll('dd, dt, h1, h2, h3, p, figcaption, summary, button')]
  .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
  .map((e) => e.outerHTML.slice(0, 200))"""
