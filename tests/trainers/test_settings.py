"""What a method's settings make of it: sizes, refusals, first values, and groups of parameters."""

import contextlib
import math
import re
from fnmatch import fnmatchcase
from unittest import mock

import clip
import pytest
import torch
import yaml
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from hypothesis import given
from hypothesis import strategies as st

from protocols.arguments import extend_config
from tests.conftest import CASES, GOLDEN, make_method
from tests.prompting.models import relative
from tests.runs import REPOSITORY, refuses
from trainers.cliplora import LowRank
from trainers.common.config_files import (
    RANGES,
    check_value,
    check_values,
    flatten,
    leaves,
    merge,
)
from trainers.common.recipes import Recipe
from trainers.data.transforms import pixels_of_test, steps_of_training
from trainers.engine.optimizer import build_optimizer
from trainers.settings import DASSLS, run_config

METHODS = GOLDEN["methods"]
NAMES = ["banded", "person_on_a_bike"]


@pytest.mark.parametrize("name, settings, size", METHODS["sizes"])
def test_learnable_parameters_on_vit_b16_are_as_many_as_officially(vit_b16, name, settings, size):
    assert make_method(name, vit_b16, NAMES, **settings).count_parameters()[0] == size


@pytest.mark.parametrize("name, settings, names", METHODS["names"])
def test_saved_names_are_the_official_ones(vit, name, settings, names):
    assert sorted(make_method(name, vit, NAMES, **settings).learner.state_dict()) == names


@pytest.mark.parametrize("name, settings, line", METHODS["refused"])
def test_settings_that_can_not_work_are_refused_with_the_key_and_what_it_takes(
    vit, name, settings, line
):
    with refuses(f"^{re.escape(line)}$"):
        _ = make_method(name, vit, NAMES, **settings).hand_crafted


@pytest.mark.parametrize("name, settings, words, tokens", METHODS["contexts"])
def test_a_context_starts_from_a_phrases_first_tokens(
    vit, stock_vit, name, settings, words, tokens
):
    contexts = make_method(name, vit, NAMES, **settings).learner.ctx
    phrase = stock_vit.token_embedding(clip.tokenize(words))[0, 1 : 1 + tokens]
    for context in contexts.reshape(-1, *contexts.shape[-2:]):
        assert torch.equal(context[-tokens:], phrase) and not context[:-tokens].any()


@pytest.mark.parametrize("name, settings, gaussian", METHODS["deviations"])
def test_what_is_drawn_has_the_official_deviation(vit_b16, name, settings, gaussian):
    torch.manual_seed(0)
    state = make_method(name, vit_b16, NAMES, **settings).learner.state_dict()
    for key, deviation in gaussian.items():
        assert state[key].std().item() == pytest.approx(deviation, rel=0.1), key
    if name == "CoOp":
        assert not torch.equal(*state["ctx"])


@pytest.mark.parametrize("name, settings, maps", CASES["deep maps"])
def test_deep_maps_start_alike_and_are_learned_apart(vit, name, settings, maps):
    learner = make_method(name, vit, NAMES, **settings).learner
    first, second = getattr(learner, maps)[-2:]
    assert torch.equal(first.weight, second.weight) and first.weight is not second.weight
    if name == "MaPLe":
        assert not torch.equal(first.weight, learner.proj.weight)


@pytest.mark.parametrize("name", ["CLIPLoRA", "ProLIP", "GDA", "TipAdapter"])
def test_it_starts_as_clip_itself(vit, name):
    method, images = make_method(name, vit, NAMES), torch.randn(1, 3, 3, 32, 32)
    known = make_method("ZeroshotCLIP", vit, NAMES)
    if name == "CLIPLoRA":  # whose prompt is the same for all data sets
        known.hand_crafted = known.encode_classes("a photo of a {}.")
        assert all(change.down.std() > 0 for change in method.learner.text)
    assert relative(method(images).logits, known(images).logits) < 1e-5


def test_queries_keys_and_values_have_dropout_of_their_own_in_training_only():
    change = LowRank(64, 64, alpha=2.0, dropout=0.25)
    with torch.no_grad():
        change.down.copy_(torch.eye(64)), change.up.copy_(torch.eye(64))
    x, nothing = torch.rand(200, 64) + 1, torch.zeros(200, 192)
    torch.testing.assert_close(change.eval().project(x, nothing, "qkv"), x.repeat(1, 3) * 2 / 8)
    parts = change.train().project(x, nothing, "qkv").chunk(3, dim=1)
    kept = [part != 0 for part in parts]
    for part, mask in zip(parts, kept):
        torch.testing.assert_close(part[mask], (x * 2 / 8 / 0.75)[mask])
        assert mask.float().mean() == pytest.approx(0.75, abs=0.02)
    assert not torch.equal(kept[0], kept[1]) and not torch.equal(kept[1], kept[2])


@pytest.mark.parametrize("name, expected", METHODS["groups"])
def test_the_optimiser_has_all_parameters_in_groups_with_the_official_settings(vit, name, expected):
    method, cfg = make_method(name, vit, NAMES), get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "adam", "LR", 0.02])
    groups = build_optimizer(method, cfg).param_groups
    for group, settings in zip(groups, expected, strict=True):
        for key, value in {"lr": 0.02, "eps": 1e-8, **settings}.items():
            assert group[key] == pytest.approx(value)
    numbers = [parameter.numel() for group in groups for parameter in group["params"]]
    assert sum(numbers) == method.count_parameters()[0]


# ---- ranges ----


def defaults():
    cfg = get_cfg_default()
    extend_config(cfg)
    return cfg


CONFIGS = [
    path
    for path in sorted(REPOSITORY.glob("configs/*/**/*.yaml"))
    if not {"ablations", "sweeps"} & {*path.parts}
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_is_valid_and_a_recipe_says_what_it_is(path):
    cfg, name = defaults(), path.parent.name
    check_values(cfg, defaults())
    merge(cfg, str(path), "config file", leave_out="RULES")
    check_values(cfg, defaults())
    if "trainers" in path.parts:
        assert path.read_text().startswith("# "), "what the recipe is and what it costs"
        trainer = TRAINER_REGISTRY.get(name)
        trainer.check_cfg(trainer.__new__(trainer), cfg)
        assert Recipe.read(str(path)).is_trained == trainer.method.learns
        assert re.match(r"tiny|vit_|rn\d", path.stem), "its name starts with its backbone"
        assert list(yaml.safe_load(path.read_text())["TRAINER"]) == [name.upper()]


def test_a_whole_number_is_a_number_too():
    cfg = defaults()
    settings = {"OPTIM.LR": "1", "OPTIM.WEIGHT_DECAY": 0, "OPTIM.MAX_EPOCH": "5"}
    merge(cfg, settings, "options")
    found = [cfg.OPTIM.LR, cfg.OPTIM.WEIGHT_DECAY, cfg.OPTIM.MAX_EPOCH]
    assert found == [1, 0, 5] and [*map(type, found)] == [float, float, int]
    check_values(cfg, defaults())


def test_without_dassl_its_keys_have_its_defaults_and_images_its_pixels():
    dassls_config, cfg = get_cfg_default(), run_config()
    dassls = dict(leaves(dassls_config))
    own = dict(leaves(cfg))
    assert {key: dassls[key] for key in dict(leaves(DASSLS))} == dict(leaves(DASSLS))
    assert {*own} <= {*dict(leaves(defaults()))}
    for interpolation in ("bilinear", "bicubic"):
        for transforms in ((), ("random_flip", "normalize")):
            cfg.INPUT.update(INTERPOLATION=interpolation, TRANSFORMS=transforms, SIZE=(64, 48))
            theirs = build_transform(cfg, is_train=False).transforms
            ours = pixels_of_test(cfg.INPUT).transforms
            assert [*map(repr, ours)] == [*map(repr, theirs)]
    for names in (
        ("random_resized_crop", "random_flip", "normalize"),
        ("random_crop", "center_crop"),
        ("randaugment", "normalize"),
        (),
    ):
        dassls_config.INPUT.TRANSFORMS = names
        theirs = build_transform(dassls_config, is_train=True).transforms
        ours = steps_of_training(dassls_config)
        assert [re.sub(" at 0x.*", "", repr(step)) for step in ours] == [
            re.sub(" at 0x.*", "", repr(step)) for step in theirs
        ]


def test_every_pattern_is_of_a_key_that_is_there():
    keys = flatten(defaults())
    reached = {next(filter(lambda p: fnmatchcase(key, p), RANGES), None) for key in keys}
    assert reached >= set(RANGES)


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-20, 20) | st.just(math.nan), st.booleans())
def test_a_range_holds_what_lies_between_its_ends(least, width, value, is_open):
    lower = "above" if is_open else "at least"
    inside = least <= value <= least + width and not (is_open and value == least)
    taken = {lower: least, "at most": least + width}
    with (
        mock.patch("trainers.common.config_files.taken_by", return_value=taken),
        contextlib.nullcontext() if inside else refuses("A.B is .*, it must be "),
    ):
        check_value("A.B", [least + width, value], None)
