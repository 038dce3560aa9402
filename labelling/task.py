"""Single-label and multi-label pictures: the only place that knows whether a picture has one label or
several.

A task says how a table is divided and sampled, how likely labels are under logits, and which methods can
learn it. What is kept and measured of answers follows from ``Images.truth`` (``engine.scoring``).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from trainers.common.console import counted, first_few
from trainers.common.errors import UserError
from trainers.common.record_file import Record, is_multi_label, tested_on
from trainers.data.class_folders import small_classes
from trainers.data.fewshot import FewShot, choose
from trainers.data.images import Images, paths_of
from trainers.data.lists import Image, Lists, classnames_of
from trainers.engine.scoring import label_thresholds
from trainers.evaluation.figures import wilson
from trainers.evaluation.multi_label import best_thresholds, measure_multi_label
from trainers.evaluation.prediction import Prediction
from trainers.learners.features import (
    FeatureMethod,
    answers_at,
    best_temperature,
    log_likelihood,
)
from trainers.method import Method

from .answer import Answers, multi_label_answers, single_label_answers
from .limits import LabelLimits
from .parts import (
    Numbers,
    draw_sample,
    files_of,
    folds,
    multi_label_items,
    multi_label_lists,
    single_label_lists,
    stratified_folds,
    too_small,
)
from .readers.rows import WHOLE
from .rules import LabelRule
from .table import Table, check_occurring

FOLDS = 5  # of many images
MANY_FOLDS = 10  # of few images
CHEAP = 2000  # images, up to which ten fits take seconds
SMALL = 10  # images of a class, below which its accuracy rests on a few
CHOSEN = ", of pictures that were chosen by how certain they are"
BY_NAMES = (
    "Answered by the names alone: the numbers rank pictures and labels, and no label is given until labelled pictures "
    "have been trained on"
)
Truth = Mapping[str, numpy.ndarray]  # path → which labels (K,) the picture has


class SingleLabel:
    """Each picture has one label.

    Attributes:
        multi_label: whether a picture may have several labels, or none.
        trainer: the one that is taken where none is named.
    """

    multi_label = False
    trainer = "LinearProbe"  # chosen with experiments/compare_candidates.py

    def checked(self, table: Table, skips: bool) -> tuple[Table, list[str]]:
        """Return the table without classes of too few pictures, and a note on these.

        Raises:
            UserError: there are such classes, and they are not to be skipped.
        """
        if len(table.classnames) < 2:
            raise UserError(
                f"{table.place} has labels of one class only, {table.classnames[0]}: label images of another one, too"
            )
        small = too_small(table)
        if not small:
            return table, []
        words = small_classes(files_of(table)[WHOLE])
        if not skips or len(table.classnames) - len(small) < 2:
            raise UserError(
                f"{table.place} has {words}, which are too few to divide into train, val and test: add some, or, if there are "
                "two other classes, leave these out with --skip-small (in Python and with run.py: DATASET.SKIP_SMALL True)"
            )
        places = [place for place, (label,) in enumerate(table.labels) if label not in {*small}]
        return table.having(places).without(small), [f"Left out: {words}"]

    def items(self, table: Table) -> list[Image]:
        """Return all pictures as items of a data set, in the order in which they are looked at."""
        return sum(single_label_lists(table), [])

    def divide(self, table: Table, groups: Numbers | None = None) -> Lists:
        """Return train, val and test; groups: path → those that are not divided."""
        return single_label_lists(table, groups)

    def truth(self, table: Table) -> Truth:
        """Return ``Images.truth``."""
        return {}

    def chosen(self, cfg: CfgNode, table: Table, lists: Lists, truth: Truth) -> FewShot:
        """Choose the images that a run trains, validates and tests on."""
        return choose(cfg, table.place, *lists)

    def classnames(self, table: Table, trained: Sequence[Image]) -> list[str]:
        """Return the K names in the order of the labels."""
        return classnames_of(trained)

    def check_images(self, place: str, images: Images) -> None:
        """Refuse images that can't be learned.

        Raises:
            UserError: there are too few, or a label has none.
        """

    def searched_classes(self, images: Sequence[Image]) -> list[int]:
        """Return a number for each image; near-duplicates are searched for among images of one number.

        It is the class: pictures of two classes may look alike and yet differ in a detail that counts.
        """
        return [image.label for image in images]

    def number_of_folds(self, trained: Sequence[Image]) -> int:
        """Return in how many folds the training images answer each other; 0: in none.

        Ten where these are cheap or a class is small, since what is fitted to nine tenths is nearly as good
        as what is kept; none where a class has one image, of which nothing can be held out.
        """
        sizes = Counter(image.label for image in trained)
        smallest = min(sizes.values())
        if smallest < 2:
            return 0
        return MANY_FOLDS if sizes.total() <= CHEAP or smallest < MANY_FOLDS else FOLDS

    def folds(self, images: Images, paths: Sequence[str], labels: Tensor, seed: int) -> Tensor:
        """Return the fold (N,), from 0, of each training image, whose labels are (N,)."""
        groups = torch.from_numpy(images.groups_of(paths))
        return folds(labels.cpu(), images.folds, seed, groups)

    def target(self, images: Images, paths: Sequence[str], labels: Tensor) -> Tensor:
        """Return what is learned of each training image: a label (N,), or labels (N, K)."""
        return labels

    def log_likelihood(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the log-likelihood (T,) of a target under logits (N, K) at T temperatures."""
        return log_likelihood(logits, target)

    def temperature(self, logits: Tensor, target: Tensor) -> float:
        """Return the temperature under which a target is most likely."""
        return best_temperature(logits, target)

    def answers(self, logits: Tensor, temperature: float) -> Prediction:
        """Return the answers of logits (N, K) at a temperature."""
        return answers_at(logits, temperature)

    def calibrate(
        self,
        method: FeatureMethod,
        logits: Tensor,
        target: Tensor,
        answers: Prediction,
        truth: Tensor,
    ) -> None:
        """Set how sure a method's answers are by what it answers out of fold.

        Args:
            logits: (N, K), out of fold under the setting that is kept, of pictures with this target, in the
                order of the folds.
            answers: out of fold, each under its fold's setting, of pictures with the target ``truth``.
        """
        method.set_temperature(best_temperature(logits, target))

    def notes_on_classes(self, images: Images) -> Iterator[str]:
        """Yield which classes are too small to say anything of, and which one is most of the test."""
        tested = Counter(item.classname for item in images.test)
        number = tested
        if not images.is_tested_in_folds:
            number = tested + Counter(item.classname for item in [*images.train_x, *images.val])
        yield from note_on_small(number)
        if not tested:
            return
        name, count = tested.most_common(1)[0]
        if count > 2 * len(images.test) / len(tested):
            yield (
                f"{100 * count / len(images.test):.0f} % of the test images are of {name}: always answering "
                "that is right as often; look at macro F1 and at the accuracy of each class"
            )

    def answered(
        self,
        answer: Prediction,
        method: Method,
        names: list[str | None],
        rule: LabelRule | None,
    ) -> Answers:
        """Return a ``Prediction`` of N images, with their names, as ``Answers``; rule: which answers are labels,
        None: those that the method itself gives."""
        return single_label_answers(answer, method.classnames, names, rule, method.note)

    def said(self, record: Record) -> str:
        """Return how good a run is, in a sentence without its full stop; "" if it was not tested."""
        metrics = tested_metrics(record)
        if "accuracy" not in metrics:
            return ""
        low, high = accuracy_interval(metrics)
        doubt = doubt_of(record, "accuracy")
        # what is kept is fitted to all images, and what was tested to a part of them
        least = "at least about " if "folds" in record and not doubt else ""
        return (
            f"Accuracy: {least}{metrics['accuracy']:.1f} % of {tested_on(record, metrics['images'])} "
            f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %){doubt}"
        )

    def headline(self, metrics: Mapping[str, Any]) -> str:
        """Return the measure that rounds are compared by, in percent; "" where there is none."""
        if "accuracy" not in metrics:
            return ""
        low, high = accuracy_interval(metrics)
        return f"accuracy {metrics['accuracy']:.1f} % ({100 * low:.0f}–{100 * high:.0f})"

    def score(
        self,
        arrays: Mapping[str, numpy.ndarray],
        classnames: Sequence[str],
        truth: numpy.ndarray,
        names: Sequence[str],
    ) -> float:
        """Return the measure of ``headline`` of kept answers to N pictures, in percent.

        Args:
            arrays: by name, of the pictures; classnames: of the run that has answered.
            truth: (N, L) bool, which of L labels each picture has; names: theirs.
        """
        given = [classnames[label] for label in arrays["top"][:, 0]]
        right = [row[names.index(name)] for row, name in zip(truth, given) if name in names]
        return 100 * float(numpy.sum(right)) / len(truth)

    def compared(self, untrained: Record | None, images: Images) -> dict[str, float]:
        """Return what to compare a run with, in percent: name → value; untrained: the record of its CLIP on the
        same images."""
        known = {"chance": 100 / len(images.classnames)}
        if untrained is not None:
            known["zero-shot"] = tested_metrics(untrained)["accuracy"]
        counts = Counter(item.label for item in images.test)
        known["always the commonest class"] = 100 * max(counts.values()) / counts.total()
        return known


class MultiLabel:
    """A picture has any number of labels: each is a yes-or-no question of its own. See ``SingleLabel``."""

    multi_label = True
    trainer = "BinaryProbe"

    def checked(self, table: Table, skips: bool) -> tuple[Table, list[str]]:
        """A label of fewer pictures than folds is trained on, and left out where that is asked for."""
        notes = []
        sizes = table.truth.sum(axis=0)
        small = numpy.flatnonzero(sizes < FOLDS).tolist()
        if skips and small:
            words = [f"{table.classnames[label]} ({sizes[label]})" for label in small]
            if len(small) == len(sizes):
                raise UserError(
                    f"{table.place} has no label of {FOLDS} pictures ({first_few(words)}): add some, or leave out --skip-small"
                )
            table = table.without(small)
            notes = [
                f"Left out: {counted(len(small), 'label')} with fewer than {FOLDS} pictures: {first_few(words)}"
            ]
        check_occurring(table.truth, table.classnames, table.place)
        return table, notes

    def items(self, table: Table) -> list[Image]:
        return multi_label_items(table)

    def divide(self, table: Table, groups: Numbers | None = None) -> Lists:
        return multi_label_lists(table, groups)

    def truth(self, table: Table) -> Truth:
        return dict(zip(table.paths, table.truth))

    def chosen(self, cfg: CfgNode, table: Table, lists: Lists, truth: Truth) -> FewShot:
        if cfg.DATASET.SUBSAMPLE_CLASSES != "all":
            raise UserError(
                "DATASET.SUBSAMPLE_CLASSES halves classes of which a picture has one: leave it out of a multi-label run"
            )
        return draw_sample(cfg.DATASET.NUM_SHOTS, cfg.SEED, lists, truth)

    def classnames(self, table: Table, trained: Sequence[Image]) -> list[str]:
        return table.classnames

    def check_images(self, place: str, images: Images) -> None:
        trained = paths_of(images.train_x)
        apart = len({*images.groups_of(trained).tolist()})
        if images.folds and apart < images.folds:
            raise UserError(
                f"{place} has {counted(apart, 'picture')} or groups of pictures that can be read and look different: give at "
                f"least {images.folds}, each fifth is answered by what was fitted without it"
            )
        check_occurring(images.truth_of(trained), images.classnames, place)

    def searched_classes(self, images: Sequence[Image]) -> list[int]:
        return [0] * len(images)

    def number_of_folds(self, trained: Sequence[Image]) -> int:
        return FOLDS

    def folds(self, images: Images, paths: Sequence[str], labels: Tensor, seed: int) -> Tensor:
        truth = images.truth_of(paths)
        groups = images.groups_of(paths)
        return torch.from_numpy(stratified_folds(truth, groups, images.folds, seed))

    def target(self, images: Images, paths: Sequence[str], labels: Tensor) -> Tensor:
        return torch.from_numpy(images.truth_of(paths))

    def log_likelihood(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the log-likelihood (T,) of a target, at the temperature 1 alone."""
        loss = F.binary_cross_entropy_with_logits(
            logits.cpu().double(), target.cpu().double(), reduction="sum"
        )
        return torch.tensor([-loss.item()], dtype=torch.float64)

    def temperature(self, logits: Tensor, target: Tensor) -> float:
        return 1.0

    def answers(self, logits: Tensor, temperature: float) -> Prediction:
        return Prediction(logits.sigmoid().float())

    def calibrate(
        self,
        method: FeatureMethod,
        logits: Tensor,
        target: Tensor,
        answers: Prediction,
        truth: Tensor,
    ) -> None:
        """Set each label's threshold to the probability from which on its F1 is best."""
        thresholds = best_thresholds(answers.probability.numpy(), truth.cpu().numpy())
        method.learner.get_buffer("thresholds").copy_(torch.from_numpy(thresholds))

    def notes_on_classes(self, images: Images) -> Iterator[str]:
        truth = images.truth_of(paths_of(images.test))
        yield from note_on_small(Counter(dict(zip(images.classnames, truth.sum(axis=0).tolist()))))

    def answered(
        self,
        answer: Prediction,
        method: Method,
        names: list[str | None],
        rule: LabelRule | None,
    ) -> Answers:
        if not isinstance(rule, LabelLimits):
            rule = LabelLimits(label_thresholds(method), len(method.classnames))
        note = method.note if method.learns else BY_NAMES
        return multi_label_answers(answer, method.classnames, names, rule, note)

    def said(self, record: Record) -> str:
        metrics = tested_metrics(record)
        if "map" not in metrics:
            return ""
        doubt = doubt_of(record, "map")
        f1s = ""
        if "micro_f1" in metrics:
            f1s = f"; F1 of all labels {metrics['micro_f1']:.1f} %, mean of the labels' {metrics['macro_f1']:.1f} %"
        return f"mAP: {metrics['map']:.1f} % of {tested_on(record, metrics['images'])}{f1s}{doubt}"

    def headline(self, metrics: Mapping[str, Any]) -> str:
        return f"mAP {metrics['map']:.1f} %" if "map" in metrics else ""

    def score(
        self,
        arrays: Mapping[str, numpy.ndarray],
        classnames: Sequence[str],
        truth: numpy.ndarray,
        names: Sequence[str],
    ) -> float:
        own = arrays["probability"][:, [classnames.index(name) for name in names]]
        return float(measure_multi_label(own, own >= 0.5, truth, names)["map"])

    def compared(self, untrained: Record | None, images: Images) -> dict[str, float]:
        truth = images.truth_of(paths_of(images.test))
        known = {"chance": 100 * float(truth[:, truth.any(axis=0)].mean())}
        if untrained is not None:
            known["names alone"] = tested_metrics(untrained)["map"]
        return known


def tested_metrics(record: Record) -> dict[str, Any]:
    """Return the measures of a run's test; none if it was not tested."""
    measured: dict[str, Any] = record["metrics"].get(record["config"]["TEST"]["SPLIT"], {})
    return measured


def accuracy_interval(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """Return the ends, in [0, 1], of the 95 % interval of an accuracy."""
    independent = metrics.get("effective_images", metrics["images"])
    return wilson(metrics["accuracy"] / 100 * independent, independent)


def doubt_of(record: Record, measure: str) -> str:
    """Return why a run's measure is not that of other pictures, after a comma; "" for no reason."""
    if "found_in_part" not in record:
        return CHOSEN if "is_chosen" in record else ""
    estimate = ""
    if neighbours := tested_metrics(record).get("neighbours"):
        far = neighbours["far"]
        near = neighbours["near"]
        if far[measure] is not None and near[measure] is not None:
            estimate = (
                f" ({far[measure]:.1f} % of the {far['images']} without a near neighbour in another group, "
                f"{near[measure]:.1f} % of the other {near['images']})"
            )
    return f", perhaps too high: copies were found only in part{estimate}"


def note_on_small(number: "Counter[str]") -> Iterator[str]:
    """Yield which classes are too small to say anything of; number: class → its images."""
    if few := sum(count < SMALL for count in number.values()):
        rarest, least = number.most_common()[-1]
        yield (
            f"Fewer than {SMALL} images are in {counted(few, 'class')}, such as {rarest} ({least}): an "
            "accuracy there rests on a few; label more"
        )


Task = SingleLabel | MultiLabel
SINGLE_LABEL = SingleLabel()
MULTI_LABEL_TASK = MultiLabel()


def task_of(multi_label: bool) -> Task:
    """Return the task of pictures of one label, or of any number."""
    return MULTI_LABEL_TASK if multi_label else SINGLE_LABEL


def task_of_run(record: Record) -> Task:
    """Return the task of a run by its record."""
    return task_of(is_multi_label(record))
