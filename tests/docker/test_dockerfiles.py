"""The images and the package say the same. build.sh and smoke.sh make and try them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def dockerfile(kind: str) -> str:
    return (REPOSITORY / "docker" / kind / "Dockerfile").read_text()


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return re.sub("[-_.]+", "-", found[0]).lower()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_everything_an_image_asks_for_is_pinned(kind: str) -> None:
    [extras] = re.findall(r"/src\[([\w,]+)\]", dockerfile(kind))
    wanted = list(PROJECT["project"]["dependencies"])
    for extra in extras.split(","):
        wanted += PROJECT["project"]["optional-dependencies"][extra]
    pins = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line) for line in pins if "==" in line}
    assert {name_of(requirement) for requirement in wanted} <= pinned


def instructions(text: str) -> list[str]:
    kept = [line for line in text.splitlines() if line and not line.startswith("#")]
    return "\n".join(kept).replace("\\\n", "").splitlines()


def test_the_images_differ_in_cuda_alone() -> None:
    cpu = dockerfile("cpu").replace("engine cpu", "engine cuda")
    of_cuda = ("OPENCV_WHEEL", "NVIDIA_")
    cuda = dockerfile("cuda").replace("[cluster,cuda13]", "[cluster]")
    shared = [one for one in instructions(cuda) if not any(word in one for word in of_cuda)]
    assert shared == instructions(cpu)


def test_what_the_package_is_made_of_reaches_the_build() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    tool, project = PROJECT["tool"]["setuptools"], PROJECT["project"]
    folders = {name.split(".")[0] for name in tool["packages"]}
    files = {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}
    assert folders | set(tool["package-dir"].values()) | files <= let_in
