"""Fail when a test file ran nothing, or a test was skipped for a reason that is not expected here.

Usage: python .ci/skipped.py tests.xml
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

EXPECTED = (
    *("CUDA", "cuda is not live here", "leaves quantising to the host"),
    *("slow", "needs root", "needs Chromium"),
)
"""A skip whose reason holds none of these words is a fault."""
ELSEWHERE = (
    "tests/gpu/",
    "tests/bench/",
    "tests/run/test_cluster.py",
    "tests/docs/test_stories.py",
    "tests/motionbench/test_whole.py",
    "tests/storage/test_parts.py",
)


def main(report: str) -> int:
    cases = list(ET.parse(report).iter("testcase"))
    skipped = [(c, s) for c in cases for s in c.iter("skipped")]
    odd = [
        f"{case.get('classname')}.{case.get('name')}: {skip.get('message')}"
        for case, skip in skipped
        if not any(word in str(skip.get("message")) for word in EXPECTED)
    ]
    idle = {case for case, _ in skipped}
    ran = {str(case.get("classname")) for case in cases if case not in idle}
    silent = [
        path.as_posix()
        for path in sorted(Path("tests").rglob("test_*.py"))
        if not path.as_posix().startswith(ELSEWHERE)
        and path.with_suffix("").as_posix().replace("/", ".") not in ran
    ]
    for line in [f"skipped: {one}" for one in odd] + [f"ran nothing: {one}" for one in silent]:
        sys.stderr.write(line + "\n")
    return 1 if odd or silent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
