"""CLIPs as Hugging Face's ``transformers`` saves them, read without it: ``config.json`` beside safetensors (or ``pytorch_model.bin``).

The weights are those of OpenAI's format under other names, linear maps transposed, queries, keys and values apart: the same weights give the same
state dict, to the bit.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.readers import read_json
from ..transformer import GELU, QUICK_GELU
from .open_clip_models import Normalization
from .state_dict import read_state_dict

PREFIX = "hf:"
CONFIG, PIXELS, WEIGHTS = (
    "config.json",
    "preprocessor_config.json",
    ("model.safetensors", "pytorch_model.bin"),
)
ACTIVATIONS = {"quick_gelu": QUICK_GELU, "gelu": GELU}
EPSILON = 1e-5  # of CLIP's layer norms
DEFAULT_HEADS = {
    "vision_config": 12,
    "text_config": 8,
}  # transformers omits default values from a config
NOT_CAUSAL = "its text encoder is not causal, so a class name would change the context before it"
MEANING = {
    "siglip": NOT_CAUSAL,
    "siglip2": NOT_CAUSAL,
    "altclip": "its text encoder is XLM-R",
    "chinese_clip": "its text encoder is BERT",
    "blip": "its towers are others than CLIP's",
    "clip_text_model": "it is a text encoder alone",
    "clip_vision_model": "it is an image encoder alone",
}
RENAMED = (  # in this order: pattern → replacement, Hugging Face's names → OpenAI's
    (r"^text_projection\.weight$", "text_projection"),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.embeddings\.", ""),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding", "visual.conv1"),
    (r"^vision_model\.embeddings\.", "visual."),
    (r"^vision_model\.pre_layrnorm", "visual.ln_pre"),
    (r"^vision_model\.post_layernorm", "visual.ln_post"),
    (r"^text_model\.final_layer_norm", "ln_final"),
    (r"^vision_model\.encoder\.layers", "visual.transformer.resblocks"),
    (r"^text_model\.encoder\.layers", "transformer.resblocks"),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def is_meant(name: str) -> bool:
    """Whether a backbone's name is one of Hugging Face's, or a folder."""
    return name.startswith(PREFIX) or os.path.isdir(name)


def load(name: str) -> tuple[dict[str, Tensor], str, int, int, str, Normalization | None]:
    """What ``build_backbone`` takes for a model in Hugging Face's format, as ``open_clip_models.load`` gives it.

    Args:
        name: ``hf:<owner>/<name>`` of a model that is in Hugging Face's cache, or, with or without ``hf:``, the path of a folder.

    Raises:
        UserError: there is no such folder, a file is missing or can't be read, or the model has parts that this package's towers can't express.
    """
    folder = find(name)
    config = read_config(os.path.join(folder, CONFIG))
    kind = config.get("model_type")
    if kind != "clip":
        reason = MEANING.get(str(kind), f"its model_type is {kind!r}, not clip")
        raise UserError(
            f"{name} can't be used: {reason}. Models that can are CLIP's own, such as {PREFIX}openai/clip-vit-base-patch16"
        )
    path = next(
        (path for file in WEIGHTS if os.path.isfile(path := os.path.join(folder, file))), None
    )
    if path is None:
        raise UserError(
            f"{folder} has a {CONFIG}, but neither {' nor '.join(WEIGHTS)}: download the model again, with its weights in one file"
        )
    vision, text = (part_of(config, part, name) for part in DEFAULT_HEADS)
    activation, other = (ACTIVATIONS[part["hidden_act"]] for part in (vision, text))
    if activation != other:
        raise UserError(
            f"{name} can't be used: its encoders have different activations, {vision['hidden_act']} and {text['hidden_act']}"
        )
    state = openai_names(read_state_dict(path), path)
    widths = [state[key].shape[0] for key in ("visual.class_embedding", "ln_final.weight")]
    for width, part in zip(widths, (vision, text)):
        if width % part["num_attention_heads"]:
            raise UserError(
                f"{path} holds another model than {CONFIG}: {width} features don't divide into {part['num_attention_heads']} heads"
            )
    return (
        state,
        path,
        widths[0] // vision["num_attention_heads"],
        widths[1] // text["num_attention_heads"],
        activation,
        read_normalization(os.path.join(folder, PIXELS)),
    )


def find(name: str) -> str:
    """The folder of a model: the given one, or in Hugging Face's cache the newest of that name.

    Raises:
        UserError: it is not there.
    """
    place = os.path.expanduser(name.removeprefix(PREFIX))
    if os.path.isfile(os.path.join(place, CONFIG)):
        return place
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    cache = os.path.join(
        os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"),
        f"models--{place.replace('/', '--')}",
        "snapshots",
    )
    found = [
        folder
        for entry in (os.listdir(cache) if os.path.isdir(cache) else ())
        if os.path.isfile(os.path.join(folder := os.path.join(cache, entry), CONFIG))
    ]
    if not found:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, but no {CONFIG} is in {place}, nor in {cache}: download the model (hf download "
            f"{place}), or give the folder that it is in"
        )
    return max(found, key=os.path.getmtime)


def read_config(path: str) -> dict[str, Any]:
    """
    Raises:
        UserError: it can't be read or is no JSON object.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): download the model again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no config: download the model again")
    return found


def part_of(config: Mapping[str, Any], part: str, name: str) -> dict[str, Any]:
    """The settings of an encoder that its weights don't show, ``hidden_act`` and ``num_attention_heads``.

    Raises:
        UserError: they are none that CLIP's towers can have.
    """
    own = config.get(part)
    defaults = {
        "num_attention_heads": DEFAULT_HEADS[part],
        "hidden_act": "quick_gelu",
        "layer_norm_eps": EPSILON,
    }
    found = {**defaults, **(own if isinstance(own, dict) else {})}
    if str(found["hidden_act"]) not in ACTIVATIONS or found["layer_norm_eps"] != EPSILON:
        raise UserError(
            f"{name} can't be used: its {part} has hidden_act {found['hidden_act']!r} and layer_norm_eps {found['layer_norm_eps']!r}, "
            f"CLIP's are {' or '.join(ACTIVATIONS)}, and {EPSILON}"
        )
    if not isinstance(found["num_attention_heads"], int) or found["num_attention_heads"] < 1:
        raise UserError(
            f"{name} can't be used: its {part} has {found['num_attention_heads']!r} attention heads"
        )
    return found


def openai_names(found: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """A state dict under OpenAI's names.

    Raises:
        UserError: it is none of Hugging Face's CLIPs.
    """
    state = {}
    for key, value in found.items():
        if key.endswith("position_ids"):
            continue
        for pattern, replacement in RENAMED:
            key = re.sub(pattern, replacement, key)
        state[key] = value.T if key in ("text_projection", "visual.proj") else value
    try:
        for key in [key for key in state if ".q_proj." in key]:
            parts = [state.pop(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            state[key.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
        return {
            **state,
            "visual.class_embedding": state["visual.class_embedding"].flatten(),
            "ln_final.weight": state["ln_final.weight"].flatten(),
        }
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} holds no CLIP in Hugging Face's format: {' '.join(str(error).split())} is missing or of another shape"
        ) from error


def read_normalization(path: str) -> Normalization | None:
    """Mean and standard deviation of the pixels; None where the folder doesn't say.

    Raises:
        UserError: the file can't be read, or has others than three numbers each.
    """
    if not os.path.isfile(path):
        return None
    found = read_config(path)
    mean, std = found.get("image_mean"), found.get("image_std")
    for values in (mean, std):
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(isinstance(one, (int, float)) for one in values)
        ):
            raise UserError(
                f"{path} has image_mean {mean!r:.60} and image_std {std!r:.60}, they take three numbers each: download the model again"
            )
    return cast(Normalization, (mean, std))
