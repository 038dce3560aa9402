"""How often the promises of ``predict.py --max-error`` are broken, of those that are given.

    python -m experiments.promises                 # features drawn at random
    python -m experiments.promises --drawings      # copies of drawings, and the tiny CLIP's features

Each draw is a folder. A trainer answers all of its pictures out of fold and is refitted to all, as a run
does; a limit is set for each share by these answers. A promise that is given is broken where more than
its share of the labels within the limit is wrong on other pictures, none of which looks like one of
the folder. "Groups known": copies are in one fold and count once, as in a run that finds them (random
features have their scenes for groups, drawings what ``look_alikes`` finds), and a folder whose copies
are found in part is refused. "Groups unknown": each picture stands alone, as where no copy is found.

``above`` counts the folders that are not refused and whose accuracy has a 95 % interval above the accuracy
on the other pictures.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
import torch.nn.functional as F
from pandas import DataFrame, read_json
from PIL import Image
from tabulate import tabulate
from torch import Tensor

from labelling.cross_fit import FeatureSet, cross_fit
from labelling.look_alikes import share_partial
from labelling.parts import folds
from labelling.task import CHEAP, FOLDS, MANY_FOLDS, SINGLE_LABEL
from labelling.threshold import BEST_PROMISE, CONFIDENCE, OFFERED, Held, possible
from tests import bursts, copies
from trainers import method_class, method_node
from trainers.data.transforms import pixels_of_test
from trainers.evaluation.figures import effective_number, wilson
from trainers.evaluation.prediction import Prediction
from trainers.learners.features import FeatureMethod, is_feature_classifier
from trainers.method import Method
from trainers.prompting.backbone import load_backbone
from trainers.settings import run_config

TRAINERS = ("GDA", "TipAdapter", "LinearProbe")
SHOTS = (1, 4)
KNOWN = "groups known"
WAYS = (KNOWN, "groups unknown")
CLASSES = 4
ASKED = 8000  # pictures of random features that a promise is judged on
SPREAD = 4.5  # of scenes around their class, whose direction has length 1
SHAKE = 0.1  # of the shots of a scene around it
SEED = 1  # of the folds
BURST = "half a burst"  # the kind of copies, see tests/copies.py, unless others are asked for
DRAWN = ("country flag", "mammal", "cooked meal", "sky or weather", "clothing", "land vehicle")


@dataclass(frozen=True)
class Pictures:
    """N pictures.

    Attributes:
        features: (N, E), of length one; labels: (N,).
        groups: (N,), the number of the group of pictures that look alike; found_in_part: as a run's.
    """

    features: Tensor
    labels: Tensor
    groups: Sequence[int]
    found_in_part: float = 0.0


Folders = Callable[[Method, int, int], Iterator[tuple[Pictures, Pictures]]]


class Promise(NamedTuple):
    """A promise that is given: its name, how many of the other pictures get a label, and how many of
    these labels are wrong."""

    name: str
    labelled: int
    wrong: int
    is_broken: bool


def random_folders(
    scenes: int, method: Method, draws: int, number: int
) -> Iterator[tuple[Pictures, Pictures]]:
    """Folders of random features, and other pictures of the same classes; scenes: of a class."""
    width = method.backbone.embed_dim
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        centres = F.normalize(noise(CLASSES, width, generator), dim=-1)
        folder = shown(centres, CLASSES * scenes, number, generator)
        yield folder, shown(centres, ASKED, 1, generator)


def noise(number: int, width: int, generator: torch.Generator) -> Tensor:
    """(number, width), of about length one."""
    drawn: Tensor = torch.randn(number, width, generator=generator) / width**0.5
    return drawn


def shown(centres: Tensor, scenes: int, shots: int, generator: torch.Generator) -> Pictures:
    """Shots of scenes around the centres (K, E) of their classes."""
    width = centres.shape[1]
    labels = torch.arange(scenes) % CLASSES
    scene = centres[labels] + SPREAD * noise(scenes, width, generator)
    taken = scene.repeat_interleave(shots, dim=0)
    taken = taken + SHAKE * noise(len(taken), width, generator)
    groups = torch.arange(scenes).repeat_interleave(shots).tolist()
    return Pictures(F.normalize(taken, dim=-1), labels.repeat_interleave(shots), groups)


def drawn_folders(
    kind: str, copied: float, method: Method, draws: int, number: int
) -> Iterator[tuple[Pictures, Pictures]]:
    """Folders of half of the drawings of some classes, and the other half: drawings and the copies of
    some of them, see tests/copies.py.

    copied: share of the drawings that have copies.
    """
    generator = numpy.random.default_rng(0)
    drawings = [(picture, name) for picture, name in bursts.drawings() if name in DRAWN]
    names = [name for _, name in drawings]
    twins = bursts.groups([picture for picture, _ in drawings], names)
    taken = []
    for picture, _ in drawings:
        taken.append(picture)
        taken += [copies.copy(kind, picture, generator) for _ in range(number - 1)]
    labels = torch.tensor([DRAWN.index(name) for name in names]).repeat_interleave(number)
    features = features_of(method, taken)
    for seed in range(draws):
        scenes = sorted({*twins})
        half = {*random.Random(seed).sample(scenes, len(scenes) // 2)}
        having = {*random.Random(f"copied {seed}").sample(scenes, round(copied * len(scenes)))}
        inside: list[int] = []
        outside: list[int] = []
        for place in range(len(taken)):
            scene = twins[place // number]
            if scene in having:
                (inside if scene in half else outside).append(place)
            elif place % number == 0:
                if scene in half:
                    inside.append(place)
                else:  # so that each drawing weighs the same, as each group counts once
                    outside += number * [place]
        found = bursts.alike(
            [taken[place] for place in inside], [names[place // number] for place in inside]
        )
        partial = share_partial(sum(found.is_partial), len(inside))
        folder = Pictures(features[inside], labels[inside], found.groups, partial)
        yield folder, Pictures(features[outside], labels[outside], outside)


@torch.no_grad()
def features_of(method: Method, pictures: Sequence[Image.Image]) -> Tensor:
    """Features (N, E) of pictures, of length one, as they are tested."""
    pixels = pixels_of(method, pictures)
    return torch.cat([method.towers.encode_images(some[None])[0] for some in pixels.split(256)])


def pixels_of(method: Method, pictures: Sequence[Image.Image]) -> Tensor:
    """Pixels (N, 3, H, W) of pictures, as a method is shown them in a test."""
    node = run_config().INPUT
    node.SIZE = (method.backbone.image.image_size,) * 2
    shown = pixels_of_test(node)
    return torch.stack([shown(picture) for picture in pictures])


def judged(
    method: FeatureMethod, folder: Pictures, others: Pictures, way: str
) -> tuple[list[Promise], bool]:
    """The promises that are given, and whether the interval of the folder's accuracy lies above that on
    the others."""
    groups = torch.tensor(folder.groups) if way == KNOWN else torch.arange(len(folder.labels))
    answers = fit_as_runs_do(method, folder.features, folder.labels, groups)
    uncertainty, wrong = judge(answers, folder.labels)
    other_uncertainty, other_wrong = judge(answers_to(method, others.features), others.labels)

    shares = possible(Held(uncertainty, wrong, groups.numpy()))
    offers = [(f"{100 * share:g} %", share, point) for share, point in shares.items()]
    if shares:
        offers.append((BEST_PROMISE, *min(shares.items())))
    promises = []
    for name, share, point in offers:
        is_given = other_uncertainty <= point.limit
        labelled = int(is_given.sum())
        mistakes = int(other_wrong[is_given].sum())
        promises.append(Promise(name, labelled, mistakes, mistakes > share * labelled))

    worth = effective_number(~wrong, groups.numpy())
    low, _ = wilson((~wrong).mean() * worth, worth)
    return promises, bool(low > (~other_wrong).mean())


def judge(answers: Prediction, labels: Tensor) -> tuple[numpy.ndarray, numpy.ndarray]:
    """How uncertain answers (N,) are, and which are wrong."""
    wrong = answers.probability.argmax(dim=1) != labels
    return answers.uncertainties()["max_probability"].numpy(), wrong.numpy()


def classifier_of(trainer: str, names: Sequence[str]) -> FeatureMethod:
    """A trainer of image features on the tiny CLIP, as recipes for one's own images have it."""
    node = method_node(trainer)
    node.PREC = "fp32"
    if "BESIDE_TEXTS" in node:
        node.BESIDE_TEXTS = True
    method = method_class(trainer)(node, names, load_backbone("tiny")).eval()
    assert is_feature_classifier(method)
    return method


def fit_as_runs_do(
    method: FeatureMethod, features: Tensor, labels: Tensor, groups: Tensor | None = None
) -> Prediction:
    """Fit a classifier to all pictures; return the answers to them out of fold.

    Args:
        features: (N, E); labels: (N,); groups: (N,), numbers; None: each picture is alone.
    """
    number = MANY_FOLDS if len(labels) <= CHEAP else FOLDS
    fold = folds(labels, number, SEED, groups)
    return cross_fit(method, SINGLE_LABEL, FeatureSet(features[None], features, labels, fold))


def answers_to(method: FeatureMethod, features: Tensor) -> Prediction:
    """What a fitted classifier answers to other pictures, of features (L, E)."""
    logits = method.learner(features, method.zero_shot(features))  # (L, K)
    return method.predict(logits[None])


@torch.no_grad()
def measure(
    trainer: str, number: int, kind: str, draws: int, folders: Folders, names: Sequence[str]
) -> Iterator[dict[str, object]]:
    """A row for each way to count, of a trainer, a number of pictures of a scene and a kind of folders."""
    method = classifier_of(trainer, names)
    ways = WAYS if number > 1 else WAYS[:1]  # without copies both are one
    found: Counter[tuple[str, str, str]] = Counter()
    for folder, others in folders(method, draws, number):
        for way in ways:
            if way == KNOWN and folder.found_in_part:
                found[way, "any", "refused"] += 1
                continue
            promises, is_above = judged(method, folder, others, way)
            found[way, "any", "above"] += is_above
            for promise in promises:
                found[way, promise.name, "given"] += 1
                found[way, promise.name, "broken"] += promise.is_broken
                found[way, promise.name, "asked"] += len(others.labels)
                found[way, promise.name, "labelled"] += promise.labelled
                found[way, promise.name, "wrong"] += promise.wrong
    for way in ways:
        row: dict[str, object] = {
            "trainer": trainer,
            "shots": number,
            "of": kind,
            "copies": way,
            "folders": draws,
            "refused": found[way, "any", "refused"],
            "above": found[way, "any", "above"],
        }
        for name in (*(f"{100 * share:g} %" for share in OFFERED), BEST_PROMISE):
            row[name] = in_words(found, way, name)
        yield row


def in_words(found: Mapping[tuple[str, str, str], int], way: str, name: str) -> str:
    """Promises broken and given, and of the pictures asked about the share labelled and of those wrong."""
    given = found[way, name, "given"]
    if not given:
        return "–"
    labelled = found[way, name, "labelled"]
    share = 100 * labelled / found[way, name, "asked"]
    wrong = 100 * found[way, name, "wrong"] / labelled
    return f"{found[way, name, 'broken']} of {given} ({share:.0f}, {wrong:.1f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--draws", type=int, default=100, help="folders of each kind (100)")
    parser.add_argument("--drawings", action="store_true", help="copies of drawings")
    parser.add_argument(
        "--kinds", nargs="+", choices=[*copies.KINDS], default=[BURST], help="of copies of drawings"
    )
    parser.add_argument(
        "--copied", type=float, default=1, help="share of the drawings that have copies (1)"
    )
    parser.add_argument("--scenes", type=int, default=30, help="of a class of random features (30)")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=TRAINERS)
    parser.add_argument("--shots", nargs="+", type=int, default=SHOTS, help="of a scene (1 4)")
    parser.add_argument(
        "--results", type=Path, help="where rows are kept: those that are there are not made again"
    )
    args = parser.parse_args(arguments)
    folders: dict[str, Folders] = {"random features": partial(random_folders, args.scenes)}
    if args.drawings:
        some = "" if args.copied == 1 else f", {100 * args.copied:g} % of the drawings"
        folders = {kind + some: partial(drawn_folders, kind, args.copied) for kind in args.kinds}
    names = DRAWN if args.drawings else DRAWN[:CLASSES]
    print(
        f"Promises broken, of those given with {100 * CONFIDENCE:g} % confidence (pictures labelled, labels wrong, %)"
    )
    rows = []
    if args.results and args.results.exists():
        rows = read_json(args.results, lines=True).to_dict("records")
    known = {(row["trainer"], row["shots"], row["of"]) for row in rows}
    for trainer, number, kind in product(args.trainers, args.shots, folders):
        if (trainer, number, kind) in known:
            continue
        for row in measure(trainer, number, kind, args.draws, folders[kind], names):
            rows.append(row)
            print(*row.values(), sep=", ", flush=True)
            if args.results:
                with open(args.results, "a") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(tabulate(DataFrame(rows), headers="keys", showindex=False))


if __name__ == "__main__":
    main()
