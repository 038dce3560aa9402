"""Image encoders of timm (Wightman, 2019): DINOv2, DINOv3, ConvNeXt and a thousand more, without texts.

The network, its weights' names, its pooling and its pixels are timm's own. The weights come from timm's
list, the Hugging Face hub, a folder or a file.
"""

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...common.errors import UserError, nearest, raise_machines
from ...common.readers import read_json
from ..black_box import ImageBox, NoTexts
from . import Facts, Pixels
from .openai import HUB_FILES
from .repositories import FOLDER_PREFIX, HUB_PREFIX, fetch, in_folder, short
from .state_dict import read_state_dict

log = logging.getLogger(__name__)
TIMM_PREFIX = "timm:"
TIMM_CONFIG = "config.json"
LOG_SCALE = math.log(100)  # CLIP's: no text is compared with, and zeros stay zeros
# of ``timm.create_model``: a repository's ``model_args`` may change the network, and nothing else
NOT_OF_THE_NETWORK = {"checkpoint_path", "pretrained", "scriptable", "exportable", "cache_dir"}


class Described(NamedTuple):
    """A network of timm whose weights are not read yet.

    Attributes:
        name: of the backbone in a run.
        network: timm's name of the network, and of the weights if it has a tag.
        settings: timm's ``PretrainedCfg`` of the weights: classes, pixels, licence.
        model_args: further arguments of the network.
        weights: returns the path of their file, which it downloads where it is not there.
    """

    name: str
    network: str
    settings: Any
    model_args: Mapping[str, Any]
    weights: Callable[[], str]


def load(name: str) -> tuple[dict[str, Tensor], str, Facts]:
    """State dict of a network (the logit scale alone), the path of its weights, and its towers.

    Args:
        name: one of those that ``describe`` takes.

    Raises:
        UserError: the package is not installed, it has no such network or weights, they can't be
            downloaded or read, or they are another network's.
    """
    source = describe(name)
    path = source.weights()
    state = read_state_dict(path)
    try:
        network = build(source, state)
    except Exception as error:  # other names or shapes
        raise_machines(error, path)
        raise UserError(f"{path} holds no weights of {source.network}: {short(error)}") from error
    if licence := source.settings.license:
        log.info("The weights of %s have the licence %s", name, licence)
    kind = f"image encoder without texts ({type(network).__name__})"
    size = source.settings.input_size[-1]
    facts: Facts = {
        "image": ImageBox(network, size, kind, partial(resize, network, source.settings)),
        "text": NoTexts([*network.parameters()], network.head_hidden_size, kind),
        "normalization": (source.settings.mean, source.settings.std),
    }
    return {"logit_scale": torch.tensor(LOG_SCALE)}, path, facts


def pixels(name: str) -> Pixels:
    """Return a network's pixels, by timm's own data config. Nothing is known where the package or the
    network is not there, which ``load`` says."""
    try:
        settings = describe(name).settings
    except UserError:
        return {}
    return {
        "SIZE": settings.input_size[1:],
        "PIXEL_MEAN": list(settings.mean),
        "PIXEL_STD": list(settings.std),
        "INTERPOLATION": settings.interpolation,
        "SQUASH": settings.crop_mode == "squash",
        "CROP_PCT": settings.crop_pct,
    }


def describe(name: str) -> Described:
    """The network of a name.

    Args:
        name: ``timm:<network>`` or ``timm:<network>.<weights>`` of timm's list, ``timm:<network>/<file>``
            with weights of one's own, ``timm:hf-hub:<owner>/<name>`` or ``timm:local-dir:<folder>``.

    Raises:
        UserError: timm is not installed or has no such network, or its description can't be read or
            is of one that can't be used. ``weights`` raises it where there are none.
    """
    try:
        import timm  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"MODEL.BACKBONE.NAME {name} needs the package timm ({error}): pip install timm"
        ) from error
    place = name.removeprefix(TIMM_PREFIX)
    if place.startswith(HUB_PREFIX):
        repository = place.removeprefix(HUB_PREFIX)
        path = fetch(name, repository, [TIMM_CONFIG])
        commit = os.path.basename(os.path.dirname(path))
        source = in_config(name, path, partial(fetch, name, repository, HUB_FILES, commit))
    elif place.startswith(FOLDER_PREFIX):
        folder = os.path.expanduser(place.removeprefix(FOLDER_PREFIX))
        path = in_folder(name, folder, [TIMM_CONFIG])
        source = in_config(name, path, partial(in_folder, name, folder, HUB_FILES))
    else:
        source = in_list(name)
    check_settings(name, source.settings)
    return source


def in_list(name: str) -> Described:
    """A network of timm's list, with weights that it knows or those of a file.

    Raises:
        UserError: as ``describe``.
    """
    import timm

    network, _, file = name.removeprefix(TIMM_PREFIX).partition("/")
    settings = timm.get_pretrained_cfg(network) if timm.is_model(network) else None
    if settings is None:
        known = [*timm.list_models(), *timm.list_pretrained()]
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, and timm has no network or weights {network!r}"
            f"{nearest(network, known)}; timm.list_pretrained() lists them, and {TIMM_PREFIX}{HUB_PREFIX}<owner>/<name> "
            f"and {TIMM_PREFIX}{FOLDER_PREFIX}<folder> take others"
        )
    if file:
        own = dataclasses.replace(settings, license=None)
        return Described(name, network, own, {}, partial(existing, name, file))
    if not settings.hf_hub_id:
        where = f": download {settings.url}, and" if settings.url else ":"
        raise UserError(
            f"the hub has no weights of {name}{where} give {TIMM_PREFIX}{network}/path/to/the/file"
        )
    weights = partial(fetch, name, settings.hf_hub_id, HUB_FILES)
    return Described(name, network, settings, {}, weights)


def existing(name: str, file: str) -> str:
    """The path of a file.

    Raises:
        UserError: it is not there.
    """
    path = os.path.expanduser(file)
    if not os.path.isfile(path):
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, and {path} is not a file: correct the path"
        )
    return path


def in_config(name: str, path: str, weights: Callable[[], str]) -> Described:
    """A network that timm has saved, by its ``config.json``.

    Raises:
        UserError: it holds something else, or a network that the installed timm does not have.
    """
    import timm
    from timm.models import PretrainedCfg

    fields = {field.name for field in dataclasses.fields(PretrainedCfg)}
    try:
        content: Any = read_json(path)
        network = content["architecture"]
        told = {**content, **content.get("pretrained_cfg", {})}
        settings = PretrainedCfg(**{key: told[key] for key in fields & {*told}})
        model_args = dict(content.get("model_args", {}))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise_machines(error, path)
        raise UserError(
            f"{path} can't be read as a network of timm ({short(error)}): download it again"
        ) from error
    if not timm.is_model(str(network)):
        raise UserError(
            f"{path} is of the network {network!r}, which the installed timm does not have"
            f"{nearest(str(network), timm.list_models())}: it may need a newer timm"
        )
    if foreign := NOT_OF_THE_NETWORK & {*model_args}:
        raise UserError(f"{path} can't be used: its model_args have {', '.join(sorted(foreign))}")
    return Described(name, network, settings, model_args, weights)


def check_settings(name: str, settings: Any) -> None:  # noqa: ANN401  (timm's PretrainedCfg)
    """Checks that a network takes square pictures of three colours, resized in a way that we have.

    Raises:
        UserError: it does not.
    """
    sizes = settings.input_size
    whole = isinstance(sizes, (list, tuple)) and all(isinstance(side, int) for side in sizes)
    if not whole or len(sizes) != 3 or sizes[0] != 3 or sizes[1] != sizes[2]:
        raise UserError(
            f"{name} can't be used: its input_size is {sizes}, and pictures here are square and have three colours"
        )
    for key in ("mean", "std"):
        numbers = getattr(settings, key)
        if not isinstance(numbers, (list, tuple)) or len(numbers) != 3:
            raise UserError(f"{name} can't be used: its {key} is {numbers}, not three numbers")
    if settings.crop_mode not in ("center", "squash") or not 0 < settings.crop_pct <= 1:
        raise UserError(
            f"{name} can't be used: its crop_mode is {settings.crop_mode} with crop_pct {settings.crop_pct}, and "
            "pictures here are cut or squashed, without a border"
        )


def build(source: Described, state: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    """timm's own network with these weights, which gives pooled features; every weight is in the state.

    Raises:
        Exception: whatever timm raises for the weights of another network.
    """
    import timm

    classifier = source.settings.classifier
    head = classifier if isinstance(classifier, str) or not classifier else classifier[0]
    classes = len(state[f"{head}.weight"]) if f"{head}.weight" in state else 0
    settings = source.settings.to_dict() | {
        "state_dict": {**state},
        "source": None,
        "custom_load": False,  # a format of the first publication, which the hub's copies have not
        "num_classes": classes,  # else timm leaves out, in silence, the weights that are not there
    }
    network: Any = timm.create_model(
        source.network.partition(".")[0],
        pretrained=True,
        pretrained_cfg=settings,
        **{**source.model_args, "num_classes": classes},
    )
    network.reset_classifier(0)
    return network


def resize(network: Any, settings: Any, image_size: int) -> None:  # noqa: ANN401
    """Makes a network take images of another size, as timm does.

    Raises:
        UserError: it can't, or not that size.
    """
    try:
        if hasattr(network, "set_input_size"):
            network.set_input_size(img_size=(image_size, image_size))
        elif settings.fixed_input_size:
            raise ValueError("its size is fixed")
    except Exception as error:  # sizes that patches or windows don't divide
        raise UserError(
            f"this image encoder takes no images of {image_size} pixels ({short(error)}): give another INPUT.SIZE"
        ) from error
