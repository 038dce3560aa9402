"""Class names of every kind, one class, many."""

import pytest
import torch

from tests.conftest import FEW, slow_but_for
from tests.runs import make_textures, refuses
from trainers import METHODS
from trainers.prompting.tokens import tokenize_classes

# Chinese, an emoji, two from right to left, a combining accent, a script with conjuncts
WORLD = ["猫", "🦊", "חתול", "قطة", "e\u0301tude", "कुत्ता"]


# ---- names ----


def test_names_in_every_script_are_trained_tested_and_recorded_as_they_are(run, tmp_path):
    make_textures(tmp_path, classes=WORLD)
    _, record, _ = run("CDC", "DATASET.ROOT", str(tmp_path))
    assert record["classnames"] == WORLD
    assert list(record["metrics"]["test"]["per_class_accuracy"]) == WORLD


@pytest.mark.parametrize(
    "name, message",
    [
        (
            " ".join(["cat"] * 75),
            "the class name 'cat cat .* … is too long: .* 78 tokens, and 77 fit",
        ),
        ("_", "nothing of the class name '_' is left"),
        ("cat <|endoftext|> dog", "holds one of the marks"),
        ("&lt;|StartOfText|&gt;", "holds one of the marks"),
        ("cat \ud800", r"the class name 'cat \\ud800' is no UTF-8"),
    ],
    ids=["long", "empty", "end", "start", "surrogate"],
)
def test_a_name_that_no_prompt_can_hold_is_quoted_and_one_word_less_is_taken(vit, name, message):
    """Whether its prompt is learned or hand-crafted; 77 positions: start, a token a word, the full stop,
    end-of-text."""
    for take in (
        lambda name: vit.encode_classes("{}.", ["fine", name]),
        lambda name: tokenize_classes(["fine", name], "{}.", 77),
    ):
        take(" ".join(["cat"] * 74))
        with refuses(message):
            take(name)


# ---- one class ----


@pytest.fixture(scope="module")
def one_class(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    make_textures(root, classes=("banded",))
    return str(root)


@slow_but_for(FEW, METHODS, "trainer")
def test_one_class_is_always_right_and_what_is_undefined_is_null(run, one_class, trainer):
    _, record, _ = run(trainer, "DATASET.ROOT", one_class)
    found = record["metrics"]["test"]
    assert found["per_class_accuracy"] == {"banded": 100.0}
    figures = [found[name] for name in ("accuracy", "macro_f1", "ece", "nll", "brier")]
    assert figures == [100, 100, 0, 0, 0]
    for measure_of_doubt in found["uncertainty"].values():
        assert measure_of_doubt == {"aurc": 0.0, "error_auroc": None}
    if trainer == "CDC":
        assert 0 < found["mean_vacuity"] <= 1
        assert 0 <= found["mean_conflict"] < 1


def test_one_class_has_no_second_half(refusal, one_class):
    line = refusal("DATASET.SUBSAMPLE_CLASSES", "new", root=one_class)
    assert "DATASET.SUBSAMPLE_CLASSES new leaves no class of 1: give all" in line


# ---- many ----


def test_hand_crafted_prompts_of_many_classes_are_encoded_in_parts(vit, monkeypatch):
    names = [f"kind {number}" for number in range(10)]
    whole = vit.encode_classes("a {}.", names)
    sizes = []
    encode = vit.text.encode_tokens
    monkeypatch.setattr("trainers.prompting.backbone.TEXTS_AT_A_TIME", 4)
    monkeypatch.setattr(
        vit.text, "encode_tokens", lambda tokens: sizes.append(len(tokens)) or encode(tokens)
    )
    torch.testing.assert_close(vit.encode_classes("a {}.", names), whole, rtol=1e-5, atol=1e-6)
    assert sizes == [4, 4, 2]
