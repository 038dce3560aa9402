"""Models of the package ``open_clip`` on our towers against its own encoders, in float64."""

import json
import re
import sys

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import CASES, GOLDEN, REFUSALS
from tests.prompting.models import assert_same, double, exact, noisy
from tests.runs import refuses
from trainers import PromptedClassifier
from trainers.data.transforms import pixels_of_test
from trainers.prompting.backbone import build_backbone, load_backbone, pixels_of
from trainers.prompting.tokens import tokenize
from trainers.settings import run_config

open_clip = pytest.importorskip(
    "open_clip", reason="open_clip_torch is not installed: pip install '.[open_clip]'"
)

SMALL, OPENAIS = GOLDEN["models"]["open_clip"], GOLDEN["models"]["openais"]
GELU = SMALL["small-gelu"]


@pytest.fixture(scope="module")
def define(tmp_path_factory):
    """Makes a model known to open_clip: ``define(name, config)``."""
    folder = tmp_path_factory.mktemp("configs")

    def write(name, config):
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")

    for name, config in SMALL.items():
        write(name, config)
    return write


@pytest.fixture
def model(define, tmp_path):
    """``model(name)`` → open_clip's own small model, and its name for us."""

    def make(name):
        theirs = noisy(open_clip.create_model(name))
        torch.save(theirs.state_dict(), f"{tmp_path}/{name}.pt")
        return theirs, f"open_clip:{name}/{tmp_path}/{name}.pt"

    return make


@pytest.mark.parametrize("name", SMALL)
def test_features_are_those_of_encode_image_and_encode_text(model, name):
    theirs, full_name = model(name)
    ours = load_backbone(full_name)
    assert torch.equal(ours.log_scale, theirs.logit_scale.squeeze())
    assert ours.text.context_length == SMALL[name]["text_cfg"]["context_length"]
    ours, theirs, images = (
        ours.double(),
        exact(theirs),
        double(1, 3, 3, *2 * [ours.image.image_size]),
    )
    assert_same(ours.image(images)[0], theirs.encode_image(images[0]), [images])
    tokens = open_clip.get_tokenizer(name)(["a photo of a cat.", "two dogs", "a"])
    assert_same(ours.text.encode_tokens(tokens), theirs.encode_text(tokens))


@pytest.mark.parametrize("part, key, value", CASES["open_clip parts"])
def test_a_tower_with_parts_that_ours_lack_is_taken_as_it_is(define, model, part, key, value):
    define("odd", {**GELU, part: {**GELU[part], key: value}})
    theirs, full_name = model("odd")
    ours = load_backbone(full_name)
    assert ours.text.takes_prompts == (part == "vision_cfg")
    assert ours.image.takes_prompts == (part == "text_cfg")
    ours, theirs, images = exact(ours), exact(theirs), double(1, 3, 3, 32, 32)
    assert_same(ours.image(images)[0], theirs.encode_image(images[0]), [images])
    tokens = open_clip.get_tokenizer("odd")(["a photo of a cat.", "two dogs", "a"])
    assert_same(ours.text.encode_tokens(tokens), theirs.encode_text(tokens))


def test_a_file_may_have_the_names_of_either_of_the_packages_classes(define, model, tmp_path):
    """open_clip's CustomTextCLIP has ``text.`` before what CLIP has at the top level."""
    theirs, full_name = model("small-gelu")
    define("custom", {**GELU, "custom_text": True})
    custom = open_clip.create_model("custom")
    open_clip.load_checkpoint(custom, f"{tmp_path}/small-gelu.pt")
    torch.save(custom.state_dict(), f"{tmp_path}/custom.pt")
    expected = load_backbone(full_name).state_dict()
    for file in ("custom.pt", "small-gelu.pt"):
        found = load_backbone(f"open_clip:custom/{tmp_path}/{file}").state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


# without the tokenizers' own marks, <|endoftext|> and so on, which no name may have
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<"), max_size=20))
@settings(max_examples=100)
def test_clips_tokenizer_is_open_clips(text):
    assert torch.equal(tokenize([text], 256), open_clip.tokenize([text], 256).int())


@pytest.mark.parametrize("name", [*OPENAIS, "ViT-g-14", "ViT-H-14", "ViT-bigG-14"])
def test_the_published_shapes_make_the_published_model(name):
    config = open_clip.get_model_config(name)
    text, vision = config["text_cfg"], config["vision_cfg"]
    with torch.device("meta"):  # shapes without numbers
        theirs = open_clip.CLIP(**config)
        heads = vision.get("head_width", 64), text["width"] // text["heads"]
        ours = build_backbone(theirs.state_dict(), name, *heads)
    shapes = {
        key.replace("image.", "visual.").replace("text.", ""): (parameter.shape)
        for key, parameter in ours.named_parameters()
    }
    assert shapes | {"logit_scale": torch.Size([])} == {
        key: parameter.shape for key, parameter in theirs.named_parameters()
    }
    assert ours.image.image_size == vision["image_size"]
    assert ours.text.transformer.resblocks[0].heads == text["heads"]
    if ours.takes_visual_prompts:
        block, expected = (tower.transformer.resblocks[0] for tower in (ours.image, theirs.visual))
        assert block.heads == expected.attn.num_heads
    else:
        assert ours.image.attnpool.num_heads == theirs.visual.attnpool.num_heads


# ---- what can't be used ----


def test_pictures_that_are_not_square_are_refused(define):
    define("odd", {**GELU, "vision_cfg": {**GELU["vision_cfg"], "image_size": [32, 64]}})
    with refuses(r"open_clip:odd/x can't be used: its images are \[32, 64\] pixels"):
        load_backbone("open_clip:odd/x")


@pytest.mark.parametrize("name, message", REFUSALS["open_clip"])
def test_names_that_are_not_known(name, message):
    with refuses(re.escape(message)):
        load_backbone(f"open_clip:{name}")


@pytest.mark.parametrize("tag, page", CASES["pages"])
def test_weights_that_cannot_be_downloaded_say_where_they_are(monkeypatch, tag, page):
    def no_network(facts):
        raise FileNotFoundError("no route\nto host")

    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, name: tag)
    message = rf"no route to host.; fetch their file from {page}, .* open_clip:ViT-B-16/path/to/the"
    with refuses(message):
        load_backbone("open_clip:ViT-B-16/a_tag")


def test_a_file_of_another_model_is_refused(define, small_clip_file):
    message = "small.pt holds another model than small-gelu: visual.class_embedding has 128 numbers"
    with refuses(f"{message}, not 96"):
        load_backbone(f"open_clip:small-gelu/{small_clip_file}")


# ---- whole runs ----


def test_a_run_is_loaded_by_its_models_name_and_not_with_the_other_activation(model, run):
    """That it answers as it did: test_classifier.py."""
    _, name = model("small-gelu")
    _, record, folder = run("CDC", "MODEL.BACKBONE.NAME", name)
    assert record["config"]["MODEL"]["BACKBONE"]["NAME"] == name
    assert len(PromptedClassifier.load(folder).classnames) == 6
    other = name.replace("small-gelu/", "small-gelu-quickgelu/")
    with refuses("BACKBONE.NAME has other weights"):
        PromptedClassifier.load(folder, backbone=other)


def test_pixels_are_made_as_in_the_training(model, run, refusal, monkeypatch):
    path, half = model("small-gelu")[1].partition("/")[2], [0.5, 0.5, 0.5]
    tag = {"mean": half, "std": half, "quick_gelu": False, "interpolation": "bilinear"}
    tag["resize_mode"] = "squash"
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, name: tag)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda facts: path)
    name = "open_clip:small-gelu/some_tag"
    message = refusal("INPUT.PIXEL_MEAN", "[0.4, 0.4, 0.4]", trainer="CoOp", backbone=name)
    advice = f"{name} was trained with {half}: give that"
    assert f"INPUT.PIXEL_MEAN is [0.4, 0.4, 0.4], {advice}" in message
    trainer, record, _ = run("CoOp", "MODEL.BACKBONE.NAME", name)
    pixels = record["config"]["INPUT"]
    assert (pixels["PIXEL_MEAN"], pixels["PIXEL_STD"]) == (half, half)
    assert (pixels["INTERPOLATION"], pixels["SQUASH"]) == ("bilinear", True)
    resize, _, normalize = trainer.loaders.shown.transforms
    assert resize.size == (32, 32) and normalize.mean == half


def test_what_all_published_weights_of_a_model_share_holds_for_a_file_of_it(monkeypatch):
    siglip = pixels_of("open_clip:ViT-B-16-SigLIP2-384/my_file.pt")
    half = [0.5, 0.5, 0.5]
    assert siglip == {
        "SIZE": (384, 384),
        "PIXEL_MEAN": half,
        "PIXEL_STD": half,
        "INTERPOLATION": "bicubic",
        "SQUASH": True,
    }
    # one of its tags has other means
    assert pixels_of("open_clip:ViT-L-14/my_file.pt").keys() == {"SIZE", "INTERPOLATION", "SQUASH"}
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert pixels_of("open_clip:ViT-L-14/my_file.pt") == {} == pixels_of("ViT-B/16")


@given(st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=10)
def test_a_squashed_image_is_seen_whole_as_open_clip_sees_it(width, height):
    pixels = numpy.random.default_rng(0).integers(256, size=(height, width, 3), dtype=numpy.uint8)
    image = Image.fromarray(pixels)
    cfg = run_config()
    cfg.INPUT.update(SIZE=(48, 48), SQUASH=True, INTERPOLATION="bicubic", TRANSFORMS=("normalize",))
    theirs = open_clip.image_transform(
        48, False, tuple(cfg.INPUT.PIXEL_MEAN), tuple(cfg.INPUT.PIXEL_STD), resize_mode="squash"
    )
    assert torch.equal(pixels_of_test(cfg.INPUT)(image), theirs(image))


def test_a_tokenizer_that_cannot_be_had_and_parts_of_the_hub_are_told(define, model, monkeypatch):
    define("odd", {**GELU, "text_cfg": {**GELU["text_cfg"], "no_causal_mask": True}})
    _, full_name = model("odd")

    def no_network(*_, **__):
        raise OSError("no route\nto host")

    monkeypatch.setattr(open_clip, "get_tokenizer", no_network)
    with refuses(
        r"the tokenizer of open_clip:odd/.* can't be had: no route to host. It needs tran"
    ):
        load_backbone(full_name)
    monkeypatch.setattr(open_clip, "CustomTextCLIP", no_network)
    with refuses(r"open_clip:odd/.* can't be built by open_clip: no route to host. It may need a"):
        load_backbone(full_name)


def test_a_file_of_another_model_is_refused_for_a_black_box(define, small_clip_file):
    define("odd", {**GELU, "text_cfg": {**GELU["text_cfg"], "no_causal_mask": True}})
    with refuses("small.pt holds no weights of odd: "):
        load_backbone(f"open_clip:odd/{small_clip_file}")
