"""Several folders and files are one training: the newest correction holds, for either task."""

import json
import os
import shutil

import pytest

import train as train_py
from labelling import PromptedClassifier
from labelling.evaluate import labelling_of
from labelling.readers.class_folders import read_class_folders
from labelling.request import check_images, root_of
from labelling.table import means_multi_label, read_table
from tests.datasets.miniatures import image_folder
from tests.labelling.cases import MULTI, SETTINGS, SINGLE, over_tasks, read, train, write
from tests.runs import call, record_of, refuses
from trainers.common.errors import UserError


def names_in(table):
    """Names of the labels of each picture, by the name of its file."""
    return {
        os.path.basename(path): {table.classnames[label] for label in own}
        for path, own in zip(table.paths, table.labels)
    }


def export(file, image, name, when):
    """Label Studio's export of one task."""
    note = {"result": [{"type": "choices", "value": {"choices": [name]}}], "updated_at": when}
    file.write_text(json.dumps([{"id": 7, "data": {"image": image}, "annotations": [note]}]))
    return file


@over_tasks
def test_the_file_that_is_given_later_corrects_the_one_before_it(task, own_pictures):
    folder = own_pictures(task)
    first = folder / "labels.csv"
    other = write(folder / "corrected.csv", [("3.png", "red"), ("4.png", task.cell(task.own(4)))])
    table = read_table(root_of([first, other]), task.task.multi_label)
    expected = names_in(read_table(str(first), task.task.multi_label)) | {"3.png": {"red"}}
    assert names_in(table) == expected
    (said,) = [note for note in table.notes if "Corrected" in note]
    before = task.cell(task.own(3))
    for part in (f"3.png is red ({other}, line 2)", f"before {before} ({first}, line 5)"):
        assert part in said
    assert "4.png" not in said  # the same label is no conflict
    back = read_table(root_of([other, first]), task.task.multi_label)
    assert names_in(back) == names_in(read_table(str(first), task.task.multi_label))


@over_tasks
def test_of_two_annotations_the_newer_one_holds_wherever_it_stands(task, own_pictures):
    folder = own_pictures(task)
    old = export(folder / "old.json", "3.png", "blue", "2026-01-01T00:00:00Z")
    new = export(folder / "new.json", "3.png", "red", "2026-02-01T00:00:00Z")
    for files in ([old, new], [new, old]):
        table = read_table(root_of([folder / "labels.csv", *files]), task.task.multi_label)
        assert names_in(table)["3.png"] == {"red"}


@over_tasks
def test_a_file_corrects_class_folders_wherever_it_stands(task, tmp_path):
    image_folder(tmp_path / "animals", {"ant": 4, "bee": 4})
    name = sorted((tmp_path / "animals/ant").iterdir())[0].name
    file = write(tmp_path / "corrected.csv", [(f"animals/ant/{name}", "bee")])
    for given in ([tmp_path / "animals", file], [file, tmp_path / "animals"]):
        table = read_table(root_of(given), task.task.multi_label)
        labels = [table.classnames[label] for (label,) in table.labels]
        assert (labels.count("ant"), labels.count("bee")) == (3, 5)
        assert f"{given[0]}".startswith(str(tmp_path))
        assert sum("ant/" in path for path in table.paths) == 4  # pictures keep their names


@over_tasks
def test_a_copy_of_a_picture_is_the_picture(task, own_pictures):
    """Label Studio keeps what is uploaded under another name."""
    folder = own_pictures(task)
    shutil.copy(folder / "3.png", folder / "a1b2-upload.png")
    other = write(folder / "corrected.csv", [("a1b2-upload.png", "red")])
    table = read_table(root_of([folder / "labels.csv", other]), task.task.multi_label)
    assert names_in(table)["3.png"] == {"red"}
    assert "a1b2-upload.png" not in names_in(table)


def test_class_names_of_a_folder_are_those_of_a_file(tmp_path):
    image_folder(tmp_path / "animals", {"n1": 4, "n2": 4})
    (tmp_path / "animals/classnames.txt").write_text("n1 ant\nn2 bee\n")
    name = sorted((tmp_path / "animals/n1").iterdir())[0].name
    file = write(tmp_path / "corrected.csv", [(f"animals/n1/{name}", "bee")])
    table = read_table(root_of([tmp_path / "animals", file]), multi_label=False)
    assert table.classnames == ["ant", "bee"]
    assert [label for (label,) in table.labels].count(1) == 5


@over_tasks
def test_pictures_of_no_part_are_trained_on_beside_a_divided_folder(task, tmp_path):
    image_folder(tmp_path / "set", {"train/ant": 4, "train/bee": 4, "test/ant": 4, "test/bee": 4})
    image_folder(tmp_path / "more", {"ant": 2, "bee": 2})
    for path in (tmp_path / "more").rglob("*.png"):  # other bytes
        path.write_bytes(path.read_bytes() + path.parent.name.encode() + path.name.encode())
    table = read_table(root_of([tmp_path / "set", tmp_path / "more"]), task.task.multi_label)
    assert {*table.parts} == {"train", "test"}
    assert any("Trained on, since no part has them: 4 images" in note for note in table.notes)


def test_several_are_multi_label_if_one_is(own_pictures):
    folder = own_pictures(MULTI)
    one = write(folder / "one.csv", [("3.png", "red")])
    assert means_multi_label(root_of([one, folder / "labels.csv"]))
    assert not means_multi_label(root_of([one, one]))


def test_a_source_that_is_not_there_is_named(own_pictures):
    folder = own_pictures(SINGLE)
    with refuses("gone.json is not a folder"):
        check_images(root_of([folder / "labels.csv", folder / "gone.json"]))


def test_evaluate_takes_several(own_pictures):
    folder = own_pictures(SINGLE)
    other = write(folder / "corrected.csv", [("3.png", "red")])
    known = labelling_of([folder / "labels.csv", other], None, multi_label=False)
    assert dict(zip(map(os.path.basename, known.pictures), known.names))["3.png"] == ("red",)


# ---- nested class folders ----


def nested(folder):
    image_folder(folder, {"animals/dog": 4, "animals/cat": 5, "vehicles/car": 6})
    return folder


@over_tasks
def test_classes_at_the_second_level(task, tmp_path):
    folder = nested(tmp_path / "set")
    table = read_table(root_of(folder, classes_at=2), task.task.multi_label)
    assert table.classnames == ["car", "cat", "dog"]
    assert table.truth.sum(axis=0).tolist() == [6, 5, 4]


def test_parts_hold_nested_class_folders_too(tmp_path):
    for part in ("train", "test"):
        nested(tmp_path / part)
    table = read_table(root_of(tmp_path, classes_at=2), multi_label=False)
    assert table.classnames == ["car", "cat", "dog"]
    assert table.parts.count("train") == table.parts.count("test") == 15


def test_folders_of_one_name_are_one_class_and_this_is_said(tmp_path):
    image_folder(tmp_path, {"here/dog": 4, "there/dog": 4, "here/cat": 4})
    table = read_table(root_of(tmp_path, classes_at=2), multi_label=False)
    assert table.truth.sum(axis=0).tolist() == [4, 8]
    assert any("several folders are called so: dog" in note for note in table.notes)


def test_a_line_says_where_the_inner_folders_may_be_the_classes(tmp_path):
    def warnings(**numbers):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        places = {place.replace("_", "/", 1): number for place, number in numbers.items()}
        image_folder(tmp_path / "set", places)
        return read_class_folders(str(tmp_path / "set"), multi_label=False)[0].warnings

    (said,) = warnings(animals_dog=4, animals_cat=4, vehicles_car=4)
    assert "say --classes-at 2" in said
    assert not warnings(dog_film1=4, dog_film2=4, cat_film3=4)  # numbers are films or patients
    assert not warnings(dog_front=4, dog_back=4, cat_front=4)  # views of each class
    assert not warnings(dog_images=4, cat_pictures=4)


@pytest.mark.parametrize("level, said", [(0, "give 1 or more"), (3, "0 class folders at level 3")])
def test_a_level_without_classes_is_refused(tmp_path, level, said):
    with refuses(said):
        read_table(root_of(nested(tmp_path / "set"), classes_at=level), multi_label=False)


def test_a_level_of_files_is_refused(own_pictures):
    with refuses("for folders, and these are files"):
        root_of(own_pictures(SINGLE) / "labels.csv", classes_at=2)


# ---- the commands ----


@over_tasks
def test_a_run_on_several_is_the_run_on_their_union(
    task, own_pictures, tmp_path, small_clip_file, run_of
):
    folder = own_pictures(task)
    rows = read(folder / "labels.csv")
    pairs = [(row["image"], row["label"]) for row in rows]
    first = write(folder / "first.csv", [*pairs[:40], ("44.png", "red")])
    second = write(folder / "second.csv", pairs[40:])
    assert train(task, [first, second], tmp_path / "run", small_clip_file) == 0
    union = record_of(tmp_path / "run")
    assert union["config"]["DATASET"]["ROOT"] == root_of([first, second])
    whole = record_of(run_of(task))
    assert union["metrics"] == whole["metrics"]


def test_fit_takes_several(own_pictures, monkeypatch):
    folder = own_pictures(SINGLE)
    other = write(folder / "corrected.csv", [("3.png", "red")])
    given = [folder / "labels.csv", other]
    asked = []

    def noted(request):
        asked.append(request)
        raise UserError("enough")

    monkeypatch.setattr("labelling.classifier.fit_folder", noted)
    with refuses("enough"):
        PromptedClassifier.fit(given, backbone="tiny")
    assert asked[0].images == root_of(given)


def test_train_py_takes_several_and_settings_after_them(
    own_pictures, tmp_path, small_clip_file, capsys, no_figures
):
    folder = own_pictures(SINGLE)
    other = write(folder / "corrected.csv", [("3.png", "red")])
    words = ["--backbone", small_clip_file, "--output-dir", tmp_path / "run"]
    words += ["--images", folder / "labels.csv", other]
    assert call(train_py.main, *words, *SETTINGS) == 0
    assert "Corrected: 1 image: 3.png is red" in capsys.readouterr().out
