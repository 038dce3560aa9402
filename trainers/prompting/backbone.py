"""A CLIP by name or by file. Every size is read from the weights, so any checkpoint in OpenAI's format loads."""

import logging
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from clip import clip
from clip.model import ModifiedResNet
from torch import Tensor, nn

from ..common.errors import UserError, nearest
from ..common.files import file_hash
from ..common.locks import turn
from .image import RESNET_STRIDE, ImageEncoder, ResNetImageEncoder
from .positions import side
from .text import TextEncoder
from .tokens import readable, tokenize, tokenize_classes
from .transformer import QUICK_GELU
from .weights import hugging_face, open_clip_models
from .weights.open_clip_models import Normalization
from .weights.state_dict import read_state_dict

log = logging.getLogger(__name__)

WEIGHTS = {
    "tiny": Path(__file__).parent / "weights" / "tiny.pt"
}  # ours: 64 pixels, made for the embedded data set
CLASSES = 2048  # texts that are encoded at a time
HEAD_WIDTH = (
    64  # the one size that CLIP's state dict does not show; all of OpenAI's models share it
)


class Backbone(nn.Module):
    """A frozen CLIP: the two towers and the logit scale.

    Args:
        text: ``TextEncoder``.
        image: ``ImageEncoder``, or ``ResNetImageEncoder``.
        log_scale: scalar tensor, log τ.
        activation: of the transformers' MLPs.
        normalization: mean and standard deviation of the pixels (three numbers each) that the weights were trained with, if known.

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

    @property
    def logit_scale(self) -> Tensor:
        """τ, by which cosines are multiplied (about 100)."""
        return self.log_scale.float().exp()

    def encode_classes(
        self, template: str, classnames: Iterable[str], normalize: bool = True
    ) -> Tensor:
        """Features (K, E) fp32 of a hand-crafted template, with ``{}`` where the class name goes, for K names."""
        texts = [template.format(readable(name)) for name in classnames]
        return self.encode_tokens(
            tokenize_classes(classnames, texts, self.text.context_length), normalize
        )

    def encode_sentences(self, texts: Sequence[Sequence[str]], normalize: bool = True) -> Tensor:
        """Sum (K, E) fp32 of the features of each of K lists of sentences; what doesn't fit into the encoder's positions is cut off."""
        owner = torch.tensor(
            [label for label, sentences in enumerate(texts) for _ in sentences],
            device=self.log_scale.device,
        )
        features = self.encode_tokens(
            tokenize(
                [text for sentences in texts for text in sentences],
                self.text.context_length,
                cut=True,
            ),
            normalize,
        )
        return features.new_zeros(len(texts), self.embed_dim).index_add_(0, owner, features)

    def encode_tokens(self, tokens: Tensor, normalize: bool) -> Tensor:
        """Features (N, E) fp32 of token ids (N, length)."""
        features = torch.cat(
            [
                self.text.encode_tokens(part)
                for part in tokens.to(self.log_scale.device).split(CLASSES)
            ]
        ).float()
        return F.normalize(features, dim=-1) if normalize else features

    @property
    def embed_dim(self) -> int:
        """Width E of the space that texts and images share."""
        return self.text.text_projection.shape[1]

    @property
    def takes_visual_prompts(self) -> bool:
        return isinstance(self.image, ImageEncoder)

    @property
    def vision_transformer(self) -> ImageEncoder:
        """The image tower where it is a ViT.

        Raises:
            TypeError: it is a ResNet.
        """
        if not isinstance(self.image, ImageEncoder):
            raise TypeError("the image tower is a ResNet, which takes no prompts")
        return self.image

    def signature(self) -> list[Tensor]:
        """Tensors that tell this CLIP from another: some of its weights, and an activation other than OpenAI's, which they don't show."""
        name = torch.tensor([] if self.activation == QUICK_GELU else list(self.activation.encode()))
        return [self.text.positional_embedding, self.text.text_projection, name]


def load_backbone(name: str, cache_dir: str | None = None) -> Backbone:
    """Loads a CLIP in fp32 on the CPU.

    Args:
        name: a name of OpenAI's (``ViT-B/16``, ``RN50`` …), ``tiny`` (ours), ``open_clip:<model>/<weights>`` (see
            ``open_clip_models``), ``hf:<owner>/<name>`` or a folder (see ``hugging_face``), or the path of a file in OpenAI's format, see
            ``read_state_dict``.
        cache_dir: where downloaded files are kept; by default ``~/.cache/clip``, or where ``open_clip`` keeps them.

    Raises:
        UserError: no such name or file, the weights can't be downloaded, or the file holds no CLIP.
    """
    if name.startswith(open_clip_models.PREFIX):
        backbone = build_backbone(*open_clip_models.load(name, cache_dir))
    elif name not in (*WEIGHTS, *clip._MODELS) and hugging_face.is_meant(
        name
    ):  # a folder here may be called like one
        backbone = build_backbone(*hugging_face.load(name))
    else:
        path = find(name, cache_dir)
        backbone = build_backbone(read_state_dict(path), path)
    log.info(
        "Loaded CLIP %s: %s, %d pixels",
        name,
        "ViT" if backbone.takes_visual_prompts else "ResNet",
        backbone.image.image_size,
    )
    return backbone


def find(name: str, cache_dir: str | None) -> str:
    """Path of the weights of a name or path that ``load_backbone`` takes.

    Raises:
        UserError: see there.
    """
    if name in WEIGHTS:
        return str(WEIGHTS[name])
    if name in clip._MODELS:
        return download(name, cache_dir or os.path.expanduser("~/.cache/clip"))
    if os.path.isfile(name):
        return name
    known = [*WEIGHTS, *clip.available_models()]
    raise UserError(
        f"MODEL.BACKBONE.NAME is {name!r}, which is no file and no known CLIP{nearest(name, known)}; known: "
        f"{', '.join(known)}, OpenCLIP's as {open_clip_models.PREFIX}<model>/<weights>, and Hugging Face's as "
        f"{hugging_face.PREFIX}<owner>/<name> or their folder"
    )


def download(name: str, cache_dir: str) -> str:
    """Path of OpenAI's weights, fetched at first use. A file that is there is never touched.

    Raises:
        UserError: they can't be fetched; the message names the file, where to put it, and the way around. Or the file that is there is
            another one.
    """
    url = clip._MODELS[name]
    target, expected = os.path.join(cache_dir, os.path.basename(url)), url.split("/")[-2]
    try:
        with turn(f"the weights of {name} are downloaded", cache_dir):
            if not os.path.isfile(target):
                with tempfile.TemporaryDirectory(
                    dir=cache_dir
                ) as folder:  # clip opens its target before the first byte has come
                    os.replace(clip._download(url, folder), target)
                return target
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the weights of {name} can't be downloaded ({error}); put the file {os.path.basename(url)} from {url} "
            f"at {target}, give its path as MODEL.BACKBONE.NAME, or use MODEL.BACKBONE.NAME tiny, which comes "
            "with this package"
        ) from error
    found = file_hash(target)
    if found != expected:
        raise UserError(
            f"{target} is not OpenAI's {name}: its SHA-256 is {found[:16]}…, {os.path.getsize(target)} bytes, not {expected[:16]}…. To "
            "use it all the same give its path as MODEL.BACKBONE.NAME; to have OpenAI's downloaded move it elsewhere (a download that "
            "was broken off leaves such a file)"
        )
    return target


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
    needed = (
        "text_projection",
        "positional_embedding",
        "token_embedding.weight",
        "ln_final.weight",
        "logit_scale",
    )
    missing = [key for key in needed if key not in state]
    if missing:
        raise UserError(f"{source} holds no CLIP in OpenAI's format: {', '.join(missing)} missing")
    visual = {
        key.removeprefix("visual."): value
        for key, value in state.items()
        if key.startswith("visual.")
    }
    textual = {
        key: value
        for key, value in state.items()
        if not key.startswith("visual.") and key != "logit_scale"
    }
    try:
        width, embed_dim = state["text_projection"].shape
        context_length = state["positional_embedding"].shape[0]
        text = TextEncoder(
            width,
            count_layers(textual),
            width // text_head_width,
            context_length,
            state["token_embedding.weight"].shape[0],
            embed_dim,
            hidden=hidden_width(textual),
            activation=activation,
        )
        image = (
            vision_transformer(visual, head_width, activation)
            if "proj" in visual
            else resnet(visual, embed_dim, head_width)
        )
        network = image if isinstance(image, ImageEncoder) else image.network
        text.load_state_dict(textual)
        network.load_state_dict(visual)
        log_scale = state["logit_scale"].reshape(())
    except Exception as error:  # shapes that no CLIP has can raise anything
        raise UserError(
            f"{source} holds no CLIP in OpenAI's format: {' '.join(str(error).split())}"
        ) from error
    return Backbone(text, image, log_scale, activation, normalization)


def count_layers(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})


def hidden_width(state: Mapping[str, Tensor]) -> int:
    """Width between the two maps of a transformer's MLPs."""
    return state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0]


def vision_transformer(
    state: Mapping[str, Tensor], head_width: int, activation: str
) -> ImageEncoder:
    width, _, patch_size, _ = state["conv1.weight"].shape
    embed_dim = state["proj"].shape[1]
    image_size = side(state["positional_embedding"]) * patch_size
    return ImageEncoder(
        image_size,
        patch_size,
        width,
        count_layers(state),
        width // head_width,
        embed_dim,
        hidden=hidden_width(state),
        activation=activation,
    )


def resnet(state: Mapping[str, Tensor], embed_dim: int, head_width: int) -> ResNetImageEncoder:
    layers = [
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    ]
    width = state["layer1.0.conv1.weight"].shape[0]
    image_size = side(state["attnpool.positional_embedding"]) * RESNET_STRIDE
    network = ModifiedResNet(
        layers, embed_dim, heads=width * 32 // head_width, input_resolution=image_size, width=width
    )
    return ResNetImageEncoder(network, image_size)
