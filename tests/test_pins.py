"""constraints.txt against what the installed distributions say they need; no network.

Those of the running Python speak for the others too, as far as they share pins. What they cannot
know, `make check-pins` asks PyPI.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
THIS_MACHINE = default_environment()
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
UNPINNED = re.compile("setuptools|triton|nvidia-.*|cuda-(bindings|toolkit)")
"""What torch brings in versions of its own choice, and setuptools, which torch asks for too."""

Asked = tuple[str, Requirement]
"""Who asks for what."""


def holds(requirement: Requirement, python: str, extra: str = "") -> bool:
    if requirement.marker is None:
        return True
    versions = {"python_version": python, "python_full_version": f"{python}.9", "extra": extra}
    return requirement.marker.evaluate({**THIS_MACHINE, **versions})


@cache
def pins_of(python: str) -> dict[str, str]:
    """Version by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    held = [pin for pin in pins if holds(pin, python)]
    versions = {canonicalize_name(pin.name): str(pin.specifier)[2:] for pin in held}
    assert len(versions) == len(held), f"a distribution has two pins for Python {python}"
    return versions


@cache
def installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def as_pinned(name: str, python: str) -> Distribution | None:
    """The installed distribution, if it has the version that is pinned for a Python."""
    found, pin = installed(name), pins_of(python).get(name)
    return found if found and pin and found.version in SpecifierSet(f"=={pin}") else None


def asked_by_project(python: str) -> list[Asked]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    asked = [Requirement(line) for lines in lists for line in lines]
    return [("flowprep", one) for one in asked if holds(one, python)]


@cache
def requirements_of(name: str) -> list[Requirement]:
    found = installed(name)
    return [Requirement(line) for line in found.requires or []] if found else []


def asked_by(name: str, extra: str, python: str) -> list[Asked]:
    if not as_pinned(name, python):
        return []
    return [(name, one) for one in requirements_of(name) if holds(one, python, extra)]


@cache
def all_asked(python: str) -> list[Asked]:
    """What the project asks for with every extra, what that asks for, and so on."""
    asked, seen = asked_by_project(python), set()
    for _, requirement in asked:  # grows
        for extra in ("", *requirement.extras):
            wanted = canonicalize_name(requirement.name), extra
            if wanted not in seen:
                seen.add(wanted)
                asked += asked_by(*wanted, python)
    return asked


@pytest.mark.parametrize("python", PYTHONS)
def test_every_pin_is_what_others_ask_for(python: str) -> None:
    pins = pins_of(python)
    conflicts = [
        f"{who} asks for {requirement}, pinned is {pins[name]}"
        for who, requirement in all_asked(python)
        if (name := canonicalize_name(requirement.name)) in pins
        and not requirement.specifier.contains(pins[name], prereleases=True)
    ]
    assert not conflicts


@pytest.mark.parametrize("python", PYTHONS)
def test_whatever_is_asked_for_has_a_pin(python: str) -> None:
    names = {canonicalize_name(requirement.name) for _, requirement in all_asked(python)}
    assert not {name for name in names - set(pins_of(python)) if not UNPINNED.fullmatch(name)}


@pytest.mark.parametrize("python", PYTHONS)
def test_every_pin_takes_the_python(python: str) -> None:
    found = [one for name in pins_of(python) if (one := as_pinned(name, python))]
    takes = {one.name: one.metadata.get("Requires-Python") or "" for one in found}
    assert not {name: of for name, of in takes.items() if f"{python}.9" not in SpecifierSet(of)}


def test_what_is_installed_is_what_is_pinned() -> None:
    """Without it the other tests would ask nobody."""
    found = {name: one.version for name in pins_of(HERE) if (one := installed(name))}
    assert not {name: version for name, version in found.items() if not as_pinned(name, HERE)}
