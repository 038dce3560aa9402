"""ImageFolder: two layouts, a division that never changes, names from a file, and every way to lay it out wrongly."""

import os

import pytest

from trainers.common.errors import UserError

from .miniatures import files_below, image_folder, picture
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
    (tmp_path / "split_fewshot").mkdir()  # of a former version: no class
    dataset, before = build("ImageFolder", tmp_path, shots=2, seed=1), files_below(tmp_path)
    whole = build("ImageFolder", tmp_path, seed=1)
    three = (whole.train_x, whole.val, whole.test)
    for label in range(3):
        assert [sum(item.label == label for item in part) for part in three] == [5, 2, 3]
    assert sorted(names(sum(three, []))) == before, "each is in one part, and none is written"
    assert whole.classnames == dataset.classnames == ["ant", "bee", "cat fish"]
    first = names(dataset.test)
    assert names(build("ImageFolder", tmp_path, seed=2).test) == first
    for index in range(10):
        picture(tmp_path / "aardvark" / f"{index}.png")
    assert names(build("ImageFolder", tmp_path).test)[3:] == first


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
    """Puts down a folder of parts, without some files or folders."""

    def make(root):
        parts(root)
        for path in paths:
            (root / path).rename(root / f"{path.replace('/', ' ')}.txt")

    return make


def with_cow_in(*names):
    def make(root):
        parts(root)
        for part in names:
            picture(root / part / "cow" / "0.png")

    return make


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: None, "has no class folders: put the images of each class"),
        (lambda root: picture(root / "ant" / "0.png"), "has one class only, 'ant'"),
        (
            lambda root: [picture(root / name / f"{i}.png") for name in "ab" for i in range(3)],
            "a has too few images to divide: 3, at least 4",
        ),
        (without("test"), "test has no class folders"),
        (without("test/bee/0.png", "test/bee/1.png"), "test/bee has too few images: none"),
        (with_cow_in("train", "val"), "the class cow is in train and not in test"),
        (with_cow_in("train", "test"), "the class cow is in train and not in val"),
        (with_cow_in("test"), "the class cow is in test and not in train"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        build("ImageFolder", tmp_path)


def test_no_root_and_a_name_that_is_no_text_are_refused(tmp_path):
    with pytest.raises(UserError, match="ImageFolder needs --root"):
        build("ImageFolder", "")
    image_folder(tmp_path)
    folder = os.fsencode(tmp_path / "bee")
    try:
        os.rename(folder + b"/3.png", folder + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(UserError, match=r"bee/\\udcff.png' is not UTF-8: rename it"):
        build("ImageFolder", tmp_path)
