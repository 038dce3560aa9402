"""Transforms: one order, the lines they print, and the draws they make."""

import random

import numpy as np
import pytest
import torch
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.data.transforms.randaugment import OPERATIONS, RandAugment
from dassl.data.transforms.transforms import AVAI_CHOICES
from PIL import Image

PIXELS = np.random.RandomState(0).randint(0, 255, (30, 40, 3)).astype(np.uint8)
IMAGE = Image.fromarray(PIXELS)
STATS = "(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])"

STEPS = [  # (choice, class, line) in the order of application
    ("random_crop", "RandomCrop", "+ random crop (padding = 4)"),
    (
        "random_resized_crop",
        "RandomResizedCrop",
        "+ random resized crop (size=(8, 8), scale=(0.08, 1.0))",
    ),
    ("random_flip", "RandomHorizontalFlip", "+ random flip"),
    ("randaugment", "RandAugment", "+ randaugment (n=2, m=10)"),
    (
        "colorjitter",
        "ColorJitter",
        "+ color jitter (brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)",
    ),
    ("randomgrayscale", "RandomGrayscale", "+ random gray scale"),
    ("gaussian_blur", "RandomApply", "+ gaussian blur (kernel=3)"),
    (None, "ToTensor", "+ to torch tensor of range [0, 1]"),
    ("normalize", "Normalize", f"+ normalization {STATS}"),
]


def names(tfm):
    return [type(t).__name__ for t in tfm.transforms]


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_choices_does_not_matter(make_cfg, capsys, seed):
    choices = [choice for choice, *_ in STEPS if choice]
    random.Random(seed).shuffle(choices)
    tfm = build_transform(
        make_cfg(INPUT__TRANSFORMS=choices, INPUT__GB_K=3)
    )  # 21 is too large for 8 x 8
    assert names(tfm) == [name for _, name, _ in STEPS]
    assert capsys.readouterr().out.splitlines() == [
        "Building transform_train",
        *(line for *_, line in STEPS),
    ]
    assert tfm(IMAGE).shape == (3, 8, 8)


@pytest.mark.parametrize("step", [s for s in STEPS if s[0]])
def test_each_choice_brings_its_step_alone(make_cfg, capsys, step):
    choice, name, line = step
    tfm = build_transform(make_cfg(INPUT__GB_K=3), choices=[choice])
    resize = [] if choice in ("random_crop", "random_resized_crop") else ["Resize"]
    assert set(names(tfm)) == {*resize, name, "ToTensor"}
    lines = capsys.readouterr().out.splitlines()
    assert line in lines and ("+ resize to 8x8" in lines) == bool(resize)


def test_coops_transforms(make_cfg, capsys):
    cfg = make_cfg(
        INPUT__SIZE=(224, 224),
        INPUT__INTERPOLATION="bicubic",
        INPUT__TRANSFORMS=["random_resized_crop", "random_flip", "normalize"],
    )
    train, test = build_transform(cfg), build_transform(cfg, is_train=False)
    assert capsys.readouterr().out.splitlines() == [
        "Building transform_train",
        "+ random resized crop (size=(224, 224), scale=(0.08, 1.0))",
        "+ random flip",
        "+ to torch tensor of range [0, 1]",
        f"+ normalization {STATS}",
        "Building transform_test",
        "+ resize the smaller edge to 224",
        "+ 224x224 center crop",
        "+ to torch tensor of range [0, 1]",
        f"+ normalization {STATS}",
    ]
    assert (
        train.transforms[0].interpolation
        == test.transforms[0].interpolation
        == INTERPOLATION_MODES["bicubic"]
    )
    assert test(IMAGE).shape == train(IMAGE).shape == (3, 224, 224)


def test_testing_resizes_the_shorter_edge_and_crops_the_centre(make_cfg, quiet):
    with quiet():
        tfm = build_transform(make_cfg(), is_train=False)
    resized = np.asarray(IMAGE.resize((10, 8), Image.BILINEAR))  # 40 x 30 -> shorter edge 8
    expected = torch.from_numpy(resized[:, 1:9].copy()).permute(2, 0, 1) / 255
    assert torch.equal(tfm(IMAGE), expected)


def test_center_crop_changes_nothing(make_cfg, quiet):
    with quiet():
        tfm = build_transform(make_cfg(), is_train=False, choices=["center_crop", "random_flip"])
    assert names(tfm) == ["Resize", "CenterCrop", "ToTensor"]
    assert "center_crop" in AVAI_CHOICES


def test_no_transform(make_cfg, capsys):
    assert build_transform(make_cfg(INPUT__NO_TRANSFORM=True)) is None
    assert capsys.readouterr().out == "Note: no transform is applied!\n"


def test_unknown_choices_are_named(make_cfg):
    with pytest.raises(
        AssertionError,
        match=r"INPUT.TRANSFORMS: random_flop is unknown \(do you mean random_flip\?\)",
    ):
        build_transform(make_cfg(INPUT__TRANSFORMS=["random_flop"]))
    for choice in ("randaugment2", "imagenet_policy", "cutout"):
        with pytest.raises(AssertionError, match=f"{choice} is not part of dassl-lite"):
            build_transform(make_cfg(INPUT__TRANSFORMS=[choice]))
    with pytest.raises(
        ValueError, match=r"INPUT.INTERPOLATION: .* got \[cubic\] \(do you mean \[bicubic\]\?\)"
    ):
        build_transform(make_cfg(INPUT__INTERPOLATION="cubic"))


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
    ],
)
def test_randaugment_is_arithmetic_on_pixels_at_a_strength_of_30(
    monkeypatch, operation, m, expected
):
    monkeypatch.setattr(random, "choices", lambda operations, k: [operations[operation]] * k)
    monkeypatch.setattr(random, "random", lambda: 0.9)
    assert np.array_equal(RandAugment(1, m)(IMAGE), expected)


def test_randaugment_draws_operations_and_cuts_a_grey_rectangle_out(make_cfg):
    tfm = build_transform(make_cfg(INPUT__TRANSFORMS=["randaugment"], INPUT__RANDAUGMENT_M=20))
    assert names(tfm) == ["Resize", "RandAugment", "ToTensor"] and (
        tfm.transforms[1].n,
        tfm.transforms[1].m,
    ) == (2, 20)
    random.seed(0)
    assert len({tfm.transforms[1](IMAGE).tobytes() for _ in range(30)}) > 15
    cut = np.asarray(OPERATIONS[13][0](IMAGE, 10))
    grey = (cut == (125, 123, 114)).all(axis=2)
    assert 25 <= grey.sum() <= 121 and np.array_equal(cut[~grey], np.asarray(IMAGE)[~grey])
    with pytest.raises(ValueError, match="RANDAUGMENT_M is 31"):
        RandAugment(2, 31)
