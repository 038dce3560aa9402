"""Models of the package ``open_clip`` on our towers against its own encoders, in float64."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CASES, GOLDEN, REFUSALS
from tests.prompting.models import assert_same, double, exact, noisy
from tests.runs import refuses
from trainers import PromptedClassifier
from trainers.prompting.backbone import build_backbone, load_backbone
from trainers.prompting.tokens import tokenize

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


@pytest.mark.parametrize("part, key, value", REFUSALS["open_clip parts"])
def test_parts_that_our_towers_cannot_express_are_refused(define, part, key, value):
    change = {key: value}
    define("odd", {**GELU, **change} if part is None else {**GELU, part: {**GELU[part], **change}})
    setting = f"{key if part is None else f'{part}.{key}'} is {value!r}"
    message = f"open_clip:odd/x can't be used, since its towers are not CLIP's: {setting}."
    with refuses(re.escape(message)):
        load_backbone("open_clip:odd/x")


def test_every_model_of_the_package_is_taken_or_refused_and_all_of_openais_sizes_are_taken():
    taken = set()
    for name in open_clip.list_models():
        with refuses() as refusal:
            load_backbone(f"open_clip:{name}/none")
        config = open_clip.get_model_config(name)
        if "can't be used" not in str(refusal.value):
            taken.add(name)
            assert "timm_model_name" not in config["vision_cfg"]
            assert not config["text_cfg"].get("no_causal_mask")
    families = {"ViT-H-14", "ViT-g-14", "ViT-bigG-14", "ViT-B-16-quickgelu"}
    assert taken >= families.union(OPENAIS)
    assert not any("SigLIP" in name or "coca" in name or "roberta" in name for name in taken)


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


def test_pixels_have_to_be_normalised_as_in_the_training(model, run, refusal, monkeypatch):
    path, half = model("small-gelu")[1].partition("/")[2], [0.5, 0.5, 0.5]
    tag = {"mean": half, "std": half, "quick_gelu": False}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, name: tag)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda facts: path)
    name = "open_clip:small-gelu/some_tag"
    advice = f"{name} was trained with {half}: give that"
    mean, std = (("INPUT.PIXEL_MEAN", str(half)), ("INPUT.PIXEL_STD", str(half)))
    message = refusal(trainer="CoOp", backbone=name)
    assert f"INPUT.PIXEL_MEAN is [0.485, 0.456, 0.406], {advice}" in message
    assert "INPUT.PIXEL_STD is" in refusal(*mean, trainer="CoOp", backbone=name)
    _, record, _ = run("CoOp", "MODEL.BACKBONE.NAME", name, *mean, *std)
    assert record["metrics"]["test"]["images"] > 0
