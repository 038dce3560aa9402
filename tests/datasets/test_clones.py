"""GroceryStoreDataset, PACS, CIFAR-10 and ImageNet in the layout of their public repositories."""

import re
import shutil

import pytest

from tests.datasets.miniatures import (
    VARIANTS,
    cifar,
    grocery_store,
    imagenet_v2,
    imagenet_variant,
    pacs,
    picture,
)
from tests.datasets.test_every_dataset import build
from tests.runs import REPOSITORY, refuses


def test_products_are_named_with_their_kind_unless_it_is_in_the_name(tmp_path):
    grocery_store(tmp_path)
    fine, coarse = (build(name, tmp_path) for name in ("GroceryStore", "GroceryStoreCoarse"))
    names = ["Golden Delicious Apple", "Avocado", "Soy Milk", "Royal Gala Apple", "Red Beet"]
    assert fine.classnames == names
    assert coarse.classnames == ["Apple", "Avocado", "Milk", "Red Beet"]
    assert [len(part) for part in (fine.train_x, fine.val, fine.test)] == [25, 8, 15]
    by_path = {item.impath: item.classname for item in fine.test}
    assert all(item.classname.split()[-1] in by_path[item.impath] for item in coarse.test)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("classes.csv", "Class Name (str),Class ID (int)\na,0\n", "ValueError: not enough values"),
        ("train.txt", "train/a.jpg, one, 1\n", "train.txt can't be read (KeyError: 'one')"),
        ("train.txt", "train/a.jpg, 1, 1\n", "a.jpg has the label 1, training images have 1"),
        ("val.txt", "../../elsewhere.jpg, 1, 1\n", "lies outside"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, file, content, message):
    grocery_store(tmp_path)
    (tmp_path / f"GroceryStoreDataset/dataset/{file}").write_text(content)
    with refuses(re.escape(message)):
        build("GroceryStore", tmp_path)


def test_cifars_test_images_are_its_own_and_every_fifth_training_image_validates(tmp_path):
    cifar(tmp_path)
    data = build("CIFAR10", tmp_path)
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [80, 20, 20]
    for part, place in ((data.train_x, "/train/"), (data.val, "/train/"), (data.test, "/test/")):
        assert all(place in item.impath for item in part)
    (tmp_path / "CIFAR-10-images/train/dog").rename(tmp_path / "CIFAR-10-images/train/cow")
    with refuses("the class folder cow is too many in train"):
        build("CIFAR10", tmp_path)


def test_a_domain_is_trained_on_in_part_and_tested_on_as_a_whole(tmp_path):
    pacs(tmp_path)
    trained, target = build("PACSSketch", tmp_path), build("PACSSketchAll", tmp_path)
    parts = (trained.train_x, trained.val, trained.test)
    assert [len(part) for part in parts] == [35, 14, 21]
    images = {item.impath for part in parts for item in part}
    assert images == {item.impath for item in target.test}
    assert trained.classnames == target.classnames


# ---- ImageNet and its four variants ----


@pytest.mark.parametrize("name", ["ImageNet", *VARIANTS])
def test_labels_follow_the_sorted_ids_and_other_files_are_passed_over(root_of, name):
    dataset = build(name, root_of(name))
    assert dataset.classnames == ["great white shark", "cock", "drum"]
    of_label = {(item.impath.split("/")[-2], item.label) for item in dataset.test}
    assert of_label == {("n01", 0), ("n02", 1), ("n03", 2)}


@pytest.mark.parametrize(
    "text, message",
    [
        ("n01 shark\nn02\nn03 drum\n", "ValueError: the line 'n02'"),
        ("n01 shark\nn02 cock\n", "KeyError: 'n03'|the class folder n03 is too many"),
    ],
)
@pytest.mark.parametrize("name", VARIANTS)
def test_missing_names_are_refused(tmp_path, name, text, message):
    imagenet_variant(tmp_path, name)
    (tmp_path / VARIANTS[name].split("/")[0] / "classnames.txt").write_text(text)
    with refuses(message):
        build(name, tmp_path)


def test_a_missing_folder_is_refused_but_where_a_set_numbers_its_own_classes(tmp_path):
    for name in VARIANTS:
        imagenet_variant(tmp_path, name)
        shutil.rmtree(tmp_path / VARIANTS[name] / "n02")
    with refuses("the class folder n02 is missing in test"):
        build("ImageNetSketch", tmp_path)
    for name in ("ImageNetA", "ImageNetR"):
        assert build(name, tmp_path).classnames == ["great white shark", "drum"]


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
    with refuses("the class folder 10 is missing in test"):
        build("ImageNetV2", tmp_path)


def test_only_what_learns_nothing_may_be_run_on_test_images(root_of, refusal):
    config = f"{REPOSITORY}/configs/datasets/imagenet_r.yaml"
    words = ("--dataset-config-file", config, "DATASET.NUM_SHOTS", "-1")
    root = str(root_of("ImageNetR"))
    assert "test images only" in refusal(*words, trainer="CoOp", root=root)
