"""OpenCLIP's models (Cherti et al., 2023) by the names of the package ``open_clip``.

What they share with OpenAI's, a ViT or ResNet beside a causal text transformer that is read at
end-of-text, has the same names in the weights. What the weights don't show comes from the package.
"""

import os
from dataclasses import asdict

from torch import Tensor

from ...common.errors import UserError, nearest
from ..transformer import GELU, QUICK_GELU
from . import Facts
from .state_dict import check_widths, read_state_dict

PREFIX = "open_clip:"
# Settings that are in the weights, are used below, or matter in training only; all others must
# have their defaults.
FREE = set(
    "embed_dim quick_gelu init_logit_scale init_logit_bias nonscalar_logit_scale vision_cfg "
    "text_cfg image_size layers width head_width heads mlp_ratio patch_size patch_dropout "
    "context_length".split()
)


def load(name: str) -> tuple[dict[str, Tensor], str, Facts]:
    """State dict of a model, its path, and what the weights don't show.

    Args:
        name: ``open_clip:<model>/<weights>``; weights are a tag of ``open_clip.list_pretrained``,
            which ``open_clip`` downloads at first use, or the path of a file.

    Raises:
        UserError: the package is not installed, it has no such model or weights, they can't be
            downloaded or read, they are another model's or were trained with another activation,
            or the model has parts that this package's towers can't express.
    """
    try:
        import open_clip
    except ImportError as error:
        raise UserError(
            f"MODEL.BACKBONE.NAME {name} needs the package open_clip_torch ({error}): "
            "pip install open_clip_torch"
        ) from error
    model, _, weights = name.removeprefix(PREFIX).partition("/")
    known = open_clip.list_models()
    if model not in known:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, and open_clip has no model {model!r}"
            f"{nearest(model, known)}; open_clip.list_models() lists them"
        )
    config = open_clip.get_model_config(model)
    defaults = {
        "": {"custom_text": False},
        "vision_cfg.": asdict(open_clip.CLIPVisionCfg()),
        "text_cfg.": asdict(open_clip.CLIPTextCfg()),
    }
    vision, text = ({**defaults[f"{part}."], **config[part]} for part in ("vision_cfg", "text_cfg"))
    odd = [
        f"{part}{key} is {value!r}"
        for part, settings in {"": config, "vision_cfg.": vision, "text_cfg.": text}.items()
        for key, value in settings.items()
        if value != defaults[part].get(key)
        and (key not in FREE or key == "image_size" and not isinstance(value, int))
    ]
    if odd:
        raise UserError(
            f"{name} can't be used, since its towers are not CLIP's: {', '.join(odd)}. Models that "
            "can are built like CLIP's own ViTs and ResNets, such as ViT-B-16, ViT-L-14, ViT-H-14"
        )
    activation = QUICK_GELU if config.get("quick_gelu") else GELU
    tag = open_clip.get_pretrained_cfg(model, weights) if weights else {}
    if tag:
        trained = QUICK_GELU if tag.get("quick_gelu") else GELU
        if trained != activation:
            is_quick = model.endswith("-quickgelu")
            other = model.removesuffix("-quickgelu") if is_quick else f"{model}-quickgelu"
            raise UserError(
                f"the weights {weights} were trained with the activation {trained}, {model} has "
                f"{activation}: use {PREFIX}{other}/{weights}"
            )
        try:
            path = open_clip.download_pretrained(tag)
        except (OSError, RuntimeError) as error:
            hub = os.path.dirname(tag.get("hf_hub") or "")
            raise UserError(
                f"the weights of {name} can't be downloaded ({' '.join(str(error).split())}); "
                f"fetch their file from {f'https://huggingface.co/{hub}' if hub else tag['url']}, "
                f"put it anywhere, and give MODEL.BACKBONE.NAME {PREFIX}{model}/path/to/the/file"
            ) from error
    elif os.path.isfile(weights):
        path = weights
    else:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, and {weights!r} is neither a file nor among the "
            f"weights of {model}{nearest(weights, tags)}: {', '.join(tags) or 'there are none'}"
        )
    state = read_state_dict(path)
    check_widths(state, path, model, vision["width"], text["width"])
    facts: Facts = {
        "head_width": vision["head_width"],
        "text_head_width": text["width"] // text["heads"],
        "activation": activation,
        "normalization": (tag["mean"], tag["std"]) if tag else None,
    }
    return state, path, facts
