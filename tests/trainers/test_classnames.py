"""Names that a CLIP can't tell apart: found by pure functions, refused where they are the user's
own, warned of in the field's data."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import predict
import train
from labelling import PromptedClassifier
from tests.datasets.miniatures import image_folder
from tests.runs import refuses
from trainers.prompting.tokens import unlearned_mask
from trainers.texts.classnames import SAME, alike, check_classes, close_pairs


@pytest.mark.parametrize(
    "names, groups",
    [
        (["cat", "Cat", "dog"], [["cat", "Cat"]]),
        (
            ["red_fox", "red  fox", "straße", "STRASSE"],
            [["red_fox", "red  fox"], ["straße", "STRASSE"]],
        ),
        # the last letter of one is Cyrillic
        (["\ufb01re", "fire", "fir\u0435"], [["\ufb01re", "fire"]]),
    ],
)
def test_names_that_are_one_but_for_case_space_and_unicode_form(names, groups):
    assert alike(names) == groups


@given(st.integers(0, 2**16), st.floats(1e-5, 0.3))
def test_close_pairs_are_those_of_the_definition(seed, distance):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(4, 6, generator=generator).double().repeat(3, 1)
    step = 10 ** (torch.rand(12, 1, generator=generator).double() * 6 - 6)
    features = F.normalize(base + torch.randn(12, 6, generator=generator) * step, dim=-1)
    pairs = close_pairs(features.float(), [*range(12)], distance)
    for a, b in itertools.combinations(range(12), 2):
        gap = (features[a] - features[b]).norm()
        if abs(gap - distance) > 1e-6:
            assert (f"{a} = {b}" in pairs) == (gap <= distance)


@given(st.integers(0, 2**16), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_tokens_are_unlearned_whose_rows_are_equal_to_another(seed, dtype):
    """Of numbers so few that rows are equal in a part and as a whole, negative zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-1, 2, (30, 4), generator=generator) * torch.tensor([0.1, 1, -0.0, 3])
    rows = rows.to(dtype)
    rows[0, 0] = float("nan")
    rows[1] = rows[0]
    expected = [
        any(torch.equal(row.nan_to_num(7), other.nan_to_num(7)) for other in rows[kept])
        for row, kept in zip(rows, ~torch.eye(30, dtype=torch.bool))
    ]
    assert unlearned_mask(rows).tolist() == expected


def texts(*angles):
    """Features (K, 2) at those angles."""
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])


ROWS = torch.arange(49408.0)[:, None].repeat(1, 2)  # all are known


def checked(names, angles, rows=ROWS, scale=100, **how):
    """What ``check_classes`` says of names whose texts are at those angles."""
    return check_classes(names, unlearned_mask(rows), texts(*angles), scale, **how)


def test_equal_texts_of_ones_own_names_end_the_command_and_name_two_ways_out():
    same = "one and the same: 'a' = 'c', 'a' = 'd', 'c' = 'd'"
    with refuses(f"{same}: give other words.*classnames.txt.*another CLIP"):
        checked(["a", "b", "c", "d"], [0, 1, 0, 0], are_fixed=False)
    with refuses(r"\. This CLIP does not know some words in 2 of 2 .*: give other words"):
        checked(["a", "c"], [0, 0], torch.ones_like(ROWS), are_fixed=False)


def test_pictures_tell_classes_of_equal_texts_apart():
    (said,) = checked(["a", "b"], [0, 0], are_fixed=False, are_seen=True)
    assert "one and the same: 'a' = 'b'; nothing but the pictures tells them apart" in said


def test_a_data_set_of_the_field_is_warned_of_once(caplog):
    checked(
        [f"n{number}" for number in range(14)],
        [number // 2 for number in range(14)],
        are_fixed=True,
    )
    (line,) = caplog.messages
    start = "To this CLIP these classes are one and the same: 'n0' = 'n1', 'n2' = 'n3'"
    assert line.startswith(start)
    assert line.endswith(" and 2 more")


@pytest.mark.parametrize("share, lines", [(0.99, 1), (1.01, 0)])
@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_classes_that_no_picture_can_part_are_warned_of(caplog, scale, share, lines):
    limit = math.log(1.5) / scale
    assert limit > SAME
    checked(["a", "b", "c"], [0, share * limit, 1], scale=scale, are_fixed=False)
    assert caplog.text.count("whatever the picture: 'a' = 'b'") == lines == len(caplog.messages)


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
