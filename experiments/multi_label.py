"""Multi-label pictures: ``BinaryProbe`` beside what one could do without it.

    python -m experiments.multi_label --results experiments/multi_label.jsonl
    python -m experiments.multi_label --results experiments/multi_label.jsonl --show

A picture holds two or three of OpenMoji's drawings, which may cover each other, on white: 20 labels, 5 of
them rare, some that often occur together. The drawings of the test are none of those that were trained
on. All get the same features of the tiny CLIP.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from pandas import DataFrame, read_json
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from tabulate import tabulate
from torch import Tensor

from datasets.drawn.emoji_font import draw_emoji
from datasets.drawn.openmoji import SPLIT
from experiments.promises import features_of
from labelling.cross_fit import FeatureSet, cross_fit
from labelling.parts import folds, stratified_folds
from labelling.task import FOLDS, MULTI_LABEL_TASK, SINGLE_LABEL
from trainers import method_class, method_node
from trainers.binaryprobe import BinaryProbeMethod
from trainers.common.readers import read_json as read_stored
from trainers.common.setting import node_of
from trainers.engine.scoring import label_thresholds
from trainers.evaluation.multi_label import best_thresholds, measure_multi_label
from trainers.learners.features import is_feature_classifier
from trainers.maths.logistic import around
from trainers.method import Method
from trainers.prompting.backbone import Backbone, load_backbone

LABELS = (
    "mammal", "country flag", "sky or weather", "cooked meal", "clothing", "land vehicle", "plant",
    "building", "clock", "heart", "bird", "fruit", "drink", "musical instrument", "sports equipment",
    "boat or aircraft", "sea animal", "vegetable", "hand gesture", "happy face",
)  # fmt: skip
RARE = 5  # of them, the last, which are drawn a tenth as often
TOGETHER = {"sky or weather": "plant", "cooked meal": "drink", "land vehicle": "building"}
OFTEN = 0.5  # of the first's pictures have the second
PICTURES = (50, 200, 1000)
TESTED = 1000
SEEDS = (1, 2, 3)
CANVAS = 128  # pixels
SIDE = 60, 90  # of a drawing
Answer = tuple[
    numpy.ndarray, numpy.ndarray | None
]  # (N, K) probabilities, and the labels given, if any


@cache
def codes() -> dict[str, dict[str, list[str]]]:
    """Part → label → its emojis."""
    split = read_stored(SPLIT)
    found: dict[str, dict[str, list[str]]] = {"train": defaultdict(list), "test": defaultdict(list)}
    for part in found:
        for code, _, name in split[part]:
            found[part][name].append(code)
    return found


@cache
def drawing(code: str) -> Image.Image:
    return draw_emoji(code, SIDE[1])


def drawn(number: int, part: str, seed: int) -> tuple[list[Image.Image], numpy.ndarray]:
    """Pictures, and which labels (N, K) they have."""
    rng = numpy.random.default_rng([seed, len(part)])
    often = numpy.array([1.0] * (len(LABELS) - RARE) + [0.1] * RARE)
    pictures = []
    truth = numpy.zeros((number, len(LABELS)), bool)
    for place in range(number):
        names = rng.choice(
            LABELS, rng.integers(2, 4), replace=False, p=often / often.sum()
        ).tolist()
        other = TOGETHER.get(names[0])
        if other and other not in names and rng.random() < OFTEN:
            names[1] = other
        picture = Image.new("RGB", (CANVAS, CANVAS), "white")
        for name in names:
            side = int(rng.integers(*SIDE))
            code = str(rng.choice(codes()[part][name]))
            shown = drawing(code).resize((side, side), Image.Resampling.LANCZOS)
            is_drawn = numpy.asarray(shown).min(axis=2) < 250
            corner = tuple(rng.integers(0, CANVAS - side + 1, 2).tolist())
            picture.paste(shown, corner, Image.fromarray(is_drawn.astype(numpy.uint8) * 255))
            truth[place, LABELS.index(name)] = True
        pictures.append(picture)
    return pictures, truth


def method_named(trainer: str, names: Sequence[str], backbone: Backbone) -> Method:
    node = method_node(trainer)
    node.PREC = "fp32"
    if "BESIDE_TEXTS" in node:
        node.BESIDE_TEXTS = True  # as in the recipes for one's own images
    return method_class(trainer)(node, names, backbone).eval()


class WithoutTexts(BinaryProbeMethod):
    """``BinaryProbe`` on image features alone."""

    def texts(self, features: Tensor) -> Tensor:
        return torch.zeros(len(features), len(self.classnames), dtype=torch.float64)


class Ways:
    """The ways that are compared, each from features and labels to answers to other features."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.method = method_named("ZeroshotCLIP", LABELS, backbone)

    def texts(self, features: Tensor) -> Tensor:
        logits = self.method.towers.logits(features[None], self.method.hand_crafted[None])[0]
        return around(logits, logits)

    def by_names(self, features: Tensor, truth: numpy.ndarray, asked: Tensor, seed: int) -> Answer:
        """By names alone"""
        return self.texts(asked).sigmoid().numpy(), None

    def probe(
        self,
        features: Tensor,
        truth: numpy.ndarray,
        asked: Tensor,
        seed: int,
        kind: type[BinaryProbeMethod] = BinaryProbeMethod,
    ) -> Answer:
        """BinaryProbe"""
        node = node_of(kind.declared)
        node.PREC = "fp32"
        method = kind(node, LABELS, self.backbone).eval()
        fold = stratified_folds(truth, numpy.arange(len(truth)), FOLDS, seed)
        target = torch.from_numpy(truth)
        known = FeatureSet(features[None], features, target, torch.from_numpy(fold))
        cross_fit(method, MULTI_LABEL_TASK, known)
        logits = method.learner(asked, method.texts(asked))
        probability = logits.sigmoid().float().numpy()
        return probability, probability >= label_thresholds(method)

    def without_texts(
        self, features: Tensor, truth: numpy.ndarray, asked: Tensor, seed: int
    ) -> Answer:
        """BinaryProbe without the texts"""
        return self.probe(features, truth, asked, seed, WithoutTexts)

    def ten_lines(self, features: Tensor, truth: numpy.ndarray, asked: Tensor, seed: int) -> Answer:
        """scikit-learn's LogisticRegressionCV per label"""
        answers = []
        for right in truth.T:
            answer = numpy.full(len(asked), right.mean())
            if right.sum() > 1:  # it fails where a fold has no other picture of the label
                fit = LogisticRegressionCV(cv=FOLDS, max_iter=1000).fit(features.numpy(), right)
                answer = fit.predict_proba(asked.numpy())[:, 1]
            answers.append(answer)
        probability = numpy.stack(answers, axis=1)
        return probability, probability >= 0.5

    def runs(self, features: Tensor, truth: numpy.ndarray, asked: Tensor, seed: int) -> Answer:
        """A LinearProbe run per label"""
        answers = []
        for name, right in zip(LABELS, truth.T):
            answer = numpy.full(len(asked), right.mean())
            if right.sum() > 1:
                method = method_named("LinearProbe", ["something else", name], self.backbone)
                assert is_feature_classifier(method)
                labels = torch.from_numpy(right.astype(int))
                fold = folds(labels, FOLDS, seed)
                known = FeatureSet(features[None], features, labels, fold)
                cross_fit(method, SINGLE_LABEL, known)
                logits = method.learner(asked, method.zero_shot(asked))
                answer = method.predict(logits[None]).probability[:, 1].detach().numpy()
            answers.append(answer)
        probability = numpy.stack(answers, axis=1)
        return probability, probability >= 0.5

    def softmax(self, features: Tensor, truth: numpy.ndarray, asked: Tensor, seed: int) -> Answer:
        """LinearProbe, thresholds on its softmax"""
        picture, label = (torch.from_numpy(part) for part in truth.nonzero())
        method = method_named("LinearProbe", LABELS, self.backbone)
        assert is_feature_classifier(method)
        shown = features[picture]
        classes = F.one_hot(label, len(LABELS)).numpy()
        fold = torch.from_numpy(stratified_folds(classes, picture.numpy(), FOLDS, seed))
        known = FeatureSet(shown[None], shown, label, fold)
        out_of_fold = cross_fit(method, SINGLE_LABEL, known).probability
        logits = method.learner(asked, method.zero_shot(asked))
        probability = method.predict(logits[None]).probability.detach().numpy()
        own = numpy.zeros(truth.shape, numpy.float32)
        own[picture] = out_of_fold.numpy()  # one of a picture's answers
        return probability, probability >= best_thresholds(own, truth)


@torch.no_grad()
def measure(seeds: Sequence[int]) -> Iterator[dict[str, object]]:
    """A line for each way, number of pictures and seed."""
    ways = Ways(load_backbone("tiny"))
    compared: list[Callable[..., Answer]] = [
        ways.by_names, ways.softmax, ways.runs, ways.ten_lines, ways.without_texts, ways.probe,
    ]  # fmt: skip
    for seed in seeds:
        pictures, truth = drawn(max(PICTURES), "train", seed)
        features = features_of(ways.method, pictures).float()
        pictures, asked_truth = drawn(TESTED, "test", seed)
        asked = features_of(ways.method, pictures).float()
        for number in PICTURES:
            for way in compared:
                started = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of folds without a rare label
                    probability, given = way(features[:number], truth[:number], asked, seed)
                seconds = time.process_time() - started
                is_given = numpy.zeros(asked_truth.shape, bool) if given is None else given
                measured = measure_multi_label(probability, is_given, asked_truth, LABELS)
                rare = [measured["per_label"][name]["average_precision"] for name in LABELS[-RARE:]]
                yield {
                    "way": way.__doc__,
                    "pictures": number,
                    "seed": seed,
                    "map": round(measured["map"], 3),
                    "map_rare": round(float(numpy.mean(rare)), 3),
                    "micro_f1": None if given is None else round(measured["micro_f1"], 3),
                    "macro_f1": None if given is None else round(measured["macro_f1"], 3),
                    "ece": round(measured["ece"], 3),
                    "seconds": round(seconds, 2),
                }


def table(lines: DataFrame) -> str:
    """A row per way: the means over seeds, and the deviation of mAP."""
    rows = []
    for way, own in lines.groupby("way", sort=False):
        row: dict[str, object] = {"": way}
        for number, some in own.groupby("pictures"):
            row[f"mAP, {number}"] = f"{some['map'].mean():.1f} ± {some['map'].std():.1f}"
        for number, some in own.groupby("pictures"):
            means = [some[name].mean() for name in ("micro_f1", "macro_f1")]
            is_known = not numpy.isnan(means[0])
            row[f"F1, {number}"] = " / ".join(f"{mean:.0f}" for mean in means) if is_known else "–"
        largest = own[own["pictures"] == max(PICTURES)]
        row["ECE"] = f"{largest['ece'].mean():.1f}" if row[f"F1, {max(PICTURES)}"] != "–" else "–"
        row["seconds"] = f"{largest['seconds'].mean():.1f}"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "--results", type=Path, required=True, help="where a line per training is kept"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--show", action="store_true", help="only the table of what is kept")
    args = parser.parse_args(arguments)
    if not args.show:
        with open(args.results, "w") as file:
            for line in measure(args.seeds):
                file.write(json.dumps(line) + "\n")
                file.flush()
    print(table(read_json(args.results, lines=True)))


if __name__ == "__main__":
    main()
