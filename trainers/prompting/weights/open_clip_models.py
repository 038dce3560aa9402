"""OpenCLIP's models (Cherti et al., 2023) by the names of the package ``open_clip``.

What they share with OpenAI's, a ViT or ResNet beside a causal text transformer that is read at
end-of-text, has the same names in the weights. What the weights don't show comes from the package.
A tower that is another one is taken from the package as it is.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from ...common.errors import UserError, nearest, raise_machines
from ...common.readers import check_archive
from ..black_box import ImageBox, TextBox, Tokenizer
from ..transformer import GELU, QUICK_GELU
from . import Facts, Pixels
from .openai import cached
from .state_dict import check_widths, read_state_dict

PREFIX = "open_clip:"
# Settings of a tower that are in the weights, are used below, or matter in training only; in CLIP's
# own towers all others have their defaults.
FREE = set(
    "image_size layers width head_width heads mlp_ratio patch_size patch_dropout "
    "context_length".split()
)
# of a repository on the hub, one of which has the weights
FILE_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def load(name: str) -> tuple[dict[str, Tensor], str, Facts]:
    """State dict of a model, its path, and what the weights don't show.

    Args:
        name: ``open_clip:<model>/<weights>``; weights are a tag of ``open_clip.list_pretrained``,
            which ``open_clip`` downloads at first use, or the path of a file.

    Raises:
        UserError: the package is not installed, it has no such model or weights, they can't be
            downloaded or read, or they are another model's or were trained with another activation.
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
    vision = {**asdict(open_clip.CLIPVisionCfg()), **config["vision_cfg"]}
    text = {**asdict(open_clip.CLIPTextCfg()), **config["text_cfg"]}
    if not isinstance(vision["image_size"], int):
        raise UserError(
            f"{name} can't be used: its images are {vision['image_size']} pixels, and those of this package are square"
        )
    activation = QUICK_GELU if config.get("quick_gelu") else GELU
    tag = open_clip.get_pretrained_cfg(model, weights) if weights else {}
    if tag:
        trained = QUICK_GELU if tag.get("quick_gelu", config.get("quick_gelu")) else GELU
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
    facts: Facts = {
        "head_width": vision["head_width"],
        "text_head_width": text["width"] // text["heads"],
        "activation": activation,
        "normalization": (tag["mean"], tag["std"]) if tag else None,
    }
    has_own_image = is_clips(vision, open_clip.CLIPVisionCfg())
    has_own_text = is_clips(text, open_clip.CLIPTextCfg())
    if has_own_image and has_own_text:
        state = read_state_dict(path)
        state = {key.removeprefix("text."): value for key, value in state.items()}
        check_widths(state, path, model, vision["width"], text["width"])
        return state, path, facts
    package: Any = load_in_package(name, model, config, path)
    state = {"logit_scale": package.logit_scale.detach()}
    facts["logit_bias"] = None
    if package.logit_bias is not None:
        facts["logit_bias"] = package.logit_bias.detach().reshape(())
    if has_own_image:
        state.update(package.visual.state_dict(prefix="visual."))
    else:
        facts["image"] = ImageBox(package.visual, vision["image_size"], kind_of(package.visual))
    if has_own_text:
        state.update(package.text.state_dict())
    else:
        tokenizer, length = tokenizer_of(name, model)
        facts["text"] = TextBox(
            package.text,
            tokenizer,
            length,
            config["embed_dim"],
            kind_of(package.text),
        )
    return state, path, facts


def pixels(name: str) -> Pixels:
    """How a model's pixels are made; of a file what is the same for all published weights of the model.
    Nothing is known where the package or the model is not there, which ``load`` says."""
    try:
        import open_clip
    except ImportError:
        return {}
    model, _, weights = name.removeprefix(PREFIX).partition("/")
    config = open_clip.get_model_config(model)
    if config is None:
        return {}
    size = config["vision_cfg"].get("image_size", open_clip.CLIPVisionCfg().image_size)
    known: Pixels = {"SIZE": (size, size)}
    tag = open_clip.get_pretrained_cfg(model, weights) if weights else {}
    tags = open_clip.list_pretrained_tags_by_model(model)
    settings = [tag] if tag else [open_clip.get_pretrained_cfg(model, each) for each in tags]
    for key, field in (
        ("PIXEL_MEAN", "mean"),
        ("PIXEL_STD", "std"),
        ("INTERPOLATION", "interpolation"),
        ("SQUASH", "resize_mode"),
    ):
        values = [setting[field] for setting in settings if field in setting]
        if values and all(value == values[0] for value in values):
            known[key] = list(values[0]) if key.startswith("PIXEL") else values[0]
    if "SQUASH" in known:
        known["SQUASH"] = known["SQUASH"] == "squash"
    return known


def is_cached(repository: str) -> bool:
    """Whether the package is installed, and the weights of a repository on the hub are in the cache."""
    has_package = find_spec("open_clip") is not None
    return has_package and any(cached(repository, file) for file in FILE_NAMES)


def is_clips(settings: Mapping[str, object], defaults: object) -> bool:
    """Whether a tower is CLIP's own: what is not ``FREE`` is as in the defaults, a dataclass."""
    usual = vars(defaults)
    return all(
        key in FREE or key in usual and value == usual[key] for key, value in settings.items()
    )


def load_in_package(name: str, model: str, config: Mapping[str, object], path: str) -> nn.Module:
    """The package's own model with the weights of a file.

    Raises:
        UserError: a part of it can't be had, or the file is another model's.
    """
    import open_clip

    try:
        package = build(config)
    except Exception as error:  # whatever timm, transformers and the hub may raise
        raise_machines(error, name)
        raise UserError(
            f"{name} can't be built by open_clip: {short(error)}. It may need a newer timm or transformers, "
            "or a file from the Hugging Face hub"
        ) from error
    try:
        if not path.endswith(".safetensors"):
            check_archive(path)
        open_clip.load_checkpoint(package, path)
    except Exception as error:  # damaged bytes, other names or shapes
        raise_machines(error, path)
        raise UserError(f"{path} holds no weights of {model}: {short(error)}") from error
    return package


def build(config: Mapping[str, object]) -> nn.Module:
    """The package's own model of a config with random weights, its towers named ``visual`` and
    ``text``."""
    import open_clip

    settings: dict[str, Any] = {**config}
    settings.pop("custom_text", None)
    settings["text_cfg"] = {**settings["text_cfg"], "hf_model_pretrained": False}
    kind = open_clip.CoCa if "multimodal_cfg" in settings else open_clip.CustomTextCLIP
    model: nn.Module = kind(**settings)
    return model


def tokenizer_of(name: str, model: str) -> tuple[Tokenizer, int]:
    """The package's tokenizer of a model, and the length of its texts.

    Raises:
        UserError: its files can't be had.
    """
    import open_clip

    try:
        tokenizer = open_clip.get_tokenizer(model)
        return tokenizer, tokenizer.context_length
    except Exception as error:  # of transformers and of the hub
        raise_machines(error, name)
        raise UserError(
            f"the tokenizer of {name} can't be had: {short(error)}. It needs transformers (pip install transformers), and "
            "its files come from the Hugging Face hub at first use: start once where there is a network"
        ) from error


def kind_of(tower: nn.Module) -> str:
    """What messages call a tower that is taken as it is: the network in it, of timm or transformers, if
    it is an adapter for one."""
    has_pooler = hasattr(tower, "pooler")  # of an adapter for transformers
    network = getattr(tower, "trunk", tower.transformer if has_pooler else None)
    return f"black box ({type(network or tower).__name__})"


def short(error: Exception) -> str:
    """The beginning of an error's message in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
