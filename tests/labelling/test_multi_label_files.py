"""Files and folders of multi-label pictures: what each form says, and what is refused."""

import json
import shutil

import pytest
from PIL import Image

from labelling.table import means_multi_label, read_table
from labelling.task import MULTI_LABEL_TASK
from tests.labelling.tables import read_label_sets, read_labels
from tests.runs import refuses

SETS = {"a.png": {"dog", "ball"}, "b.png": {"dog"}, "c.png": set(), "d.png": {"cat", "ball"}}


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(SETS):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


def as_cells(folder):
    lines = [f"{name},{';'.join(sorted(names))}" for name, names in SETS.items()]
    return write(folder / "labels.csv", "image,label", *lines)


def as_table(folder):
    names = ["ball", "cat", "dog"]
    rows = [f"{image},{','.join(str(int(n in own)) for n in names)}" for image, own in SETS.items()]
    return write(folder / "table.csv", "image,ball,cat,dog", *rows)


def as_rows(folder):
    rows = [f"{image},{name}" for image, own in SETS.items() for name in sorted(own) or [""]]
    return write(folder / "rows.csv", "image,label", *rows)


def as_tasks(folder):
    tasks = [{"data": {"image": "a.png"}, "annotations": []}]  # nobody has looked at it
    for image, names in SETS.items():
        choices = {"type": "choices", "value": {"choices": sorted(names)}}
        result = [choices] if names else []
        tasks.append({"data": {"image": image}, "annotations": [{"result": result}]})
    return write(folder / "export.json", json.dumps(tasks))


def as_coco(folder):
    names = ["unused", "ball", "cat", "dog"]
    content = {
        "categories": [{"id": 7 * place, "name": name} for place, name in enumerate(names)],
        "images": [{"id": place, "file_name": image} for place, image in enumerate(SETS)],
        "annotations": [
            {"id": 0, "image_id": place, "category_id": 7 * names.index(name)}
            for place, own in enumerate(SETS.values())
            for name in [*own, *own]  # two of each
        ],
    }
    return write(folder / "instances_x.json", json.dumps(content))


def checked(path):
    """What a run would take of a file."""
    MULTI_LABEL_TASK.checked(read_table(path, multi_label=True), skips=False)


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("form", [as_cells, as_table, as_rows, as_tasks, as_coco])
def test_each_form_says_the_same(folder, form):
    assert read_label_sets(form(folder)) == SETS


@pytest.mark.parametrize("form", [as_cells, as_table, as_tasks, as_coco])
def test_a_form_for_several_labels_is_found_by_itself_and_one_is_what_is_told(folder, form):
    assert means_multi_label(form(folder))
    assert not means_multi_label(form(folder), told=False)


def test_a_file_of_one_label_per_picture_means_one_unless_told(folder):
    file = write(folder / "one.csv", "image,label", "a.png,dog", "b.png,cat", "c.png,")
    assert not means_multi_label(file)
    assert means_multi_label(file, told=True)
    assert not means_multi_label(write(folder / "other.csv", "image,class", "a.png,dog"))
    choice = {"type": "choices", "value": {"choices": ["dog"]}}
    tasks = [{"data": {"image": "a.png"}, "annotations": [{"result": [choice]}]}]
    assert not means_multi_label(write(folder / "one.json", json.dumps(tasks)))


def test_a_row_per_label_or_a_mistake_is_for_the_user_to_say(folder):
    file = as_rows(folder)
    assert not means_multi_label(file)
    with refuses("'a.png' is dog, and ball in line 2: keep one, or say --multi-label"):
        read_labels(file)
    assert means_multi_label(file, told=True)


def test_of_answers_what_a_person_says_counts_and_what_nobody_has_looked_at_does_not(folder):
    file = write(
        folder / "answers.csv",
        "image;label;doubtful;uncertainty;corrected",
        'a.png;"dog;ball";;0.5;"dog;cat"',
        "b.png;dog;;0.5;",
        'c.png;dog;;0.5;";"',
    )
    assert means_multi_label(file)
    assert read_label_sets(file) == {"a.png": {"cat", "dog"}, "c.png": set()}


def test_answers_that_a_person_has_left_one_label_each_still_mean_several(folder):
    """By what the run had answered."""
    file = write(
        folder / "answers.csv",
        "image,label,doubtful,uncertainty,corrected",
        "a.png,dog;ball,,0.5,dog",
        "b.png,dog,,0.5,cat",
    )
    assert means_multi_label(file)
    assert read_label_sets(file) == {"a.png": {"dog"}, "b.png": {"cat"}}

    def choices(*names):
        return {"result": [{"type": "choices", "value": {"choices": names}}]}

    tasks = [
        {"data": {"image": "a.png"}, "annotations": [choices("dog")], "predictions": [7]},
        {
            "data": {"image": "b.png"},
            "annotations": [choices("cat")],
            "predictions": [choices("x")],
        },
    ]
    assert not means_multi_label(write(folder / "one.json", json.dumps(tasks)))
    tasks[1]["predictions"] = [choices("dog", "ball")]
    file = write(folder / "several.json", json.dumps(tasks))
    assert means_multi_label(file)
    assert read_label_sets(file) == {"a.png": {"dog"}, "b.png": {"cat"}}
    for task in tasks:
        task["annotations"] = []
    with refuses("has predictions only, which are no labels"):
        checked(write(folder / "predicted.json", json.dumps(tasks)))


def test_a_picture_in_the_folders_of_two_classes_has_both(folder):
    for name, own in SETS.items():
        for label in own:
            (folder / "classes" / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, folder / "classes" / label / f"{label} {name}")
    found = sorted(map(sorted, read_label_sets(str(folder / "classes")).values()))
    assert found == sorted(sorted(own) for own in SETS.values() if own)
    assert not means_multi_label(str(folder / "classes"))


def test_groups_are_read(folder):
    file = write(folder / "g.csv", "image,label,group", "a.png,x;y,one", "b.png,x,one", "c.png,,")
    table = read_table(file, multi_label=True)
    names = [table.groups.get(path, "") for path in table.paths]
    assert names == ["one", "one", ""]
    assert table.classnames == ["x", "y"]


@pytest.mark.parametrize(
    "lines, message",
    [
        (["image,label", "a.png,dog;;ball"], "line 2 has 'dog;;ball'"),
        (["image,dog", "a.png,1", "b.png,2"], "line 3 has '2' for 'dog'"),
        (["image,dog,cat", "a.png,1,0", "b.png,1"], "line 3 has more or fewer cells"),
        (["image,dog,cat", "a.png,1,0", "b.png,0,0"], "no picture has the label cat"),
        (["image,label", "a.png,dog;cat", "b.png,dog"], "every picture has the label dog"),
        (["image,a;b,c", "a.png,1,0", "b.png,0,1"], "line 1: the label 'a;b' has a ;"),
        (["image,label", "a.png,", "b.png,"], "gives no picture a label"),
        (["image,label", "a.png,x;y", "z.png,x"], r"line 3, names 'z.png' \(x\)"),
        (["image,label", "a.png,x;y", "z.png,"], r"line 3, names 'z.png' \(no label\)"),
        (["image,label", "a.png," + ";".join(map(str, range(5000)))], "has 5000 labels"),
        (["picture,label", "a.png,dog;cat"], "no column image"),
    ],
)
def test_what_a_table_cannot_say_is_one_line(folder, lines, message):
    with refuses(message):
        checked(write(folder / "bad.csv", *lines))


@pytest.mark.parametrize(
    "content, message",
    [
        ({"images": [], "annotations": [], "categories": []}, "no labelled image"),
        ({"images": [{"id": 1, "file_name": "a.png"}]}, "categories"),
        (
            {
                "images": [{"id": 1, "file_name": "a.png"}],
                "categories": [{"id": 1, "name": "dog"}],
                "annotations": [{"id": 5, "image_id": 2, "category_id": 1}],
            },
            "annotation 5 has an unknown image_id",
        ),
        ([{"annotations": [{}]}], "names no labelled images"),
    ],
)
def test_what_json_cannot_say_is_one_line(folder, content, message):
    with refuses(message):
        checked(write(folder / "bad.json", json.dumps(content)))
