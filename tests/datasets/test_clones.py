"""GroceryStoreDataset, PACS and CIFAR-10 in the layout of their public repositories."""

import pytest
from dassl.data.datasets import DATASET_REGISTRY

from protocols.plan import PACS, plan
from tests.conftest import load_tool
from trainers.common.errors import UserError

from .miniatures import cifar, files_below, grocery_store, pacs
from .test_every_dataset import build


@pytest.fixture
def groceries(tmp_path):
    grocery_store(tmp_path)
    return tmp_path / "GroceryStoreDataset" / "dataset"


def test_products_are_named_with_their_kind_unless_it_is_in_the_name(tmp_path, groceries):
    fine, coarse = (build(name, tmp_path) for name in ("GroceryStore", "GroceryStoreCoarse"))
    assert fine.classnames == [
        "Golden Delicious Apple",
        "Avocado",
        "Soy Milk",
        "Royal Gala Apple",
        "Red Beet",
    ]
    assert coarse.classnames == ["Apple", "Avocado", "Milk", "Red Beet"]
    assert [len(part) for part in (fine.train_x, fine.val, fine.test)] == [25, 8, 15]
    by_path = {item.impath: item.classname for item in fine.test}
    assert all(item.classname.split()[-1] in by_path[item.impath] for item in coarse.test)


@pytest.mark.parametrize(
    "file, content, message",
    [
        (
            "classes.csv",
            "Class Name (str),Class ID (int)\n",
            "classes.csv: Class Name .str., Class ID .int. where 4 columns should be",
        ),
        ("test.txt", "", "test.txt: nothing where 3 columns should be"),
        ("test.txt", "test/a.jpg 1 2\n", "where 3 columns should be"),
        ("val.txt", "val/Fruit/Avocado/a.jpg, 7, 1\n", "has a label that classes.csv lacks"),
        ("train.txt", "train/Fruit/Avocado/a.jpg, one, 1\n", "has a label that classes.csv lacks"),
        ("train.txt", "train/Fruit/Avocado/a.jpg, 1, 1\n", "has the label 1 among 1 classes"),
        ("val.txt", "../../elsewhere.jpg, 1, 1\n", "lies outside"),
        ("val.txt", None, "val.txt can't be read"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, groceries, file, content, message):
    (groceries / file).unlink() if content is None else (groceries / file).write_text(content)
    with pytest.raises(UserError, match=message):
        build("GroceryStore", tmp_path)


def test_cifars_test_images_are_its_own_and_every_fifth_training_image_validates(tmp_path):
    cifar(tmp_path)
    data = build("CIFAR10", tmp_path)
    assert len(data.train_x) == 80 and len(data.val) == len(data.test) == 20
    assert all("/test/" in item.impath for item in data.test) and not any(
        "/test/" in item.impath for item in data.train_x + data.val
    )
    (tmp_path / "CIFAR-10-images" / "train" / "dog").rename(
        tmp_path / "CIFAR-10-images" / "train" / "hound"
    )
    with pytest.raises(
        UserError, match="train must have the class folders airplane, .*; dog is missing"
    ):
        build("CIFAR10", tmp_path)


def test_a_domain_is_trained_on_in_part_and_tested_on_as_a_whole(tmp_path):
    pacs(tmp_path)
    trained, target = build("PACSSketch", tmp_path), build("PACSSketchAll", tmp_path)
    assert [len(part) for part in (trained.train_x, trained.val, trained.test)] == [35, 14, 21]
    assert {item.impath for item in trained.train_x + trained.val + trained.test} == {
        item.impath for item in target.test
    }
    assert trained.classnames == target.classnames


def test_the_protocol_tests_on_the_three_other_domains():
    jobs = plan("dg", "CoOp", "pacs_photo", None, [1], "out")
    assert [job.dataset for job in jobs] == [
        "pacs_photo",
        "pacs_art_painting_all",
        "pacs_cartoon_all",
        "pacs_sketch_all",
    ]
    assert {job.model for job in jobs[1:]} == {jobs[0].folder} and all(
        len(plan("dg", "CoOp", source, None, [1], "out")) == 4 for source in PACS
    )


def test_the_domains_have_the_published_number_of_images():
    expected = load_tool("check_data").EXPECTED
    whole = [
        expected[name][0][3]
        for name in expected
        if name.startswith("PACS") and name.endswith("All")
    ]
    assert (
        sum(whole)
        == 9991
        == sum(
            sum(expected[name][0][1:4])
            for name in expected
            if name.startswith("PACS") and not name.endswith("All")
        )
    )


def test_nothing_is_written_into_a_clone(tmp_path):
    pacs(tmp_path)
    before = files_below(tmp_path)
    assert len(build("PACSPhoto", tmp_path, shots=2, seed=1).train_x) == 14
    assert files_below(tmp_path) == before


def test_the_message_says_what_to_clone(tmp_path):
    with pytest.raises(
        UserError,
        match=f"data folder {tmp_path}/.* is missing: git clone https://github.com/.*/CIFAR-10-images below --root",
    ):
        DATASET_REGISTRY.get("CIFAR10").find(str(tmp_path))
