"""Boxes as pictures: a run on the boxes of photographs is the run on their crops, to the bit."""

import csv
import json
import os
import shlex
import shutil

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from labelling import PromptedClassifier
from labelling.answers.coco import CocoWriter
from labelling.answers.label_studio import LabelStudioWriter
from labelling.commands.predict import main as predict
from labelling.commands.train import main as cdc_train
from labelling.readers import coco, label_studio
from labelling.readers.rows import EACH_BOX
from labelling.request import root_of
from labelling.serve.demo import Demo
from labelling.serve.page import make_app
from labelling.serve.rounds import Rounds
from labelling.table import boxes_in, read_table
from tests.labelling.test_killed_runs import die_in_training
from tests.runs import REPOSITORY, call, python
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


def test_a_file_of_rectangles_names_the_flag(tmp_path):
    photograph(0).save(tmp_path / "a.png")
    rectangles = {"result": [rectangle(Box(0, 0, 9, 9), rectanglelabels=["dog"])]}
    choice = {"type": "choices", "value": {"choices": ["dog"]}}
    task = {"data": {"image": "a.png"}, "annotations": [rectangles]}
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([task]))
    with pytest.raises(UserError, match="has rectangles and no choices: with --boxes each"):
        read_table(str(file), multi_label=False)
    rectangles["result"].append(choice)
    file.write_text(json.dumps([task]))
    table = read_table(str(file), multi_label=False)
    assert table.classnames == ["dog"] and EACH_BOX in table.notes


def test_a_list_of_cocos_results_says_where_it_belongs(tmp_path):
    (tmp_path / "results.json").write_text('[{"image_id": 1, "category_id": 1, "bbox": []}]')
    with pytest.raises(UserError, match="name no files: write it as the annotations of a file"):
        boxes_in(str(tmp_path / "results.json"))


@pytest.mark.parametrize("root", [False, True], ids=["in one file", "in two"])
def test_a_photograph_is_known_through_a_link(tmp_path, root):
    photograph(0).save(tmp_path / "a.png")
    os.symlink(tmp_path / "a.png", tmp_path / "b.png")
    box, other = Box(0, 0, 9, 9), Box(9, 9, 9, 9)
    rows = [
        (boxed("a.png", box), "dog"),
        (boxed("b.png", box), "dog"),
        (boxed("b.png", other), "cat"),
    ]
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for file, some in zip(files, [rows[:1], rows[1:]] if root else [rows, []]):
        with open(file, "w", newline="") as stream:
            csv.writer(stream).writerows([("image", "label"), *some])
    table = read_table(root_of(files if root else files[:1]), multi_label=False)
    assert [box_of(path) for path in table.paths] == [box, other]
    assert len({*table.groups.values()}) == 1


# ---- answers in the files' own forms ----


def row_of(image, label, **facts):
    top = [{"class": label or "dog", "probability": 0.75}]
    return {"image": image, "label": label, "uncertainty": 0.25, "top": top, **facts}


def written(writer, rows):
    writer.check()
    writer.write(iter(rows), "LinearProbe 01234567")
    writer.check()  # the same command may write it again
    with open(writer.path) as file:
        return json.load(file)


def test_cocos_annotations_are_answered_under_their_own_ids(tmp_path):
    photograph(0).save(tmp_path / "a.png")
    known = coco_file([1, 1, 9, 9], [1, 1, 9, 9], [5, 5, 8.5, 8], [0, 0, 4, 4], area=81)
    known["annotations"][0]["score"] = 0.9
    known["annotations"][3]["iscrowd"] = 1
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(known))
    source = boxes_in(str(file))
    twin, last = dict.fromkeys(row.image for row in source.rows)
    rows = [row_of(last, None), row_of(twin, "cat")]
    content = written(CocoWriter(str(tmp_path / "answers.json"), {str(file): source}), rows)
    answers = {note["id"]: note for note in content["annotations"]}
    assert [*answers] == [3, 1, 2]
    assert {number: note["category_id"] for number, note in answers.items()} == {
        3: None,
        1: 2,
        2: 2,
    }
    assert content["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    assert content["images"] == known["images"]
    assert answers[1]["detector_score"] == 0.9 and answers[1]["score"] == 0.75
    for note in known["annotations"][:3]:
        own = {key: note[key] for key in ("id", "image_id", "bbox", "area")}
        assert own.items() <= answers[note["id"]].items()
    assert [row.names for row in boxes_in(str(tmp_path / "answers.json")).rows] == [
        None,
        ("cat",),
        ("cat",),
    ]
    again = CocoWriter(str(tmp_path / "answers.json"), {str(tmp_path / "answers.json"): source})
    with pytest.raises(UserError, match="is one of the files to read"):
        again.check()
    with pytest.raises(UserError, match="give --boxes and that file alone"):
        CocoWriter(str(tmp_path / "answers.json"), {}).check()


@pytest.mark.parametrize("labels", [None, ["cat", "dog"]], ids=["one label", "several"])
def test_label_studios_rectangles_are_answered_in_their_own_task(tmp_path, labels):
    photograph(0).save(tmp_path / "a.png")
    named = {"id": "r1", "from_name": "kind", "to_name": "photo"}
    first = {**rectangle(Box(0, 0, 9, 9), rectanglelabels=["dog"]), **named}
    second = {**rectangle(Box(9, 9, 8, 8)), "id": "r2", "type": "rectangle", "from_name": "box"}
    note = {"result": [first, second]}
    task = {"id": 7, "data": {"photo": "a.png", "day": 3}, "annotations": [note]}
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([task]))
    source = boxes_in(str(file))
    facts = {} if labels is None else {"labels": labels}
    rows = [row_of(row.image, "cat", **facts) for row in source.rows]
    place = tmp_path / "elsewhere"
    place.mkdir()
    (answer,) = written(LabelStudioWriter(str(place / "answers.json"), {str(file): source}), rows)
    assert (answer["id"], answer["data"]) == (7, task["data"])
    (prediction,) = answer["predictions"]
    given = labels or ["cat"]
    expected = []
    for result, from_name, to_name in ((first, "kind", "photo"), (second, "label", "image")):
        value = {**result["value"], "rectanglelabels": given}
        own = {"type": "rectanglelabels", "from_name": from_name, "to_name": to_name}
        expected.append({**result, **own, "value": value, "score": 0.75})
    assert prediction["result"] == expected


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


def labels_by_path(file):
    """The label of each box of a file."""
    table = read_table(str(file), multi_label=False, boxes=True)
    labels = [table.classnames[own[0]] for own in table.labels]
    return {os.path.normpath(path): name for path, name in zip(table.paths, labels)}


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    return train(sets / "coco.json", tmp_path_factory.mktemp("run") / "run", "--boxes")


TRAINED_WITH = {
    "few of each class": ("--shots", 4),
    "without small classes": ("--skip-small",),
    "CDC": ("--trainer", "CDC", "--shots", 1),
    "several labels": ("--multi-label", "--shots", 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", TRAINED_WITH.values(), ids=[*TRAINED_WITH])
def test_options_of_a_training_do_with_boxes_as_they_do_with_their_crops(sets, tmp_path, words):
    """And a run's test alone, and its next round, are the same."""
    settings = ("--settings", *SETTINGS, *("OPTIM.MAX_EPOCH", 1) * ("CDC" in words))
    found = []
    for file, more in (("crops.csv", ()), ("coco.json", ("--boxes",))):
        folder = tmp_path / file
        asked = [sets / file, *more, "--backbone", "tiny", *words]
        assert not call(cdc_train, *asked, "--output-dir", folder, *settings)
        again = ["--eval-only", "--model-dir", folder, "--output-dir", tmp_path / f"{file}-again"]
        assert not call(cdc_train, *asked, *again, *settings)
        found.append([arrays_of(folder), arrays_of(tmp_path / f"{file}-again")])
    for crops, boxes in zip(*found):
        assert crops.keys() == boxes.keys() and crops
        for name, values in crops.items():
            numpy.testing.assert_array_equal(boxes[name], values, err_msg=name)


@pytest.mark.slow
def test_a_small_class_of_boxes_is_left_out_and_a_killed_run_goes_on(
    sets, run, tmp_path, monkeypatch
):
    content = json.loads((sets / "coco.json").read_text())
    content["categories"].append({"id": 9, "name": "rare"})
    content["annotations"].append({**content["annotations"][0], "id": 999, "category_id": 9})
    content["annotations"][-1]["bbox"] = [1, 1, 20, 20]
    (sets / "rare.json").write_text(json.dumps(content))
    common = ["--boxes", "--skip-small", "--backbone", "tiny", "--settings", *SETTINGS]
    command = [sets / "rare.json", "--output-dir", tmp_path / "run", *common]
    with monkeypatch.context() as patch:
        die_in_training(patch)
        assert call(cdc_train, *command) == 130
    assert not call(cdc_train, *command)
    expected = arrays_of(run)
    for name, values in arrays_of(tmp_path / "run").items():
        numpy.testing.assert_array_equal(expected[name], values, err_msg=name)


@pytest.mark.slow
def test_other_class_names_and_uncertain_boxes(sets, run, tmp_path, error_of):
    asked = ["--run", run, sets / "coco.json", "--boxes"]
    some = ["--coco", tmp_path / "some.json", "--classes", "red", "blue"]
    assert not call(predict, *asked, *some)
    content = json.loads((tmp_path / "some.json").read_text())
    assert {note["category_id"] for note in content["annotations"]} == {0, 2}
    assert not call(predict, *asked, "--coco", tmp_path / "sure.json", "--min-certainty", 0.6)
    answers = json.loads((tmp_path / "sure.json").read_text())["annotations"]
    assert all((note["category_id"] is None) == (note["score"] < 0.6) for note in answers)
    for more, said in (
        (("--ray", "auto"), "--ray writes a table of a --run"),
        (("--label-next", 3, "--at-random"), "only tables have a place"),
    ):
        assert said in error_of(predict, *asked, "--coco", tmp_path / "no.json", *more)
    several = train(sets / "coco.json", tmp_path / "run", "--boxes", "--multi-label")
    line = error_of(predict, "--run", several, *asked[2:], "--coco", tmp_path / "no.json")
    assert "--coco has one category per annotation" in line


INTERFACE = (
    '<View><Image name="photo" value="$image"/><RectangleLabels name="kind" toName="photo">'
    '<Label value="blue"/><Label value="green"/><Label value="red"/></RectangleLabels></View>'
)


@pytest.mark.slow
def test_a_server_labels_rectangles_and_learns_from_them(sets, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    load = lambda: PromptedClassifier.load(folder)  # noqa: E731
    demo = Demo(load(), root=str(sets))
    rounds = Rounds(demo, str(folder), load, 2)
    client = make_app(demo, rounds=rounds).test_client()
    assert client.post("/setup", json={"schema": INTERFACE}).status_code == 200
    tasks = json.loads((sets / "tasks.json").read_text())
    del tasks[1]["annotations"]
    tasks[2]["data"]["image"] = "/etc/hostname"
    asked = {"tasks": tasks, "label_config": INTERFACE}
    results = client.post("/predict", json=asked).json["results"]
    assert [len(one["result"]) for one in results] == [4, 0, 0] + [4] * (PHOTOGRAPHS - 3)
    paths = [boxed(str(sets / "00.png"), box) for box in quarters()]
    labels = demo.classifier.predict(paths).labels
    drawn = tasks[0]["annotations"][0]["result"]
    for result, known, label in zip(results[0]["result"], drawn, labels, strict=True):
        assert result["value"] == {**known["value"], "rectanglelabels": [label]}
        assert (result["from_name"], result["to_name"]) == ("kind", "photo")
    named = [f"00.png#xywh={','.join(map(str, box))}" for box in quarters()]
    rows = client.post("/predict", json={"paths": named}).json
    assert [row["label"] for row in rows] == labels
    turned = [{**tasks[0], "annotations": [{"result": [rectangle(quarters()[0], rotation=3)]}]}]
    asked = {"tasks": turned, "label_config": INTERFACE}
    assert "turned by 3 degrees" in client.post("/predict", json=asked).json["error"]
    for number in (3, 4):
        note = {**tasks[number]["annotations"][0], "id": number}
        note["result"][0]["value"]["rectanglelabels"] = ["green"]
        body = {"action": "ANNOTATION_CREATED", "task": tasks[number], "annotation": note}
        said = client.post("/webhook", json=body).json["status"]
    assert said == "a round is trained"
    before = demo.classifier
    rounds.training.join()
    assert demo.classifier is not before
    assert len(demo.classifier.trained_on.files) == 4 * PHOTOGRAPHS
    assert os.path.exists(folder / "rounds/1/results.json")


@pytest.mark.slow
def test_yolos_files_are_converted_as_the_page_says(tmp_path):
    pytest.importorskip("label_studio_sdk")
    data = tmp_path / "data"
    for place in ("images", "labels"):
        (data / place).mkdir(parents=True)
    photograph(0).save(data / "images/a.jpg")
    (data / "labels/a.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.125 0.25 0.25 0.125\n")
    (data / "classes.txt").write_text("dog\ncat\n")
    page = (REPOSITORY / "docs/boxes.md").read_text("utf-8")
    command = page.split("```bash\npython -m label_studio_sdk")[1].split("```")[0]
    words = shlex.split(command.replace("\\\n", " "))
    assert not python(f"-mlabel_studio_sdk{words[0]}", *words[1:], cwd=tmp_path).returncode
    expected = {
        boxed(str(data / "images/a.jpg"), Box(24, 16, 16, 32)): "dog",
        boxed(str(data / "images/a.jpg"), Box(0, 12, 16, 8)): "cat",
    }
    assert labels_by_path(data / "tasks.json") == expected


@pytest.mark.slow
def test_answers_to_boxes_come_back_as_labelled_boxes(sets, run, tmp_path):
    folder = run
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
    assert not call(predict, *asked, "--coco", sets / "coco_answers.json")
    answers = json.loads((sets / "coco_answers.json").read_text())
    assert [note["id"] for note in answers["annotations"]] == [
        note["id"] for note in boxes["annotations"]
    ]
    assert labels_by_path(sets / "coco_answers.json") == given
    tasks = json.loads((sets / "answers.json").read_text())
    assert len(tasks) == PHOTOGRAPHS
    exported = [{"data": task["data"], "annotations": task["predictions"]} for task in tasks]
    (sets / "exported.json").write_text(json.dumps(exported))
    assert labels_by_path(sets / "exported.json") == given
    own = ["--run", folder, sets / "tasks.json", "--boxes"]
    assert not call(predict, *own, "--label-studio", tmp_path / "tasks.json")
    for task in json.loads((tmp_path / "tasks.json").read_text()):
        found = [result["value"]["rectanglelabels"] for result in task["predictions"][0]["result"]]
        photo = str(sets / f"{task['id']:02d}.png")
        assert found == [[given[boxed(photo, box)]] for box in quarters()]
    right = sum(
        given[boxed(str(sets / f"{n:02d}.png"), box)] == name for n, _, box, name in every_box()
    )
    assert right > 0.8 * len(given)
    classifier = PromptedClassifier.load(folder)
    assert classifier.evaluate(sets / "coco.json").accuracy == right / len(given)
