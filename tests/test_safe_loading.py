"""Nothing that comes with data or a checkpoint is run as code, or unpacked by path."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(f for folder in ("flowprep", "train") for f in (ROOT / folder).rglob("*.py"))
RUNS_CODE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("shelve.open", "yaml.load", "yaml.unsafe_load", "joblib.load", "pandas.read_pickle"),
    *("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "os.system"),
    *("eval", "exec", "compile", "__import__", "runpy.run_path"),
}
CODE_MODULES = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve", "yaml", "runpy"}
UNPACKS = {"extract", "extractall", "unpack_archive"}
NEEDED = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
FORBIDDEN = {"weights_only": False, "allow_pickle": True, "shell": True}


def found_in(text: str) -> list[str]:
    """What a source does that it may not."""
    tree = ast.parse(text)
    names = _full_names(tree)
    modules = [m for m in set(names.values()) if m.split(".")[0] in CODE_MODULES]
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    wrong = [_wrong(call, names) for call in calls]
    return [*modules, *filter(None, wrong)]


def _full_names(tree: ast.AST) -> dict[str, str]:
    """The names of a file that imports give -> what they stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name.split(".")[0]: a.asname and a.name for a in node.names}
            names |= {
                a.name.split(".")[0]: a.name.split(".")[0] for a in node.names if not a.asname
            }
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return {name: full for name, full in names.items() if full}


def _wrong(call: ast.Call, names: dict[str, str]) -> str:
    written = ast.unparse(call.func)
    head, dot, rest = written.partition(".")
    full = names.get(head, head) + dot + rest
    given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    if full in RUNS_CODE or (isinstance(call.func, ast.Attribute) and call.func.attr in UNPACKS):
        return written
    if full in NEEDED and given.get(NEEDED[full][0]) is not NEEDED[full][1]:
        return f"{written} without {NEEDED[full]}"
    odd = [f"{written}({k}={v})" for k, v in given.items() if FORBIDDEN.get(k, ...) is v]
    return ", ".join(odd)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle\npickle.load(f)",
        "from pickle import loads as read\nread(b)",
        "import pickle as p\np.Unpickler(f)",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "import torch\ntorch.load(f, weights_only=safe)",
        "from torch import load\nload(f, map_location='cpu')",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import torch.jit\ntorch.jit.load(f)",
        "eval(text)",
        "exec(text)",
        "import yaml",
        "from joblib import load",
        "archive.extractall(folder)",
        "with tarfile.open(p) as t: t.extract(m)",
        "shutil.unpack_archive(p)",
        "import subprocess\nsubprocess.run(line, shell=True)",
    ],
)
def test_what_runs_code_is_seen(text: str) -> None:
    assert found_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(f, map_location='cpu', weights_only=True)",
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass",
        "net.eval()",
        "tar.extractfile(member)",
        "import json\njson.load(f)",
    ],
)
def test_what_is_safe_passes(text: str) -> None:
    assert found_in(text) == []


FROM_OUR_OWN_DRIVER = {"flowprep/run/hello.py": ["pickle.loads"]}
"""Ray has brought it from the driver, and unpickles what comes that way itself."""


def test_no_file_of_ours_runs_code_from_data() -> None:
    assert len(FILES) > 100
    wrong = {}
    for file in FILES:
        name = file.relative_to(ROOT).as_posix()
        if found := found_in(file.read_text(encoding="utf-8")):
            wrong[name] = found
    assert wrong == FROM_OUR_OWN_DRIVER
