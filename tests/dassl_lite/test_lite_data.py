"""Data sets, samplers and loaders: the same draws as a literal loop makes."""

import pickle
import random
from types import SimpleNamespace

import pytest
import torch
import torchvision.transforms as T
from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import build_transform
from dassl.utils import set_random_seed
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler


def item(label, domain=0, name="c"):
    """A Datum without a file."""
    return SimpleNamespace(label=label, domain=domain, classname=f"{name}{label}", impath="")


# Datum


def test_a_datum_is_what_was_given(image_root):
    path = f"{image_root}/train_0_0.png"
    datum = Datum(path, 3, 1, "cat")
    assert (datum.impath, datum.label, datum.domain, datum.classname) == (path, 3, 1, "cat")
    with pytest.raises(AttributeError):
        datum.label = 4
    assert datum.__dict__ == {"_impath": path, "_label": 3, "_domain": 1, "_classname": "cat"}


def test_a_datum_needs_a_file():
    with (
        pytest.warns(UserWarning, match='No file found at "nowhere.png"'),
        pytest.raises(AssertionError, match="nowhere.png"),
    ):
        Datum("nowhere.png")
    with pytest.warns(UserWarning), pytest.raises(AssertionError):
        Datum()
    with pytest.raises(AssertionError, match="must be a str, got int"):
        Datum(3)


def test_a_datum_survives_pickling_even_when_its_file_is_gone(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"")
    data = pickle.dumps({"train": [Datum(str(path), 1, 0, "a")]}, protocol=pickle.HIGHEST_PROTOCOL)
    path.unlink()
    assert b"dassl.data.datasets.base_dataset" in data
    assert pickle.loads(data)["train"][0].classname == "a"


# DatasetBase


def test_lists_are_kept_and_classes_counted():
    train = [item(2), item(0), item(1), item(0)]
    val, test = [item(0)], [item(1)]
    data = DatasetBase(train_x=train, val=val, test=test)
    assert data.train_x is train and data.val is val and data.test is test and data.train_u is None
    assert data.num_classes == 3
    assert data.lab2cname == {0: "c0", 1: "c1", 2: "c2"} and data.classnames == ["c0", "c1", "c2"]


def test_empty_or_missing_training_data_is_refused():
    with pytest.raises(ValueError, match="no images"):
        DatasetBase(train_x=[])
    with pytest.raises(TypeError):
        DatasetBase(train_x=None)


def test_two_names_for_one_label_are_refused():
    with pytest.raises(ValueError, match='Label 0 has two class names, "a0" and "b0"'):
        DatasetBase(train_x=[item(0, name="a"), item(0, name="b")])


def test_splitting_keeps_the_order_of_first_appearance():
    data = DatasetBase(train_x=[item(1, 5), item(0, 4), item(1, 4)])
    by_label = data.split_dataset_by_label(data.train_x)
    assert list(by_label) == [1, 0] and by_label[1] == [data.train_x[0], data.train_x[2]]
    assert by_label[99] == []


# Few shots


def shuffled_items():
    labels = [0] * 9 + [1] * 2 + [2] * 4 + [3] * 6
    random.Random(7).shuffle(labels)
    return [item(label) for label in labels]


def literal_few_shot(items, n, repeat):
    order = []
    for x in items:
        if x.label not in order:
            order.append(x.label)
    out = []
    for label in order:
        of_class = [x for x in items if x.label == label]
        if len(of_class) >= n:
            out += random.sample(of_class, n)
        elif repeat:
            out += random.choices(of_class, k=n)
        else:
            out += of_class
    return out


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_few_shots_are_the_literal_loops_draws(n, repeat, capsys):
    train, val = shuffled_items(), shuffled_items()
    data = DatasetBase(train_x=train)
    random.seed(11)
    got = data.generate_fewshot_dataset(train, val, num_shots=n, repeat=repeat)
    state = random.getstate()
    random.seed(11)
    expected = [literal_few_shot(train, n, repeat), literal_few_shot(val, n, repeat)]
    assert random.getstate() == state  # nothing more, nothing less was drawn
    assert [[id(x) for x in split] for split in got] == [
        [id(x) for x in split] for split in expected
    ]
    assert capsys.readouterr().out == f"Creating a {n}-shot dataset\n"


def test_one_source_gives_one_list():
    train = shuffled_items()
    data = DatasetBase(train_x=train)
    random.seed(2)
    got = data.generate_fewshot_dataset(train, num_shots=1)
    random.seed(2)
    assert got == literal_few_shot(train, 1, False)


def test_no_shots_means_everything_and_draws_nothing(capsys):
    a, b = [item(0)], [item(1)]
    data = DatasetBase(train_x=a)
    state = random.getstate()
    assert data.generate_fewshot_dataset(a, num_shots=-1) is a
    assert data.generate_fewshot_dataset(a, b, num_shots=0) == (a, b)
    assert random.getstate() == state and capsys.readouterr().out == ""


def test_the_data_set_is_built_by_name(make_cfg, capsys):
    assert type(build_dataset(make_cfg())).__name__ == "LiteBlobs"
    assert capsys.readouterr().out == "Loading dataset: LiteBlobs\n"
    with pytest.raises(ValueError, match=r"got \[LiteBlob\] \(do you mean \[LiteBlobs\]\?\)"):
        build_dataset(make_cfg(DATASET__NAME="LiteBlob"))


# Samplers


def test_samplers_are_torchs():
    items = [item(0)] * 22
    assert type(build_sampler("RandomSampler", data_source=items)) is RandomSampler
    assert list(build_sampler("SequentialSampler", None, items, batch_size=4, n_ins=2)) == list(
        range(22)
    )
    with pytest.raises(ValueError, match="Unknown sampler type: RandomDomainSampler"):
        build_sampler("RandomDomainSampler", data_source=items)


# Loaders


def data(cfg, quiet):
    with quiet():
        return build_dataset(cfg)


@pytest.mark.parametrize(
    "is_train, batch_size, sizes",
    [
        (True, 7, [7, 7, 7]),
        (True, 24, [24]),
        (True, 25, [24]),
        (False, 7, [7, 7, 7, 3]),
        (False, 25, [24]),
    ],
)
def test_training_drops_an_incomplete_batch_if_there_is_a_whole_one(
    make_cfg, quiet, is_train, batch_size, sizes
):
    cfg = make_cfg()
    source = data(cfg, quiet).train_x
    tfm = T.Compose([T.Resize((4, 4)), T.ToTensor()])
    loader = build_data_loader(
        cfg, data_source=source, batch_size=batch_size, tfm=tfm, is_train=is_train
    )
    assert (
        [len(batch["label"]) for batch in loader]
        == sizes
        == [len(batch["img"]) for batch in loader]
    )
    assert not loader.pin_memory and loader.num_workers == 0


def test_no_images_are_no_loader(make_cfg):
    for source in ([], None):
        with pytest.raises(AssertionError, match="There are no images to test on"):
            build_data_loader(make_cfg(), data_source=source, is_train=False)


def test_a_seed_gives_the_images_that_torchs_own_loader_gives(make_cfg, quiet):
    cfg = make_cfg(INPUT__TRANSFORMS=("random_resized_crop", "random_flip"))
    with quiet():
        tfm = build_transform(cfg)
        source = data(cfg, quiet).train_x
        set_random_seed(0)
        ours = list(build_data_loader(cfg, "RandomSampler", source, 7, tfm=tfm))

    class Plain(torch.utils.data.Dataset):
        def __len__(self):
            return len(source)

        def __getitem__(self, i):
            return i, tfm(Image.open(source[i].impath).convert("RGB"))

    set_random_seed(0)
    plain = list(DataLoader(Plain(), batch_size=7, sampler=RandomSampler(source), drop_last=True))
    assert len(ours) == len(plain) == 3
    for a, (index, img) in zip(ours, plain):
        assert torch.equal(a["index"], index) and torch.equal(a["img"], img)


def test_a_batch_holds_everything(make_cfg, quiet):
    cfg = make_cfg()
    source = data(cfg, quiet).train_x
    with quiet():
        loader = build_data_loader(
            cfg, data_source=source, batch_size=5, tfm=build_transform(cfg), is_train=True
        )
    batch = next(iter(loader))
    assert set(batch) == {"label", "domain", "impath", "index", "img"}
    assert batch["img"].shape == (5, 3, 8, 8) and batch["img"].dtype == torch.float32
    assert (
        batch["label"].tolist() == [x.label for x in source[:5]]
        and batch["label"].dtype == torch.int64
    )
    assert batch["domain"].tolist() == [x.domain for x in source[:5]]
    assert batch["index"].tolist() == [0, 1, 2, 3, 4]
    assert batch["impath"] == [x.impath for x in source[:5]]


def test_several_transforms_give_several_images(make_cfg, quiet):
    cfg = make_cfg()
    source = data(cfg, quiet).train_x
    small, large = (T.Compose([T.Resize((s, s)), T.ToTensor()]) for s in (2, 3))
    out = DatasetWrapper(cfg, source, transform=[small, large, small])[0]
    assert [out[k].shape[-1] for k in ("img", "img2", "img3")] == [2, 3, 2]
    assert "img1" not in out


def test_k_views_are_drawn_in_training_only(make_cfg, quiet):
    cfg = make_cfg(DATALOADER__K_TRANSFORMS=3)
    source = data(cfg, quiet).train_x
    tfm = T.Compose([T.RandomResizedCrop(8), T.ToTensor()])
    torch.manual_seed(3)
    views = DatasetWrapper(cfg, source, transform=tfm, is_train=True)[1]["img"]
    torch.manual_seed(3)
    expected = [tfm(Image.open(source[1].impath).convert("RGB")) for _ in range(3)]
    assert isinstance(views, list) and all(torch.equal(a, b) for a, b in zip(views, expected))
    assert torch.is_tensor(DatasetWrapper(cfg, source, transform=tfm, is_train=False)[1]["img"])
    with pytest.raises(
        ValueError, match="Cannot transform the image 3 times because transform is None"
    ):
        DatasetWrapper(cfg, source, is_train=True)
    with pytest.raises(ValueError, match="K_TRANSFORMS must be at least 1, got 0"):
        DatasetWrapper(make_cfg(DATALOADER__K_TRANSFORMS=0), source, transform=tfm, is_train=True)


def test_the_unaugmented_image_comes_on_request(make_cfg, quiet):
    cfg = make_cfg(
        DATALOADER__RETURN_IMG0=True,
        INPUT__TRANSFORMS=("random_flip", "normalize"),
        INPUT__INTERPOLATION="bicubic",
    )
    source = data(cfg, quiet).train_x
    out = DatasetWrapper(cfg, source, transform=T.ToTensor(), is_train=True)[0]
    image = Image.open(source[0].impath).convert("RGB").resize((8, 8), Image.BICUBIC)
    expected = T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)(T.ToTensor()(image))
    assert torch.allclose(out["img0"], expected)
    assert out["img"].shape == (3, 10, 12)


def test_without_transform_the_image_stays_an_image(make_cfg, quiet):
    cfg = make_cfg()
    out = DatasetWrapper(cfg, data(cfg, quiet).train_x)[0]
    assert isinstance(out["img"], Image.Image) and out["img"].size == (12, 10)


def test_a_wrapper_can_be_sent_to_worker_processes(make_cfg, quiet):
    cfg = make_cfg(INPUT__TRANSFORMS=("random_crop", "colorjitter"))
    with quiet():
        wrapper = DatasetWrapper(
            cfg, data(cfg, quiet).train_x, transform=build_transform(cfg), is_train=True
        )
    assert pickle.loads(pickle.dumps(wrapper))[0]["img"].shape == (3, 8, 8)


def test_workers_load_the_same_images(make_cfg, quiet):
    batches = []
    for workers in (0, 1):
        cfg = make_cfg(DATALOADER__NUM_WORKERS=workers)
        with quiet():
            loader = build_data_loader(
                cfg,
                data_source=data(cfg, quiet).test,
                batch_size=8,
                tfm=build_transform(cfg, False),
                is_train=False,
            )
        batches.append(torch.cat([batch["img"] for batch in loader]))
    assert torch.equal(*batches)


# DataManager


def test_a_data_manager_builds_in_order_and_prints_a_table(make_cfg, capsys):
    cfg = make_cfg(DATASET__SOURCE_DOMAINS=["a", "b"], DATASET__NUM_SHOTS=2)
    manager = DataManager(cfg)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("+")] == [
        "Loading dataset: LiteBlobs",
        "Creating a 2-shot dataset",
        "Building transform_train",
        "Building transform_test",
        "---------  ----------",
        "Dataset    LiteBlobs",
        "Source     ['a', 'b']",
        "# classes  3",
        "# train_x  6",
        "# val      8",
        "# test     15",
        "---------  ----------",
    ]
    assert (manager.num_classes, manager.num_source_domains) == (3, 2)
    assert manager.lab2cname == {0: "red_dot", 1: "green_dot", 2: "blue_dot"}
    assert len(manager.val_loader.dataset) == 8 and len(manager.test_loader.dataset) == 15


def test_validation_and_test_are_never_cut_or_shuffled(make_cfg, quiet):
    cfg = make_cfg(DATALOADER__TEST__BATCH_SIZE=4)
    with quiet():
        manager = DataManager(cfg)
    for loader, source in (
        (manager.val_loader, manager.dataset.val),
        (manager.test_loader, manager.dataset.test),
    ):
        assert torch.cat([batch["index"] for batch in loader]).tolist() == list(range(len(source)))


def test_custom_transforms_and_wrappers_take_their_place(make_cfg, capsys):
    class Wrapper(DatasetWrapper):
        pass

    tfm = T.Compose([T.Resize((2, 2)), T.ToTensor()])
    manager = DataManager(
        make_cfg(VERBOSE=False), custom_tfm_train=tfm, custom_tfm_test=tfm, dataset_wrapper=Wrapper
    )
    assert (
        capsys.readouterr().out
        == "* Using custom transform for training\n* Using custom transform for testing\n"
    )
    assert type(manager.test_loader.dataset) is Wrapper
    assert next(iter(manager.train_loader_x))["img"].shape[-2:] == (2, 2)
