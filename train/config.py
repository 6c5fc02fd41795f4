"""Settings of a training run: command line and TOML in, one frozen record out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from flowprep.errors import FlowprepError
from train.ranges import check, flat

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

C = TypeVar("C")
Loss = Literal["mse-logits", "kl", "mse-features", "flow", "none"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where clips come from."""

    shards: str = ""  # folder of a dataset, or a pattern of its tars
    data: Literal["shards", "synthetic"] = "shards"  # synthetic needs no shards: for dry runs
    labels: str = ""  # table (.csv, .parquet, .jsonl) with path or key, label, split
    split: int = 0  # take the column splitN of the table; 0 = the column split
    val_share: float = 0.1  # share of the training videos held out where there is no val split
    workers: int = -1  # processes that decode; -1 = one a core, none when training on the CPU
    skip_bad: bool = False  # leave damaged samples out and count them; False = stop


@dataclass(frozen=True, kw_only=True)
class Data(Source):
    """Where clips come from, and what is cut out of them."""

    frames: int = 0  # frames of a window; 0 = 64, or fewer where the clips are shorter
    stride: int = 1  # stored frames from one frame of a window to the next
    resize: int = 0  # short side to resize to before the crop, pixels; 0 = as stored
    crop: int = 0  # side of the square crop, pixels; 0 = 224, or what a smaller picture has
    hflip: bool = False  # mirror half of the clips; wrong where left and right are labels
    scale_flow: bool = False  # scale flow values with --resize; False = pixels of the stored size
    shuffle_frames: bool = False  # each window's frames in a random order: a control


@dataclass(frozen=True, kw_only=True)
class Net:
    """The network."""

    arch: str = "s3dg"  # s3dg, s3d (as in torchvision), r2plus1d
    width: float = 1.0  # multiplies the channels of every layer
    dropout: float = 0.2  # share of pooled features dropped before the classifier
    bn_momentum: float = 0.05  # share of a batch in the running statistics
    init: str = ""  # run folder or weights to start from; "" = from scratch
    reset_head: bool = False  # give --init a new classifier, for other classes
    lr_backbone: float = 1.0  # multiplies the learning rate of all but the classifier


@dataclass(frozen=True, kw_only=True)
class Optim:
    """The optimiser and its schedule."""

    epochs: float = 30.0  # passes over the training videos
    batch: int = 8  # clips of one optimiser step, over all devices
    micro_batch: int = 0  # clips in memory at once, a device; 0 = its whole share of the batch
    optimizer: Literal["adamw", "sgd"] = "adamw"  # AdamW, or SGD with Nesterov momentum
    lr: float = 0.001  # learning rate after the warm-up
    momentum: float = 0.9  # of SGD
    weight_decay: float = 0.05  # of weights; biases and batch norm have none
    warmup: float = 0.05  # share of the steps in which the rate rises
    schedule: Literal["cosine", "step"] = "cosine"  # to zero, or a tenth at 3/4 and 7/8
    clip_norm: float = 5.0  # longest gradient; 0 = any
    ema: float = 0.0  # decay of the average of the weights, which is then what is kept; 0 = off
    precise_bn: int = 16  # batches, at most an epoch's, to measure batch norm on; 0 = running mean


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How it runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto = cuda where there is one
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 on cuda
    compile: bool = False  # torch.compile the network
    sync_bn: bool = True  # measure batch norm over all GPUs together
    save_minutes: float = 10.0  # save the state at least so often


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What teacher and student have in common."""

    run: str = ""  # folder of the run; run it again and it goes on
    seed: int = 0  # of weights, order and windows
    data: Data = field(default_factory=Data)
    net: Net = field(default_factory=Net)
    optim: Optim = field(default_factory=Optim)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(TrainConfig):
    """Train a network on optical flow."""

    run: str = "runs/teacher"  # folder of the run; run it again and it goes on


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainConfig):
    """Train a network on RGB that learns from a teacher of flow."""

    run: str = "runs/d3d"  # folder of the run; run it again and it goes on
    teacher: str = ""  # run folder or weights; "" = train one first, in RUN/teacher
    teacher_sees: Literal["flow", "rgb"] = "flow"  # rgb: soft labels without motion, a control
    teacher_logits: Literal["own", "shuffled"] = "own"  # shuffled: of another video of the class
    loss: Loss = "mse-logits"  # beside cross-entropy: D3D, soft labels, MARS, flow itself, nothing
    lambda_: Annotated[float, tyro.conf.arg(name="lambda")] = 1.0  # weight of that loss
    center_logits: bool = False  # mse-logits: take each sample's mean off both
    temperature: float = 4.0  # of kl
    flow_layer: str = "3A"  # flow: the layer that a decoder predicts flow from
    flow_decoder: Literal["simple", "spatial", "pwc"] = "spatial"  # flow: which decoder


PLACES = {"run", "shards", "teacher", "init"}
MAY_CHANGE = PLACES | {"reset_head", "workers", "skip_bad", "device", "compile", "save_minutes"}
"""What may differ when a run goes on: places, what only its start needs, what no result shows."""


def differences(old: Any, config: Any) -> list[str]:
    """Settings that change the result and differ from `old`, as "name: then -> now"."""
    then, now = flat(old), flat(config)
    names = sorted(set(now) - MAY_CHANGE)
    return [f"{k}: {then[k]!r} -> {now[k]!r}" for k in names if then[k] != now[k]]


def parse(kind: type[C], program: str, argv: Sequence[str] | None = None) -> C:
    """The settings given on the command line, over those of `--config FILE.toml`.

    Raises FlowprepError for a value out of range or a file that is not a config; exits with 2 for
    an option that is not known.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    default = kind()
    if "--config" in arguments:
        at = arguments.index("--config")
        if at + 1 == len(arguments):
            raise FlowprepError("--config has no value", "give a .toml file")
        default = load_config(kind, Path(arguments[at + 1]))
        del arguments[at : at + 2]
    return tyro.cli(
        kind,
        prog=program,
        args=arguments,
        default=default,
        description=f"{kind.__doc__} --config FILE.toml gives other defaults.",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def load_config(kind: type[C], path: Path) -> C:
    """A config from a TOML file. Raises FlowprepError naming what is wrong with it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FlowprepError(f"no such file: {path}", "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FlowprepError(f"{path} is not TOML: {error}", "mend the file") from error
    return config_from(kind, table, str(path))


def config_from(kind: type[C], table: dict[str, Any], where: str) -> C:
    """A config from nested tables. Raises FlowprepError for an unknown or ill-typed name."""
    hints = get_type_hints(kind)
    if unknown := sorted(set(table) - set(hints)):
        raise FlowprepError(
            f"{where}: unknown setting {', '.join(unknown)}", f"allowed: {', '.join(hints)}"
        )
    values = {name: _value(hints[name], value, f"{where}: {name}") for name, value in table.items()}
    return replace(kind(), **values)  # type: ignore[type-var]


def _value(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind) and isinstance(value, dict):
        return config_from(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise FlowprepError(
                f"{where} = {value!r} is not known", f"allowed: {', '.join(get_args(kind))}"
            )
        return value
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_value(get_args(kind)[0], one, where) for one in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise FlowprepError(f"{where} = {value!r} is a {type(value).__name__}", f"give a {kind}")
    return value


def dump_toml(config: Any) -> str:
    """The TOML text of a config."""
    import tomli_w

    return tomli_w.dumps(asdict(config))
