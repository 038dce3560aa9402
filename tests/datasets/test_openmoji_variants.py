"""The sets derived from OpenMoji and its people: same emojis, other pictures; deterministic, distinct, and hard in the way they say."""

import json
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.drawn import emoji_styles, openmoji
from datasets.drawn.emoji_font import draw_emoji

from .test_every_dataset import build

STYLES = {
    "OpenMojiSketch": emoji_styles.sketch,
    "OpenMojiCorrupted": emoji_styles.corrupted,
    "OpenMojiRecoloured": emoji_styles.recoloured,
}
SPLIT = json.loads(Path(openmoji.SPLIT).read_text(encoding="utf-8"))
PEOPLE = json.loads(Path(openmoji.PEOPLE_SPLIT).read_text(encoding="utf-8"))
SOME = ("1F426", "1F1EB-1F1F7", "1F34E", "1F469-200D-1F52C", "23F0", "1F3E0")
# of the first code point; the last two: the Clauses
GENDERS = {"1F9D1": "person", "1F468": "2642", "1F469": "2640", "1F385": "2642", "1F936": "2640"}


def pixels(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", STYLES)
def test_classes_labels_and_test_emojis_are_openmojis(drawn_root, name):
    plain, variant = build("OpenMoji", drawn_root), build(name, drawn_root)
    assert variant.classnames == plain.classnames
    different = []
    for item, other in zip(variant.test, plain.test, strict=True):
        file = item.impath.split("/")[-1]
        assert (file, item.label) == (other.impath.split("/")[-1], other.label)
        drawn = pixels(Image.open(item.impath))
        if len(different) % 9 == 0:  # the same every time
            expected = STYLES[name](file.removesuffix(".png"), openmoji.SIZE)
            assert (drawn == pixels(expected)).all()
        different.append((drawn != pixels(Image.open(other.impath))).any())
    assert np.mean(different) > 0.9


@pytest.mark.parametrize("code", SOME)
def test_a_sketch_is_thin_black_lines_on_white(code):
    image = pixels(emoji_styles.sketch(code, 256))
    line = image[..., 0]
    assert set(np.unique(image)) == {0, 255} and (image == line[..., None]).all()
    assert 0.01 < (line == 0).mean() < 0.3
    edges = np.abs(np.diff(pixels(draw_emoji(code, 256)), axis=1)).max(2) > emoji_styles.EDGE
    assert (line[:, :-1][edges] == 0).all(), "every border between colours has its line"


def test_every_corruption_and_severity_occurs_about_equally_often():
    found = Counter(emoji_styles.corruption_of(code) for code, _, _ in SPLIT["test"])
    assert set(found) == {*product(emoji_styles.CORRUPTIONS, range(1, 6))}
    assert max(found.values()) < 4 * len(SPLIT["test"]) / 30


def distance(image, other):
    return np.abs(pixels(image) - pixels(other)).mean()


@pytest.mark.parametrize("kind", emoji_styles.CORRUPTIONS)
def test_a_higher_severity_is_farther_from_the_picture(kind):
    images = [draw_emoji(code, 64) for code in SOME]
    distances = [
        sum(
            distance(emoji_styles.corrupt(image, kind, strength, np.random.default_rng(0)), image)
            for image in images
        )
        for strength in emoji_styles.CORRUPTIONS[kind]
    ]
    assert distances[0] > 0
    assert all(harder > 1.05 * easier for easier, harder in zip(distances, distances[1:]))


@pytest.mark.parametrize("code", SOME)
def test_a_picture_at_its_own_severity_is_the_corrupted_sets(code):
    image, corrupted = draw_emoji(code, 64), emoji_styles.corrupted(code, 64)
    same = [
        severity
        for severity in emoji_styles.SEVERITIES
        if not distance(emoji_styles.corrupted_at(severity, image, code), corrupted)
    ]
    assert same == [emoji_styles.corruption_of(code)[1]]


def test_gaussian_noise_and_contrast_have_the_strength_they_say():
    def corrupted(kind, strength, colour, size=200):
        plain, generator = Image.new("RGB", (size, size), colour), np.random.default_rng(0)
        return pixels(emoji_styles.corrupt(plain, kind, strength, generator))

    noise = corrupted("gaussian noise", 0.1, (128,) * 3)
    assert (noise.std(), noise.mean()) == pytest.approx((25.5, 128), rel=0.02)
    hit = corrupted("impulse noise", 0.1, (128,) * 3)[..., 0]
    assert (hit != 128).mean() == pytest.approx(0.1, abs=0.01)
    assert set(np.unique(hit)) == {0, 128, 255}
    assert corrupted("low contrast", 0.2, (255, 0, 255), 4)[0, 0].tolist() == [153, 102, 153]


@pytest.mark.parametrize("code", SOME)
def test_recolouring_changes_colours_and_not_shapes(code):
    plain, new = pixels(draw_emoji(code, 64)), pixels(emoji_styles.recoloured(code, 64))
    paper = (plain == 255).all(2)
    assert len(np.unique(new[paper], axis=0)) == 1 and (new[paper][0] >= 165).all()
    outline = plain.max(2) < 20
    assert (new[outline] < 60).all()


# --- people


def test_the_people_are_enough_and_none_is_in_openmoji():
    people, others = (
        [code for part in openmoji.PARTS for code, *_ in split[part]] for split in (PEOPLE, SPLIT)
    )
    assert len(people) == len(set(people)) and not set(people) & set(others)
    labels = dict(enumerate(sorted({name for *_, name in PEOPLE["train"]})))
    assert len(labels) >= 50
    for part, count in (("train", 8), ("val", 2), ("test", 5)):
        counts = Counter((label, name) for _, label, name in PEOPLE[part])
        assert counts == dict.fromkeys(labels.items(), count)


def test_a_test_gender_is_in_no_other_part():
    """It shows in the first code point, or in a female or male sign after it."""
    seen = defaultdict(set)
    for part in openmoji.PARTS:
        for code, label, _ in PEOPLE[part]:
            signs = [mark for mark in ("2640", "2642") if mark in code]
            gender = GENDERS.get(code.split("-")[0]) or "".join(signs) or "person"
            seen[label, part == "test"].add(gender)
    for label in range(51):
        tested, shown = seen[label, True], seen[label, False]
        assert (len(tested), len(shown)) == (1, 2) and not tested & shown
