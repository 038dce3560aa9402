"""One table says what a config's numbers and names may be: every default and recipe is in it, and what is outside is a line."""

import math
import random
from fnmatch import fnmatchcase

import pytest
import yaml
from dassl.config import get_cfg_default
from hypothesis import given
from hypothesis import strategies as st

from protocols.arguments import extend_config
from tests.conftest import REPOSITORY
from trainers.common.config_files import check_types, flatten, merge
from trainers.common.errors import UserError
from trainers.common.ranges import RANGES, Range, check_range, check_ranges


def defaults():
    cfg = get_cfg_default()
    extend_config(cfg)
    return cfg


def test_every_default_and_every_recipe_is_within():
    check_ranges(defaults())
    for path in REPOSITORY.glob("configs/*/**/*.yaml"):
        if "ablations" not in path.parts and "sweeps" not in path.parts:
            cfg = defaults()
            merge(cfg, str(path), "config file", leave_out="RULES")
            check_ranges(cfg)


def test_every_pattern_is_of_a_key_that_is_there():
    reached = {
        next((pattern for pattern in RANGES if fnmatchcase(key, pattern)), None)
        for key in flatten(defaults())
    }
    assert reached >= set(RANGES)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("INPUT.TRANSFORMS", ["x"], "it takes one of random_flip, "),
        ("INPUT.TRANSFORMS", ["normalise"], "(did you mean normalize?)"),
        ("INPUT.PIXEL_STD", [0, 1, 1], "it must be above 0"),
        ("INPUT.CROP_PADDING", -3, "it must not be negative"),
        ("INPUT.RRCROP_SCALE", (5, 1), "it must be at most 1"),
        ("INPUT.RRCROP_SCALE", (0.9, 0.1), "its numbers must rise"),
        ("INPUT.COLORJITTER_H", 0.6, "it must be at most 0.5"),
        ("OPTIM.MAX_EPOCH", 2**62, "it must be at most 1e+06"),
        ("OPTIM.WEIGHT_DECAY", -1.0, "it must not be negative"),
        ("OPTIM.LR", 0.0, "it must be above 0"),
        ("TRAINER.CDC.N_CTX", 10**11, "it must be at most 1000"),
        ("TRAINER.MMRL.REP_DIM", 0, "it must be at least 1"),
    ],
)
def test_what_is_out_of_range_is_named_with_what_it_takes(key, value, message):
    cfg = yaml.safe_load("{}")
    node = cfg
    *path, name = key.split(".")
    for part in path:
        node = node.setdefault(part, {})
    node[name] = value
    with pytest.raises(UserError) as refused:
        check_ranges(cfg)
    assert str(refused.value).startswith(f"{key} is {value}") and message in str(refused.value)


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-20, 20), st.booleans())
def test_a_range_holds_what_lies_between_its_ends(least, width, value, is_open):
    taken = Range(least, least + width, is_open)
    inside = least <= value <= least + width and not (is_open and value == least)
    assert (taken.complaint(value) == "") is inside
    assert taken.complaint(math.nan)


def test_what_is_no_number_is_left_to_its_type():
    for value in (None, "", "0.3"):
        check_range("OPTIM.LR", value)


VALUES = "-1 0 1 0.5 1e400 -1e400 nan 4611686018427387904 99999999999 1e-320 True None x '' [] () {} [[1]] [0] ['x'] [1,'x'] (5,1) (0,0) "
VALUES += "{'a':1} 1j b'x' 0x7fffffffffffffff '\\ud800' '\\x00' *a !!x [ ((( 1_000 .5. -"


def test_three_hundred_overrides_are_taken_or_answered_in_a_line():
    """Through the three checks that every config and record passes."""
    generator, whole = random.Random(1), defaults()
    keys = [key for key in flatten(whole) if not key.startswith("TRAINER.DEPT")]
    taken = 0
    for _ in range(300):
        pair, cfg = [generator.choice(keys), generator.choice(VALUES.split())], whole.clone()
        try:
            merge(cfg, pair, "options")
            check_types(cfg, whole)
            check_ranges(cfg)
            taken += 1
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error), pair
    assert 20 < taken < 250


@pytest.mark.parametrize("node", [{"OPTIM": {"LR": [[]]}}, {"INPUT": {"TRANSFORMS": [["x"], {}]}}])
def test_a_record_may_hold_anything(node):
    try:
        check_ranges(node)
    except UserError as error:
        assert str(error)
