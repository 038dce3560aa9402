"""The data pipeline against Dassl's own: the same images, whatever is kept and wherever they are
decoded."""

import random
import subprocess
import sys
from multiprocessing import active_children
from types import SimpleNamespace

import numpy
import pytest
import torch
import torchvision.transforms as T
from dassl.data import DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.utils import set_random_seed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from yacs.config import CfgNode

from tests.conftest import slow_but_for
from tests.runs import PATIENCE, REPOSITORY
from tests.same_run import assert_equal, assert_same_run
from trainers.common.environment import OWN_CORES
from trainers.data import kept
from trainers.data import loader as data


def batches(trainer, wrapper, epochs=2):
    """All training batches of some epochs, out of a loader of its own."""
    set_random_seed(5)
    views = trainer.loaders.views
    loader = build_data_loader(
        trainer.cfg,
        sampler_type="RandomSampler",
        data_source=trainer.dm.dataset.train_x,
        batch_size=8,
        tfm=views,
        is_train=True,
        dataset_wrapper=wrapper,
    )
    return [batch for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_batches_are_dassls_to_the_bit(run, monkeypatch, workers):
    """Whatever room there is for decoded images."""
    trainer, _, _ = run("CDC", "DATALOADER.NUM_WORKERS", workers, flags=("--no-train",))
    theirs, names = batches(trainer, DatasetWrapper), ("img", "img2", "img3", "img4")
    for room in (2**30, 10 * 4 * 40 * 40, 0):
        monkeypatch.setattr(kept, "DECODED_BYTES", room)
        ours = batches(trainer, data.CheckedImages)
        assert len(ours) == len(theirs) == 6
        for mine, other in zip(ours, theirs):
            mine.update(zip(names, mine["img"]))
            assert mine.keys() >= {*names, "label"}
            assert_equal(mine, other, "batch")


# ---- as many steps as a training needs ----


@given(
    images=st.integers(1, 300),
    batch_size=st.integers(1, 64),
    epochs=st.integers(1, 50),
    least=st.integers(1, 500),
    seed=st.integers(0, 3),
)
def test_each_epoch_has_all_images_once_in_even_batches_and_steps_are_enough(
    images, batch_size, epochs, least, seed
):
    optim = CfgNode({"LEAST_STEPS": least, "MAX_EPOCH": epochs})
    steps = data.steps_of_epoch(images, optim, batch_size)
    order = random.Random(seed).sample(range(images), images)
    epoch = [[drawn.image for drawn in batch] for batch in data.EvenBatches(order, steps)]
    assert sum(epoch, []) == order
    assert len(epoch) == steps
    sizes = {*map(len, epoch)}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size
    assert epochs * steps >= least or steps == images
    # and no more than that takes
    assert steps == 1 or images / (steps - 1) > batch_size or epochs * (steps - 1) < least


def test_on_ones_own_pictures_none_sits_out_an_epoch(run):
    """24 images in batches of eight would be three steps an epoch; 21 steps in three epochs are asked for."""
    trainer, _, _ = run("CoOp", "OPTIM.LEAST_STEPS", "21", flags=("--no-train",))
    everything = sorted(item.impath for item in trainer.dm.dataset.train_x)
    for _ in range(2):
        epoch = [batch["impath"] for batch in trainer.train_loader_x]
        assert sorted(sum(epoch, [])) == everything
        assert [*map(len, epoch)] == [4] * 3 + [3] * 4


@slow_but_for(("CoOp",), ("CoOp", "CDC", "TipAdapterF"), "trainer")
def test_on_ones_own_pictures_workers_change_no_number(run, trainer):
    """Views follow from seed, epoch and image, whichever process makes them."""
    folders = []
    for workers in (0, 1, 2):
        views = ("INPUT.TRANSFORMS", "('random_resized_crop', 'randaugment', 'normalize')")
        options = ("OPTIM.LEAST_STEPS", "9", "DATALOADER.NUM_WORKERS", str(workers), *views)
        _, _, folder = run(trainer, *options, name=f"{workers}")
        folders.append(folder)
    for other in folders[1:]:
        assert_same_run(folders[0], other)


def test_workers_end_with_the_training(run):
    """A notebook keeps its run."""
    before = {child.pid for child in active_children()}
    trainer, _, _ = run("CoOp", "DATALOADER.NUM_WORKERS", "1")
    assert trainer.train_loader_x.num_workers == 1
    assert {child.pid for child in active_children()} <= before


KEPT = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from trainers.data.loader import prepare_workers

loader = DataLoader(TensorDataset(torch.zeros(2, 1)), num_workers=1, persistent_workers=True)
prepare_workers(loader)
for batch in loader:
    raise ValueError("broken")
"""


@pytest.mark.slow
def test_a_process_ends_although_an_error_keeps_a_worker():
    """The traceback of the error keeps the epoch."""
    done = subprocess.run(
        [sys.executable, "-c", KEPT],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stderr.endswith("ValueError: broken\n")


def test_workers_of_short_epochs_stay_and_are_no_more_than_a_runs_cores(run, monkeypatch):
    """One of eight runs on 16 cores has two."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(16)}, raising=False)
    monkeypatch.setenv(OWN_CORES, str(16 // 8))
    for least in ("0", "21"):
        options = "OPTIM.LEAST_STEPS", least, "DATALOADER.NUM_WORKERS", "8"
        trainer, _, _ = run("CoOp", *options, flags=("--no-train",))
        loader = trainer.train_loader_x
        assert loader.num_workers == trainer.test_loader.num_workers == 2
        epochs = []
        for _ in range(3):
            first, *_ = [batch["img"] for batch in loader]
            epochs.append((loader._iterator, first))
        (iterator, first), *others = epochs
        for same, other in others:
            assert same is iterator
            assert not torch.equal(other[0], first[0])


class ByAll:
    """A view that draws from each of the generators that torch starts in a worker."""

    def __call__(self, image):
        drawn = [random.random(), numpy.random.random(), torch.rand(1).item()]
        return torch.tensor(drawn, dtype=torch.float64)


@pytest.mark.parametrize("cores", [1, 3])
def test_on_any_number_of_cores_workers_draw_dassls_views(run, monkeypatch, cores):
    """In each epoch, and what is drawn afterwards is the same, too. Three cores have two processes for four
    workers' batches."""
    trainer, _, _ = run("CoOp", "DATALOADER.NUM_WORKERS", "4", flags=("--no-train",))
    images = data.CheckedImages(trainer.cfg, trainer.dm.dataset.train_x, ByAll(), is_train=True)

    def drawn(loader):
        set_random_seed(5)
        epochs = [(batch["index"], batch["img"]) for _ in range(2) for batch in loader]
        return epochs, torch.rand(1), loader.num_workers

    def dassls(workers):
        return torch.utils.data.DataLoader(images, batch_size=4, shuffle=True, num_workers=workers)

    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(4)}, raising=False)
    theirs, after, _ = drawn(dassls(4))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(cores)}, raising=False)
    ours, later, processes = drawn(data.for_any_machine(dassls(cores), trainer.cfg.OPTIM, 4))
    assert processes == {1: 1, 3: 2}[cores]
    assert len({*torch.stack([img for _, img in ours]).flatten().tolist()}) == 2 * 24 * 3
    assert_equal(ours, theirs, "epochs")
    assert torch.equal(later, after)


# ---- the blur of views ----


@pytest.mark.parametrize("size, length", [((64, 48), 21), ((33, 40), 5)])
def test_a_blurred_picture_is_torchvisions_pixel_for_pixel(size, length, tmp_path):
    """Of pictures that are smooth, as photographs are, of noise, and of black and white."""
    generator, blur = numpy.random.default_rng(0), T.GaussianBlur(length)
    pictures, items = [], []
    for shape in [(6, 8, 3), (*size[::-1], 3)] * 4:
        noise = Image.fromarray(generator.integers(0, 256, shape, dtype="uint8"))
        picture = noise.resize(size, Image.Resampling.BICUBIC)
        pictures += [picture, picture.point(lambda value: 255 * (value > 200))]
    for number, picture in enumerate(pictures):
        items.append(SimpleNamespace(impath=f"{tmp_path}/{number}.png", label=0))
        picture.save(items[-1].impath)
    torch.manual_seed(3)
    expected = [numpy.asarray(blur(picture)) for picture in pictures]
    torch.manual_seed(3)
    images = data.CheckedImages(
        CfgNode({"INPUT": {"BACKGROUND": "", "DECODED_AT": 0, "SIZE": (64, 64)}}), items, blur
    )
    for number, picture in enumerate(expected):
        assert numpy.array_equal(images[number]["img"], picture)
