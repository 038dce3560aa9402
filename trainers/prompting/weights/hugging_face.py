"""CLIPs as Hugging Face's ``transformers`` saves them: a folder with config and weights."""

import os

from torch import Tensor

from ...common.errors import UserError, raise_machines
from ...common.readers import read_json
from ..transformer import GELU, QUICK_GELU
from . import Facts, Normalization
from .openai import HUB_FILES, cached
from .state_dict import check_widths, read_state_dict

PREFIX = "hf:"
EPSILON = 1e-5  # of CLIP's layer norms


def load(name: str) -> tuple[dict[str, Tensor], str, Facts]:
    """State dict of a model, its path, and what the weights don't show.

    Args:
        name: ``hf:<owner>/<name>`` of a model that is in Hugging Face's cache, or, with or without
            ``hf:``, the path of a folder.

    Raises:
        UserError: ``transformers`` is not installed, a file is missing or can't be read, or the
            model has parts that this package's towers can't express.
    """
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise UserError(
            f"MODEL.BACKBONE.NAME {name} needs the package transformers ({error}): "
            "pip install transformers"
        ) from error
    place = os.path.expanduser(name.removeprefix(PREFIX))
    folder = place if os.path.isdir(place) else os.path.dirname(cached(place, "config.json"))
    if not folder:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {PREFIX}{place}, which is neither a folder nor in "
            f"Hugging Face's cache: download it (hf download {place}), or give the folder it is in"
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever stands in the file goes through transformers' own checks
        raise_machines(error, folder)
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} has no config of a CLIP: {reason}") from error
    if config.model_type != "clip":
        raise UserError(
            f"{name} can't be used: its model_type is {config.model_type}, not clip. Models that "
            f"can are CLIP's own, such as {PREFIX}openai/clip-vit-base-patch16"
        )
    vision = config.vision_config
    text = config.text_config
    for key in ("hidden_act", "layer_norm_eps"):
        values = getattr(vision, key), getattr(text, key)
        if values[0] != values[1] or values[0] not in (QUICK_GELU, GELU, EPSILON):
            raise UserError(
                f"{name} can't be used: {key} is {values[0]} in its image encoder and {values[1]} "
                f"in its text encoder; CLIP's are quick_gelu or gelu in both, and {EPSILON}"
            )
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


def normalization(path: str) -> Normalization | None:
    """Mean and standard deviation of the pixels; None where there is no such file.

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
