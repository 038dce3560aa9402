"""What a training on one's own pictures costs where nothing else is said: the fit to image features of any
number, the whole command on small pictures, on an idle machine and beside processes that count, and the
command beside ten lines by hand; and what it costs to look for copies, and to say how unlike the run's pictures
others are.

    python -m experiments.benchmarks.own_images                     # all
    python -m experiments.benchmarks.own_images --parts features copies --images 1000 16000
    python -m experiments.benchmarks.own_images --parts by-hand     # 200 photos of 12 MP, 80 small pictures
    python -m experiments.benchmarks.own_images --parts next-round  # 1,000 pictures, then 20 more
    python -m experiments.benchmarks.own_images --parts unfamiliar  # 1,000 pictures, 24 times

Features are drawn at random around a centre per class, as many numbers as a ViT-B has, with 100
classes; from them to the probe that is kept, and to an answer to each out of fold, is what
train.py --images computes after it has looked at the pictures. The pictures of the command are
coloured patches of 64 pixels in 20 classes, and its CLIP is the tiny one. Each measurement has a
process of its own; its seconds are the processor's, and the clock's for the command.

By hand: CLIP's own preprocessing, features, and scikit-learn's ``LogisticRegressionCV``, see ``BY_HAND``.
The photos are coloured patches under grain, JPEGs of 4 MB. Both take turns, ``ROUNDS`` times, with one thread
of torch; the processor's seconds are those of the median round, start-up included, memory is the largest.
A decode is a file's pixels read once. Labelling is of predict.py: its seconds for all photos minus those for four,
per photo, with the tiny CLIP's pass.

"copies" are looked for among scikit-learn's digits, and among pictures of one class, colours that blend into one
another, of which none are copies.

"unfamiliar": one classifier labels the command's pictures with p-values and without in turn, ``PAIRS`` times with the
order swapped, by one thread.

The next round is the same command on a file that names 20 pictures more, JPEGs of 500 × 375 pixels in four classes;
by the tiny CLIP and by a ViT-B/32 with random weights.
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
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import clip
import numpy
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops
from tabulate import tabulate
from torch import Tensor

from experiments.copies import digits
from labelling.classifier import PromptedClassifier
from labelling.cross_fit import FeatureSet, cross_fit
from labelling.look_alikes import look_alikes
from labelling.parts import folds
from labelling.task import FOLDS, SINGLE_LABEL
from trainers import method_class, method_node
from trainers.common.image_files import PictureFacts, thumbnails_of
from trainers.learners.features import is_feature_classifier
from trainers.prompting.backbone import OWN_WEIGHTS, build_backbone

REPOSITORY = Path(__file__).resolve().parents[2]
PROCESSES = multiprocessing.get_context("spawn")  # fresh ones: peaks of memory are a process's
CLASSES = 100
WIDTH = 512  # numbers of a feature
BEFORE, MORE = 1000, 20  # pictures of a first round, and new ones of the next
VIT_B32 = (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)
SHAPE = (WIDTH, 32, 1, 64, 8, 77, 49408, 64, 1, 1)  # of a CLIP that has such features
NOISE = 5.0  # of a feature, in the spread of the centres: about as hard as photographs
PICTURES = 1000  # of the command
KINDS = 20  # their classes
SIDE = 64  # pixels
CORES = len(os.sched_getaffinity(0))
ROUNDS = 3
PAIRS = 12
PHOTO = (4000, 3000)  # pixels
PHOTOS = 200
FEW = 80  # small pictures beside ten lines by hand
FEW_KINDS = 4  # their classes, and those of the photos
BY_HAND = """
import sys
from pathlib import Path
import clip, torch
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
model = clip.model.build_model(torch.load(sys.argv[2], weights_only=True)).float().eval()
transform = clip.clip._transform(model.visual.input_resolution)
files = sorted(Path(sys.argv[1]).glob("*/*"))
with torch.no_grad():
    features = torch.cat([model.encode_image(transform(Image.open(file))[None]) for file in files])
features = torch.nn.functional.normalize(features, dim=-1).numpy()
LogisticRegressionCV(cv=5, max_iter=1000).fit(features, [file.parent.name for file in files])
"""
# runs a program, and says last how many files it has decoded
COUNTING = """
import atexit, runpy, sys
from PIL import ImageFile
load = ImageFile.ImageFile.load
decoded = []
def counting(image):
    if image.tile:  # it is still to be read
        decoded.append(image.format)
    return load(image)
ImageFile.ImageFile.load = counting
atexit.register(lambda: print(len(decoded)))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


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
    node = method_node(SINGLE_LABEL.trainer)
    node.PREC = "fp32"
    node.BESIDE_TEXTS = True  # as in the recipes for one's own images
    names = [f"kind {number}" for number in range(CLASSES)]
    backbone = build_backbone(stock.state_dict())
    method = method_class(SINGLE_LABEL.trainer)(node, names, backbone).eval()
    assert is_feature_classifier(method)
    features, labels = drawn_features(images)
    before = time.process_time()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    known = FeatureSet(features[None], features, labels, folds(labels, FOLDS, seed=1))
    answers = cross_fit(method, SINGLE_LABEL, known)
    seconds = time.process_time() - before
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    right = 100 * (answers.probability.argmax(dim=1) == labels).float().mean().item()
    return seconds, (most - held) / 2**20, most / 2**20, right


def draw_pictures(folder: Path, pictures: int, kinds: int) -> None:
    """Class folders of coloured patches under noise."""
    generator = numpy.random.default_rng(0)
    colours = generator.uniform(0, 255, (kinds, 4, 4, 3))
    for number in range(pictures):
        kind = number % kinds
        patches = colours[kind] + generator.normal(0, 50, (4, 4, 3))
        pixels = patches.repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
        pixels = numpy.clip(pixels + generator.normal(0, 25, pixels.shape), 0, 255)
        place = folder / f"pattern {kind}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype("uint8")).save(place / f"{number}.png")


def draw_photos(folder: Path) -> None:
    """Class folders of photos: patches of colours that blend into one another, under grain."""
    generator = numpy.random.default_rng(0)
    colours = generator.uniform(0, 255, (FEW_KINDS, 6, 8, 3))
    noise = generator.normal(128, 8, (PHOTO[1], PHOTO[0])).clip(0, 255).astype("uint8")
    grain = Image.fromarray(noise).convert("RGB")
    for number in range(PHOTOS):
        kind = number % FEW_KINDS
        patches = numpy.clip(colours[kind] + generator.normal(0, 50, (6, 8, 3)), 0, 255)
        smooth = Image.fromarray(patches.astype("uint8")).resize(PHOTO, Image.Resampling.BICUBIC)
        place = folder / f"scene {kind}"
        place.mkdir(parents=True, exist_ok=True)
        photo = ImageChops.add(smooth, grain, offset=-128)
        photo.save(place / f"{number}.jpg", quality=90)


def draw_listed(folder: Path) -> list[str]:
    """Draw JPEGs of colours that blend into one another; return the rows of a file that names them."""
    generator = numpy.random.default_rng(0)
    rows = []
    for number in range(BEFORE + MORE):
        kind = number % FEW_KINDS
        pixels = generator.integers(0, 256, (12, 16, 3), dtype=numpy.uint8)
        pixels[..., kind % 3] //= 1 + kind
        picture = Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=90)
        rows.append(f"{number}.jpg,kind {kind}")
    return rows


class Cost(NamedTuple):
    """What a program has cost with its children: seconds of the clock and of the processor, gigabytes at
    most; and how many files it has decoded."""

    clock: float
    processor: float
    memory: float
    decodes: int


def cost_of(program: Sequence[str]) -> Cost:
    """Runs a Python program, a file and its arguments.

    Raises:
        RuntimeError: it fails.
    """
    started_at = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", COUNTING, *program],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
        )
        _, status, usage = os.wait4(process.pid, 0)
        clock = time.perf_counter() - started_at
        output.seek(0)
        said = output.read()
    if status:
        raise RuntimeError(f"{program} has failed: {said}")
    processor = usage.ru_utime + usage.ru_stime
    return Cost(clock, processor, usage.ru_maxrss / 2**20, int(said.split()[-1]))


def measure_features(sizes: Sequence[int]) -> None:
    rows = []
    for images in sizes:
        with ProcessPoolExecutor(1, PROCESSES) as pool:
            rows.append((images, *pool.submit(fit_features, images).result()))
    titles = ("pictures", "processor, s", "GB for it", "GB in all", "right out of fold, %")
    print(tabulate(rows, titles, "pipe", floatfmt=".3g"), flush=True)


def blended(number: int) -> Image.Image:
    """Return a small picture of colours that blend into one another."""
    pixels = numpy.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=numpy.uint8)
    return Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC)


def search_copies(images: int | None) -> tuple[float, ...]:
    """Look for copies among ``blended`` pictures, or all digits.

    Returns:
        The number of pictures, the processor's seconds, the gigabytes that the process had at most, and the
        percentage of the pictures that were taken for copies of others.
    """
    pictures: Iterable[tuple[Image.Image, str]]
    if images is None:
        pictures = digits(numpy.random.default_rng(0))
    else:  # one at a time: 50,000 of them are 1.4 GB
        pictures = ((blended(number), "0") for number in range(images))
    facts = []
    labels = []
    for picture, name in pictures:
        facts.append(PictureFacts("", False, b"", *thumbnails_of(picture)))
        labels.append(int(name))
    before = time.process_time()
    groups = look_alikes(facts, labels).groups
    seconds = time.process_time() - before
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return len(groups), seconds, most, 100 * (1 - len({*groups}) / len(groups))


def measure_copies(sizes: Sequence[int]) -> None:
    rows = []
    for images in (None, *sizes):
        with ProcessPoolExecutor(1, PROCESSES) as pool:
            found = pool.submit(search_copies, images).result()
        rows.append(("digits" if images is None else "one class", *found))
    titles = ("", "pictures", "processor, s", "GB in all", "taken for copies of others, %")
    print(tabulate(rows, titles, "pipe", floatfmt=".3g"), flush=True)


def training(pictures: str, output: str, backbone: str = "tiny") -> list[str]:
    """The program that trains on a folder, or a file that names pictures."""
    return f"train.py --images {pictures} --backbone {backbone} --output-dir {output}".split()


def measure_command() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as work:
        draw_pictures(Path(work, "pictures"), PICTURES, KINDS)
        for busy in (0, CORES):
            others = [PROCESSES.Process(target=be_busy, daemon=True) for _ in range(busy)]
            for other in others:
                other.start()
            cost = cost_of(training(f"{work}/pictures", f"{work}/{busy}"))
            rows.append((busy, cost.clock, cost.processor))
            for other in others:
                other.kill()
    titles = ("processes beside it", "clock, s", "processor, s")
    print(tabulate(rows, titles, "pipe", floatfmt=".3g"), flush=True)


def measure_by_hand() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the programs; threads that wait spin
    with tempfile.TemporaryDirectory() as work:
        draw_pictures(Path(work, "pictures"), FEW, FEW_KINDS)
        draw_photos(Path(work, "photos"))
        Path(work, "by_hand.py").write_text(BY_HAND)
        rows = []
        for name, files in (("pictures", FEW), ("photos", PHOTOS)):
            ours = []
            theirs = []
            for number in range(ROUNDS):
                by_hand = [f"{work}/by_hand.py", f"{work}/{name}", str(OWN_WEIGHTS["tiny"])]
                theirs.append(cost_of(by_hand))
                ours.append(cost_of(training(f"{work}/{name}", f"{work}/{name}-{number}")))
            for who, costs in (("by hand", theirs), ("train.py", ours)):
                processor = median(cost.processor for cost in costs)
                memory = max(cost.memory for cost in costs)
                decodes = costs[0].decodes / files
                rows.append((f"{files} {name}", who, decodes, processor, memory))
        titles = ("", "", "decodes per file", "processor, s", "GB")
        print(tabulate(rows, titles, "pipe", floatfmt=".3g"), flush=True)
        measure_labelling(f"{work}/photos", f"{work}/photos-0")


def measure_next_round() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as work:
        lines = draw_listed(Path(work))
        listed = Path(work, "labels.csv")
        torch.manual_seed(0)
        large = f"{work}/vit_b32.pt"
        torch.save(clip.model.CLIP(*VIT_B32).float().state_dict(), large)
        rows = []
        for name, backbone in (("tiny", "tiny"), ("ViT-B/32", large)):
            costs: list[tuple[float, float]] = []
            for number in range(ROUNDS):
                program = training(str(listed), f"{work}/{name[:4]}{number}", backbone)
                seconds = []
                for pictures in (BEFORE, BEFORE + MORE):
                    listed.write_text("\n".join(["image,label", *lines[:pictures], ""]))
                    seconds.append(cost_of(program).processor)
                costs.append((seconds[0], seconds[1]))
            first, following = map(numpy.array, zip(*costs))
            share = following / first
            rows.append((name, median(first), median(following), share.mean(), share.std(ddof=1)))
        titles = ("CLIP", "first round, s", "next one, s", "share", "deviation")
        print(tabulate(rows, titles, "pipe", floatfmt=".3g"), flush=True)


def measure_labelling(photos: str, run: str) -> None:
    """What a photo costs predict.py, besides its start."""
    paths = sorted(str(path) for path in Path(photos).rglob("*.jpg"))
    command = f"predict.py --run {run} --json".split()
    few = paths[:FEW_KINDS]
    of_few = median(cost_of([*command, *few]).processor for _ in range(ROUNDS))
    of_all = [cost_of([*command, *paths]) for _ in range(ROUNDS)]
    seconds = median(cost.processor for cost in of_all) - of_few
    row = (of_all[0].decodes / PHOTOS, seconds / (PHOTOS - len(few)))
    titles = ("labelling: decodes per photo", "processor, s per photo")
    print(tabulate([row], titles, "pipe", floatfmt=".3g"), flush=True)


def measure_unfamiliar() -> None:
    """Measure how much longer labelling takes where each picture has a p-value."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        draw_pictures(Path(work, "pictures"), PICTURES, KINDS)
        run = f"{work}/run"
        classifier = PromptedClassifier.fit(f"{work}/pictures", backbone="tiny", folder=run)
        paths = sorted(str(path) for path in Path(work, "pictures").rglob("*.png"))
        kept = classifier.familiar
        with_values: list[float] = []
        without: list[float] = []
        for number in range(PAIRS):
            orders = [(kept, with_values), (None, without)]
            for familiar, seconds in orders if number % 2 else reversed(orders):
                classifier.familiar = familiar
                started = time.process_time()
                classifier.predict(paths)
                seconds.append(time.process_time() - started)
    longer = [100 * (one / other - 1) for one, other in zip(with_values, without)]
    row = (PICTURES, PAIRS, median(without), median(with_values), median(longer))
    titles = ("pictures", "pairs", "without, s", "with p-values, s", "longer, % (median of pairs)")
    print(tabulate([row], titles, "pipe", floatfmt=".3g"), flush=True)
    print("longer, %, of each pair:", " ".join(f"{one:.1f}" for one in sorted(longer)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    choices = ["features", "copies", "command", "by-hand", "next-round", "unfamiliar"]
    parser.add_argument("--parts", nargs="+", choices=choices, default=choices)
    parser.add_argument("--images", nargs="+", type=int, default=[1000, 4000, 10000, 16000])
    args = parser.parse_args(arguments)
    if "features" in args.parts:
        measure_features(args.images)
    if "copies" in args.parts:
        measure_copies(args.images)
    if "command" in args.parts:
        measure_command()
    if "by-hand" in args.parts:
        measure_by_hand()
    if "next-round" in args.parts:
        measure_next_round()
    if "unfamiliar" in args.parts:
        measure_unfamiliar()


if __name__ == "__main__":
    main()
