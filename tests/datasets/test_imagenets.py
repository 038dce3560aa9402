"""ImageNet and its four variants: labels as in CoOp, archives' readmes passed over, incomplete folders refused."""

import shutil

import pytest

from tests.conftest import REPOSITORY, refuses

from .miniatures import VARIANTS, imagenet, imagenet_v2, imagenet_variant, picture
from .test_every_dataset import build


@pytest.mark.parametrize("name", ["ImageNet", *VARIANTS])
def test_labels_follow_the_sorted_ids_and_other_files_are_passed_over(root_of, name):
    dataset = build(name, root_of(name))
    assert dataset.classnames == ["great white shark", "cock", "drum"]  # of the sorted ids
    of_label = {(item.impath.split("/")[-2], item.label) for item in dataset.test}
    assert of_label == {("n01", 0), ("n02", 1), ("n03", 2)}


@pytest.mark.parametrize("name", ["ImageNet", *VARIANTS])
def test_incomplete_folders_and_missing_names_are_refused(tmp_path, name):
    """But a set of some classes numbers its own."""
    place = VARIANTS.get(name, "imagenet/images/val")
    folder, names = tmp_path / place, tmp_path / place.split("/")[0] / "classnames.txt"
    imagenet(tmp_path) if name == "ImageNet" else imagenet_variant(tmp_path, name)
    for text, message in (
        ("n01 shark\nn02\nn03 drum\n", "'n02' must be a folder's name, a space and the class name"),
        ("n01 shark\nn02 cock\n", "n03 has no name in classnames.txt"),
        (None, "classnames.txt is missing"),
    ):
        names.write_text(text) if text else names.unlink()
        with refuses(message):
            build(name, tmp_path)
        names.write_text("n01 great white shark\nn02 cock\nn03 drum\n")
    shutil.rmtree(f"{folder}/n02")
    if name in ("ImageNetA", "ImageNetR"):
        assert build(name, tmp_path).classnames == ["great white shark", "drum"]
    else:
        message = r"hold different classes \(n02\)|images has no folder n02: unpack it wholly"
        with refuses(message):
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
    shutil.rmtree(f"{images}/10")
    with refuses("11 lines of classnames.txt, 0 to 10; 10 is missing"):
        build("ImageNetV2", tmp_path)
    (place / "classnames.txt").write_text("".join(lines[:9]))
    with refuses("9 lines of classnames.txt, 0 to 8; 9 is too many"):
        build("ImageNetV2", tmp_path)


def test_only_what_learns_nothing_may_be_run_on_test_images(root_of, refusal):
    config = {"--dataset-config-file": f"{REPOSITORY}/configs/datasets/imagenet_r.yaml"}
    facts = {"trainer": "CoOp", "root": str(root_of("ImageNetR")), "replace": config}
    assert "test images only" in refusal("DATASET.NUM_SHOTS", "-1", **facts)
