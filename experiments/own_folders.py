"""Four folders of one's own pictures, each trained and labelled by the commands, killed in between, and
judged on pictures that were kept aside, beside the ten lines that one would write by hand.

    python -m experiments.own_folders --results experiments/own_folders.jsonl         # trains what the file lacks
    python -m experiments.own_folders --results experiments/own_folders.jsonl --show  # the table

- many: 300 drawings in 30 classes. copies: 96 drawings in 8 classes, each with a mirrored copy and one with a black
  square. photos: 60 photographs of 12 megapixels, each a drawing before grass, in 5 classes. groups: a CSV
  file of 6 classes, of 12 scenes each, four shots of a scene, which its column ``group`` names.
- The drawings are OpenMoji's, other ones for each seed; a drawing that looks like a trained one is not kept aside.
- By hand: the CLIP's features of all pictures, scikit-learn's LogisticRegressionCV.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy
import torch
from numpy.random import Generator
from pandas import DataFrame, Series
from PIL import Image, ImageDraw, ImageOps
from tabulate import tabulate

from datasets.drawn.emoji_font import draw_emoji
from experiments.promises import features_of
from labelling.threshold import BEST_PROMISE, threshold_of
from tests.bursts import SIZE, codes, groups, shots
from trainers import method_class, method_node
from trainers.common.record_file import RECORD_FILE, read_record
from trainers.evaluation.figures import wilson
from trainers.method import Method
from trainers.prompting.backbone import load_backbone

REPOSITORY = Path(__file__).resolve().parents[1]
PHOTO = (4000, 3000)
ASIDE = 30  # pictures of a class that are kept aside, at most
Drawn = Iterator[tuple[Image.Image, str, str]]  # picture, class, and the drawing that it shows
Files = list[tuple[Path, str]]  # and their classes


@dataclass(frozen=True)
class Kind:
    """
    Attributes:
        classes, each: how many classes, and drawings of each; shown: makes a drawing's pictures.
        names_groups: whether a CSV file says which pictures show one drawing.
    """

    classes: int
    each: int
    shown: Callable[[Image.Image, Generator], list[Image.Image]]
    names_groups: bool = False


def alone(picture: Image.Image, draws: Generator) -> list[Image.Image]:
    return [picture]


def with_copies(picture: Image.Image, draws: Generator) -> list[Image.Image]:
    """A drawing, its mirror image, and the drawing with a black square of a third of its side."""
    cut = picture.copy()
    left, top = draws.uniform(0, SIZE * 2 / 3, 2)
    ImageDraw.Draw(cut).rectangle((left, top, left + SIZE / 3, top + SIZE / 3), "black")
    return [picture, ImageOps.mirror(picture), cut]


def photographed(picture: Image.Image, draws: Generator) -> list[Image.Image]:
    """A drawing before grass, in 12 megapixels."""
    noise = draws.normal(0, 40, (PHOTO[1] // 10, PHOTO[0] // 10, 1))
    grass = (numpy.array([90, 140, 60]) + noise).clip(0, 255).astype("uint8")
    photo = Image.fromarray(grass).resize(PHOTO, Image.Resampling.BICUBIC)
    side = int(draws.integers(1500, 2800))
    place = [int(draws.integers(0, length - side)) for length in PHOTO]
    photo.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (place[0], place[1]))
    return [photo]


def burst(picture: Image.Image, draws: Generator) -> list[Image.Image]:
    return shots(picture, 4, 1, draws)


KINDS = {
    "many": Kind(30, 10, alone),
    "copies": Kind(8, 12, with_copies),
    "photos": Kind(5, 12, photographed),
    "groups": Kind(6, 12, burst, names_groups=True),
}


# ---- the pictures ----


def divide(kind: Kind, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Code points and classes of the drawings to train on, and of those to keep aside."""
    known = codes()
    twins = groups([draw_emoji(code, SIZE) for code, _ in known], [name for _, name in known])
    by_class: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (code, name), twin in zip(known, twins):
        by_class[name][twin].append(code)
    chance = random.Random(seed)
    largest = sorted(by_class, key=lambda name: -len(by_class[name]))[: 2 * kind.classes]
    trained = []
    aside = []
    for name in chance.sample(sorted(largest), min(kind.classes, len(largest))):
        different = [own[0] for own in by_class[name].values()]  # one of each that look alike
        chance.shuffle(different)
        trained += [(code, name) for code in different[: kind.each]]
        aside += [(code, name) for code in different[kind.each :][:ASIDE]]
    return trained, aside


def drawn(kind: Kind, emojis: Sequence[tuple[str, str]], draws: Generator) -> Drawn:
    for code, name in emojis:
        for picture in kind.shown(draw_emoji(code, SIZE), draws):
            yield picture, name, code


def write(pictures: Drawn, folder: Path) -> Files:
    """Writes class folders, and beside them a CSV file with the groups."""
    files = []
    rows = []
    for number, (picture, name, code) in enumerate(pictures):
        place = folder / name / f"{number:04d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place, quality=92)
        files.append((place, name))
        rows.append((place, name, code))
    with open(f"{folder}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "group"), *rows])
    return files


# ---- a folder trained, labelled and judged ----


def call_killed(words: Sequence[str], until: Path) -> None:
    """Starts a command, kills it as soon as a file is there, and gives it again."""
    command = [sys.executable, *words]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        while first.poll() is None and not until.exists():
            time.sleep(0.01)
        first.kill()
    subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)


def by_hand(trained: Files, aside: Files) -> float:
    """The accuracy, in percent, of a logistic regression on the CLIP's features."""
    from sklearn.linear_model import LogisticRegressionCV

    node = method_node("ZeroshotCLIP")
    labels = [name for _, name in trained]
    method = method_class("ZeroshotCLIP")(node, sorted({*labels}), load_backbone("tiny")).eval()
    fitted = LogisticRegressionCV(max_iter=2000).fit(encoded(method, trained), labels)
    answers = fitted.predict(encoded(method, aside))
    return 100 * float((answers == [name for _, name in aside]).mean())


def encoded(method: Method, files: Files) -> numpy.ndarray:
    """Features (N, E) of pictures, which are read one by one."""
    features = []
    for path, _ in files:
        with Image.open(path) as picture:
            features.append(features_of(method, [picture.convert("RGB")]))
    return torch.cat(features).numpy()


def judged(name: str, seed: int) -> dict[str, object]:
    """A line of the results."""
    kind = KINDS[name]
    draws = numpy.random.default_rng(seed)
    emojis, others = divide(kind, seed)
    with tempfile.TemporaryDirectory() as work:
        source = f"{work}/pictures"
        trained = write(drawn(kind, emojis, draws), Path(source))
        aside = write(drawn(kind, others, draws), Path(work, "aside"))
        if kind.names_groups:
            source += ".csv"
        run = Path(work, "run")
        training = f"train.py --images {source} --backbone tiny --output-dir {run}".split()
        call_killed(training, run / "log.txt")
        record = read_record(str(run / RECORD_FILE))
        metrics = record["metrics"]["test"]
        independent = metrics["effective_images"]
        low, high = wilson(metrics["accuracy"] / 100 * independent, independent)
        in_part = "found_in_part" in record  # then nothing is promised
        threshold = threshold_of(str(run), None if in_part else BEST_PROMISE)
        table = Path(work, "labels.csv")
        asking = f"predict.py --run {run} --csv {table} {work}/aside".split()
        if not in_part:
            asking += ["--max-error", BEST_PROMISE]
        call_killed(asking, Path(f"{table}.part"))
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        hand = by_hand(trained, aside)
    right = [row["class_1"] == Path(row["image"]).parent.name for row in rows]
    given = [is_right for row, is_right in zip(rows, right) if row["label"] and not in_part]
    accuracy = 100 * sum(right) / len(right)
    return {
        "kind": name,
        "seed": seed,
        "pictures": len(trained),
        "said": metrics["accuracy"],
        "low": 100 * low,
        "high": 100 * high,
        "aside": accuracy,
        "pictures aside": len(right),
        "by hand": hand,
        "found in part": in_part,
        "promise": 100 * threshold.share if threshold.point and threshold.share else None,
        "labelled": len(given),
        "wrong": len(given) - sum(given),
    }


def shown_table(rows: Sequence[dict[str, object]]) -> str:
    """Means over the seeds of each kind, with their deviation where there are several seeds."""
    lines = []
    for kind, own in DataFrame(rows).groupby("kind", sort=False):
        promised = own[own["promise"].notna()]
        broken = promised["wrong"] > promised["promise"] / 100 * promised["labelled"]
        lines.append(
            {
                "folder": kind,
                "seeds": len(own),
                "accuracy said, %": plus_minus(own["said"]),
                "pictures kept aside, %": plus_minus(own["aside"]),
                "by hand, %": plus_minus(own["by hand"]),
                "interval above what is true": f"{(own['low'] > own['aside']).sum()} of {len(own)}",
                "copies found in part": f"{own['found in part'].sum()} of {len(own)}",
                "promises broken": f"{broken.sum()} of {len(promised)}",
            }
        )
    return tabulate(lines, headers="keys", tablefmt="pipe")


def plus_minus(values: Series) -> str:
    """The mean and the standard deviation over seeds."""
    return f"{values.mean():.1f} ± {values.std():.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--show", action="store_true", help="print the table and train nothing")
    args = parser.parse_args(arguments)
    lines = args.results.read_text(encoding="utf-8").splitlines() if args.results.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["kind"], row["seed"]) for row in rows}
    for kind, seed in product(args.kinds, args.seeds):
        if not args.show and (kind, seed) not in done:
            rows.append(judged(kind, seed))
            with open(args.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(shown_table(rows))


if __name__ == "__main__":
    main()
