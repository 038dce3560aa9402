"""Models of the package ``open_clip`` on our towers against its own encoders, in float64."""

import json
import re
import sys

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labelling import PromptedClassifier
from tests.conftest import GOLDEN
from tests.prompting.models import noisy
from tests.runs import refuses
from trainers.data.transforms import pixels_of_test
from trainers.prompting.backbone import load_backbone, pixels_of
from trainers.prompting.tokens import tokenize
from trainers.prompting.weights import repositories
from trainers.settings import run_config

open_clip = pytest.importorskip(
    "open_clip", reason="open_clip_torch is not installed: pip install '.[open_clip]'"
)

SMALL = GOLDEN["models"]["open_clip"]
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


# without the tokenizers' own marks, <|endoftext|> and so on, which no name may have
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<"), max_size=20))
def test_clips_tokenizer_is_open_clips(text):
    assert torch.equal(tokenize([text], 256), open_clip.tokenize([text], 256).int())


# ---- what can't be used ----


@pytest.mark.parametrize(
    "name, message",
    [
        ("ViT-B16/openai", "open_clip has no model 'ViT-B16' (did you mean ViT-B-16?)"),
        ("ViT-B-16", "'' is neither a file nor among the weights of "),
        ("ViT-B-16/laion2b_s34b_b8k", "(did you mean laion2b_s34b_b88k?)"),
        ("ViT-B-16/dfn2b", "use open_clip:ViT-B-16-quickgelu/dfn2b"),
    ],
)
def test_names_that_are_not_known(name, message):
    with refuses(re.escape(message)):
        load_backbone(f"open_clip:{name}")


def test_weights_that_cannot_be_downloaded_say_where_they_are(monkeypatch):
    def no_network(*_):
        raise FileNotFoundError("no route\nto host")

    tag = {"hf_hub": "laion/a-CLIP/b16.pt", "url": "x"}
    monkeypatch.setattr(repositories, "download", no_network)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, name: tag)
    page = "https://huggingface.co/laion/a-CLIP"
    with refuses(rf"no route to host.; fetch their file from {page}, .* open_clip:ViT-B-16/path/"):
        load_backbone("open_clip:ViT-B-16/a_tag")


def test_a_file_of_another_model_is_refused(define, small_clip_file):
    message = "small.pt holds another model than small-gelu: visual.class_embedding has 128 numbers"
    with refuses(f"{message}, not 96"):
        load_backbone(f"open_clip:small-gelu/{small_clip_file}")
    define("odd", {**GELU, "text_cfg": {**GELU["text_cfg"], "no_causal_mask": True}})  # a black box
    with refuses("small.pt holds no weights of odd: "):
        load_backbone(f"open_clip:odd/{small_clip_file}")


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
    tag = {"mean": half, "std": half, "quick_gelu": False}
    tag |= {"interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, name: tag)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda facts: path)
    name = "open_clip:small-gelu/some_tag"
    message = refusal("INPUT.PIXEL_MEAN", "[0.4, 0.4, 0.4]", trainer="CoOp", backbone=name)
    assert f"PIXEL_MEAN is [0.4, 0.4, 0.4], {name} was trained with {half}: give that" in message
    trainer, record, _ = run("CoOp", "MODEL.BACKBONE.NAME", name)
    pixels = record["config"]["INPUT"]
    assert (pixels["PIXEL_MEAN"], pixels["PIXEL_STD"]) == (half, half)
    assert (pixels["INTERPOLATION"], pixels["SQUASH"]) == ("bilinear", True)
    resize, _, normalize = trainer.loaders.shown.transforms
    assert resize.size == (32, 32)
    assert normalize.mean == half


def test_what_all_published_weights_of_a_model_share_holds_for_a_file_of_it(monkeypatch):
    half = [0.5, 0.5, 0.5]
    assert pixels_of("open_clip:ViT-B-16-SigLIP2-384/my_file.pt") == {
        "SIZE": (384, 384),
        "PIXEL_MEAN": half,
        "PIXEL_STD": half,
        "INTERPOLATION": "bicubic",
        "SQUASH": True,
    }
    # one of its tags has other means
    assert pixels_of("open_clip:ViT-L-14/my_file.pt").keys() == {"SIZE", "INTERPOLATION", "SQUASH"}
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert pixels_of("open_clip:ViT-L-14/my_file.pt") == {}


@pytest.mark.parametrize("shape", [(1, 300, 3), (300, 200, 3), (48, 48, 3), (31, 47, 3)])
def test_a_squashed_image_is_seen_whole_as_open_clip_sees_it(shape):
    pixels = numpy.random.default_rng(0).integers(256, size=shape, dtype=numpy.uint8)
    node = run_config().INPUT
    node.update(SIZE=(48, 48), SQUASH=True, INTERPOLATION="bicubic", TRANSFORMS=("normalize",))
    theirs = open_clip.image_transform(
        48, False, tuple(node.PIXEL_MEAN), tuple(node.PIXEL_STD), resize_mode="squash"
    )
    image = Image.fromarray(pixels)
    assert torch.equal(pixels_of_test(node)(image), theirs(image))
