"""A run is loaded with the settings that it was trained with, or not at all."""

import pytest

from tests.runs import change_record, record_of, refuses
from trainers.engine.saved_run import load_run

EDITED = {
    "INPUT.PIXEL_MEAN": [0.5, 0.5, 0.5],
    "INPUT.PIXEL_STD": [0.5, 0.5, 0.5],
    "INPUT.INTERPOLATION": "nearest",
    "INPUT.TRANSFORMS": ["normalize"],
    "INPUT.BACKGROUND": "white",
    "TRAINER.COOP.CLASS_TOKEN_POSITION": "front",
    "TRAINER.COOP.PREC": "amp",
    "DATALOADER.NUM_WORKERS": 7,
}


def edit(folder, key, value):
    """Writes another value of a setting into a run's record."""
    config = record_of(folder)["config"]
    *nodes, leaf = key.split(".")
    node = config
    for name in nodes:
        node = node[name]
    assert node[leaf] != value
    node[leaf] = value
    change_record(folder, config=config)


@pytest.mark.parametrize("key", EDITED)
def test_a_record_with_other_settings_than_the_checkpoints_is_refused(copied, key):
    folder = copied("CoOp")
    load_run(str(folder))
    edit(folder, key, EDITED[key])
    with refuses(f"was trained with other settings than .*results.json tells of .*{key} "):
        load_run(str(folder))


@pytest.mark.parametrize(
    "trainer, key, value",
    [
        ("CoOp", "OUTPUT_DIR", "elsewhere"),
        ("ZeroshotCLIP", "DATALOADER.NUM_WORKERS", 7),
        ("CoOp", "DATALOADER.TEST.BATCH_SIZE", 7),
        ("ZeroshotCLIP", "INPUT.PIXEL_MEAN", [0.5, 0.5, 0.5]),  # which has no checkpoint
    ],
)
def test_what_changes_no_number_or_has_no_checkpoint_is_as_the_record_says(
    copied, trainer, key, value
):
    folder = copied(trainer)
    edit(folder, key, value)
    assert load_run(str(folder)).record["trainer"] == trainer
