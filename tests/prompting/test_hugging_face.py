"""CLIPs in Hugging Face's format: the same weights are the same model, to the bit."""

import json

import pytest
import torch

from tests.conftest import VOCABULARY
from trainers.common.errors import UserError
from trainers.common.fingerprints import tensor_hash
from trainers.prompting.backbone import load_backbone

BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
CONFIG = {
    "model_type": "clip",
    "vision_config": {"num_attention_heads": 2, "hidden_act": "quick_gelu"},
    "text_config": {"num_attention_heads": 2, "hidden_act": "quick_gelu"},
}
PIXELS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def in_their_format(stock):
    """The weights of a CLIP of the ``clip`` package as transformers' ``CLIPModel`` names them: written down layer by layer."""
    state = {
        "logit_scale": stock.logit_scale,
        "text_projection.weight": stock.text_projection.T,
        "visual_projection.weight": stock.visual.proj.T,
        "text_model.embeddings.token_embedding.weight": stock.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": stock.positional_embedding,
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.class_embedding": stock.visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": stock.visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": stock.visual.positional_embedding,
    }
    for name, norm in (
        ("text_model.final_layer_norm", stock.ln_final),
        ("vision_model.pre_layrnorm", stock.visual.ln_pre),
        ("vision_model.post_layernorm", stock.visual.ln_post),
    ):
        state |= {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}
    for tower, blocks in (
        ("text_model", stock.transformer.resblocks),
        ("vision_model", stock.visual.transformer.resblocks),
    ):
        for number, block in enumerate(blocks):
            own, place = block.state_dict(), f"{tower}.encoder.layers.{number}"
            for kind in ("weight", "bias"):
                state |= {
                    f"{place}.{theirs}.{kind}": own[f"{ours}.{kind}"]
                    for ours, theirs in BLOCK.items()
                }
                for part, values in zip("qkv", own[f"attn.in_proj_{kind}"].chunk(3)):
                    state[f"{place}.self_attn.{part}_proj.{kind}"] = values
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


@pytest.fixture(scope="module")
def weights(stock_vit):
    return in_their_format(stock_vit)


@pytest.fixture
def folder(weights, tmp_path):
    """``folder(config, pixels, weights)``: that of a model; each made of what is given, and left out where it is None."""

    def make(config=CONFIG, pixels=PIXELS, weights=weights, place=tmp_path / "model"):
        place.mkdir(parents=True, exist_ok=True)
        for name, content in (("config.json", config), ("preprocessor_config.json", pixels)):
            if content is not None:
                (place / name).write_text(json.dumps(content))
        if weights is not None:
            pytest.importorskip("safetensors.torch").save_file(weights, place / "model.safetensors")
        return str(place)

    return make


def test_the_same_weights_are_the_same_model_to_the_bit(folder, small_clip_file):
    openai, theirs = load_backbone(small_clip_file), load_backbone(folder())
    assert {name: tensor_hash([value]) for name, value in theirs.state_dict().items()} == {
        name: tensor_hash([value]) for name, value in openai.state_dict().items()
    }
    images, tokens = torch.randn(1, 2, 3, 32, 32), torch.randint(1, VOCABULARY - 1, (2, 77))
    assert (theirs.image(images) == openai.image(images)).all() and (
        theirs.text.encode_tokens(tokens) == openai.text.encode_tokens(tokens)
    ).all()
    assert theirs.normalization == (PIXELS["image_mean"], PIXELS["image_std"])
    assert tensor_hash(theirs.signature()) == tensor_hash(openai.signature()), (
        "prompts of the one can be tested on the other"
    )


def test_the_older_format_and_heads_and_activation_of_the_config(
    folder, weights, stock_vit, tmp_path
):
    place = folder(
        weights=None,
        pixels=None,
        config={
            **CONFIG,
            "vision_config": {"num_attention_heads": 4, "hidden_act": "gelu"},
            "text_config": {"hidden_act": "gelu"},
        },
    )
    torch.save(weights, tmp_path / "model" / "pytorch_model.bin")
    loaded = load_backbone(f"hf:{place}")
    assert loaded.activation == "gelu" and loaded.normalization is None
    assert (
        loaded.image.transformer.resblocks[0].attn.heads == 4
        and loaded.text.transformer.resblocks[0].attn.heads == 8
    )  # transformers' default


def test_a_known_name_is_no_folder(monkeypatch, tmp_path):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_backbone("tiny").image.image_size == 64


def test_a_model_is_found_in_their_cache(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder(place=tmp_path / "hub" / "models--someone--clip" / "snapshots" / "abc")
    assert load_backbone("hf:someone/clip").image.image_size == 32
    with pytest.raises(
        UserError,
        match="'hf:someone/other', but no config.json is in someone/other, nor in .*models--someone--other.*: download",
    ):
        load_backbone("hf:someone/other")


@pytest.mark.parametrize(
    "config, reason",
    [
        ({**CONFIG, "model_type": "siglip"}, "its text encoder is not causal"),
        ({"model_type": "chinese_clip"}, "its text encoder is BERT"),
        ({"model_type": "bert"}, "its model_type is 'bert', not clip"),
        ({}, "its model_type is None"),
        ([], "is no config"),
        (
            {**CONFIG, "text_config": {"num_attention_heads": 2, "hidden_act": "gelu"}},
            "different activations, quick_gelu and gelu",
        ),
        ({**CONFIG, "text_config": {"hidden_act": "relu"}}, "hidden_act 'relu'"),
        ({**CONFIG, "text_config": {"hidden_act": ["gelu"]}}, "hidden_act ..gelu"),
        ({**CONFIG, "text_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps 1e-06"),
        ({**CONFIG, "text_config": {"num_attention_heads": 0}}, "has 0 attention heads"),
        (
            {**CONFIG, "text_config": {"num_attention_heads": 5}},
            "128 features don't divide into 5 heads",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(folder, config, reason):
    with pytest.raises(UserError, match=reason):
        load_backbone(folder(config=config))


def test_missing_and_odd_weights_are_refused(folder, weights, tmp_path):
    with pytest.raises(UserError, match="neither model.safetensors nor pytorch_model.bin"):
        load_backbone(folder(weights=None))
    with pytest.raises(
        UserError, match="holds no CLIP in Hugging Face's format: .*v_proj.* is missing"
    ):
        load_backbone(
            folder(weights={name: value for name, value in weights.items() if "v_proj" not in name})
        )
    with pytest.raises(UserError, match="holds no CLIP in OpenAI's format"):
        load_backbone(folder(weights={**weights, "text_model.head.weight": torch.zeros(2)}))
    with pytest.raises(UserError, match="three numbers each"):
        load_backbone(folder(pixels={"image_mean": [0.5]}))
    with pytest.raises(UserError, match="no config.json is in"):
        (tmp_path / "empty").mkdir()
        load_backbone(str(tmp_path / "empty"))
