"""Promises on pictures that 65 people send, each on paper and in light of their own, judged on what 65 others
send.

    python -m experiments.senders --results experiments/senders.jsonl
    python -m experiments.senders --results experiments/senders.jsonl --show

"By hand" is the exact binomial bound (Clopper and Pearson) on all pictures, as if they were independent, or on
one picture per sender, with the same starts and risks.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from pandas import DataFrame, read_json
from tabulate import tabulate

from experiments.promises import answers_to, classifier_of, features_of, fit_as_runs_do, judge
from experiments.trust_lab import folders
from labelling.threshold import OFFERED, Held, promised

TRAINERS = ("LinearProbe", "GDA")
WAYS = ("means of senders", "by hand, each picture", "by hand, one picture per sender")


def counted_by(way: str, held: Held) -> Held:
    """Return the answers that a way counts."""
    if way == WAYS[0] or held.group is None:
        return held
    if way == WAYS[1]:
        return Held(held.uncertainty, held.wrong)
    _, first = numpy.unique(held.group, return_index=True)
    return Held(held.uncertainty[first], held.wrong[first])


@torch.no_grad()
def judged(seed: int, trainer: str) -> Iterator[dict[str, object]]:
    """Yield a line for each way to count and share that may be promised."""
    folder = folders.draw("groups", seed)
    method = classifier_of(trainer, folder.names)
    known, aside = (
        F.normalize(features_of(method, part.pictures).float(), dim=-1)
        for part in (folder.known, folder.aside)
    )
    labels = torch.from_numpy(folder.known.truth.argmax(axis=1))
    groups = torch.from_numpy(folder.known.groups)
    held = Held(*judge(fit_as_runs_do(method, known, labels, groups), labels), groups.numpy())
    others = torch.from_numpy(folder.aside.truth.argmax(axis=1))
    uncertainty, wrong = judge(answers_to(method, aside), others)
    for way in WAYS:
        for share in OFFERED:
            point = promised(counted_by(way, held), share)
            line = {"seed": seed, "trainer": trainer, "way": way, "share": share}
            line |= {"pictures": len(wrong), "given": 0, "wrong": 0, "promised": point is not None}
            if point is not None:
                within = uncertainty <= point.limit
                line |= {"given": int(within.sum()), "wrong": int(wrong[within].sum())}
            yield line


def table(lines: DataFrame) -> str:
    """A row per way to count and share."""
    rows = []
    for (way, share), own in lines.groupby(["way", "share"], sort=False):
        made = own[own["promised"]]
        broken = made["wrong"] > share * made["given"]
        labelled = 100 * made["given"] / made["pictures"]
        wrong = 100 * made["wrong"] / made["given"].clip(lower=1)
        rows.append(
            {
                "counted": way,
                "promise": f"{100 * share:g} %",
                "made": f"{len(made)} of {len(own)}",
                "broken": str(broken.sum()),
                "pictures with a label, %": f"{labelled.mean():.0f} ± {labelled.std():.0f}",
                "of these wrong, %": f"{wrong.mean():.1f} ± {wrong.std():.1f}",
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--draws", type=int, default=20, help="folders (20)")
    parser.add_argument("--show", action="store_true", help="only the table of what is kept")
    args = parser.parse_args(arguments)
    done = set()
    if args.results.exists():
        done = {*read_json(args.results, lines=True)["seed"]}
    for seed in range(args.draws):
        if args.show or seed in done:
            continue
        lines = [line for trainer in TRAINERS for line in judged(seed, trainer)]
        with open(args.results, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    print(table(read_json(args.results, lines=True)))


if __name__ == "__main__":
    main()
