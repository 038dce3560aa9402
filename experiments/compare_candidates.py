"""Compares the candidates for one's own pictures, and the choice among them, on folders of pictures.

    # what the file does not hold yet; every folder below --root is a folder of class folders
    python -m experiments.compare_candidates --root data/suite --results experiments/candidates.jsonl
    python -m experiments.compare_candidates --results experiments/candidates.jsonl --show

A folder is divided as train.py --images divides it. Of its pictures for training and validation 4,
16 or all of each class are taken, each candidate is fitted to them as a run fits it, and judged on
the test's pictures, on the features of a frozen CLIP. Beside them is what would be chosen among
them by their answers out of fold. Each result is a line of the file.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pandas import DataFrame
from tabulate import tabulate
from torch import Tensor

from labelling.cross_fit import FeatureSet, cross_fit
from labelling.own_images import own_images
from labelling.own_run import config_of_images, for_trainer
from labelling.parts import folds
from labelling.request import OwnRun
from labelling.table import read_table
from labelling.task import FOLDS, SINGLE_LABEL
from trainers import method_class, method_node
from trainers.common.errors import run_tool
from trainers.data.loader import CheckedImages, Pairs, make_loader
from trainers.data.transforms import pixels_of_test
from trainers.engine.fit import OnDevice
from trainers.engine.saved_run import method_of
from trainers.evaluation.prediction import Prediction, calibration, percent_right
from trainers.learners.features import is_feature_classifier
from trainers.prompting.backbone import Backbone

log = logging.getLogger("compare_candidates")
CANDIDATES = ("ZeroshotCLIP", "GDA", "TipAdapter", "LinearProbe")
SHOTS = (4, 16, 0)  # pictures of each class, 0: all
CHOICE = "chosen"  # the row of what cross-validation would choose
TIE = 2.0  # points of accuracy out of fold, within which the simplest is chosen


def fitted(
    trainer: str,
    classnames: Sequence[str],
    backbone: Backbone,
    known: FeatureSet,
    asked: Tensor,
) -> tuple[Prediction, Prediction]:
    """A candidate's answers to known pictures, out of fold, and to others; asked: (n, E)."""
    node = method_node(trainer)
    node.PREC = "fp32"
    if "BESIDE_TEXTS" in node:
        node.BESIDE_TEXTS = True  # as in the recipes for one's own images
    method = method_class(trainer)(node, classnames, backbone).eval()
    shown, asked = (F.normalize(features, dim=-1) for features in (known.shown, asked))
    if not is_feature_classifier(method):
        texts = method.hand_crafted[None]
        each = [method.predict(method.towers.logits(part[None], texts)) for part in (shown, asked)]
        return each[0], each[1]
    answers = cross_fit(method, SINGLE_LABEL, known)
    logits = method.learner(asked, method.zero_shot(asked))
    return answers, method.predict(logits[None])


def best(estimates: dict[str, float]) -> str:
    """The first, and so the simplest, of those that are right out of fold at most ``TIE`` less often
    than the best one."""
    most = max(estimates.values())
    return next(trainer for trainer, right in estimates.items() if right >= most - TIE)


def some_of(labels: Tensor, shots: int, seed: int) -> Tensor:
    """Indices of up to ``shots`` pictures of each class, of all where it is 0."""
    drawn = random.Random(seed)
    chosen: list[int] = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten().tolist()
        chosen += drawn.sample(members, min(shots or len(members), len(members)))
    return torch.tensor(chosen)


@dataclass(frozen=True)
class Shown:
    """A folder's pictures to a frozen CLIP: N known ones, and n of the test.

    Attributes:
        known: (N, E), features; labels, groups: (N,); asked: (n, E); truth: (n,), the labels of these.
    """

    backbone: Backbone
    classnames: Sequence[str]
    known: Tensor
    labels: Tensor
    groups: Tensor
    asked: Tensor
    truth: Tensor

    def some(self, shots: int, seed: int) -> FeatureSet:
        """Up to ``shots`` known pictures of each class, in folds."""
        chosen = some_of(self.labels, shots, seed)
        features = self.known[chosen]
        labels = self.labels[chosen]
        fold = folds(labels, FOLDS, seed, self.groups[chosen])
        return FeatureSet(features[None], features, labels, fold)


@torch.no_grad()
def shown_to(backbone: str, folder: Path) -> Shown:
    """The pictures of a folder, divided as a run divides them."""
    run = OwnRun(images=str(folder.absolute()), backbone=backbone)
    cfg = config_of_images(for_trainer(run, CANDIDATES[0]))
    table = read_table(cfg.DATASET.ROOT, multi_label=False)
    images = own_images(table, SINGLE_LABEL, cfg, can_fold=False)
    method = method_of(cfg, images.classnames)
    pixels = pixels_of_test(cfg.INPUT)
    known, labels, asked, truth = (
        part
        for items in ([*images.train_x, *images.val], images.test)
        for part in method.towers.features_of(
            OnDevice(Pairs(make_loader(cfg, CheckedImages(cfg, items, pixels))), method.device)
        )
    )  # (1, N, E), (N,), and the same of the test
    paths = [str(item.impath) for item in [*images.train_x, *images.val]]
    groups = torch.tensor([images.groups[path] for path in paths])
    return Shown(method.backbone, images.classnames, known[0], labels, groups, asked[0], truth)


@torch.no_grad()
def judge(folder: Path, backbone: str, seeds: Sequence[int]) -> Iterator[dict[str, object]]:
    """The lines of a folder."""
    shown = shown_to(backbone, folder)
    for shots in SHOTS:
        for seed in seeds:
            seen = shown.some(shots, seed)
            lines: dict[str, dict[str, object]] = {}
            estimates = {}
            for trainer in CANDIDATES:
                started = time.process_time()
                out_of_fold, answers = fitted(
                    trainer, shown.classnames, shown.backbone, seen, shown.asked
                )
                seconds = time.process_time() - started
                estimates[trainer] = percent_right(
                    out_of_fold.probability.argmax(dim=1), seen.target
                )
                probability = answers.probability
                lines[trainer] = {
                    "folder": folder.name,
                    "shots": shots,
                    "seed": seed,
                    "trainer": trainer,
                    "accuracy": round(percent_right(probability.argmax(dim=1), shown.truth), 4),
                    "ece": round(calibration(probability, shown.truth)["ece"], 4),
                    "estimate": round(estimates[trainer], 4),
                    "seconds": round(seconds, 3),
                }
            yield from lines.values()
            yield {**lines[best(estimates)], "trainer": CHOICE}


def table_of(lines: Sequence[dict[str, object]]) -> str:
    """Means over folders of means over seeds, for each number of pictures; ± the deviation over seeds
    of the mean over folders. The seconds are the processor's."""
    figures = ["accuracy", "ece", "estimate", "seconds"]
    frame = DataFrame(lines)
    by_seed = frame.groupby(["shots", "trainer", "seed"], sort=False)[figures].mean()
    means = by_seed.groupby(["shots", "trainer"], sort=False).mean()
    means.insert(1, "±", by_seed["accuracy"].groupby(["shots", "trainer"], sort=False).std())
    means = means.reindex([*CANDIDATES, CHOICE], level="trainer")
    return tabulate(means.reset_index(), "keys", "pipe", floatfmt=".1f", showindex=False)


def compare(args: argparse.Namespace) -> None:
    """The whole command."""
    lines = []
    if args.results.is_file():
        lines = [json.loads(line) for line in args.results.read_text("utf-8").splitlines()]
    if not args.show:
        done = {line["folder"] for line in lines}
        for folder in sorted(Path(args.root).iterdir()):
            if folder.is_dir() and folder.name not in done:
                made = [*judge(folder, args.backbone, args.seeds)]
                with open(args.results, "a", encoding="utf-8") as file:
                    file.writelines(json.dumps(line) + "\n" for line in made)
                lines += made
                log.info("%s: %d lines", folder.name, len(made))
    print(table_of(lines))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--root", default="data", help="folder of folders of class folders")
    parser.add_argument("--backbone", default="tiny", help="a CLIP")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--show", action="store_true", help="print the table and fit nothing")
    return run_tool(compare, parser.parse_args(argv), log)


if __name__ == "__main__":
    sys.exit(main())
