"""OpenCLIP's models (Cherti et al., 2023) by the names of the package ``open_clip``, for this package's own towers.

What they share with OpenAI's, that is a ViT or ResNet beside a causal text transformer that is read at end-of-text, is read from
weights of the same names. What the weights don't show is taken from the package: width of the heads, activation, pixels. A logit bias
is left out: the same number on all logits changes no softmax.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import ModuleType
from typing import Any

from torch import Tensor

from ...common.errors import UserError, nearest
from ..transformer import GELU, QUICK_GELU
from .state_dict import read_state_dict

PREFIX = "open_clip:"
Config = dict[str, Any]  # of a model, as open_clip's files have it
Normalization = tuple[
    Sequence[float], Sequence[float]
]  # mean and standard deviation of red, green, blue

# Settings of a model that are in its weights, are used below, or matter in training only; all others must have their defaults.
READ = {
    "": {
        "embed_dim",
        "quick_gelu",
        "init_logit_scale",
        "init_logit_bias",
        "nonscalar_logit_scale",
        "vision_cfg",
        "text_cfg",
    },
    "vision_cfg": {
        "image_size",
        "layers",
        "width",
        "head_width",
        "mlp_ratio",
        "patch_size",
        "patch_dropout",
    },
    "text_cfg": {"context_length", "width", "heads", "layers", "mlp_ratio"},
}
MEANING = {
    "custom_text": "its towers are others than CLIP's",
    "vision_cfg.timm_model_name": "its image encoder is one of timm's",
    "vision_cfg.pool_type": "its image encoder is not read at the class token",
    "vision_cfg.attentional_pool": "its image encoder pools by attention",
    "text_cfg.hf_model_name": "its text encoder is one of transformers'",
    "text_cfg.no_causal_mask": "its text encoder is not causal",
    "text_cfg.pool_type": "its text encoder is not read at the token of the highest id",
    "text_cfg.hf_tokenizer_name": "its tokenizer is not CLIP's",
}


def load(
    name: str, cache_dir: str | None = None
) -> tuple[dict[str, Tensor], str, int, int, str, Normalization | None]:
    """What ``build_backbone`` takes for a model of OpenCLIP's.

    Args:
        name: ``open_clip:<model>/<weights>``; weights are a tag of ``open_clip.list_pretrained``, or the path of a file.
        cache_dir: where downloaded files are kept, ``open_clip``'s own place by default.

    Returns:
        state dict, its path, width of the image encoder's heads, of the text encoder's, activation, and pixels' mean and standard
        deviation, None for a file.

    Raises:
        UserError: the package is not installed, it has no such model or weights, they can't be downloaded or read, they are another
            model's or were trained with another activation, or the model has parts that this package's towers can't express.
    """
    try:
        import open_clip
    except ImportError as error:
        raise UserError(
            f"MODEL.BACKBONE.NAME {name} needs the package open_clip_torch ({error}): pip install open_clip_torch"
        ) from error
    model, _, weights = name.removeprefix(PREFIX).partition("/")
    known = open_clip.list_models()
    if model not in known:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, and open_clip has no model {model!r}{nearest(model, known)}; "
            "open_clip.list_models() lists them"
        )
    config = open_clip.get_model_config(model)
    defaults = {
        "": {"custom_text": False},
        "vision_cfg": asdict(open_clip.CLIPVisionCfg()),
        "text_cfg": asdict(open_clip.CLIPTextCfg()),
    }
    check_expressible(name, config, defaults)
    vision, text = ({**defaults[part], **config[part]} for part in ("vision_cfg", "text_cfg"))
    activation = QUICK_GELU if config.get("quick_gelu") else GELU
    path, normalization = find(open_clip, model, weights, activation, cache_dir)
    state = read_state_dict(path)
    check_widths(state, path, model, vision, text, config["embed_dim"])
    state.pop("logit_bias", None)
    return (
        state,
        path,
        vision["head_width"],
        text["width"] // text["heads"],
        activation,
        normalization,
    )


def check_expressible(name: str, config: Config, defaults: Mapping[str, Config]) -> None:
    """All settings of a model have to be those of CLIP's own models, as far as they are not ``READ``."""

    def differing(part: str, settings: Config) -> Iterator[tuple[str, Any]]:
        for key, value in settings.items():
            free = key in READ[part] and not (
                key in ("image_size", "patch_size") and isinstance(value, (list, tuple))
            )
            if not free and value != defaults[part].get(key):
                yield f"{part}.{key}".strip("."), value

    found = dict(
        setting for part in READ for setting in differing(part, config[part] if part else config)
    )
    if found:
        reasons = [f"{MEANING[key]} ({key})" for key in MEANING if key in found] or [
            f"{key} is {value!r}" for key, value in found.items()
        ]
        raise UserError(
            f"{name} can't be used: {'; '.join(reasons)}. Models that can are built like CLIP's own ViTs and ResNets, such as "
            "ViT-B-16, ViT-L-14, ViT-H-14"
        )


def find(
    open_clip: ModuleType, model: str, weights: str, activation: str, cache_dir: str | None
) -> tuple[str, Normalization | None]:
    """Path of a model's weights, fetched at first use, and the pixels' mean and standard deviation, None for a file.

    Raises:
        UserError: see ``load``.
    """
    facts = open_clip.get_pretrained_cfg(model, weights) if weights else {}
    if facts:
        trained = QUICK_GELU if facts.get("quick_gelu") else GELU
        if trained != activation:
            other = (
                model.removesuffix("-quickgelu")
                if activation == QUICK_GELU
                else f"{model}-quickgelu"
            )
            raise UserError(
                f"the weights {weights} were trained with the activation {trained}, {model} has {activation}: use "
                f"{PREFIX}{other}/{weights}"
            )
        return download(open_clip, model, weights, facts, cache_dir), (facts["mean"], facts["std"])
    if os.path.isfile(weights):
        return weights, None
    tags = open_clip.list_pretrained_tags_by_model(model)
    asked = (
        f"has no weights {weights!r}, which is no file either{nearest(weights, tags)}"
        if weights
        else "needs weights"
    )
    raise UserError(
        f"{PREFIX}{model} {asked}: give {PREFIX}{model}/<weights> with the path of a file or one of "
        f"{', '.join(tags) or 'none'}"
    )


def download(
    open_clip: ModuleType, model: str, weights: str, facts: Config, cache_dir: str | None
) -> str:
    try:
        return open_clip.download_pretrained(facts, cache_dir=cache_dir)
    except (OSError, RuntimeError) as error:
        repository, file_name = os.path.split(facts.get("hf_hub") or "")
        source = (
            f"{file_name or 'open_clip_model.safetensors (or open_clip_pytorch_model.bin)'} of {repository} on the Hugging Face hub"
            if repository
            else f"{os.path.basename(facts['url'])} from {facts['url']}"
        )
        raise UserError(
            f"the weights of {PREFIX}{model}/{weights} can't be downloaded ({' '.join(str(error).split())}); fetch the file "
            f"{source}, put it anywhere, and give MODEL.BACKBONE.NAME {PREFIX}{model}/path/to/the/file"
        ) from error


def check_widths(
    state: Mapping[str, Tensor], path: str, model: str, vision: Config, text: Config, embed_dim: int
) -> None:
    """The widths in the weights have to be the model's: its heads would be wrong for others."""
    expected: dict[str, tuple[int, ...]] = {"text_projection": (text["width"], embed_dim)}
    if isinstance(vision["layers"], int):
        expected["visual.conv1.weight"] = (
            vision["width"],
            3,
            vision["patch_size"],
            vision["patch_size"],
        )
    for key, shape in expected.items():
        if key in state and tuple(state[key].shape) != shape:
            raise UserError(
                f"{path} holds another model than {model}: {key} is {tuple(state[key].shape)}, not {shape}"
            )
