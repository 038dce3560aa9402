"""What holds for every registered data set, on a miniature of its real layout: generated from the
registry."""

import os

import pytest
import yaml
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, build_dataset

import datasets.every  # noqa: F401
from datasets.base import ImageDataset, TargetDataset
from tests.runs import REPOSITORY, refuses
from trainers.settings import add_run_settings

ALL = sorted(
    name
    for name in DATASET_REGISTRY.registered_names()
    if issubclass(DATASET_REGISTRY.get(name), ImageDataset)
)
TEST_ONLY = [name for name in ALL if issubclass(DATASET_REGISTRY.get(name), TargetDataset)]
TRAINED = [name for name in ALL if name not in TEST_ONLY]


def build(name, root, shots=-1, classes="all", seed=-1, skip_small=False):
    cfg = get_cfg_default()
    add_run_settings(cfg)
    settings = {"NAME": name, "ROOT": str(root), "NUM_SHOTS": shots, "SUBSAMPLE_CLASSES": classes}
    cfg.DATASET.update(settings)
    cfg.DATASET.SKIP_SMALL = skip_small
    cfg.SEED, cfg.VERBOSE = seed, False
    return build_dataset(cfg)


def test_every_data_set_has_a_config_and_every_config_a_data_set():
    files = (REPOSITORY / "configs/datasets").glob("*.yaml")
    names = {yaml.safe_load(path.read_text())["DATASET"]["NAME"] for path in files}
    assert sorted(names) == ALL  # a set's settings may have files


@pytest.mark.parametrize("name", ALL)
def test_labels_have_no_gaps_every_image_is_there_and_no_test_image_is_trained_on(root_of, name):
    dataset = build(name, root_of(name))
    assert len(dataset.classnames) == dataset.num_classes >= 3
    assert {item.label for item in dataset.test} == set(range(dataset.num_classes))
    parts = dataset.train_x, dataset.val or (), dataset.test
    for item in (item for part in parts for item in part):
        assert os.path.isfile(item.impath)
        assert dataset.lab2cname[item.label] == item.classname
    train, val, test = ({item.impath for item in part} for part in parts)
    if name in TRAINED:
        assert not train & (val | test)
        assert val == test if name == "ImageNet" else not val & test


@pytest.mark.parametrize("name", TRAINED)
def test_base_and_new_are_the_two_halves_and_a_seeds_sample_is_the_same_in_each(root_of, name):
    whole, base, new = (
        build(name, root_of(name), shots=2, classes=half, seed=3) for half in ("all", "base", "new")
    )
    assert base.classnames + new.classnames == whole.classnames
    assert len(base.test) + len(new.test) == len(whole.test)
    assert len(base.train_x) == 2 * base.num_classes
    assert len(new.train_x) == 2 * new.num_classes
    paths = [item.impath for item in (*base.train_x, *new.train_x)]
    assert sorted(paths) == sorted(item.impath for item in whole.train_x)


@pytest.mark.parametrize("name", TEST_ONLY)
@pytest.mark.parametrize(
    "keys, reason",
    [({"shots": 16}, "NUM_SHOTS is 16"), ({"classes": "new"}, "SUBSAMPLE_CLASSES 'new'")],
)
def test_a_set_without_training_images_refuses_what_needs_them(root_of, name, keys, reason):
    source = "train on (ImageNet|OpenMoji|another domain of PACS), then test"
    with refuses(f"{reason}.* but {name} has test images only: {source}"):
        build(name, root_of(name), **keys)
