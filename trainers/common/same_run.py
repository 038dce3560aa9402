"""Whether a run is the one that was started: which settings, classes and images must be the same."""

import json
from collections.abc import Iterable, Mapping

from yacs.config import CfgNode

from .config_files import flatten
from .readers import Stored
from .record_file import Record, nested

OTHER_IMAGES = (
    "its images are others: some were added, removed or changed, or the folder is another"
)

# Settings that may differ between a finished run and the requested one: places, and what changes no
# number.
NO_MATTER = """
    OUTPUT_DIR RESUME USE_CUDA DEVICE VERBOSE DATASET.ROOT DATASET.SKIP_SMALL DATALOADER.BROKEN_IMAGES
    DATALOADER.TEST.BATCH_SIZE TRAIN.PRINT_FREQ TRAIN.CHECKPOINT_FREQ
""".split()
# nor does this one with OPTIM.LEAST_STEPS; without it the views of a training image are drawn by the worker
# that its batch falls to, as in Dassl
WORKERS = "DATALOADER.NUM_WORKERS"
# and, of a run that wrote a checkpoint and one that resumes it, how they are tested
NOT_PART_OF_A_RUN = (*NO_MATTER, "DATALOADER.TEST", "TEST")


def config_of_run(
    cfg: Mapping[str, Stored], left_out: Iterable[str] = NOT_PART_OF_A_RUN
) -> dict[str, str]:
    """The part of a config, node or plain dict, that decides a run's numbers, flat: without other
    trainers' nodes and ``left_out``."""
    name = str(nested(cfg, "TRAINER", "NAME")).upper()
    of_trainer = f"TRAINER.{name}.", "TRAINER.NAME"
    if nested(cfg, "OPTIM", "LEAST_STEPS"):
        left_out = [*left_out, WORKERS]
    others = tuple(f"{other}." for other in left_out)
    return {
        key: value
        for key, value in flatten(cfg).items()
        if not f"{key}.".startswith(others)
        and (not key.startswith("TRAINER.") or key.startswith(of_trainer))
    }


def changes(cfg: CfgNode, record: Record, left_out: Iterable[str] = NO_MATTER) -> list[str]:
    """The settings of a finished run, but those ``left_out``, that differ from those asked for, as
    ``KEY old → new``; settings that one of them lacks don't count."""
    # JSON has lists in the place of tuples
    now = config_of_run(json.loads(json.dumps(cfg)), left_out)
    then = config_of_run(record["config"], left_out)
    return differing(now, then, now.keys() & then.keys())


def differing(now: Mapping[str, str], then: Mapping[str, str], keys: Iterable[str]) -> list[str]:
    """Return ``KEY old → new`` for the keys with different values."""
    return [
        f"{key} {then.get(key, 'absent')} → {now.get(key, 'absent')}"
        for key in sorted(keys)
        if now.get(key) != then.get(key)
    ]
