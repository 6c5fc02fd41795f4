"""Damaged datasets through every reader: found, refused, or read as far as it promises.

    python tests/faults/fuzz_shards.py [--first-seed 0] [--count 1000]

Makes two small datasets with flowprep extract, damages one file of a copy at a time, and reads it
with flowprep.shard.reader, flowprep verify, verify --deep, and the loader that training uses. Every
third damage of a table is signed again, as a forger would. What each may do is in docs/faults.md.
Exit code 1 when one of them does anything else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fenced import MIB, Answer, Fence, Limits
from judge_shard import (
    DATASET,
    DIFFERS,
    FOUND,
    REFUSED,
    SAME,
    SILENT,
    Become,
    Damage,
    Verdict,
    judge,
    ready,
)
from mutate_shard import damage

from flowprep.shard.index import canonical
from flowprep.shard.layout import Layout
from flowprep.synth import Motion, render, write_video

LIMITS = Limits(wall_s=30, memory_bytes=3072 * MIB)  # Arrow reserves 1 GiB at first use
OPTIONS = ("--executor", "local", "--workers", "1", "--engine", "constant", "--size", "native")
MADE_WITH = {
    "x264": (),
    "lossless": ("--rgb-codec", "jpeg", "--flow-codec", "ffv1-flow"),
}
ALLOWED = {
    "iter_samples": (SAME, REFUSED, DIFFERS),  # the form of a tar, not what is in its members
    "load_index": (SAME, REFUSED, DIFFERS),  # the form of the table
    "read_at": (SAME, REFUSED, DIFFERS),  # that the tar is as long as the row says
    "verify": (FOUND,),
    "verify --deep": (FOUND,),
    "train": (SAME, REFUSED, DIFFERS),  # tables by their hash; of samples, key, size and coding
}
"""What each reader promises over damage."""


def make_datasets(folder: Path) -> dict[str, Path]:
    """Two classes of two videos of two clips each, in two ways."""
    for number in range(4):
        path = folder / "videos" / "ab"[number % 2] / f"clip{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, render(Motion(dx_px=number), 12, 48, 64, seed=number), 25)
    for name, options in MADE_WITH.items():
        command = [sys.executable, "-m", "flowprep", "extract", "--src", str(folder / "videos")]
        place = ["--out", str(folder / "pristine" / name), "--clip-frames", "6"]
        subprocess.run([*command, *place, *OPTIONS, *options], check=True, capture_output=True)
    return {name: folder / "pristine" / name for name in MADE_WITH}


@dataclass(frozen=True)
class Job:
    """A damage, and what was done."""

    what: str
    damage: Damage


@dataclass(frozen=True)
class Maker:
    """Makes damages of these datasets, in copies below `work`."""

    datasets: dict[str, Path]
    work: Path

    def job(self, seed: int) -> Job:
        """Damage number `seed`."""
        rng = random.Random(seed)
        pristine = self.datasets[rng.choice(sorted(self.datasets))]
        vouched = set(pristine.rglob("*.*")) - {Layout(pristine).runs}
        files = sorted(path.relative_to(pristine).as_posix() for path in vouched)
        tars = [name for name in files if name.endswith(".tar")]
        name = rng.choice(tars if rng.random() < 0.5 else files)
        there = Damage(pristine, self.work / pristine.name / "out", name)
        if rng.random() < 0.04:
            become: Become = rng.choice(("gone", "pipe", "link", "folder"))
            return Job(f"{seed} {name} {become}", replace(there, become=become))
        whole, other = ((pristine / n).read_bytes() for n in (name, rng.choice(files)))
        what, data = damage(name, whole, other, rng)
        while data == whole:
            what, data = damage(name, whole, other, rng)
        signed = b""
        if name.startswith("_flowprep/") and name != DATASET and rng.random() < 0.4:
            what, signed = f"{what} signed", sign(pristine, name, data)
        return Job(
            f"{seed} {pristine.name}/{name} {what}", replace(there, data=data, signed=signed)
        )


def sign(pristine: Path, name: str, data: bytes) -> bytes:
    """dataset.json with the hash of the damaged file in it."""
    body = json.loads((pristine / DATASET).read_bytes())
    del body["sha256"]
    digest, path = hashlib.sha256(data).hexdigest(), Path(name)
    (body["shards"] if path.parent.name == "shards" else body["files"]).update(
        {path.stem if path.parent.name == "shards" else path.name: digest}
    )
    return canonical(body | {"sha256": hashlib.sha256(canonical(body)).hexdigest()})


@dataclass
class Tally:
    """What came out so far."""

    ended: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    bad: list[str] = field(default_factory=list)
    unnoticed: list[str] = field(default_factory=list)
    n_jobs: int = 0
    worst_cpu: tuple[float, str] = (0.0, "")
    worst_mib: tuple[float, str] = (0.0, "")

    def add(self, job: Job, answer: Answer) -> None:
        self.n_jobs += 1
        self.worst_cpu = max(self.worst_cpu, (answer.cpu_s, job.what))
        self.worst_mib = max(self.worst_mib, (answer.peak_mib, job.what))
        verdict: Verdict | None = answer.value
        wrong = list(_wrong(job.damage, verdict)) if verdict else [answer.ended]
        for reader, ended in (verdict.ended if verdict else {}).items():
            self.ended[reader][ended] += 1
            if ended == DIFFERS and reader == "train":
                self.unnoticed.append(job.what)
        self.bad += [f"{job.what}: {w}" for w in wrong]

    def tell(self) -> None:
        print(f"{self.n_jobs} damages")
        for reader, ended in self.ended.items():
            print(f"  {reader:14}", ", ".join(f"{n} {e}" for e, n in sorted(ended.items())))
        print(f"longest: {self.worst_cpu[0]:.2f} s of a CPU ({self.worst_cpu[1]})")
        print(f"largest: {self.worst_mib[0]:.0f} MiB ({self.worst_mib[1]})")
        print("training took other pictures or labels for:", *self.unnoticed, sep="\n    ")
        print("\n".join(["nothing is wrong"] if not self.bad else ["WRONG:", *self.bad]))


def _wrong(damage: Damage, verdict: Verdict) -> Iterator[str]:
    """What a reader did that it may not."""
    for reader, ended in verdict.ended.items():
        if ended not in ALLOWED[reader] and not (damage.signed and ended in (SILENT, DIFFERS)):
            yield f"{reader} {ended}: {verdict.messages[reader]}"
    is_payload = damage.name.endswith(".tar") or damage.signed
    if verdict.ended["train"] == DIFFERS and not is_payload:
        yield "train differs"
    yield from (f"appeared: {path}" for path in verdict.strays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, Fence(judge, ready, LIMITS) as fence:
        maker = Maker(make_datasets(Path(folder)), Path(folder) / "work")
        for seed in range(options.first_seed, options.first_seed + options.count):
            job = maker.job(seed)
            tally.add(job, fence.ask(job.damage))
    tally.tell()
    sys.exit(bool(tally.bad))


if __name__ == "__main__":
    main()
