"""ImageFolder: two layouts, a division that never changes, names from a file, and every way to lay it out wrongly."""

import os

import pytest

from trainers.common.errors import UserError

from .miniatures import image_folder, picture
from .test_every_dataset import build


def names(items, depth=2):
    return ["/".join(item.impath.split("/")[-depth:]) for item in items]


def test_parts_are_taken_as_they_are_and_val_may_be_left_out(tmp_path):
    parts(tmp_path)
    (tmp_path / "train" / "ant" / "Thumbs.db").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    dataset = build("ImageFolder", tmp_path)
    assert dataset.classnames == ["ant", "bee"]
    expected = [f"train/{name}/{index}.png" for name in ("ant", "bee") for index in range(4)]
    assert names(dataset.train_x, 3) == expected
    assert names(dataset.val, 3) == ["val/ant/0.png", "val/bee/0.png"] and len(dataset.test) == 4
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    assert build("ImageFolder", tmp_path, shots=2, seed=1).val == []


def test_one_folder_is_divided_in_shares_that_depend_on_neither_seed_nor_other_classes(tmp_path):
    image_folder(tmp_path)
    dataset = build("ImageFolder", tmp_path, seed=1)
    three = (dataset.train_x, dataset.val, dataset.test)
    for label in range(3):
        assert [sum(item.label == label for item in part) for part in three] == [5, 2, 3]
    classes = ("ant", "bee", "cat fish")
    everything = [f"{name}/{index}.png" for name in classes for index in range(10)]
    assert sorted(names(sum(three, []))) == sorted(everything)
    first = names(dataset.test)
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
    assert again.classnames == ["ant", "bee", "cat fish"]
    assert names(again.train_x) == names(first.train_x)


def test_names_come_from_classnames_txt(tmp_path):
    image_folder(tmp_path)
    lines = "ant fire ant\nbee honey bee\ncat fish\twels catfish\n"
    (tmp_path / "classnames.txt").write_text(lines, encoding="utf-8")
    assert build("ImageFolder", tmp_path).classnames == ["fire ant", "honey bee", "wels catfish"]
    (tmp_path / "classnames.txt").write_text("ant fire ant\n")
    with pytest.raises(UserError, match="classnames.txt has no line for the class folder bee"):
        build("ImageFolder", tmp_path)


def parts(root):
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        for name in ("bee", "ant"):
            for index in range(count):
                picture(root / part / name / f"{index}.png")


def without(*paths):
    """A folder of parts from which some files or folders have been taken."""

    def make(root):
        parts(root)
        for place, path in enumerate(paths):
            (root / path).rename(root / f"elsewhere {place}.txt")

    return make


def few(root):
    image_folder(root)
    for index in range(3, 10):
        (root / "bee" / f"{index}.png").unlink()


def one_class(root):
    picture(root / "ant" / "0.png")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: None, "has no class folders: put the images of each class"),
        (one_class, "has one class only, 'ant'"),
        (few, "bee has too few images to divide: 3, at least 4"),
        (without("test"), "test has no class folders"),
        (without("test/bee/0.png", "test/bee/1.png"), "test/bee has too few images: none"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        build("ImageFolder", tmp_path)


@pytest.mark.parametrize(
    "lacking, message",
    [
        (["test"], "the class cow is in train and not in test"),
        (["val"], "the class cow is in train and not in val"),
        (["train", "val"], "the class cow is in test and not in train"),
    ],
)
def test_a_class_missing_in_a_part(tmp_path, lacking, message):
    parts(tmp_path)
    for part in {"train", "val", "test"} - set(lacking):
        picture(tmp_path / part / "cow" / "0.png")
    with pytest.raises(UserError, match=message):
        build("ImageFolder", tmp_path)


def test_no_root():
    with pytest.raises(UserError, match="ImageFolder needs --root"):
        build("ImageFolder", "")


def test_a_name_that_is_no_text(tmp_path):
    image_folder(tmp_path)
    folder = os.fsencode(tmp_path / "bee")
    try:
        os.rename(folder + b"/3.png", folder + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UserError, match=r"bee/\\udcff.png' is not UTF-8: rename it"):
        build("ImageFolder", tmp_path)
