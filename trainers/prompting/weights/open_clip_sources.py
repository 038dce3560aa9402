"""Sources of ``open_clip``'s models: its list, a repository on the Hugging Face hub, or a
folder. Each source gives the configuration, the pixels and the weights; nothing is built here.

A repository and a folder hold ``open_clip_config.json`` with ``model_cfg`` and ``preprocess_cfg``, as
``open_clip``'s ``push_to_hf_hub`` and ``save_for_hf`` write them.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ...common.errors import UserError, nearest, raise_machines
from ...common.readers import read_json
from ..transformer import GELU, QUICK_GELU
from . import Normalization, Pixels
from .openai import HUB_FILES
from .repositories import FOLDER_PREFIX, HUB_PREFIX, fetch, first_of, in_folder, short

OPEN_CLIP_PREFIX = "open_clip:"
OPEN_CLIP_CONFIG = "open_clip_config.json"
# the weights in a repository or a folder; the first that exists is taken
FILE_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
RESIZE_MODES = ("shortest", "squash")
# of a tokenizer; others, such as trust_remote_code, may run a repository's code
TOKENIZER_SETTINGS = {"clean", "strip_sep_token", "language"}

Config = Mapping[str, Any]  # open_clip's ``model_cfg``


class Described(NamedTuple):
    """A model whose weights are not read yet.

    Attributes:
        name: its name in a run.
        model: what ``open_clip.get_tokenizer`` knows it by.
        config: with ``embed_dim``, ``vision_cfg`` and ``text_cfg``.
        pixels: how its pixels are made, as far as that is known.
        normalization: mean and deviation that these very weights were trained with, if known.
        weights: returns the path of their file, which it downloads where it is not there.
    """

    name: str
    model: str
    config: Config
    pixels: Pixels
    normalization: Normalization | None
    weights: Callable[[], str]


def describe(name: str) -> Described:
    """The model of a name; ``open_clip`` is installed.

    Args:
        name: ``open_clip:<model>/<weights>``, ``open_clip:hf-hub:<owner>/<name>`` or
            ``open_clip:local-dir:<folder>``.

    Raises:
        UserError: the model is unknown, its configuration can't be read, or it is not one of
            images and texts. ``weights`` raises it where there are none.
    """
    place = name.removeprefix(OPEN_CLIP_PREFIX)
    if place.startswith(HUB_PREFIX):
        repository = place.removeprefix(HUB_PREFIX)
        path = fetch(name, repository, [OPEN_CLIP_CONFIG])
        config, settings = read_config(name, path)
        commit = os.path.basename(os.path.dirname(path))
        weights = partial(fetch, name, repository, FILE_NAMES, commit)
    elif place.startswith(FOLDER_PREFIX):
        folder = os.path.expanduser(place.removeprefix(FOLDER_PREFIX))
        place = f"{FOLDER_PREFIX}{folder}"
        config, settings = read_config(name, in_folder(name, folder, [OPEN_CLIP_CONFIG]))
        weights = partial(in_folder, name, folder, [*FILE_NAMES, *HUB_FILES])
    else:
        return in_list(name)
    normalization = settings["mean"], settings["std"]
    return Described(name, place, config, pixels_of([settings], config), normalization, weights)


# ---- open_clip's list ----


def in_list(name: str) -> Described:
    """Return a model of open_clip's list, with published weights by their name or a file of weights.

    Raises:
        UserError: as ``describe``.
    """
    import open_clip

    model, _, weights = name.removeprefix(OPEN_CLIP_PREFIX).partition("/")
    known = open_clip.list_models()
    if model not in known:
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, and open_clip has no model {model!r}"
            f"{nearest(model, known)}; open_clip.list_models() lists them, and {OPEN_CLIP_PREFIX}{HUB_PREFIX}<owner>/<name> "
            f"and {OPEN_CLIP_PREFIX}{FOLDER_PREFIX}<folder> take others"
        )
    config = open_clip.get_model_config(model)
    check_config(name, config)
    tag = open_clip.get_pretrained_cfg(model, weights) if weights else {}
    # a file has the settings that all published weights of the model share
    tags = open_clip.list_pretrained_tags_by_model(model)
    settings = [tag] if tag else [open_clip.get_pretrained_cfg(model, each) for each in tags]
    return Described(
        name,
        model,
        config,
        pixels_of(settings, config),
        (tag["mean"], tag["std"]) if "mean" in tag else None,
        partial(listed_weights, name, config, tag),
    )


def listed_weights(name: str, config: Config, tag: Mapping[str, Any]) -> str:
    """The path of a listed model's weights; tag: the package's facts of them, empty for a file.

    Raises:
        UserError: there are none, they can't be downloaded, or they were trained with another
            activation than the model has.
    """
    import open_clip

    model, _, weights = name.removeprefix(OPEN_CLIP_PREFIX).partition("/")
    if not tag and os.path.isfile(weights):
        return weights
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, and {weights!r} is neither a file nor among the "
            f"weights of {model}{nearest(weights, tags)}: {', '.join(tags) or 'there are none'}"
        )
    trained = activation_of({**config, **tag})
    if trained != activation_of(config):
        is_quick = model.endswith("-quickgelu")
        other = model.removesuffix("-quickgelu") if is_quick else f"{model}-quickgelu"
        raise UserError(
            f"the weights {weights} were trained with the activation {trained}, {model} has "
            f"{activation_of(config)}: use {OPEN_CLIP_PREFIX}{other}/{weights}"
        )
    repository, file = os.path.split(tag.get("hf_hub") or "")
    files = [f"{os.path.splitext(file)[0]}.safetensors", file] if file else FILE_NAMES
    try:
        if repository:
            return first_of(repository, files)
        path: str = open_clip.download_pretrained(tag)
        return path
    except Exception as error:  # of the hub, of the network
        raise_machines(error, repository)
        raise UserError(
            f"the weights of {name} can't be downloaded ({short(error)}); "
            f"fetch their file from {f'https://huggingface.co/{repository}' if repository else tag['url']}, "
            f"put it anywhere, and give MODEL.BACKBONE.NAME {OPEN_CLIP_PREFIX}{model}/path/to/the/file"
        ) from error


def activation_of(config: Config) -> str:
    """The activation of the MLPs."""
    return QUICK_GELU if config.get("quick_gelu") else GELU


# ---- repositories and folders ----


def read_config(name: str, path: str) -> tuple[Config, Mapping[str, Any]]:
    """``model_cfg`` of a file, and ``preprocess_cfg`` with open_clip's defaults.

    Raises:
        UserError: it holds something else.
    """
    from open_clip.transform import PreprocessCfg

    try:
        content: Any = read_json(path)
        config = dict(content["model_cfg"])
        settings = {**vars(PreprocessCfg()), **content.get("preprocess_cfg", {})}
        numbers = [float(number) for key in ("mean", "std") for number in settings[key]]
        if (len(settings["mean"]), len(numbers)) != (3, 6):
            raise ValueError("its mean and std are not three numbers each")
        if settings["resize_mode"] not in RESIZE_MODES:
            raise ValueError(f"its resize_mode is not {' or '.join(RESIZE_MODES)}")
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise_machines(error, path)
        raise UserError(
            f"{path} can't be read as a model of open_clip with model_cfg and preprocess_cfg "
            f"({short(error)}): download it again"
        ) from error
    check_config(name, config)
    return config, settings


# ---- shared by all sources ----


def check_config(name: str, config: Config) -> None:
    """Checks that a configuration is of a model of images and texts that we can use.

    Raises:
        UserError: it is not.
    """
    vision: Any = config.get("vision_cfg")
    text: Any = config.get("text_cfg")
    if not (isinstance(vision, dict) and isinstance(text, dict) and "embed_dim" in config):
        raise UserError(
            f"{name} is not a model of images and texts: its configuration lacks embed_dim, vision_cfg or "
            "text_cfg. Choose another model"
        )
    size = vision.get("image_size", 224)
    if not isinstance(size, int):
        raise UserError(
            f"{name} can't be used: its images are {size} pixels, and those of this package are square"
        )
    numbers = {"embed_dim": config["embed_dim"], "image_size": size}
    for part in (vision, text):
        numbers |= {key: part[key] for key in ("width", "heads", "head_width") if key in part}
    for key, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} can't be used: its {key} is {value!r}, not a number from 1 on")
    kwargs = text.get("tokenizer_kwargs", {})
    if not isinstance(kwargs, dict) or {*kwargs} - TOKENIZER_SETTINGS:
        raise UserError(
            f"{name} can't be used: its tokenizer_kwargs are {kwargs}, and others than "
            f"{', '.join(sorted(TOKENIZER_SETTINGS))} may run code that comes with it"
        )


def pixels_of(settings: Iterable[Mapping[str, Any]], config: Config) -> Pixels:
    """Return the pixels that several ``preprocess_cfg`` agree on."""
    import open_clip

    size = config["vision_cfg"].get("image_size", open_clip.CLIPVisionCfg().image_size)
    known: Pixels = {"SIZE": (size, size)}
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
