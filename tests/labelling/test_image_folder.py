"""ImageFolder: two layouts, a division that never changes, names from a file, and every way to lay
it out wrongly."""

import logging

import pytest

from tests.datasets.miniatures import LAYOUTS, files_below, image_folder, picture
from tests.datasets.test_every_dataset import build
from tests.labelling.tables import labelled_in
from tests.runs import refuses


def names(items, depth=2):
    return ["/".join(item.impath.split("/")[-depth:]) for item in items]


def test_parts_are_taken_as_they_are_and_val_may_be_left_out(tmp_path):
    image_folder(tmp_path, LAYOUTS["parts"])
    (tmp_path / "train" / "ant" / "Thumbs.db").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    dataset = build("ImageFolder", tmp_path)
    assert dataset.classnames == ["ant", "bee"]
    expected = [f"train/{name}/{index}.png" for name in ("ant", "bee") for index in range(4)]
    assert names(dataset.train_x, 3) == expected
    assert names(dataset.val, 3) == ["val/ant/0.png", "val/bee/0.png"]
    assert len(dataset.test) == 4
    (tmp_path / "val").rename(tmp_path / "elsewhere")
    assert not build("ImageFolder", tmp_path, shots=2, seed=1).val


def test_one_folder_is_divided_in_shares_that_depend_on_neither_seed_nor_other_classes(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "split_fewshot").mkdir()  # of a former version: no class
    dataset, before = build("ImageFolder", tmp_path, shots=2, seed=1), files_below(tmp_path)
    whole = build("ImageFolder", tmp_path, seed=1)
    three = (whole.train_x, whole.val, whole.test)
    for label in range(3):
        assert [sum(item.label == label for item in part) for part in three] == [5, 2, 3]
    assert sorted(names(sum(three, []))) == before  # each is in one part, and none is written
    assert whole.classnames == dataset.classnames == ["ant", "bee", "cat fish"]
    first = names(dataset.test)
    assert names(build("ImageFolder", tmp_path, seed=2).test) == first
    for index in range(10):
        picture(tmp_path / "aardvark" / f"{index}.png")
    assert names(build("ImageFolder", tmp_path).test)[3:] == first


def test_names_come_from_classnames_txt(tmp_path):
    image_folder(tmp_path)
    file = tmp_path / "classnames.txt"
    file.write_text("ant fire ant\nbee honey bee\ncat fish\twels catfish\n")
    assert build("ImageFolder", tmp_path).classnames == ["fire ant", "honey bee", "wels catfish"]
    for lines, message in (
        ("ant fire ant\n", "KeyError: 'bee'.: each class folder has a line"),
        ("ant a\nbee b\nant c\ncat fish\td\n", "ValueError: ant is named twice"),
    ):
        file.write_text(lines)
        with refuses(f"classnames.txt can't be read .{message}"):
            build("ImageFolder", tmp_path)


@pytest.mark.parametrize("name", LAYOUTS["listings"])
def test_the_usual_listings_are_known_by_their_names(tmp_path, name):
    """How many pictures each part has, the classes, and what is said of the others."""
    listing = LAYOUTS["listings"][name]
    image_folder(tmp_path, listing["folders"])
    for file in listing.get("files", ()):
        (tmp_path / file).write_text("")
    dataset = build("ImageFolder", tmp_path)
    assert dataset.classnames == listing["classes"]
    numbers = [len(part or ()) for part in (dataset.train_x, dataset.val, dataset.test)]
    assert numbers == listing["parts"]
    said = " ".join(note for note in dataset.images.notes if note.startswith("Left out"))
    assert said == listing.get("said", "")
    assert set(labelled_in(str(tmp_path))[1]) <= {*dataset.classnames}


def test_the_same_file_in_two_classes_is_said(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "bee/3.png").write_bytes((tmp_path / "ant/3.png").read_bytes())
    notes = " ".join(build("ImageFolder", tmp_path).images.notes)
    assert "in two classes at once, such as ant/3.png and bee/3.png: one" in notes


@pytest.mark.parametrize("counts, message", LAYOUTS["broken folders"])
def test_a_folder_that_cannot_be_used_is_named(tmp_path, counts, message):
    image_folder(tmp_path, counts)
    with refuses(message):
        build("ImageFolder", tmp_path)


def test_small_classes_are_left_out_where_that_is_asked_for(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    image_folder(tmp_path, {"ant": 9, "bee": 3, "cow": 4, "dog": 0})
    dataset = build("ImageFolder", tmp_path, skip_small=True)
    assert dataset.classnames == ["ant", "cow"]
    for note in (
        "Left out, since it holds no image: dog",
        "Left out: 1 class with fewer than 4 images: bee (3)",
    ):
        assert note in dataset.images.notes
        assert note in caplog.text


def test_class_folders_that_hold_nothing_but_folders_are_named(tmp_path):
    places = "old/ant", "old/bee", "new/ant", "new/cow"
    image_folder(tmp_path, dict.fromkeys(places, 4))
    dataset = build("ImageFolder", tmp_path)
    assert dataset.classnames == ["new", "old"]
    assert dataset.images.notes[0].startswith(
        "The classes are new, old, whose folders hold nothing but folders (ant, bee, cow): if these"
    )
    picture(tmp_path / "old" / "0.png")  # then the others are mere order
    notes = build("ImageFolder", tmp_path).images.notes
    assert not any("nothing but folders" in note for note in notes)
