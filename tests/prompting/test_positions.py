"""Images of another size: interpolated positions against Pillow's resizing, and whole runs with them."""

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import random_clip
from tests.prompting.models import stock_clip
from tests.prompting.test_encoders import relative
from tests.reference import stock_image_features
from trainers import PromptedClassifier
from trainers.classifier import export
from trainers.common.errors import UserError
from trainers.prompting.backbone import build_backbone
from trainers.prompting.positions import interpolate

LARGER = (
    "INPUT.SIZE",
    "(48, 48)",
    "MODEL.BACKBONE.INTERPOLATE_POSITIONS",
    "True",
)  # the weights are for 32


def by_pillow(positions, grid):
    """The same resizing by Pillow, one channel at a time; positions (1 + g², D)."""
    old = int((len(positions) - 1) ** 0.5)
    channels = positions[1:].T.reshape(-1, old, old).numpy()
    resized = [
        numpy.asarray(Image.fromarray(channel).resize((grid, grid), Image.Resampling.BICUBIC))
        for channel in channels
    ]
    return torch.cat(
        [positions[:1], torch.from_numpy(numpy.stack(resized)).reshape(len(resized), -1).T]
    )


@given(old=st.integers(1, 16), new=st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_positions_are_resized_as_pillow_resizes_an_image_and_the_class_tokens_stays(old, new):
    positions = torch.randn(1 + old * old, 3, generator=torch.Generator().manual_seed(old))
    torch.testing.assert_close(
        interpolate(positions, new), by_pillow(positions, new), rtol=1e-4, atol=1e-5
    )


@given(old=st.integers(1, 16), new=st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_a_constant_embedding_stays_constant(old, new):
    positions = torch.tensor([[7.0, 8.0]] + [[-1.5, 2.25]] * old * old)
    expected = torch.tensor([[7.0, 8.0]] + [[-1.5, 2.25]] * new * new)
    torch.testing.assert_close(interpolate(positions, new), expected)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_same_size_changes_nothing(request, kind):
    stock = request.getfixturevalue(f"stock_{kind}")
    ours, images = build_backbone(stock.state_dict()), torch.randn(1, 2, 3, 32, 32)
    before = ours.image(images)
    ours.image.interpolate_positions(32)
    assert torch.equal(ours.image(images), before)
    assert not any(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize("size", [16, 48, 64])
def test_a_vit_has_the_features_of_clips_own_with_the_resized_positions(stock_vit, size):
    ours, stock, images = (
        build_backbone(stock_vit.state_dict()),
        random_clip(),
        torch.randn(1, 2, 3, size, size),
    )
    ours.image.interpolate_positions(size)
    stock.visual.positional_embedding.data = by_pillow(stock.visual.positional_embedding, size // 8)
    assert relative(ours.image(images)[0], stock.encode_image(images[0])) < 1e-5
    prompts = torch.randn(1, 2, 128)
    assert (
        relative(ours.image(images, prompts)[0], stock_image_features(stock, images[0], prompts[0]))
        < 1e-5
    )
    assert ours.image.image_size == size


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_resnet_has_the_features_of_clips_own_with_the_resized_positions(size):
    def stock():
        return stock_clip((1, 1, 1, 1), 8, None, 96)

    ours, theirs, images = (
        build_backbone(stock().state_dict()),
        stock(),
        torch.randn(1, 2, 3, size, size),
    )
    assert ours.image.image_size == 96
    ours.image.interpolate_positions(size)
    pool = theirs.visual.attnpool
    pool.positional_embedding.data = by_pillow(pool.positional_embedding, size // 32)
    assert relative(ours.image(images)[0], theirs.encode_image(images[0])) < 1e-5
    assert ours.image.image_size == size


@pytest.mark.parametrize(
    "kind, size, patch", [("vit", 36, 8), ("vit", 4, 8), ("vit", 0, 8), ("resnet", 48, 32)]
)
def test_an_image_that_patches_do_not_fill_is_refused(request, kind, size, patch):
    backbone = build_backbone(request.getfixturevalue(f"stock_{kind}").state_dict())
    with pytest.raises(
        UserError,
        match=f"of {size} pixels can't be cut into patches of {patch}: give INPUT.SIZE as a multiple of {patch}",
    ):
        backbone.image.interpolate_positions(size)


def test_another_size_is_taken_on_request_only_and_has_to_be_square(refusal):
    advice = "takes (32, 32): give that, or have its positions interpolated with MODEL.BACKBONE.INTERPOLATE_POSITIONS True"
    assert advice in refusal(*LARGER[:2])
    for more in ((), LARGER[2:]):
        assert "INPUT.SIZE is (32, 48), a CLIP takes squares" in refusal(
            "INPUT.SIZE", "(32, 48)", *more
        )
    assert "images of 36 pixels can't be cut" in refusal("INPUT.SIZE", "(36, 36)", *LARGER[2:])


def test_a_run_on_larger_images_is_tested_loaded_and_exported_as_it_was(run):
    trainer, record, folder = run("CDC", *LARGER)
    assert trainer.backbone.image.positional_embedding.shape == (1 + 6 * 6, 128)
    assert record["config"]["MODEL"]["BACKBONE"]["INTERPOLATE_POSITIONS"] is True

    _, tested, _ = run(
        "CDC", *LARGER, name="test", flags=("--eval-only", "--model-dir", str(folder))
    )
    assert tested["metrics"] == record["metrics"]

    classifier = PromptedClassifier.load(str(folder))
    pixels = torch.randint(
        256, (3, 3, 48, 48), generator=torch.Generator().manual_seed(0)
    ).byte()  # of the model's size
    answers = classifier.predict(pixels)
    with torch.no_grad():
        images = torch.stack(
            [
                classifier.transform(Image.fromarray(image.permute(1, 2, 0).numpy()))
                for image in pixels
            ]
        )
        expected = trainer.model_inference(images[None])
    torch.testing.assert_close(torch.from_numpy(answers.probabilities), expected)

    model = export.FusedClassifier(
        export.in_fp32_on_the_cpu(classifier), export.normalization(classifier)
    )
    assert export.example_pixels(model, 2).shape == (2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels.float() / 255)[0], expected)
    assert "(N, 3, 48, 48)" in export.model_card(classifier, ["probability"])
