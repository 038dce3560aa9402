"""The blur of views against torchvision's own."""

import numpy
import pytest
import torch
import torchvision.transforms as T
from PIL import Image

from trainers.data import loader as views


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
