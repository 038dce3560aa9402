"""A run of several labels per picture as a classifier.

>>> from labelling import PromptedClassifier
>>> classifier = PromptedClassifier.fit("labels.csv", backbone="tiny")  # cat.jpg,dog;ball
>>> answers = classifier.predict(["cat.jpg", "dog.png"])
>>> len(answers.labels), answers.probabilities.shape == (2, len(classifier.classnames))
(2, True)
"""

import os
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from trainers.common.console import first_few
from trainers.common.errors import UserError
from trainers.common.record_file import Record, finished_record, gives_several, read_answers
from trainers.data.transforms import least_side, pixels_of_test
from trainers.engine.build import find_method
from trainers.engine.checkpoint import MODEL_NAME, epoch_name
from trainers.engine.checkpoint import load as load_checkpoint
from trainers.engine.saved_run import config_of, method_of
from trainers.evaluation.label_sets import measure_label_sets
from trainers.maths.binary import BinaryProbe
from trainers.method import Method
from trainers.prompting.hashes import tensor_hash

from ..folders.label_sets import BETWEEN, LabelSets, read_label_sets
from ..folders.pictures import Picture, Pictures, transformed
from ..reading import ReadImages, batches_of, read_images
from ..threshold import CONFIDENCE
from ..zero_shot import zero_shot_classifier
from .promise import Rule, best_thresholds, limit_of_error, limit_of_missed

if TYPE_CHECKING:
    import pandas

NAME = "BinaryProbe"  # the trainer's, in a record
BASE = "ZeroshotCLIP"  # whose features and texts it takes
BY_NAMES = (
    "Answered by the names alone: the numbers rank pictures and labels, and no label is given until labelled pictures "
    "have been trained on"
)


@dataclass
class SetAnswers:
    """What a classifier says about N images over K labels; numpy arrays in fp32.

    Attributes:
        classnames: the K names.
        images: N file names, as they were given; None for an image that came without one.
        labels: N lists of names, the most probable first.
        probabilities: (N, K), each label's own: rows don't sum to one.
        thresholds: (K,), the least probability of a label that is given; None without labelled pictures.
        uncertainty: (N,) in [0, 1]: how probable it is that any label is wrong or missing, if labels were
            independent.
        note: in which other way these are answered; "" where in none.
    """

    classnames: list[str]
    images: list[str | None]
    labels: list[list[str]]
    probabilities: numpy.ndarray
    thresholds: numpy.ndarray | None
    uncertainty: numpy.ndarray
    note: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def to_pandas(self) -> "pandas.DataFrame":
        """A ``DataFrame``, one row per image: image, label (``dog;ball``), uncertainty, and a column
        ``probability_<label>`` per label."""
        import pandas

        columns: dict[str, Any] = {
            "image": self.images,
            "label": [BETWEEN.join(names) for names in self.labels],
            "uncertainty": self.uncertainty,
        }
        for name, probability in zip(self.classnames, self.probabilities.T):
            columns[f"probability_{name}"] = probability
        return pandas.DataFrame(columns)


@dataclass
class SetEvaluation:
    """How good the answers to N labelled images are.

    Attributes:
        measures: see ``measure_label_sets``.
        answers: to the images.
    """

    measures: dict[str, Any]
    answers: SetAnswers = field(repr=False)


class SeveralClassifier:
    """A CLIP and a ``BinaryProbe`` of its features: each label is a question of its own. Images may be
    given as ``PromptedClassifier`` takes them.

    Args:
        method: the untrained CLIP over the labels; cfg: its config.
        probe: None: the names alone answer.
        rule: which labels are given; None: none are.
        record: the run's ``results.json``; {} where there is no run.
    """

    def __init__(
        self,
        method: Method,
        cfg: CfgNode,
        probe: BinaryProbe | None = None,
        rule: Rule | None = None,
        record: Record | None = None,
    ) -> None:
        self.method = method.eval().requires_grad_(False)
        self.cfg = cfg
        self.transform = pixels_of_test(cfg.INPUT)
        self.probe = probe
        self.rule = rule
        self.record = record or {}

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        backbone: str | os.PathLike[str] | None = None,
        *,
        max_error: float | None = None,
        max_missed: float | None = None,
        confidence: float = CONFIDENCE,
    ) -> "SeveralClassifier":
        """The classifier that a run has trained.

        Args:
            folder: the run's; backbone: see ``PromptedClassifier.load``.
            max_error, max_missed, confidence: of a promise, see ``promise.py``; without one each label
                has the threshold that is best for its F1.

        Raises:
            UserError: it holds no finished training of several labels, or of another CLIP; or what is
                promised can't be.
        """
        folder = os.fspath(folder)
        record = finished_record(folder)
        if not gives_several(record):
            raise UserError(
                f"{folder} gives one label per picture: load it with PromptedClassifier.load"
            )
        cfg = config_of(record, find_method(BASE))
        if backbone:
            cfg.MODEL.BACKBONE.NAME = os.fspath(backbone)
        cfg.freeze()
        method = method_of(cfg, record["classnames"])
        if method.towers.backbone_hash != record["backbone_hash"]:
            raise UserError(
                f"{folder} was trained with another CLIP than {cfg.MODEL.BACKBONE.NAME}, whose weights differ: give the "
                "run's own with --backbone"
            )
        state = load_checkpoint(f"{folder}/{MODEL_NAME}/{epoch_name(1)}")["state_dict"]
        if tensor_hash(state.values()) != record["prompts_hash"]:
            raise UserError(
                f"{folder}/{MODEL_NAME} is not as the run has left it: delete {folder}, and train again"
            )
        rule = rule_of(folder, record, max_error, max_missed, confidence)
        return cls(method, cfg, BinaryProbe(**state), rule, record)

    @classmethod
    def zero_shot(
        cls, classnames: Iterable[str], backbone: str | os.PathLike[str] | None = None
    ) -> "SeveralClassifier":
        """An untrained CLIP over at least two labels: it ranks them by their names, and gives none.

        Args:
            backbone: see ``PromptedClassifier.zero_shot``.

        Raises:
            UserError: they are not at least two names, or there is no such CLIP.
        """
        method, cfg, _, _ = zero_shot_classifier(classnames, backbone)
        return cls(method, cfg)

    @property
    def background(self) -> str:
        """See ``PromptedClassifier.background``."""
        return self.cfg.INPUT.BACKGROUND or "white"

    @property
    def classnames(self) -> list[str]:
        """The K names of labels."""
        return list(self.method.classnames)

    def predict(self, images: Pictures, broken: list[UserError] | None = None) -> SetAnswers:
        """``SetAnswers`` for images.

        Args:
            broken: see ``PromptedClassifier.predict``.

        Raises:
            UserError: see there.
        """
        unreadable: dict[int, UserError] | None = None if broken is None else {}
        probabilities = []
        names: list[str | None] = []
        for shown, its_names in self.batches(images, unreadable):
            probabilities.append(self.probability(self.features_of(shown)))
            names += its_names
        errors = list((unreadable or {}).values())
        if not probabilities:
            first = f"not one can be read; the first: {errors[0]}" if errors else "there is none"
            raise UserError(f"there is no image to look at: {first}")
        if broken is not None:
            broken += errors
        return self.answers(numpy.concatenate(probabilities), names)

    def predict_proba(self, images: Pictures) -> numpy.ndarray:
        """Probabilities (N, K) of the labels in the order of ``classnames``."""
        return self.predict(images).probabilities

    def evaluate(self, images: str | os.PathLike[str] | LabelSets) -> SetEvaluation:
        """How good the answers to labelled images are.

        Args:
            images: a file of label sets, or what ``read_label_sets`` has read.

        Raises:
            UserError: see ``predict``; or a label is none of ``classnames``.
        """
        sets = images if isinstance(images, LabelSets) else read_label_sets(os.fspath(images))
        if others := sorted({*sets.classnames} - {*self.classnames}):
            raise UserError(
                f"the labels {first_few(others)} are none of the run's: they are {first_few(self.classnames)}"
            )
        truth = numpy.zeros((len(sets.paths), len(self.classnames)), bool)
        truth[:, [self.classnames.index(name) for name in sets.classnames]] = sets.truth
        answers = self.predict(sets.paths)
        given = self.given(answers.probabilities)
        measures = measure_label_sets(answers.probabilities, given, truth, self.classnames)
        return SetEvaluation(measures, answers)

    def batches(
        self, images: Pictures, broken: dict[int, UserError] | None
    ) -> Generator[tuple[Tensor, list[str | None]], None, None]:
        """See ``reading.batches_of``."""
        return batches_of(images, self.cfg.DATALOADER.TEST.BATCH_SIZE, self.read_batch, broken)

    def read_batch(self, pool: ThreadPoolExecutor, images: list[Picture]) -> ReadImages:
        """Images as the CLIP takes them, read by the threads of a pool."""
        return read_images(pool, images, self.read)

    def read(self, image: Picture) -> Tensor | UserError:
        """Its pixels (3, H, W) as the CLIP takes them, or why it can't be read."""
        try:
            side = least_side(self.cfg.INPUT)
            return transformed(image, self.background, self.transform, side)
        except UserError as error:
            return error

    @torch.no_grad()
    def features_of(self, shown: Tensor) -> Tensor:
        """Features (B, E), of length one, on the CPU, of images (B, 3, H, W)."""
        towers = self.method.towers
        with towers.autocast():
            features = towers.encode_images(shown.to(towers.device)[None])
        return F.normalize(features[0], dim=-1).float().cpu()

    def texts(self, features: Tensor) -> Tensor:
        """The texts' logits (N, K) of features (N, E), minus their mean over the labels."""
        return texts_logits(self.method, features)

    def probability(self, features: Tensor) -> numpy.ndarray:
        """(N, K) of features (N, E)."""
        texts = self.texts(features)
        logits = texts if self.probe is None else self.probe(features, texts)
        return logits.sigmoid().float().numpy()

    def given(self, probability: numpy.ndarray) -> numpy.ndarray:
        """Which labels (N, K) are given at probabilities (N, K)."""
        return (
            numpy.zeros(probability.shape, bool)
            if self.rule is None
            else self.rule.given(probability)
        )

    def answers(self, probability: numpy.ndarray, names: list[str | None]) -> SetAnswers:
        """Probabilities (N, K) of N images, with their names, as ``SetAnswers``."""
        given = self.given(probability)
        labels = []
        for answer, own in zip(probability, given):
            order = numpy.argsort(-answer, kind="stable")
            labels.append([self.classnames[label] for label in order if own[label]])
        agreed = numpy.where(given, probability, 1 - probability)
        return SetAnswers(
            classnames=self.classnames,
            images=names,
            labels=labels,
            probabilities=probability,
            thresholds=None if self.rule is None else self.rule.thresholds,
            uncertainty=1 - agreed.prod(axis=1),
            note=BY_NAMES if self.probe is None else "",
        )


@torch.no_grad()
def texts_logits(method: Method, features: Tensor) -> Tensor:
    """The texts' logits (N, K) of features (N, E), minus their mean over the labels: a picture that is
    like all texts has none of the labels more than another."""
    towers = method.towers
    shown = features.to(towers.device)[None]
    logits = towers.logits(shown, method.hand_crafted[None])[0].double().cpu()
    return logits - logits.mean(dim=1, keepdim=True)


def rule_of(
    folder: str,
    record: Record,
    max_error: float | None,
    max_missed: float | None,
    confidence: float,
) -> Rule:
    """The rule for a run's labels, of its out-of-fold answers; see ``SeveralClassifier.load``."""
    shares = {"--max-error": max_error, "--max-missed": max_missed}
    if isinstance(max_error, str):
        raise UserError(
            "--max-error best is of runs of one label per picture: give a share, such as 0.1"
        )
    for flag, share in {**shares, "--confidence": confidence}.items():
        if share is not None and not 0 < share < 1:
            raise UserError(f"{flag} is {share}, it is a share: above 0 and below 1")
    if max_error is not None and max_missed is not None:
        raise UserError("--max-error and --max-missed are two promises: give one of them")
    if record.get("found_in_part") and (max_error is not None or max_missed is not None):
        raise UserError(
            f"{folder} promises nothing, since copies were found only in part: name what belongs together in a column "
            "group, and train again, or leave the promise out"
        )
    kept = answers_of(folder, record)
    known = kept["probability"], kept["truth"]
    if max_error is not None:
        found = limit_of_error(*known, kept["group"], max_error, confidence)
        what = f"at most {100 * max_error:g} % of the labels that are given are wrong"
    elif max_missed is not None:
        found = limit_of_missed(*known, kept["group"], max_missed, confidence)
        what = f"at most {100 * max_missed:g} % of the labels that pictures have are missed"
    else:
        return best_thresholds(*known)
    if found is None:
        groups = len(numpy.unique(kept["group"]))
        raise UserError(
            f"{folder} can't promise that {what}: {groups} pictures or groups of them are too few, or too often "
            "wrong: give a larger share, add pictures, or leave the promise out"
        )
    sure = f"with {100 * confidence:g} % confidence, on pictures like the run's"
    return replace(found, says=f"{what[0].upper()}{what[1:]}, {sure}")


def answers_of(folder: str, record: Record) -> dict[str, numpy.ndarray]:
    """A run's out-of-fold answers: ``probability`` (N, K), ``truth`` (N, K), ``group`` (N,), ``fold``
    (N,).

    Raises:
        UserError: they can't be read.
    """
    try:
        return read_answers(folder, "test", record)
    except Exception as error:  # damaged bytes can raise anything
        raise UserError(
            f"the answers in {folder} can't be read ({type(error).__name__}): delete the folder, and train again"
        ) from error


def parts_of(probe: BinaryProbe) -> dict[str, Tensor]:
    """The tensors of a probe by name, for a checkpoint."""
    return {"weight": probe.weight, "bias": probe.bias, "text_weight": probe.text_weight}


def with_rule(classifier: SeveralClassifier, limit: float) -> SeveralClassifier:
    """The classifier that gives the labels of at least a probability."""
    number = len(classifier.classnames)
    says = f"Labels of a probability of at least {limit:g} are given; nothing is promised"
    rule = Rule(numpy.full(number, limit), number, says)
    return SeveralClassifier(
        classifier.method, classifier.cfg, classifier.probe, rule, classifier.record
    )
