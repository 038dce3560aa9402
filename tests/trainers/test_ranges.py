"""One table says what a config's numbers and names may be: every default and recipe is in it, and what is outside is a line."""

import math
from fnmatch import fnmatchcase

import pytest
from dassl.config import get_cfg_default
from hypothesis import given
from hypothesis import strategies as st

from protocols.arguments import extend_config
from tests.conftest import REPOSITORY
from trainers.common.config_files import flatten, merge
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
    keys = flatten(defaults())
    reached = {next(filter(lambda p: fnmatchcase(key, p), RANGES), None) for key in keys}
    assert reached >= set(RANGES)


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-20, 20), st.booleans())
def test_a_range_holds_what_lies_between_its_ends(least, width, value, is_open):
    taken = Range(least, least + width, is_open)
    inside = least <= value <= least + width and not (is_open and value == least)
    assert (taken.complaint(value) == "") is inside
    assert taken.complaint(math.nan)


def test_what_is_no_number_is_left_to_its_type():
    for value in (None, "", "0.3"):
        check_range("OPTIM.LR", value)


@pytest.mark.parametrize("node", [{"OPTIM": {"LR": [[]]}}, {"INPUT": {"TRANSFORMS": [["x"], {}]}}])
def test_a_record_may_hold_anything(node):
    try:
        check_ranges(node)
    except UserError as error:
        assert str(error)
