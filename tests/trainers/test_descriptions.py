"""DATASET.DESCRIPTIONS: sentences about the classes, averaged into the features that methods hold to."""

import json

import clip
import pytest
import torch

from protocols.training import main
from tests.conftest import base_arguments
from tests.reference import unit
from trainers import PromptedClassifier
from trainers.templates import DIVERSE_TEMPLATES, SELECTED_TEMPLATES

SENTENCES = {
    "banded": ["Wide stripes lie beside each other."],
    "Dotted ": [
        "Round dots on a plain ground.",
        "A pattern of " + "small " * 90 + "dots.",
    ],  # longer than a text encoder's positions
    "striped": ["Narrow lines run in parallel."],
    "woven": ["Threads cross each other."],
    "zigzagged": ["A line with sharp turns."],
    "grid": ["Squares in rows.", "Lines that cross at right angles.", "Like a chessboard."],
    "not a class": ["It is left out."],
}
CLASSES = ("banded", "dotted", "striped", "woven", "zigzagged", "grid")


@pytest.fixture
def file(tmp_path):
    """``file(content)``: the path of a file of descriptions."""

    def write(content=SENTENCES, name="described.json"):
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    return write


def mean_of_all(stock, templates, normalize):
    """What the stock encoder has of a class: a loop over its prompts and its sentences."""
    features = []
    for name in CLASSES:
        texts = [template.format(name) for template in templates] + SENTENCES.get(
            name, SENTENCES["Dotted "]
        )
        found = stock.encode_text(clip.tokenize(texts, truncate=True))
        features.append(sum(unit(one) if normalize else one for one in found))
    return unit(torch.stack(features))


@pytest.mark.parametrize(
    "trainer, templates, normalize",
    [
        ("ZeroshotCLIP", ["{} texture."], True),
        ("ZeroshotCLIP2", [*SELECTED_TEMPLATES, "{} texture."], True),
        ("KgCoOp", ["a photo of a {}, a type of texture."], True),
        ("ProGrad", ["a texture of {}."], True),
        ("CDC", ["{} texture."], True),
        ("TipAdapter", ["{} texture."], True),
        ("PromptSRC", DIVERSE_TEMPLATES, False),
    ],
)
def test_the_hand_crafted_feature_is_the_mean_over_prompts_and_sentences(
    run, stock_vit, file, trainer, templates, normalize
):
    built, _, _ = run(trainer, "DATASET.DESCRIPTIONS", file(), flags=("--no-train",))
    torch.testing.assert_close(
        built.model.hand_crafted, mean_of_all(stock_vit, templates, normalize), atol=2e-5, rtol=0
    )


def test_zero_shot_answers_with_it_and_so_does_the_loaded_run(run, file):
    _, plain, _ = run("ZeroshotCLIP", name="plain")
    trainer, record, folder = run("ZeroshotCLIP", "DATASET.DESCRIPTIONS", file(), name="described")
    assert record["metrics"]["test"]["nll"] != plain["metrics"]["test"]["nll"]
    assert torch.equal(PromptedClassifier.load(folder).encoded[0][0], trainer.model.hand_crafted)


def test_other_sentences_are_another_run(run, file, data_root, small_clip_file, capsys):
    path = file()
    _, record, folder = run("KgCoOp", "DATASET.DESCRIPTIONS", path)
    assert record["config"]["DATASET"]["DESCRIPTIONS"] == path
    file({**SENTENCES, "grid": ["Something else."]})
    assert (
        main(
            [
                *base_arguments("KgCoOp", data_root, small_clip_file, folder),
                "DATASET.DESCRIPTIONS",
                path,
            ]
        )
        == 2
    )
    assert "belongs to another run (DATASET.DESCRIPTIONS_HASH" in capsys.readouterr().err


def test_a_method_without_hand_crafted_prompts_says_so(run, file, capsys):
    run("CoOp", "DATASET.DESCRIPTIONS", file())
    assert (
        "DATASET.DESCRIPTIONS made no difference: CoOp holds to no hand-crafted prompts"
        in capsys.readouterr().out
    )
    run("KgCoOp", "DATASET.DESCRIPTIONS", file(), name="kgcoop")
    assert "made no difference" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content, message",
    [
        (
            {name: text for name, text in SENTENCES.items() if name not in ("woven", "grid")},
            "says nothing of 'woven', 'grid' of the 6 classes",
        ),
        ({}, "says nothing of 'banded', 'dotted', 'striped' and 3 more of the 6 classes"),
        ([["banded", "a band"]], "holds a list: give a JSON file of class name"),
        ({**SENTENCES, "woven": []}, "'woven' has [], it needs a list of at least one sentence"),
        (
            {**SENTENCES, "woven": "Threads."},
            "'woven' has 'Threads.', it needs a list of at least one sentence",
        ),
        ({**SENTENCES, "woven": ["Threads.", " "]}, "'woven' has ' ', which is not a sentence"),
        ({**SENTENCES, "woven": [7]}, "'woven' has 7, which is not a sentence"),
        (
            {**SENTENCES, "woven": ["x" * 1001]},
            "which is not a sentence of at most 1000 characters",
        ),
    ],
)
def test_a_bad_file_is_refused_before_anything_is_trained(refusal, file, content, message):
    assert message in refusal("DATASET.DESCRIPTIONS", file(content), trainer="CoOp")


def test_a_missing_file_and_one_that_is_no_json(refusal, tmp_path):
    assert "'nowhere.json' can't be read (No such file or directory): give a JSON file" in refusal(
        "DATASET.DESCRIPTIONS", "nowhere.json"
    )
    assert "can't be read (it is not a regular file)" in refusal(
        "DATASET.DESCRIPTIONS", "/dev/zero"
    )
    (tmp_path / "cut.json").write_text('{"banded": [')
    assert "cut.json can't be read (" in refusal(
        "DATASET.DESCRIPTIONS", str(tmp_path / "cut.json"), trainer="ZeroshotCLIP"
    )
