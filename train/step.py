"""One optimiser step, and everything that changes with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flowprep.errors import FlowprepError
from train.common import Place
from train.config import TrainConfig
from train.data.batch import Batch
from train.metrics import to_device
from train.objective import Objective, Terms
from train.schedule import full_rate_names, make_optimizer, rate, set_rate


class Stepper:
    """The weights of a run on their way: step after step, and to and from a saved state.

    Dropout is seeded by (seed, step, process) at each step, so no state of a generator is carried.
    """

    def __init__(
        self, config: TrainConfig, here: Place, objective: Objective, total_steps: int
    ) -> None:
        self._optim, self._seed = config.optim, config.seed
        self._here, self._objective = here, objective
        self._trained = objective.trained.to(here.device)
        self.backbone = objective.trained.backbone
        head = full_rate_names(self._trained)
        self._optimizer = make_optimizer(self._trained, head, config.optim, config.net.lr_backbone)
        self._ema = _average(self.backbone, config.optim.ema)
        self._forward = _wrap(self._trained, config, here)
        self.step, self.total_steps = 0, total_steps

    @property
    def kept(self) -> nn.Module:
        """The network that is judged and kept: the average of the weights where there is one."""
        return self._ema.module if self._ema is not None else self.backbone

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return rate(min(self.step, self.total_steps - 1), self.total_steps, self._optim)

    def take(self, batch: Batch) -> Terms:
        """Forward, backward, update. Returns the mean terms over this process's clips."""
        torch.manual_seed(hash((self._seed, self.step, self._here.rank)) & 0xFFFFFFFF)
        self._trained.train()
        set_rate(self._optimizer, self.rate)
        self._optimizer.zero_grad(set_to_none=True)
        terms = self._accumulate(batch)
        longest = self._optim.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self._trained.parameters(), longest)
        self._optimizer.step()
        if self._ema is not None:
            self._ema.update_parameters(self.backbone)
        self.step += 1
        return terms | {"gradient_norm": norm.detach()}

    def _accumulate(self, batch: Batch) -> Terms:
        size = len(batch.label_B)
        micro = self._optim.micro_batch or size
        total: Terms = {}
        for start in range(0, size, micro):
            part = Batch(*(field[start : start + micro] for field in batch))
            share = len(part.label_B) / size
            terms = self._backward(to_device(part, self._here), share, start + micro >= size)
            total = {n: total.get(n, torch.zeros_like(v)) + v * share for n, v in terms.items()}
        return total

    def _backward(self, part: Batch, share: float, last: bool) -> Terms:
        """Add a micro-batch's gradient. Processes exchange gradients after the last one."""
        alone = isinstance(self._forward, DistributedDataParallel) and not last
        with self._forward.no_sync() if alone else nullcontext():
            with self._here.autocast(), _no_lone_cell():
                terms = self._objective(self._forward, part)
            (terms["loss"] * share).backward()
        return {name: value.detach() for name, value in terms.items()}

    def settle(self) -> None:
        """Give every process the mean of the batch norm statistics."""
        if self._here.world > 1:
            for net in dict.fromkeys((self.backbone, self.kept)):  # in each process in this order
                for buffer in net.buffers():
                    if buffer.is_floating_point():
                        dist.all_reduce(buffer)
                        buffer /= self._here.world

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "step": self.step,
            "trained": self._trained.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "ema": self._ema.state_dict() if self._ema is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.step = state["step"]
        self._trained.load_state_dict(state["trained"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])


@contextmanager
def _no_lone_cell() -> Iterator[None]:
    """Tell what torch's batch norm means where a clip alone has features of one cell."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise FlowprepError(
            "batch norm sees one clip at a time, whose features are one cell: no variance",
            "give a --batch or --micro-batch that leaves no clip alone, or larger windows",
        ) from error


def _average(net: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of weights and statistics; None when `decay` is 0."""
    if not decay:
        return None
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _wrap(trained: nn.Module, config: TrainConfig, here: Place) -> Any:
    """What `take` calls: memory format, compilation and data parallelism around `trained`."""
    trained.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if here.world > 1 and here.device.type == "cuda" and config.machine.sync_bn:
        nn.SyncBatchNorm.convert_sync_batchnorm(trained)
    if config.machine.compile:
        trained.compile()
    if here.world == 1:
        return trained
    ids = [here.device.index] if here.device.type == "cuda" else None
    return DistributedDataParallel(trained, device_ids=ids, broadcast_buffers=False)


@torch.no_grad()
def measure_statistics(net: nn.Module, inputs: Iterable[Tensor], here: Place) -> None:
    """Set batch norm's statistics to their mean over `inputs`; without any they stay.

    A running mean still holds its start, a variance of 1, after hundreds of steps, and lags behind
    weights that change fast (precise-BN: Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021).
    """
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    net.train()
    for number, one in enumerate(inputs):
        for norm in norms:
            norm.momentum = 1 / (number + 1)
        with here.autocast():
            net(one)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
