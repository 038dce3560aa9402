"""ImageFolder: two layouts, a division that never changes, names from a file, and every way to lay it out wrongly."""

import os

import pytest

from trainers.common.errors import UserError

from .miniatures import image_folder, picture
from .test_every_dataset import build


def names(items, depth=2):
    return ["/".join(item.impath.split("/")[-depth:]) for item in items]


@pytest.fixture
def parts(tmp_path):
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        for name in ("bee", "ant"):
            for index in range(count):
                picture(tmp_path / part / name / f"{index}.png")
    return tmp_path


def test_parts_are_taken_as_they_are(parts):
    (parts / "train" / "ant" / "Thumbs.db").write_text("no image")
    (parts / "train" / ".cache").mkdir()
    dataset = build("ImageFolder", parts)
    assert dataset.classnames == ["ant", "bee"]
    assert names(dataset.train_x, 3) == [
        f"train/{name}/{index}.png" for name in ("ant", "bee") for index in range(4)
    ]
    assert names(dataset.val, 3) == ["val/ant/0.png", "val/bee/0.png"] and len(dataset.test) == 4


def test_val_may_be_left_out(parts):
    for name in ("ant", "bee"):
        (parts / "val" / name / "0.png").unlink()
        (parts / "val" / name).rmdir()
    (parts / "val").rmdir()
    assert build("ImageFolder", parts, shots=2, seed=1).val == []


def test_one_folder_is_divided_in_fixed_shares(tmp_path):
    image_folder(tmp_path)
    dataset = build("ImageFolder", tmp_path)
    for label in range(3):
        assert [
            sum(item.label == label for item in part)
            for part in (dataset.train_x, dataset.val, dataset.test)
        ] == [5, 2, 3]
    everything = names([*dataset.train_x, *dataset.val, *dataset.test])
    assert sorted(everything) == sorted(
        f"{name}/{index}.png" for name in ("ant", "bee", "cat fish") for index in range(10)
    )


def test_the_division_depends_on_neither_seed_nor_other_classes(tmp_path):
    image_folder(tmp_path)
    first = names(build("ImageFolder", tmp_path, seed=1).test)
    assert names(build("ImageFolder", tmp_path, seed=2).test) == first
    for index in range(10):
        picture(tmp_path / "aardvark" / f"{index}.png")
    assert names(build("ImageFolder", tmp_path).test)[3:] == first


def test_a_sample_is_not_stored_in_the_folder_and_one_that_is_there_is_no_class(tmp_path):
    image_folder(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    first = build("ImageFolder", tmp_path, shots=2, seed=1)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "split_fewshot").mkdir()
    again = build("ImageFolder", tmp_path, shots=2, seed=1)
    assert again.classnames == ["ant", "bee", "cat fish"] and names(again.train_x) == names(
        first.train_x
    )


def test_names_come_from_classnames_txt(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "classnames.txt").write_text(
        "ant fire ant\nbee honey bee\ncat fish\twels catfish\n", encoding="utf-8"
    )
    assert build("ImageFolder", tmp_path).classnames == ["fire ant", "honey bee", "wels catfish"]
    (tmp_path / "classnames.txt").write_text("ant fire ant\n")
    with pytest.raises(UserError, match="classnames.txt has no line for the class folder bee"):
        build("ImageFolder", tmp_path)


def test_no_root():
    with pytest.raises(UserError, match="ImageFolder needs --root"):
        build("ImageFolder", "")


def test_no_class_folders_and_one_class_only(tmp_path):
    with pytest.raises(UserError, match="has no class folders: put the images of each class"):
        build("ImageFolder", tmp_path)
    for index in range(10):
        picture(tmp_path / "ant" / f"{index}.png")
    with pytest.raises(UserError, match="has one class only, 'ant'"):
        build("ImageFolder", tmp_path)


@pytest.mark.parametrize(
    "part, message",
    [
        ("test", "the class ant is in train and not in test"),
        ("val", "the class ant is in train and not in val"),
        ("train", "the class ant is in test and not in train"),
    ],
)
def test_a_class_missing_in_a_part(parts, part, message):
    picture(parts / part / "cow" / "0.png")
    for other in {"train", "val", "test"} - {part}:
        picture(parts / other / "cow" / "0.png")
    (parts / part / "ant").rename(parts / "elsewhere")
    if part == "train":
        (parts / "val" / "ant").rename(parts / "elsewhere too")
    with pytest.raises(UserError, match=message):
        build("ImageFolder", parts)


def test_a_part_that_is_missing(parts):
    (parts / "test").rename(parts / "testing")
    with pytest.raises(UserError, match="test has no class folders"):
        build("ImageFolder", parts)


def test_too_few_images(tmp_path, parts):
    (parts / "test" / "bee" / "0.png").unlink()
    (parts / "test" / "bee" / "1.png").rename(parts / "test" / "bee" / "1.txt")
    with pytest.raises(UserError, match="test/bee has too few images: none"):
        build("ImageFolder", parts)
    image_folder(tmp_path / "one")
    for index in range(3, 10):
        (tmp_path / "one" / "bee" / f"{index}.png").unlink()
    with pytest.raises(UserError, match="bee has too few images to divide: 3, at least 4"):
        build("ImageFolder", tmp_path / "one")


def test_a_name_that_is_no_text(tmp_path):
    image_folder(tmp_path)
    try:
        os.rename(
            os.fsencode(tmp_path / "bee" / "3.png"), os.fsencode(tmp_path / "bee") + b"/\xff.png"
        )
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UserError, match=r"bee/\\udcff.png' is not UTF-8: rename it"):
        build("ImageFolder", tmp_path)
