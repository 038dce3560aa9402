"""ImageNet and its four variants: labels as in CoOp, archives' readmes passed over, incomplete folders refused."""

import json
import shutil

import pytest

from protocols.training import main
from tests.conftest import REPOSITORY, base_arguments
from trainers.common.errors import UserError

from .miniatures import VARIANTS, imagenet, imagenet_v2, imagenet_variant, picture
from .test_every_dataset import build

NAMES = ["great white shark", "cock", "drum"]  # of the sorted ids


def test_imagenet_labels_follow_the_sorted_ids_and_val_is_test(tmp_path):
    imagenet(tmp_path)
    dataset = build("ImageNet", tmp_path, shots=2)
    assert dataset.classnames == NAMES
    assert len(dataset.train_x) == 6 and len(dataset.val) == len(dataset.test) == 15
    new = build("ImageNet", tmp_path, shots=2, classes="new")
    assert new.classnames == ["drum"] and len(new.test) == 5


@pytest.mark.parametrize("name", VARIANTS)
def test_labels_follow_the_sorted_ids_and_other_files_are_passed_over(tmp_path, name):
    imagenet_variant(tmp_path, name)
    dataset = build(name, tmp_path)
    assert dataset.classnames == NAMES
    expected = [(f"n0{label + 1}/{i}.jpg", label) for label in range(3) for i in range(2)]
    assert [(item.impath[-9:], item.label) for item in dataset.test] == expected
    assert [item.impath for item in dataset.train_x] == [item.impath for item in dataset.test]


@pytest.mark.parametrize("name", ["ImageNet", *VARIANTS])
def test_incomplete_folders_and_missing_names_are_refused(tmp_path, name):
    """But a set of some classes numbers its own."""
    folder = tmp_path / VARIANTS.get(name, "imagenet/images/val")
    names = tmp_path / folder.relative_to(tmp_path).parts[0] / "classnames.txt"
    imagenet(tmp_path) if name == "ImageNet" else imagenet_variant(tmp_path, name)
    for text, message in (
        ("n01 shark\nn02\nn03 drum\n", "'n02' must be a folder's name, a space and the class name"),
        ("n01 shark\nn02 cock\n", "n03 has no name in classnames.txt"),
        (None, "classnames.txt is missing"),
    ):
        names.write_text(text) if text else names.unlink()
        with pytest.raises(UserError, match=message):
            build(name, tmp_path)
        names.write_text("n01 great white shark\nn02 cock\nn03 drum\n")
    shutil.rmtree(folder / "n02")
    if name in ("ImageNetA", "ImageNetR"):
        assert build(name, tmp_path).classnames == ["great white shark", "drum"]
    else:
        message = r"hold different classes \(n02\)|images has no folder n02: unpack it wholly"
        with pytest.raises(UserError, match=message):
            build(name, tmp_path)


def test_the_folders_of_v2_are_lines_of_classnames(tmp_path):
    """Line 10 is not line 1: the folders are numbers, not words."""
    imagenet_v2(tmp_path)
    place = tmp_path / "imagenetv2"
    images = place / "imagenetv2-matched-frequency-format-val"
    lines = [f"n{index:02d} class {index}\n" for index in range(11)]
    (place / "classnames.txt").write_text("".join(lines))
    for label in range(11):
        picture(images / str(label) / "b.jpeg")
    dataset = build("ImageNetV2", tmp_path)
    assert dataset.classnames == [f"class {index}" for index in range(11)]
    assert all(item.impath.split("/")[-2] == str(item.label) for item in dataset.test)
    shutil.rmtree(images / "10")
    with pytest.raises(UserError, match="11 lines of classnames.txt, 0 to 10; 10 is missing"):
        build("ImageNetV2", tmp_path)
    (place / "classnames.txt").write_text("".join(lines[:9]))
    with pytest.raises(UserError, match="9 lines of classnames.txt, 0 to 8; 9 is too many"):
        build("ImageNetV2", tmp_path)


def test_only_what_learns_nothing_may_be_run_on_test_images(tmp_path, small_clip_file, capsys):
    imagenet_variant(tmp_path, "ImageNetR")
    for trainer, expected in (("CoOp", 2), ("ZeroshotCLIP", 0)):
        arguments = base_arguments(trainer, str(tmp_path), small_clip_file, tmp_path / trainer)
        config = REPOSITORY / "configs" / "datasets" / "imagenet_r.yaml"
        arguments[arguments.index("--dataset-config-file") + 1] = str(config)
        code = main([*arguments, "DATASET.NUM_SHOTS", "-1"])
        error = capsys.readouterr().err
        assert code == expected, error
    assert not (tmp_path / "CoOp").exists()
    record = json.loads((tmp_path / "ZeroshotCLIP" / "results.json").read_text())
    assert record["dataset"] == "ImageNetR"
