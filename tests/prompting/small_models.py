"""The models of ``open_clip.list_models()``, made small, with random weights and a small tokenizer in
place of the hub's files."""

import contextlib
import functools

import open_clip
import timm
import torch
import transformers
from open_clip import factory

from tests.prompting.models import noisy
from tests.prompting.small_tokenizer import small_tokenizer
from trainers.prompting.weights import open_clip_models

# as each calls it
TIMM_SIZES = [
    {"depth": 1},
    {"depths": (1, 1, 1, 1)},
    {"layers": (1, 1, 1, 1, 1)},
    {"layers": (1, 1, 1, 1)},
]
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 100,
    "pad_token_id": 1,
}
HUB_CONFIGS = {  # what a name on the hub begins with → what its config.json would say, but smaller
    "roberta": functools.partial(transformers.RobertaConfig, **BERT),
    "xlm-roberta": functools.partial(transformers.XLMRobertaConfig, **BERT),
    "google/mt5": functools.partial(
        transformers.MT5Config, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2
    ),
    "facebook/nllb": functools.partial(
        transformers.M2M100Config,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
    ),
}


def hub_config(name, **_):
    start = next(start for start in HUB_CONFIGS if name.startswith(start))
    return HUB_CONFIGS[start](vocab_size=100)


def reduced(config):
    """A model's config with few layers, heads and words, as far as they are no network's of timm."""
    vision = dict(config["vision_cfg"])
    text = dict(config["text_cfg"])
    if isinstance(vision.get("layers"), list):
        vision.update(layers=[1, 1, 1, 1], width=16)
    elif "timm_model_name" not in vision:
        vision.update(layers=2, width=2 * vision.get("head_width", 64))
    if "hf_model_name" not in text:
        text.update(layers=2, heads=2, width=64)
    if "hf_tokenizer_name" in text:
        text["vocab_size"] = 100
    changed = {**config, "vision_cfg": vision, "text_cfg": text}
    if "multimodal_cfg" in config:
        small = {"layers": 1, "width": 64, "heads": 2}
        changed["multimodal_cfg"] = {**config["multimodal_cfg"], **small}
    return changed


def create_reduced(create, name, **settings):
    """A network of timm with one block, or one in each stage."""
    for size in TIMM_SIZES:
        with contextlib.suppress(TypeError, IndexError):
            return create(name, **size, **settings)
    raise AssertionError(f"{name} has no depth that can be changed")


def in_small(monkeypatch, name, folder):
    """open_clip's own small model of that name, with random weights, and our name of the file that they
    are in. Until the test ends the model is known to open_clip as it is here."""
    config = reduced(open_clip.get_model_config(name))
    create = functools.partial(create_reduced, timm.create_model)
    end = config["text_cfg"].get("eos_id", 2)
    monkeypatch.setitem(factory._MODEL_CONFIGS, name, config)
    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", hub_config)
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: small_tokenizer(end)
    )
    monkeypatch.setattr(open_clip_models, "download_those", lambda repository, *_: repository)
    theirs = noisy(open_clip.create_model(name, pretrained_text=False))
    torch.save(theirs.state_dict(), f"{folder}/{name}.pt")
    return theirs, f"open_clip:{name}/{folder}/{name}.pt"
