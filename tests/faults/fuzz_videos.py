"""Damaged videos through flowprep's own probe and decoder: a sample, or a reason, nothing else.

    python tests/faults/fuzz_videos.py [--first-seed 0] [--count 2000] [--minutes 0]
    python tests/faults/fuzz_videos.py --guided --minutes 20

Seed n gives the same damaged file every time, so that a run goes on where another stopped. Files
that flowprep crashes on, hangs over or misjudges are kept in --keep, and the exit code is 1.
`--guided` keeps the inputs that reach new lines of flowprep/decode, and damages those further.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import CO_NEWLOCALS
from pathlib import Path
from types import CodeType

import seeds
from fenced import MIB, Answer, Fence, Limits
from judge_video import DECODE_FOLDER, Case, Verdict, judge, ready
from mutate import mutate

SHARED_VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "videos"
LIMITS = Limits(wall_s=30, memory_bytes=2048 * MIB)
MAX_CPU_S = 10
ALWAYS_DISPUTED = ("truncated", "too-large")
"""Reasons for files that PyAV decodes: their header announces more, or they pass a limit."""


@dataclass
class Tally:
    """What came out so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    disputed: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    n_plain: int = 0
    worst_cpu: tuple[float, str] = (0.0, "")
    worst_mib: tuple[float, str] = (0.0, "")
    messages: dict[tuple[str, str], str] = field(default_factory=dict)
    settled: dict[tuple[str, str], str] = field(default_factory=dict)
    arcs: set[tuple[str, int, int]] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)

    def add(self, name: str, answer: Answer) -> str:
        """What is wrong with the answer, "" when nothing is."""
        verdict: Verdict | None = answer.value
        self.worst_cpu = max(self.worst_cpu, (answer.cpu_s, name))
        self.worst_mib = max(self.worst_mib, (answer.peak_mib, name))
        self.outcomes[verdict.outcome if verdict else answer.ended] += 1
        wrong = self._judged(name, verdict) if verdict else answer.ended
        if answer.cpu_s > MAX_CPU_S:
            wrong += f" took {answer.cpu_s:.1f} s of a CPU"
        if wrong:
            self.bad.append(f"{name}: {wrong}")
        return wrong

    def _judged(self, name: str, verdict: Verdict) -> str:
        self.messages.setdefault((verdict.outcome, _words(verdict.message)), name)
        self.n_plain += verdict.plain_frames is not None
        if verdict.is_bug:
            return f"{verdict.outcome}: {verdict.message}"
        if not verdict.is_disputed:
            return ""
        said = f"{verdict.outcome} {verdict.n_frames or ''}".strip()
        self.disputed[verdict.outcome] += 1
        self.settled.setdefault((verdict.outcome, _words(verdict.message)), name)
        if verdict.outcome in ALWAYS_DISPUTED:
            return ""
        return f"PyAV gives {verdict.plain_frames} frames, flowprep {said}: {verdict.message}"

    def learn(self, verdict: Verdict) -> None:
        self.arcs |= verdict.arcs
        self.kinds |= {verdict.kind} - {""}

    def tell(self) -> None:
        total = self.outcomes.total()
        print(f"{total} files; PyAV decodes {self.n_plain} of them without complaint")
        for outcome, count in self.outcomes.most_common():
            print(f"  {outcome:20} {count:6} {count / total:7.1%}")
        for (outcome, words), name in sorted(self.messages.items()):
            print(f"    {outcome}: {words} ({name})")
        print(f"refused although PyAV decodes them: {dict(self.disputed)}")
        for (outcome, words), name in sorted(self.settled.items()):
            print(f"    {outcome}: {words} ({name})")
        print(f"longest: {self.worst_cpu[0]:.2f} s of a CPU ({self.worst_cpu[1]})")
        print(f"largest: {self.worst_mib[0]:.0f} MiB ({self.worst_mib[1]})")
        if self.arcs:
            lines = {(name, line) for name, _, line in self.arcs}
            share = f"{len(lines & LINES)} of {len(LINES)} lines"
            print(f"reached: {share}, {len(self.arcs)} steps; {', '.join(sorted(self.kinds))}")
            print(f"not reached: {', '.join(f'{n}:{line}' for n, line in sorted(LINES - lines))}")
        print("\n".join(["nothing is wrong"] if not self.bad else ["WRONG:", *self.bad]))


@dataclass(frozen=True)
class Files:
    """Whole videos by name."""

    data: dict[str, bytes]

    def pick(self, rng: random.Random) -> str:
        """Small ones more often: they are judged faster."""
        names = list(self.data)
        return rng.choices(names, [1 / (60_000 + len(self.data[n])) for n in names])[0]

    def mutant(self, seed: int) -> tuple[str, bytes]:
        """The damaged file number `seed`, and what was done to which."""
        rng = random.Random(seed)
        name, other = self.pick(rng), self.pick(rng)
        what, data = mutate(self.data[name], self.data[other], rng)
        return f"{seed} {name} {what}", data


def base_files(folder: Path) -> Files:
    """The sample videos beside the checkout, where they are, and small ones of other codecs."""
    shared = sorted(SHARED_VIDEOS.iterdir()) if SHARED_VIDEOS.is_dir() else []
    rendered = [seeds.make_seed(name, folder) for name in seeds.KINDS]
    return Files({path.name: path.read_bytes() for path in [*rendered, *shared]})


class Corpus:
    """Files that each reached something new, the later ones damaged more often."""

    def __init__(self, files: Files) -> None:
        self._files, self._found = files, list[tuple[str, bytes]]()
        self._seen: set[object] = set()

    def __len__(self) -> int:
        return len(self._found)

    def mutant(self, seed: int) -> tuple[str, bytes]:
        if not self._found or seed % 4 == 0:
            return self._files.mutant(seed)
        rng = random.Random(seed)
        at = int(len(self._found) * rng.random() ** 0.5)
        name, data = self._found[at]
        what, damaged = mutate(data, self._files.data[self._files.pick(rng)], rng)
        return f"{seed} {name.split()[1]} ..{what}", damaged

    def learn(self, name: str, data: bytes, verdict: Verdict) -> None:
        """Keep a file that took a new step, or ended in a new way for its kind."""
        new = {*verdict.arcs, (verdict.kind, verdict.outcome, _words(verdict.message))} - self._seen
        if new and len(data) < 200_000:
            self._seen |= new
            self._found.append((name, data))


def _lines(code: CodeType) -> Iterator[int]:
    """Lines of the functions below a module or function."""
    for inner in (c for c in code.co_consts if isinstance(c, CodeType)):
        is_class = not inner.co_flags & CO_NEWLOCALS
        lines = (n for *_, n in inner.co_lines() if n and n != inner.co_firstlineno)
        yield from () if is_class else lines
        yield from _lines(inner)


LINES = {
    (path.name, line)
    for path in Path(DECODE_FOLDER).glob("*.py")
    for line in _lines(compile(path.read_text(encoding="utf-8"), path.name, "exec"))
}
"""(file, line) of the functions of flowprep/decode."""


def _words(message: str) -> str:
    """A message without what differs from file to file."""
    return "".join(letter for letter in message if not letter.isdigit())[-120:]


def main() -> None:
    options = _options()
    stop_s = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
    count = sys.maxsize if options.guided else options.count
    options.keep.mkdir(exist_ok=True)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, Fence(judge, ready, LIMITS) as fence:
        files = base_files(Path(folder))
        corpus = Corpus(files)
        for seed in range(options.first_seed, options.first_seed + count):
            if time.monotonic() > stop_s:
                break
            name, data = (corpus if options.guided else files).mutant(seed)
            answer = fence.ask(Case(data, Path(folder) / "case", options.guided))
            if tally.add(name, answer):
                (options.keep / name.replace(" ", "-")[:120]).write_bytes(data)
                print(tally.bad[-1], flush=True)
            elif options.guided:
                tally.learn(answer.value)
                corpus.learn(name, data, answer.value)
    tally.tell()
    print(f"next: --first-seed {options.first_seed + tally.outcomes.total()}")
    print(f"{len(corpus)} files kept to damage further" if options.guided else "")
    sys.exit(bool(tally.bad))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=0, help="stop after so long; 0: never")
    parser.add_argument("--guided", action="store_true", help="until --minutes have passed")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz_videos")
    return parser.parse_args()


if __name__ == "__main__":
    main()
