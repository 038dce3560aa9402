"""The data pipeline against Dassl's own: the same images, whatever is kept and wherever they are
decoded."""

from collections import Counter

import numpy
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms._functional_tensor as tensors
from dassl.data import DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.utils import set_random_seed
from PIL import Image

from tests.same_run import assert_equal
from trainers.data import loader as data


def batches(trainer, wrapper, epochs=2):
    """All training batches of some epochs, out of a loader of its own."""
    set_random_seed(5)
    views = trainer.views
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
        monkeypatch.setattr(data, "DECODED_BYTES", room)
        ours = batches(trainer, data.CheckedImages)
        assert len(ours) == len(theirs) == 6
        for mine, other in zip(ours, theirs):
            mine.update(zip(names, trainer.parse_batch_train(mine)[0]))
            assert mine.keys() >= {*names, "label"}
            assert_equal(mine, other, "batch")


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


@pytest.mark.parametrize("size, length", [((64, 48), 21), ((33, 40), 5)])
def test_a_blurred_picture_is_torchvisions_pixel_for_pixel_and_needs_no_number_next_to_zero(
    size, length, monkeypatch
):
    """Of pictures that are smooth, as photographs are, of black and white ones, and of noise."""
    generator, pictures = numpy.random.default_rng(0), []
    for shape in [(6, 8, 3)] * 20 + [(*size[::-1], 3)] * 20:
        noise = Image.fromarray(generator.integers(0, 256, shape, dtype="uint8"))
        pictures.append(noise.resize(size, Image.Resampling.BICUBIC))
    pictures += [image.point(lambda value: 255 * (value > 200)) for image in pictures[:20]]
    kernels, convolve = [], tensors.conv2d

    def watched(pixels, kernel, **settings):
        kernels.append(kernel)
        return convolve(pixels, kernel, **settings)

    results = []
    for blur in (T.GaussianBlur(length), data.GaussianBlur(length)):
        torch.manual_seed(3)
        results.append([blur(image).tobytes() for image in pictures])
        monkeypatch.setattr(tensors, "conv2d", watched)
    assert results[0] == results[1] and len(kernels) == 60
    weights, tiny = torch.cat([*map(torch.ravel, kernels)]), torch.finfo(torch.float32).tiny
    assert not ((weights > 0) & (weights < tiny)).any() and (weights == 0).any()
