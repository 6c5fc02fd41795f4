"""The command line: options in, exit code out. The work is imported inside the commands."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from flowprep import __version__
from flowprep.config import Settings, load_toml, settings_from
from flowprep.errors import FlowprepError

EXIT_FINDINGS, EXIT_USER, EXIT_FAILURES, EXIT_INTERRUPTED = 1, 2, 3, 130


class Group(click.Group):
    """Turns errors into one clear message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        finally:
            if "flowprep.processes" in sys.modules:
                sys.modules["flowprep.processes"].kill_children()

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FlowprepError as error:
            if ctx.params.get("debug"):
                raise
            _complain(error.message, error.hint)
            sys.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except OSError as error:
            if ctx.params.get("debug") or error.errno == errno.EPIPE:
                raise
            name = f"{error.filename}: " if error.filename else ""
            _complain(f"{name}{error.strerror or error}", "mend it and run the same command again")
            sys.exit(EXIT_USER)
        except KeyboardInterrupt:
            _on_signals(signal.SIG_IGN)  # Python would let another one kill it while it ends
            _complain("interrupted", "run the same command again: it goes on where it stopped")
            sys.exit(EXIT_INTERRUPTED)
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            _complain(
                f"{type(error).__name__}: {error}",
                "flowprep did not expect this: run it again as flowprep --debug ..., and report it",
            )
            sys.exit(EXIT_USER)


def _complain(message: str, hint: str) -> None:
    click.echo(f"Error: {message}", err=True)
    if hint:
        click.echo(f"Hint: {hint}", err=True)


@click.group("flowprep", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flowprep")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Videos to verified WebDataset shards of RGB and TV-L1 optical flow."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters of a file's name
        sys.stdout.reconfigure(errors="backslashreplace")


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
    "labels": ("--labels", click.Choice(["auto", "none"])),
    "engine": ("--engine", str),
    "flow_map": ("--flow-map", click.Choice(["symmetric", "i3d", "int16"])),
    "bound_px": ("--bound", float),
    "rgb_codec": ("--rgb-codec", str),
    "flow_codec": ("--flow-codec", str),
    "shard_frames": ("--shard-frames", int),
    "seed": ("--seed", int),
}


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for every field of Settings; unset ones stay None, so that a recipe can say."""
    described = {f.name: f for f in fields(Settings)}
    for name, (flag, kind) in reversed(SETTING_FLAGS.items()):
        about = described[name]
        shown = "native" if name == "fps" and not about.default else about.default
        text = f"{about.metadata['help']}  [default: {shown}]"
        command = click.option(flag, name, type=kind, default=None, help=text)(command)
    return click.option(
        "--engine-param",
        "engine_params",
        multiple=True,
        metavar="NAME=VALUE",
        help="a parameter of the engine, such as n_warps=3; may be repeated",
    )(command)


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
            click.option("--ray-address", help="Join this Ray cluster; auto finds one."),
            click.option(
                "--workers", type=click.IntRange(0), default=0,
                help="Workers  [default: one per core]",
            ),
            click.option(
                "--workers-per-gpu", type=click.IntRange(0), default=0,
                help="With a GPU engine  [default: one for two cores, 2 to 8]",
            ),
            click.option(
                "--gpu-mem", "gpu_mem_gib", type=click.FloatRange(0), default=0, help="GiB of each "
                "GPU that engine cuda may take  [default: what it can use, up to 80 %]",
            ),
            click.option(
                "--worker-mem", "worker_mem_gib", type=click.FloatRange(0), default=0, help="GiB "
                "that a worker may hold; a clip that takes more fails  [default: half of all]",
            ),
            click.option(
                "--clip-timeout", "clip_timeout_s", type=click.FloatRange(0, min_open=True),
                default=600, show_default=True,
                help="Seconds; a clip that makes no progress for so long fails.",
            ),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def chosen_settings(recipe: str | None, given: dict[str, Any]) -> Settings:
    """Defaults, then the recipe, then what was given on the command line."""
    table = load_recipe(recipe) if recipe else {}
    settings = settings_from(table, f"recipe {recipe}")
    values = {name: value for name, value in given.items() if value is not None}
    values["engine_params"] = settings.engine_params | dict(
        _parameter(text) for text in given.get("engine_params") or ()
    )
    return replace(settings, **values)


def load_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe file, or of one that flowprep ships."""
    if name.endswith(".toml") or "/" in name:
        return _settings_table(load_toml(Path(name)), name)
    from importlib.resources import files

    shipped = {p.name.removesuffix(".toml"): p for p in files("flowprep.recipes").iterdir()}
    shipped = {stem: p for stem, p in shipped.items() if p.name.endswith(".toml")}
    if name not in shipped:
        raise FlowprepError(
            f"unknown recipe {name!r}",
            f"allowed: {', '.join(sorted(shipped))}, or the path of a .toml file",
        )
    return _settings_table(load_toml(Path(str(shipped[name]))), name)


def _settings_table(table: dict[str, Any], where: str) -> dict[str, Any]:
    """The [settings] of a recipe, or of the config.toml of a dataset."""
    settings = table.get("settings")
    strange = sorted(set(table) - {"settings", "source", "versions"})
    if not isinstance(settings, dict) or strange:
        found = ", ".join(strange) or "no [settings]"
        raise FlowprepError(
            f"recipe {where}: {found} at its top", "put the settings below a line [settings]"
        )
    return settings


def _parameter(text: str) -> tuple[str, int | float | str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise FlowprepError(f"--engine-param {text!r} has no value", "write it as name=value")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


@main.command()
@click.option("--src", required=True, help="Folder, video, or list (.csv, .parquet, .jsonl).")
@click.option("--out", required=True, help="Folder of the dataset.")
@click.option("--recipe", help="Settings of a named dataset, or of a .toml file.")
@setting_options
@resource_options
@click.option("--dry-run", is_flag=True, help="Show the plan and what it will cost; write nothing.")
@click.option("--retry-failed", is_flag=True, help="Try the clips that failed again.")
@click.option("--max-failures", type=click.IntRange(0), default=0, show_default=True,
              help="More failed clips than this end with exit code 3.")  # fmt: skip
@click.option("--strict-versions", is_flag=True, help="Refuse to go on with other versions.")
@click.option("--log-json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("--quiet", is_flag=True, help="Only problems and the summary.")
def extract(
    src: str,
    out: str,
    recipe: str | None,
    dry_run: bool,
    retry_failed: bool,
    max_failures: int,
    strict_versions: bool,
    log_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Decode videos, compute flow, write shards. Run it again to go on, or to add new videos."""
    from flowprep.run.executors import Resources
    from flowprep.run.extract import extract as run_extract
    from flowprep.run.prepare import Request
    from flowprep.run.progress import make_display
    from flowprep.run.tell import tell_plan, tell_summary

    _on_signals(_interrupt)
    resources = Resources(**{name: given.pop(name) for name in RESOURCES})
    request = Request(
        src=src,
        out=out,
        settings=chosen_settings(recipe, given),
        resources=resources,
        retry_failed=retry_failed,
        strict_versions=strict_versions,
    )
    display = make_display(log_json, quiet)
    if dry_run:
        tell_plan(request, display, log_json)
        return
    summary = run_extract(request, display)
    tell_summary(summary, out, display, log_json, _is_debug())
    if summary.interrupted:
        raise KeyboardInterrupt
    if summary.lost:
        _complain(
            f"{len(summary.lost)} shards could not be made; what is finished stays",
            "mend it and run the same command again; flowprep --debug extract tells more",
        )
        sys.exit(EXIT_USER)
    if len(summary.failures) > max_failures:
        sys.exit(EXIT_FAILURES)


def _is_debug() -> bool:
    return bool(click.get_current_context().find_root().params["debug"])


def _interrupt(*_: Any) -> None:
    """The first signal ends the run in order; another one ends it at once."""
    _on_signals(_leave)
    raise KeyboardInterrupt


def _on_signals(handler: Callable[..., None] | signal.Handlers) -> None:
    """But not those that this process was started to ignore, as in a shell's background job."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(*_: Any) -> None:
    os._exit(EXIT_INTERRUPTED)


@main.command()
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Decode every sample as well.")
@click.option("--repair", is_flag=True, help="Make what is damaged or missing again, nothing else.")
@click.option("--recompute", type=click.IntRange(1), metavar="N",
              help="Compute N samples again from their videos, and compare.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of samples.")
@click.option("--src", default="", help="Where the videos are now, if not where they were.")
@resource_options
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON on standard output.")
def verify(
    shards: Path,
    deep: bool,
    repair: bool,
    recompute: int | None,
    seed: int,
    src: str,
    as_json: bool,
    **resources: Any,
) -> None:
    """Check a dataset: every byte, with --deep every frame, with --recompute some flow."""
    from flowprep.inspection import Inspection
    from flowprep.run.executors import Resources

    _refuse_idle({"src": repair or recompute, "seed": recompute} | dict.fromkeys(RESOURCES, repair))
    inspection = Inspection(
        shards=shards,
        deep=deep,
        n_recompute=recompute or 0,
        seed=seed,
        src=src,
        as_json=as_json,
        debug=_is_debug(),
    )
    if repair:
        _on_signals(_interrupt)
        inspection.repair(Resources(**resources))
    else:
        inspection.check()
    inspection.tell()
    repaired = inspection.repaired
    if repaired and repaired.lost:
        sys.exit(EXIT_USER)
    if repaired and repaired.failures:
        sys.exit(EXIT_FAILURES)
    sys.exit(EXIT_FINDINGS if inspection.findings else 0)


def _refuse_idle(used: dict[str, Any]) -> None:
    """Refuse options that would do nothing: name -> whether something uses it."""
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and not used.get(name, True):
            goes_with = "--repair or --recompute" if name == "src" else "--repair"
            goes_with = "--recompute" if name == "seed" else goes_with
            raise click.UsageError(f"{option.opts[0]} does nothing without {goes_with}")


@main.command()
def engines() -> None:
    """Which engines are live here, and the line that installs each that is not."""
    from flowprep.flow.base import AUTO_ORDER, engine_status, registry

    for name in registry():
        status = engine_status(name)
        state = "live   " if status.available else "missing"
        auto = "  (auto tries it)" if name in AUTO_ORDER else ""
        click.echo(f"{state}  {name:<12} {status.summary}{auto}")
        click.echo(f"{'':21} {status.detail}")
        if not status.available:
            click.echo(f"{'':21} -> {status.install}")


@main.command()
@click.argument("folder", default="demo", type=click.Path(path_type=Path))
@click.option("--executor", type=click.Choice(["ray", "local"]), default="ray", show_default=True,
              help="Ray, or plain processes.")  # fmt: skip
def demo(folder: Path, executor: str) -> None:
    """Render videos with known motion into FOLDER, extract and verify them, show the result."""
    from flowprep.demo import run_demo

    run_demo(folder, executor)
