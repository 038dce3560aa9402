"""What a training on one's own pictures costs where nothing else is said: the fit to image features of any
number, and the whole command on small pictures, on an idle machine and beside processes that count.

    python -m experiments.benchmarks.own_images                     # both
    python -m experiments.benchmarks.own_images --parts features --images 1000 16000

Features are drawn at random around a centre per class, as many numbers as a ViT-B has, with 100
classes; from them to the probe that is kept, and to an answer to each out of fold, is what
train.py --images computes after it has looked at the pictures. The pictures of the command are
coloured patches of 64 pixels in 20 classes, and its CLIP is the tiny one. Each measurement has a
process of its own; its seconds are the processor's, and the clock's for the command.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import clip
import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from tabulate import tabulate
from torch import Tensor

from labelling.cross_fit import FeatureSet, cross_fit
from labelling.defaults import TAKEN
from labelling.folders.own_images import FOLDS
from trainers import method_class, method_node
from trainers.learners.features import is_feature_classifier
from trainers.prompting.backbone import build_backbone

REPOSITORY = Path(__file__).resolve().parents[2]
PROCESSES = multiprocessing.get_context("spawn")  # fresh ones: peaks of memory are a process's
CLASSES = 100
WIDTH = 512  # numbers of a feature
SHAPE = (WIDTH, 32, 1, 64, 8, 77, 49408, 64, 1, 1)  # of a CLIP that has such features
NOISE = 5.0  # of a feature, in the spread of the centres: about as hard as photographs
PICTURES = 1000  # of the command
KINDS = 20  # their classes
SIDE = 64  # pixels
CORES = len(os.sched_getaffinity(0))


def be_busy() -> None:
    """Takes what it gets of a core."""
    while True:
        pass


def drawn_features(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (N, E) of length one around centres, all on one side, and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % CLASSES
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    noise = torch.randn(images, WIDTH, generator=generator)
    return F.normalize(2 + centres[labels] + NOISE * noise, dim=-1), labels


def fit_features(images: int) -> tuple[float, ...]:
    """The processor's seconds of the whole fit; the gigabytes it has needed at most, beyond what the
    process held before and in all; and the percentage that is right out of fold."""
    torch.manual_seed(0)
    stock = clip.model.CLIP(*SHAPE).float()
    node = method_node(TAKEN)
    node.PREC = "fp32"
    node.BESIDE_TEXTS = True  # as in the recipes for one's own images
    names = [f"kind {number}" for number in range(CLASSES)]
    method = method_class(TAKEN)(node, names, build_backbone(stock.state_dict())).eval()
    assert is_feature_classifier(method)
    features, labels = drawn_features(images)
    before = time.process_time()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers = cross_fit(method, FeatureSet(features[None], features, labels), FOLDS, seed=1)
    seconds = time.process_time() - before
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    right = 100 * (answers.probability.argmax(dim=1) == labels).float().mean().item()
    return seconds, (most - held) / 2**20, most / 2**20, right


def draw_pictures(folder: Path) -> None:
    """Class folders of coloured patches under noise."""
    generator = numpy.random.default_rng(0)
    colours = generator.uniform(0, 255, (KINDS, 4, 4, 3))
    for number in range(PICTURES):
        kind = number % KINDS
        patches = colours[kind] + generator.normal(0, 50, (4, 4, 3))
        pixels = patches.repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
        pixels = numpy.clip(pixels + generator.normal(0, 25, pixels.shape), 0, 255)
        place = folder / f"pattern {kind}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype("uint8")).save(place / f"{number}.png")


def seconds_of(command: Sequence[str]) -> tuple[float, float]:
    """The clock's and the processor's seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_at = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - started_at
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, processor


def measure_features(sizes: Sequence[int]) -> None:
    rows = []
    for images in sizes:
        with ProcessPoolExecutor(1, PROCESSES) as pool:
            rows.append((images, *pool.submit(fit_features, images).result()))
    titles = ("pictures", "processor, s", "GB for it", "GB in all", "right out of fold, %")
    print(tabulate(rows, titles, "pipe", floatfmt=".3g"), flush=True)


def measure_command() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as work:
        draw_pictures(Path(work, "pictures"))
        for busy in (0, CORES):
            words = f"--images {work}/pictures --backbone tiny --output-dir {work}/{busy}".split()
            command = [sys.executable, str(REPOSITORY / "train.py"), *words]
            others = [PROCESSES.Process(target=be_busy, daemon=True) for _ in range(busy)]
            for other in others:
                other.start()
            rows.append((busy, *seconds_of(command)))
            for other in others:
                other.kill()
    titles = ("processes beside it", "clock, s", "processor, s")
    print(tabulate(rows, titles, "pipe", floatfmt=".3g"), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    choices = ["features", "command"]
    parser.add_argument("--parts", nargs="+", choices=choices, default=choices)
    parser.add_argument("--images", nargs="+", type=int, default=[1000, 4000, 10000, 16000])
    args = parser.parse_args(arguments)
    if "features" in args.parts:
        measure_features(args.images)
    if "command" in args.parts:
        measure_command()


if __name__ == "__main__":
    main()
