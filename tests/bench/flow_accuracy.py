"""How far engine `cpu` is from `reference` (NumPy float64) on real pairs: flow, counts, energy.

    python tests/bench/flow_accuracy.py [--size native]
    python tests/bench/flow_accuracy.py --of opencv-cpu    # against `reference` in its rules

End-point errors are per pair; the table gives medians over the pairs, and lists the worst. The
energy is what TV-L1 minimises, on full-size frames: lambda sum|rho| + sum|grad u1| + sum|grad u2|,
rho being the difference between frame 0 and frame 1 warped by the flow.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import cv2
import machine
import numpy as np
from flow_pairs import SIZES, Pair, frames, load_list

from flowprep.flow.base import TVL1Params, get_engine
from flowprep.flow.reference import RULES
from flowprep.flow.reference_steps import forward_gradient, warp_back

N_WORST = 8
RULES_OF = {
    "cpu": "cuda",
    "opencv-cpu": "cpu5" if int(cv2.__version__.split(".")[0]) >= 5 else "cpu",
}


def compare(pair: Pair, size_name: str, engine: str) -> dict[str, Any]:
    gray = frames(pair, SIZES[size_name])
    want = get_engine("reference", rules=RULES_OF[engine]).solve(*gray)
    got = get_engine(engine).compute(gray)[0]
    epe = np.hypot(*(got - want.flow_2HW))
    row = {
        "video": pair.video,
        "index": pair.index,
        "mean": float(epe.mean()),
        "median": float(np.median(epe)),
        "p95": float(np.percentile(epe, 95)),
        "max": float(epe.max()),
        "within 0.1 px": float((epe <= 0.1).mean()),
        "1 - ccorr": 1 - ccorr(got, want.flow_2HW),
        "energy ratio": energy(gray, got) / energy(gray, want.flow_2HW),
    }
    if engine == "cpu":
        counts = get_engine("cpu").solve(*gray).counts_LW
        row["warps with equal count"] = float((want.counts_LW == counts).mean())
    return row


def ccorr(a_2HW: np.ndarray, b_2HW: np.ndarray) -> float:
    """cv2's TM_CCORR_NORMED of both flows, as in OpenCV's own tests."""
    a, b = (flow.transpose(1, 2, 0).astype(np.float32) for flow in (a_2HW, b_2HW))
    return float(cv2.matchTemplate(a, b, cv2.TM_CCORR_NORMED)[0, 0])


def energy(gray: np.ndarray, flow_2HW: np.ndarray) -> float:
    frame_0, frame_1 = gray.astype(np.float64)
    (warped,) = warp_back([frame_1], flow_2HW.astype(np.float64), RULES["cuda"])
    slope = np.sqrt((forward_gradient(flow_2HW.astype(np.float64)) ** 2).sum(axis=1)).sum()
    return float(TVL1Params().lambda_ * np.abs(warped - frame_0).sum() + slope)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="340x256")
    parser.add_argument("--of", choices=RULES_OF, default="cpu", dest="engine")
    given = parser.parse_args()
    pairs = [pair for pair in load_list() if pair.moves]
    with ProcessPoolExecutor() as pool:
        work = partial(compare, size_name=given.size, engine=given.engine)
        rows = list(pool.map(work, pairs))
    rows.sort(key=lambda row: -row["mean"])
    numbers = [key for key in rows[0] if key not in ("video", "index")]
    table = [
        {"": how} | {key: f"{of([row[key] for row in rows]):.2e}" for key in numbers}
        for how, of in (("median", np.median), ("least", min), ("most", max))
    ]
    print(f"{len(rows)} pairs, {given.size}\n{machine.markdown(table)}")
    print(machine.markdown(rows[:N_WORST]))
    machine.save(f"flow_accuracy_{given.engine}_{given.size}", rows)


if __name__ == "__main__":
    main()
