"""Whole runs under random faults: nothing lost, nothing hung, the same bytes in the end.

    python tests/faults/runs.py [--executor local] [--runs 200] [--first-seed 0] [--at-a-time 2]

Every run extracts the same source, in which two videos are bad: one is no video, one kills the
process that decodes it. While it runs, one to three faults strike at random moments. Then the same
command is run until it ends by itself, once more with --retry-failed when a video was away. The
dataset has to be byte for byte the one of an undisturbed run, its failures the two bad videos.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue

from flowprep.shard.index import load_mark
from flowprep.shard.layout import Layout
from flowprep.synth import Motion, render, write_video

HERE = Path(__file__).parent
PATHS = (HERE / "rename", HERE.parent / "run" / "poison")
CLIP_TIMEOUT_S = 5.0
HUNG_S = 240.0
MAX_RERUNS = 4
N_VIDEOS = 24
BAD = {"segfault-0.mp4": "crashed", "torn.mp4": "not-a-video"}
EXPECTED = 3  # the exit code of a run with failures


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        make_source(Path(folder) / "src")
        slots: Queue[Slot] = Queue()
        for number in range(options.at_a_time):
            slots.put(Slot.prepared(Path(folder), f"slot{number}", options.executor))

        def run_one(seed: int) -> Run:
            slot = slots.get()
            try:
                return slot.run(seed)
            finally:
                slots.put(slot)

        seeds = range(options.first_seed, options.first_seed + options.runs)
        verdicts, struck = Counter[str](), Counter[str]()
        with ThreadPoolExecutor(options.at_a_time) as pool:
            for number, run in enumerate(pool.map(run_one, seeds), start=1):
                verdicts[run.verdict.partition(":")[0]] += 1
                struck.update(run.struck)
                print(f"{number}/{options.runs} seed {run.seed}: {run}", flush=True)  # noqa: T201
    print(f"{options.executor}: {dict(verdicts)}; faults: {dict(struck)}")  # noqa: T201
    return 0 if set(verdicts) == {"same"} else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--at-a-time", type=int, default=2)
    return parser.parse_args()


@dataclass
class Run:
    """One run: which faults struck, and what came of it."""

    seed: int
    struck: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    verdict: str = ""

    def __str__(self) -> str:
        return f"{', '.join(self.struck) or 'nothing'} -> exit {self.codes}, {self.verdict}"


@dataclass(frozen=True)
class Place:
    """Where a run works: a source of its own, and its dataset on a small disk."""

    folder: Path
    environment: dict[str, str]

    @property
    def src(self) -> Path:
        return self.folder / "src"

    @property
    def out(self) -> Path:
        return self.folder / "disk" / "out"

    @property
    def said(self) -> Path:
        return self.folder / "said"

    def processes(self) -> dict[int, str]:
        """pid -> command line of all that the run has started: they inherit its environment."""
        found = {}
        wanted = f"FAULTS_PLACE={self.folder}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = words.decode(errors="replace")
        return found

    def workers(self) -> list[int]:
        marks = ("spawn_main", "ray::_Actor")
        return [pid for pid, words in self.processes().items() if any(m in words for m in marks)]

    def named(self, name: str) -> list[int]:
        return [pid for pid, words in self.processes().items() if f"/{name} " in words]


def make_source(src: Path) -> None:
    src.mkdir()
    for seed in range(N_VIDEOS):
        motion = Motion(dx_px=1.0 + seed % 3)
        write_video(src / f"good-{seed}.mp4", render(motion, 40, 96, 128, seed), 25)
    shutil.copy(src / "good-0.mp4", src / "segfault-0.mp4")
    (src / "torn.mp4").write_bytes(b"no video")


@dataclass(frozen=True)
class Slot:
    """A folder where runs work one after the other: a dataset remembers where its source was."""

    folder: Path
    name: str
    executor: str
    expected: dict[str, str]
    seconds: float

    @classmethod
    def prepared(cls, folder: Path, name: str, executor: str) -> Slot:
        """With the dataset of an undisturbed run, and how long that took."""
        bare = cls(folder, name, executor, {}, 0.0)
        with bare.place() as place:
            began = time.monotonic()
            code, said = bare.end(place, bare.start(place))
            assert code == EXPECTED, said
            check_failures(place.out)
            return cls(folder, name, executor, tree(place.out), time.monotonic() - began)

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        folder = self.folder / self.name
        (folder / "disk").mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", str(folder / "disk")]
        subprocess.run(mount, check=True)
        shutil.copytree(self.folder / "src", folder / "src")
        (folder / "ray").mkdir()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
            "POISON": "1",
            "FAULTS_PLACE": str(folder),
            "RAY_TMPDIR": str(folder / "ray"),
        }
        place = Place(folder, environment)
        try:
            yield place
        finally:
            for pid in place.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["umount", "-l", str(folder / "disk")], check=True)
            shutil.rmtree(folder, ignore_errors=True)

    def start(self, place: Place, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flowprep", "extract", "--src", str(place.src)]
        command += ["--out", str(place.out), "--executor", self.executor, "--workers", "2"]
        command += ["--engine", "cpu", "--size", "native", "--shard-frames", "100", "--quiet"]
        command += ["--clip-timeout", str(CLIP_TIMEOUT_S), *more]
        with place.said.open("w") as said:  # no pipe: a process that is stopped may hold it open
            return subprocess.Popen(
                command,
                env=place.environment,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, place: Place, driver: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Its exit code and what it said. Raises TimeoutExpired when it hangs."""
        try:
            code = driver.wait(HUNG_S)
        except subprocess.TimeoutExpired:
            print(f"hung: {place.processes()}", flush=True)  # noqa: T201
            driver.kill()
            driver.wait()
            raise
        return code, place.said.read_text()

    def run(self, seed: int) -> Run:
        run = Run(seed)
        with self.place() as place:
            try:
                self._disturbed(run, place, random.Random(seed))
                self._brought_to_an_end(run, place)
                run.verdict = self._compared(place)
            except subprocess.TimeoutExpired:
                run.verdict = "hung"
            except Exception as error:  # noqa: BLE001 - told as the verdict
                run.verdict = f"wrong: {error!r}"
        return run

    def _disturbed(self, run: Run, place: Place, choose: random.Random) -> None:
        driver = self.start(place)
        moments = sorted(choose.uniform(0.05, 0.95) for _ in range(choose.randint(1, 3)))
        began, undo = time.monotonic(), contextlib.ExitStack()
        with undo:
            for moment in moments:
                until_s = began + moment * self.seconds - time.monotonic()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    driver.wait(max(0.0, until_s))
                if driver.poll() is not None:
                    break
                fault = choose.choice(FAULTS[self.executor])
                if fault(place, driver, choose, undo):
                    run.struck.append(fault.__name__)
            code, _ = self.end(place, driver)
        run.codes.append(code)

    def _brought_to_an_end(self, run: Run, place: Place) -> None:
        """The same command until it ends as an undisturbed one does."""
        for _ in range(MAX_RERUNS):
            more = ["--retry-failed"] if run.codes[-1] == EXPECTED else []
            if run.codes[-1] == EXPECTED and failures(place.out) == BAD:
                return
            code, said = self.end(place, self.start(place, *more))
            run.codes.append(code)
        if run.codes[-1] != EXPECTED:
            raise AssertionError(f"still exit {run.codes[-1]}: {said[-800:]}")

    def _compared(self, place: Place) -> str:
        check_failures(place.out)
        found = tree(place.out)
        wrong = {n for n in found | self.expected if found.get(n) != self.expected.get(n)}
        return f"differs: {sorted(wrong)}" if wrong else "same"


def failures(out: Path) -> dict[str, str]:
    """Path -> reason, as the commit marks have it."""
    marks = [load_mark(path) for path in out.glob("_flowprep/shards/*.json")]
    return {failure.path: failure.reason for mark in marks for failure in mark.failures}


def check_failures(out: Path) -> None:
    if (found := failures(out)) != BAD:
        raise AssertionError(f"failures are {found}")


def tree(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path != Layout(out).runs  # another for each way to the end
    }


# --- faults: each returns whether it struck ---

Fault = Callable[[Place, "subprocess.Popen[bytes]", random.Random, contextlib.ExitStack], bool]


def _signal_one(pids: list[int], number: int, choose: random.Random) -> bool:
    with contextlib.suppress(ProcessLookupError):
        if pids:
            os.kill(choose.choice(pids), number)
            return True
    return False


def kill_worker(place: Place, driver: object, choose: random.Random, undo: object) -> bool:
    return _signal_one(place.workers(), signal.SIGKILL, choose)


def stop_worker(place: Place, driver: object, choose: random.Random, undo: object) -> bool:
    """For longer than anyone waits."""
    return _signal_one(place.workers(), signal.SIGSTOP, choose)


def kill_driver(
    place: Place, driver: subprocess.Popen[bytes], choose: object, undo: object
) -> bool:
    driver.kill()
    return True


def terminate_driver(
    place: Place, driver: subprocess.Popen[bytes], choose: object, undo: object
) -> bool:
    driver.send_signal(signal.SIGTERM)
    return True


def kill_raylet(place: Place, driver: object, choose: random.Random, undo: object) -> bool:
    return _signal_one(place.named("raylet"), signal.SIGKILL, choose)


def fill_disk(place: Place, driver: object, choose: object, undo: contextlib.ExitStack) -> bool:
    """Until the run has ended."""
    filler = place.folder / "disk" / "filler"
    undo.callback(filler.unlink, missing_ok=True)
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while file.write(bytes(1 << 20)):
            file.flush()
    return True


def fail_rename(place: Place, driver: object, choose: object, undo: contextlib.ExitStack) -> bool:
    """The next one, of whoever comes first (see rename/sitecustomize.py)."""
    flag = place.folder / "fail-rename"
    flag.touch()
    undo.callback(flag.unlink, missing_ok=True)
    return True


def hide_video(
    place: Place, driver: object, choose: random.Random, undo: contextlib.ExitStack
) -> bool:
    """Until the run has ended. Before there is a plan it would be a source without that video."""
    if not (place.out / "_flowprep" / "plan.parquet").exists():
        return False
    video = choose.choice(sorted(place.src.glob("good-*.mp4")))
    away = place.folder / video.name
    video.rename(away)
    undo.callback(away.rename, video)
    return True


COMMON: list[Fault] = [
    *(kill_worker, stop_worker, kill_driver, terminate_driver),
    *(fill_disk, fail_rename, hide_video),
]
FAULTS: dict[str, list[Fault]] = {"local": COMMON, "ray": [*COMMON, kill_raylet]}

if __name__ == "__main__":
    sys.exit(main())
