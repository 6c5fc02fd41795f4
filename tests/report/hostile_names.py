"""Labels that would like to be markup, or to turn the text around them."""

from __future__ import annotations

SCRIPT = "<script>alert(1)</script>"
IMAGE = "\"><img src='x' onerror=alert(1)>"
TURNED = "right \u202eto left \u05d0\u05d1 &amp; \u200b"
TURNED_SHOWN = "right \\u202eto left \u05d0\u05d1 &amp; \\u200b"
LABELS = [SCRIPT, IMAGE, TURNED, "plain"]
DX_PX = 1.5
"""The flow of every pair, to the right."""
