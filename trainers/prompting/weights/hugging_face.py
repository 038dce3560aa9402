"""CLIPs as Hugging Face's ``transformers`` saves them: a folder with config and weights."""

import os
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import UserError, raise_machines
from ...common.hub import path_in_cache
from ...common.readers import read_json
from ..black_box import ImageBox, TextBox
from ..transformer import GELU, QUICK_GELU
from . import Facts, Normalization, Pixels
from .openai import HUB_FILES
from .state_dict import check_widths, read_state_dict

HF_PREFIX = "hf:"
EPSILON = 1e-5  # of CLIP's layer norms
# model types whose towers are taken as they are: of SigLIP, SigLIP 2 for any shape, MetaCLIP 2
TAKEN = ("siglip", "siglip2", "metaclip_2")
RESAMPLINGS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers → names


def load(name: str) -> tuple[dict[str, Tensor], str, Facts]:
    """Return the state dict of a model, its path, and the facts that weights don't show.

    Args:
        name: ``hf:<owner>/<name>`` of a model that is in Hugging Face's cache, or, with or without
            ``hf:``, the path of a folder.

    Raises:
        UserError: ``transformers`` is not installed, a file is missing or can't be read, or the
            model is none of ``TAKEN``.
    """
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise UserError(
            f"MODEL.BACKBONE.NAME {name} needs the package transformers ({error}): "
            "pip install transformers"
        ) from error
    folder = folder_of(name)
    if not folder:
        place = os.path.expanduser(name.removeprefix(HF_PREFIX))
        raise UserError(
            f"MODEL.BACKBONE.NAME is {HF_PREFIX}{place}, which is neither a folder nor in "
            f"Hugging Face's cache: download it (hf download {place}), or give the folder it is in"
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever stands in the file goes through transformers' own checks
        raise_machines(error, folder)
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} has no config of a CLIP: {reason}") from error
    if config.model_type in TAKEN:
        return taken_as_it_is(folder, config)
    if config.model_type != "clip":
        raise UserError(
            f"{name} can't be used: its model_type is {config.model_type}, not clip, {', '.join(TAKEN)}"
        )
    vision = config.vision_config
    text = config.text_config
    check_alike(name, vision, text)
    paths = [f"{folder}/{file}" for file in HUB_FILES]
    path = next(filter(os.path.isfile, paths), "")
    if not path:
        raise UserError(
            f"{folder} has neither {' nor '.join(HUB_FILES)}: download the model again, with its "
            "weights in one file"
        )
    state = read_state_dict(path)
    check_widths(state, path, "config.json's", vision.hidden_size, text.hidden_size)
    facts: Facts = {
        "head_width": vision.hidden_size // vision.num_attention_heads,
        "text_head_width": text.hidden_size // text.num_attention_heads,
        "activation": vision.hidden_act,
        "normalization": normalization(f"{folder}/preprocessor_config.json"),
    }
    return state, path, facts


def check_alike(name: str, vision: object, text: object) -> None:
    """Check that a CLIP's two towers have the same activation and the same epsilon, which ours have.

    vision, text: their configurations.

    Raises:
        UserError: they have not.
    """
    for key in ("hidden_act", "layer_norm_eps"):
        values = getattr(vision, key), getattr(text, key)
        if values[0] != values[1] or values[0] not in (QUICK_GELU, GELU, EPSILON):
            raise UserError(
                f"{name} can't be used: {key} is {values[0]} in its image encoder and {values[1]} "
                f"in its text encoder; CLIP's are quick_gelu or gelu in both, and {EPSILON}"
            )


class Features(nn.Module):
    """One of the two towers of a model of ``transformers``.

    Args:
        model: the whole of it; method: ``get_image_features`` or ``get_text_features``.
        patch_size: of models that take patches in place of an image; 0: they take images.
    """

    def __init__(self, model: nn.Module, method: str, patch_size: int = 0) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.patch_size = patch_size

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, 3, H, W), or token ids (N, L) → (N, E)."""
        further = {}
        if self.patch_size:
            sides = torch.tensor(inputs.shape[2:], device=inputs.device) // self.patch_size
            inputs = patches(inputs, self.patch_size)  # (N, P, 3 p²)
            further["spatial_shapes"] = sides.expand(len(inputs), 2)
            further["pixel_attention_mask"] = inputs.new_ones(inputs.shape[:2], dtype=torch.long)
        output = getattr(self.model, self.method)(inputs, **further)
        features: Tensor = output.pooler_output
        return features


def patches(images: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) → (N, P, p · p · 3): row by row, in each its pixels row by row."""
    blocks = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (N, 3, H/p, p, W/p, p)
    flat: Tensor = blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return flat


def taken_as_it_is(folder: str, settings: object) -> tuple[dict[str, Tensor], str, Facts]:
    """Return ``load`` of a model whose towers are not CLIP's own, but taken as they are.

    Raises:
        UserError: its weights or its tokenizer can't be read.
    """
    from transformers import AutoModel, AutoTokenizer

    config: Any = settings  # of transformers
    try:
        model = AutoModel.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32)
        words = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever stands in the files
        raise_machines(error, folder)
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{folder} has no weights or no tokenizer that transformers can read ({reason}): download the model again"
        ) from error

    def tokenizer(texts: list[str], length: int) -> Tensor:
        tokens = words(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        ids: Tensor = tokens.input_ids
        return ids

    text = config.text_config
    size = image_size(config.vision_config)
    patch_size = config.vision_config.patch_size if config.model_type == "siglip2" else 0
    length = text.max_position_embeddings
    width = getattr(text, "projection_size", None) or config.projection_dim
    kind = f"black box ({type(model).__name__})"
    bias = getattr(model, "logit_bias", None)
    facts: Facts = {
        "image": ImageBox(Features(model, "get_image_features", patch_size), size, kind),
        "text": TextBox(Features(model, "get_text_features"), tokenizer, length, width, kind),
        "logit_bias": None if bias is None else bias.detach().reshape(()),
        "normalization": normalization(f"{folder}/preprocessor_config.json"),
    }
    return {"logit_scale": model.logit_scale.detach()}, folder, facts


def image_size(tower: object) -> int:
    """Return the pixels a side of the images of an image tower's config; where it has a number of
    patches, of a square of so many."""
    vision: Any = tower  # of transformers
    if hasattr(vision, "num_patches"):
        return int(vision.num_patches**0.5) * int(vision.patch_size)
    return int(vision.image_size)


def folder_of(name: str) -> str:
    """The folder of a model; "" where there is none."""
    place = os.path.expanduser(name.removeprefix(HF_PREFIX))
    return place if os.path.isdir(place) else os.path.dirname(path_in_cache(place, "config.json"))


def pixels(name: str) -> Pixels:
    """Return a model's pixels, as far as its files tell; ``load`` names their faults."""
    folder = folder_of(name)
    try:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        size = image_size(config.vision_config)
        known: Pixels = {"SIZE": (size, size)}
        if values := normalization(f"{folder}/preprocessor_config.json"):
            known["PIXEL_MEAN"], known["PIXEL_STD"] = (list(part) for part in values)
            settings: Any = read_json(f"{folder}/preprocessor_config.json")
            known["INTERPOLATION"] = RESAMPLINGS[settings.get("resample", 3)]
            known["SQUASH"] = not settings.get("do_center_crop", config.model_type == "clip")
    except Exception as error:  # damaged files, or no transformers
        raise_machines(error, folder)
        return {}
    return known


def normalization(path: str) -> Normalization | None:
    """Mean and standard deviation of the pixels; None where the file is missing.

    Raises:
        UserError: it can't be read, or has others than three numbers each.
    """
    if not os.path.isfile(path):
        return None
    try:
        settings = read_json(path)
        mean, std = ([*map(float, settings[f"image_{key}"])] for key in ("mean", "std"))
        if (len(mean), len(std)) != (3, 3):
            raise ValueError("they are not three numbers")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise_machines(error, path)
        raise UserError(
            f"{path} has no image_mean and image_std ({error!r}): download the model again"
        ) from error
    return mean, std
