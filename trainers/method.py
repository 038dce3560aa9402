"""Method: a frozen CLIP under a method's learnable module, as one ``nn.Module``.

A method derives from ``Method`` and overrides

- ``build``: the module with the learnable parts; called without arguments it returns ``Prompts``,
- ``loss`` (default: cross-entropy) and ``predict`` (default: softmax),
- ``scores``, where texts depend on the image or logits are not the cosines,
- ``start``, ``end_epoch`` and ``complete``, for what happens before, between and after the epochs,
- ``check``, for its settings. What training remembers beyond the learnable parts is in its ``memory``.
- ``class_part`` and ``drop_class_part``, where a part of the learner serves the trained classes alone.

It needs no trainer:

>>> import torch
>>> from trainers.coop import CoOpMethod
>>> from trainers.prompting.backbone import load_backbone
>>> from trainers.settings import method_node
>>> method = CoOpMethod(method_node("CoOp"), ["cat", "dog"], load_backbone("tiny"))
>>> images = torch.randn(1, 8, 3, 64, 64)  # one view of eight images
>>> loss, figures = method.loss(method(images), torch.arange(8) % 2)
>>> loss.backward()
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed
from yacs.config import CfgNode

from . import METHODS, attribute
from .class_part import ADDED, ClassPart, State, Trained
from .common.config_files import check_values
from .common.console import first_few
from .common.errors import UserError
from .evaluation.prediction import Prediction, Scores
from .prompting.backbone import Backbone
from .prompting.hashes import tensor_hash
from .prompting.precision import autocast_dtype, in_half, precision_on
from .prompting.prompts import Prompts
from .texts.templates import DEFAULT_TEMPLATE, TEMPLATES

Batches = Iterable[tuple[Tensor, Tensor]]  # images (1, B, 3, H, W) and labels (B,)
TrainingImages = Callable[..., Batches]  # of at most ``most`` images, or ``augmented`` ones
Encoded = tuple[Tensor, Prompts | None]  # see ``Method.encode``
Figures = dict[str, Tensor]  # scalars for the log
ParameterGroups = list[dict[str, object]]  # as torch's optimisers take them

log = logging.getLogger(__name__)


class Layered(Protocol):
    """What has layers to prompt."""

    layers: int


class Method(nn.Module):
    """The frozen CLIP's two towers and a method's learnable module.

    Args:
        settings: the method's own config node.
        classnames: K names.
        backbone: the CLIP, in fp32 and on the device that is computed on. It is not changed, and
            any number of methods can share it; under PREC fp16 a method computes with a copy, its
            attribute ``backbone``, whose maps are float16.
        dataset: name of the data set, which has hand-crafted prompts of its own.
        describe: K names → sentences about each class, which join the hand-crafted prompt.
        path: the node's name for messages; by default that of the class.
        like: a method whose CLIP, in its precision, this one takes; see ``over`` and
            ``for_classes``.

    Attributes:
        learner: the learnable module; None where nothing is learned.
        base: the method that this one builds on and holds, if any.
        memory: what training remembers beyond the learner, for the checkpoint: tensors, numbers,
            dicts and lists of them.
        precision: what it computes in: fp32, amp or fp16.
        uses_descriptions: whether anything of it has asked for the sentences about the classes.
        left_out: names of what ``load`` has left out, as it serves other classes.
        origin: what was loaded, where it was trained for other names or another order of them.
        learns: whether there is anything to train.
        stays_fp32: whether PREC fp16 is fp32, as in the method's official code.
        amp_is_fp16: whether PREC amp is float16 with a loss scaler, never bfloat16, as in the
            method's official code; on a CPU it is fp32.
        fp32_teacher: whether the frozen CLIP that prompts are compared with is fp32 under PREC
            fp16 too, as officially.
        unit_templates: whether the features of several hand-crafted prompts are normalised before
            their mean is taken.
        whole_validation: whether ``start`` and ``complete`` get all validation images of the data
            set, as in the method's official code, not the few-shot sample of them.
        exceptions: data set → hand-crafted prompt, where the method departs from CoOp's.
        small: settings of the smallest method that is complete, for a CLIP of three image layers.
        prompts_texts: whether the text encoder is changed, so that it has to be CLIP's own; else the
            texts are hand-crafted.
        text_only: settings under which the image encoder is not prompted, so that any backbone
            serves; None: it always is.
        shape_setting: a whole number of the node that the learnable parts' shape follows from;
            None: it follows from the data alone.
    """

    learner: nn.Module | None
    learns = True
    stays_fp32 = False
    amp_is_fp16 = False
    fp32_teacher = False
    unit_templates = True
    whole_validation = False
    exceptions: ClassVar[dict[str, str]] = {}
    small: ClassVar[dict[str, object]] = {}
    prompts_texts = True
    text_only: ClassVar[dict[str, object] | None] = {}
    shape_setting: ClassVar[str | None] = "N_CTX"

    def __init__(
        self,
        settings: CfgNode,
        classnames: Sequence[str],
        backbone: Backbone,
        dataset: str = "",
        describe: Callable[[Sequence[str]], list[list[str]]] | None = None,
        path: str = "",
        like: "Method | None" = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.classnames = list(classnames)
        self.left_out: tuple[str, ...] = ()
        self.origin: Trained | None = None
        self.dataset = dataset
        self.describe = describe
        self.uses_descriptions = False
        self.memory: dict[str, Any] = {}
        self.path = path or f"TRAINER.{self.name().upper()}"
        self.base: Method | None = None
        self.backbone = backbone
        # the frozen CLIP of the hand-crafted prompts: the same one, or one in fp32
        self.teacher = backbone
        if like is None:
            self.precision = precision_on(
                settings.PREC,
                self.device,
                self.stays_fp32,
                self.amp_is_fp16,
                backbone.computes_in_half,
            )
            self.backbone_hash = tensor_hash(backbone.signature())
            if self.precision == "fp16":
                self.backbone = in_half(backbone)
                if not self.fp32_teacher:
                    self.teacher = self.backbone
        else:
            self.precision = like.precision
            self.backbone_hash = like.backbone_hash
            self.teacher = like.teacher
        self.autocast_dtype = autocast_dtype(self.precision, self.device, self.amp_is_fp16)
        self.check_towers()
        learner = self.build()
        self.learner = None if learner is None else learner.to(self.device)

    @classmethod
    def name(cls) -> str:
        """That it is registered under."""
        return cls.__name__.removesuffix("Method")

    @property
    def device(self) -> torch.device:
        """That it computes on."""
        return self.backbone.log_scale.device

    @property
    def learned(self) -> nn.Module:
        """The learner of a method that learns."""
        assert self.learner is not None
        return self.learner

    def over(self, name: str, settings: CfgNode | None = None) -> "Method":
        """The method called ``name`` with this one's classes and CLIP, to build on.

        settings: its node; None: this one's.
        """
        made: Method = method_class(name)(
            settings or self.settings,
            self.classnames,
            self.backbone,
            self.dataset,
            self.describe,
            self.path,
            self,
        )
        return made

    def for_classes(self, classnames: Sequence[str]) -> "Method":
        """The trained method for other class names: CLIP's vocabulary is open. It shares the CLIP, and
        costs what its names do.

        It is made of what was trained, whatever names have been asked for since; see ``load``.
        """
        with torch.random.fork_rng(devices=[]):  # prompts' first values, which are not kept
            made = type(self)(
                self.settings,
                classnames,
                self.backbone,
                self.dataset,
                self.describe,
                self.path,
                self,
            )
        if self.learner is not None:
            made.load(self.trained.state, self.trained.classnames)
        return made.train(self.training)

    def check_towers(self) -> None:
        """Refuses a text encoder that is not CLIP's own, unless the texts are hand-crafted; and an image
        encoder that has no tokens to put prompts beside, unless ``text_only``."""
        backbone = self.backbone
        if self.prompts_texts and not backbone.text.takes_prompts:
            raise UserError(
                f"{self.path} prompts the text encoder, and the backbone's is a {backbone.text.kind}: choose "
                f"{', '.join(methods_for(backbone))}, or a backbone with CLIP's own text encoder"
            )
        wanted = (self.text_only or {}).items()
        changes = [f"{key} {value}" for key, value in wanted if self.settings[key] != value]
        if not backbone.takes_visual_prompts and (changes or self.text_only is None):
            instead = f"set {' and '.join(changes)}" if changes else "choose a ViT"
            raise UserError(
                f"{self.path} prompts the image encoder, and the backbone is a {backbone.image.kind}: {instead}"
            )

    def check_depth(self, key: str, depth: int, *towers: Layered) -> None:
        """Refuses a key that would change more layers than each of the towers has."""
        layers = min(tower.layers for tower in towers)
        if depth > layers:
            raise UserError(
                f"{self.path}.{key} is {depth}, the backbone has {layers} layers to prompt"
            )

    # ---- what a method overrides ----

    @classmethod
    def check(cls, settings: CfgNode, path: str) -> None:
        """Refuses settings that can't work; ``path``: the node's name for messages.

        Raises:
            UserError: the key, its value and what it takes.
        """
        check_values(settings, path=f"{path}.")
        for key, end in settings.items():
            start = key.replace("_END", "_START")
            if start != key and end < settings[start]:
                raise UserError(
                    f"{path}.{key} is {end}, it must be {start}, {settings[start]}, or more"
                )

    @classmethod
    def views(cls, settings: CfgNode) -> tuple[int, int | None]:
        """How many views V a training image is shown in, and the augmentation that tells them apart.

        See ``data.loader.template_views``.
        """
        return 1, None

    def build(self) -> nn.Module | None:
        """The learnable module; None where nothing is learned. ``hand_crafted`` can be used here."""
        return None

    @property
    def class_part(self) -> ClassPart:
        """What of the learner serves the trained classes alone."""
        return ClassPart()

    def drop_class_part(self) -> None:
        """Makes the learner answer without its ``class_part``, for classes that were not trained."""
        raise NotImplementedError

    def state_for(self, state: State, classes: Sequence[int]) -> State | None:
        """A learner's state for a list of classes; None where its ``class_part`` does not serve them.

        Args:
            state: of a learner for the trained classes; classes: their numbers, or ``ADDED``.
        """
        if ADDED in classes and self.class_part.names:
            return None
        return self.class_part.of_classes(state, classes)

    def way_of_added(self) -> str:
        """How a list with classes that were not trained is answered, in words."""
        parts = ", ".join(self.class_part.names)
        return f"The texts answer for all classes, without what serves the trained ones alone ({parts})"

    def parameter_groups(self, lr: float) -> ParameterGroups | None:
        """Groups with ``params`` and settings of their own.

        lr: the run's learning rate. None: all parameters alike.
        """
        return None

    def loss(self, scores: Scores, labels: Tensor) -> tuple[Tensor, Figures]:
        """Loss of a training batch.

        Args:
            scores: of B images; labels: (B,).

        Returns:
            scalar tensor; further figures for the log.
        """
        return F.cross_entropy(scores.logits[0], labels), {}

    def predict(self, logits: Tensor) -> Prediction:
        """``Prediction`` from (M, B, K) fp32 logits."""
        return Prediction(logits[0].softmax(dim=-1))

    def hand_crafted_template(self) -> str:
        """The data set's prompt, with ``{}`` for the class name."""
        return {**TEMPLATES, **self.exceptions}.get(self.dataset, DEFAULT_TEMPLATE)

    def hand_crafted_templates(self) -> list[str]:
        """The prompts whose mean ``hand_crafted`` is."""
        return [self.hand_crafted_template()]

    def encode(self) -> Encoded | None:
        """What is the same for all images: text features (M, K, E) and the prompts.

        None where texts depend on the image; prompts are None where nothing is learned.
        """
        prompts = self.learned()
        return self.encode_texts(prompts), prompts

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        """``forward`` without the autocast."""
        encoded = encoded or self.encode()
        assert encoded is not None  # texts that depend on the image have ``scores`` of their own
        texts, prompts = encoded
        features = self.encode_images(images, prompts)
        return Scores(self.logits(features, texts), features, texts, images)

    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Sets what the first step needs of the training images; not called where a run resumes."""

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Takes note of the prompts after an epoch, from 0, as does the ``base``, if any."""
        if self.base is not None:
            self.base.end_epoch(epoch, epochs)

    def complete(self, training: TrainingImages, validation: Batches | None) -> bool:
        """Sets what is learned from validation images after training, if there are any; returns
        whether the learnable parts have changed."""
        return False

    def calibrate(self, logits: Tensor, labels: Tensor) -> bool:
        """Fits how sure answers are to the logits (M, N, K) and labels (N,) of validation images;
        returns whether the method has anything that can be fitted so."""
        return False

    def learned_figures(self) -> dict[str, float]:
        """Figures of what was learned by name, for the run record."""
        return {}

    # ---- the two towers; features are fp32, normalised unless stated otherwise ----

    def autocast(self) -> torch.autocast:
        """Context for the encoders."""
        dtype = self.autocast_dtype
        return torch.autocast(self.device.type, dtype, dtype is not None)

    def forward(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        """``Scores`` of images (V, B, 3, H, W); ``encoded``: from ``encode``, if already called."""
        with self.autocast():
            return self.scores(images, encoded)

    def answer(self, images: Tensor, encoded: Encoded | None = None) -> Prediction:
        """``Prediction`` for test images (1, B, 3, H, W), its energy included."""
        logits = self(images, encoded).logits  # (M, B, K)
        answer = self.predict(logits)
        if answer.energy is None:
            answer.energy = -logits.logsumexp(dim=-1).mean(dim=0)  # (B,)
        return answer

    @cached_property
    def hand_crafted(self) -> Tensor:
        """Features (K, E) of each class's hand-crafted prompts, and of its sentences if it has any."""
        templates = self.hand_crafted_templates()
        is_unit = self.unit_templates
        with torch.no_grad(), self.autocast():
            # one template after the other: all at once would be thousands of texts
            total: Any = sum(self.encode_classes(text, is_unit) for text in templates)
            if self.describe:
                total = total + self.teacher.encode_sentences(self.sentences(), is_unit)
            return F.normalize(total, dim=-1) if len(templates) > 1 or self.describe else total

    def sentences(self) -> list[list[str]]:
        """Those about each class; only where there are descriptions."""
        assert self.describe is not None
        self.uses_descriptions = True
        return self.describe(self.classnames)

    def encode_classes(self, template: str, normalize: bool = True) -> Tensor:
        """Features (K, E) of the classes in a hand-crafted prompt with ``{}`` for the name."""
        return self.teacher.encode_classes(template, self.classnames, normalize)

    def encode_texts(self, prompts: Prompts, normalize: bool = True) -> Tensor:
        """Features (M, K, E) of the classes under prompts.

        ``TEXT_CHUNK`` classes at a time, which the backward pass encodes again.
        """
        text = self.backbone.text
        chunk = self.settings.TEXT_CHUNK
        if chunk == 0:
            features = text(*prompts.texts(slice(None)))
        else:
            parts = []
            for first in range(0, len(self.classnames), chunk):
                part = prompts.texts(slice(first, first + chunk))
                parts.append(recomputed(text, *part, use_reentrant=False))
            features = torch.cat(parts, dim=1)
        return F.normalize(features.float(), dim=-1) if normalize else features.float()

    def encode_images(
        self, images: Tensor, prompts: Prompts | None = None, normalize: bool = True
    ) -> Tensor:
        """Features (M, B, E) of images (V, B, 3, H, W); (V, B, E) where images are not prompted."""
        features = self.backbone.image(images, *(prompts or Prompts()).images()).float()
        return F.normalize(features, dim=-1) if normalize else features

    @torch.no_grad()
    def unprompted_images(self, images: Tensor) -> Tensor:
        """CLIP's own features (V, B, E) of images (V, B, 3, H, W), as references; no gradient."""
        with self.autocast():
            return self.encode_images(images)

    def unprompted(self, scores: Scores, every: int = 1) -> Tensor:
        """``unprompted_images`` (V, B / every, E) of each ``every``-th image of ``scores``; those of
        all images are encoded once for all losses."""
        if every > 1 and scores.unprompted is None:
            return self.unprompted_images(scores.images[:, ::every])
        if scores.unprompted is None:
            scores.unprompted = self.unprompted_images(scores.images)
        return scores.unprompted[:, ::every]

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """τ · cos, and the bias of a sigmoid model; (M or 1, B, E) and (M, K, E) → (M, B, K), always in
        fp32."""
        with torch.autocast(self.device.type, enabled=False):
            scale = self.backbone.log_scale.float().exp()
            logits = scale * image_features @ text_features.transpose(1, 2)
            bias = self.backbone.logit_bias
            return logits if bias is None else logits + bias

    @torch.no_grad()
    def features_of(
        self, batches: Batches, prompts: Prompts | None = None, normalize: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Features (M or 1, N, E) and labels (N,) of N images, under the prompts if any."""
        features = []
        labels = []
        for images, label in batches:
            with self.autocast():
                features.append(self.encode_images(images, prompts, normalize=normalize))
            labels.append(label)
        return torch.cat(features, dim=1), torch.cat(labels)

    # ---- what belongs to the classes that were trained ----

    def load(self, state: State, classnames: Sequence[str]) -> None:
        """Loads a learner's state that was trained for ``classnames``.

        A permutation of these permutes the answers, and some of them are told apart as they were
        trained. Where others are asked for, the ``class_part`` is left out unless ``state_for`` knows
        better; ``note`` says so.

        Raises:
            RuntimeError: it has other names or shapes.
        """
        self.origin = None
        self.left_out = ()
        served: State | None = state
        if list(classnames) != self.classnames:
            self.origin = Trained(state, list(classnames))
            served = self.state_for(state, self.origin.numbers(self.classnames))
        if served is None:
            self.left_out = self.class_part.names
            self.drop_class_part()
            served = self.class_part.without(state)
        self.learned.load_state_dict(served)
        if self.note:
            log.info("%s", self.note)

    @property
    def trained(self) -> Trained:
        """What was trained, for whatever classes this method answers."""
        state = {} if self.learner is None else self.learner.state_dict()
        return self.origin or Trained(state, self.classnames)

    @property
    def note(self) -> str:
        """In which other way than the trained classes alone its list is answered, in words; "" where
        in none."""
        if self.origin is None or not self.class_part.names:
            return ""
        numbers = self.origin.numbers(self.classnames)
        added = [name for name, number in zip(self.classnames, numbers) if number == ADDED]
        if not added:
            return ""
        return (
            f"Not trained: {first_few(added)}. {self.way_of_added()}; this is less accurate where the "
            "CLIP does not know the names."
        )

    @property
    def is_class_specific(self) -> bool:
        """Whether all that is learned belongs to the classes that were trained."""
        return self.learner is not None and not self.class_part.without(self.learner.state_dict())

    def can_answer(self, asked: Sequence[str], trained: Sequence[str]) -> bool:
        """Whether a learner that was trained for some classes says anything of those asked for."""
        return not self.is_class_specific or {*asked} <= {*trained}

    def prompts_hash(self, state: State | None = None) -> str | None:
        """Hash of a learner's state (default: the trained one), the same for whatever classes are
        tested; None where nothing is learned."""
        if self.learner is None:
            return None
        state = self.trained.state if state is None else state
        return tensor_hash((self.class_part.without(state) or state).values())

    def count_parameters(self) -> tuple[int, int]:
        """Numbers of learnable parameters and of all, the CLIP's included."""
        learned = () if self.learner is None else self.learner.parameters()
        learnable = sum(p.numel() for p in learned if p.requires_grad)
        return learnable, learnable + sum(p.numel() for p in self.backbone.parameters())


def method_class(name: str) -> type[Method]:
    """The ``Method`` of a name in ``METHODS``."""
    return cast(type[Method], attribute(name, f"{name}Method"))


def methods_for(backbone: Backbone) -> list[str]:
    """Names of the methods that serve a CLIP whose text encoder takes no prompts."""
    return [
        name
        for name in METHODS
        if not method_class(name).prompts_texts
        and (backbone.takes_visual_prompts or method_class(name).text_only is not None)
    ]
