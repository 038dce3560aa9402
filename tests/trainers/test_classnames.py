"""Names that a CLIP can't tell apart: found by pure functions, refused where they are the user's
own, warned of in the field's data."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import predict
import train
from tests.conftest import CASES
from tests.datasets.miniatures import image_folder
from tests.limits import limited
from tests.runs import refuses
from trainers import PromptedClassifier
from trainers.prompting.backbone import load_backbone
from trainers.prompting.tokens import unlearned
from trainers.texts.classnames import SAME, alike, check_classes, close_pairs, unknown_words


@pytest.mark.parametrize("names, groups", CASES["alike names"])
def test_names_that_are_one_but_for_case_space_and_unicode_form(names, groups):
    assert alike(names) == groups


def test_what_the_tiny_clip_knows():
    rows = load_backbone("tiny").text.token_embedding.weight
    unknown = unlearned(rows)
    assert unknown.sum() == 45477 and (rows[unknown] == 0).all()
    words = unknown_words(["red circle", "axolotl", "a red xylophone"], unknown)
    assert "red circle" not in words and words["axolotl"] == ["axolotl"]
    assert "red" not in words.get("a red xylophone", [])


@given(st.integers(0, 2**16), st.floats(1e-5, 0.3))
def test_close_pairs_are_those_of_the_definition(seed, distance):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    step = 10 ** (torch.rand(12, 1, generator=generator).double() * 6 - 6)
    noise = torch.randn(12, 6, generator=generator).double() * step
    features = torch.nn.functional.normalize(base.repeat(3, 1) + noise, dim=-1)
    pairs = close_pairs(features.float(), [*range(12)], distance)
    for a, b in itertools.combinations(range(12), 2):
        gap = (features[a] - features[b]).norm()
        if abs(gap - distance) > 1e-6:
            assert (f"{a} = {b}" in pairs) == (gap <= distance)


@pytest.mark.parametrize("are_equal", [False, True])
def test_twenty_thousand_names_are_compared_in_bounded_memory(are_equal):
    """All pairs would be 3.2 GB of cosines; pairs across the parts are found too."""
    features = torch.nn.functional.normalize(torch.randn(20_000, 16), dim=1)
    features[[7, 19_999]] = features[0].clone()
    if are_equal:
        features[:] = features[0].clone()
    outcome = limited(close_pairs, features, range(20_000), SAME, megabytes=600)
    assert outcome.value[:1] == ["0 = 1" if are_equal else "0 = 7"], outcome.error
    assert len(outcome.value) == (1000 if are_equal else 3)
    assert outcome.megabytes < 400


def texts(*angles):
    """Features (K, 2) at those angles."""
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


ROWS = torch.arange(49408.0)[:, None]  # all are known


def test_equal_texts_of_ones_own_names_end_the_command_and_name_two_ways_out():
    with refuses(
        "one and the same: 'a' = 'c', 'a' = 'd', 'c' = 'd': give other words.*classnames.txt.*another CLIP"
    ):
        check_classes(
            ["a", "b", "c", "d"], unlearned(ROWS), texts(0, 1, 0, 0), 100, are_fixed=False
        )
    with refuses(r"\. This CLIP does not know some words in 2 of 2 .*: give other words"):
        check_classes(
            ["a", "c"], unlearned(torch.ones_like(ROWS)), texts(0, 0), 100, are_fixed=False
        )


def test_pictures_tell_classes_of_equal_texts_apart():
    said = check_classes(
        ["a", "b"], unlearned(ROWS), texts(0, 0), 100, are_fixed=False, are_seen=True
    )
    (said,) = said
    assert "one and the same: 'a' = 'b'; nothing but the pictures tells them apart" in said


def test_a_data_set_of_the_field_is_warned_of_once(caplog):
    names = [f"n{number}" for number in range(14)]
    angles = [number // 2 for number in range(14)]
    check_classes(names, unlearned(torch.zeros(49408, 1)), texts(*angles), 100, are_fixed=True)
    (line,) = caplog.messages
    start = "To this CLIP these classes are one and the same: 'n0' = 'n1', 'n2' = 'n3'"
    assert line.startswith(start)
    assert line.count(" = ") == 5 and line.endswith(" and 2 more")


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_classes_that_no_picture_can_part_are_warned_of(caplog, scale):
    limit = math.log(1.5) / scale
    check_classes(
        ["a", "b", "c"], unlearned(ROWS), texts(0, 0.99 * limit, 1), scale, are_fixed=False
    )
    assert len(caplog.messages) == 1 and "whatever the picture: 'a' = 'b'" in caplog.text
    caplog.clear()
    check_classes(
        ["a", "b", "c"], unlearned(ROWS), texts(0, 1.01 * limit, 1), scale, are_fixed=False
    )
    assert not caplog.messages and limit > SAME


def test_a_command_and_the_api_refuse_names_that_are_one_prompt(trained, tmp_path, error_of):
    """``A`` and ``a`` are the same tokens."""
    run, mine = trained("CoOp"), tmp_path / "mine"
    with refuses("one and the same: 'red fox' = 'Red Fox': give other"):
        PromptedClassifier.load(run).with_classes(["red fox", "dog", "Red Fox"])
    image_folder(mine, dict.fromkeys(("ox", "Ox", "cat"), 4))
    words = "--run", run, mine / "ox/0.png", "--classes", "ox", "Ox"
    assert "one and the same: 'ox' = 'Ox'" in error_of(predict.main, *words)
    words = "--trainer CoOp --backbone tiny --images".split()
    line = error_of(train.main, *words, mine, "--output-dir", f"{tmp_path}/out")
    assert "one and the same: 'Ox' = 'ox'" in line
