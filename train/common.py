"""The machine a run is on: processes, device, seeds, signals, and how errors reach the user."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from flowprep.errors import FlowprepError

T = TypeVar("T")
EXIT_USER, EXIT_INTERRUPTED = 2, 130


@dataclass(frozen=True)
class Place:
    """One process of a run: its rank among `world`, its device, its arithmetic."""

    rank: int
    world: int
    device: torch.device
    bf16: bool

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """bfloat16 where it was asked for, float32 otherwise."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


@contextmanager
def place(device: str, precision: str) -> Iterator[Place]:
    """The place of this process, with the process group that torchrun asked for.

    Raises FlowprepError where CUDA is asked for and missing.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    where = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    bf16 = precision == "bf16" or (precision == "auto" and where.type == "cuda")
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Place(rank, world, where, bf16)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def pick_device(device: str, local_rank: int = 0) -> torch.device:
    """cpu, or this process's GPU. Raises FlowprepError where CUDA is asked for and missing."""
    live = torch.cuda.is_available()
    if device == "cuda" and not live:
        build = torch.version.cuda or "none: this is a CPU build"
        raise FlowprepError(
            f"--device cuda: PyTorch {torch.__version__} sees no CUDA device (its CUDA: {build})",
            "install a CUDA build of PyTorch and a driver, or leave --device away",
        )
    if device == "cpu" or not live:
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def seed_all(seed: int) -> None:
    """Weights and dropout from `seed`; convolutions by algorithms that repeat."""
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def gather(values: T, here: Place) -> list[T]:
    """Every process's `values`, by rank, in every process."""
    if here.world == 1:
        return [values]
    found: list[Any] = [None] * here.world
    dist.all_gather_object(found, values)
    return found


def any_process(flag: bool, here: Place) -> bool:
    """Whether `flag` is set in one process at least."""
    if here.world == 1:
        return flag
    total = torch.tensor(float(flag), device=here.device)
    dist.all_reduce(total)
    return bool(total)


class Interrupt:
    """While it is entered, Ctrl-C or SIGTERM is noted once; the second time Python's own way."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


Stop = Literal["done", "interrupted"]


def run_main(main: Callable[[], Stop | None]) -> None:
    """Run a command: errors become one clear message and an exit code."""
    try:
        stop = main()
    except FlowprepError as error:
        _exit(str(error), error.exit_code)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        full = " (no file was half-written)" if error.errno == errno.ENOSPC else ""
        _exit(f"{name}{error.strerror or error}{full}", EXIT_USER)
    except KeyboardInterrupt:
        _exit("interrupted", EXIT_INTERRUPTED)
    else:
        if stop == "interrupted":
            _exit("interrupted: run the same command again, it goes on", EXIT_INTERRUPTED)


def _exit(message: str, code: int) -> None:
    sys.stderr.write(f"Error: {message}\n")
    sys.exit(code)


def tell(line: str) -> None:
    """One line for the user."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
