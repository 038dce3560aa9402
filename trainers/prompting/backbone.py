"""A CLIP by name or by file. Every size is read from the weights, so any checkpoint in OpenAI's format loads."""
import hashlib
import logging
import os
import pickle
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from clip import clip
from clip.model import ModifiedResNet
from torch import nn

from ..errors import UserError, nearest
from .image import ImageEncoder, ResNetImageEncoder
from .text import TextEncoder
from .tokens import readable, tokenize

log = logging.getLogger(__name__)

WEIGHTS = {"tiny": Path(__file__).parent / "weights" / "tiny.pt"}  # ours: 64 pixels, made for the embedded data set
HEAD_WIDTH = 64  # the one size that CLIP's state dict does not show; all of CLIP's models share it
SCALARS = ("input_resolution", "context_length", "vocab_size")  # kept in the state dict for the record, not parameters


class Backbone(nn.Module):
    """A frozen CLIP: the two towers and the logit scale.

    Attributes:
        text: ``TextEncoder``.
        image: ``ImageEncoder``, or ``ResNetImageEncoder``.
        takes_visual_prompts: whether the image tower is a ViT.
    """

    def __init__(self, text, image, log_scale):
        super().__init__()
        self.text = text
        self.image = image
        self.register_buffer("log_scale", log_scale)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode=True):
        """Stays in evaluation mode: a frozen CLIP's batch norms must not follow the data."""
        return super().train(False)

    @property
    def logit_scale(self):
        """τ, by which cosines are multiplied (about 100)."""
        return self.log_scale.float().exp()

    def encode_classes(self, template, classnames, normalize=True):
        """Features (K, E) fp32 of a hand-crafted template, with ``{}`` where the class name goes, for K names."""
        tokens = tokenize([template.format(readable(name)) for name in classnames], self.text.context_length)
        features = self.text.encode_tokens(tokens.to(self.log_scale.device)).float()
        return F.normalize(features, dim=-1) if normalize else features

    @property
    def embed_dim(self):
        """Width E of the space that texts and images share."""
        return self.text.text_projection.shape[1]

    @property
    def takes_visual_prompts(self):
        return isinstance(self.image, ImageEncoder)


def load_backbone(name, cache_dir=None):
    """Loads a CLIP in fp32 on the CPU.

    Args:
        name: a name of OpenAI's (``ViT-B/16``, ``RN50`` …), ``tiny`` (ours), or the path of a file: a TorchScript archive
            as OpenAI publishes them, or a state dict saved with ``torch.save``.
        cache_dir: where OpenAI's files are kept, ``~/.cache/clip`` by default.

    Raises:
        UserError: no such name or file, the weights can't be downloaded, or the file holds no CLIP.
    """
    if name in WEIGHTS:
        path = str(WEIGHTS[name])
    elif name in clip._MODELS:
        path = download(name, cache_dir or os.path.expanduser("~/.cache/clip"))
    elif os.path.isfile(name):
        path = name
    else:
        known = [*WEIGHTS, *clip.available_models()]
        raise UserError(f"MODEL.BACKBONE.NAME is {name!r}, which is no file and no known CLIP{nearest(name, known)}; known: "
                        f"{', '.join(known)}")
    backbone = build_backbone(read_state_dict(path), path)
    log.info("Loaded CLIP %s: %s, %d pixels", name, "ViT" if backbone.takes_visual_prompts else "ResNet",
             backbone.image.image_size)
    return backbone


def download(name, cache_dir):
    """Path of OpenAI's weights, fetched at first use.

    Raises:
        UserError: they can't be fetched; the message names the file, where to put it, and the way around.
    """
    url = clip._MODELS[name]
    try:
        return clip._download(url, cache_dir)
    except (OSError, RuntimeError) as error:
        target = os.path.join(cache_dir, os.path.basename(url))
        remove_partial_download(target, url)
        raise UserError(f"the weights of {name} can't be downloaded ({error}); put the file {os.path.basename(url)} from {url} "
                        f"at {target}, give its path as MODEL.BACKBONE.NAME, or use MODEL.BACKBONE.NAME tiny, which comes "
                        "with this package") from error


def remove_partial_download(target, url):
    """``clip`` opens its target before the first byte has come, so a failed download leaves an empty or cut file."""
    if os.path.isfile(target) and hashlib.sha256(Path(target).read_bytes()).hexdigest() != url.split("/")[-2]:
        os.remove(target)


def read_state_dict(path):
    """State dict of a TorchScript archive or of a ``torch.save`` file, all tensors fp32 on the CPU.

    Raises:
        UserError: the file is neither.
    """
    try:
        if is_torchscript(path):
            state = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(f"{path} can't be read as CLIP weights: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds no state dict but a {type(state).__name__}")
    return {key: value.float() for key, value in state.items() if torch.is_tensor(value) and key not in SCALARS}


def first_line(error):
    return str(error).split("\n")[0] or type(error).__name__


def is_torchscript(path):
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def build_backbone(state, source="the state dict"):
    """Towers of the sizes that the weights have, with these weights.

    Args:
        state: CLIP's state dict, OpenAI's names.
        source: named in errors.

    Raises:
        UserError: keys are missing or superfluous.
    """
    needed = ("text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight", "logit_scale")
    missing = [key for key in needed if key not in state]
    if missing:
        raise UserError(f"{source} holds no CLIP in OpenAI's format: {', '.join(missing)} missing")
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    textual = {key: value for key, value in state.items() if not key.startswith("visual.") and key != "logit_scale"}
    width, embed_dim = state["text_projection"].shape
    context_length = state["positional_embedding"].shape[0]
    text = TextEncoder(width, count_layers(textual), width // HEAD_WIDTH, context_length,
                       state["token_embedding.weight"].shape[0], embed_dim)
    image = vision_transformer(visual) if "proj" in visual else resnet(visual, embed_dim)
    network = image if isinstance(image, ImageEncoder) else image.network
    try:
        text.load_state_dict(textual)
        network.load_state_dict(visual)
    except RuntimeError as error:
        raise UserError(f"{source} holds no CLIP in OpenAI's format: {' '.join(str(error).split())}") from error
    return Backbone(text, image, state["logit_scale"])


def count_layers(state):
    return len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})


def vision_transformer(state):
    width, _, patch_size, _ = state["conv1.weight"].shape
    embed_dim = state["proj"].shape[1]
    grid = round((state["positional_embedding"].shape[0] - 1) ** 0.5)
    return ImageEncoder(grid * patch_size, patch_size, width, count_layers(state), width // HEAD_WIDTH, embed_dim)


def resnet(state, embed_dim):
    layers = [len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)]
    width = state["layer1.0.conv1.weight"].shape[0]
    grid = round((state["attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    image_size = grid * 32  # a ResNet's stages halve five times
    network = ModifiedResNet(layers, embed_dim, heads=width * 32 // HEAD_WIDTH, input_resolution=image_size, width=width)
    return ResNetImageEncoder(network, image_size)
