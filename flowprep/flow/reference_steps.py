"""The steps of TV-L1 in NumPy float64: pyramid, warp, one iteration.

Each function names the OpenCV code that it restates, by file or by function of tvl1flow.cpp and
tvl1flow.cu (opencv_contrib, modules optflow and cudaoptflow).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowprep.flow.base import TVL1Params
from flowprep.records import F64, U8

MIN_LEVEL_PX = 16  # a level with a shorter side is dropped (both tvl1flow.cpp)
FLAT_GRAD = float(np.finfo(np.float32).eps)  # |grad|^2 up to this: no data term
REMAP_STEPS = 32  # INTER_TAB_SIZE of OpenCV 4's cv::remap: positions are rounded to 1/32 px


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The three steps in which OpenCV's implementations differ."""

    resize_positions: Callable[[int, float], F64]  # (output length, step) -> positions in the input
    cubic_taps: Callable[[F64, int], tuple[np.ndarray, F64]]  # (positions, length) -> index, weight
    check_is_due: Callable[[int, float, float], bool]  # (iteration, previous error, limit)


# --- pyramid ---


def level_sizes_HW(
    height: int, width: int, n_scales: int, scale_step: float
) -> list[tuple[int, int]]:
    """Sizes of the levels, each from the one before, rounded half to even (saturate_cast<int>)."""
    sizes = [(height, width)]
    for _ in range(n_scales - 1):
        height, width = round(height * scale_step), round(width * scale_step)
        if min(height, width) < MIN_LEVEL_PX:
            break
        sizes.append((height, width))
    return sizes


def corner_positions(n_out: int, step: float) -> F64:
    """src = dst * step in float32 (cudawarping resize.cu: `src_x = dst_x * fx`)."""
    return (np.arange(n_out, dtype=np.float32) * np.float32(step)).astype(np.float64)


def centre_positions(n_out: int, step: float) -> F64:
    """src = (dst + 0.5) * step - 0.5, not below 0 (imgproc resize.cpp, INTER_LINEAR)."""
    positions = ((np.arange(n_out) + 0.5) * step - 0.5).astype(np.float32)
    return np.maximum(positions, 0).astype(np.float64)


def resize_axis0(image: F64, positions: F64) -> F64:
    """Linear interpolation along the first axis; the last row stands for what lies behind it."""
    last = len(image) - 1
    low = np.minimum(np.floor(positions).astype(int), last)
    t = (positions - low)[:, None]
    return image[low] * (1 - t) + image[np.minimum(low + 1, last)] * t


def resize(image: F64, size_HW: tuple[int, int], step_HW: tuple[float, float], rules: Rules) -> F64:
    """Bilinear resize; `step_HW` is the distance of two output pixels in input pixels."""
    y, x = (rules.resize_positions(n, step) for n, step in zip(size_HW, step_HW, strict=True))
    return resize_axis0(resize_axis0(image, y).T, x).T


def pyramid(frame: U8, params: TVL1Params, rules: Rules) -> list[F64]:
    """Levels of a frame, no smoothing and no change of range; level s is made from level s-1."""
    levels = [frame.astype(np.float64)]
    step = 1 / params.scale_step
    height, width = frame.shape
    for size in level_sizes_HW(height, width, params.n_scales, params.scale_step)[1:]:
        levels.append(resize(levels[-1], size, (step, step), rules))
    return levels


def upscale_flow(flow_2HW: F64, size_HW: tuple[int, int], params: TVL1Params, rules: Rules) -> F64:
    """Flow for the next finer level: sampled by the true size ratio, times 1 / scale_step."""
    height, width = flow_2HW.shape[1:]
    step_HW = (1 / (size_HW[0] / height), 1 / (size_HW[1] / width))
    return np.stack([resize(u, size_HW, step_HW, rules) for u in flow_2HW]) / params.scale_step


# --- warp ---


def central_gradient(image: F64) -> tuple[F64, F64]:
    """(d/dx, d/dy), half the difference of both neighbours, indices clamped (centeredGradient)."""
    padded = np.pad(image, 1, mode="edge")
    return (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2


def cubic_weight(distance: F64, a: float) -> F64:
    """Keys' cubic kernel; a = -0.5 is Catmull-Rom (tvl1flow.cu bicubicCoeff), -0.75 cv::remap's."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def clamped_taps(positions: F64, length: int) -> tuple[np.ndarray, F64]:
    """Catmull-Rom at the exact position, indices clamped, weights over their sum (warpBackward).

    The CUDA window ceil(x-2)..floor(x+2) has a fifth tap at whole positions; it weighs 0.
    """
    base = np.floor(positions)
    taps = base + np.arange(-1, 3).reshape(-1, 1, 1)
    weights = cubic_weight(positions - taps, -0.5)
    index = np.clip(taps, 0, length - 1).astype(int)
    return index, weights / weights.sum(axis=0)


def zero_border_taps(positions: F64, length: int) -> tuple[np.ndarray, F64]:
    """cv::remap INTER_CUBIC of OpenCV 5: a = -0.75, BORDER_CONSTANT 0."""
    taps = np.floor(positions) + np.arange(-1, 3).reshape(-1, 1, 1)
    weights = cubic_weight(positions - taps, -0.75)
    inside = (taps >= 0) & (taps < length)
    return np.clip(taps, 0, length - 1).astype(int), weights * inside


def zero_border_table_taps(positions: F64, length: int) -> tuple[np.ndarray, F64]:
    """The same in OpenCV 4, which takes the weights from a table in steps of 1/32 px."""
    steps = np.rint(positions.astype(np.float32) * np.float32(REMAP_STEPS))
    return zero_border_taps(steps.astype(np.float64) / REMAP_STEPS, length)


def warp_back(images: list[F64], flow_2HW: F64, rules: Rules) -> list[F64]:
    """Each image at (x + u, y + v), bicubic."""
    height, width = flow_2HW.shape[1:]
    x_index, x_weight = rules.cubic_taps(np.arange(width) + flow_2HW[0], width)
    y_index, y_weight = rules.cubic_taps(np.arange(height)[:, None] + flow_2HW[1], height)
    at = y_index[:, None], x_index[None, :]
    weights = y_weight[:, None] * x_weight[None, :]
    return [np.einsum("jiyx,jiyx->yx", weights, image[at]) for image in images]


# --- one iteration ---


@dataclass(frozen=True, kw_only=True)
class DataTerm:
    """What is constant in a warp: the linearised brightness difference rho = rho_c + g . u."""

    gradient_2HW: F64  # g: of the warped frame 1
    square_HW: F64  # |g|^2
    rho_c_HW: F64

    def rho_HW(self, flow_2HW: F64) -> F64:
        return self.rho_c_HW + (self.gradient_2HW * flow_2HW).sum(axis=0)


def linearise(frame_0: F64, warped: list[F64], flow_2HW: F64) -> DataTerm:
    """rho_c = I1w - I1wx u - I1wy v - I0 (tvl1flow.cu, end of warpBackward)."""
    gradient = np.stack(warped[1:])
    rho_c = warped[0] - (gradient * flow_2HW).sum(axis=0) - frame_0
    return DataTerm(gradient_2HW=gradient, square_HW=(gradient**2).sum(axis=0), rho_c_HW=rho_c)


def threshold(data: DataTerm, flow_2HW: F64, l_t: float) -> F64:
    """The step v - u that lowers |rho|, at most l_t |g| long (Zach et al., proposition 3)."""
    rho, bound = data.rho_HW(flow_2HW), l_t * data.square_HW
    textured = data.square_HW > FLAT_GRAD
    newton = np.where(textured, -rho / np.where(textured, data.square_HW, 1), 0)
    factor = np.where(rho < -bound, l_t, np.where(rho > bound, -l_t, newton))
    return factor * data.gradient_2HW


def divergence(p_C2HW: F64) -> F64:
    """Backward differences, p = 0 before the first column and row, nothing special at the last."""
    px, py = p_C2HW[:, 0], p_C2HW[:, 1]
    div = px + py
    div[:, :, 1:] -= px[:, :, :-1]
    div[:, 1:, :] -= py[:, :-1, :]
    return div


def forward_gradient(flow_2HW: F64) -> F64:
    """[component, (d/dx, d/dy), H, W]: forward differences, 0 at the last column and row."""
    gradient = np.zeros((2, *flow_2HW.shape))
    gradient[0, :, :, :-1] = np.diff(flow_2HW, axis=2)
    gradient[1, :, :-1, :] = np.diff(flow_2HW, axis=1)
    return gradient.swapaxes(0, 1)


def update_dual(p_C2HW: F64, flow_2HW: F64, taut: float) -> F64:
    """p = (p + taut grad u) / (1 + taut |grad u|) (estimateDualVariables)."""
    gradient = forward_gradient(flow_2HW)
    length = np.sqrt((gradient**2).sum(axis=1, keepdims=True))
    return (p_C2HW + taut * gradient) / (1 + taut * length)
