"""What can be said of the launch files without a cluster. slurm.sh runs one of them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from flowprep.cli.extract import extract

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH = REPOSITORY / "pipelines" / "cluster"
SCRIPTS = [LAUNCH / "extract.sbatch", *sorted(REPOSITORY.glob("tests/*/*.sh"))]


@pytest.fixture(scope="module")
def rayjob() -> list[dict[str, Any]]:
    """The job, and the claim of its volume."""
    return list(yaml.safe_load_all((LAUNCH / "rayjob.yaml").read_text()))


def options_of(command: str) -> dict[str, Any]:
    """What flowprep understands of a command line; one that it does not raises."""
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("flowprep", "extract")
    with click.Context(extract) as context:
        return extract.make_context(name, arguments, parent=context).params


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_the_scripts(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_sbatch_sees_every_line_that_is_meant_for_it() -> None:
    """It looks no further than the first command."""
    lines = (LAUNCH / "extract.sbatch").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert lines[0] == "#!/bin/bash"
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]
    assert "#SBATCH --requeue" in lines[:first]


def test_flowprep_takes_what_the_sbatch_file_gives_it() -> None:
    text = (LAUNCH / "extract.sbatch").read_text()
    [command] = re.findall(r"command=\((.*) \"\$\{options\[@\]\}\"\)", text)
    options = options_of(command)
    assert options["ray_address"] == "$RAY_HEAD:$PORT"
    assert (options["src"], options["out"]) == ("$SRC", "$OUT")


def test_flowprep_takes_what_the_rayjob_gives_it_and_finds_the_volume(
    rayjob: list[dict[str, Any]],
) -> None:
    job, claim = rayjob
    options = options_of(job["spec"]["entrypoint"])
    cluster = job["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        [container], [volume] = pod["containers"], pod["volumes"]
        [mount] = container["volumeMounts"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert mount["name"] == volume["name"]
        assert options["src"].startswith(mount["mountPath"] + "/")
        assert options["out"].startswith(mount["mountPath"] + "/")
        assert pod["securityContext"]["runAsNonRoot"]


def test_the_rayjob_names_the_ray_of_the_images(rayjob: list[dict[str, Any]]) -> None:
    pins = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert f"ray=={rayjob[0]['spec']['rayClusterSpec']['rayVersion']}" in pins
