"""Whether two runs are the same: what is compared wherever a run was stopped and went on."""

import numpy
import pytest
import torch

from tests.runs import record_of
from trainers.engine.checkpoint import MODEL_NAME, newest

# what a record may say of two equal runs
# the commit: somebody may work on the checkout meanwhile
OTHER = {
    "seconds",
    "seconds_per_step",
    "test_images_per_second",
    "finished",
    "config",
    "git_commit",
}


def kept_answers(folder, split):
    """The arrays by name of a run's ``predictions-<split>.npz``."""
    with numpy.load(f"{folder}/predictions-{split}.npz") as arrays:
        return dict(arrays)


def contents(folder):
    """All that a finished run says, by place: of its record, answers and last checkpoints."""
    record = record_of(folder)
    last = newest(folder / MODEL_NAME) or ""
    states = [folder / MODEL_NAME / name for name in (last, "model-best.pth.tar")]
    return {
        "record": {key: value for key, value in record.items() if key not in OTHER},
        "answers": {path.name: kept_answers(folder, path.stem.partition("-")[2])
                    for path in folder.glob("predictions-*.npz")},
        "checkpoints": {
            path.name: {**torch.load(path, weights_only=True), "train_seconds": 0}
            for path in states
            if path.exists()
        },
    }  # fmt: skip


def assert_same_run(first, second):
    """Two folders of finished runs have the same record, answers and last checkpoint, to the bit;
    all but seconds and dates."""
    first, second = contents(first), contents(second)
    assert first["answers"]
    assert_equal(first, second, "run")


def assert_near_run(record, expected):
    """Two records' measures are the same but for their last digits: on some processors products move those with
    the place of their factors in memory."""
    for measure in ("accuracy", "nll", "brier"):
        value = expected["metrics"]["test"][measure]
        assert record["metrics"]["test"][measure] == pytest.approx(value, rel=1e-3), measure


def assert_equal(first, second, where):
    if isinstance(first, (torch.Tensor, numpy.ndarray)):
        assert numpy.array_equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second)):
            assert_equal(*pair, f"{where}[{number}]")
    else:
        assert first == second, where
