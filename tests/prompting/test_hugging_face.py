"""CLIPs in Hugging Face's format: the same weights are the same model, to the bit."""

import json

import pytest
import torch

from tests.conftest import GOLDEN
from tests.prompting.models import CONFIG, assert_same, double, exact, noisy
from tests.reference import unit
from tests.runs import refuses
from trainers.prompting.backbone import load_backbone, pixels_of
from trainers.prompting.hashes import tensor_hash

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install '.[transformers]'"
)
from tests.prompting.small_tokenizer import small_tokenizer  # noqa: E402

PIXELS = {"image_mean": [0.5, 0.4, 0.4], "image_std": [0.2, 0.3, 0.3]}


def changed(**change):
    """The config with other settings, and those of a tower over its own."""
    towers = {
        name: {**CONFIG[name], **change.pop(name, {})} for name in ("vision_config", "text_config")
    }
    return {**CONFIG, **towers, **change}


@pytest.fixture
def folder(tmp_path):
    """``folder(config, pixels)``: a model as ``transformers`` itself saves it."""

    def make(config=CONFIG, pixels=PIXELS, weights=CONFIG):
        torch.manual_seed(0)
        model = transformers.CLIPModel(transformers.CLIPConfig(**weights)).eval()
        model.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(config))
        if pixels is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
        return model, str(tmp_path)

    return make


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_features_are_those_of_transformers(folder, activation):
    text = {"hidden_act": activation, "num_attention_heads": 4}
    config = changed(text_config=text, vision_config={"hidden_act": activation})
    theirs, place = folder(config, weights=config)
    ours = load_backbone(place)
    assert ours.normalization == (PIXELS["image_mean"], PIXELS["image_std"])
    ours, theirs, images = ours.double(), exact(theirs), double(1, 2, 3, 32, 32)
    tokens = torch.randint(1, 49000, (2, 20))
    tokens[:, 0], tokens[:, -1] = 49406, 49407
    output = theirs(input_ids=tokens, pixel_values=images[0])
    for features, expected in (
        (ours.image(images)[0], output.image_embeds),
        (ours.text.encode_tokens(tokens), output.text_embeds),
    ):
        assert_same(unit(features), expected)
    assert ours.log_scale.item() == pytest.approx(theirs.logit_scale.item())


def test_a_folder_and_its_file_and_openais_file_are_the_same_backbone(folder, tmp_path):
    _, place = folder(pixels=None)
    ours = load_backbone(f"hf:{place}")
    assert ours.normalization is None
    openais = {**ours.text.state_dict(), "logit_scale": ours.log_scale}
    openais |= {f"visual.{key}": value for key, value in ours.image.state_dict().items()}
    torch.save(openais, f"{tmp_path}/openai.pt")
    for file in ("model.safetensors", "openai.pt"):
        other = load_backbone(f"{tmp_path}/{file}")
        torch.testing.assert_close(other.state_dict(), ours.state_dict(), rtol=0, atol=0)
        assert tensor_hash(other.signature()) == tensor_hash(ours.signature())


# ---- models whose towers are taken as they are ----

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TEXT = {**TOWER, "vocab_size": 100, "max_position_embeddings": 16}
TEXT |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
OTHERS = {
    "siglip": lambda: transformers.SiglipConfig(
        text_config=TEXT, vision_config={**TOWER, "image_size": 32, "patch_size": 8}
    ),
    "siglip2": lambda: transformers.Siglip2Config(
        text_config=TEXT, vision_config={**TOWER, "num_patches": 16, "patch_size": 8}
    ),
    "metaclip_2": lambda: transformers.MetaClip2Config(
        text_config=TEXT,
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    ),
}


@pytest.fixture
def other(tmp_path):
    """``other(kind)``: a small model of another kind, and the folder that ``transformers`` saves it in."""

    def make(kind):
        torch.manual_seed(0)
        model = noisy(transformers.AutoModel.from_config(OTHERS[kind]()))
        model.save_pretrained(tmp_path)
        small_tokenizer().save_pretrained(tmp_path)
        half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(half))
        return model, str(tmp_path)

    return make


@pytest.mark.parametrize("kind", OTHERS)
def test_features_of_other_kinds_are_those_of_transformers(other, kind):
    theirs, place = other(kind)
    ours = load_backbone(place)
    assert not ours.takes_visual_prompts
    assert not ours.text.takes_prompts
    assert ours.log_scale.item() == pytest.approx(theirs.logit_scale.item())
    assert ours.logit_bias == getattr(theirs, "logit_bias", None)
    assert ours.embed_dim == (24 if kind == "metaclip_2" else 32)
    ours, theirs, images = ours.double(), theirs.double(), double(1, 2, 3, 32, 32)
    texts = ["a photo of a cat.", "two dogs"]
    words = transformers.AutoTokenizer.from_pretrained(place)
    tokens = words(texts, padding="max_length", max_length=16, return_tensors="pt").input_ids
    assert torch.equal(ours.text.tokenize_sentences(texts), tokens)
    pixels = {"pixel_values": images[0]}
    if kind == "siglip2":  # as its own image processor cuts an image into patches
        cut = transformers.models.siglip2.image_processing_siglip2.convert_image_to_patches
        rows = torch.stack([cut(image, 8) for image in images[0]])
        shapes, mask = torch.tensor([[4, 4]] * 2), torch.ones(2, 16, dtype=torch.long)
        pixels = {"pixel_values": rows, "spatial_shapes": shapes, "pixel_attention_mask": mask}
    with torch.no_grad():
        output = theirs(input_ids=tokens, **pixels)
        assert_same(unit(ours.image(images)[0]), output.image_embeds)
        assert_same(unit(ours.text.encode_tokens(tokens)), output.text_embeds)


def test_pixels_of_other_kinds_are_those_of_their_files(other):
    half = [0.5, 0.5, 0.5]
    assert pixels_of(f"hf:{other('siglip')[1]}") == {
        "SIZE": (32, 32),
        "PIXEL_MEAN": half,
        "PIXEL_STD": half,
        "INTERPOLATION": "bilinear",
        "SQUASH": True,
    }


def test_a_text_that_does_not_fit_is_refused_and_a_sentence_is_cut(other):
    ours = load_backbone(other("siglip")[1])
    fits = " ".join(["dog"] * 11)  # with "a photo of a {}." and the end 16 tokens
    assert ours.encode_classes("a photo of {}", [fits, "cat"]).shape == (2, 32)
    with refuses(r"the class name 'dog dog .* is too long: .* more than the 16 tokens"):
        ours.encode_classes("a photo of {}", ["cat", f"{fits} dog dog"])
    assert ours.encode_sentences([[4 * fits], ["cat", "dog"]]).shape == (2, 32)


# ---- what can't be used ----


@pytest.mark.parametrize("change, reason", GOLDEN["models"]["refused"])
def test_what_cannot_be_used_is_refused_with_the_reason(folder, change, reason):
    _, place = folder(changed(**change))
    with refuses(reason):
        load_backbone(place)
