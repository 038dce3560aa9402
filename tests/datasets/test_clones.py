"""GroceryStoreDataset, PACS and CIFAR-10 in the layout of their public repositories."""

import re

import pytest

from tests.conftest import GOLDEN, refuses

from .miniatures import cifar, grocery_store, pacs
from .test_every_dataset import build


def test_products_are_named_with_their_kind_unless_it_is_in_the_name(tmp_path):
    grocery_store(tmp_path)
    fine, coarse = (build(name, tmp_path) for name in ("GroceryStore", "GroceryStoreCoarse"))
    names = ["Golden Delicious Apple", "Avocado", "Soy Milk", "Royal Gala Apple", "Red Beet"]
    assert fine.classnames == names and coarse.classnames == [
        "Apple",
        "Avocado",
        "Milk",
        "Red Beet",
    ]
    assert [len(part) for part in (fine.train_x, fine.val, fine.test)] == [25, 8, 15]
    by_path = {item.impath: item.classname for item in fine.test}
    assert all(item.classname.split()[-1] in by_path[item.impath] for item in coarse.test)


@pytest.mark.parametrize("file, content, message", GOLDEN["refusals"]["groceries"])
def test_a_damaged_list_is_refused(tmp_path, file, content, message):
    grocery_store(tmp_path)
    path = tmp_path / f"GroceryStoreDataset/dataset/{file}"
    path.unlink() if content is None else path.write_text(content)
    with refuses(re.escape(message)):
        build("GroceryStore", tmp_path)


def test_cifars_test_images_are_its_own_and_every_fifth_training_image_validates(tmp_path):
    cifar(tmp_path)
    data = build("CIFAR10", tmp_path)
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [80, 20, 20]
    for part, place in ((data.train_x, "/train/"), (data.val, "/train/"), (data.test, "/test/")):
        assert all(place in item.impath for item in part)
    (tmp_path / "CIFAR-10-images/train/dog").rename(tmp_path / "CIFAR-10-images/train/cow")
    message = "train must have the class folders airplane, .*; cow is too many"
    with refuses(message):
        build("CIFAR10", tmp_path)


def test_a_domain_is_trained_on_in_part_and_tested_on_as_a_whole(tmp_path):
    pacs(tmp_path)
    trained, target = build("PACSSketch", tmp_path), build("PACSSketchAll", tmp_path)
    parts = (trained.train_x, trained.val, trained.test)
    assert [len(part) for part in parts] == [35, 14, 21]
    images = {item.impath for part in parts for item in part}
    assert images == {item.impath for item in target.test}
    assert trained.classnames == target.classnames
