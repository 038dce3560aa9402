"""Images of another size: interpolated positions against Pillow's resizing, and whole runs."""

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labelling import PromptedClassifier, export
from tests.prompting.models import assert_same, double, exact, stock
from tests.reference import stock_image_features
from tests.runs import refuses
from trainers.prompting.backbone import build_backbone
from trainers.prompting.positions import interpolate

# the weights are for 32
LARGER = ("INPUT.SIZE", "(48, 48)", "MODEL.BACKBONE.INTERPOLATE_POSITIONS", "True")


def by_pillow(positions, grid):
    """The same resizing by Pillow, one channel at a time; positions (1 + g², D)."""
    old = int((len(positions) - 1) ** 0.5)
    channels = positions[1:].T.reshape(-1, old, old).numpy()
    resized = [
        numpy.asarray(Image.fromarray(channel).resize((grid, grid), Image.Resampling.BICUBIC))
        for channel in channels
    ]
    return torch.cat([positions[:1], torch.from_numpy(numpy.stack(resized)).flatten(1).T])


@given(old=st.integers(1, 16), new=st.integers(1, 16))
def test_positions_are_resized_as_pillow_resizes_an_image_and_the_class_tokens_stays(old, new):
    positions = torch.randn(1 + old * old, 3, generator=torch.Generator().manual_seed(old))
    found = interpolate(positions, new)
    torch.testing.assert_close(found, by_pillow(positions, new), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind, size", [("vit", 16), ("vit", 48), ("vit", 64), ("resnet-96", 32), ("resnet-96", 128)]
)
def test_features_are_those_of_clips_own_with_the_resized_positions(kind, size):
    ours, theirs = build_backbone(stock(kind).state_dict()).double(), exact(stock(kind))
    images, prompts = double(1, 2, 3, size, size), double(1, 2, 128)
    ours.image.interpolate_positions(size)
    assert ours.image.image_size == size
    is_vit = ours.takes_visual_prompts
    theirs_at, ours_at = theirs.visual, ours.image
    if not is_vit:
        theirs_at, ours_at = theirs_at.attnpool, ours_at.attnpool
    theirs_at.positional_embedding.data = ours_at.positional_embedding.data
    assert not ours_at.positional_embedding.requires_grad
    assert_same(ours.image(images)[0], theirs.encode_image(images[0]))
    if is_vit:
        expected = stock_image_features(theirs, images[0], prompts[0])
        assert_same(ours.image(images, [prompts])[0], expected, [prompts])


@pytest.mark.parametrize("kind, size, patch", [("vit", 36, 8), ("resnet", 48, 32)])
def test_an_image_that_patches_do_not_fill_is_refused(kind, size, patch):
    message = (
        f"of {size} pixels can't be cut into patches of {patch}: give INPUT.SIZE as a multiple"
    )
    with refuses(message):
        build_backbone(stock(kind).state_dict()).image.interpolate_positions(size)


def test_a_run_on_larger_images_is_loaded_and_exported_as_it_was(run):
    trainer, _, folder = run("CDC", *LARGER)
    assert trainer.model.backbone.image.positional_embedding.shape == (1 + 6 * 6, 128)
    classifier = PromptedClassifier.load(folder)
    pixels = torch.randint(256, (3, 3, 48, 48)).byte()  # of the model's size
    normalize = classifier.transform.transforms[-1]
    with torch.no_grad():
        expected = trainer.model.answer(normalize(pixels.float() / 255)[None]).probability
        exported = export.FusedClassifier(classifier, normalize)(pixels.float() / 255)[0]
    answers = torch.from_numpy(classifier.predict(pixels).probabilities)
    for probabilities in (answers, exported):
        torch.testing.assert_close(probabilities, expected)
