"""Do the templates of a run differ? How each of them votes, what it asks for, and where it looks.

    python -m analysis.templates output/base2new [--root data] [--format text|markdown|csv|latex|html] [--output FILE] [--figures FOLDER]

Of every run whose templates vote (CDC): how far apart the templates were before and after training, each template's own accuracy
beside the fused answer's, agreement and Cohen's kappa of the votes, cosines between the templates' text features, and the words that are
nearest to their context tokens. With --root, the folder of the data
sets, also cosines between image features, where the image encoder is prompted. ± is the sample standard deviation over seeds. --figures
draws them, and with --root occlusion maps of a few images, as PNG and SVG for light and for dark pages.
"""
import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from results.answers import oracle
from results.render import FORMATS, render_all, write_out
from results.report.figures import write_figure
from results.report.gallery import check_root
from results.report.template_figures import template_figures
from results.runs import Series, Setting, find_runs, group, is_right, titles, with_answers
from results.table import Column, Row, Table
from trainers.common.errors import UserError, exit_code

from .inspection import AGREEMENT, IMAGE, KAPPA, TEXT, Inspections, inspect_all, matrices, names, with_templates

log = logging.getLogger(__name__)


def accuracy_tables(series: list[Series], named: dict[Setting, str]) -> list[Table]:
    """For each number of templates the table of their accuracies: alone, fused, and of an oracle that takes a right one if there is any."""
    made: dict[str, Table] = {}
    for one in series:
        row = Row((named[one.setting], one.name))
        for run in one.runs:
            votes, label = run.known_answers["vote"], run.known_answers["label"]
            columns = [*(f"S{number}" for number in range(1, len(votes) + 1)), "fused", "oracle"]
            accuracies = [*100 * (votes == label).mean(axis=1), 100 * is_right(run.known_answers).mean(), oracle(votes, label)]
            for column, accuracy in zip(columns, accuracies):
                row.values.setdefault(column, {})[run.record["seed"]] = float(accuracy)
        title = f"Accuracy of {len(votes)} templates"
        made.setdefault(title, Table(title, [], columns, heads=("tested on", "model"))).rows.append(row)
    return list(made.values())


def matrix_tables(series: list[Series], named: dict[Setting, str], inspections: Inspections) -> list[Table]:
    """Agreement and kappa of the votes, cosines of text and of image features; a table each for each number of templates."""
    found = [(one, matrices(one, inspections)) for one in series]
    made: dict[tuple[str, int], Table] = {}
    for title in (AGREEMENT, KAPPA, TEXT, IMAGE):
        for one, of_series in found:
            by_seed = of_series.get(title, {})
            if not by_seed:
                continue
            columns = names(title, len(next(iter(by_seed.values()))))
            table = made.setdefault((title, len(columns)), Table(title, [], columns, heads=("tested on", "model", "template")))
            for place, name in enumerate(columns):
                values: dict[Column, dict[int, float]] = {
                    column: {seed: float(matrix[place, other]) for seed, matrix in by_seed.items()} for other, column in enumerate(columns)}
                table.rows.append(Row((named[one.setting], one.name, name), values))
    return list(made.values())


def cosine_tables(series: list[Series], named: dict[Setting, str]) -> list[Table]:
    """The table of mean cosines that trainings noted before and after: of templates' texts and images with each other and with CLIP's own,
    and of their deviations from these; none where no run is a training that did."""
    rows = []
    for one in series:
        noted = {run.record["seed"]: run.record["learned"] for run in one.runs if "texts_between_after" in run.record["learned"]}
        for of in ("texts", "images"):
            for name, title in (("between", "between templates"), ("to_clip", "to CLIP's own"), ("deviations", "between deviations from CLIP's own")):
                values: dict[Column, dict[int, float]] = {
                    when: {seed: 100 * learned[f"{of}_{name}_{when}"] for seed, learned in noted.items() if f"{of}_{name}_{when}" in learned}
                    for when in ("before", "after")}
                if values["after"]:
                    rows.append(Row((named[one.setting], one.name, f"{of}, {title}"), values))
    heads = ("tested on", "model", "100 × cosine")
    return [Table("Templates before and after training", rows, ["before", "after"], heads=heads)] if rows else []


def word_tables(series: list[Series], named: dict[Setting, str], inspections: Inspections) -> list[Table]:
    """The table of the words nearest to each context token, once for each training, and of how far a word is from the nearest other one;
    none where no prompts are at hand."""
    rows, seen = [], set()
    for one in series:
        for run in one.runs:
            inspection, prompts, seed = inspections.get(run.folder), run.record["prompts_hash"], run.record["seed"]
            if inspection is None or prompts in seen:
                continue
            seen.add(prompts)
            for template, tokens in enumerate(inspection.words, start=1):
                for token, near in enumerate(tokens, start=1):
                    listed = ", ".join(f"{word} {distance:.2f}" for word, distance in near)
                    rows.append(Row((named[one.setting], one.name, str(seed), str(template), str(token), listed),
                                    {"between words": {seed: inspection.between_words}}))
    heads = ("tested on", "model", "seed", "template", "token", "nearest words, with their distances")
    return [Table("Words nearest to the context tokens", rows, ["between words"], heads=heads)] if rows else []


# ---- the command ----

def run_command(args: argparse.Namespace) -> None:
    """
    Raises:
        UserError: no run with several templates is in or below one of the folders, or a file can't be read.
    """
    check_root(args.root)
    runs = find_runs(args.folders)
    every, named = group(runs), titles([run.setting for run in runs])
    series = with_templates(with_answers(every))
    for one in every:
        if not any((other.setting, other.name) == (one.setting, one.name) for other in series):
            log.warning("left out: %s, %s, has no votes of several templates", one.name, named[one.setting])
    if not series:
        raise UserError(f"no run in or below {', '.join(map(str, args.folders))} has votes of several templates: train CDC with "
                        "TRAINER.CDC.N_TEMPLATES above 1")
    inspections = inspect_all(series, args.root)
    made = [*cosine_tables(series, named), *accuracy_tables(series, named), *matrix_tables(series, named, inspections),
            *word_tables(series, named, inspections)]
    text = render_all(made, args.format)
    if args.figures:
        taken: set[str] = set()
        for figure in template_figures(series, named, inspections):
            write_figure(figure, str(Path(args.figures).absolute()), taken)
    write_out(text, args.output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="RUN_OR_FOLDER", help="a finished run, or a folder that has some below it")
    parser.add_argument("--root", help="folder of the data sets, for what needs the images")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--output", help="write to this file instead of standard output")
    parser.add_argument("--figures", metavar="FOLDER", help="also draw figures, into this folder")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return exit_code(run_command, args)


if __name__ == "__main__":
    sys.exit(main())
