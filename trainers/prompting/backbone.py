"""A CLIP by name or by file; every size is read from the weights."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.errors import UserError, nearest, raise_machines
from .positions import side
from .resnet import RESNET_STRIDE, ResNetImageEncoder
from .text import TextEncoder
from .tokens import tokenize, tokenize_classes, unlearned
from .transformer import QUICK_GELU, ImageEncoder, Transformer
from .weights import Facts, Normalization, hugging_face, open_clip_models, openai
from .weights.state_dict import read_state_dict

log = logging.getLogger(__name__)

WEIGHTS = {"tiny": Path(__file__).parent / "weights" / "tiny.pt"}  # ours: 64 pixels, for OpenMoji
NAMES = (*WEIGHTS, *openai.ADDRESSES)
CLASSES = 2048  # texts that are encoded at a time
HEAD_WIDTH = 64  # of OpenAI's models; the one size that CLIP's state dict does not show


class Backbone(nn.Module):
    """A frozen CLIP: the two towers and the logit scale.

    Args:
        text: ``TextEncoder``.
        image: ``ImageEncoder``, or ``ResNetImageEncoder``.
        log_scale: scalar tensor, log τ; τ, by which cosines are multiplied, is about 100.
        activation: of the transformers' MLPs.
        normalization: mean and standard deviation of the pixels (three numbers each) that the
            weights were trained with, if known.

    Attributes:
        takes_visual_prompts: whether the image tower is a ViT.
    """

    log_scale: Tensor

    def __init__(
        self,
        text: TextEncoder,
        image: ImageEncoder | ResNetImageEncoder,
        log_scale: Tensor,
        activation: str = QUICK_GELU,
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__()
        self.text = text
        self.image = image
        self.activation = activation
        self.normalization = normalization
        self.register_buffer("log_scale", log_scale)
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
        tokens = tokenize_classes(classnames, template, self.text.context_length)
        return self.encode_tokens(tokens, normalize)

    def encode_sentences(self, texts: Sequence[Sequence[str]], normalize: bool = True) -> Tensor:
        """Sum (K, E) fp32 of the features of each of K lists of sentences; what doesn't fit into
        the encoder's positions is cut off."""
        every = [text for sentences in texts for text in sentences]
        features = self.encode_tokens(
            tokenize(every, self.text.context_length, cut=True), normalize
        )
        owner = [label for label, sentences in enumerate(texts) for _ in sentences]
        total = features.new_zeros(len(texts), self.embed_dim)
        return total.index_add_(0, torch.tensor(owner, device=total.device), features)

    def encode_tokens(self, tokens: Tensor, normalize: bool) -> Tensor:
        """Features (N, E) fp32 of token ids (N, length)."""
        parts = tokens.to(self.log_scale.device).split(CLASSES)
        features = torch.cat([self.text.encode_tokens(part) for part in parts]).float()
        return F.normalize(features, dim=-1) if normalize else features

    @cached_property
    def unlearned_tokens(self) -> Tensor:
        """Which of V tokens it has not learned, (V,) bool."""
        return unlearned(self.text.token_embedding.weight)

    @property
    def embed_dim(self) -> int:
        """Width E of the space that texts and images share."""
        return self.text.text_projection.shape[1]

    @property
    def takes_visual_prompts(self) -> bool:
        return isinstance(self.image, ImageEncoder)

    def signature(self) -> list[Tensor]:
        """Tensors that tell this CLIP from another: some of its weights, and an activation other
        than OpenAI's, which they don't show."""
        name = torch.tensor([] if self.activation == QUICK_GELU else list(self.activation.encode()))
        return [self.text.positional_embedding, self.text.text_projection, name]


def check_name(name: str) -> None:
    """A CLIP's name has to be a known one, or a path; see ``load_backbone``. Nothing is loaded.

    Raises:
        UserError: it is neither.
    """
    if name.startswith((open_clip_models.PREFIX, hugging_face.PREFIX)) or name in NAMES:
        return
    if not (os.path.isfile(name) or os.path.isdir(name)):
        raise UserError(
            f"MODEL.BACKBONE.NAME is {name!r}, which is neither a file nor a known CLIP"
            f"{nearest(name, NAMES)}; known: {', '.join(NAMES)}, OpenCLIP's as "
            f"{open_clip_models.PREFIX}<model>/<weights>, and Hugging Face's as "
            f"{hugging_face.PREFIX}<owner>/<name> or their folder"
        )


def load_backbone(name: str) -> Backbone:
    """Loads a CLIP in fp32 on the CPU.

    Args:
        name: a name of OpenAI's (``ViT-B/16``, ``RN50`` …, see ``weights.openai``), ``tiny``
            (ours), ``open_clip:<model>/<weights>`` (see ``open_clip_models``),
            ``hf:<owner>/<name>`` or a folder (see ``hugging_face``), or the path of a file, see
            ``read_state_dict``.

    Raises:
        UserError: no such name or file, the weights can't be downloaded, or the file holds no CLIP.
    """
    check_name(name)
    facts: Facts = {}
    if name.startswith(open_clip_models.PREFIX):
        state, path, facts = open_clip_models.load(name)
    elif name.startswith(hugging_face.PREFIX) or (name not in NAMES and os.path.isdir(name)):
        state, path, facts = hugging_face.load(name)
    else:
        path = openai.find(name) if name in openai.ADDRESSES else str(WEIGHTS.get(name, name))
        state = read_state_dict(path)
    backbone = build_backbone(state, path, **facts)
    tower = "ViT" if backbone.takes_visual_prompts else "ResNet"
    log.info("Loaded CLIP %s: %s, %d pixels", name, tower, backbone.image.image_size)
    return backbone


def build_backbone(
    state: Mapping[str, Tensor],
    source: str = "the state dict",
    head_width: int = HEAD_WIDTH,
    text_head_width: int = HEAD_WIDTH,
    activation: str = QUICK_GELU,
    normalization: Normalization | None = None,
) -> Backbone:
    """Towers of the sizes that the weights have, with these weights.

    Args:
        state: CLIP's state dict, OpenAI's names.
        source: named in errors.
        head_width, text_head_width: of the attention heads in the image and in the text encoder.
        activation, normalization: see ``Backbone``.

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
        embed_dim = textual["text_projection"].shape[1]
        positions = textual["positional_embedding"]
        vocabulary = textual["token_embedding.weight"]
        blocks = transformer(textual, text_head_width, activation)
        text = TextEncoder(blocks, len(positions), len(vocabulary), embed_dim)
        image: ImageEncoder | ResNetImageEncoder
        if "proj" in visual:
            patch_size = visual["conv1.weight"].shape[-1]
            size = side(visual["positional_embedding"]) * patch_size
            blocks = transformer(visual, head_width, activation)
            image = ImageEncoder(blocks, size, patch_size, visual["proj"].shape[1])
        else:
            image = resnet(visual, embed_dim, head_width)
        text.load_state_dict(textual)
        image.load_state_dict(visual)
    except Exception as error:  # shapes that no CLIP has can raise anything
        raise_machines(error, source)
        reason = " ".join(str(error).split())
        if isinstance(error, KeyError):
            reason += " is missing"
        raise UserError(f"{source} holds no CLIP in OpenAI's format: {reason}") from error
    return Backbone(text, image, log_scale, activation, normalization)


def transformer(state: Mapping[str, Tensor], head_width: int, activation: str) -> Transformer:
    """Blocks of the sizes that a tower's weights have."""
    hidden, width = state["transformer.resblocks.0.mlp.c_fc.weight"].shape
    layers = len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})
    return Transformer(width, layers, width // head_width, hidden, activation)


def resnet(state: Mapping[str, Tensor], embed_dim: int, head_width: int) -> ResNetImageEncoder:
    layers = [
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    ]
    width = state["layer1.0.conv1.weight"].shape[0]
    image_size = side(state["attnpool.positional_embedding"]) * RESNET_STRIDE
    return ResNetImageEncoder(layers, embed_dim, width * 32 // head_width, image_size, width)
