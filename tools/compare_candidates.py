"""Compares the candidates for one's own pictures, and the choice among them, on folders of pictures.

    # what the file does not hold yet; every folder below --root is a folder of class folders
    python tools/compare_candidates.py --root data/suite --results tools/candidates.jsonl
    python tools/compare_candidates.py --results tools/candidates.jsonl --show

A folder is divided as train.py --images divides it. Of its pictures for training and validation 4,
16 or all of each class are taken, the choice is made by cross-validation on these, each candidate
is fitted to them and judged on the test's pictures, on the features of a frozen CLIP. Each result
is a line of the file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import json
import logging
import random
import time
from collections.abc import Iterator, Sequence

import torch
from pandas import DataFrame
from tabulate import tabulate
from torch import Tensor
from yacs.config import CfgNode

from trainers import candidates
from trainers.classifier.asked import OwnRun
from trainers.classifier.own_run import config_of_images, for_trainer
from trainers.classifier.saved_run import method_of
from trainers.common.errors import run_tool
from trainers.data.loader import CheckedImages, Pairs, groups_of, make_loader
from trainers.data.own_images import OwnImages
from trainers.data.transforms import pixels_of_test
from trainers.evaluation.prediction import calibration, percent_right
from trainers.settings import method_node

log = logging.getLogger("compare_candidates")
SHOTS = (4, 16, 0)  # pictures of each class, 0: all
CHOICE = "chosen"  # the row of what cross-validation chooses


def settings(trainer: str) -> CfgNode:
    """A candidate's defaults."""
    node = method_node(trainer)
    node.PREC = "fp32"
    return node


def some_of(labels: Tensor, shots: int, seed: int) -> Tensor:
    """Indices of up to ``shots`` pictures of each class, of all where it is 0."""
    drawn = random.Random(seed)
    chosen: list[int] = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten().tolist()
        chosen += drawn.sample(members, min(shots or len(members), len(members)))
    return torch.tensor(chosen)


def judge(folder: Path, backbone: str, seeds: Sequence[int]) -> Iterator[dict[str, object]]:
    """The lines of a folder."""
    run = OwnRun(images=str(folder.absolute()), backbone=backbone)
    cfg = config_of_images(for_trainer(run, candidates.CANDIDATES[0]))
    images = OwnImages(cfg.DATASET.ROOT, cfg)
    method = method_of(cfg, images.classnames)
    shown = pixels_of_test(cfg.INPUT)
    known, labels, asked, truth = (
        part
        for items in ([*images.train_x, *images.val], images.test)
        for part in method.features_of(
            Pairs(make_loader(cfg, CheckedImages(cfg, items, shown)), method.device)
        )
    )  # (1, N, E), (N,), and the same of the test
    groups = groups_of(images, [*images.train_x, *images.val])
    assert groups is not None  # of one's own images they are known
    for shots in SHOTS:
        for seed in seeds:
            chosen = some_of(labels, shots, seed)
            some = known[0, chosen]
            theirs = labels[chosen]
            table = candidates.compare(
                method.backbone, images.classnames, some, theirs, settings, seed, groups[chosen]
            )
            best = candidates.best(table).trainer
            for each in table:
                started = time.perf_counter()
                fitted = candidates.on_features(
                    each.trainer, settings(each.trainer), images.classnames, method.backbone
                )
                seen = candidates.Known(some[None], some, theirs, groups[chosen])
                candidates.fit_to(fitted, seen, seed)
                answers = candidates.answer(fitted, asked[0]).probability
                line: dict[str, object] = {
                    "folder": folder.name,
                    "shots": shots,
                    "seed": seed,
                    "trainer": each.trainer,
                    "accuracy": round(percent_right(answers.argmax(dim=1), truth), 4),
                    "ece": round(calibration(answers, truth)["ece"], 4),
                    "estimate": round(each.accuracy, 4),
                    "seconds": round(time.perf_counter() - started, 3),
                }
                yield line
                if each.trainer == best:
                    seconds = sum(candidate.seconds for candidate in table)
                    yield {**line, "trainer": CHOICE, "seconds": round(seconds, 3)}


def table_of(lines: Sequence[dict[str, object]]) -> str:
    """Means over folders of means over seeds, for each number of pictures; ± the deviation over seeds
    of the mean over folders. In place of a choice's seconds those of the cross-validation."""
    figures = ["accuracy", "ece", "estimate", "seconds"]
    frame = DataFrame(lines)
    by_seed = frame.groupby(["shots", "trainer", "seed"], sort=False)[figures].mean()
    means = by_seed.groupby(["shots", "trainer"], sort=False).mean()
    means.insert(1, "±", by_seed["accuracy"].groupby(["shots", "trainer"], sort=False).std())
    means = means.reindex([*candidates.CANDIDATES, CHOICE], level="trainer")
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
