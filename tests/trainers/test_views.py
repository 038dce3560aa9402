"""The views of a training image, as tensors and as pictures, against torchvision's own transforms."""
import pickle

import numpy
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as reference
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import default_collate

from tests.trainers.test_every_trainer import weights
from trainers import batch_memory, tensor_steps, tensor_views, views
from trainers.batch_memory import ReusedMemory
from trainers.errors import UserError
from trainers.tensor_views import TensorViews, pixels
from trainers.views import template_views

ON_TENSORS = ("TRAINER.CDC.VIEWS_ON_TENSORS", "True")
CPU = torch.device("cpu")


def config(*transforms, size=32, **settings):
    cfg = get_cfg_default()
    cfg.INPUT.update(SIZE=(size, size), INTERPOLATION="bicubic", TRANSFORMS=list(transforms), GB_K=7, **settings)
    return cfg


def pictures(count, size=(50, 40)):
    """Smooth random RGB images: like photographs, and unlike noise, neighbouring pixels are alike."""
    generator = numpy.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype="uint8")).resize(size, Image.Resampling.BICUBIC)
            for _ in range(count)]


def on_tensors(transforms, images, seed):
    """Views (M, B, 3, H, W) on tensors from a state of torch's generator, and its state behind them."""
    torch.manual_seed(seed)
    made = TensorViews(transforms)
    return made.finish(default_collate([made(pixels(image)) for image in images]), CPU), torch.get_rng_state()


def both_ways(transforms, images, seed=1):
    """Views (M, B, 3, H, W) by the transforms themselves and on tensors, each from the same state of torch's generator."""
    torch.manual_seed(seed)
    by_pil = torch.stack([torch.stack([transform(image) for transform in transforms]) for image in images], dim=1)
    state = torch.get_rng_state()
    ours, ours_state = on_tensors(transforms, images, seed)
    assert torch.equal(ours_state, state), "as many draws, too"
    return by_pil, ours


@pytest.mark.parametrize("transforms, size", [(("random_resized_crop", "random_flip"), 32), (("random_flip", "center_crop"), 48)])
@pytest.mark.parametrize("augmentation", [1, 2])
def test_views_on_tensors_are_the_transforms_own_but_for_rounding(augmentation, transforms, size):
    """In steps of 1/255. Pillow keeps hue and saturation in 8 bits, hence jitter's wider tolerance; a rotated image's pixel that
    lies between two of the original's may be taken from either."""
    by_pil, ours = both_ways(template_views(config(*transforms, size=size), 5, augmentation), pictures(24))
    assert ours.dtype == torch.float32 and ours.shape == (5, 24, 3, size, size)
    plain, jittered, blurred, rotated, fifth = (by_pil - ours).abs() * 255
    assert max(plain.max(), blurred.max(), fifth.max()) < 2.01
    assert jittered.mean() < 2 and jittered.max() < 25
    assert (rotated > 2.01).float().mean() < 1e-3


@pytest.mark.parametrize("augmentation", [1, 2])
def test_without_randomness_they_equal_the_transforms_output(augmentation):
    cfg = config("normalize", CROP_PADDING=0, RGS_P=0.0, GB_P=0.0, COLORJITTER_B=0.0, COLORJITTER_C=0.0, COLORJITTER_S=0.0,
                 COLORJITTER_H=0.0)
    by_pil, ours = both_ways(template_views(cfg, 3, augmentation), pictures(8))
    step = 1 / 255 / min(cfg.INPUT.PIXEL_STD)
    assert (by_pil - ours).abs().max() < 1.01 * step, "resizing rounds a value up here and down there"
    assert torch.equal(ours[0], ours[1]) and torch.equal(ours[0], ours[2])


@pytest.mark.parametrize("operation, factors", [("brightness", (0.6, 1.4)), ("contrast", (0.6, 1.4)), ("saturation", (0.0, 1.8)),
                                                ("hue", (-0.5, 0.5))])
def test_each_image_is_adjusted_by_its_own_factor(operation, factors):
    images = torch.rand(12, 3, 9, 11) * 255
    images[0] = 128.0  # grey has no hue
    factors = torch.empty(12).uniform_(*factors)
    ours = images.clone()
    if operation == "hue":
        tensor_steps.hue(ours, factors[:, None, None, None])
    else:
        kind = ("brightness", "contrast", "saturation").index(operation)
        tensor_steps.scale(ours, torch.full((12,), kind), factors[:, None])
    for image, factor, result in zip(images, factors, ours):
        expected = getattr(reference, f"adjust_{operation}")(image / 255, factor.item()) * 255
        torch.testing.assert_close(result, expected, rtol=0, atol=0.1)  # torchvision weighs red by 0.2989, Pillow by 0.299


@pytest.mark.parametrize("size, length", [((64, 48), 21), ((33, 40), 5)])
def test_a_blurred_picture_is_torchvisions_pixel_for_pixel_and_needs_no_number_next_to_zero(size, length, monkeypatch):
    generator = numpy.random.default_rng(0)
    smooth = pictures(20, size)
    noise = [Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), dtype="uint8")) for _ in range(20)]
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
    assert len(kernels) == 60 and not any(((kernel > 0) & (kernel < torch.finfo(torch.float32).tiny)).any() for kernel in kernels)
    assert any((kernel == 0).any() for kernel in kernels)


@pytest.mark.parametrize("size, taps", [((13, 17), (7, 5)), ((65, 140), (21, 21)), ((70, 70), (21, 21)), ((128, 70), (9, 63))])
def test_each_image_is_blurred_by_its_own_deviation(size, taps):
    """Also where a row is blurred in several blocks, the last of which is shorter than the taps reach."""
    transform = T.RandomApply([T.GaussianBlur(taps)], 0.5)
    images, sigma = torch.rand(6, 3, *size) * 255, torch.tensor([0.0, 0.1, 0.7, 2.0, 0.0, 1.3])
    blurred = images.clone()
    tensor_steps.Blur(transform, size)(blurred, sigma[:, None])
    for image, deviation, result in zip(images, sigma.tolist(), blurred):
        expected = reference.gaussian_blur(image, list(taps), [deviation] * 2) if deviation else image
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-3)


def test_each_image_is_moved_by_its_own_map():
    """Also where height and width differ."""
    transform = T.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), interpolation=T.InterpolationMode.BILINEAR)
    images, step = torch.rand(6, 3, 20, 30), tensor_steps.Affine(transform, (20, 30))
    drawn = torch.tensor([step.draw() for _ in images])
    moved = images.clone()
    step(moved, drawn)
    for image, (angle, right, down, scale), result in zip(images, drawn.tolist(), moved):
        expected = reference.affine(image, angle, [int(right), int(down)], scale, [0.0], interpolation=T.InterpolationMode.BILINEAR)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("images_in_cache", [0.5, 2, 16])
def test_views_do_not_depend_on_how_many_images_are_changed_at_once(images_in_cache, monkeypatch):
    transforms, images = template_views(config("random_resized_crop", "random_flip", "normalize"), 4, 2), pictures(21)
    whole, _ = on_tensors(transforms, images, seed=5)
    for module in (batch_memory, tensor_steps):
        monkeypatch.setattr(module, "CACHE_BYTES", int(images_in_cache * whole[0, 0].nbytes))
    parted, _ = on_tensors(transforms, images, seed=5)
    torch.testing.assert_close(parted, whole, rtol=1e-5, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
       st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted), st.integers(0, 2 ** 32))
@example(20, 400, [0.9, 1.0], [0.75, 1.33], 0)  # no box fits: the middle
@example(400, 20, [0.9, 1.0], [0.75, 1.33], 0)
def test_boxes_are_torchvisions(height, width, scale, ratio, seed):
    transform = T.RandomResizedCrop(32, scale, ratio)
    image, ours = torch.empty(3, height, width), tensor_views.ResizedCrop(transform)
    torch.manual_seed(seed)
    expected = [transform.get_params(image, scale, ratio) for _ in range(5)]
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    assert [ours.draw(height, width) for _ in range(5)] == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_each_images_own_and_spread_as_asked_for():
    """Over 2000 images: how many are flipped, grey and blurred; mean and variance of uniform factors; every order of adjustments."""
    cfg = config("random_resized_crop", "random_flip", RGS_P=0.3, GB_P=0.6, COLORJITTER_B=0.4)
    made = TensorViews(template_views(cfg, 4, 1))
    torch.manual_seed(2)
    drawn = torch.tensor([made.draw(40, 50).numbers for _ in range(2000)])
    _, _, *jitter, _, grey, sigma, _, angle, right, down, scale = drawn.unbind(dim=1)  # each view's first number is its flip's
    order, factors = torch.stack(jitter[:4], dim=1), jitter[4:]
    for chosen, share in ((drawn[:, 0], 0.5), (grey, 0.3), (sigma > 0, 0.6)):
        assert chosen.float().mean().item() == pytest.approx(share, abs=0.04)
    for values, low, high in ((factors[0], 0.6, 1.4), (factors[3], -0.1, 0.1), (sigma[sigma > 0], 0.1, 2.0), (angle, -15, 15), (scale, 0.9, 1.1)):
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert values.var().item() == pytest.approx((high - low) ** 2 / 12, rel=0.1)
        assert low <= values.min() and values.max() <= high
    assert len(order.unique(dim=0)) == 24
    assert {right.abs().max().item(), down.abs().max().item()} == {3.0}  # a tenth of 32, in whole pixels


def test_half_of_the_images_are_flipped_in_each_view_on_its_own():
    cfg = config("center_crop", "random_flip", RGS_P=0.0, GB_P=0.0, COLORJITTER_B=0.0, COLORJITTER_C=0.0, COLORJITTER_S=0.0, COLORJITTER_H=0.0)
    views, _ = on_tensors(template_views(cfg, 3, 1), pictures(1) * 400, seed=2)  # (3, 400, 3, 32, 32)
    as_it_is, flipped = (views == views[0, 0]).all(dim=(2, 3, 4)), (views == views[0, 0].flip(-1)).all(dim=(2, 3, 4))
    assert (as_it_is ^ flipped).all()
    assert (flipped.float().mean(dim=1) - 0.5).abs().max() < 0.1
    assert len(flipped.unique(dim=1).T) == 8


def test_memory_is_lent_again_once_nothing_is_left_of_a_tensor_and_never_before():
    memory = ReusedMemory()
    first = memory.empty(torch.Size((2, 3, 4)), CPU)
    place, part = first.data_ptr(), first[1, 2]
    del first
    second = memory.empty(torch.Size((4, 3, 2)), CPU)
    assert second.data_ptr() != place, "a part of the first is still there"
    weight = torch.ones(4, 3, 2, requires_grad=True)
    loss, other = (weight * second.fill_(5)).sum(), second.data_ptr()
    del part, second
    third = memory.empty(torch.Size((24,)), CPU)
    assert third.data_ptr() == place and third.shape == (24,) and third.dtype == torch.float32
    assert memory.empty(torch.Size((23,)), CPU).data_ptr() not in (place, other), "of another size"
    third.fill_(7)
    loss.backward()
    assert (weight.grad == 5).all(), "what a gradient needs was not overwritten"
    del loss
    assert memory.empty(torch.Size((24,)), CPU).data_ptr() == other
    assert not pickle.loads(pickle.dumps(memory)).free


def test_a_run_on_tensors_is_the_usual_run_but_for_rounding(run):
    usual, record, _ = run("CDC", name="usual")
    ours, again, _ = run("CDC", *ON_TENSORS, name="ours")
    images, labels = ours.parse_batch_train(next(iter(ours.train_loader_x)))
    assert images.shape == (4, 8, 3, 32, 32) and labels.shape == (8,)
    start = run("CDC", name="start", flags=("--no-train",))[0].prompt_learner.ctx
    moved, apart = (usual.prompt_learner.ctx - start).norm(), (usual.prompt_learner.ctx - ours.prompt_learner.ctx).norm()
    assert 0 < apart < 0.05 * moved
    assert again["metrics"]["test"]["nll"] == pytest.approx(record["metrics"]["test"]["nll"], rel=0.02)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_on_tensors_is_repeated_and_resumed_to_the_same_numbers(run, workers):
    options = (*ON_TENSORS, "DATALOADER.NUM_WORKERS", workers, "TRAIN.CHECKPOINT_FREQ", "1")
    whole, _, _ = run("CDC", *options, name="whole")
    again, _, folder = run("CDC", *options, name="again")
    assert all(torch.equal(value, weights(again)[key]) for key, value in weights(whole).items())
    (folder / "prompt_learner" / "checkpoint").write_text("model.pth.tar-2\n")
    torch.manual_seed(99)
    resumed, _, _ = run("CDC", *options, name="again")
    assert resumed.start_epoch == 2
    assert all(torch.equal(value, weights(resumed)[key]) for key, value in weights(whole).items())


@pytest.mark.parametrize("options, message", [
    (("TRAINER.CDC.AUGMENTATION", "None"), "TRAINER.CDC.VIEWS_ON_TENSORS makes the views of AUGMENTATION 1 and 2, which is None"),
    (("INPUT.TRANSFORMS", "['random_resized_crop', 'cutout']"), "TRAINER.CDC.VIEWS_ON_TENSORS can't do Cutout: take it out of INPUT.TRANSFORMS"),
    (("INPUT.TRANSFORMS", "['random_crop']"), "TRAINER.CDC.VIEWS_ON_TENSORS can't do RandomCrop"),
])
def test_views_that_cannot_be_made_on_tensors(refusal, options, message):
    assert message in refusal(*ON_TENSORS, *options)


def test_a_transform_of_dassl_that_draws_in_another_way_is_refused():
    with pytest.raises(UserError, match="can't do GaussianNoise"):
        TensorViews([build_transform(config("gaussian_noise"))])
