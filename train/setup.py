"""Everything a run needs before its first step: table, window, network, batches."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np

from flowprep.errors import FlowprepError
from train.checkpoint import Meta, Modality, code_commit, versions
from train.common import Place, tell
from train.config import Data, Source, TrainConfig
from train.data.loader import Batches, eval_loader, train_loader
from train.data.stream import share_of
from train.data.synthetic import synthetic_table
from train.data.table import Table, load_table
from train.data.windows import WindowConfig
from train.loop import Feed
from train.models.base import ModelConfig, VideoModel
from train.start import known_classes, make_net, model_config

MAX_FRAMES, MAX_CROP, CROP_STEP = 64, 224, 32
"""The window of the articles, and what a crop of a smaller picture is a multiple of."""


@dataclass(frozen=True)
class Setup:
    """A run before its first step."""

    net: VideoModel
    meta: Meta
    feed: Feed


def prepare(
    config: TrainConfig,
    modality: Modality,
    here: Place,
    also: tuple[Modality, ...] = (),
    classes: list[str] | None = None,
) -> Setup:
    """Read the index, make the network, open the batches; tells what it found.

    The network sees `modality`; training batches hold `also` too. `classes` are the classes to
    tell apart; None = those of `--init`, or of the dataset. Raises FlowprepError where the dataset
    cannot be trained on or the weights do not fit.
    """
    table = make_table(config.data, classes or known_classes(config.net))
    if not len(table.only("train")):
        raise FlowprepError("no sample is in the split train", "give --labels with a split train")
    window = make_window(config.data, table)
    model = model_config(config.net, modality, len(table.classes))
    net = make_net(config.net, model)
    meta = _meta(config, modality, table, model, window)
    if here.first:
        _tell(config, modality, table, window)
    return Setup(net, meta, _feed(config, (modality, *also), here, table, window))


def make_table(data: Source, classes: list[str] | None = None) -> Table:
    """The samples that `data` names. Raises FlowprepError where there are none."""
    if data.data == "synthetic":
        return synthetic_table()
    if not data.shards:
        raise FlowprepError(
            "no --shards", "give the folder that flowprep extract wrote, or --data synthetic"
        )
    return load_table(
        data.shards,
        labels=data.labels,
        split=data.split,
        classes=classes,
        val_share=data.val_share,
    )


def make_window(data: Data, table: Table) -> WindowConfig:
    """The window of a run: as given, or the largest that is usual and fits the dataset.

    By default 64 frames, or the largest power of two that a clip of the median length holds; and
    224 pixels, or the largest multiple of 32 that the smallest picture holds. Raises FlowprepError
    where the crop is larger than that.
    """
    short = data.resize or int(np.minimum(table.height_N, table.width_N).min())
    fitting = max(CROP_STEP, short // CROP_STEP * CROP_STEP)
    window = WindowConfig(
        frames=data.frames or _usual_frames(int(np.median(table.frames_N)), data.stride),
        stride=data.stride,
        resize=data.resize,
        crop=data.crop or min(MAX_CROP, fitting),
        hflip=data.hflip,
        scale_flow=data.scale_flow,
        shuffle_frames=data.shuffle_frames,
    )
    if window.crop > short:
        raise FlowprepError(
            f"--crop {window.crop} is larger than the smallest picture, {short} px",
            f"give --crop {fitting} or --resize {window.crop}",
        )
    return window


def _usual_frames(clip_frames: int, stride: int) -> int:
    """The largest power of two up to MAX_FRAMES that a clip of the median length holds."""
    fitting = max(2, (clip_frames - 1) // stride + 1)
    return min(MAX_FRAMES, 1 << (fitting.bit_length() - 1))


def workers_of(data: Source, here: Place) -> int:
    """Processes that decode: as given, or for a GPU one for each core of its share.

    Training on the CPU takes all cores itself: workers beside it slow both down.
    """
    if data.workers >= 0 or here.device.type == "cpu":
        return max(data.workers, 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def views(
    table: Table,
    window: WindowConfig,
    data: Source,
    here: Place,
    needs: tuple[Modality, ...],
    *,
    batch: int,
    n_clips: int = 1,
    n_crops: int = 1,
) -> Batches:
    """This process's share of a table's samples, each once, in `n_clips` x `n_crops` views."""
    return eval_loader(
        table,
        window,
        batch=batch,
        n_clips=n_clips,
        n_crops=n_crops,
        rank=here.rank,
        world=here.world,
        workers=workers_of(data, here),
        need_rgb="rgb" in needs,
        need_flow="flow" in needs,
        skip_bad=data.skip_bad,
        pin=here.device.type == "cuda",
    )


def _feed(
    config: TrainConfig,
    needs: tuple[Modality, ...],
    here: Place,
    table: Table,
    window: WindowConfig,
) -> Feed:
    train, val = table.only("train"), table.only("val")
    share = share_of(config.optim.batch, here.world)

    def steps_from(step: int) -> Batches:
        return train_loader(
            train,
            window,
            batch=config.optim.batch,
            seed=config.seed,
            start_step=step,
            rank=here.rank,
            world=here.world,
            workers=workers_of(config.data, here),
            need_rgb="rgb" in needs,
            need_flow="flow" in needs,
            skip_bad=config.data.skip_bad,
            pin=here.device.type == "cuda",
        )

    return Feed(
        train=steps_from,
        validation=lambda: views(
            val, window, config.data, here, needs[:1], batch=config.optim.micro_batch or share
        ),
        epoch_steps=Fraction(train.n_videos, config.optim.batch),
        order=train.order(),
    )


def _meta(
    config: TrainConfig, modality: Modality, table: Table, model: ModelConfig, window: WindowConfig
) -> Meta:
    return Meta(
        model=model,
        modality=modality,
        classes=table.classes,
        window=window,
        extraction=table.extraction,
        fingerprint=table.fingerprint,
        config=asdict(config),
        step=0,
        epoch=0.0,
        val_top1=0.0,
        commit=code_commit(),
        versions=versions(),
    )


def _tell(config: TrainConfig, modality: Modality, table: Table, window: WindowConfig) -> None:
    for note in table.notes:
        tell(note)
    counts = table.only("train").videos_per_class()
    tell(
        f"{config.run}: {modality}, {len(table.classes)} classes, "
        f"{table.only('train').n_videos:,} videos to train on ({counts.min():,} to "
        f"{counts.max():,} a class), {table.only('val').n_videos:,} to validate; "
        f"windows of {window.frames} frames, {window.crop}x{window.crop} px"
    )
