"""How often the promises of several labels per picture, ``--max-error`` and ``--max-missed``, are broken.

    python -m experiments.several_promises

Each draw is a data set of pictures, random features with labels that depend on each other, some of whose
pictures come in bursts. A ``BinaryProbe`` is fitted to them, a limit is set by its out-of-fold answers,
and the promise is broken where more than that share of the labels is wrong, or missed, on other pictures.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy
import torch
import torch.nn.functional as F

from labelling.cross_fit import stratified_folds
from labelling.folders.own_images import FOLDS
from labelling.several.cross_fit import cross_fit
from labelling.several.promise import limit_of_error, limit_of_missed
from labelling.threshold import CONFIDENCE, OFFERED

LABELS = 8
WIDTH = 24  # of the features
OTHERS = 4000  # pictures that a promise is judged on
SHOTS = 3  # of each fourth scene
SHARPNESS = (
    6.0,
    40.0,
)  # of the labels' dependence on the features: one that is hard to learn, and one that is not


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
    truth = rng.random(logits.shape) < 1 / (1 + numpy.exp(-logits))
    follows = rng.random((scenes, LABELS // 2)) < 0.5
    truth[:, 1::2] = numpy.where(follows, truth[:, ::2], truth[:, 1::2])
    shots = numpy.where(bursts & (numpy.arange(scenes) % 4 == 0), SHOTS, 1)
    groups = numpy.repeat(numpy.arange(scenes), shots)
    shown = scene[groups] + 0.1 * rng.normal(size=(len(groups), WIDTH))
    return F.normalize(torch.from_numpy(shown), dim=-1), truth[groups], groups


def judged(
    seed: int, scenes: int, sharpness: float, confidence: float
) -> Counter[tuple[str, float, str]]:
    """What comes of the promises of a data set: how many were made, and broken."""
    rng = numpy.random.default_rng(seed)
    truth_of = rng.normal(size=(WIDTH, LABELS))
    features, truth, groups = drawn(rng, scenes, True, truth_of, sharpness)
    fold = stratified_folds(truth, groups, FOLDS, seed)
    noise = torch.from_numpy(rng.normal(size=(WIDTH, LABELS)))
    texts_of = F.normalize(torch.from_numpy(truth_of) + noise, dim=0)
    fitted = cross_fit(
        features, features @ texts_of, torch.from_numpy(truth), torch.from_numpy(fold)
    )
    shown, other, _ = drawn(rng, OTHERS, False, truth_of, sharpness)
    probability = fitted.probe(shown, shown @ texts_of).sigmoid().float().numpy()
    made: Counter[tuple[str, float, str]] = Counter()
    for name, limit in (("--max-error", limit_of_error), ("--max-missed", limit_of_missed)):
        for share in OFFERED:
            rule = limit(fitted.probability, truth, groups, share, confidence)
            if rule is None:
                continue
            given = rule.given(probability)
            wrong = given & ~other if name == "--max-error" else other & ~given
            of = given if name == "--max-error" else other
            made[name, share, "made"] += 1
            made[name, share, "broken"] += int(wrong.sum() > share * of.sum())
            made[name, share, "wrong"] += int(wrong.sum())
            made[name, share, "of"] += int(of.sum())
            made[name, share, "given"] += int(given.sum())
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--draws", type=int, default=200, help="data sets (200)")
    parser.add_argument("--scenes", nargs="+", type=int, default=[400], help="(400)")
    args = parser.parse_args(arguments)
    print("| promise | scenes | sharpness | made | broken | share of labels | given per picture |")
    print("|---|---|---|---|---|---|---|")
    for scenes in args.scenes:
        for sharpness in SHARPNESS:
            made: Counter[tuple[str, float, str]] = Counter()
            for seed in range(args.draws):
                made += judged(seed, scenes, sharpness, CONFIDENCE)
            for name, share in sorted({key[:2] for key in made}):
                of = {
                    key: made[name, share, key]
                    for key in ("made", "broken", "wrong", "of", "given")
                }
                print(
                    f"| {name} {share} | {scenes} | {sharpness:g} | {of['made']} of {args.draws} | {of['broken']} | "
                    f"{100 * of['wrong'] / max(of['of'], 1):.1f} % | {of['given'] / OTHERS / of['made']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
