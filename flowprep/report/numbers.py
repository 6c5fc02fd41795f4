"""Numbers for people."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(n: float) -> str:
    """1,234,567"""
    return f"{round(n):,}"


def compact(n: int) -> str:
    """9,999, 123k, 1.23M"""
    if n < 10_000:
        return count(n)
    thousands = n < 999_500
    return f"{n / (1e3 if thousands else 1e6):.3g}{'k' if thousands else 'M'}"


def counted(n: int, what: str) -> str:
    """1 sample, 2 samples"""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def size(n_bytes: float) -> str:
    """1.23 GB"""
    amount, unit = float(n_bytes), 0
    while amount >= 999.5 and unit < len(UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{digits(amount)} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """12.3 s, 4.56 min, 7.89 h"""
    if seconds < 120:
        return f"{digits(seconds)} s"
    return f"{digits(seconds / 60)} min" if seconds < 7200 else f"{digits(seconds / 3600)} h"


def digits(value: float) -> str:
    """Three digits or all before the point: 0.123, 12.3, 12,345; whole numbers bare."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """12.3 %; a share that is not 0 does not become it."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.3g} %"
