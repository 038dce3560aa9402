"""What can't be of one picture, or of one file, is refused for either task alike, before a picture is
opened; what one has to know is said."""

import json
import os
from datetime import datetime, timedelta

import pytest

from labelling.evaluate import labelling_of
from labelling.table import read_table
from tests.labelling.cases import MULTI, NAMES, SINGLE, over_tasks, write
from tests.runs import refuses


@pytest.fixture
def table_of(own_pictures):
    """``table_of(task, rows, columns)``: what a run takes of a table beside the pictures."""

    def of(task, rows, columns=("image", "label")):
        folder = own_pictures(task)
        file = write(folder / "table.csv", rows, columns)
        return read_table(str(file), task.task.multi_label)

    return of


@pytest.fixture
def json_of(own_pictures):
    """``json_of(task, content)``: likewise, of JSON."""

    def of(task, content):
        file = own_pictures(task) / "export.json"
        file.write_text(json.dumps(content))
        return read_table(str(file), task.task.multi_label)

    return of


def answer(*names, **facts):
    value = {"choices": [*names]}
    return {"result": [{"type": "choices", "value": value}], **facts}


def names_in(table):
    """Names of the labels of each picture, by the name of its file."""
    return {
        os.path.basename(path): {table.classnames[label] for label in own}
        for path, own in zip(table.paths, table.labels)
    }


# ---- annotations ----


@over_tasks
def test_the_newest_annotation_that_was_not_cancelled_counts(task, json_of):
    """Wherever it stands; and that annotators differ is said."""
    start = datetime(2026, 1, 1)

    def at(day, *names, **more):
        return answer(*names, updated_at=(start + timedelta(days=day)).isoformat(), **more)

    table = json_of(
        task,
        [
            {"data": {"image": "0.png"}, "annotations": [at(2, "blue"), at(1, "red")]},
            {"data": {"image": "1.png"}, "annotations": [at(1, "blue"), at(2, "red")]},
            {
                "data": {"image": "2.png"},
                "annotations": [at(1, "green"), at(9, "red", was_cancelled=True)],
            },
            {"data": {"image": "3.png"}, "annotations": [at(1, "red", was_cancelled=True)]},
        ],
    )
    assert names_in(table) == {"0.png": {"blue"}, "1.png": {"red"}, "2.png": {"green"}}
    notes = " ".join(table.notes)
    assert "The annotations of 2 tasks differ, such as task 1: of each the newest is taken" in notes
    assert "1 image without a label" in notes


@over_tasks
@pytest.mark.parametrize(
    "names, others", [(["red"], ["blue"]), (["red"], ["red"])], ids=["differ", "agree"]
)
def test_a_task_twice_is_refused_unless_both_agree(task, json_of, names, others):
    tasks = [{"data": {"image": "0.png"}, "annotations": [answer(*own)]} for own in (names, others)]
    tasks.append({"data": {"image": "1.png"}, "annotations": [answer("blue")]})
    if names != others:
        with refuses(f"task 2: '0.png' .*{others[0]}.*{names[0]} in task 1: keep one"):
            json_of(task, tasks)
        return
    table = json_of(task, tasks)
    assert names_in(table) == {"0.png": {"red"}, "1.png": {"blue"}}
    assert "taken once: 1 image" in " ".join(table.notes)


# ---- rows ----


@over_tasks
@pytest.mark.parametrize("spelling", ["0.png", "./0.png", "../pictures/0.png", "link.png"])
def test_one_picture_by_two_spellings_is_one(task, own_pictures, spelling):
    folder = own_pictures(task)
    os.symlink(folder / "0.png", folder / "link.png")
    rows = [("0.png", "red"), ("1.png", "blue"), (spelling, "red")]
    table = read_table(str(write(folder / "t.csv", rows)), task.task.multi_label)
    assert sorted(names_in(table).values(), key=min) == [{"blue"}, {"red"}]


@over_tasks
def test_a_picture_of_two_groups_is_refused(task, table_of):
    rows = [("0.png", "red", "a"), ("1.png", "blue", "a"), ("./0.png", "red", "b")]
    with refuses("line 4: '0?.?/?0.png' is of the group b, and of a in line 2: keep one"):
        table_of(task, rows, ("image", "label", "group"))


def test_of_one_label_a_second_one_is_refused(table_of):
    with refuses("line 4: '0.png' is blue, and red in line 2: keep one, or say --multi-label"):
        table_of(SINGLE, [("0.png", "red"), ("1.png", "blue"), ("0.png", "blue")])


def test_of_several_labels_rows_of_one_each_are_joined_and_rows_of_more_contradict(
    table_of, tmp_path
):
    rows = [("0.png", "red"), ("1.png", "blue"), ("0.png", "blue")]
    assert names_in(table_of(MULTI, rows)) == {"0.png": {"blue", "red"}, "1.png": {"blue"}}


@pytest.mark.parametrize(
    "columns, rows, message",
    [
        (
            ("image", "label"),
            [("0.png", "red;blue"), ("0.png", "red")],
            "line 3: '0.png' has red, and blue;red in line 2|has red, and red;blue in line 2",
        ),
        (
            ("image", "label"),
            [("0.png", "red"), ("0.png", "")],
            "line 3: '0.png' has no label, and red in line 2: keep one of these rows",
        ),
        (
            ("image", "red", "blue"),
            [("0.png", 1, 0), ("1.png", 0, 1), ("0.png", 0, 1)],
            "line 4: '0.png' has blue, and red in line 2: keep one of these rows",
        ),
    ],
)
def test_of_several_labels_a_row_that_says_the_opposite_is_refused(
    table_of, columns, rows, message
):
    with refuses(message):
        table_of(MULTI, rows, columns)


@over_tasks
def test_a_column_twice_is_refused(task, table_of):
    with refuses("it has the column label twice"):
        table_of(task, [("0.png", "red", "blue")], ("image", "label", "Label"))


def test_a_label_column_twice_is_refused(table_of):
    with refuses("it has the column red twice"):
        table_of(MULTI, [("0.png", 1, 0)], ("image", "red", "red"))


@pytest.mark.parametrize("name", ["uncertainty", "doubtful"])
def test_a_column_of_our_own_tables_is_no_label(table_of, name):
    with refuses(f"its column {name} would be a label, and is one of our own tables' columns"):
        table_of(MULTI, [("0.png", 1, 0), ("1.png", 0, 1)], ("image", "red", name))


@over_tasks
def test_a_name_that_a_table_of_ours_has_marked_is_read_as_it_was(task, table_of):
    """An apostrophe stands before what a spreadsheet would take for a formula."""
    table = table_of(task, [("0.png", "'-1"), ("1.png", "'=x"), ("2.png", "'quoted'")])
    assert names_in(table) == {"0.png": {"-1"}, "1.png": {"=x"}, "2.png": {"'quoted'"}}


@over_tasks
def test_pictures_outside_of_the_files_folder_are_counted(task, own_pictures):
    folder = own_pictures(task)
    (folder / "tables").mkdir()
    (folder / "tables/2.png").write_bytes((folder / "2.png").read_bytes())
    rows = [("../0.png", "red"), ("../1.png", "blue"), ("2.png", "red")]
    table = read_table(str(write(folder / "tables/t.csv", rows)), task.task.multi_label)
    assert "2 of 3 images lie outside of the folder of" in " ".join(table.notes)


# ---- COCO ----


def coco(image_ids=(1, 2), category_ids=(1, 2)):
    return {
        "images": [
            {"id": number, "file_name": f"{place}.png"} for place, number in enumerate(image_ids)
        ],
        "categories": [{"id": number, "name": name} for number, name in zip(category_ids, NAMES)],
        "annotations": [
            {"id": 1, "image_id": image_ids[0], "category_id": category_ids[0]},
            {"id": 2, "image_id": image_ids[1], "category_id": category_ids[1]},
        ],
    }


@pytest.mark.parametrize(
    "ids, message",
    [
        ({"image_ids": (1, 1)}, "it has the image id 1 twice"),
        ({"category_ids": (3, 3)}, "it has the category id 3 twice"),
    ],
)
def test_two_joined_exports_whose_ids_meet_are_refused(json_of, ids, message):
    assert names_in(json_of(MULTI, coco())) == {"0.png": {"blue"}, "1.png": {"green"}}
    with refuses(message):
        json_of(MULTI, coco(**ids))


# ---- what evaluate takes ----


@over_tasks
def test_evaluate_takes_a_files_groups_and_refuses_what_training_refuses(task, own_pictures):
    folder = own_pictures(task)
    columns = ("image", "label", "group")
    rows = [("0.png", "red", "a"), ("1.png", "blue", "a"), ("2.png", "red", "")]
    file = write(folder / "t.csv", rows, columns)
    known = labelling_of(str(file), None, task.task.multi_label)
    assert [*known.groups] == ["a", "a", ""]
    write(file, [*rows, ("0.png", "red", "b")], columns)
    with refuses("is of the group b, and of a in line 2"):
        labelling_of(str(file), None, task.task.multi_label)
