"""Split files, base/new halves and few-shot samples against literal references; ImageNet on a miniature of its layout."""

import json
import math
import random

import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.split_files import SplitFileDataset
from datasets.splits import read_split, subsample_classes
from protocols.arguments import extend_config
from tests.conftest import REPOSITORY
from trainers.common.errors import UserError
from trainers.common.fingerprints import split_hash

from .miniatures import SPLIT_FILES, split_file


class Item:
    def __init__(self, label):
        self.impath, self.label, self.classname = __file__, label, f"class {label}"


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(
        lambda labels: len(set(labels)) > 1
    ),
    others=st.lists(st.integers(0, 12), max_size=30),
)
def test_base_is_the_first_half_of_the_labels_and_new_the_rest(labels, others):
    first, second = [Item(label) for label in labels], [Item(label) for label in others]
    classes = sorted(set(labels))
    middle = math.ceil(len(classes) / 2)
    for subsample, kept in (("base", classes[:middle]), ("new", classes[middle:])):
        result = subsample_classes(first, second, subsample=subsample)
        for items, source in zip(result, (labels, others)):
            assert [item.classname for item in items] == [
                f"class {label}" for label in source if label in kept
            ]
            assert [item.label for item in items] == [
                kept.index(label) for label in source if label in kept
            ]
    assert subsample_classes(first, second, subsample="all") == (first, second)


def test_an_unknown_half_is_refused():
    with pytest.raises(UserError, match="'old', it takes one of all, base, new"):
        subsample_classes([], subsample="old")


def test_a_split_file_is_read_in_order(tmp_path):
    for name in ("b/1.png", "a/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "split.json").write_text(
        json.dumps(
            {
                "train": [["b/1.png", "1", "bee"], ["a/2.png", 0, "ant"]],
                "val": [],
                "test": [["a/2.png", 0, "ant"]],
            }
        )
    )
    train, val, test = read_split(str(tmp_path / "split.json"), str(tmp_path))
    assert [(item.label, item.classname) for item in train] == [(1, "bee"), (0, "ant")]
    assert val == [] and test[0].impath == str(tmp_path / "a" / "2.png")


def config(name, root, shots=-1, classes="all"):
    cfg = get_cfg_default()
    extend_config(cfg)
    cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES = (
        name,
        str(root),
        shots,
        classes,
    )
    return cfg


def test_a_few_shot_sample_is_coops(data_root):
    """Class by class in order of first appearance, train before val, with Python's generator as the seed left it."""
    with open(f"{data_root}/dtd/split_zhou_DescribableTextures.json") as file:
        split = json.load(file)
    random.seed(7)
    expected = {}
    for part, shots in (
        ("train", 5),
        ("val", 3),
    ):  # val has three images a class, fewer than min(shots, 4)
        expected[part] = []
        for label in dict.fromkeys(label for _, label, _ in split[part]):
            names = [name for name, own, _ in split[part] if own == label]
            expected[part] += random.sample(names, shots) if shots < len(names) else names
    random.seed(7)
    dataset = build_dataset(config("DescribableTextures", data_root, shots=5))
    for part, items in (("train", dataset.train_x), ("val", dataset.val)):
        assert ["/".join(item.impath.split("/")[-2:]) for item in items] == expected[part]
    assert len(dataset.test) == 24


def test_the_split_hash_tells_samples_apart_but_not_machines(data_root, tmp_path):
    def hash_of(seed, root, classes="all"):
        random.seed(seed)
        return split_hash(
            build_dataset(config("DescribableTextures", root, shots=4, classes=classes))
        )

    (tmp_path / "elsewhere").symlink_to(data_root)
    assert hash_of(1, data_root) == hash_of(1, data_root) == hash_of(1, tmp_path / "elsewhere")
    assert (
        len(
            {
                hash_of(1, data_root),
                hash_of(2, data_root),
                hash_of(1, data_root, "base"),
                hash_of(1, data_root, "new"),
            }
        )
        == 4
    )


def test_fgvc_aircraft_reads_its_own_lists(tmp_path):
    folder = tmp_path / "fgvc_aircraft"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("707-320\nBoeing 717\n")
    for part, numbers in (("train", (1, 2)), ("val", (3, 4)), ("test", (5, 6))):
        for number in numbers:
            Image.new("RGB", (4, 4)).save(folder / "images" / f"{number}.jpg")
        (folder / f"images_variant_{part}.txt").write_text(
            "".join(
                f"{number} {name}\n" for number, name in zip(numbers, ("Boeing 717", "707-320"))
            )
        )
    dataset = build_dataset(config("FGVCAircraft", tmp_path))
    assert dataset.classnames == ["707-320", "Boeing 717"]
    assert [(item.impath.rsplit("/")[-1], item.label) for item in dataset.test] == [
        ("5.jpg", 1),
        ("6.jpg", 0),
    ]
    (folder / "images_variant_val.txt").write_text("3 Concorde\n")
    with pytest.raises(UserError, match="'Concorde' is not in variants.txt"):
        build_dataset(config("FGVCAircraft", tmp_path))
    (folder / "images_variant_val.txt").unlink()
    with pytest.raises(UserError, match="images_variant_val.txt is missing"):
        build_dataset(config("FGVCAircraft", tmp_path))


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_data_sets_with_a_split_file_are_found_where_coops_users_have_them(tmp_path, name):
    split_file(tmp_path, name)
    dataset = build_dataset(config(name, tmp_path, shots=2))
    assert (
        dataset.classnames == ["one", "two_words", "three"]
        and len(dataset.train_x) == 6
        and len(dataset.test) == 6
    )
    assert dataset.test[0].impath == str(tmp_path / SPLIT_FILES[name] / "one" / "test0.jpg")


@pytest.fixture
def imagenet(tmp_path):
    folder = tmp_path / "imagenet"
    for part, count in (("train", 3), ("val", 2)):
        for wnid in ("n02", "n01", "n03"):
            (folder / "images" / part / wnid).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (4, 4)).save(folder / "images" / part / wnid / f"{index}.JPEG")
    (folder / "classnames.txt").write_text("n01 great white shark\nn02 cock\nn03 drum\n")
    return tmp_path


def test_imagenet_labels_follow_the_sorted_ids_and_val_is_test(imagenet):
    dataset = build_dataset(config("ImageNet", imagenet, shots=2))
    assert dataset.classnames == ["great white shark", "cock", "drum"]
    assert len(dataset.train_x) == 6 and len(dataset.val) == len(dataset.test) == 6
    new = build_dataset(config("ImageNet", imagenet, shots=2, classes="new"))
    assert new.classnames == ["drum"] and len(new.test) == 2


def test_imagenet_with_a_class_missing_from_one_part_is_refused(imagenet):
    """Otherwise the labels of the two parts would mean different classes."""
    import shutil

    shutil.rmtree(imagenet / "imagenet" / "images" / "val" / "n01")
    with pytest.raises(UserError, match=r"hold different classes \(n01\)"):
        build_dataset(config("ImageNet", imagenet))


def test_imagenet_trouble_is_named(imagenet):
    (imagenet / "imagenet" / "classnames.txt").write_text("n01 shark\nn02 cock\n")
    with pytest.raises(UserError, match="n03 has no name in classnames.txt"):
        build_dataset(config("ImageNet", imagenet))
    (imagenet / "imagenet" / "classnames.txt").unlink()
    with pytest.raises(UserError, match="classnames.txt is missing"):
        build_dataset(config("ImageNet", imagenet))
    with pytest.raises(UserError, match="imagenet is missing: lay the data out"):
        build_dataset(config("ImageNet", imagenet / "nowhere"))


def test_the_docs_name_every_split_file_its_folder_and_where_to_get_it(tmp_path):
    page = (REPOSITORY / "docs" / "reproduce.md").read_text(encoding="utf-8")
    found = SplitFileDataset.__subclasses__()
    assert len(found) == 9
    for dataset in found:
        assert (
            f"| {dataset.__name__} | `split_zhou_{dataset.__name__}.json` | `{dataset.dataset_dir}` |"
            in page
        )
    assert (
        "huggingface.co/zhengli97/prompt_learning_dataset" in page
        and "14 of the 15 data sets" in page
    )
    assert "preprocessed.pkl" in page, "ImageNet's sample without it is another one"
    with pytest.raises(
        UserError, match=r"split_zhou_DTD.json is missing: docs/reproduce.md says where to get it"
    ):
        read_split(str(tmp_path / "split_zhou_DTD.json"), str(tmp_path))
