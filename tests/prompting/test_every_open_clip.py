"""Every model that ``open_clip`` lists, made small: features are its own ``encode_image``'s and
``encode_text``'s, whichever of its towers are ours and which are taken as they are."""

import re

import pytest
import torch

from tests.conftest import slow_but_for
from tests.prompting.models import assert_same, double, exact
from tests.runs import REPOSITORY
from trainers.prompting.backbone import load_backbone

open_clip = pytest.importorskip(
    "open_clip", reason="open_clip_torch is not installed: pip install '.[open_clip]'"
)
pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[transformers]'"
)

from tests.prompting.small_models import in_small  # noqa: E402

TEXTS = ["a photo of a cat.", "two dogs", "a"]
# a family each: CLIP's text tower beside another image tower, another text tower, neither, all own
SOME = (
    "RN50-quickgelu",
    "PE-Core-T-16-384",
    "MobileCLIP2-S0",
    "ViT-B-32-SigLIP2-256",
    "ViT-L-14-worldwide",
    "xlm-roberta-base-ViT-B-32",
)


def of_images_and_texts(name):
    """Later versions list models of sounds and of texts alone, too, which are refused."""
    return {"vision_cfg", "text_cfg"} <= {*open_clip.get_model_config(name)}


@slow_but_for(SOME, filter(of_images_and_texts, open_clip.list_models()))
def test_features_are_those_of_the_package(monkeypatch, tmp_path, name):
    theirs, full_name = in_small(monkeypatch, name, tmp_path)
    ours = load_backbone(full_name)
    (tmp_path / f"{name}.pt").unlink()  # those of all models would fill a disk
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    assert torch.equal(ours.log_scale, theirs.logit_scale.squeeze())
    ours = exact(ours)
    theirs = exact(theirs)
    images = double(1, 1, 3, *2 * [ours.image.image_size])
    with torch.no_grad():
        assert_same(ours.image(images)[0], theirs.encode_image(images[0], normalize=False))
        assert_same(ours.text.encode_tokens(tokens), theirs.encode_text(tokens, normalize=False))


def test_the_documents_names_are_names_of_published_weights():
    document = (REPOSITORY / "docs/backbones.md").read_text("utf-8")
    names = re.findall(r"^\|`open_clip:([^/]+)/(\w+)`", document, re.MULTILINE)
    assert len(names) > 5
    assert {*names} <= {*open_clip.list_pretrained()}
