"""What a node of a cluster is asked first, by a function that travels there with its code: whether
the node has the same flowprep, and only then a question that needs it.

Nothing of flowprep is imported here but where the question is.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

SOURCES = (".py", ".cu", ".cuh")


def code_of(package: Path) -> str:
    """Hash of a package's code, by path and bytes. The recipes do not count: only a wheel has them
    inside, and settings are sent along.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in SOURCES and path.parent.name != "recipes":
            data = path.read_bytes()
            digest.update(f"{path.relative_to(package).as_posix()} {len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()[:12]


def greet(code: str, question: bytes) -> tuple[str, Any]:
    """(why this node is of no use, "" when it has the code; then the answer to the question).

    `question` is a pickled (function, arguments).
    """
    try:
        import flowprep
    except ImportError as error:
        return f"flowprep cannot be imported there: {error}", None
    found = code_of(Path(flowprep.__file__).parent)
    if found != code:
        version = getattr(flowprep, "__version__", "of no version")
        return f"it has another flowprep: {version}, code {found}", None
    function, arguments = pickle.loads(question)
    return "", function(*arguments)
