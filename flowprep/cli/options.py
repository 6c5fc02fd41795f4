"""Options that several commands take: the settings of an extraction, and where it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from flowprep.config import Settings
from flowprep.storage import Place, place_of


class Rate(click.ParamType[float]):
    """Frames a second, or `native`."""

    name = "FPS"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if value == "native":
            return 0.0
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r}: give frames a second, or native", param, ctx)


class Finite(click.FloatRange):
    """A number of that range, and neither nan nor inf, which compare with none."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value}: give a finite number", param, ctx)
        return number


class PlaceOf(click.ParamType[Place]):
    """A path or a URL."""

    name = "PATH"

    def convert(self, value: Any, param: Any, ctx: Any) -> Place:
        return value if isinstance(value, Place) else place_of(value, param.human_readable_name)


class Pixels(click.ParamType[int]):
    """Pixels, or `native`."""

    name = "PIXELS"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if value == "native":
            return 0
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r}: give pixels of the short side, or native", param, ctx)


SETTING_FLAGS: dict[str, tuple[str, Any]] = {
    "fps": ("--fps", Rate()),
    "stride": ("--stride", int),
    "short_side": ("--size", Pixels()),
    "resize": ("--resize", click.Choice(["area", "cv2-linear"])),
    "apply_sar": ("--apply-sar/--ignore-sar", bool),
    "clip_max_s": ("--clip-max", float),
    "clip_frames": ("--clip-frames", int),
    "clip_stride": ("--clip-stride", int),
    "engine": ("--engine", str),
    "flow_map": ("--flow-map", click.Choice(["symmetric", "i3d", "i3d-floor", "int16"])),
    "bound_px": ("--bound", float),
    "rgb_codec": ("--rgb-codec", str),
    "flow_codec": ("--flow-codec", str),
    "shard_frames": ("--shard-frames", int),
    "seed": ("--seed", int),
}


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for every field of Settings; unset ones stay None, so that a recipe can say."""
    command = some_setting_options(*SETTING_FLAGS)(command)
    command = click.option(
        "--labels",
        multiple=True,
        metavar="auto|none|KIND:FILES",
        help="folders or list say; nothing does; or annotation files of kinetics, ucf101, hmdb51, "
        "ssv2 or csv, such as kinetics:train.csv; may be repeated  [default: auto]",
    )(command)
    return click.option(
        "--engine-param",
        "engine_params",
        multiple=True,
        metavar="NAME=VALUE",
        help="a parameter of the engine, such as n_warps=3; may be repeated",
    )(command)


def some_setting_options(*names: str) -> Callable[..., Any]:
    """Options for these fields of Settings."""
    described = {f.name: f for f in fields(Settings)}

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            flag, kind = SETTING_FLAGS[name]
            about = described[name]
            shown = "native" if name == "fps" and not about.default else about.default
            text = f"{about.metadata['help']}  [default: {shown}]"
            command = click.option(flag, name, type=kind, default=None, help=text)(command)
        return command

    return add


RESOURCES = (
    *("executor", "ray_address", "workers", "workers_per_gpu", "gpu_mem_gib"),
    *("worker_mem_gib", "clip_timeout_s"),
)


def resource_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where shards are made and by how many: the options named in RESOURCES."""
    for option in reversed(
        [
            click.option(
                "--executor", type=click.Choice(["ray", "local"]), default="ray", show_default=True,
                help="Ray, or plain processes on this machine.",
            ),
            click.option(
                "--ray-address",
                help="Join this Ray cluster; auto finds one  [default: RAY_ADDRESS]",
            ),
            click.option(
                "--workers", type=click.IntRange(0), default=0,
                help="Processes that make shards  [default: one per core]",
            ),
            click.option(
                "--workers-per-gpu", type=click.IntRange(0), default=0,
                help="The same for each GPU of a GPU engine  [default: one for two cores, 2 to 8]",
            ),
            click.option(
                "--gpu-mem", "gpu_mem_gib", type=Finite(0), default=0, help="GiB of each "
                "GPU that engine cuda may take  [default: what it can use, up to 80 %]",
            ),
            click.option(
                "--worker-mem", "worker_mem_gib", type=Finite(0), default=0, help="GiB "
                "that a worker may hold; a clip that takes more fails  [default: half of all]",
            ),
            click.option(
                "--clip-timeout", "clip_timeout_s", type=Finite(0, min_open=True),
                default=600, show_default=True,
                help="Seconds; a clip that makes no progress for so long fails.",
            ),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a run that makes shards goes about it, and what it shows."""
    for option in reversed(
        [
            click.option(
                "--dry-run", is_flag=True,
                help="Show the plan and what it will cost; write nothing.",
            ),
            click.option(
                "--retry-failed", is_flag=True, help="Try the clips that failed again."
            ),
            click.option(
                "--max-failures", type=click.IntRange(0), default=0, show_default=True,
                help="More failed clips than this end with exit code 3.",
            ),
            click.option(
                "--strict-versions", is_flag=True, help="Refuse to go on with other versions."
            ),
            click.option(
                "--log-json", is_flag=True, help="One JSON object a line on standard output."
            ),
            click.option("--quiet", is_flag=True, help="Only problems and the summary."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command
