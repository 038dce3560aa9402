"""Method: a frozen CLIP under a method's learnable module, as one ``nn.Module``.

A method derives from ``Method`` and overrides

- ``build``: the module with the learnable parts; called without arguments it returns ``Prompts``,
- ``loss`` (default: cross-entropy) and ``predict`` (default: softmax),
- ``scores``, where texts depend on the image or logits are not the cosines,
- ``start``, ``end_epoch`` and ``complete``, for what happens before, between and after the epochs,
- ``check``, for its settings. The state of training beyond the learnable parts is in its ``memory``.
- ``class_part`` and ``drop_class_part``, where a part of the learner serves the trained classes alone.

It needs no trainer:

>>> import torch
>>> from trainers import method_node
>>> from trainers.coop import CoOpMethod
>>> from trainers.prompting.backbone import load_backbone
>>> method = CoOpMethod(method_node("CoOp"), ["cat", "dog"], load_backbone("tiny"))
>>> images = torch.randn(1, 8, 3, 64, 64)  # one view of eight images
>>> loss, figures = method.loss(method(images), torch.arange(8) % 2)
>>> loss.backward()
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from .class_part import ADDED, ClassPart, State, Trained
from .common.config_files import check_values
from .common.console import first_few
from .common.errors import UserError
from .common.setting import Settings
from .evaluation.prediction import Prediction, Scores
from .prompting.backbone import Backbone
from .prompting.hashes import tensor_hash
from .prompting.precision import OfficialPrecision
from .prompting.prompts import Prompts
from .prompting.towers import Towers
from .texts.templates import DEFAULT_TEMPLATE, TEMPLATES

Batches = Iterable[tuple[Tensor, Tensor]]  # images (1, B, 3, H, W) and labels (B,)
TrainingImages = Callable[..., Batches]  # of at most ``most`` images, or ``augmented`` ones
Encoded = tuple[Tensor, Prompts | None]  # as ``Method.encode`` returns it
Figures = dict[str, Tensor]  # scalars for the log
ParameterGroups = list[dict[str, object]]  # as torch's optimisers take them
Kind = TypeVar("Kind", bound="Method")
ALL = slice(None)

log = logging.getLogger(__name__)


class Layered(Protocol):
    """An encoder with layers to prompt."""

    layers: int


class Method(nn.Module):
    """The towers of a frozen CLIP and a method's learnable module.

    Args:
        settings: the method's own config node.
        classnames: K names.
        backbone: the CLIP, or the ``Towers`` of another method that this one shares (``like``).
        dataset: name of the data set, which has hand-crafted prompts of its own.
        describe: K names → sentences about each class, which join the hand-crafted prompt.
        path: the node's name for messages; by default the class's.

    Attributes:
        towers: the encoders of texts and images.
        learner: the learnable module; None where nothing is learned.
        base: the method that this one builds on and holds, if any.
        memory: the state of training beyond the learner, for the checkpoint: tensors, numbers,
            dicts and lists of them.
        uses_descriptions: whether anything of it has asked for the sentences about the classes.
        left_out: names of the entries that ``load`` has left out, as they serve other classes.
        origin: the loaded state, where it was trained for other names or another order of them.
        declared: the settings of its config node.
        learns: whether there is anything to train.
        official_precision: how its official code departs from ``PREC``.
        unit_templates: whether the features of several hand-crafted prompts are normalised before
            their mean is taken.
        whole_validation: whether ``start`` and ``complete`` get all validation images of the data
            set, as in the method's official code, not the few-shot sample of them.
        exceptions: data set → hand-crafted prompt, where the method departs from CoOp's.
        prompts_texts: whether the text encoder is changed, so that it has to be CLIP's own; else the
            texts are hand-crafted.
        needs_texts: whether it answers by texts, so that the backbone needs a text encoder.
        text_only: settings under which the image encoder is not prompted, so that any backbone
            serves; None: it always is.
        learns_in_epochs: whether its learner is trained in epochs; else it learns nothing, or ``start``
            and ``complete`` fit all of it: it is a ``features.FeatureMethod``.
        compiles: whether ``torch.compile`` can take its loss, which takes no gradients itself.
        tells_by_images: whether images tell the trained classes apart, so that two of them may have one
            text.
        calibrated: names in ``learned`` of what ``calibrate`` fits.
    """

    learner: nn.Module | None
    declared: ClassVar[Settings]
    learns = True
    learns_in_epochs = True
    compiles = True
    official_precision = OfficialPrecision()
    unit_templates = True
    whole_validation = False
    exceptions: ClassVar[dict[str, str]] = {}
    prompts_texts = True
    needs_texts = True
    text_only: ClassVar[dict[str, object] | None] = {}
    tells_by_images = False
    calibrated: tuple[str, ...] = ()

    def __init__(
        self,
        settings: CfgNode,
        classnames: Sequence[str],
        backbone: Backbone | Towers,
        dataset: str = "",
        describe: Callable[[Sequence[str]], list[list[str]]] | None = None,
        path: str = "",
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
        if isinstance(backbone, Backbone):
            self.check_towers(settings, backbone, self.path)
            backbone = Towers(backbone, settings, self.official_precision)
        self.towers = backbone
        learner = self.build()
        self.learner = None if learner is None else learner.to(self.device)

    @classmethod
    def name(cls) -> str:
        """The name that it is registered under."""
        return cls.__name__.removesuffix("Method")

    @property
    def backbone(self) -> Backbone:
        """The CLIP that is prompted, in the precision that is computed in."""
        return self.towers.backbone

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.towers.device

    @property
    def learned(self) -> nn.Module:
        """The learner of a method that learns."""
        assert self.learner is not None
        return self.learner

    # ---- methods made of methods ----

    def like(
        self,
        kind: type[Kind],
        settings: CfgNode | None = None,
        classnames: Sequence[str] | None = None,
    ) -> Kind:
        """A new method of a kind with this one's towers and, unless others are given, its settings and
        classes."""
        return kind(
            self.settings if settings is None else settings,
            self.classnames if classnames is None else classnames,
            self.towers,
            self.dataset,
            self.describe,
            self.path,
        )

    def for_classes(self, classnames: Sequence[str]) -> "Method":
        """Return the trained method for other class names: CLIP's vocabulary is open.

        It shares the CLIP, so it costs the encoding of the names. It is made of the state as it was trained,
        even if this method was made for other names itself (``load``).
        """
        with torch.random.fork_rng(devices=[]):  # prompts' first values, which are not kept
            made = self.like(type(self), classnames=classnames)
        if self.learner is not None:
            made.load(self.trained.state, self.trained.classnames)
        return made.train(self.training)

    def extend(self, **parts: nn.Module) -> None:
        """Gives the learner further parts, for a method that holds this one."""
        for name, part in parts.items():
            self.learned.add_module(name, part)

    # ---- requirements on its CLIP ----

    @classmethod
    def check_towers(
        cls,
        settings: CfgNode,
        backbone: Backbone,
        path: str,
        others: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Refuses a backbone without texts, where these are needed; a text encoder that is not CLIP's own,
        unless the texts are hand-crafted; and an image encoder that has no tokens to put prompts beside,
        unless ``text_only``.

        Args:
            path: the node's name for messages.
            others: gives the names of methods that the CLIP serves, for messages.
        """
        if not backbone.has_texts and cls.needs_texts:
            choices = ", ".join(others()) or "a method that learns from pictures alone"
            raise UserError(
                f"{path} needs texts of the class names, and the backbone is an {backbone.text.kind}: choose "
                f"{choices}, or a CLIP as the backbone"
            )
        if cls.prompts_texts and not backbone.text.takes_prompts:
            names = others()
            choices = f"{', '.join(names)}, or " if names else ""
            raise UserError(
                f"{path} prompts the text encoder, and the backbone's is a {backbone.text.kind}: choose "
                f"{choices}a backbone with CLIP's own text encoder"
            )
        wanted = (cls.text_only or {}).items()
        changes = [f"{key} {value}" for key, value in wanted if settings[key] != value]
        if not backbone.takes_visual_prompts and (changes or cls.text_only is None):
            instead = f"set {' and '.join(changes)}" if changes else "choose a ViT"
            raise UserError(
                f"{path} prompts the image encoder, and the backbone is a {backbone.image.kind}: {instead}"
            )

    def check_depth(self, key: str, depth: int, *towers: Layered) -> None:
        """Refuses a key that would change more layers than each of the towers has."""
        layers = min(tower.layers for tower in towers)
        if depth > layers:
            raise UserError(
                f"{self.path}.{key} is {depth}, the backbone has {layers} layers to prompt"
            )

    @staticmethod
    def check_order(settings: CfgNode, path: str, first: str, last: str) -> None:
        """Refuses a last layer that comes before the first one; first, last: their keys."""
        start = settings[first]
        end = settings[last]
        if end < start:
            raise UserError(f"{path}.{last} is {end}, it must be {first}, {start}, or more")

    # ---- for a method to override ----

    @classmethod
    def check(cls, settings: CfgNode, path: str) -> None:
        """Refuses settings that can't work; ``path``: the node's name for messages.

        Raises:
            UserError: the key, its value and the values that it takes.
        """
        check_values(settings, cls.declared, f"{path}.")

    @classmethod
    def views(cls, settings: CfgNode) -> tuple[int, int | None]:
        """Return the number V of views of a training image, and the augmentation that tells them apart.

        ``data.loader.template_views`` makes them.
        """
        return 1, None

    def build(self) -> nn.Module | None:
        """The learnable module; None where nothing is learned. ``hand_crafted`` can be used here."""
        return None

    @property
    def class_part(self) -> ClassPart:
        """The part of the learner that serves the trained classes alone."""
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
        """Describe the answers to a list with classes that were not trained."""
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
        """Return the parts that all images share: text features (M, K, E) and the prompts.

        None where texts depend on the image; prompts are None where nothing is learned.
        """
        prompts = self.learned()
        return self.towers.encode_texts(prompts), prompts

    def scores(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        """``forward`` without the autocast."""
        encoded = encoded or self.encode()
        assert encoded is not None  # texts that depend on the image have ``scores`` of their own
        texts, prompts = encoded
        features = self.towers.encode_images(images, prompts)
        return Scores(self.towers.logits(features, texts), features, texts, images)

    def start(self, training: TrainingImages, validation: Batches | None) -> None:
        """Prepare the first step by the training images; not called where a run resumes. Its
        draws change no later draw of ``fit``."""

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Takes note of the prompts after an epoch, from 0, as does the ``base``, if any."""
        if self.base is not None:
            self.base.end_epoch(epoch, epochs)

    def complete(self, training: TrainingImages, validation: Batches | None) -> bool:
        """Fit what is fitted to validation images after training, if there are any; return whether
        learnable parts have changed."""
        return False

    def calibrate(self, logits: Tensor, labels: Tensor) -> bool:
        """Fits how sure answers are to the logits (M, N, K) and labels (N,) of validation images;
        returns whether the method has anything that can be fitted so."""
        return False

    def merged(self) -> Backbone | None:
        """The CLIP with the learned update added to its weights; None where that is another function, as
        for prompts and for adapters with a nonlinearity."""
        return None

    def learned_figures(self) -> dict[str, float]:
        """Return numbers of the learned parts by name, for the run record."""
        return {}

    # ---- scores and answers ----

    def forward(self, images: Tensor, encoded: Encoded | None = None) -> Scores:
        """``Scores`` of images (V, B, 3, H, W); ``encoded``: from ``encode``, if already called."""
        with self.towers.autocast():
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
        sentences = self.sentences()
        is_unit = self.unit_templates
        return self.towers.encode_hand_crafted(templates, self.classnames, sentences, is_unit)

    def sentences(self) -> list[list[str]]:
        """Return each class's sentences; empty without descriptions."""
        if self.describe is None:
            return []
        self.uses_descriptions = True
        return self.describe(self.classnames)

    @torch.no_grad()
    def unprompted(self, scores: Scores, views: slice = ALL, images: slice = ALL) -> Tensor:
        """CLIP's own features (V, B, E) of the images of ``scores``, or of some views or images of them.

        No gradient. Those of all are encoded once for all losses.
        """
        if scores.unprompted is not None:
            return scores.unprompted[views, images]
        with self.towers.autocast():
            features = self.towers.encode_images(scores.images[views, images])
        if views == images == ALL:
            scores.unprompted = features
        return features

    # ---- parts of the trained classes ----

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
        """The state as it was trained, whichever classes this method answers now."""
        state = {} if self.learner is None else self.learner.state_dict()
        return self.origin or Trained(state, self.classnames)

    @property
    def added_classes(self) -> list[str]:
        """The classes that were not trained, though the run has trained others."""
        if self.origin is None:
            return []
        numbers = self.origin.numbers(self.classnames)
        return [name for name, number in zip(self.classnames, numbers) if number == ADDED]

    @property
    def note(self) -> str:
        """Say how a list with added classes is answered; "" for a list without them."""
        added = self.added_classes if self.class_part.names else []
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
        is_open = self.backbone.has_texts and not self.is_class_specific
        return is_open or {*asked} <= {*trained}

    def why_trained_alone(self) -> str:
        """Say why the method answers among trained classes alone."""
        if not self.backbone.has_texts:
            return (
                f"its backbone, an {self.backbone.text.kind}, knows classes by their pictures alone"
            )
        return f"its contexts are class-specific ({self.path}.CSC)"

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
