"""What the tests of sweeps share: a grid on the miniature data set, in the smallest settings."""

import json
import time
from pathlib import Path

import yaml

import sweep


def small_options(clip_file, **more):
    return {
        "MODEL.BACKBONE.NAME": clip_file,
        "INPUT.SIZE": "(32, 32)",
        "DATALOADER.TRAIN_X.BATCH_SIZE": 8,
        "DATALOADER.NUM_WORKERS": 0,
        "OPTIM.MAX_EPOCH": 2,
        "OPTIM.WARMUP_EPOCH": -1,
        "TRAIN.PRINT_FREQ": 1,
        **more,
    }


def write_grid(path, root, output, options, **settings):
    """Writes a sweep's file; its name is the sweep's."""
    path.write_text(
        yaml.safe_dump(
            {
                "protocols": ["base2new"],
                "trainers": ["CoOp"],
                "datasets": ["dtd"],
                "config": "tiny",
                "seeds": [1],
                "shots": [4],
                "root": str(root),
                "output": str(output),
                "options": options,
                **settings,
            }
        )
    )
    return str(path)


def folder_of(output, seed=1, part="base2new/train_base", shots=4, trainer="CoOp"):
    return Path(output) / part / "dtd" / f"shots_{shots}" / trainer / "tiny" / f"seed{seed}"


def figures(folder):
    """What must not depend on where and how often a run was started."""
    record = json.loads((Path(folder) / "results.json").read_text())
    return record["prompts_hash"], record["metrics"]


def wait_until(condition, seconds=120):
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "waited too long"
        time.sleep(0.1)


def command(*arguments):
    """Exit code of ``sweep.py``."""
    return sweep.main([str(argument) for argument in arguments])
