"""From shards to a student that sees motion in RGB alone."""

import sys
from importlib.util import find_spec

from flowprep.errors import FlowprepError

if sys.argv[0] == "-m" and find_spec("torch") is None:  # so it is until `python -m` has its module
    missing = FlowprepError("PyTorch is not installed", "pip install 'flowprep[train]'")
    sys.stderr.write(f"Error: {missing}\n")
    sys.exit(missing.exit_code)
