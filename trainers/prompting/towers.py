"""A frozen CLIP as methods call it: both towers in one precision, with prompts and without."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed
from yacs.config import CfgNode

from .backbone import Backbone
from .hashes import tensor_hash
from .precision import OfficialPrecision, autocast_dtype, in_half, precision_on
from .prompts import Prompts


class Towers(nn.Module):
    """The two towers of a frozen CLIP; features are fp32, normalised unless stated otherwise.

    Args:
        backbone: the CLIP, in fp32 and on the device that is computed on. It is not changed, and any
            number of methods can share it; under PREC fp16 the towers are a copy's, whose maps
            are float16.
        settings: a method's; ``PREC`` and ``TEXT_CHUNK`` count.
        official: how the method's official code departs from ``PREC``.

    Attributes:
        backbone: whose towers take prompts.
        teacher: the frozen CLIP of the hand-crafted prompts: the same one, or one in fp32.
        precision: of the computation: fp32, amp or fp16.
        autocast_dtype: of the encoders' maps under amp; None under any other precision.
        backbone_hash: which CLIP this is.
    """

    def __init__(self, backbone: Backbone, settings: CfgNode, official: OfficialPrecision) -> None:
        super().__init__()
        device = backbone.log_scale.device
        self.text_chunk: int = settings.get("TEXT_CHUNK", 0)
        self.precision = precision_on(settings.PREC, device, official, backbone.computes_in_half)
        self.autocast_dtype = autocast_dtype(self.precision, device, official.amp_is_fp16)
        self.backbone_hash = tensor_hash(backbone.signature())
        is_half = self.precision == "fp16"
        self.backbone = in_half(backbone) if is_half else backbone
        self.teacher = backbone if official.fp32_teacher else self.backbone

    @property
    def device(self) -> torch.device:
        """The device of the computation."""
        return self.backbone.log_scale.device

    @property
    def key(self) -> tuple[str, str]:
        """The key of unprompted images' features: the CLIP and the precision."""
        return self.backbone_hash, self.precision

    def autocast(self) -> torch.autocast:
        """Context for the encoders."""
        dtype = self.autocast_dtype
        return torch.autocast(self.device.type, dtype, dtype is not None)

    @torch.no_grad()
    def encode_hand_crafted(
        self,
        templates: Sequence[str],
        classnames: Sequence[str],
        sentences: Sequence[Sequence[str]],
        is_unit: bool,
    ) -> Tensor:
        """The teacher's features (K, E) of K classes: the mean over hand-crafted prompts, with ``{}`` for
        the name, and over each class's own sentences.

        is_unit: whether the features of several are normalised before their mean is taken.
        """
        teacher = self.teacher
        with self.autocast():
            # one template after the other: all at once would be thousands of texts
            first, *others = templates
            total = teacher.encode_classes(first, classnames, is_unit)
            for template in others:
                total = total + teacher.encode_classes(template, classnames, is_unit)
            if sentences:
                total = total + teacher.encode_sentences(sentences, is_unit)
            return F.normalize(total, dim=-1) if others or sentences else total

    def encode_texts(self, prompts: Prompts, normalize: bool = True) -> Tensor:
        """Features (M, K, E) of the classes under prompts.

        ``TEXT_CHUNK`` classes at a time, which the backward pass encodes again.
        """
        text = self.backbone.text
        chunk = self.text_chunk
        if chunk == 0:
            features = text(*prompts.texts(slice(None)))
        else:
            parts = []
            for first in range(0, prompts.classes, chunk):
                part = prompts.texts(slice(first, first + chunk))
                parts.append(recomputed(text, *part, use_reentrant=False))
            features = torch.cat(parts, dim=1)
        return F.normalize(features.float(), dim=-1) if normalize else features.float()

    def encode_images(
        self, images: Tensor, prompts: Prompts | None = None, normalize: bool = True
    ) -> Tensor:
        """Features (M, B, E) of images (V, B, 3, H, W); (V, B, E) where images are not prompted. Their own
        features (V, B, E), of any length, may be given in their place then."""
        if images.dim() == 3:
            features = images
        else:
            given = prompts or Prompts()
            image = self.backbone.image
            features = image(images, given.visual, given.image_adapters, given.readout).float()
        return F.normalize(features, dim=-1) if normalize else features

    @torch.no_grad()
    def features_of(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        prompts: Prompts | None = None,
        normalize: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Features (M or 1, N, E) and labels (N,) of N images, under the prompts if any.

        batches: images (1, B, 3, H, W) and labels (B,).
        """
        features = []
        labels = []
        for images, label in batches:
            with self.autocast():
                features.append(self.encode_images(images, prompts, normalize=normalize))
            labels.append(label)
        return torch.cat(features, dim=1), torch.cat(labels)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """τ · cos, and the bias of a sigmoid model; (M or 1, B, E) and (M, K, E) → (M, B, K), always in
        fp32."""
        with torch.autocast(self.device.type, enabled=False):
            scale = self.backbone.log_scale.float().exp()
            logits = scale * image_features @ text_features.transpose(1, 2)
            bias = self.backbone.logit_bias
            return logits if bias is None else logits + bias
