"""OpenCLIP's models (Cherti et al., 2023), of its list, of the Hugging Face hub or of a folder.

The parts that they share with OpenAI's, a ViT or ResNet beside a causal text transformer that is read at
end-of-text, have the same names in the weights. Facts that weights don't show come from the package.
A tower that is another one is taken from the package as it is.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from ...common.errors import UserError, raise_machines
from ...common.hub import download_those, path_in_cache
from ...common.readers import check_archive
from ..black_box import ImageBox, TextBox, Tokenizer
from . import Facts, Pixels
from .open_clip_sources import FILE_NAMES, Config, Described, activation_of, describe
from .repositories import FOLDER_PREFIX, HUB_PREFIX, short
from .state_dict import check_widths, read_state_dict

log = logging.getLogger(__name__)
# Files that transformers reads of a text tower's repository. They are downloaded for it: its own
# downloads join a text of the server to a path.
NETWORK_FILES = ("config.json",)
TOKENIZER_FILES = (
    *("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model"),
    *("sentencepiece.bpe.model", *NETWORK_FILES),
)
# Settings of a tower that are in the weights, are used below, or matter in training only; in CLIP's
# own towers all others have their defaults.
FREE = set(
    "image_size layers width head_width heads mlp_ratio patch_size patch_dropout "
    "context_length".split()
)


def load(name: str) -> tuple[dict[str, Tensor], str, Facts]:
    """Return the state dict of a model, its path, and the facts that weights don't show.

    Args:
        name: as in ``describe``; in ``open_clip:<model>/<weights>`` weights are a tag of
            ``open_clip.list_pretrained`` or the path of a file. Weights that are not on this machine are
            downloaded at first use.

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
    source = describe(name)
    path = source.weights()
    vision = {**asdict(open_clip.CLIPVisionCfg()), **source.config["vision_cfg"]}
    text = {**asdict(open_clip.CLIPTextCfg()), **source.config["text_cfg"]}
    facts: Facts = {
        "head_width": vision["head_width"],
        "text_head_width": text["width"] // text["heads"],
        "activation": activation_of(source.config),
        "normalization": source.normalization,
    }
    has_own_image = is_clips(vision, open_clip.CLIPVisionCfg())
    has_own_text = is_clips(text, open_clip.CLIPTextCfg())
    if has_own_image and has_own_text:
        state = read_state_dict(path)
        state = {key.removeprefix("text."): value for key, value in state.items()}
        check_widths(state, path, source.model, vision["width"], text["width"])
        return state, path, facts
    package: Any = load_in_package(source, path)
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
        facts["text"] = text_box(source, package.text)
    return state, path, facts


def pixels(name: str) -> Pixels:
    """Return how a model wants its pixels (size, mean …); empty where the package or the model is missing,
    which ``load`` reports."""
    try:
        return describe(name).pixels
    except (ImportError, UserError):
        return {}


def is_cached(repository: str) -> bool:
    """Whether the package is installed, and the weights of a repository on the hub are in the cache."""
    has_package = find_spec("open_clip") is not None
    return has_package and any(path_in_cache(repository, file) for file in FILE_NAMES)


def is_clips(settings: Mapping[str, object], defaults: object) -> bool:
    """Whether a tower is CLIP's own: settings that are not ``FREE`` are as in the defaults, a dataclass."""
    usual = vars(defaults)
    return all(
        key in FREE or key in usual and value == usual[key] for key, value in settings.items()
    )


def load_in_package(source: Described, path: str) -> nn.Module:
    """The package's own model with the weights of a file.

    Raises:
        UserError: a part of it can't be had, or the file is another model's.
    """
    import open_clip

    try:
        package = build(source.config)
    except Exception as error:  # whatever timm, transformers and the hub may raise
        raise_machines(error, source.name)
        files = "".join(
            f", and the files of {each} on the hub" for each in text_repositories(source)
        )
        raise UserError(
            f"{source.name} can't be built by open_clip: {short(error)}. It may need a newer timm or transformers{files}"
        ) from error
    try:
        if not path.endswith(".safetensors"):
            check_archive(path)
        open_clip.load_checkpoint(package, path)
    except Exception as error:  # damaged bytes, other names or shapes
        raise_machines(error, path)
        raise UserError(f"{path} holds no weights of {source.model}: {short(error)}") from error
    return package


def build(config: Config) -> nn.Module:
    """The package's own model of a config with random weights, its towers named ``visual`` and
    ``text``."""
    import open_clip

    settings: dict[str, Any] = {**config}
    settings.pop("custom_text", None)
    text = {**settings["text_cfg"], "hf_model_pretrained": False}
    if network := text.get("hf_model_name"):
        text["hf_model_name"] = download_those(network, NETWORK_FILES, NETWORK_FILES[0])
    settings["text_cfg"] = text
    settings["vision_cfg"] = {**settings["vision_cfg"], "timm_model_pretrained": False}
    kind = open_clip.CoCa if "multimodal_cfg" in settings else open_clip.CustomTextCLIP
    model: nn.Module = kind(**settings)
    return model


def text_box(source: Described, tower: nn.Module) -> TextBox:
    """A text tower that is taken as it is, with its tokenizer.

    Raises:
        UserError: as ``tokenizer_of``.
    """
    if repositories := text_repositories(source):
        log.info(
            "The texts of %s need files of %s on the hub: a machine without a network needs them in its "
            "cache (hf download %s)",
            source.name,
            " and ".join(repositories),
            repositories[0],
        )
    tokenizer, length = tokenizer_of(source)
    return TextBox(tower, tokenizer, length, source.config["embed_dim"], kind_of(tower))


def tokenizer_of(source: Described) -> tuple[Tokenizer, int]:
    """The package's tokenizer of a model, and the length of its texts.

    Raises:
        UserError: its files can't be had.
    """
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    text = source.config["text_cfg"]
    length = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    settings = {"context_length": length, **text.get("tokenizer_kwargs", {})}
    repository = text.get("hf_tokenizer_name")
    if not repository:
        return SimpleTokenizer(**settings), length
    if "tokenizer_mode" in text:
        settings["tokenizer_mode"] = text["tokenizer_mode"]
    is_folder = source.model.startswith(FOLDER_PREFIX)
    try:
        folder = source.model.removeprefix(FOLDER_PREFIX)
        if not is_folder:
            folder = download_those(repository, TOKENIZER_FILES, TOKENIZER_FILES[0])
        words = HFTokenizer(folder, local_files_only=True, trust_remote_code=False, **settings)
        return words, length
    except Exception as error:  # of transformers and of the hub
        raise_machines(error, source.name)
        place = f" --local-dir {source.model.removeprefix(FOLDER_PREFIX)}" if is_folder else ""
        raise UserError(
            f"the tokenizer of {source.name} can't be had: {short(error)}. It needs transformers (pip install transformers) "
            f"and the tokenizer's files of {repository}: where there is a network, hf download {repository}{place}"
        ) from error


def text_repositories(source: Described) -> list[str]:
    """The repositories on the hub that a text tower needs beside the model's own: of its network's
    configuration and of its tokenizer."""
    text = source.config["text_cfg"]
    own = source.model.removeprefix(HUB_PREFIX)
    names = [text.get("hf_model_name")]
    if not source.model.startswith(FOLDER_PREFIX):  # where open_clip looks for the tokenizer
        names.append(text.get("hf_tokenizer_name"))
    return [name for name in dict.fromkeys(names) if name and name != own]


def kind_of(tower: nn.Module) -> str:
    """Return the name in messages of a tower that is taken as it is: its network, of timm or transformers, if
    it is an adapter for one."""
    has_pooler = hasattr(tower, "pooler")  # of an adapter for transformers
    network = getattr(tower, "trunk", tower.transformer if has_pooler else None)
    return f"black box ({type(network or tower).__name__})"
