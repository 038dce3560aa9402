"""What labelling the pictures gains that predict.py --label-next chooses, beside the most uncertain ones and
chance.

    python -m experiments.label_next --results experiments/label_next.jsonl         # measures what the file lacks
    # the tables, and the picture in docs/tutorials/rounds.md
    python -m experiments.label_next --results experiments/label_next.jsonl --show --figure docs/label_next.svg

- Of each folder's pool 30 pictures are labelled at first, drawn by chance, then as many more as there are:
  60, 120, 240 and 480. After each round the probe is fitted to all that are labelled, under its usual setting, on
  the tiny CLIP's features, and tested on pictures kept aside: accuracy, with several labels mAP, in percent.
- ``k-means, then uncertain`` switches at ``FEW_PER_CLASS`` labelled pictures per class. With one label per picture
  ``--label-next`` does so, and the switch was set before any of this was measured. With several labels it is
  ``k-means`` throughout: chosen on the folders ``CHOSEN_ON``, reported on the other ones.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame
from PIL import Image, ImageEnhance
from tabulate import tabulate

from experiments import multi_label
from experiments.pictures import DRAWINGS
from experiments.promises import classifier_of, features_of
from experiments.trust_lab import folders
from labelling.next_labels import FEW_PER_CLASS, most_uncertain, next_to_label, spread
from results.svg import STYLE, SVG_MARK, svg_of
from trainers.binaryprobe import BinaryProbeMethod
from trainers.common.errors import exit_code
from trainers.common.files import check_output, write_text
from trainers.common.setting import node_of
from trainers.evaluation.multi_label import measure_multi_label
from trainers.learners.features import FeatureMethod
from trainers.prompting.backbone import load_backbone

SEEDS = (0, 1, 2)
BUDGETS = (30, 60, 120, 240, 480)  # labelled pictures
OFFERED = "--label-next"
SHOWN = {"chance": "s--", "most uncertain": "^:", OFFERED: "o-"}  # and how their curves are drawn
Choice = Callable[[numpy.ndarray, numpy.ndarray, numpy.ndarray, float, int], numpy.ndarray]
Parts = tuple[list[str], folders.Drawn, folders.Drawn]  # names, the pool, and what is kept aside
Draw = Callable[[numpy.random.Generator], Parts]


def digits(draws: numpy.random.Generator) -> Parts:
    every = folders.digits(170, draws)
    labels = every.truth.argmax(axis=1)
    is_pool = numpy.arange(len(labels)) % 170 < 120
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    parts = []
    for part in (is_pool, ~is_pool):
        pictures = [every.pictures[place] for place in numpy.flatnonzero(part)]
        parts.append(folders.one_label(pictures, labels[part].tolist()))
    return names, parts[0], parts[1]


def emojis(
    number: int, each: int, shown: Callable[[str, numpy.random.Generator], Image.Image]
) -> Draw:
    return lambda draws: folders.emoji_parts([each] * number, draws, shown)


def senders(draws: numpy.random.Generator) -> Parts:
    return [*DRAWINGS], folders.senders(200, draws), folders.senders(80, draws)


# ---- several labels per picture ----

POOL, ASIDE = 1200, 400


def scenes(draws: numpy.random.Generator) -> Parts:
    return [*DRAWINGS], folders.shape_scenes(POOL, draws), folders.shape_scenes(ASIDE, draws)


def lit_scenes(draws: numpy.random.Generator) -> Parts:
    """Scenes of shapes, each picture in light of its own and with noise."""
    names, *parts = scenes(draws)
    changed = []
    for part in parts:
        pictures = []
        for picture in part.pictures:
            lit = ImageEnhance.Brightness(picture).enhance(draws.uniform(0.4, 1))
            pictures.append(folders.noisy(lit, draws.uniform(0, 25), draws))
        changed.append(folders.Drawn(pictures, part.truth, part.groups))
    return names, changed[0], changed[1]


def emoji_scenes(draws: numpy.random.Generator) -> Parts:
    seed = int(draws.integers(2**31))
    parts = []
    for part, number in (("train", POOL), ("test", ASIDE)):
        pictures, truth = multi_label.drawn(number, part, seed)
        small = [each.resize((folders.SIZE, folders.SIZE)) for each in pictures]
        parts.append(folders.Drawn(small, truth, numpy.arange(number)))
    return [*multi_label.LABELS], parts[0], parts[1]


def quarters(one_each: Draw) -> Draw:
    """Scenes of one to three pictures of another folder, each of another label in a quarter of its own; few
    labels are frequent, most are rare."""

    def draw(draws: numpy.random.Generator) -> Parts:
        names, *parts = one_each(draws)
        often = 1 / numpy.arange(1, len(names) + 1)
        scenes = []
        for part, number in zip(parts, (POOL, ASIDE)):
            truth = numpy.zeros((number, len(names)), bool)
            pictures = []
            for place in range(number):
                size = draws.integers(1, 4)
                labels = draws.choice(len(names), size, replace=False, p=often / often.sum())
                pictures.append(in_quarters(part, labels, draws))
                truth[place, labels] = True
            scenes.append(folders.Drawn(pictures, truth, numpy.arange(number)))
        return names, scenes[0], scenes[1]

    return draw


def in_quarters(
    part: folders.Drawn, labels: numpy.ndarray, draws: numpy.random.Generator
) -> Image.Image:
    """Draw a picture of each label, at half its size, in a quarter of its own."""
    whole = Image.new("RGB", (folders.SIZE, folders.SIZE), "white")
    for label, quarter in zip(labels, draws.permutation(4)):
        of_label = numpy.flatnonzero(part.truth[:, label])
        small = part.pictures[draws.choice(of_label)].reduce(2)
        whole.paste(small, (small.width * (quarter % 2), small.height * (quarter // 2)))
    return whole


KINDS: dict[str, Draw] = {
    "many": emojis(30, 40, folders.plain),
    "recoloured": emojis(12, 80, folders.in_other_colours),
    "digits": digits,
    "drawings": emojis(10, 120, folders.plain),
    "senders": senders,
    "scenes": scenes,
    "scenes in other light": lit_scenes,
    "scenes of emojis": emoji_scenes,
    "scenes of drawings": quarters(emojis(10, 120, folders.plain)),
    "scenes of digits": quarters(digits),
    "scenes in other colours": quarters(emojis(8, 80, folders.in_other_colours)),
    "scenes before photographs": quarters(emojis(6, 80, folders.before_a_photograph)),
}
CHOSEN_ON = "scenes", "scenes in other light", "scenes of emojis", "scenes of drawings"


def by_chance(
    features: numpy.ndarray,
    uncertainty: numpy.ndarray,
    known: numpy.ndarray,
    per_class: float,
    number: int,
) -> numpy.ndarray:
    return numpy.random.default_rng(len(features)).permutation(len(features))[:number]


def the_most_uncertain(
    features: numpy.ndarray,
    uncertainty: numpy.ndarray,
    known: numpy.ndarray,
    per_class: float,
    number: int,
) -> numpy.ndarray:
    return most_uncertain(uncertainty)[:number]


def by_clusters(
    features: numpy.ndarray,
    uncertainty: numpy.ndarray,
    known: numpy.ndarray,
    per_class: float,
    number: int,
) -> numpy.ndarray:
    return spread(features, known, number)


def by_centres(
    features: numpy.ndarray,
    uncertainty: numpy.ndarray,
    known: numpy.ndarray,
    per_class: float,
    number: int,
) -> numpy.ndarray:
    """k-centre: each next picture is the one that is farthest from all that are known or chosen."""
    nearest = (features @ known.T).max(axis=1)
    chosen = []
    for _ in range(min(number, len(features))):
        place = int(nearest.argmin())
        chosen.append(place)
        nearest = numpy.maximum(nearest, features @ features[place])
        nearest[place] = numpy.inf
    return numpy.array(chosen)


CHOICES: dict[str, Choice] = {
    "chance": by_chance,
    "uncertain": the_most_uncertain,
    "k-means": by_clusters,
    "k-centre": by_centres,
    "k-means, then uncertain": functools.partial(next_to_label, multi_label=False),
}


def several_of(names: list[str]) -> FeatureMethod:
    """``BinaryProbe`` on the tiny CLIP, as its recipe has it."""
    kind = BinaryProbeMethod
    node = node_of(kind.declared)
    node.PREC = "fp32"
    method: FeatureMethod = kind(node, names, load_backbone("tiny")).eval()
    return method


@torch.no_grad()
def judged(kind: str, seed: int) -> Iterator[dict[str, object]]:
    """A line for each choice and number of labelled pictures."""
    draws = numpy.random.default_rng([seed, [*KINDS].index(kind)])
    names, pool, aside = KINDS[kind](draws)
    is_several = kind.startswith("scenes")
    method = several_of(names) if is_several else classifier_of("LinearProbe", names)
    features = features_of(method, pool.pictures)
    asked = features_of(method, aside.pictures)
    target = torch.from_numpy(pool.truth if is_several else pool.truth.argmax(axis=1))

    def answers(shown: torch.Tensor) -> numpy.ndarray:
        logits = method.learner(shown, method.zero_shot(shown))
        return method.predict(logits[None]).probability.numpy()

    first = draws.permutation(len(features))[: BUDGETS[0]]
    for name, choice in CHOICES.items():
        labelled = first
        for budget in [number for number in BUDGETS if number <= len(features)]:
            rest = numpy.setdiff1d(numpy.arange(len(features)), labelled)
            if budget > len(labelled):
                probability = answers(features[rest])
                sure = numpy.maximum(probability, 1 - probability).prod(axis=1)
                uncertainty = 1 - (sure if is_several else probability.max(axis=1))
                chosen = choice(
                    features[rest].numpy(),
                    uncertainty,
                    features[labelled].numpy(),
                    len(labelled) / len(names),
                    budget - len(labelled),
                )
                labelled = numpy.concatenate([labelled, rest[chosen]])
            method.fit(features[labelled][None], target[labelled], method.grid.usual)
            found = answers(asked)
            right = 100 * float((found.argmax(axis=1) == aside.truth.argmax(axis=1)).mean())
            if is_several:
                measured = measure_multi_label(found, found >= 0.5, aside.truth, names)
                right = float(measured["map"])
            yield {
                "kind": kind,
                "seed": seed,
                "choice": name,
                "labelled": len(labelled),
                "per class": len(labelled) / len(names),
                "right": right,
            }


def table(lines: DataFrame) -> str:
    """A row per folder and number of labelled pictures: mean and deviation over the seeds."""
    rows = []
    for (kind, labelled), own in lines.groupby(["kind", "labelled"], sort=False):
        if labelled == BUDGETS[0]:
            continue
        row = {"folder": kind, "labelled": labelled}
        row["per class"] = f"{own['per class'].iloc[0]:.0f}"
        for name in CHOICES:
            right = own[own["choice"] == name]["right"]
            row[name] = f"{right.mean():.1f} ± {right.std():.1f}"
        rows.append(row)
    return tabulate(DataFrame(rows), headers="keys", tablefmt="github", showindex=False)


def reported(lines: DataFrame) -> DataFrame:
    """The lines of folders on which nothing was chosen: of chance, the most uncertain pictures and
    ``--label-next``, whose names are ``shown``."""
    others = lines[~lines["kind"].isin(CHOSEN_ON)]
    is_several = others["kind"].str.startswith("scenes")
    offered = is_several.map({True: "k-means", False: "k-means, then uncertain"})
    shown = others["choice"].replace({"uncertain": "most uncertain"})
    shown[others["choice"] == offered] = OFFERED
    kept = others.assign(shown=shown)
    return kept[kept["shown"].isin(SHOWN)]


def gains(lines: DataFrame) -> str:
    """A row per reported folder: how many points more ``--label-next`` gives than chance, by the number of
    labelled pictures, mean and deviation of the pairs over the seeds."""
    right = reported(lines).set_index(["kind", "labelled", "seed", "shown"])["right"].unstack()
    pairs = (right[OFFERED] - right["chance"]).groupby(["kind", "labelled"], sort=False)
    cells = pairs.agg(lambda points: f"{points.mean():+.1f} ± {points.std():.1f}").unstack()
    by_kind = cells.reindex([kind for kind in KINDS if kind in cells.index])[[*BUDGETS[1:]]]
    return tabulate(by_kind.rename_axis("folder").fillna(""), "keys", "github")


def by_the_switch(lines: DataFrame) -> str:
    """How many points more the most uncertain pictures give than different ones, in the folders with one label,
    up to ``FEW_PER_CLASS`` labelled pictures per class and above: mean over folders and numbers, deviation over seeds."""
    single = lines[~lines["kind"].str.startswith("scenes") & (lines["labelled"] > BUDGETS[0])]
    right = single.set_index(["kind", "labelled", "seed", "per class", "choice"])["right"].unstack()
    points = (right["uncertain"] - right["k-means"]).reset_index(name="points")
    is_above = points["per class"] > FEW_PER_CLASS
    said = []
    for side, own in (("up to", points[~is_above]), ("above", points[is_above])):
        mean = own.groupby("seed")["points"].mean()
        said.append(f"{side} {FEW_PER_CLASS} per class {mean.mean():+.1f} ± {mean.std():.1f}")
    return ", ".join(said)


def draw(lines: DataFrame) -> str:
    """The curves of the reported folders as SVG, with their deviations over the seeds."""
    known = reported(lines)
    kinds = [kind for kind in KINDS if kind in {*known["kind"]}]
    # letters as text
    with rc_context({**STYLE, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        panels = figure.subplots(2, -(-len(kinds) // 2), squeeze=False)
        for axes, kind in zip(panels.flat, kinds):
            draw_folder(axes, known[known["kind"] == kind])
            axes.set(
                title=kind, ylabel="mAP in %" if kind.startswith("scenes") else "accuracy in %"
            )
        figure.supxlabel("labelled pictures", fontsize="medium")
        figure.legend(
            *panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3
        )
        return svg_of(figure)


def draw_folder(axes: Axes, lines: DataFrame) -> None:
    """The curve of each choice."""
    for shown, line in SHOWN.items():
        right = lines[lines["shown"] == shown].groupby("labelled")["right"]
        mean = right.mean()
        axes.errorbar(mean.index, mean, yerr=right.std(), fmt=line, capsize=2, label=shown)
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS, labels=map(str, BUDGETS))
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def make(args: argparse.Namespace) -> None:
    """The whole command."""
    if args.figure:
        check_output("--figure", args.figure, SVG_MARK, [args.results])
    known = []
    if args.results.exists():
        known = [json.loads(line) for line in args.results.read_text().splitlines()]
    if not args.show:
        done = {(line["kind"], line["seed"]) for line in known}
        for kind in KINDS:
            for seed in SEEDS:
                if (kind, seed) not in done:
                    lines = [*judged(kind, seed)]
                    known += lines
                    with args.results.open("a") as file:
                        file.writelines(json.dumps(line) + "\n" for line in lines)
    measured = DataFrame(known)
    print(table(measured))
    print(f"\n{OFFERED} minus chance, in points\n\n{gains(measured)}")
    print(f"\nmost uncertain minus k-means, in points: {by_the_switch(measured)}")
    if args.figure:
        write_text(args.figure, draw(measured))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--results", type=Path, required=True, help="file of lines")
    parser.add_argument("--show", action="store_true", help="print the tables, measure nothing")
    parser.add_argument("--figure", help="SVG file for the picture of the curves")
    return exit_code(make, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
