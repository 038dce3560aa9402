"""Which folders are parts and which are classes: an exact name wins, phrases are classes, and folders
that hold the same class folders are parts in whatever language."""

import pytest

from labelling.readers.class_folders import layout_of, parts_taken
from labelling.table import read_table
from tests.datasets.miniatures import image_folder
from tests.labelling.tables import list_images
from tests.runs import refuses
from trainers.common.image_files import needs_heic


def made(folder, *places):
    image_folder(folder, dict.fromkeys(places, 4))
    return str(folder)


def beside(*names, inner=("ant", "bee")):
    """Folders that all hold the same class folders."""
    return [f"{name}/{each}" for name in names for each in inner]


def classes(folder):
    """The class names that a run on a folder tells apart."""
    return sorted({image.classname for image in list_images(folder)[0]})


@pytest.mark.parametrize(
    "exact, other", [("train", "aug_train"), ("test", "a_test"), ("val", "dev2"), ("Test", "test1")]
)
def test_an_exact_name_wins(tmp_path, exact, other):
    names = {"train", "test", exact, other} - ({"test"} if exact == "Test" else set())
    folder = made(tmp_path, *beside(*sorted(names)))
    layout = layout_of(folder)
    assert layout.parts[exact.lower()] == f"{folder}/{exact}"
    assert layout.beside == [other]
    assert classes(folder) == ["ant", "bee"]


@pytest.mark.parametrize(
    "names, parts",
    [
        (("train", "prueba"), {"train": "train", "test": "prueba"}),
        (("Trainingsdaten", "Testdaten"), {"train": "Trainingsdaten", "test": "Testdaten"}),
        (("training", "validierung"), {"train": "training", "val": "validierung"}),
        (("train_station", "test_tube"), {"train": "train_station", "test": "test_tube"}),
        (("my_train", "my_test"), {"train": "my_train", "test": "my_test"}),
    ],
)
def test_folders_that_hold_the_same_class_folders_are_parts_and_it_is_said_which(
    tmp_path, names, parts
):
    folder = made(tmp_path, *beside(*names))
    layout = layout_of(folder)
    assert layout.parts == {part: f"{folder}/{name}" for part, name in parts.items()}
    assert classes(folder) == ["ant", "bee"]
    said = parts_taken(folder, layout)
    assert all(f"{name} as {part}" in said for part, name in parts.items())
    assert said in read_table(str(folder), multi_label=False).notes


def test_parts_that_are_called_so_need_no_word(tmp_path):
    folder = made(tmp_path, *beside("train", "valid", "Test"))
    assert parts_taken(folder, layout_of(folder)) == ""


@pytest.mark.parametrize(
    "names", [("entrainement", "essai"), ("a", "b", "c"), ("train", "uno", "due"), ("old", "new")]
)
def test_where_it_is_not_clear_which_is_which_a_line_says_how_to_say_it(tmp_path, names):
    folder = made(tmp_path, *beside(*names))
    with refuses("which all hold the same folders.*call the others train and test.*classnames.txt"):
        list_images(folder)
    (tmp_path / "classnames.txt").write_text("".join(f"{name} {name}\n" for name in names))
    assert classes(folder) == sorted(names)


@pytest.mark.parametrize(
    "places",
    [
        ("train station", "test tube"),
        ("train_station", "test_tube"),
        tuple(beside("train station", "test tube")),
        ("train station/2019", "train station/2020", "test tube/2021", "test tube/2022"),
        ("train_station/2019", "train_station/2020", "test_tube/2021", "test_tube/2022"),
        ("test match", "dev kit", "train"),
        ("cat/left", "cat/right", "dog/left", "dog/down"),
    ],
    ids=" ".join,
)
def test_classes_that_are_called_by_phrases_are_classes(tmp_path, places):
    folder = made(tmp_path, *places)
    names = sorted({place.split("/")[0] for place in places})
    assert layout_of(folder).whole == folder
    assert classes(folder) == names


@pytest.mark.parametrize("part", ["", "train/"])
def test_an_empty_class_folder_is_left_out_with_a_line_where_two_remain(tmp_path, part):
    folder = made(tmp_path, *(f"{part}{name}" for name in ("ant", "bee")))
    (tmp_path / f"{part}cow").mkdir()
    if part:
        made(tmp_path, "test/ant", "test/bee")
    assert classes(folder) == ["ant", "bee"]
    assert (
        "Left out, since it holds no image: cow" in read_table(str(folder), multi_label=False).notes
    )


def test_one_class_with_images_is_none_to_tell_apart(tmp_path):
    folder = made(tmp_path, *beside("train", "test", inner=("ant",)))
    for part in ("train", "test"):
        (tmp_path / part / "bee").mkdir()
    with refuses("train has no image files of bee"):
        list_images(folder)


@pytest.mark.parametrize("name", ["a.heic", "A.HEIC", "a.HEIF"])
def test_a_single_heic_names_what_to_install(tmp_path, monkeypatch, name):
    monkeypatch.setattr(
        "trainers.common.image_files.IMAGE_ENDINGS", (".png",)
    )  # as without pillow-heif
    advice = "pip install pillow-heif"
    assert advice in needs_heic([name])
    for place in ("ant", "bee"):
        (tmp_path / place).mkdir()
    (tmp_path / "ant" / name).write_bytes(b"")
    with refuses(f"no image in the class folders.*{advice}"):
        list_images(str(tmp_path))
