"""Transforms: one order, the lines they print, and the draws they make."""

import random

import numpy as np
import pytest
import torch
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.data.transforms.randaugment import OPERATIONS, RandAugment
from PIL import Image

PIXELS = np.random.RandomState(0).randint(0, 255, (30, 40, 3)).astype(np.uint8)
IMAGE = Image.fromarray(PIXELS)
# choice: class and line, in the order of application; without a choice it is always applied
STEPS = {
    "random_crop": ("RandomCrop", "random crop (padding = 4)"),
    "random_resized_crop": (
        "RandomResizedCrop",
        "random resized crop (size=(8, 8), scale=(0.08, 1.0))",
    ),
    "random_flip": ("RandomHorizontalFlip", "random flip"),
    "randaugment": ("RandAugment", "randaugment (n=2, m=10)"),
    "": ("ToTensor", "to torch tensor of range [0, 1]"),
    "normalize": (
        "Normalize",
        "normalization (mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])",
    ),
}


@pytest.mark.parametrize("choices", [[], ["random_flip"], [*STEPS][::-1]])
def test_choices_are_applied_and_printed_in_one_order(make_cfg, capsys, choices):
    cfg = make_cfg(INPUT__TRANSFORMS=[name for name in choices if name])
    tfm = build_transform(cfg)
    steps = [step for name, step in STEPS.items() if name in choices or not name]
    if not {"random_crop", "random_resized_crop"} & set(choices):
        steps.insert(0, ("Resize", "resize to 8x8"))
    assert [type(part).__name__ for part in tfm.transforms] == [name for name, _ in steps]
    lines = ["Building transform_train", *(f"+ {line}" for _, line in steps)]
    assert capsys.readouterr().out.splitlines() == lines
    assert tfm(IMAGE).shape == (3, 8, 8)


def test_testing_resizes_the_shorter_edge_and_crops_the_centre(make_cfg, capsys):
    choices = ["random_resized_crop", "center_crop"]  # neither changes it
    tfm = build_transform(make_cfg(INPUT__INTERPOLATION="bicubic"), is_train=False, choices=choices)
    assert capsys.readouterr().out.splitlines() == [
        "Building transform_test",
        "+ resize the smaller edge to 8",
        "+ 8x8 center crop",
        "+ to torch tensor of range [0, 1]",
    ]
    assert tfm.transforms[0].interpolation == INTERPOLATION_MODES["bicubic"]
    resized = np.asarray(IMAGE.resize((10, 8), Image.BICUBIC))  # 40 x 30 -> shorter edge 8
    expected = torch.from_numpy(resized[:, 1:9].copy()).permute(2, 0, 1) / 255
    assert torch.equal(tfm(IMAGE), expected)


def test_no_transform_and_unknown_ones(make_cfg):
    assert build_transform(make_cfg(INPUT__NO_TRANSFORM=True)) is None
    with pytest.raises(ValueError, match="INPUT.TRANSFORMS: .*random_flip.*got .cutout"):
        build_transform(make_cfg(INPUT__TRANSFORMS=["cutout"]))


MOVED = np.zeros_like(PIXELS)
MOVED[:, 10:] = PIXELS[:, :-10]  # a coin above a half: to the right, black follows
BRIGHTER = (PIXELS.astype(int) + 110).clip(0, 255)


@pytest.mark.parametrize(
    "operation, m, expected",
    [
        (2, 10, 255 - PIXELS),
        (4, 15, PIXELS & 0b11111100),
        (5, 15, np.where(PIXELS < 128, PIXELS, 255 - PIXELS)),
        (6, 30, np.where(BRIGHTER < 128, BRIGHTER, 255 - BRIGHTER)),
        (14, 3, MOVED),
        (15, 3, MOVED),
    ],
)
def test_randaugment_is_arithmetic_on_pixels_at_a_strength_of_30(
    monkeypatch, operation, m, expected
):
    monkeypatch.setattr(random, "choices", lambda operations, k: [operations[operation]] * k)
    monkeypatch.setattr(random, "random", lambda: 0.9)
    image = IMAGE
    if operation == 15:  # down is right of the transposed picture
        image, expected = Image.fromarray(PIXELS.transpose(1, 0, 2)), expected.transpose(1, 0, 2)
    assert np.array_equal(RandAugment(1, m)(image), expected)


def test_randaugment_cuts_a_grey_rectangle_out():
    cut = np.asarray(OPERATIONS[13][0](IMAGE, 10))
    grey = (cut == (125, 123, 114)).all(axis=2)
    assert 25 <= grey.sum() <= 121
    assert np.array_equal(cut[~grey], PIXELS[~grey])
