"""How often the promises on multi-label pictures, ``--max-error`` and ``--max-missed``, are broken.

    python -m experiments.multi_label_promises --results experiments/multi_label_promises.csv
    python -m experiments.multi_label_promises --results experiments/multi_label_promises.csv --show

Each draw is a data set of pictures, random features with labels that depend on each other, some of whose
pictures come in bursts. A ``BinaryProbe`` is fitted to them, a limit is set by its out-of-fold answers,
and the promise is broken where more than that share of the labels is wrong, or missed, on other pictures.
Draws that are kept are not made again.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import clip
import numpy
import torch
import torch.nn.functional as F
from pandas import DataFrame, read_csv
from scipy.special import expit
from tabulate import tabulate
from torch import Tensor

from labelling.cross_fit import FeatureSet, cross_fit
from labelling.limits import PROMISES
from labelling.parts import stratified_folds
from labelling.task import FOLDS, MULTI_LABEL_TASK
from labelling.threshold import CONFIDENCE, OFFERED
from trainers.binaryprobe import BinaryProbeMethod
from trainers.common.setting import node_of
from trainers.prompting.backbone import build_backbone

LABELS = 8
WIDTH = 24  # of the features
SHAPE = (WIDTH, 32, 1, 64, 8, 77, 49408, 64, 1, 1)  # of a CLIP that has such features
OTHERS = 4000  # pictures that a promise is judged on
SHOTS = 3  # of each fourth scene
SCENES = (400, 2000)
# of the labels' dependence on the features: one that is easy to learn, and one that is not
SHARPNESS = {"easy": 40.0, "hard": 6.0}
KEY = ("scenes", "labels", "seed", "promise", "share")


class GivenTexts(BinaryProbeMethod):
    """``BinaryProbe`` under texts that are given, in the place of a CLIP's.

    Attributes:
        given: (E, K), a text's direction per label.
    """

    given: Tensor

    def texts(self, features: Tensor) -> Tensor:
        return features @ self.given


def probe_of(given: Tensor) -> GivenTexts:
    """Return a probe of features of ``WIDTH`` numbers under given texts (E, K)."""
    backbone = build_backbone(clip.model.CLIP(*SHAPE).float().state_dict())
    node = node_of(GivenTexts.declared)
    node.PREC = "fp32"
    method = GivenTexts(node, [f"label {number}" for number in range(LABELS)], backbone).eval()
    method.given = given
    return method


def drawn(
    rng: numpy.random.Generator,
    scenes: int,
    bursts: bool,
    truth_of: numpy.ndarray,
    sharpness: float,
) -> tuple[torch.Tensor, numpy.ndarray, numpy.ndarray]:
    """Features (N, E), labels (N, K) and groups (N,) of the shots of scenes. The shots of a scene have its
    labels, and labels depend on each other beyond the features: a mood of the scene moves all of them,
    and each second one follows the one before."""
    scene = rng.normal(size=(scenes, WIDTH))
    mood = 0.7 * rng.normal(size=(scenes, 1))
    logits = sharpness * scene @ truth_of / WIDTH**0.5 + mood - numpy.linspace(2, 6, LABELS)
    truth = rng.random(logits.shape) < expit(logits)
    follows = rng.random((scenes, LABELS // 2)) < 0.5
    truth[:, 1::2] = numpy.where(follows, truth[:, ::2], truth[:, 1::2])
    shots = numpy.where(bursts & (numpy.arange(scenes) % 4 == 0), SHOTS, 1)
    groups = numpy.repeat(numpy.arange(scenes), shots)
    shown = scene[groups] + 0.1 * rng.normal(size=(len(groups), WIDTH))
    return F.normalize(torch.from_numpy(shown), dim=-1), truth[groups], groups


def judged(seed: int, scenes: int, labels: str) -> DataFrame:
    """A row for each promise on a data set: how many labels the other pictures are given, and how many of how
    many are wrong or missed; empty where it can't be made.

    labels: of ``SHARPNESS``.
    """
    sharpness = SHARPNESS[labels]
    rng = numpy.random.default_rng(seed)
    truth_of = rng.normal(size=(WIDTH, LABELS))
    features, truth, groups = drawn(rng, scenes, True, truth_of, sharpness)
    fold = stratified_folds(truth, groups, FOLDS, seed)
    noise = torch.from_numpy(rng.normal(size=(WIDTH, LABELS)))
    texts_of = F.normalize(torch.from_numpy(truth_of) + noise, dim=0)
    probe = probe_of(texts_of)
    known = FeatureSet(features[None], features, torch.from_numpy(truth), torch.from_numpy(fold))
    out_of_fold = cross_fit(probe, MULTI_LABEL_TASK, known).probability.numpy()
    shown, other, _ = drawn(rng, OTHERS, False, truth_of, sharpness)
    with torch.no_grad():
        logits = probe.learner(shown, probe.texts(shown))
    probability = logits.sigmoid().float().numpy()
    rows = []
    for promise, limit in PROMISES.items():
        for share in OFFERED:
            row: dict[str, object] = dict(zip(KEY, (scenes, labels, seed, promise, share)))
            rule = limit(out_of_fold, truth, groups, share, CONFIDENCE)
            if rule is not None:
                given = rule.given(probability)
                wrong = given & ~other if promise == "--max-error" else other & ~given
                of = given if promise == "--max-error" else other
                row |= {"given": given.sum(), "wrong": wrong.sum(), "of": of.sum()}
            rows.append(row)
    return DataFrame(rows, columns=[*KEY, "given", "wrong", "of"])


def table(rows: DataFrame) -> str:
    """A row per promise and kind of labels, a column per number of scenes."""
    lines = []
    for (promise, share, labels), own in rows.groupby(["promise", "share", "labels"]):
        line = {"promise": f"`{promise} {share:g}`", "labels": labels}
        for scenes, some in own.groupby("scenes"):
            line[f"{scenes:,} scenes"] = in_words(some, share)
        lines.append(line)
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def in_words(rows: DataFrame, share: float) -> str:
    """How many promises are made and broken and, where any are, which share of the labels is wrong or missed,
    and how many a picture is given."""
    made = rows.dropna()
    words = f"{len(made)} of {len(rows)}"
    if not len(made):
        return words
    broken = (made["wrong"] > share * made["of"]).sum()
    wrong = 100 * made["wrong"].sum() / made["of"].sum()
    return f"{words}, {broken} broken; {wrong:.1f} %, {made['given'].mean() / OTHERS:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "--results", type=Path, required=True, help="where a line per draw and promise is kept"
    )
    parser.add_argument("--draws", type=int, default=200, help="data sets of each kind (200)")
    parser.add_argument("--show", action="store_true", help="only the table of what is kept")
    args = parser.parse_args(arguments)
    if not args.show:
        known = set()
        if args.results.exists():
            kept = read_csv(args.results)
            known = {*zip(kept["scenes"], kept["labels"], kept["seed"])}
        with open(args.results, "a") as file:
            for draw in product(SCENES, SHARPNESS, range(args.draws)):
                if draw in known:
                    continue
                scenes, labels, seed = draw
                rows = judged(seed, scenes, labels)
                rows.to_csv(file, index=False, header=not file.tell())
                file.flush()
    print(table(read_csv(args.results)))


if __name__ == "__main__":
    main()
