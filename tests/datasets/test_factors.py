"""The composed set: each factor is seen where it should be and nowhere else, the object stays,
levels go with classes as they should."""

from types import SimpleNamespace

import numpy as np
import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_erosion

from datasets.drawn import factors
from datasets.drawn.factors import (
    AROUND,
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
from tests.runs import REPOSITORY, refuses

CODE = "1F34E"  # an apple: red, in the middle
LISTS = dict(zip(("train", "val", "test"), OpenMojiFactors.list_images("")))


def pixels(size=64, code=CODE, **levels):
    return np.asarray(compose(code, {**dict.fromkeys(AROUND, 0), **levels}, size)).astype(int)


def changed(factor, level):
    """(64, 64) bool, where a level differs from level 0."""
    return (pixels() != pixels(**{factor: level})).any(axis=2)


def frame(width):
    inside = np.zeros((64, 64), bool)
    inside[width:-width, width:-width] = True
    return ~inside


BORDER, MARK = factors.BORDER, factors.MARK_WIDTH
CORNER = np.zeros((64, 64), bool)
CORNER[BORDER : BORDER + MARK, -BORDER - MARK : -BORDER] = True


# ---- pictures ----


@pytest.mark.parametrize("level", range(1, LEVELS))
def test_each_factor_is_seen_where_it_should_be_and_nowhere_else(level):
    assert (changed("border", level) == frame(BORDER)).all()
    mark = changed("mark", level)
    assert mark.sum() > 5
    assert not (mark & ~CORNER).any()
    behind = changed("background", level)
    assert behind[[8, 8, 56, 56], [8, 40, 8, 56]].all()
    assert not behind[28:40, 28:40].any()  # the apple is opaque
    assert not behind[CORNER].all()  # the mark is on top
    right, down = factors.OBJECT_POSITIONS[level]
    moved = pixels(position=level)[20 + down : 44 + down, 20 + right : 44 + right]
    assert np.array_equal(moved, pixels()[20:44, 20:44])
    assert not (changed("position", level) & frame(BORDER)).any()


def test_a_style_changes_the_object_and_nothing_else():
    is_paper = binary_erosion((pixels() == pixels()[8, 8]).all(axis=2))  # not beside its edge
    shown = [pixels(style=level) for level in range(LEVELS)]
    for picture in shown:
        assert np.array_equal(picture[is_paper], pixels()[is_paper])
    assert len({picture.tobytes() for picture in shown}) == LEVELS


def test_a_companion_lies_in_its_corner_and_each_level_has_its_own():
    side = factors.COMPANION + BORDER
    shown = [pixels(companion=level) for level in range(LEVELS)]
    for picture in shown:
        beside = (picture != pixels()).any(axis=2)
        assert 50 < beside.sum() == beside[63 - side :, : side + 1].sum()
    assert len({picture.tobytes() for picture in shown}) == LEVELS


@pytest.mark.parametrize("level", range(LEVELS))
def test_the_cast_multiplies_colours_below_border_and_mark(level):
    shown, found = ~frame(BORDER) & ~CORNER, pixels(cast=level)
    assert np.abs(found - pixels() * np.array(factors.CASTS[level]))[shown].max() <= 0.5
    assert found[BORDER + MARK // 2, -BORDER - MARK // 2 - 1].tolist() == [220, 40, 40]


def test_no_object_is_cut_off_wherever_it_is():
    for image in LISTS["test"][::50]:
        for level in range(1, LEVELS):
            ink = pixels(code=code_of(image), position=level, mark=3).max(axis=2) < 60  # outlines
            assert not (ink & frame(1)).any()


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
    for name in (*AROUND, factor):
        levels = {of[name] for of in found.values()}
        assert levels <= set(range(LEVELS))
        assert name == factor or len(levels) == 1
    assert found["aligned"][factor] == label % LEVELS != found["reversed"][factor]
    assert found["biased"][factor] in (found["aligned"][factor], found["reversed"][factor])
    plain = levels_of(code, label, "test")
    assert all(found["independent"][name] == plain[name] for name in AROUND)


@pytest.mark.parametrize(
    "version, correlation", [("biased", 0), ("biased", 0.6), ("biased", 1), ("reversed", 0)]
)
def test_the_share_of_own_levels_is_the_correlation_and_the_others_share_the_rest(
    version, correlation
):
    """And of any other factor all levels are as frequent beside each of them."""
    pairs = np.zeros((LEVELS, LEVELS))
    for number in range(4000):
        levels = levels_of(f"code {number}", 7, "train", version, "border", correlation)
        pairs[levels["border"], levels["mark"]] += 1 / 4000
    shares = np.full(LEVELS, (1 - correlation) / 4)
    shares[7 % LEVELS] = correlation
    assert np.abs(pairs - shares[:, None] / LEVELS).max() < 0.02


# ---- the data set ----


def config(root, **settings):
    cfg = get_cfg_default()
    extend_config(cfg)
    cfg.DATASET.update({"NAME": "OpenMojiFactors", "ROOT": str(root), "SUBSAMPLE_CLASSES": "base"})
    cfg.DATASET.FACTORS.update(settings)
    return cfg


def test_the_pictures_are_those_of_the_levels_which_go_with_openmojis_labels(drawn_root, tmp_path):
    labels = {code_of(image): image.label for images in LISTS.values() for image in images}
    for version in VERSIONS:
        dataset = build_dataset(config(tmp_path, CORRELATED="mark", TEST=version))
        for split, shown, items in (
            ("train", "biased", dataset.train_x),
            ("val", "biased", dataset.val),
            ("test", version, dataset.test),
        ):
            assert items
            for item in items[::9]:
                code = code_of(SimpleNamespace(impath=item.impath))
                expected = compose(code, levels_of(code, labels[code], split, shown, "mark", 0.9))
                assert np.array_equal(np.asarray(Image.open(item.impath)), np.asarray(expected))
                assert item.label == labels[code]
    names = "aligned_mark independent reversed_mark train_mark_0.9 val_mark_0.9".split()
    assert sorted(path.name for path in (tmp_path / "openmoji_factors").iterdir()) == names


def test_a_factor_that_is_none_is_refused():
    path = REPOSITORY / "configs/datasets/factors_mark.yaml"
    words = ["--trainer", "CoOp", "--dataset-config-file", str(path)]
    message = "CORRELATED is 'backgroud', it takes one of background, .*did you mean background"
    with refuses(f"^DATASET.FACTORS.{message}"):
        build_config(parse_arguments([*words, "DATASET.FACTORS.CORRELATED", "backgroud"]))


def test_every_factor_has_its_config():
    for factor in FACTORS:
        path = REPOSITORY / f"configs/datasets/factors_{factor}.yaml"
        words = ["--trainer", "CoOp", "--dataset-config-file", str(path)]
        assert build_config(parse_arguments(words)).DATASET.FACTORS.CORRELATED == factor
