"""Boxes as pictures: a run on the boxes of photographs is the run on their crops, to the bit."""

import csv
import json
import os

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from labelling import PromptedClassifier
from labelling.commands.predict import main as predict
from labelling.commands.train import main as cdc_train
from labelling.readers import coco, label_studio
from labelling.readers.rows import EACH_BOX
from labelling.request import root_of
from labelling.table import boxes_in, read_table
from tests.runs import call
from trainers.common.boxes import Box, box_of, boxed, cut_off, file_of, whole_pixels
from trainers.common.errors import UserError
from trainers.common.image_files import content_hash, decoded, look

NAMES = ["blue", "green", "red"]
SIDE = 32
PHOTOGRAPHS = 16
SETTINGS = ("DATALOADER.NUM_WORKERS", 0)


def photograph(number):
    """Noise (64, 64, 3) whose four quarters are of the colours from ``number`` on."""
    pixels = numpy.random.default_rng(number).integers(0, 200, (2 * SIDE, 2 * SIDE, 3))
    for place, box in enumerate(quarters()):
        left, top, right, bottom = box.corners
        pixels[top:bottom, left:right, 2 - (number + place) % 3] += 55
    return Image.fromarray(pixels.astype(numpy.uint8))


def quarters():
    return [Box(left, top, SIDE, SIDE) for top in (0, SIDE) for left in (0, SIDE)]


def every_box():
    for number in range(PHOTOGRAPHS):
        for place, box in enumerate(quarters()):
            yield number, place, box, NAMES[(number + place) % 3]


def rectangle(box, **others):
    """A rectangle as Label Studio gives it: in percent of the photograph."""
    value = {key: 100 * side / (2 * SIDE) for key, side in zip(("x", "y", "width", "height"), box)}
    return {
        "type": "rectanglelabels",
        "original_width": 2 * SIDE,
        "original_height": 2 * SIDE,
        "value": {**value, "rotation": 0, **others},
    }


def coco_file(*bboxes, **keys):
    notes = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": bbox, **keys}
        for number, bbox in enumerate(bboxes, 1)
    ]
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": notes,
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder with photographs, files of their boxes in three forms, and the crops with their table."""
    folder = tmp_path_factory.mktemp("boxes")
    for number in range(PHOTOGRAPHS):
        photograph(number).save(folder / f"{number:02d}.png")
    notes = []
    tasks = [
        {"id": number, "data": {"image": f"{number:02d}.png"}, "annotations": [{"result": []}]}
        for number in range(PHOTOGRAPHS)
    ]
    boxes = [["image", "label"]]
    crops = [["image", "label", "group"]]
    for number, _, box, name in every_box():
        notes.append(
            {
                "id": len(notes),
                "image_id": number,
                "category_id": NAMES.index(name),
                "bbox": [*box],
            }
        )
        tasks[number]["annotations"][0]["result"].append(rectangle(box, rectanglelabels=[name]))
        boxes.append([boxed(f"{number:02d}.png", box), name])
        crop = f"{number:02d}_{box.left:02d}_{box.top:02d}.png"  # in the order of the boxes' names
        Image.open(folder / f"{number:02d}.png").crop(box.corners).save(folder / crop)
        crops.append([crop, name, f"{number:02d}"])
    content = {
        "images": [{"id": n, "file_name": f"{n:02d}.png"} for n in range(PHOTOGRAPHS)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)],
        "annotations": notes,
    }
    (folder / "coco.json").write_text(json.dumps(content))
    (folder / "tasks.json").write_text(json.dumps(tasks))
    for file, rows in (("boxes.csv", boxes), ("crops.csv", crops)):
        with open(folder / file, "w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    return folder


# ---- names ----


@given(st.tuples(*[st.integers(0, 9999)] * 2, *[st.integers(1, 9999)] * 2))
def test_a_name_keeps_its_file_and_its_box(numbers):
    path = boxed("/a b/ü#1.jpg", Box(*numbers))
    assert (file_of(path), box_of(path)) == ("/a b/ü#1.jpg", Box(*numbers))
    assert (file_of("/a/b#1.jpg"), box_of("/a/b#1.jpg")) == ("/a/b#1.jpg", None)


@given(
    st.tuples(*[st.floats(0, 500)] * 2, *[st.floats(0.01, 500)] * 2),
    st.integers(1, 600),
    st.integers(1, 600),
)
def test_whole_pixels_lie_around_a_rectangle_and_in_the_photograph(numbers, width, height):
    box = whole_pixels(*numbers)
    left, top, right, bottom = box.corners
    assert left <= numbers[0] and top <= numbers[1]
    assert right >= numbers[0] + numbers[2] and bottom >= numbers[1] + numbers[3]
    part = cut_off(box, width, height)
    if part is None:
        assert left >= width or top >= height
    else:
        assert part.corners == (left, top, min(right, width), min(bottom, height))


# ---- pixels ----


@pytest.mark.parametrize("background", ["", "white"])
def test_a_box_is_cut_from_the_photograph_as_it_is_seen(tmp_path, background):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photograph(0).crop((0, 0, 64, 40)).save(tmp_path / "turned.png", exif=exif)
    with decoded(str(tmp_path / "turned.png"), "white") as whole:
        expected = whole.crop((3, 5, 33, 60))
    with decoded(boxed(str(tmp_path / "turned.png"), Box(3, 5, 30, 55)), background) as crop:
        assert crop.size == (30, 55) and crop.tobytes() == expected.tobytes()


def test_a_box_outside_of_its_photograph_is_no_picture(tmp_path):
    photograph(0).save(tmp_path / "a.png")
    path = boxed(str(tmp_path / "a.png"), Box(60, 0, 5, 5))
    with pytest.raises(UserError, match="ends at 65 × 5, the photograph has 64 × 64"):
        with decoded(path):
            pass
    assert "ends at 65 × 5" in look(path).reason


def test_boxes_of_one_photograph_have_contents_of_their_own(sets):
    photo = str(sets / "00.png")
    contents = {content_hash(boxed(photo, box)) for box in quarters()}
    assert len(contents | {content_hash(photo)}) == 5


# ---- files ----


@pytest.mark.parametrize("file", ["coco.json", "tasks.json", "boxes.csv"])
def test_each_box_of_a_file_is_a_picture_in_its_photographs_group(sets, file):
    table = read_table(str(sets / file), multi_label=False, boxes=True)
    found = {
        (file_of(path)[-6:], box_of(path), table.classnames[own[0]])
        for path, own in zip(table.paths, table.labels)
    }
    assert found == {(f"{n:02d}.png", box, name) for n, _, box, name in every_box()}
    assert all(table.groups[path] == file_of(path)[-6:] for path in table.paths)


def test_boxes_that_are_no_pictures_are_left_out_and_said():
    crowds = coco.read_coco_boxes(coco_file([1, 1, 9, 9], iscrowd=1))
    assert not crowds.rows and "crowds (iscrowd): 1 rectangle (annotation 1)" in crowds.notes[0]
    empty = coco.read_coco_boxes(coco_file([1, 1, 0, 9], [64, 0, 5, 5], [60, 60, 9, 9]))
    assert "no pixel of the photograph lies in them: 2 rectangles" in empty.notes[0]
    assert [row.image for row in empty.rows] == [boxed("a.png", Box(60, 60, 4, 4))]


def test_a_file_whose_boxes_are_not_clear_is_refused(tmp_path):
    twice = coco_file([1, 1, 9, 9], [1, 1, 8, 8])
    twice["annotations"][1]["id"] = 1
    with pytest.raises(ValueError, match="the annotation id 1 twice"):
        coco.read_coco_boxes(twice)
    for bbox in ([1, 1, 9], None, [1, 1, float("nan"), 9], "1 1 9 9"):
        with pytest.raises(ValueError, match="annotation 1 has no bbox of four numbers"):
            coco.read_coco_boxes(coco_file(bbox))
    task = {
        "id": 7,
        "data": {"image": "a.png"},
        "annotations": [{"result": [rectangle(Box(0, 0, 9, 9), rotation=30)]}],
    }
    with pytest.raises(ValueError, match="task 7 has a rectangle that is turned by 30 degrees"):
        label_studio.read_rectangles([task])
    photograph(0).save(tmp_path / "a.png")
    other = coco_file([1, 1, 9, 9], [1, 1, 9, 9])
    other["categories"].append({"id": 2, "name": "cat"})
    other["annotations"][1]["category_id"] = 2
    (tmp_path / "coco.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="annotation 2.* is cat, and dog in annotation 1"):
        read_table(str(tmp_path / "coco.json"), multi_label=False, boxes=True)
    assert read_table(str(tmp_path / "coco.json"), multi_label=True, boxes=True).labels == [(0, 1)]


def test_a_row_of_a_table_corrects_a_box(sets, tmp_path):
    box = boxed(str(sets / "03.png"), quarters()[0])
    (tmp_path / "answers.csv").write_text(
        f'image,label,doubtful,uncertainty,corrected\n"{box}",red,,0.1,green\n'
    )
    root = root_of([sets / "coco.json", tmp_path / "answers.csv"])
    before = read_table(str(sets / "coco.json"), multi_label=False, boxes=True)
    after = read_table(root, multi_label=False, boxes=True)
    assert len(after.paths) == len(before.paths) == 4 * PHOTOGRAPHS
    assert {*after.groups.values()} == {*before.groups.values()}
    changed = [
        (os.path.normpath(path), after.classnames[new[0]])
        for path, old, new in zip(before.paths, before.labels, after.labels)
        if old != new
    ]
    assert changed == [(box, "green")]


@pytest.mark.parametrize("boxes", [False, True])
def test_a_photograph_and_its_boxes_have_one_group(sets, tmp_path, boxes):
    photo = sets / "03.png"
    first, second, *_ = quarters()
    rows = [["image", "label", "group"], [boxed(str(photo), first), "red", ""]]
    rows += [[boxed(str(photo), second), "blue", "a"], [str(photo), "green", ""]]
    file = tmp_path / "rows.csv"
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    assert {*read_table(str(file), False, boxes).groups.values()} == {"a"}
    rows[1][2] = "b"
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    with pytest.raises(UserError, match="give all boxes of a photograph one group"):
        read_table(str(file), False, boxes)


def test_a_file_of_boxes_names_the_flag_and_pictures_without_boxes_refuse_it(sets, tmp_path):
    assert EACH_BOX in read_table(str(sets / "coco.json"), multi_label=True).notes
    with pytest.raises(UserError, match="has no boxes: leave out --boxes"):
        boxes_in(str(sets / "crops.csv"))
    command = [
        sets / "crops.csv",
        "--boxes",
        "--output-dir",
        tmp_path / "run",
        "--backbone",
        "tiny",
    ]
    assert call(cdc_train, *command, "--trainer", "LinearProbe") == 2


# ---- runs ----


def arrays_of(folder):
    with numpy.load(folder / "predictions-test.npz") as stored:
        return {name: stored[name] for name in stored.files if stored[name].dtype.kind in "fiub"}


def train(images, folder, *words):
    common = ["--backbone", "tiny", *words, "--settings", *SETTINGS]
    assert not call(cdc_train, images, "--output-dir", folder, *common)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("multi_label", [(), ("--multi-label",)])
def test_a_run_on_boxes_is_the_run_on_their_crops(sets, tmp_path, multi_label):
    words = multi_label
    expected = arrays_of(train(sets / "crops.csv", tmp_path / "crops", *words))
    for file in ("coco.json", "tasks.json", "boxes.csv"):
        boxes = arrays_of(train(sets / file, tmp_path / file, "--boxes", *words))
        assert expected.keys() == boxes.keys() and expected
        for name, values in expected.items():
            numpy.testing.assert_array_equal(boxes[name], values, err_msg=name)


@pytest.mark.slow
def test_answers_to_boxes_come_back_as_labelled_boxes(sets, tmp_path, capsys):
    folder = train(sets / "coco.json", tmp_path / "run", "--boxes")
    assert "By their photographs 64 of 64 images have a group: 16 groups" in capsys.readouterr().err
    boxes = json.loads((sets / "coco.json").read_text())
    for note in boxes["annotations"]:
        del note["category_id"]  # as of a detector
    (sets / "detected.json").write_text(json.dumps(boxes))
    asked = ["--run", folder, sets / "detected.json", "--boxes"]
    assert not call(predict, *asked, "--csv", tmp_path / "answers.csv")
    assert not call(predict, *asked, "--label-studio", sets / "answers.json")
    with open(tmp_path / "answers.csv", encoding="utf-8-sig", newline="") as stream:
        rows = [*csv.DictReader(stream)]
    given = {row["image"]: row["label"] for row in rows}
    assert [*given] == [boxed(str(sets / f"{n:02d}.png"), box) for n, _, box, _ in every_box()]
    tasks = json.loads((sets / "answers.json").read_text())
    assert len(tasks) == PHOTOGRAPHS
    exported = [{"data": task["data"], "annotations": task["predictions"]} for task in tasks]
    (sets / "exported.json").write_text(json.dumps(exported))
    table = read_table(str(sets / "exported.json"), multi_label=False, boxes=True)
    labels = [table.classnames[own[0]] for own in table.labels]
    assert {os.path.normpath(path): name for path, name in zip(table.paths, labels)} == given
    right = sum(
        given[boxed(str(sets / f"{n:02d}.png"), box)] == name for n, _, box, name in every_box()
    )
    assert right > 0.8 * len(given)
    classifier = PromptedClassifier.load(folder)
    assert classifier.evaluate(sets / "coco.json").accuracy == right / len(given)
