"""The data pipeline against Dassl's own: the same images, whatever is kept and wherever they are decoded."""

from collections import Counter

import numpy
import pytest
import torch
import torchvision.transforms as T
from dassl.data import DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import transforms
from dassl.utils import set_random_seed
from PIL import Image
from torchvision.transforms import RandomErasing

from trainers.data import loader as data
from trainers.data import loader as views


def batches(trainer, wrapper, epochs=2):
    """All training batches of some epochs, out of a loader of its own."""
    set_random_seed(5)
    views = trainer.views
    loader = build_data_loader(
        trainer.cfg,
        sampler_type="RandomSampler",
        data_source=trainer.dm.dataset.train_x,
        batch_size=8,
        tfm=views if wrapper is data.CheckedImages else views.transforms,
        is_train=True,
        dataset_wrapper=wrapper,
    )
    return [batch for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("workers, more", [("0", False), ("2", False), ("2", True)])
def test_batches_are_dassls_to_the_bit(run, monkeypatch, workers, more):
    """Whatever room there is for decoded images, and also after a transform of tensors, with which they travel as floats."""
    steps = transforms._train_steps
    if more:
        monkeypatch.setattr(
            transforms,
            "_train_steps",
            lambda *settings: [*steps(*settings), ("erasing", RandomErasing(p=0.5))],
        )
    trainer, _, _ = run(
        "CDC",
        "DATALOADER.NUM_WORKERS",
        workers,
        "DATALOADER.RETURN_IMG0",
        "True",
        flags=("--no-train",),
    )
    theirs = batches(trainer, DatasetWrapper)
    for room in (2**30, 10 * 4 * 40 * 40, 0):
        monkeypatch.setattr(data, "DECODED_BYTES", room)
        ours = batches(trainer, data.CheckedImages)
        assert len(ours) == len(theirs) == 6
        for mine, other in zip(ours, theirs):
            assert all(
                view.dtype == (torch.float32 if more else torch.uint8) for view in mine["img"]
            )
            images, _ = trainer.parse_batch_train(mine)
            mine.update(zip(("img", "img2", "img3", "img4"), images))
            assert mine.keys() == other.keys() >= {"img", "img2", "img3", "img4", "img0", "label"}
            for key, value in mine.items():
                assert (
                    torch.equal(value, other[key])
                    if torch.is_tensor(value)
                    else value == other[key]
                ), key


@pytest.mark.parametrize("room, kept", [(2**30, 24), (10 * 4 * 40 * 40 + 1, 10)])
def test_training_images_are_decoded_once_a_run_as_far_as_there_is_room(
    run, monkeypatch, room, kept
):
    monkeypatch.setattr(data, "DECODED_BYTES", room)
    paths, read = [], data.read_picture

    def watched(path, background):
        paths.append(path)
        return read(path, background)

    trainer, _, _ = run("CoOp", flags=("--no-train",))
    monkeypatch.setattr(data, "read_picture", watched)
    trainer.train()
    training = {item.impath for item in trainer.dm.dataset.train_x}
    shown = Counter(path for path in paths if path in training)
    assert sorted(shown.values()) == [1] * kept + [3] * (24 - kept)  # three epochs
    assert len(trainer.train_loader_x.dataset.decoded) == kept
    assert not trainer.test_loader.dataset.decoded and not trainer.val_loader.dataset.decoded


# ---- the blur of views ----


def pictures(count, size=(50, 40)):
    """Smooth random RGB images: like photographs, and unlike noise, neighbouring pixels are alike."""
    generator = numpy.random.default_rng(0)
    return [
        Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype="uint8")).resize(
            size, Image.Resampling.BICUBIC
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("size, length", [((64, 48), 21), ((33, 40), 5)])
def test_a_blurred_picture_is_torchvisions_pixel_for_pixel_and_needs_no_number_next_to_zero(
    size, length, monkeypatch
):
    generator = numpy.random.default_rng(0)
    smooth = pictures(20, size)
    noise = [
        Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), dtype="uint8"))
        for _ in range(20)
    ]
    black_and_white = [image.point(lambda value: 255 * (value > 200)) for image in smooth]
    kernels, convolve = [], views.F.conv2d

    def watched(pixels, kernel, **settings):
        kernels.append(kernel)
        return convolve(pixels, kernel, **settings)

    results = []
    for blur in (T.GaussianBlur(length), views.GaussianBlur(length)):
        torch.manual_seed(3)
        results.append([numpy.asarray(blur(image)) for image in smooth + noise + black_and_white])
        monkeypatch.setattr(views.F, "conv2d", watched)
    assert all((ours == theirs).all() for theirs, ours in zip(*results))
    assert len(kernels) == 60 and not any(
        ((kernel > 0) & (kernel < torch.finfo(torch.float32).tiny)).any() for kernel in kernels
    )
    assert any((kernel == 0).any() for kernel in kernels)
