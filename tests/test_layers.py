"""Who may import whom. The tree of each file is read; nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flowprep"

LEAVES = {
    *("errors", "records", "config", "storage", "quantize", "synth", "processes", "cell"),
    *("rawframes", "frametimes", "collector"),
}
STAGES = {"manifest", "sources", "labels", "clips", "decode", "flow", "codec", "shard"}
COMPOSERS = {"run", "verify", "report", "export"}
ENTRIES = {"bench", "cli", "demo", "inspection", "__main__"}
"""What a user starts: they may import anything, but nothing imports them. `inspection` is the
command verify, which checks by verify and repairs by run; `bench` measures what run is made of."""
BETWEEN_COMPOSERS = {"flowprep.run.job"}
"""The only doors from one composing package to another."""

ONLY_IN = {
    "ray": {"run/ray.py", "run/actors.py"},
    "torch": set(),
    "torchvision": set(),
    "train": set(),
}
CUDA = {"cupy", "cuda", "pycuda", "nvidia", "pynvml", "numba"}
SLOW = {"av", "cv2", "llvmlite", *CUDA}
"""Imported at first use, so that --help and every process that does without them start fast."""


@dataclass(frozen=True)
class Import:
    file: str  # below the package: run/job.py
    target: str  # flowprep.codec.base
    at_top: bool
    for_types: bool

    @property
    def group(self) -> str:
        return group_of(self.file)

    @property
    def target_group(self) -> str:
        """The part of flowprep it is from, "" when it is from elsewhere."""
        names = self.target.split(".")
        return names[1] if names[0] == "flowprep" and len(names) > 1 else ""

    def __str__(self) -> str:
        return f"{self.file} imports {self.target}"


def group_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imports_of(root: Path, file: Path) -> Iterator[Import]:
    name = file.relative_to(root).as_posix()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {n for f in ast.walk(tree) if is_function(f) for n in ast.walk(f)}
    typing = {n for f in ast.walk(tree) if is_type_checking(f) for n in ast.walk(f)}
    for node in ast.walk(tree):
        for target in targets(node):
            yield Import(name, target, node not in inside, node in typing)


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        assert node.module is not None
        if node.module == "flowprep":  # from flowprep import manifest, __version__
            names = [alias.name for alias in node.names if not alias.name.startswith("__")]
            return [f"flowprep.{name}" for name in names]
        found = [node.module]
        if node.module.startswith("flowprep."):  # from flowprep.run import ray
            below = PACKAGE.joinpath(*node.module.split(".")[1:])
            modules = [alias.name for alias in node.names]
            found += [f"{node.module}.{m}" for m in modules if (below / f"{m}.py").exists()]
        return found
    return []


IMPORTS = [i for f in sorted(PACKAGE.rglob("*.py")) for i in imports_of(PACKAGE, f)]


def show(wrong: list[Import]) -> list[str]:
    return [str(i) for i in wrong]


def test_every_part_of_the_package_has_its_place() -> None:
    parts = {group_of(f.relative_to(PACKAGE).as_posix()) for f in PACKAGE.rglob("*.py")}
    assert parts - {"__init__"} <= LEAVES | STAGES | COMPOSERS | ENTRIES
    assert parts >= LEAVES | STAGES


def test_the_imports_are_seen() -> None:
    edges = {(i.file, i.target, i.at_top) for i in IMPORTS}
    assert ("run/making.py", "flowprep.codec.base", True) in edges
    assert ("run/workplace.py", "flowprep.run.ray", False) in edges
    assert ("run/prepare.py", "flowprep.manifest", True) in edges
    assert ("decode/opening.py", "av", False) in edges
    assert any(i.for_types and i.target == "av.packet" for i in IMPORTS)


def test_the_root_of_the_package_imports_nothing() -> None:
    assert show([i for i in IMPORTS if i.file == "__init__.py"]) == []


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_only_leaves(leaf: str) -> None:
    wrong = [i for i in IMPORTS if i.group == leaf and i.target_group not in LEAVES | {""}]
    assert show(wrong) == []


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_stages_import_leaves_and_themselves(stage: str) -> None:
    allowed = LEAVES | {stage, ""}
    wrong = [i for i in IMPORTS if i.group == stage and i.target_group not in allowed]
    assert show(wrong) == []


@pytest.mark.parametrize("composer", sorted(COMPOSERS))
def test_composing_packages_meet_only_in_run_job(composer: str) -> None:
    allowed = LEAVES | STAGES | {composer, ""}
    wrong = [
        i
        for i in IMPORTS
        if i.group == composer
        and i.target_group not in allowed
        and i.target not in BETWEEN_COMPOSERS
    ]
    assert show(wrong) == []


def test_nothing_imports_what_a_user_starts() -> None:
    wrong = [i for i in IMPORTS if i.target_group in ENTRIES and i.group not in ENTRIES]
    assert show(wrong) == []


def test_the_command_line_imports_all_but_leaves_inside_its_commands() -> None:
    at_top = [i for i in IMPORTS if i.group == "cli" and i.at_top]
    assert at_top
    assert show([i for i in at_top if i.target_group not in LEAVES | {"cli", ""}]) == []


def test_options_and_exit_codes_are_the_command_lines_alone() -> None:
    assert {i.group for i in IMPORTS if i.target.split(".")[0] == "click"} == {"cli"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_may_be(library: str) -> None:
    users = {i.file for i in IMPORTS if i.target.split(".")[0] == library}
    assert users <= ONLY_IN[library]
    assert users == ONLY_IN[library] or library == "train"


def test_cuda_is_imported_only_by_engines() -> None:
    wrong = [i for i in IMPORTS if i.target.split(".")[0] in CUDA and i.group != "flow"]
    assert show(wrong) == []


def test_what_loads_slowly_is_imported_at_first_use() -> None:
    """Engine modules below flow/ are themselves loaded at first use, by the registry."""
    wrong = [
        i
        for i in IMPORTS
        if i.target.split(".")[0] in SLOW
        and i.at_top
        and not i.for_types
        and not (i.group == "flow" and i.file != "flow/base.py")
    ]
    assert show(wrong) == []


TRAINING_DOORS = {
    "data": STAGES | LEAVES,
    "predict": STAGES | LEAVES | {"run"},
    "cost": {"flow", "records"},  # how long TV-L1 takes
    "flow_picture": {"report", "records"},  # the colours of flow
    "probe": {"export"},  # .flo files
}
"""The parts of train that see more of flowprep than its errors, and what they see."""


def test_training_imports_flowprep_only_where_data_comes_in() -> None:
    files = sorted((ROOT / "train").rglob("*.py"))
    imports = [i for f in files for i in imports_of(ROOT / "train", f)]
    wrong = [
        i
        for i in imports
        if i.target.split(".")[0] == "flowprep"
        and i.target_group not in {"errors", *TRAINING_DOORS.get(i.group, set())}
    ]
    assert show(wrong) == []
    assert any(i.group == "data" and i.target_group == "shard" for i in imports)
