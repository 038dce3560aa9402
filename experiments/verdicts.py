"""Prints every verdict of the documents, made again from the kept results.

    python -m experiments.verdicts

A line a difference: its table and family, the mean with its 95 % interval over data sets or tasks
(Student's t), p alone and by Holm over the family, Wilcoxon's p by Holm, or its floor where it can
show nothing, and what is shown. The families are fixed here, before any number: a table's rows in its
primary measure, which is H wherever it has one (docs/measures.md). What the documents say of other
measures has intervals alone, but for the two families of calibration.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pandas import DataFrame
from tabulate import tabulate

from experiments import comparison
from experiments.cross_validate import read_rows
from results.compare import kept_scores, published_scores
from results.comparison import Difference, with_minus_signs
from results.holm import ALPHA, by_holm
from results.published import PUBLISHED
from trainers.common.config_files import CONFIGS
from trainers.common.readers import read_yaml

HERE = Path(__file__).parent
PUT_ASIDE = HERE.parent / "docs/data/put_aside.csv"
CALIBRATION = (
    "ece_new ece_fit_new ece_fit_base nll_fit_base nll_fit_new mistakes_base mistakes_new".split()
)
PARTS = ["cdc", "no_decoupling", "no_consistency", "same_view", "independent", "text"]
SINGLE_CHANGES = ["text_alone", "shared_view", "softplus_kl50", "relu_kl10"]
# new, old of the published improvements; † is compared in H with its like
IMPROVEMENTS = [
    ("CoCoOp", "CoOp"),
    ("KgCoOp", "CoCoOp"),
    ("MaPLe", "CoCoOp"),
    ("PromptSRC", "MaPLe"),
    ("ProMetaR", "PromptSRC"),
    ("CoAPTPromptSRC", "PromptSRC"),
    ("DePTPromptSRC", "GDA"),
]
Family = Mapping[str, Difference]  # what is judged → the difference


@functools.cache
def rows() -> list[comparison.Fields]:
    return read_rows(HERE / "cross_validation.jsonl")


def minus(
    second: str, names: Sequence[str], measure: str = "H", only_first_fold: bool = False
) -> Family:
    """Settings of the cross-validation minus one of them, in a measure."""
    wanted = {second, *names}
    own = [row for row in rows() if row["setting"] in wanted]
    if only_first_fold:
        own = [row for row in own if is_of_first_fold(row)]
    table = comparison.differences([{"name": name} for name in (second, *names)], own, second)
    return {f"{name} − {second}, {measure}": table.loc[name, measure] for name in names}


def is_of_first_fold(row: comparison.Fields) -> bool:
    """Whether a line is of the first fold in one direction, which the readings were run on."""
    is_first = row["seed"] == 1 and comparison.task_of(row["task"]) == row["task"]
    return bool(is_first)


def readings() -> Family:
    """The readings of the paper minus CDC, over the first fold."""
    names = [row["name"] for row in read_yaml(CONFIGS / "ablations/CDC_readings.yaml")]
    return minus("full", [name for name in names if name != "full"], only_first_fold=True)


def put_aside() -> Family:
    (scores,) = kept_scores(PUT_ASIDE)
    others = ("CDC views", "PromptSRC", "GDA")
    return {f"CDC − {other}, H": scores.difference("CDC tiny", other, "H") for other in others}


def calibration() -> Family:
    family: dict[str, Difference] = {}
    for other in ("averaged", "promptsrc", "coop"):
        for measure in CALIBRATION:
            family |= minus(other, ["cdc"], measure)
    return family


def improvements() -> Family:
    scores = next(iter(published_scores(PUBLISHED)))
    return {f"{new} − {old}, H": scores.difference(new, old, "H") for new, old in IMPROVEMENTS}


def own_pictures(shots: int) -> Family:
    """Trainers for one's own pictures minus the linear probe over sixteen folders, in accuracy.

    shots: pictures per class; 0: all.
    """
    lines = DataFrame(read_rows(HERE / "candidates.jsonl"))
    means = lines[lines["shots"] == shots].groupby(["folder", "trainer"])["accuracy"].mean()
    of = means.unstack()
    nothing = of["LinearProbe"] * float("nan")
    return {
        f"{name} − LinearProbe, accuracy": Difference(of[name] - of["LinearProbe"], nothing)
        for name in ("ZeroshotCLIP", "GDA", "TipAdapter", "chosen")
    }


def families() -> dict[str, Family]:
    """The families of the documents' tables, by table."""
    return {
        "README, ablation: tasks put aside": put_aside(),
        "ablation: the tuned tasks": {
            **minus("averaged", ["cdc"]),
            **minus("promptsrc", ["cdc"]),
        },
        "ablation: the suite": minus("averaged", ["cdc", "promptsrc", "zeroshot"]),
        "ablation: each part": minus("full", PARTS),
        "README, ablation: each part, fitted ECE": minus("full", PARTS, "ece_fit_new"),
        "ablation: readings": readings(),
        "ablation: one change alone": minus("full_fp32", SINGLE_CHANGES),
        "ablation: calibration": calibration(),
        "log: GDA by its authors' rules": minus("gda", ["gda_authors"]),
        "benchmark: published improvements": improvements(),
        "choosing: 4 pictures per class": own_pictures(4),
        "choosing: 16 pictures per class": own_pictures(16),
        "choosing: all pictures": own_pictures(0),
    }


def judged(family: Family) -> DataFrame:
    """The verdicts of a family: columns ``mean``, ``p``, ``holm``, ``wilcoxon`` and ``shown``, by what
    is judged."""
    each = list(family.values())
    student = by_holm(difference.student for difference in each)
    wilcoxon = by_holm(difference.wilcoxon for difference in each)
    lines = []
    for difference, p, by_ranks in zip(each, student, wilcoxon):
        floor = difference.wilcoxon_floor * len(each)
        side = "above" if difference.mean > 0 else "below"
        lines.append(
            {
                "mean": str(difference),
                "p": f"{difference.student:.2g}",
                "holm": f"{p:.2g}",
                "wilcoxon": f"{by_ranks:.2g}" if floor < ALPHA else "can't answer",
                "shown": side if p < ALPHA else "not shown",
            }
        )
    return DataFrame(lines, list(family))


def main(arguments: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(description=first_line(__doc__)).parse_args(arguments)
    lines = []
    for table, family in families().items():
        for what, found in judged(family).iterrows():
            lines.append((f"{table} ({len(family)})", with_minus_signs(str(what)), *found))
    heads = ("table (its family)", "minus", "mean", "p", "by Holm", "Wilcoxon's", "shown")
    print(tabulate(lines, heads, "pipe", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
