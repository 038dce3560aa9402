"""Which copies of pictures are found, and which different pictures are taken for alike, see
``labelling/look_alikes.py``.

    python -m experiments.copies             # as the product finds them
    python -m experiments.copies --compare   # and in other ways

tests/copies.py draws the copies, two of each of up to 120 scenes. Folders without copies: OpenMoji's
drawings in its 45 classes, some of them twins; crops of two photographs; handwritten digits; textures of
a class's own spectrum and colours; plain drawings (tests/plain.py). Of each kind of copy: the pairs of one
scene that are in one group, in percent. Of folders without copies: the pictures in a group with another,
in percent. Mean ± deviation over the seeds, which draw copies and plain drawings.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from unittest.mock import patch

import numpy
import scipy.fft
import torch
import torch.nn.functional as F
from numpy.random import Generator
from pandas import DataFrame
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tabulate import tabulate
from torch import Tensor

from experiments.promises import features_of
from labelling import look_alikes
from labelling.families import confirmed, joined
from tests import bursts, copies, plain
from tests.bursts import SIZE, Pictures, drawings, textures
from trainers import method_class, method_node
from trainers.prompting.backbone import load_backbone

SCENES = 120
EACH = 2  # copies of a scene
NEAR = 0.35  # of the median distance of a class: nearer features are of copies
HASHED = 10  # of 64 bits that differ, at most: imagededup's
EQUAL = 0.85  # share of cells that are equal
SAME = 10  # of 255: by which equal cells differ, at most
CELLS = 16  # of a side
Way = Callable[[Sequence[Image.Image], Sequence[str]], Sequence[int]]  # pictures, classes → groups


# ---- folders ----


def photographs(draws: Generator) -> Pictures:
    """Crops of scikit-learn's two, which don't overlap."""
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    made = []
    for name, pixels in zip(samples.filenames, samples.images):
        for top in range(0, pixels.shape[0] - 80, 80):
            for left in range(0, pixels.shape[1] - 80, 80):
                crop = Image.fromarray(pixels[top : top + 80, left : left + 80])
                made.append((crop.resize((SIZE, SIZE)), name))
    return made


def digits(draws: Generator) -> Pictures:
    """scikit-learn's."""
    from sklearn.datasets import load_digits

    made = []
    for pixels, label in zip(*load_digits(return_X_y=True)):
        grey = Image.fromarray((pixels.reshape(8, 8) * 15.9).astype("uint8"))
        made.append(
            (grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB"), str(label))
        )
    return made


FOLDERS: dict[str, Callable[[Generator], Pictures]] = {
    "drawings": lambda draws: drawings(),
    "photographs": photographs,
    "digits": digits,
    "textures": lambda draws: textures(),
    **plain.FOLDERS,
}


# ---- ways ----


def registered(views: Sequence[int], dark: float = look_alikes.DARK) -> Way:
    """The product's way, with some of its views; dark: 0 for no covers."""

    def groups(pictures: Sequence[Image.Image], classes: Sequence[str]) -> Sequence[int]:
        some = look_alikes.VIEWS[list(views)]
        with patch.object(look_alikes, "VIEWS", some), patch.object(look_alikes, "DARK", dark):
            return bursts.groups(pictures, classes)

    return groups


def by_links(linked: Callable[[Sequence[Image.Image]], Tensor]) -> Way:
    """Groups of pictures that are connected; linked: (N, N) bool of N pictures of a class."""

    def groups(pictures: Sequence[Image.Image], classes: Sequence[str]) -> Sequence[int]:
        group = list(range(len(pictures)))
        for name in {*classes}:
            places = [place for place, other in enumerate(classes) if other == name]
            graph = coo_array(linked([pictures[place] for place in places]).numpy())
            _, component = connected_components(graph, directed=False)
            first = {number: place for place, number in zip(places[::-1], component[::-1])}
            for place, number in zip(places, component):
                group[place] = first[number]
        return group

    return groups


def by_features() -> Way:
    """Nearest neighbours by the tiny CLIP's features."""
    node = method_node("ZeroshotCLIP")
    node.PREC = "fp32"
    method = method_class("ZeroshotCLIP")(node, ["one", "two"], load_backbone("tiny")).eval()

    def linked(pictures: Sequence[Image.Image]) -> Tensor:
        features = F.normalize(features_of(method, pictures), dim=-1)
        distance = torch.cdist(features, features)
        return distance <= NEAR * distance.median()

    return by_links(linked)


def symmetries(images: Tensor) -> Iterator[Tensor]:
    """Images (…, C, C) turned by quarters, and mirrored and turned."""
    for image in (images, images.flip(-1)):
        for quarters in range(4):
            yield torch.rot90(image, quarters, (-2, -1))


def by_hashes(pictures: Sequence[Image.Image]) -> Tensor:
    """imagehash's ``phash`` under the eight symmetries: which low frequencies of a grey picture of 32
    pixels a side are above their median."""
    small = [
        numpy.asarray(each.convert("L").resize((32, 32), Image.Resampling.LANCZOS))
        for each in pictures
    ]
    found = torch.zeros(len(pictures), len(pictures), dtype=torch.bool)
    own = None
    for seen in symmetries(torch.from_numpy(numpy.stack(small))):
        low = scipy.fft.dct(scipy.fft.dct(seen.float().numpy(), axis=1), axis=2)[:, :8, :8]
        low = low.reshape(len(low), -1)
        bits = torch.from_numpy(low > numpy.median(low, axis=1, keepdims=True)).float()
        own = bits if own is None else own
        found |= torch.cdist(own, bits, p=1) <= HASHED
    return found


def by_cells(pictures: Sequence[Image.Image]) -> Tensor:
    """The share of equal cells under the eight symmetries."""
    small = [
        numpy.asarray(each.resize((CELLS, CELLS), Image.Resampling.BOX), dtype="float32")
        for each in pictures
    ]
    cells = torch.from_numpy(numpy.stack(small)).permute(0, 3, 1, 2)
    found = torch.zeros(len(pictures), len(pictures), dtype=torch.bool)
    for seen in symmetries(cells):
        for place, own in enumerate(cells):
            is_equal = (seen - own).abs().amax(dim=1) <= SAME
            found[place] |= is_equal.float().mean(dim=(1, 2)) > EQUAL
    return found


def by_names(pictures: Sequence[Image.Image], classes: Sequence[str]) -> Sequence[int]:
    """The product's way where files have names such as ``7_2.png``, for the third picture of scene 7."""
    paths = [f"{name}/{place // 3}_{place % 3}.png" for place, name in enumerate(classes)]
    labels = [sorted({*classes}).index(name) for name in classes]
    found = bursts.groups(pictures, classes)
    return joined(found, confirmed(paths, labels, found).members)


UPRIGHT = (0,)
EIGHT = (0, 1, 2, 3, 6, 7, 8, 9)
PRODUCT = "registration, eight symmetries, 15°, pans, covers"
NAMES = "the same, and names"


def ways() -> dict[str, Way]:
    """The ways that are compared."""
    return {
        "registration": registered(UPRIGHT, 0),
        "registration, eight symmetries": registered(EIGHT, 0),
        PRODUCT: bursts.groups,
        NAMES: by_names,
        "features of the CLIP": by_features(),
        "perceptual hashes": by_links(by_hashes),
        "equal cells": by_links(by_cells),
    }


# ---- what is found ----


def drawn(kind: str, scenes: Pictures, draws: Generator) -> Pictures:
    """Each scene and its copies of a kind, one after the other."""
    made = []
    for picture, name in scenes:
        made.append((picture, name))
        for _ in range(EACH):
            made.append((copies.copy(kind, picture, draws), name))
    return made


def found(group: Sequence[int]) -> float:
    """The share in percent of pairs of a scene that are in one group."""
    of_scene = numpy.array(group).reshape(-1, 1 + EACH)
    pairs = [
        of_scene[:, one] == of_scene[:, other] for one in range(1 + EACH) for other in range(one)
    ]
    return 100 * float(numpy.mean(pairs))


def together(group: Sequence[int]) -> float:
    """The share in percent of pictures in a group with another."""
    sizes = Counter(group)
    return 100 * sum(size for size in sizes.values() if size > 1) / len(group)


def measure(folder: str, way: Way, seed: int) -> dict[str, float]:
    """What a way finds in a folder without copies, and of each kind of copies."""
    draws = numpy.random.default_rng(seed)
    pictures = FOLDERS[folder](draws)
    shares = {"none: together": together(way(*zip(*pictures)))}
    scenes = pictures[:: -(-len(pictures) // SCENES)]
    for kind in copies.KINDS:
        shares[kind] = found(way(*zip(*drawn(kind, scenes, draws))))
    return shares


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=f"of {', '.join(FOLDERS)}")
    parser.add_argument("--compare", action="store_true", help="with other ways")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args(arguments)
    compared = ways() if args.compare else {PRODUCT: bursts.groups, NAMES: by_names}
    rows = []
    for folder, (name, way) in product(args.folders or FOLDERS, compared.items()):
        every = DataFrame([measure(folder, way, seed) for seed in args.seeds])
        shares = {
            kind: f"{every[kind].mean():.0f} ± {every[kind].std():.0f}" for kind in every.columns
        }
        rows.append({"way": name, "pictures": folder, **shares})
        print(*rows[-1].values(), sep=" | ", flush=True)
    print(tabulate(DataFrame(rows), headers="keys", showindex=False))


if __name__ == "__main__":
    main()
