"""The four variants: labels as in CoOp, archives' readmes passed over, incomplete folders refused."""

import json
import shutil

import pytest

from protocols.training import main
from tests.conftest import REPOSITORY, base_arguments
from trainers.common.errors import UserError

from .miniatures import VARIANTS, imagenet_v2, imagenet_variant, picture
from .test_every_dataset import build


@pytest.mark.parametrize("name", VARIANTS)
def test_labels_follow_the_sorted_ids_and_other_files_are_passed_over(tmp_path, name):
    imagenet_variant(tmp_path, name)
    dataset = build(name, tmp_path)
    assert dataset.classnames == ["great white shark", "cock", "drum"]
    assert [(item.impath[-9:], item.label) for item in dataset.test] == [
        (f"n0{label + 1}/{index}.jpg", label) for label in range(3) for index in range(2)
    ]
    assert [item.impath for item in dataset.train_x] == [item.impath for item in dataset.test]


@pytest.mark.parametrize("name", ["ImageNetA", "ImageNetR"])
def test_a_set_of_some_classes_numbers_its_own(tmp_path, name):
    imagenet_variant(tmp_path, name)
    shutil.rmtree(tmp_path / VARIANTS[name] / "n02")
    dataset = build(name, tmp_path)
    assert dataset.classnames == ["great white shark", "drum"] and {
        item.label for item in dataset.test
    } == {0, 1}


def test_a_sketch_set_without_a_class_is_refused(tmp_path):
    imagenet_variant(tmp_path, "ImageNetSketch")
    shutil.rmtree(tmp_path / VARIANTS["ImageNetSketch"] / "n02")
    with pytest.raises(
        UserError, match="imagenet-sketch/images has no folder n02: unpack it wholly"
    ):
        build("ImageNetSketch", tmp_path)


@pytest.mark.parametrize("name", VARIANTS)
def test_an_empty_folder_and_missing_names_are_refused(tmp_path, name):
    imagenet_variant(tmp_path, name)
    place = tmp_path / VARIANTS[name]
    (place.parent / "classnames.txt").write_text("n01 shark\nn02\nn03 drum\n")
    with pytest.raises(
        UserError, match="the line 'n02' must be a folder's name, a space and the class name"
    ):
        build(name, tmp_path)
    (place.parent / "classnames.txt").write_text("n01 shark\nn02 cock\n")
    with pytest.raises(UserError, match="n03 has no name in classnames.txt"):
        build(name, tmp_path)
    shutil.rmtree(place)
    place.mkdir()
    with pytest.raises(UserError, match="has no folder n01"):
        build(name, tmp_path)


def test_the_folders_of_v2_are_lines_of_classnames(tmp_path):
    """Line 10 is not line 1: the folders are numbers, not words."""
    imagenet_v2(tmp_path)
    place = tmp_path / "imagenetv2"
    (place / "classnames.txt").write_text(
        "".join(f"n{index:02d} class {index}\n" for index in range(11))
    )
    for label in range(11):
        picture(place / "imagenetv2-matched-frequency-format-val" / str(label) / "b.jpeg")
    dataset = build("ImageNetV2", tmp_path)
    assert dataset.classnames == [f"class {index}" for index in range(11)]
    assert all(item.impath.split("/")[-2] == str(item.label) for item in dataset.test)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda place: shutil.rmtree(place / "1"), "1 is missing"),
        (lambda place: (place / "3").mkdir(), "3 is too many"),
    ],
)
def test_v2_has_a_folder_for_each_line(tmp_path, change, message):
    imagenet_v2(tmp_path)
    change(tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val")
    with pytest.raises(
        UserError, match=f"a folder for each of the 3 lines of classnames.txt, 0 to 2; {message}"
    ):
        build("ImageNetV2", tmp_path)


@pytest.fixture
def start(tmp_path, small_clip_file, capsys):
    """Runs train.py on ImageNet-R in miniature; returns the exit code and what it said on standard error."""
    imagenet_variant(tmp_path, "ImageNetR")

    def run(trainer, *options):
        arguments = base_arguments(trainer, str(tmp_path), small_clip_file, tmp_path / "out")
        arguments[arguments.index("--dataset-config-file") + 1] = str(
            REPOSITORY / "configs" / "datasets" / "imagenet_r.yaml"
        )
        code = main([*arguments, "DATASET.NUM_SHOTS", "-1", *options])
        return code, capsys.readouterr().err

    return run


def test_training_on_test_images_is_refused(start, tmp_path):
    code, error = start("CoOp")
    assert (
        code == 2
        and "ImageNetR has test images only: train on ImageNet, then test here with --eval-only --model-dir"
        in error
    )
    assert not (tmp_path / "out").exists()


def test_what_learns_nothing_may_be_tested_without_eval_only(start, tmp_path):
    code, error = start("ZeroshotCLIP")
    assert code == 0, error
    assert json.loads((tmp_path / "out" / "results.json").read_text())["dataset"] == "ImageNetR"
