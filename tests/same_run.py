"""Whether two runs are the same: what is compared wherever a run was stopped and went on."""

import json

import numpy
import torch

from trainers.engine.checkpoint import MODEL_NAME

OTHER = {
    "seconds",
    "seconds_per_step",
    "test_images_per_second",
    "finished",
    "config",
}  # what a record may say of two equal runs


def assert_same_run(first, second):
    """Two folders of finished runs have the same record, answers and last checkpoint, to the bit; all but seconds and dates."""
    records = [json.loads((folder / "results.json").read_text()) for folder in (first, second)]
    for key in records[0].keys() - OTHER:
        assert records[0][key] == records[1][key], key
    answers = [
        sorted(path.name for path in folder.glob("predictions-*.npz")) for folder in (first, second)
    ]
    assert answers[0] == answers[1] != []
    for name in answers[0]:
        kept, other = (numpy.load(folder / name, allow_pickle=False) for folder in (first, second))
        assert kept.files == other.files and all(
            numpy.array_equal(kept[key], other[key]) for key in kept.files
        ), name
    last = (first / MODEL_NAME / "checkpoint").read_text().strip()
    assert last == (second / MODEL_NAME / "checkpoint").read_text().strip()
    for name in filter(
        lambda name: (first / MODEL_NAME / name).exists(), (last, "model-best.pth.tar")
    ):
        states = [
            torch.load(folder / MODEL_NAME / name, weights_only=True) for folder in (first, second)
        ]
        assert states[0].keys() == states[1].keys()
        for key in states[0].keys() - {"train_seconds"}:
            assert_equal(states[0][key], states[1][key], key)


def assert_equal(first, second, where):
    if torch.is_tensor(first):
        assert torch.equal(first, second), where
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
