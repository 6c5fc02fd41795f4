"""Python runs this at the start of every process that has this folder on PYTHONPATH.

While the file `fail-rename` lies in `FAULTS_PLACE`, the next rename in the dataset fails, and takes
the file away. Python runs one sitecustomize only, so this one brings the poisons as well.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

if os.environ.get("FAULTS_PLACE"):
    PLACE = Path(os.environ["FAULTS_PLACE"])
    plain_replace = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if str(path).startswith(str(PLACE / "disk")):
            try:
                os.unlink(PLACE / "fail-rename")
            except FileNotFoundError:
                pass
            else:
                raise OSError(5, "Input/output error", str(target))
        return plain_replace(path, target)

    Path.replace = replace  # type: ignore[method-assign, assignment]

    for folder in sys.path:
        if folder.endswith("poison"):
            runpy.run_path(str(Path(folder) / "sitecustomize.py"))
