"""Settings of an extraction: one frozen record, its TOML form and its fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from flowprep.errors import FlowprepError
from flowprep.rawframes import get_style
from flowprep.storage import Place

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA_VERSION = 1
"""Version of the sample and shard format."""

RESERVED_PARAMS = frozenset({"name", "device", "threads", "gpu_share", "gpu_bytes", "open_device"})
"""What an engine is told by the run, not by the user."""

IMPORTED = "imported"
"""The engine of flow that came with the frames. Its parameters: the style of the folders of images
that the frames are read from, and their rate."""

Resize = Literal["area", "cv2-linear"]
Labels = Literal["auto", "none", "kinetics", "ucf101", "hmdb51", "ssv2", "csv"]
"""Where labels come from; the annotation files themselves may lie elsewhere with every run."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that changes output bytes. A field's metadata says what it is, for the CLI too."""

    fps: float = field(default=25.0, metadata={"help": "frames a second at most, or native"})
    stride: int = field(default=1, metadata={"help": "keep every k-th frame (with native rate)"})
    short_side: int = field(default=256, metadata={"help": "short side in pixels, or native"})
    resize: Resize = field(default="area", metadata={"help": "area, or cv2-linear as denseflow"})
    apply_sar: bool = field(default=False, metadata={"help": "widen by the sample aspect ratio"})
    clip_max_s: float = field(default=60.0, metadata={"help": "longest piece of a video, seconds"})
    clip_frames: int = field(default=0, metadata={"help": "frames of a window; 0 = whole pieces"})
    clip_stride: int = field(default=0, metadata={"help": "frames between windows; 0 = no overlap"})
    labels: Labels = field(default="auto", metadata={"help": "auto, none, or a dataset"})
    engine: str = field(
        default="auto", metadata={"help": "who computes the flow: flowprep engines lists them"}
    )
    engine_params: dict[str, Any] = field(default_factory=dict, metadata={"help": "name=value"})
    flow_map: str = field(default="symmetric", metadata={"help": "how flow becomes codes"})
    bound_px: float = field(default=20.0, metadata={"help": "flow beyond it saturates, pixels"})
    rgb_codec: str = field(
        default="x264", metadata={"help": "how RGB is stored: x264, x264-fast, ffv1, jpeg"}
    )
    flow_codec: str = field(
        default="x264-flow",
        metadata={
            "help": "how flow is stored: x264-flow, x264-flow-fast, ffv1-flow, jpeg-flow; "
            "of --flow-map int16: ffv1-flow16"
        },
    )
    shard_frames: int = field(default=8192, metadata={"help": "frames in a shard, about"})
    seed: int = field(default=0, metadata={"help": "of the order of clips in the shards"})

    def __post_init__(self) -> None:
        for check in _CHECKS:
            check(self)

    def fingerprint(self) -> str:
        """16 hex digits over every setting and the schema version."""
        text = json.dumps({"schema": SCHEMA_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def style(self) -> str:
        """Of the folders of images that are imported; "" where the source is videos."""
        return str(self.engine_params["style"]) if self.engine == IMPORTED else ""

    @property
    def decoder(self) -> dict[str, Any]:
        """Who reads the source, as `get_decoder` takes it."""
        return {"name": "rawframes", **self.engine_params} if self.style else {}

    def as_options(self) -> list[str]:
        """What differs from the defaults, as it is given on the command line."""
        plain = _as_options(Settings())
        mine = _as_options(self).items()
        return [f"{flag} {_told(flag, v)}" for flag, v in mine if v != plain.get(flag)]

    def differences(self, other: Settings) -> list[str]:
        """The settings that differ, as options: "--size 256 -> native"."""
        mine, theirs = _as_options(self), _as_options(other)
        both = {flag: (mine.get(flag), theirs.get(flag)) for flag in mine | theirs}
        return [
            f"{flag} {_told(flag, here)} -> {_told(flag, there)}"
            for flag, (here, there) in both.items()
            if here != there
        ]


FLAGS = {"short_side": "--size", "clip_max_s": "--clip-max", "bound_px": "--bound"}
"""Of settings whose option is not called like them."""


def _as_options(settings: Settings) -> dict[str, Any]:
    """option -> value; frames that came with their flow have a rate and a style of their own."""
    values = asdict(settings)
    params = values.pop("engine_params")
    prefix = "--" if settings.engine == IMPORTED else "--engine-param "
    options = {FLAGS.get(k, f"--{k.replace('_', '-')}"): v for k, v in values.items()}
    return options | {f"{prefix}{name}": value for name, value in params.items()}


def _told(flag: str, value: Any) -> str:
    """A value as the option takes it."""
    if flag in ("--fps", "--size") and value == 0:
        return "native"
    return "unset" if value is None else str(value).removesuffix(".0")


def _between(
    name: str, low: float, high: float, flag: str, native: bool = False
) -> Callable[[Settings], None]:
    allowed = f"give a number from {low:g} up" + (f" to {high:g}" if high < math.inf else "")
    if native:
        allowed += ", or native for what each video has"

    def check(settings: Settings) -> None:
        value = getattr(settings, name)
        is_native = native and value == 0
        if not (is_native or low <= value <= high) or math.isinf(value):
            raise FlowprepError(f"{flag} {value:g} is not usable", allowed)

    return check


def _one_of(name: str, allowed: tuple[str, ...], flag: str) -> Callable[[Settings], None]:
    def check(settings: Settings) -> None:
        value = getattr(settings, name)
        if value not in allowed:
            raise FlowprepError(f"{flag} {value!r} is not known", f"allowed: {', '.join(allowed)}")

    return check


def _windows(settings: Settings) -> None:
    if settings.clip_frames == 1:
        raise FlowprepError(
            "--clip-frames 1 leaves no pair of frames", "give 2 or more, or 0 for whole pieces"
        )
    if settings.clip_stride and not settings.clip_frames:
        raise FlowprepError("--clip-stride needs --clip-frames", "give both, or neither")


def _rate(settings: Settings) -> None:
    if settings.stride > 1 and settings.fps:
        raise FlowprepError(
            f"--stride {settings.stride} and --fps {settings.fps:g} together are ambiguous",
            "use --fps native with --stride",
        )


def _params(settings: Settings) -> None:
    for name, value in settings.engine_params.items():
        if name in RESERVED_PARAMS or not name.isidentifier():
            raise FlowprepError(
                f"--engine-param {name} = {value!r} is no parameter of an engine",
                "give name=value with a name that the engine knows, such as n_warps=3",
            )
        if not isinstance(value, int | float | str):
            raise FlowprepError(
                f"--engine-param {name} = {value!r} is a {type(value).__name__}",
                "give a number or a text",
            )


def _imported(settings: Settings) -> None:
    if settings.engine != IMPORTED:
        return
    if set(settings.engine_params) != {"style", "fps"}:
        raise FlowprepError(
            f"engine {IMPORTED} is of frames that came with their flow",
            "give them to flowprep import rawframes; for videos choose another --engine",
        )
    get_style(str(settings.engine_params["style"]))
    rate = settings.engine_params["fps"]
    if not isinstance(rate, int | float) or not 0.001 <= rate <= 1000:
        raise FlowprepError(f"--fps {rate} is not usable", "give a number from 0.001 up to 1000")
    if settings.fps or settings.stride != 1 or settings.short_side or settings.apply_sar:
        raise FlowprepError(
            "frames that came with their flow are taken as they are",
            "leave out rate, stride and size",
        )


_CHECKS = (
    _imported,
    _between("fps", 0.001, 1000, "--fps", native=True),
    _between("stride", 1, math.inf, "--stride"),
    _between("short_side", 8, 4096, "--size", native=True),
    _between("clip_max_s", 1, math.inf, "--clip-max"),
    _between("clip_frames", 0, math.inf, "--clip-frames"),
    _between("clip_stride", 0, math.inf, "--clip-stride"),
    _between("shard_frames", 2, math.inf, "--shard-frames"),
    _one_of("resize", get_args(Resize), "--resize"),
    _one_of("labels", get_args(Labels), "--labels"),
    _windows,
    _rate,
    _params,
)


def settings_from(values: dict[str, Any], where: str) -> Settings:
    """Settings from a parsed TOML table. Raises FlowprepError for an unknown or ill-typed name."""
    known = {f.name: f for f in fields(Settings)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise FlowprepError(
            f"{where}: unknown setting {', '.join(unknown)}", f"allowed: {', '.join(known)}"
        )
    return replace(Settings(), **{k: _typed(k, v, where) for k, v in values.items()})


def _typed(name: str, value: Any, where: str) -> Any:
    want = type(getattr(Settings(), name))
    if want is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not want:
        raise FlowprepError(
            f"{where}: {name} = {value!r} is a {type(value).__name__}", f"give a {want.__name__}"
        )
    return value


def load_toml(path: Place) -> dict[str, Any]:
    """The table in a TOML file. Raises FlowprepError when it is missing or not TOML.

    ValueError is also what Python has for numbers of thousands of digits.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FlowprepError(f"no such file: {path}", "check the path") from None
    except (ValueError, RecursionError) as error:
        raise FlowprepError(f"{path} is not TOML: {error}", "mend the file") from error


def dump_toml(table: dict[str, Any]) -> str:
    """The TOML text of a table."""
    import tomli_w

    return tomli_w.dumps(table)
