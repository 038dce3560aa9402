"""DATASET.DESCRIPTIONS: sentences about the classes, averaged into the features that methods hold
to."""

import json

import pytest
import torch

from labelling import PromptedClassifier
from train import main

SENTENCES = {
    "banded": ["Wide stripes lie beside each other."],
    "Dotted ": ["Round dots on a plain ground.", "A pattern of " + 90 * "small " + "dots."],
    "striped": ["Narrow lines run in parallel."],
    "woven": ["Threads cross each other."],
    "zigzagged": ["A line with sharp turns."],
    "grid": ["Squares in rows.", "Lines that cross at right angles.", "Like a chessboard."],
    "not a class": ["It is left out."],
}


@pytest.fixture
def file(tmp_path):
    """``file(content)``: the path of a file of descriptions."""

    def write(content=SENTENCES):
        (tmp_path / "described.json").write_text(json.dumps(content))
        return f"{tmp_path}/described.json"

    return write


def test_zero_shot_answers_with_it_and_so_does_the_loaded_run(run, file):
    _, plain, _ = run("ZeroshotCLIP", name="plain")
    trainer, record, folder = run("ZeroshotCLIP", "DATASET.DESCRIPTIONS", file(), name="described")
    assert record["metrics"]["test"]["nll"] != plain["metrics"]["test"]["nll"]
    assert torch.equal(PromptedClassifier.load(folder).encoded[0][0], trainer.model.hand_crafted)


def test_other_sentences_are_another_run(run, file, arguments, error_of):
    path = file()
    _, record, _ = run("KgCoOp", "DATASET.DESCRIPTIONS", path)
    assert record["config"]["DATASET"]["DESCRIPTIONS"] == path
    file({**SENTENCES, "grid": ["Something else."]})
    line = error_of(main, *arguments("KgCoOp", "DATASET.DESCRIPTIONS", path))
    assert "belongs to another run (DATASET.DESCRIPTIONS_HASH" in line


def test_a_method_without_hand_crafted_prompts_says_so(run, file, capsys):
    for name, says_so in (("CoOp", True), ("KgCoOp", False)):
        run(name, "DATASET.DESCRIPTIONS", file(), "OPTIM.MAX_EPOCH", "1", name=name)
        line = f"DATASET.DESCRIPTIONS made no difference: {name} holds to no hand-crafted prompts"
        assert (line in capsys.readouterr().out) is says_so


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {},
            "says nothing of 'banded', 'dotted', 'striped', 'woven', 'zigzagged' and 1 more of the 6 classes",
        ),
        ([["banded", "a band"]], "holds a list: give a JSON file of class name"),
        ({"woven": []}, "'woven' has []: give a JSON file of class name"),
        ({"woven": ["Threads.", " "]}, "'woven' has ['Threads.', ' ']: give"),
        ({"woven": ["x" * 1001]}, "each of at most 1000 characters"),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_trained(refusal, file, content, message):
    if "woven" in content:
        content = {**SENTENCES, **content}
    assert message in refusal("DATASET.DESCRIPTIONS", file(content), trainer="CoOp")
