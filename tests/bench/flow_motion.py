"""End-point error on rendered motion, known exactly: engine `cpu` beside OpenCV's CPU code.

    python tests/bench/flow_motion.py

Inside: pixels whose motion ends at least 2 px inside the frame. Full: all pixels; those that
leave the frame have nothing to match.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import machine
import numpy as np

from flowprep.flow.base import get_engine
from flowprep.synth import Motion, render, render_wave

HEIGHT, WIDTH, MARGIN_PX = 256, 340, 2
MOTIONS = {
    "translation 1.3, -0.7 px": Motion(dx_px=1.3, dy_px=-0.7),
    "translation 5.5, 3.25 px": Motion(dx_px=5.5, dy_px=3.25),
    "rotation 2 deg": Motion(rotate_deg=2.0),
    "zoom 1.03": Motion(zoom=1.03),
}
ENGINES = ("cpu", "opencv-cpu")


def pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, RGB [2, H, W, 3], true flow [2, H, W]."""
    for name, motion in MOTIONS.items():
        rgb = render(motion, 2, HEIGHT, WIDTH, seed=1)
        yield name, rgb, motion.flow_T2HW(2, HEIGHT, WIDTH)[0]
    yield "sine wave 4.5 px", *render_wave(HEIGHT, WIDTH)


def ends_inside(flow_2HW: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ends = ((x + flow_2HW[0], WIDTH), (y + flow_2HW[1], HEIGHT))
    near, far = MARGIN_PX, 1 + MARGIN_PX
    return np.logical_and(*((end >= near) & (end <= side - far) for end, side in ends))


def main() -> None:
    rows = []
    for name, rgb, true in pairs():
        gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rgb])
        inside, row = ends_inside(true), {"motion": name}
        for engine in ENGINES:
            error = np.hypot(*(get_engine(engine).compute(gray)[0] - true))
            row[f"{engine}, inside"] = f"{error[inside].mean():.3f}"
            row[f"{engine}, full"] = f"{error.mean():.3f}"
        rows.append(row)
    print(machine.markdown(rows))
    machine.save("flow_motion", rows)


if __name__ == "__main__":
    main()
