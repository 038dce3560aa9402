"""A CLIP by name or by file; every size is read from the weights."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.errors import UserError, nearest, raise_machines
from ..common.hub import origin
from .black_box import ImageBox, NoTexts, TextBox
from .positions import side
from .resnet import RESNET_STRIDE, ResNetImageEncoder
from .text import TextEncoder
from .transformer import QUICK_GELU, ImageEncoder, Transformer
from .weights import (
    Facts,
    Normalization,
    Pixels,
    hugging_face,
    open_clip_models,
    openai,
    timm_models,
)
from .weights.open_clip_sources import OPEN_CLIP_PREFIX as OPEN_CLIP
from .weights.state_dict import read_state_dict

log = logging.getLogger(__name__)

OWN_WEIGHTS = {"tiny": Path(__file__).parent / "weights" / "tiny.pt"}  # 64 pixels, for OpenMoji
BACKBONES = (*OWN_WEIGHTS, *openai.ADDRESSES)
TEXTS_AT_A_TIME = 2048  # texts that are encoded at a time
HEAD_WIDTH = 64  # of OpenAI's models; the one size that CLIP's state dict does not show


class Backbone(nn.Module):
    """A frozen CLIP: the two towers and the logit scale.

    Args:
        text: ``TextEncoder``, ``TextBox``, or ``NoTexts`` of an image encoder alone.
        image: ``ImageEncoder``, ``ResNetImageEncoder`` or ``ImageBox``.
        log_scale: scalar tensor, log τ; τ, by which cosines are multiplied, is about 100.
        activation: of the transformers' MLPs.
        normalization: mean and standard deviation of the pixels (three numbers each) that the
            weights were trained with, if known.
        logit_bias: scalar tensor, which is added to τ · cos; None but for models of a sigmoid loss.
    """

    origin = ""  # the repository and commit on the hub that the weights are of, if they are of one
    # a method that needs more than features has CLIP's own, as ``Method.check_towers`` demands
    text: Any
    image: Any
    log_scale: Tensor
    logit_bias: Tensor | None

    def __init__(
        self,
        text: TextEncoder | TextBox | NoTexts,
        image: ImageEncoder | ResNetImageEncoder | ImageBox,
        log_scale: Tensor,
        activation: str = QUICK_GELU,
        normalization: Normalization | None = None,
        logit_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.text = text
        self.image = image
        self.activation = activation
        self.normalization = normalization
        self.register_buffer("log_scale", log_scale)
        self.register_buffer("logit_bias", logit_bias)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stays in evaluation mode: a frozen CLIP's batch norms must not follow the data."""
        return super().train(False)

    def encode_classes(
        self, template: str, classnames: Iterable[str], normalize: bool = True
    ) -> Tensor:
        """Features (K, E) fp32 of a hand-crafted template, with ``{}`` where the class name goes,
        for K names."""
        return self.encode_tokens(self.text.tokenize_classes(classnames, template), normalize)

    def encode_sentences(self, texts: Sequence[Sequence[str]], normalize: bool = True) -> Tensor:
        """Return the sum (K, E) fp32 of the features of each of K lists of sentences, which are cut to
        the encoder's positions."""
        every = [text for sentences in texts for text in sentences]
        features = self.encode_tokens(self.text.tokenize_sentences(every), normalize)
        owner = [label for label, sentences in enumerate(texts) for _ in sentences]
        total = features.new_zeros(len(texts), self.embed_dim)
        return total.index_add_(0, torch.tensor(owner, device=total.device), features)

    def encode_tokens(self, tokens: Tensor, normalize: bool) -> Tensor:
        """Features (N, E) fp32 of token ids (N, length)."""
        parts = tokens.to(self.log_scale.device).split(TEXTS_AT_A_TIME)
        features = torch.cat([self.text.encode_tokens(part) for part in parts]).float()
        return F.normalize(features, dim=-1) if normalize else features

    @cached_property
    def unlearned_tokens(self) -> Tensor:
        """Return a mask (V,) of the tokens that it has not learned."""
        unlearned: Tensor = self.text.unlearned_tokens()
        return unlearned

    @property
    def embed_dim(self) -> int:
        """Width E of the space that texts and images share."""
        width: int = self.text.embed_dim
        return width

    @property
    def has_texts(self) -> bool:
        """Whether it has a text encoder: all but image encoders of timm."""
        return not isinstance(self.text, NoTexts)

    @property
    def takes_visual_prompts(self) -> bool:
        """Whether the image tower is CLIP's own ViT."""
        return bool(self.image.takes_prompts)

    @property
    def computes_in_half(self) -> bool:
        """Whether the weights of the maps may be float16: both towers are CLIP's own."""
        return bool(self.text.computes_in_half and self.image.computes_in_half)

    def openai_state(self) -> dict[str, Tensor] | None:
        """The weights under OpenAI's names, as ``build_backbone`` takes them; None where a tower is not
        CLIP's own."""
        if not self.computes_in_half:
            return None
        visual = {f"visual.{name}": value for name, value in self.image.state_dict().items()}
        return {**self.text.state_dict(), **visual, "logit_scale": self.log_scale}

    def signature(self) -> list[Tensor]:
        """Tensors that tell this CLIP from another: some of its weights, and an activation other
        than OpenAI's, which they don't show."""
        name = torch.tensor([] if self.activation == QUICK_GELU else list(self.activation.encode()))
        return [*self.text.signature(), name]


def check_clip(name: str) -> None:
    """Check that the name of a CLIP is a known one, or a path, as ``load_backbone`` takes. Nothing is loaded.

    Raises:
        UserError: it is neither.
    """
    if source_of(name) is None and name not in BACKBONES and not os.path.isfile(name):
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, which is neither a file nor a known CLIP"
            f"{nearest(name, BACKBONES)}; known: {', '.join(BACKBONES)}, OpenCLIP's as "
            f"{OPEN_CLIP}<model>/<weights>, Hugging Face's as "
            f"{hugging_face.HF_PREFIX}<owner>/<name> or their folder, and timm's image encoders as "
            f"{timm_models.TIMM_PREFIX}<model>"
        )


def source_of(name: str) -> ModuleType | None:
    """Return the module that loads another package's CLIP by its name; None for OpenAI's, ours and plain files."""
    if name.startswith(OPEN_CLIP):
        return open_clip_models
    if name.startswith(timm_models.TIMM_PREFIX):
        return timm_models
    if name.startswith(hugging_face.HF_PREFIX) or (name not in BACKBONES and os.path.isdir(name)):
        return hugging_face
    return None


def pixels_of(name: str) -> Pixels:
    """Return the pixels of a CLIP as far as its name tells: empty for OpenAI's and for plain
    files, whose recipes have them. Nothing is loaded."""
    source = source_of(name)
    pixels: Pixels = source.pixels(name) if source else {}
    return pixels


def load_backbone(name: str) -> Backbone:
    """Loads a CLIP in fp32 on the CPU.

    Args:
        name: a name of OpenAI's (``ViT-B/16``, ``RN50`` …, in ``weights.openai``), ``tiny``
            (ours), ``open_clip:<model>/<weights>`` and others (``open_clip_sources.describe``),
            ``hf:<owner>/<name>`` or a folder (``hugging_face``), ``timm:<network>`` and others
            (``timm_models.describe``), or the path of a file, for ``read_state_dict``.

    Raises:
        UserError: no such name or file, the weights can't be downloaded, or the file holds no CLIP.
    """
    check_clip(name)
    facts: Facts = {}
    if source := source_of(name):
        state, path, facts = source.load(name)
    else:
        path = openai.find(name) if name in openai.ADDRESSES else str(OWN_WEIGHTS.get(name, name))
        state = read_state_dict(path)
    backbone = build_backbone(state, path, **facts)
    backbone.origin = origin(path)
    image = backbone.image
    log.info("Loaded %s: %s, %d pixels", name, image.kind, image.image_size)
    return backbone


def build_backbone(
    state: Mapping[str, Tensor],
    source: str = "the state dict",
    head_width: int = HEAD_WIDTH,
    text_head_width: int = HEAD_WIDTH,
    activation: str = QUICK_GELU,
    normalization: Normalization | None = None,
    logit_bias: Tensor | None = None,
    image: ImageBox | None = None,
    text: TextBox | NoTexts | None = None,
) -> Backbone:
    """Towers of the sizes that the weights have, with these weights.

    Args:
        state: CLIP's state dict, OpenAI's names.
        source: named in errors.
        head_width, text_head_width: of the attention heads in the image and in the text encoder.
        activation, normalization, logit_bias: as in ``Backbone``.
        image, text: towers that are not CLIP's own; the state dict has nothing of theirs.

    Raises:
        UserError: keys are missing or superfluous.
    """
    visual: dict[str, Tensor] = {}
    textual: dict[str, Tensor] = {}
    for key, value in state.items():
        part = visual if key.startswith("visual.") else textual
        part[key.removeprefix("visual.")] = value
    try:
        log_scale = textual.pop("logit_scale").reshape(())
        text_tower = text or text_encoder(textual, text_head_width, activation)
        width = text_tower.embed_dim
        image_tower = image or image_encoder(visual, head_width, activation, width)
    except Exception as error:  # shapes that no CLIP has can raise anything
        raise_machines(error, source)
        reason = " ".join(str(error).split())
        if isinstance(error, KeyError):
            reason += " is missing"
        raise UserError(f"{source} holds no CLIP in OpenAI's format: {reason}") from error
    return Backbone(text_tower, image_tower, log_scale, activation, normalization, logit_bias)


def text_encoder(state: Mapping[str, Tensor], head_width: int, activation: str) -> TextEncoder:
    """CLIP's own text tower with these weights."""
    embed_dim = state["text_projection"].shape[1]
    positions = state["positional_embedding"]
    vocabulary = state["token_embedding.weight"]
    blocks = transformer(state, head_width, activation)
    text = TextEncoder(blocks, len(positions), len(vocabulary), embed_dim)
    text.load_state_dict(state)
    return text


def image_encoder(
    state: Mapping[str, Tensor], head_width: int, activation: str, embed_dim: int
) -> ImageEncoder | ResNetImageEncoder:
    """CLIP's own image tower with these weights: a ViT, or a ResNet."""
    image: ImageEncoder | ResNetImageEncoder
    if "proj" in state:
        patch_size = state["conv1.weight"].shape[-1]
        size = side(state["positional_embedding"]) * patch_size
        blocks = transformer(state, head_width, activation)
        image = ImageEncoder(blocks, size, patch_size, state["proj"].shape[1])
    else:
        image = resnet(state, embed_dim, head_width)
    image.load_state_dict(state)
    return image


def transformer(state: Mapping[str, Tensor], head_width: int, activation: str) -> Transformer:
    """Blocks of the sizes that a tower's weights have."""
    hidden, width = state["transformer.resblocks.0.mlp.c_fc.weight"].shape
    layers = len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})
    return Transformer(width, layers, width // head_width, hidden, activation)


def resnet(state: Mapping[str, Tensor], embed_dim: int, head_width: int) -> ResNetImageEncoder:
    """A ResNet of the sizes that the weights have."""
    # the numbers of blocks in its four stages, layer1.0, layer1.1, …
    blocks = {tuple(key.split(".")[:2]) for key in state if key.startswith("layer")}
    counts = Counter(stage for stage, _ in blocks)
    layers = [counts[f"layer{stage}"] for stage in (1, 2, 3, 4)]
    width = state["layer1.0.conv1.weight"].shape[0]
    image_size = side(state["attnpool.positional_embedding"]) * RESNET_STRIDE
    return ResNetImageEncoder(layers, embed_dim, width * 32 // head_width, image_size, width)
