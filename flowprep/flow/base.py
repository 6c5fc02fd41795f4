"""The engine contract, and the registry of engines by name.

An engine computes TV-L1 flow of successive gray frames. The flow of a pair depends on that pair
alone: whatever the chunk, batch, order, thread count or neighbours, it is bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from flowprep.config import IMPORTED
from flowprep.errors import FlowprepError
from flowprep.quantize import Quantizer
from flowprep.records import F32, U8, CodedFlow


@dataclass(frozen=True, kw_only=True)
class TVL1Params:
    """Parameters of TV-L1; the defaults are those of OpenCV CUDA's OpticalFlowDual_TVL1."""

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    n_scales: int = 5
    scale_step: float = 0.8
    n_warps: int = 5
    epsilon: float = 0.01
    n_iterations: int = 300  # at most, per warp

    def __post_init__(self) -> None:
        for name in ("n_scales", "n_warps", "n_iterations"):
            self._require(name, int, "a whole number from 1 to 1000000", lambda v: 1 <= v <= 10**6)
        for name in ("tau", "lambda_", "theta"):
            self._require(
                name, (int, float), "a number from 1e-6 to 1e6", lambda v: 1e-6 <= v <= 1e6
            )
        self._require("epsilon", (int, float), "a number from 0 to 1e6", lambda v: 0 <= v <= 1e6)
        self._require(
            "scale_step", (int, float), "a number above 0 and below 1", lambda v: 0 < v < 1
        )

    def _require(
        self, name: str, kind: Any, allowed: str, is_allowed: Callable[[Any], bool]
    ) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, kind) or not is_allowed(value):
            default = type(self).__dataclass_fields__[name].default
            raise FlowprepError(
                f"TV-L1 parameter {name} = {value!r} is not possible",
                f"give {allowed}, or leave it out for the default {default}",
            )

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


class Engine(Protocol):
    """Computes flow. Made by `get_engine`; lives in one process and one thread at a time."""

    name: str
    params: Mapping[str, Any]  # JSON values, stored in each sample
    build: str  # what computed: library and version, device

    def compute(self, gray_THW: U8) -> F32:
        """uint8 [T, H, W], T >= 1 -> contiguous float32 [T-1, 2, H, W], pixels per step."""
        ...

    def compute_batch(self, clips: Sequence[U8]) -> list[F32]:
        """`compute` of several clips of one frame size."""
        ...

    def batch_pairs(self, size_HW: tuple[int, int]) -> int:
        """Pairs of that size it would like at a time; 1 where more are no faster."""
        ...


@runtime_checkable
class GivesCodes(Protocol):
    """What an engine may have besides: it quantises where it computes, so that the host need not.

    An engine that has this method is asked for codes wherever flow is only stored.
    """

    def compute_codes_batch(self, clips: Sequence[U8], quantizer: Quantizer) -> list[CodedFlow]:
        """`quantizer.coded` of what `compute_batch` gives.

        The codes have the same bits; `sum_px` and `max_px` agree to float32 rounding, and
        `sum_px` of a pair whose flow is not finite is not finite.
        """
        ...


@dataclass(frozen=True)
class EngineEntry:
    """Where an engine lives and how a user gets it."""

    target: str  # "module:factory"; factory(*, device, threads, **params) -> Engine
    summary: str
    install: str  # the line that makes it live
    uses_gpu: bool = False
    plans_memory: bool = False  # takes gpu_share and gpu_bytes

    def load(self) -> Any:
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine can run here, and why not."""

    name: str
    summary: str
    available: bool
    detail: str  # the build when available, else what is missing
    install: str


ENGINES: dict[str, EngineEntry] = {
    "cuda": EngineEntry(
        "flowprep.flow.cuda.engine:Cuda",
        "own CUDA kernels, many pairs at once, OpenCV CUDA's rules",
        "pip install 'flowprep[cuda13]' (driver 580 or newer), or 'flowprep[cuda12]'",
        uses_gpu=True,
        plans_memory=True,
    ),
    "opencv-cuda": EngineEntry(
        "flowprep.flow.opencv:OpenCVCuda",
        "cv2.cuda.OpticalFlowDual_TVL1, one stream",
        "install a CUDA build of OpenCV (docker/opencv-cuda) in place of the one from PyPI",
        uses_gpu=True,
    ),
    "cpu": EngineEntry(
        "flowprep.flow.cpu.engine:Cpu",
        "own vector kernels, float32, OpenCV CUDA's rules",
        "pip install llvmlite",
    ),
    "opencv-cpu": EngineEntry(
        "flowprep.flow.opencv:OpenCVCpu",
        "cv2.optflow.DualTVL1OpticalFlow in parity settings",
        "pip install opencv-contrib-python-headless",
    ),
    "reference": EngineEntry(
        "flowprep.flow.reference:Reference",
        "NumPy float64, readable, slow: the oracle",
        "always there",
    ),
    "constant": EngineEntry(
        "flowprep.flow.constant:Constant",
        "the same flow for every pair: measures everything but the flow",
        "always there",
    ),
}
AUTO_ORDER = ("cuda", "opencv-cuda", "cpu", "opencv-cpu")
"""What `auto` tries, best first; `reference` and `constant` only run when named."""


CAME_ALONG = EngineEntry(
    "flowprep.flow.imported:Imported",
    "flow that came with the frames",
    "flowprep import rawframes",
)
"""Not listed with the engines, as it computes nothing."""


def entry_of(name: str) -> EngineEntry | None:
    """Where the engine called `name` lives; None when there is none."""
    return CAME_ALONG if name == IMPORTED else registry().get(name)


def uses_gpu(name: str) -> bool:
    entry = entry_of(name)
    return entry is not None and entry.uses_gpu


def plans_memory(name: str) -> bool:
    entry = entry_of(name)
    return entry is not None and entry.plans_memory


def registry() -> dict[str, EngineEntry]:
    """Our engines and those that installed packages bring as `flowprep.engines` entry points."""
    found = dict(ENGINES)
    for point in entry_points(group="flowprep.engines"):
        found.setdefault(
            point.name,
            EngineEntry(point.value, f"brought by {point.value}", f"pip install {point.name}"),
        )
    return found


def get_engine(name: str, *, device: int | None = None, threads: int = 1, **params: Any) -> Engine:
    """The engine called `name`, ready to compute.

    `device` is a CUDA device number where the engine has one. `params` are those of `TVL1Params`.
    Raises FlowprepError when the name is unknown or the engine cannot run here; nothing is
    substituted.
    """
    entry = entry_of(name)
    if entry is None:
        raise FlowprepError(
            f"unknown engine {name!r}", f"allowed: auto, {', '.join(sorted(registry()))}"
        )
    try:
        return entry.load()(device=device, threads=threads, **params)
    except ImportError as missing:
        what = f"engine {name!r} cannot run here: {missing}"
        raise FlowprepError(what, entry.install) from missing


def engine_status(name: str) -> EngineStatus:
    """Try to make a registered engine; whatever goes wrong is told, not raised."""
    entry = registry()[name]
    try:
        engine = get_engine(name)
    except FlowprepError as error:
        return EngineStatus(name, entry.summary, False, error.message, error.hint or entry.install)
    except Exception as error:  # noqa: BLE001 - a broken driver may raise anything
        return EngineStatus(name, entry.summary, False, repr(error), entry.install)
    return EngineStatus(name, entry.summary, True, engine.build, entry.install)


def resolve_auto() -> tuple[str, str]:
    """(the best engine here, its build and which better ones are not live).

    Raises FlowprepError when none is.
    """
    reasons: list[str] = []
    for name in AUTO_ORDER:
        status = engine_status(name)
        if status.available:
            skipped = ", ".join(AUTO_ORDER[: AUTO_ORDER.index(name)])
            told = f"; not here: {skipped} (flowprep engines tells why)" if skipped else ""
            return name, f"{status.detail}{told}"
        reasons.append(f"{name}: {status.detail}")
    raise FlowprepError(f"no engine is live here ({'; '.join(reasons)})", "see flowprep engines")
