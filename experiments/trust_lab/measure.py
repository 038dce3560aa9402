"""What a run says of pictures that it can't know: ten kinds of folders, each asked for pictures kept aside, odd
ones, another data set's, and those of changed cameras.

    python -m experiments.trust_lab.measure --results experiments/trust_lab/trust.jsonl --seeds 3 4
    python -m experiments.trust_lab.measure --results experiments/trust_lab/trust.jsonl --show

Seeds 1 and 2 have chosen the score of ``familiar.py`` and the settings of ``report/review.py``.
Folders of several labels have no promise here. A line on shift is asked for 90 pictures of each kind.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from pandas import DataFrame, read_json
from PIL import Image
from tabulate import tabulate

from experiments.promises import answers_to, classifier_of, fit_as_runs_do, judge
from experiments.trust_lab import folders as trust_folders
from experiments.trust_lab.familiar import UNFAMILIAR, fit_familiar, looks_of
from experiments.trust_lab.promise import promised_for
from experiments.trust_lab.shift import too_uncertain, unfamiliar
from labelling.threshold import CONFIDENCE, OFFERED
from trainers.data.transforms import pixels_of_test
from trainers.method import Method
from trainers.settings import run_config

ODD = 15  # odd pictures of each kind
ASKED = 90  # of another data set, and of each camera
Seen = tuple[numpy.ndarray, numpy.ndarray]  # features (N, E) and looks (N, S)


def seen(method: Method, pictures: Sequence[Image.Image]) -> Seen:
    node = run_config().INPUT
    node.SIZE = (method.backbone.image.image_size,) * 2
    shown = pixels_of_test(node)
    pixels = torch.stack([shown(picture) for picture in pictures])
    features = [method.towers.encode_images(some[None])[0] for some in pixels.split(256)]
    return torch.cat(features).float().numpy(), looks_of(pixels)


def incoming(folder: trust_folders.Folder, seed: int) -> Iterator[tuple[str, list[Image.Image]]]:
    """What comes in beside the pictures kept aside; a changed camera takes the first ``ASKED`` in an order by
    chance, see ``chosen``."""
    draws = numpy.random.default_rng(seed)
    yield "odd", trust_folders.odd(ODD, draws)
    other = trust_folders.draw(trust_folders.ANOTHER[folder.kind], seed + 1000).aside.pictures
    yield "another data set", [other[place] for place in chosen(len(other), seed)]
    some = [folder.aside.pictures[place] for place in chosen(len(folder.aside.pictures), seed)]
    yield from trust_folders.cameras(some, seed)


def chosen(number: int, seed: int) -> numpy.ndarray:
    order = numpy.random.default_rng(seed).permutation(number)
    return order[:ASKED]


@torch.no_grad()
def judged(kind: str, seed: int) -> Iterator[dict[str, object]]:
    """A line for each kind of pictures that come in."""
    folder = trust_folders.draw(kind, seed)
    method = classifier_of("LinearProbe", folder.names)
    features, looks = seen(method, folder.known.pictures)
    familiar = fit_familiar(features, looks, folder.known.groups)
    point = None
    promised = None
    rejected = numpy.zeros(len(features), bool)
    if not folder.is_several:
        labels = torch.from_numpy(folder.known.truth.argmax(axis=1))
        shown = F.normalize(torch.from_numpy(features), dim=-1)
        groups = torch.from_numpy(folder.known.groups)
        uncertainty, wrong = judge(fit_as_runs_do(method, shown, labels, groups), labels)
        for share in sorted(OFFERED, reverse=True):
            found = promised_for(uncertainty, wrong, folder.known.groups, share, CONFIDENCE)
            if found is None:
                break
            point, promised = found, share
        if point is not None:
            rejected = uncertainty > point.limit
    aside = folder.aside.truth
    for name, pictures in [("kept aside", folder.aside.pictures), *incoming(folder, seed)]:
        asked, their_looks = seen(method, pictures)
        p_values = familiar.p_values(asked, their_looks)
        is_own = name == "kept aside" or name in trust_folders.CAMERAS
        line: dict[str, object] = {
            "kind": kind,
            "seed": seed,
            "asked": name,
            "pictures": len(pictures),
            "unfamiliar": int((p_values <= UNFAMILIAR).sum()),
            "promised": promised,
        }
        some = chosen(len(p_values), seed) if name == "kept aside" else numpy.arange(len(p_values))
        is_said = unfamiliar(p_values[some], familiar.groups).is_shown
        if point is not None:
            truth = aside if name == "kept aside" else aside[chosen(len(aside), seed)]
            given = (
                torch.from_numpy(truth.argmax(axis=1)) if is_own else torch.zeros(len(asked)).long()
            )
            unit = F.normalize(torch.from_numpy(asked), dim=-1)
            uncertainty, wrong = judge(answers_to(method, unit), given)
            within = uncertainty <= point.limit
            labelled = within & (p_values > UNFAMILIAR)
            beyond = int((~within[some]).sum())
            shift = too_uncertain(beyond, len(some), rejected, folder.known.groups)
            is_said |= shift.is_shown
            line |= {"within": int(within.sum()), "labelled": int(labelled.sum())}
            if is_own:
                line["wrong"] = int(wrong[labelled].sum())
                line["wrong within"] = int(wrong[within].sum())
        yield line | {"said": bool(is_said)}


def table(lines: DataFrame) -> str:
    """A row per kind of pictures that come in; shares in percent, over all folders."""
    rows = []
    for asked, own in lines.groupby("asked", sort=False):
        given = own[own["promised"].notna()]
        row = {
            "pictures": asked,
            "folders": len(own),
            "unfamiliar, %": f"{(100 * own['unfamiliar'] / own['pictures']).mean():.1f}",
            "least": f"{(100 * own['unfamiliar'] / own['pictures']).min():.0f}",
            "most": f"{(100 * own['unfamiliar'] / own['pictures']).max():.0f}",
            "a line is said": f"{own['said'].sum()} of {len(own)}",
            "given a label, %": f"{(100 * given['labelled'] / given['pictures']).mean():.1f}",
            "without p-values": f"{(100 * given['within'] / given['pictures']).mean():.1f}",
            "promises broken": "–",
            "of these a line": "–",
        }
        judged_own = given[given["wrong"].notna()]
        if len(judged_own):
            broken = judged_own[
                judged_own["wrong"] > judged_own["promised"] * judged_own["labelled"]
            ]
            row["promises broken"] = f"{len(broken)} of {len(judged_own)}"
            row["of these a line"] = f"{broken['said'].sum()} of {len(broken)}"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[3, 4])
    parser.add_argument("--show", action="store_true", help="only the table of what is kept")
    args = parser.parse_args(arguments)
    done = set()
    if args.results.exists():
        kept = read_json(args.results, lines=True)
        done = {*zip(kept["kind"], kept["seed"])}
    for seed, kind in product(args.seeds, trust_folders.KINDS):
        if args.show or (kind, seed) in done:
            continue
        lines = [json.dumps(line) + "\n" for line in judged(kind, seed)]
        with open(args.results, "a", encoding="utf-8") as file:
            file.writelines(lines)
    print(table(read_json(args.results, lines=True)))


if __name__ == "__main__":
    main()
