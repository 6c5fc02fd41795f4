"""Python runs this at the start of every process that has this folder on PYTHONPATH.

With PATIENCE_S, storage that does not answer is given up after about so many seconds, not three
minutes, and one answer is waited for a third of that.
"""

from __future__ import annotations

import os

if os.environ.get("PATIENCE_S"):
    from flowprep.storage import systems, trouble

    trouble.PATIENCE_S = float(os.environ["PATIENCE_S"])
    trouble.LONGEST_WAIT_S = trouble.PATIENCE_S / 9
    systems.S3_OPTIONS["config_kwargs"]["read_timeout"] = trouble.PATIENCE_S / 3
