"""Data sets, samplers and loaders: the same draws as a literal loop makes."""

import pickle
import random
import re
from types import SimpleNamespace

import pytest
import torch
import torchvision.transforms as T
from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.transforms import build_transform
from dassl.utils import set_random_seed
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler


def item(label, name="c"):
    """A Datum without a file."""
    return SimpleNamespace(label=label, domain=0, classname=f"{name}{label}", impath="")


@pytest.fixture
def source(make_cfg):
    """The training images of the tiny data set."""
    return build_dataset(make_cfg()).train_x


def test_a_datum_survives_pickling_when_its_file_is_gone_and_else_needs_it(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"")
    datum = Datum(str(path), 3, 1, "cat")
    path.unlink()
    one = pickle.loads(pickle.dumps(datum))
    assert (one.impath, one.label, one.domain, one.classname) == (str(path), 3, 1, "cat")
    with pytest.raises(AssertionError, match="x.png"):
        Datum(str(path))


@pytest.mark.parametrize(
    "train, message",
    [
        ([], "empty"),
        ([item(0), item(2)], "without gaps"),
        ([item(0, "a"), item(0, "b")], "each with one class name"),
    ],
)
def test_lists_that_name_no_classes_are_refused(train, message):
    with pytest.raises(ValueError, match=message):
        DatasetBase(train_x=train)


@pytest.mark.parametrize("repeat", [False, True])
def test_few_shots_are_the_literal_loops_draws(repeat):
    def literal(items):
        for label in dict.fromkeys(one.label for one in items):
            of_class = [one for one in items if one.label == label]
            if len(of_class) >= 4:
                yield from random.sample(of_class, 4)
            else:
                yield from random.choices(of_class, k=4) if repeat else of_class

    train, val = ([item(label) for label in [0] * 9 + [1] * 2 + [2] * 4] for _ in range(2))
    data = DatasetBase(train_x=train)
    random.seed(11)
    drawn = data.generate_fewshot_dataset(train, val, num_shots=4, repeat=repeat)
    state = random.getstate()
    random.seed(11)
    for found, items in zip(drawn, (train, val)):
        assert list(map(id, found)) == list(map(id, literal(items)))
    assert random.getstate() == state
    assert data.generate_fewshot_dataset(train, num_shots=-1) is train


@pytest.mark.parametrize(
    "is_train, batch_size, sizes",
    [(True, 7, [7, 7, 7]), (True, 25, [24]), (False, 7, [7, 7, 7, 3])],
)
def test_training_drops_an_incomplete_batch_if_there_is_a_whole_one(
    make_cfg, source, is_train, batch_size, sizes
):
    options = {"batch_size": batch_size, "tfm": T.ToTensor(), "is_train": is_train}
    batches = list(build_data_loader(make_cfg(), data_source=source, **options))
    assert [len(batch["img"]) for batch in batches] == sizes
    labels = torch.cat([batch["label"] for batch in batches]).tolist()
    assert labels == [one.label for one in source[: len(labels)]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_seed_gives_the_images_that_torchs_own_loader_gives(make_cfg, source, workers):
    flips = {"INPUT__TRANSFORMS": ("random_resized_crop", "random_flip")}
    cfg = make_cfg(DATALOADER__NUM_WORKERS=workers, **flips)
    tfm = build_transform(cfg)
    set_random_seed(0)
    ours = list(build_data_loader(cfg, "RandomSampler", source, 7, tfm=tfm))

    class Plain(list):
        def __getitem__(self, i):
            return i, tfm(Image.open(source[i].impath).convert("RGB"))

    set_random_seed(0)
    settings = {"sampler": RandomSampler(source), "drop_last": True, "num_workers": workers}
    plain = DataLoader(Plain(source), 7, **settings)
    for batch, (index, img) in zip(ours, plain, strict=True):
        assert torch.equal(batch["index"], index)
        assert torch.equal(batch["img"], img)


def test_an_item_has_an_image_for_each_transform_or_view(make_cfg, source):
    small, large = (T.Compose([T.Resize((s, s)), T.ToTensor()]) for s in (2, 3))
    one = DatasetWrapper(make_cfg(), source, transform=[small, large])[0]
    assert [one[key].shape[-1] for key in ("img", "img2")] == [2, 3]
    cfg, tfm = make_cfg(DATALOADER__K_TRANSFORMS=3), T.RandomResizedCrop(8)
    torch.manual_seed(3)
    views = DatasetWrapper(cfg, source, transform=tfm, is_train=True)[1]["img"]
    torch.manual_seed(3)
    image = Image.open(source[1].impath).convert("RGB")
    assert views == [tfm(image) for _ in range(3)]


def test_the_unaugmented_image_comes_on_request(make_cfg, source):
    cfg = make_cfg(DATALOADER__RETURN_IMG0=True)
    one = DatasetWrapper(cfg, source, transform=T.ToTensor(), is_train=True)[0]
    image = Image.open(source[0].impath).convert("RGB").resize((8, 8), Image.BILINEAR)
    assert torch.allclose(one["img0"], T.ToTensor()(image))


def test_a_data_manager_has_loaders_and_prints_a_table(make_cfg, capsys):
    manager = DataManager(make_cfg(DATASET__NUM_SHOTS=2, DATALOADER__TEST__BATCH_SIZE=4))
    lines = re.findall(r"^[^+-].*", capsys.readouterr().out, re.MULTILINE)
    table = [
        "Dataset    LiteBlobs",
        "# classes  3",
        "# train_x  6",
        "# val      8",
        "# test     15",
    ]
    assert lines[-5:] == table
    assert manager.lab2cname == {0: "red_dot", 1: "green_dot", 2: "blue_dot"}
    for loader, count in ((manager.val_loader, 8), (manager.test_loader, 15)):
        indices = torch.cat([batch["index"] for batch in loader]).tolist()
        assert indices == list(range(count))  # neither cut nor shuffled
