"""Train a network on the optical flow of shards.

python -m train.teacher --shards shards/                             # this machine
python -m train.teacher --shards shards/ --width 0.25 --crop 112     # a laptop
torchrun --nproc-per-node 8 -m train.teacher -- --shards shards/      # eight GPUs
"""

from __future__ import annotations

from train.common import Place, Stop, place, run_main, seed_all, tell
from train.config import TeacherConfig, parse
from train.loop import Trainer
from train.objective import Classify
from train.setup import prepare


def train_teacher(config: TeacherConfig, here: Place, classes: list[str] | None = None) -> Stop:
    """Train, or go on training, the teacher of `config`; of `classes`, if its student has others
    than the dataset."""
    seed_all(config.seed)
    setup = prepare(config, "flow", here, classes=classes)
    stop = Trainer(config, here, Classify(setup.net, "flow"), setup.meta, setup.feed).run()
    if here.first and stop == "done":
        tell(f"teacher: {config.run}/best.safetensors")
    return stop


def main() -> Stop:
    config = parse(TeacherConfig, "python -m train.teacher")
    with place(config.machine.device, config.machine.precision) as here:
        return train_teacher(config, here)


if __name__ == "__main__":
    run_main(main)
