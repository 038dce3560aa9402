"""Files that say two things of one picture, or one thing of two: refused, or said, whether a picture has
one label or several. Each of these gave wrong numbers without a word once."""

import json
import os
from types import SimpleNamespace

import pytest
from PIL import Image

from labelling.evaluate import labelling_of
from labelling.own_images import content_of
from labelling.table import means_multi_label, read_table
from tests.labelling.tables import CFG, images_in
from tests.runs import refuses
from trainers.common.console import csv_lines

BOTH = pytest.mark.parametrize("multi_label", [False, True], ids=["single-label", "multi-label"])


@pytest.fixture
def folder(tmp_path):
    """Two pictures, ``a.png`` and ``b.png``."""
    (tmp_path / "mine").mkdir()
    for number, name in enumerate("ab"):
        Image.new("RGB", (8, 8), (90 * number, 0, 0)).save(tmp_path / f"mine/{name}.png")
    return tmp_path / "mine"


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def said(path, multi_label):
    """File name → names of the labels, and the notes."""
    table = read_table(path, multi_label)
    found = {
        os.path.basename(place): {table.classnames[label] for label in own}
        for place, own in zip(table.paths, table.labels)
    }
    return found, " ".join(table.notes)


# ---- a picture in two rows ----


@BOTH
@pytest.mark.parametrize("name", ["a.png", "./a.png", "../mine/a.png", "link.png"])
def test_a_picture_in_two_rows_counts_once_however_it_is_spelled(folder, multi_label, name):
    os.symlink(folder / "a.png", folder / "link.png")
    same = write(folder / "same.csv", "image,label", "a.png,dog", f"{name},dog", "b.png,cat")
    found, notes = said(same, multi_label)
    assert found == {"a.png": {"dog"}, "b.png": {"cat"}}
    assert ("taken once: 1 image" in notes) is not multi_label, "a row may be a label"
    several = "dog;cow" if multi_label else "dog"
    for more in ("cat", "dog", "")[: 3 if multi_label else 1]:
        other = write(folder / "other.csv", "image,label", f"a.png,{several}", f"{name},{more}")
        with refuses(
            f"other.csv, line 3: '.*' (has|is) {more or 'no label'}, and .*{several[-3:]}"
        ):
            read_table(other, multi_label)


def test_rows_of_one_label_each_are_joined_where_a_picture_has_several(folder):
    file = write(folder / "rows.csv", "image,label", "a.png,dog", "b.png,cat", "./a.png,cat")
    assert said(file, True)[0] == {"a.png": {"dog", "cat"}, "b.png": {"cat"}}


def test_a_row_of_yes_and_no_that_says_the_opposite_is_refused_and_the_same_counts_once(folder):
    lines = ["image,dog,cat", "a.png,1,0", "b.png,0,1"]
    file = write(folder / "same.csv", *lines, "./a.png,1,0")
    found, notes = said(file, True)
    assert found == {"a.png": {"dog"}, "b.png": {"cat"}}
    assert "taken once: 1 image" in notes
    for opposite in ("a.png,0,1", "a.png,1,1", "a.png,0,0"):
        file = write(folder / "opposite.csv", *lines, opposite)
        with refuses(
            "opposite.csv, line 4: '.*' has .*, and dog in line 2: keep one of these rows"
        ):
            read_table(file, True)


@BOTH
def test_a_picture_is_of_one_group(folder, multi_label):
    """For ``evaluate``, too."""
    lines = ["image,label,group", "a.png,dog,x", "b.png,cat,y"]
    for row in ("a.png,dog,", "a.png,dog,x"):
        table = read_table(write(folder / "one.csv", *lines, row), multi_label)
        assert sorted(table.groups.values()) == ["x", "y"]
    assert [*labelling_of(write(folder / "one.csv", *lines), None, multi_label).groups] == [
        "x",
        "y",
    ]
    file = write(folder / "two.csv", *lines, "./a.png,dog,y")
    for read in (read_table, lambda file, several: labelling_of(file, None, several)):
        with refuses("two.csv, line 4: '.*' is of the group y, and of x in line 2: keep one"):
            read(file, multi_label)


# ---- columns and names ----


@pytest.mark.parametrize(
    "head, multi_label",
    [
        ("image,label,label", False),
        ("image,label,label", True),
        ("image,label,image", True),
        ("image,group,label,group", False),
        ("image,group,label,Group", True),
        ("image,dog,dog", True),
        ("image,dog, dog ", True),
    ],
)
def test_a_column_that_is_there_twice_is_refused(folder, head, multi_label):
    cells = ",".join("1" for _ in head.split(",")[1:])
    file = write(folder / "twice.csv", head, f"a.png,{cells}", f"b.png,{cells}")
    with refuses("it has the column (label|image|group|dog) twice"):
        read_table(file, multi_label)


@pytest.mark.parametrize("name", ["uncertainty", "doubtful", "Uncertainty"])
def test_a_label_that_is_called_as_a_column_of_our_own_tables_is_refused(folder, name):
    file = write(folder / "own.csv", f"image,dog,{name}", "a.png,1,0", "b.png,0,1")
    assert means_multi_label(file)
    with refuses(f"its column {name.lower()} would be a label.*: rename it"):
        read_table(file, True)


@BOTH
def test_names_that_differ_in_case_only_are_warned_of(folder, multi_label, caplog):
    lines = []
    for number in range(16):
        Image.effect_noise((32, 32), 60 + number).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'Circle' if number % 2 else 'circle'}")
    made = images_in(write(folder / "x.csv", "image,label", *lines), CFG, True, multi_label)
    warning = "Class names that differ in case or Unicode form only: 'Circle' 'circle'"
    assert warning in made.notes
    assert warning in caplog.text


@BOTH
@pytest.mark.parametrize("name", ["-1", "=dog", "+x", "@y", "'quoted'"])
def test_a_name_that_our_own_table_has_marked_is_read_back(folder, multi_label, name):
    """A spreadsheet would take it for a formula."""
    rows = [["a.png", name], ["b.png", "cat"]]
    lines = "".join(csv_lines(["image", "label"], rows))
    assert f"'{name}" in lines or name.startswith("'")
    (folder / "answers.csv").write_text(lines, encoding="utf-8")
    assert said(str(folder / "answers.csv"), multi_label)[0] == {"a.png": {name}, "b.png": {"cat"}}


@BOTH
def test_pictures_outside_of_the_files_folder_are_noted(folder, multi_label):
    (folder / "tables").mkdir()
    rows = "../a.png,dog", "../b.png,cat"
    file = write(folder / "tables/x.csv", "image,label", *rows)
    assert "2 of 2 images lie outside of the folder of" in said(file, multi_label)[1]
    file = write(folder / "x.csv", "image,label", "a.png,dog", "b.png,cat")
    assert "outside" not in said(file, multi_label)[1]


# ---- COCO's ----


def coco(folder, **changes):
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1},
            {"id": 2, "image_id": 2, "category_id": 2},
        ],
        **changes,
    }
    return write(folder / "instances.json", json.dumps(content))


def test_two_exports_that_were_joined_are_refused_where_their_numbers_are_the_same(folder):
    assert said(coco(folder), True)[0] == {"a.png": {"dog"}, "b.png": {"cat"}}
    images = [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]
    with refuses("it has the image id 1 twice, so that what belongs to which is not known"):
        read_table(coco(folder, images=images, annotations=[]), True)
    categories = [{"id": 1, "name": "dog"}, {"id": 1, "name": "cat"}]
    with refuses("it has the category id 1 twice"):
        read_table(coco(folder, categories=categories, annotations=[]), True)


def test_a_picture_of_two_numbers_has_the_same_labels_or_is_refused(folder):
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "./a.png"}]
    with refuses("image 2: '.*' has cat, and dog in image 1: keep one of these rows"):
        read_table(coco(folder, images=images), True)
    both = [{"id": n, "image_id": n, "category_id": 1} for n in (1, 2)]
    found, notes = said(coco(folder, images=images, annotations=both), True)
    assert found == {"a.png": {"dog"}}
    assert "taken once: 1 image" in notes


def test_an_image_of_cocos_without_a_path_is_one_line(folder):
    with refuses("names no labelled images"):
        read_table(coco(folder, images=[{"id": 1, "file_name": 7}], annotations=[]), True)


# ---- Label Studio's ----


def task(image, *annotations, number=1):
    return {"id": number, "data": {"image": image}, "annotations": [*annotations]}


def annotation(*names, **facts):
    return {"result": [{"type": "choices", "value": {"choices": names}}], **facts}


def export(folder, *tasks):
    return write(folder / "export.json", json.dumps(tasks))


@BOTH
def test_a_task_that_is_there_twice_counts_once_or_is_refused(folder, multi_label):
    others = task("b.png", annotation("cat"), number=2)
    first = task("a.png", annotation("dog"))
    file = export(folder, first, others, task("a.png", annotation("dog"), number=3))
    found, notes = said(file, multi_label)
    assert found == {"a.png": {"dog"}, "b.png": {"cat"}}
    assert "taken once: 1 image" in notes
    file = export(folder, first, others, task("./a.png", annotation("cat"), number=3))
    with refuses("task 3: '.*' (is|has) cat, and dog in task 1: keep one"):
        read_table(file, multi_label)


OLD = {"updated_at": "2024-02-01T10:00:00Z"}
NEW = {"updated_at": "2024-03-01T10:00:00Z"}


@BOTH
@pytest.mark.parametrize("is_newest_first", [False, True])
def test_of_annotators_who_differ_the_newest_counts_and_that_is_noted(
    folder, multi_label, is_newest_first
):
    made = [annotation("old", **OLD), annotation("new", **NEW)]
    made = made[::-1] if is_newest_first else made
    others = task("b.png", annotation("old"), annotation("old"), number=2)
    found, notes = said(export(folder, task("a.png", *made), others), multi_label)
    assert found == {"a.png": {"new"}, "b.png": {"old"}}
    assert "The annotations of 1 task differ, such as task 1: of each the newest" in notes


@BOTH
def test_a_cancelled_annotation_does_not_count(folder, multi_label):
    made = annotation("dog", **OLD), annotation("cat", was_cancelled=True, **NEW)
    only = task("b.png", annotation("cat", was_cancelled=True), number=2)
    found, notes = said(export(folder, task("a.png", *made), only), multi_label)
    assert found == {"a.png": {"dog"}}
    assert "differ" not in notes
    assert "1 image without a label" in notes


def test_annotators_who_name_the_same_labels_in_another_order_do_not_differ(folder):
    made = annotation("dog", "cat"), annotation("cat", "dog")
    found, notes = said(export(folder, task("a.png", *made)), True)
    assert found == {"a.png": {"dog", "cat"}}
    assert "differ" not in notes


def test_choices_that_are_no_list_are_not_taken_letter_by_letter(folder):
    text = {"result": [{"type": "choices", "value": {"choices": "dog"}}]}
    with refuses("which are no list"):
        read_table(export(folder, task("a.png", text)), True)


def test_a_name_that_is_there_twice_in_a_cell_counts_once(folder):
    lines = "image,label", "a.png,dog;dog", "b.png,dog"
    assert read_table(write(folder / "x.csv", *lines), True).labels == [(0,), (0,)]


@BOTH
def test_what_is_said_to_belong_together_is_part_of_what_a_run_is_of(folder, multi_label):
    """However the pictures are divided."""
    known = SimpleNamespace(
        digests={"a.png": b"1", "b.png": b"2"},
        truth={"a.png": 1} if multi_label else {},
        classnames=["x"],
    )
    named = [{"a.png": one, "b.png": two} for one, two in ("xy", "xx", "yx")]
    hashes = {content_of(known, names) for names in (*named, {"a.png": "x"}, {"b.png": "x"}, {})}
    assert len(hashes) == 6


@BOTH
def test_names_of_labels_are_part_of_what_a_run_is_of(folder, multi_label):
    """Two labels whose names are exchanged are other labels."""
    hashes = set()
    for names in (("dog", "cat"), ("cat", "dog"), ("wolf", "lynx")):
        lines = [f"{number}.png,{names[number % 2]}" for number in range(16)]
        for number in range(16):
            Image.effect_noise((32, 32), 60 + number).save(folder / f"{number}.png")
        file = write(folder / "x.csv", "image,label", *lines)
        hashes.add(images_in(file, CFG, True, multi_label).split_hash)
    assert len(hashes) == 3
