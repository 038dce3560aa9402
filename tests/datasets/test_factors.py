"""The composed set: each factor is seen where it should be and nowhere else, the object stays, levels go with classes as they should."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets.drawn import factors
from datasets.drawn.factors import (
    FACTORS,
    LEVELS,
    VERSIONS,
    OpenMojiFactors,
    code_of,
    compose,
    levels_of,
)
from protocols.arguments import build_config, extend_config
from protocols.command_line import parse_arguments
from tests.conftest import REPOSITORY
from trainers.common.errors import UserError

CODE = "1F34E"  # an apple: red, in the middle
PLAIN = dict.fromkeys(FACTORS, 0)
LISTS = dict(zip(("train", "val", "test"), OpenMojiFactors.list_images("")))


def pixels(size=64, code=CODE, **levels):
    return np.asarray(compose(code, {**PLAIN, **levels}, size)).astype(int)


def changed(factor, level):
    """(64, 64) bool, where a level differs from level 0."""
    return (pixels() != pixels(**{factor: level})).any(axis=2)


def frame(width):
    inside = np.zeros((64, 64), bool)
    inside[width:-width, width:-width] = True
    return ~inside


def corner():
    found = np.zeros((64, 64), bool)
    found[
        factors.BORDER : factors.BORDER + factors.MARK,
        -factors.BORDER - factors.MARK : -factors.BORDER,
    ] = True
    return found


# ---- pictures ----


def test_all_levels_of_each_factor_look_different():
    for factor in FACTORS:
        seen = {pixels(**{factor: level}).tobytes() for level in range(LEVELS)}
        assert len(seen) == LEVELS, factor


@pytest.mark.parametrize("level", range(1, LEVELS))
def test_border_and_mark_change_their_own_pixels_only(level):
    assert (changed("border", level) == frame(factors.BORDER)).all()
    assert changed("mark", level).sum() > 5 and not (changed("mark", level) & ~corner()).any()


@pytest.mark.parametrize("level", range(1, LEVELS))
def test_the_background_lies_behind_the_object(level):
    behind, middle = changed("background", level), slice(28, 40)
    assert not behind[middle, middle].any(), "the apple is opaque"
    assert behind[[8, 8, 56, 56], [8, 40, 8, 56]].all()
    assert not behind[corner()].all(), "the mark is on top"


@pytest.mark.parametrize("level", range(LEVELS))
def test_the_cast_multiplies_colours_below_border_and_mark(level):
    shown = ~frame(factors.BORDER) & ~corner()
    expected = pixels() * np.array(factors.CASTS[level])
    assert np.abs(pixels(cast=level) - expected)[shown].max() <= 0.5
    disc = pixels(cast=level)[
        factors.BORDER + factors.MARK // 2, -factors.BORDER - factors.MARK // 2 - 1
    ]
    assert disc.tolist() == [220, 40, 40]


@pytest.mark.parametrize("level", range(1, LEVELS))
def test_the_position_moves_the_object_and_nothing_else(level):
    right, down = factors.POSITIONS[level]
    still, moved = (pixels(position=number)[12:52, 12:52] for number in (0, level))
    assert np.array_equal(
        pixels(position=level)[20 + down : 44 + down, 20 + right : 44 + right],
        pixels()[20:44, 20:44],
    )
    assert (still != moved).any()
    assert not (changed("position", level) & frame(factors.BORDER)).any()


def test_no_object_is_cut_off_wherever_it_is():
    for image in LISTS["test"][::25]:
        for level in range(1, LEVELS):
            ink = pixels(code=code_of(image), position=level, mark=3).max(axis=2) < 60  # outlines
            assert not (ink & frame(1)).any(), image


def test_a_larger_picture_shows_the_same():
    small = np.asarray(
        Image.fromarray(pixels(size=192).astype("uint8")).resize((64, 64), Image.Resampling.BOX)
    ).astype(int)
    assert np.abs(small - pixels()).mean() < 4


# ---- levels ----


@given(
    st.text("0123456789ABCDEF-", min_size=1),
    st.integers(0, 44),
    st.sampled_from(FACTORS),
    st.floats(0, 1),
)
def test_versions_differ_in_the_correlated_factor_only(code, label, factor, correlation):
    found = {
        version: levels_of(code, label, "test", version, factor, correlation)
        for version in (*VERSIONS, "biased")
    }
    for name in FACTORS:
        assert name == factor or len({levels[name] for levels in found.values()}) == 1
    assert found["aligned"][factor] == label % LEVELS != found["reversed"][factor]
    assert found["biased"][factor] in (found["aligned"][factor], found["reversed"][factor])
    assert found["independent"] == levels_of(code, label, "test")
    assert all(0 <= level < LEVELS for levels in found.values() for level in levels.values())


def counts(version, factor, correlation=None, label=7, images=4000):
    return Counter(
        levels_of(f"code {number}", label, "train", version, factor, correlation)[factor]
        for number in range(images)
    )


@pytest.mark.parametrize("correlation", [0, 0.6, 0.9, 1])
def test_the_share_of_own_levels_is_the_correlation_and_the_others_share_the_rest(correlation):
    found = counts("biased", "border", correlation)
    assert found[2] / 4000 == pytest.approx(correlation, abs=0.025)
    assert [found[level] / 4000 for level in (0, 1, 3, 4)] == pytest.approx(
        [(1 - correlation) / 4] * 4, abs=0.025
    )


def test_independent_levels_are_uniform_and_independent_of_each_other():
    pairs = Counter(
        (levels["cast"], levels["mark"])
        for levels in (levels_of(f"code {number}", 3, "test") for number in range(5000))
    )
    assert (
        len(pairs) == LEVELS**2
        and max(abs(count / 5000 - 1 / LEVELS**2) for count in pairs.values()) < 0.015
    )


def test_reversed_levels_are_the_four_others_alike():
    found = counts("reversed", "mark")
    assert set(found) == {0, 1, 3, 4} and min(found.values()) > 850


# ---- the data set ----


def build(root, **settings):
    cfg = get_cfg_default()
    extend_config(cfg)
    cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.VERBOSE = (
        "OpenMojiFactors",
        str(root),
        "base",
        False,
    )
    for key, value in settings.items():
        cfg.DATASET.FACTORS[key] = value
    return build_dataset(cfg)


@pytest.fixture
def some(monkeypatch):
    """Only one training emoji a class, and every 40th of the others, so that drawing takes no time."""
    few = [
        *{image.label: image for image in LISTS["train"]}.values(),
        *LISTS["val"][::40],
        *LISTS["test"][::40],
    ]
    original, kept = OpenMojiFactors.list_images.__func__, {code_of(image) for image in few}

    def list_images(cls, *arguments):
        return tuple(
            [image for image in images if code_of(image) in kept]
            for images in original(cls, *arguments)
        )

    monkeypatch.setattr(OpenMojiFactors, "list_images", classmethod(list_images))


def test_the_pictures_are_those_of_the_levels(some, tmp_path):
    for version in VERSIONS:
        dataset = build(tmp_path, CORRELATED="mark", TEST=version)
        for split, shown, items in (
            ("train", "biased", dataset.train_x),
            ("val", "biased", dataset.val),
            ("test", version, dataset.test),
        ):
            for item in items:
                code = code_of(SimpleNamespace(impath=item.impath))
                expected = compose(code, levels_of(code, item.label, split, shown, "mark", 0.9))
                assert np.array_equal(np.asarray(Image.open(item.impath)), np.asarray(expected))
    assert sorted(path.name for path in (tmp_path / "openmoji_factors").iterdir()) == [
        "aligned_mark",
        "independent",
        "reversed_mark",
        "train_mark_0.9",
        "val_mark_0.9",
    ]


def test_base_labels_are_openmojis_own_so_that_levels_go_with_them(some, tmp_path):
    labels = {code_of(image): image.label for image in LISTS["test"]}
    dataset = build(tmp_path)
    assert dataset.test and all(
        labels[code_of(SimpleNamespace(impath=item.impath))] == item.label for item in dataset.test
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        (
            "CORRELATED",
            "backgroud",
            r"CORRELATED is 'backgroud' \(did you mean background\?\), it takes one of background, cast",
        ),
        ("TEST", "random", "TEST is 'random'.* it takes one of aligned, independent, reversed"),
        ("CORRELATION", 1.5, "CORRELATION is 1.5, it is a share: give 0 to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, key, value, message):
    with pytest.raises(UserError, match=f"DATASET.FACTORS.{message}"):
        build(tmp_path, **{key: value})
    assert not list(tmp_path.iterdir())


def test_every_factor_has_its_config():
    files = sorted((REPOSITORY / "configs" / "datasets").glob("factors_*.yaml"))
    configs = [
        build_config(parse_arguments(["--trainer", "CoOp", "--dataset-config-file", str(path)]))
        for path in files
    ]
    assert (
        [path.stem.removeprefix("factors_") for path in files]
        == [cfg.DATASET.FACTORS.CORRELATED for cfg in configs]
        == sorted(FACTORS)
    )
