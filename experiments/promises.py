"""How often the promise of ``predict.py --max-error`` is broken where pictures come in bursts.

    python -m experiments.promises                 # features drawn at random
    python -m experiments.promises --drawings      # bursts of drawings, and the tiny CLIP's features

Each draw is a folder: its pictures are divided, a trainer is fitted to the training ones, with its
settings by folds of these, as a run does, and a limit is set for each share by the validation ones. The promise is
broken where more than that share of the labels within the limit is wrong on other pictures, none of
which looks like one of the folder. "By pictures" divides and counts every picture, "by groups" keeps
pictures that look alike together and counts one of them, as a run does; random features have their
scenes for groups, drawings what ``look_alikes`` finds.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy
import torch
import torch.nn.functional as F
from pandas import DataFrame
from PIL import Image
from tabulate import tabulate
from torch import Tensor

from labelling.cross_fit import FeatureSet, cross_fit
from labelling.folders.own_images import FOLDS
from labelling.threshold import CONFIDENCE, OFFERED, points_of, promised
from tests import bursts
from trainers import method_class, method_node
from trainers.data.class_folders import divide
from trainers.data.images import are_new
from trainers.data.lists import PARTS
from trainers.data.transforms import pixels_of_test
from trainers.learners.features import FeatureMethod, is_feature_classifier
from trainers.method import Method
from trainers.prompting.backbone import load_backbone
from trainers.settings import run_config

TRAINERS = ("GDA", "TipAdapter", "LinearProbe")
COPIES = (1, 2, 4)
WAYS = ("by pictures", "by groups")
CLASSES = 4
SCENES = 120  # of a class of random features
ASKED = 4000  # pictures of random features that a promise is judged on
SPREAD = 4.5  # of scenes around their class, whose direction has length 1
SHAKE = 0.1  # of the shots of a scene around it
SEED = 1  # of the folds
STRENGTH = 0.5  # of the bursts of drawings, see tests/bursts.py
DRAWN = ("country flag", "mammal", "cooked meal", "sky or weather", "clothing", "land vehicle")


@dataclass(frozen=True)
class Pictures:
    """N pictures.

    Attributes:
        features: (N, E), of length one; labels: (N,).
        groups: (N,), the number of the group of pictures that look alike.
    """

    features: Tensor
    labels: Tensor
    groups: Sequence[int]

    def part(self, places: Sequence[int]) -> "Pictures":
        groups = [self.groups[place] for place in places]
        chosen = torch.tensor(places)
        return Pictures(self.features[chosen], self.labels[chosen], groups)


def random_folders(method: Method, draws: int, copies: int) -> Iterator[tuple[Pictures, Pictures]]:
    """Folders of random features, and other pictures of the same classes."""
    width = method.backbone.embed_dim
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        centres = F.normalize(noise(CLASSES, width, generator), dim=-1)
        folder = shown(centres, CLASSES * SCENES, copies, generator)
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


def drawn_folders(method: Method, draws: int, copies: int) -> Iterator[tuple[Pictures, Pictures]]:
    """Folders of half of the drawings of some classes, and the other half; see tests/bursts.py."""
    generator = numpy.random.default_rng(0)
    drawings = [(picture, name) for picture, name in bursts.drawings() if name in DRAWN]
    names = [name for _, name in drawings]
    twins = bursts.groups([picture for picture, _ in drawings], names)
    taken = [
        shot
        for picture, _ in drawings
        for shot in bursts.shots(picture, copies, STRENGTH, generator)
    ]
    labels = torch.tensor([DRAWN.index(name) for name in names]).repeat_interleave(copies)
    features = features_of(method, taken)
    for seed in range(draws):
        scenes = sorted({*twins})
        half = {*random.Random(seed).sample(scenes, len(scenes) // 2)}
        inside = [place for place in range(len(taken)) if twins[place // copies] in half]
        outside = [place for place in range(len(taken)) if twins[place // copies] not in half]
        groups = bursts.groups(
            [taken[place] for place in inside], [names[place // copies] for place in inside]
        )
        folder = Pictures(features[inside], labels[inside], groups)
        yield folder, Pictures(features[outside], labels[outside], outside)


@torch.no_grad()
def features_of(method: Method, pictures: Sequence[Image.Image]) -> Tensor:
    """Features (N, E) of pictures, of length one, as they are tested."""
    node = run_config().INPUT
    node.SIZE = (method.backbone.image.image_size,) * 2
    shown = pixels_of_test(node)
    pixels = torch.stack([shown(picture) for picture in pictures])
    return torch.cat([method.towers.encode_images(some[None])[0] for some in pixels.split(256)])


def divided(folder: Pictures, way: str) -> tuple[Pictures, Pictures, numpy.ndarray]:
    """The training and the validation pictures of a folder, and which of the latter count (V,)."""
    files: dict[str, list[str]] = {}
    for place, label in enumerate(folder.labels.tolist()):
        files.setdefault(str(label), []).append(str(place))
    groups = {str(place): group for place, group in enumerate(folder.groups)}
    parts = divide("", files, groups if way == WAYS[1] else None)
    lists = []
    for part in PARTS:
        paths = chain.from_iterable(parts[part].values())
        lists.append(folder.part(list(map(int, paths))))
    training, validation, _ = lists
    if way == WAYS[0]:
        return training, validation, numpy.ones(len(validation.labels), bool)
    return training, validation, are_new(validation.groups, training.groups)


def judged(
    method: FeatureMethod, folder: Pictures, others: Pictures, way: str
) -> Iterator[tuple[float, int, int]]:
    """For each share of ``OFFERED`` that can be promised: it, how many of the others get a label, and
    how many of these labels are wrong."""
    training, validation, counts = divided(folder, way)
    groups = torch.tensor(training.groups) if way == WAYS[1] else None
    known = FeatureSet(training.features[None], training.features, training.labels, groups)
    cross_fit(method, known, FOLDS, SEED)
    uncertainty, wrong = answered(method, validation)
    points = points_of(uncertainty[counts], wrong[counts])
    uncertainty, wrong = answered(method, others)
    for share in OFFERED:
        point = promised(points, share)
        if point is not None:
            is_given = uncertainty <= point.limit
            yield share, int(is_given.sum()), int(wrong[is_given].sum())


@torch.no_grad()
def answered(method: FeatureMethod, pictures: Pictures) -> tuple[numpy.ndarray, numpy.ndarray]:
    """How uncertain the answers (N,) are, and which are wrong."""
    logits = method.learner(pictures.features, method.zero_shot(pictures.features))  # (N, K)
    answers = method.predict(logits[None])
    uncertainty = answers.uncertainties()["max_probability"].numpy()
    return uncertainty, (answers.probability.argmax(dim=1) != pictures.labels).numpy()


def measure(
    trainers: Sequence[str], copies: Sequence[int], draws: int, of_drawings: bool
) -> Iterator[dict[str, object]]:
    """A row for each trainer and number of copies, in each way."""
    backbone = load_backbone("tiny")
    names = DRAWN if of_drawings else DRAWN[:CLASSES]
    folders = drawn_folders if of_drawings else random_folders
    for trainer in trainers:
        node = method_node(trainer)
        node.PREC = "fp32"
        if "BESIDE_TEXTS" in node:
            node.BESIDE_TEXTS = True  # as in the recipes for one's own images
        method = method_class(trainer)(node, names, backbone).eval()
        assert is_feature_classifier(method)
        for number in copies:
            made: Counter[tuple[str, float, str]] = Counter()
            for folder, others in folders(method, draws, number):
                for way in WAYS:
                    for share, given, wrong in judged(method, folder, others, way):
                        made[way, share, "made"] += 1
                        made[way, share, "broken"] += wrong > share * given
                        made[way, share, "given"] += given
                        made[way, share, "wrong"] += wrong
            for way in WAYS:
                row: dict[str, object] = {"trainer": trainer, "shots": number, "divided": way}
                for share in OFFERED:
                    of = {
                        key: made[way, share, key] for key in ("made", "broken", "given", "wrong")
                    }
                    percent = 100 * of["wrong"] / of["given"] if of["given"] else 0
                    words = f"{of['broken']} of {of['made']} ({percent:.1f} %)"
                    row[f"{100 * share:g} %"] = words if of["made"] else "–"
                yield row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--draws", type=int, default=100, help="folders of each kind (100)")
    parser.add_argument("--drawings", action="store_true", help="bursts of drawings")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=TRAINERS)
    parser.add_argument("--shots", nargs="+", type=int, default=COPIES, help="of a scene (1 2 4)")
    args = parser.parse_args(arguments)
    print(f"Promises broken, of those made with {100 * CONFIDENCE:g} % confidence (labels wrong)")
    rows = []
    for row in measure(args.trainers, args.shots, args.draws, args.drawings):
        rows.append(row)
        print(*row.values(), sep=", ", flush=True)
    print(tabulate(DataFrame(rows), headers="keys", showindex=False))


if __name__ == "__main__":
    main()
