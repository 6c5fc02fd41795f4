"""With --import-mode=importlib a test finds its neighbours only when their folder is named."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
