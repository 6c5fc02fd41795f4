"""How much motion the features of a trained RGB network hold: flow decoded from each layer.

    python -m train.probe --run runs/d3d --shards shards/ --layer 3A --decoder pwc
    python -m train.probe --run runs/d3d --shards shards/ --layer 1a 2c 3A 3c 4f 5c --decoder simple

The decoder learns on the split train, from the features of a fixed network, each channel brought to
mean 0 and deviation 1, and is judged on the split val: one window of every clip, cut from the
middle. Its mean end-point error stands beside that of two predictions that see nothing: no motion,
and the mean flow of the training targets. With --finetune the network learns along, batch norm in
training mode. Targets are the dataset's flow, clipped to FLOW_CLIP_PX as for training.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flowprep.errors import FlowprepError
from flowprep.export.flo import flo_bytes
from train.checkpoint import Meta, code_commit, load_net, versions, weights_of, write_whole
from train.common import Place, place, run_main, seed_all, tell
from train.config import Data, parse
from train.data.batch import FLOW_CLIP_PX
from train.data.loader import Batches, train_loader
from train.data.windows import WindowConfig
from train.flow_picture import Shown, longest, write_picture
from train.flow_probe import Errors, FlowProbe, fit, judge
from train.models.base import VideoModel
from train.models.decoders import feature_channels
from train.ranges import check
from train.setup import make_table, views, workers_of


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Decode optical flow from the features of a trained RGB network."""

    run: str = "runs/d3d"  # run folder or weights
    layer: tuple[str, ...] = ("3A",)  # one or several, a row each
    decoder: Literal["simple", "spatial", "pwc"] = "pwc"  # 1, 6 or 6 densely connected layers
    finetune: bool = False  # train the network up to the layer too, at the same rate
    steps: int = 1000  # of Adam
    batch: int = 8  # clips of a step
    lr: float = 1e-3  # learning rate of the first step; falls to 0 as a cosine
    seed: int = 0  # of the decoder, the order and the windows
    out: str = ""  # folder of the report; "" = RUN/probe
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto = cuda where there is one
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 on cuda
    data: Data = field(default_factory=Data)  # its window: what is not given is the run's

    def __post_init__(self) -> None:
        check(self)
        if not self.layer:
            raise FlowprepError("no --layer", "give one or several, as --layer 1a 3A 5c")


@dataclass(frozen=True)
class Feed:
    """Where batches come from."""

    train: Callable[[], Batches]  # from the first step on, without end
    val: Callable[[], Batches]  # each clip once
    n_val: int  # clips
    fingerprint: str  # of the dataset


def open_feed(config: ProbeConfig, window: WindowConfig, here: Place) -> Feed:
    """The splits train and val of a dataset; tells what is left out of it.

    Raises FlowprepError where one of them is empty.
    """
    data = config.data
    table = make_table(data)
    for note in table.notes:
        tell(note)
    train, val = table.only("train"), table.only("val")
    for name, part in (("train", train), ("val", val)):
        if not len(part):
            raise FlowprepError(f"no sample is in the split {name}", "give --labels with others")

    def from_start() -> Batches:
        return train_loader(
            train,
            window,
            batch=config.batch,
            seed=config.seed,
            workers=workers_of(data, here),
            skip_bad=data.skip_bad,
            pin=here.device.type == "cuda",
        )

    return Feed(
        train=from_start,
        val=lambda: views(val, window, data, here, ("rgb", "flow"), batch=config.batch),
        n_val=len(val),
        fingerprint=table.fingerprint,
    )


def window_of(meta: Meta, data: Data) -> WindowConfig:
    """The window of the run, with what `data` has other than by default in its place."""
    names = ("frames", "stride", "resize", "crop", "hflip", "scale_flow", "shuffle_frames")
    usual = Data()
    given = {n: getattr(data, n) for n in names if getattr(data, n) != getattr(usual, n)}
    return replace(meta.window, **given)


def unit_of(window: WindowConfig) -> str:
    """What a flow of one pixel is."""
    resized = window.resize and not window.scale_flow
    return f"px of the {'stored picture' if resized else 'input'} per frame step"


def load_rgb(run: str, layers: tuple[str, ...]) -> tuple[VideoModel, Meta]:
    """The network of a run. Raises FlowprepError unless it sees RGB and has these layers."""
    net, meta = load_net(run)
    if meta.modality != "rgb":
        raise FlowprepError(
            f"{run} is a network of {meta.modality}: it sees the flow, there is nothing to probe",
            "give --run a network of RGB",
        )
    for layer in layers:
        feature_channels(net, layer)
    return net, meta


@dataclass(frozen=True)
class Task:
    """What the layers of one run have in common."""

    config: ProbeConfig
    here: Place
    net: VideoModel
    feed: Feed
    unit: str
    out: Path


def run_probe(config: ProbeConfig, here: Place) -> None:
    """Train and judge a decoder at each layer; print the errors and write the report.

    Raises FlowprepError for a run, layer or dataset that cannot be probed, OSError when nothing
    can be written.
    """
    if here.world > 1:
        raise FlowprepError("the probe runs in one process", "start it without torchrun")
    net, meta = load_rgb(config.run, config.layer)
    window, weights = window_of(meta, config.data), weights_of(config.run)
    feed = open_feed(config, window, here)
    out = Path(config.out) if config.out else weights.parent / "probe"
    task = Task(config, here, net, feed, unit_of(window), out)
    report = {
        "unit": task.unit,
        "flow_clip_px": FLOW_CLIP_PX,
        "clips": feed.n_val,
        "layers": [probe_layer(task, layer) for layer in config.layer],
        "weights": {"file": str(weights), "step": meta.step, "dataset": meta.fingerprint},
        "dataset": feed.fingerprint,
        "window": asdict(window),
        "config": asdict(config),
        "commit": code_commit(),
        "versions": versions(),
    }
    write_whole(out / "probe.json", json.dumps(report, indent=1).encode())
    tell(f"{out}/: probe.json, a picture and .flo files of each layer")


def probe_layer(task: Task, layer: str) -> dict[str, Any]:
    """Probe one layer, print its line, write its files. Returns its part of the report."""
    config = task.config
    seed_all(config.seed)
    probe = FlowProbe(task.net, layer, config.decoder, config.finetune).to(task.here.device)
    with closing(task.feed.train()) as train:
        mean_flow_2 = fit(probe, train, config.steps, config.lr, task.here)
    with closing(task.feed.val()) as val:
        errors, shown = judge(probe, val, task.feed.n_val, mean_flow_2, task.here)
    skipped = sorted({*train.skipped, *val.skipped})
    if skipped:
        tell(f"{len(skipped)} damaged samples were left out: {', '.join(skipped[:5])}")
    tell(_line(task, layer, errors))
    return {
        "layer": layer,
        "grid_HW": shown[0].target_2HW.shape[1:],
        **asdict(errors),
        "share_of_zero_flow": errors.left,
        "mean_flow_px": mean_flow_2.tolist(),
        "picture_longest_px": longest(shown),
        "skipped": skipped,
        "files": _write_files(task, layer, errors, shown),
    }


def _line(task: Task, layer: str, errors: Errors) -> str:
    tuned = " fine-tuned" if task.config.finetune else ""
    return (
        f"{layer} {task.config.decoder}{tuned}:"
        f"  EPE {errors.epe_px:.3f} ({errors.left:.1%} of zero flow's)"
        f"  zero flow {errors.zero_flow_epe_px:.3f}  mean flow {errors.mean_flow_epe_px:.3f}"
        f"  {task.unit}"
    )


def _write_files(task: Task, layer: str, errors: Errors, shown: list[Shown]) -> list[str]:
    """A picture of all that is shown, and both flows of the first. Returns their names."""
    names = [f"{layer}_{what}" for what in ("flow.png", "tvl1.flo", "decoded.flo")]
    picture, target, decoded = (task.out / name for name in names)
    write_picture(picture, shown, _line(task, layer, errors), task.unit)
    write_whole(target, flo_bytes(shown[0].target_2HW))
    write_whole(decoded, flo_bytes(shown[0].flow_2HW))
    return names


def main() -> None:
    config = parse(ProbeConfig, "python -m train.probe")
    with place(config.device, config.precision) as here:
        run_probe(config, here)


if __name__ == "__main__":
    run_main(main)
