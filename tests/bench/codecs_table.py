"""The table of docs/codecs.md out of a result file of codecs.py.

python tests/bench/codecs_table.py tests/bench/results/codecs_<cpu>_<date>.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "codecs.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
RGB_PEER, FLOW_PEER = "jpeg", "jpeg-flow"

Result = dict[str, Any]


def mean(rows: dict[str, dict[str, float]], name: str) -> float:
    """Over the videos."""
    return sum(row[name] for row in rows.values()) / len(rows)


def worst(rows: dict[str, dict[str, float]], name: str, pick: Any) -> float:
    return pick(row[name] for row in rows.values())


def markdown(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])


def cost_cells(result: Result, codec: str, peer: str) -> list[str]:
    rows = result["codecs"][codec]
    size, peer_size = (mean(result["codecs"][n], "bytes_per_frame") for n in (codec, peer))
    encode_ms, decode_ms = mean(rows, "encode_ms"), mean(rows, "decode_ms")
    return [
        f"`{codec}`",
        f"{size:,.0f}",
        f"{100 * size / peer_size:.0f} %",
        f"{encode_ms:.2f} ({1000 / encode_ms:,.0f})",
        f"{decode_ms:.2f} ({1000 / decode_ms:,.0f})",
        f"{mean(rows, 'window_ms'):.0f}",
    ]


COSTS = ["bytes/frame", "of JPEG q95", "encode ms (frames/s)", "decode ms (frames/s)"]
COSTS += ["64 frames of 10 s, ms"]


def rgb_table(result: Result) -> str:
    lines = []
    for codec, rows in result["codecs"].items():
        if "psnr_db" in next(iter(rows.values())):
            low = worst(rows, "psnr_db", min)
            quality = f"{mean(rows, 'psnr_db'):.1f} ({low:.1f})" if low < 99 else "exact"
            shift = f"{worst(rows, 'colour_shift', max):.2f}"
            lines.append([*cost_cells(result, codec, RGB_PEER), quality, shift])
    return markdown(["RGB", *COSTS, "PSNR dB (worst video)", "colour shift, levels"], lines)


def flow_table(result: Result) -> str:
    lines = []
    for codec, rows in result["codecs"].items():
        if "epe_mean" in next(iter(rows.values())):
            epe = f"{mean(rows, 'epe_mean'):.4f} ({worst(rows, 'epe_mean', max):.3f})"
            p95 = f"{mean(rows, 'epe_p95'):.3f}"
            lines.append([*cost_cells(result, codec, FLOW_PEER), epe, p95])
    return markdown(["flow", *COSTS, "EPE px, mean (worst video)", "EPE px, p95"], lines)


def total_table(result: Result) -> str:
    """Both modalities of each preset against JPEG q95."""
    sizes = {n: mean(rows, "bytes_per_frame") for n, rows in result["codecs"].items()}
    lines = []
    for preset, (rgb, flow) in result["pairs"].items():
        path_ms = result["whole_path_ms"][preset].values()
        share = (sizes[rgb] + sizes[flow]) / (sizes[RGB_PEER] + sizes[FLOW_PEER])
        encode_ms = sum(mean(result["codecs"][n], "encode_ms") for n in (rgb, flow))
        lines.append(
            [
                f"{preset}: `{rgb}` + `{flow}`",
                f"{sizes[rgb] + sizes[flow]:,.0f}",
                f"{100 * share:.0f} %",
                f"{encode_ms:.2f}",
                f"{sum(path_ms) / len(path_ms):.2f} ({max(path_ms):.2f})",
            ]
        )
    head = ["both", "bytes/frame", "of JPEG q95", "encode ms/frame"]
    return markdown([*head, "resize + encode + tar, ms/frame (worst video)"], lines)


def video_table(result: Result) -> str:
    (rgb, flow), (fast_rgb, fast_flow) = result["pairs"]["default"], result["pairs"]["fast"]
    lines = []
    for video, limit in result["videos"].items():
        row = {n: result["codecs"][n][video] for n in (rgb, flow, fast_rgb, fast_flow)}
        lines.append(
            [
                video,
                f"{limit['psnr_db_yuv420']:.1f}",
                f"{row[rgb]['psnr_db']:.1f} / {row[fast_rgb]['psnr_db']:.1f}",
                f"{limit['epe_mean_8bit']:.3f}",
                f"{row[flow]['epe_mean']:.3f} / {row[fast_flow]['epe_mean']:.3f}",
                f"{limit['flow_median_px']:.2f}",
                f"{limit['saturated_percent']:.3f}",
            ]
        )
    head = ["video", "PSNR of 4:2:0 alone", f"`{rgb}` / `{fast_rgb}`", "EPE of 8 bits alone"]
    head += [f"`{flow}` / `{fast_flow}`", "median flow px", "saturated %"]
    return markdown(head, lines)


def equal_line(result: Result) -> str:
    runs = result["equal_encodes"]
    unequal = [name for name, run in runs.items() if not run["equal"]]
    first = next(iter(runs.values()))
    verdict = f"NOT equal: {', '.join(unequal)}" if unequal else f"all equal, {len(runs)} codecs"
    widths = ", ".join(map(str, first["widths"]))
    return (
        f"{first['encodes']} encodes of the same frames at each of the widths {widths}, "
        f"over {first['processes']} processes: {verdict}."
    )


def plain_line(result: Result) -> str:
    rows = result["plain_reader"]
    return (
        f'`frame.to_ndarray(format="rgb24")` of `{result["pairs"]["default"][0]}`: '
        f"{mean(rows, 'psnr_db'):.1f} dB, a channel off by up to "
        f"{min(row['shift'] for row in rows.values()):.2f} levels."
    )


def render(result: Result, path: Path) -> str:
    """The tables; also put into docs/codecs.md between its marks."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    parts = [
        f"From `tests/bench/results/{path.name}`: {machine['cpu']}, one core of "
        f"{machine['cores']}, commit {machine['commit']}, {machine['date']}; {versions}; "
        f"{result['libraries']}. Means over {len(result['videos'])} videos.",
        rgb_table(result),
        flow_table(result),
        total_table(result),
        video_table(result),
        equal_line(result),
        plain_line(result),
    ]
    text = "\n\n".join(parts)
    if PAGE.exists():
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    return text


if __name__ == "__main__":
    source = Path(sys.argv[1])
    print(render(json.loads(source.read_text()), source))
