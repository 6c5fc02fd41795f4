"""Python runs this at the start of every process that has this folder on PYTHONPATH.

In one worker process of flowprep it gives a kernel of engine `cuda` an address that is not the
device's, so that the process's CUDA context is spoilt. `LOSE_FLAG` is a file that makes it happen
only once.
"""

from __future__ import annotations

import os
import sys

if os.environ.get("LOSE_FLAG") and "spawn_main" in " ".join(sys.orig_argv):
    from flowprep.flow.cuda.device import CupyDevice

    plain_wait = CupyDevice.wait

    def wait(device: CupyDevice) -> None:
        try:
            os.close(os.open(os.environ["LOSE_FLAG"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            device.launch("make_taps", 256)
        plain_wait(device)

    CupyDevice.wait = wait  # type: ignore[method-assign]
