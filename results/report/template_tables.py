"""Tables of what templates vote for, how alike they are, and the words near their context tokens."""

from ..answers import oracle
from ..rows import Column, Row, Table
from ..runs import Series, Setting, is_right, training_curve
from .inspections import AGREEMENT, IMAGE, KAPPA, TEXT, Inspections, matrices, names

EVIDENCE = {
    "level": "level in nats",
    "offset": "offset, from its start",
    "vacuity": "vacuity",
}  # key of metrics.jsonl → column


def accuracy_tables(series: list[Series], named: dict[Setting, str]) -> list[Table]:
    """For each number of templates the table of their accuracies: alone, fused, and of an oracle that takes a right one if there is any."""
    made: dict[str, Table] = {}
    for one in series:
        row = Row((named[one.setting], one.name))
        for run in one.runs:
            votes, label = run.known_answers["vote"], run.known_answers["label"]
            columns = [*(f"S{number}" for number in range(1, len(votes) + 1)), "fused", "oracle"]
            accuracies = [
                *100 * (votes == label).mean(axis=1),
                100 * is_right(run.known_answers).mean(),
                oracle(votes, label),
            ]
            for column, accuracy in zip(columns, accuracies):
                row.values.setdefault(column, {})[run.record["seed"]] = float(accuracy)
        title = f"Accuracy of {len(votes)} templates"
        made.setdefault(title, Table(title, [], columns, heads=("tested on", "model"))).rows.append(
            row
        )
    return list(made.values())


def matrix_tables(
    series: list[Series], named: dict[Setting, str], inspections: Inspections
) -> list[Table]:
    """Agreement and kappa of the votes, cosines of text and of image features; a table each for each number of templates."""
    found = [(one, matrices(one, inspections)) for one in series]
    made: dict[tuple[str, int], Table] = {}
    for title in (AGREEMENT, KAPPA, TEXT, IMAGE):
        for one, of_series in found:
            by_seed = of_series.get(title, {})
            if not by_seed:
                continue
            columns = names(title, len(next(iter(by_seed.values()))))
            table = made.setdefault(
                (title, len(columns)),
                Table(title, [], columns, heads=("tested on", "model", "template")),
            )
            for place, name in enumerate(columns):
                values: dict[Column, dict[int, float]] = {
                    column: {seed: float(matrix[place, other]) for seed, matrix in by_seed.items()}
                    for other, column in enumerate(columns)
                }
                table.rows.append(Row((named[one.setting], one.name, name), values))
    return list(made.values())


def cosine_tables(series: list[Series], named: dict[Setting, str]) -> list[Table]:
    """The table of mean cosines that trainings noted before and after: of templates' texts and images with each other and with CLIP's own,
    and of their deviations from these; none where no run is a training that did."""
    rows = []
    for one in series:
        noted = {
            run.record["seed"]: run.record["learned"]
            for run in one.runs
            if "texts_between_after" in run.record.get("learned", {})
        }
        for of in ("texts", "images"):
            for name, title in (
                ("between", "between templates"),
                ("to_clip", "to CLIP's own"),
                ("deviations", "between deviations from CLIP's own"),
            ):
                values: dict[Column, dict[int, float]] = {
                    when: {
                        seed: 100 * learned[f"{of}_{name}_{when}"]
                        for seed, learned in noted.items()
                        if f"{of}_{name}_{when}" in learned
                    }
                    for when in ("before", "after")
                }
                if values["after"]:
                    rows.append(Row((named[one.setting], one.name, f"{of}, {title}"), values))
    heads = ("tested on", "model", "100 × cosine")
    return (
        [Table("Templates before and after training", rows, ["before", "after"], heads=heads)]
        if rows
        else []
    )


def evidence_tables(series: list[Series], named: dict[Setting, str]) -> list[Table]:
    """The table of evidence during training: its level, change of offset and vacuity, means of the first epoch, the last and three
    between; none where no run is a training that recorded them."""
    rows = []
    for one in series:
        noted = {run.record["seed"]: training_curve(run, [*EVIDENCE]) for run in one.runs}
        epochs = sorted(
            set.intersection(*(set(curves.get("vacuity", ())) for curves in noted.values()))
        )
        for epoch in sorted(
            {epochs[part * (len(epochs) - 1) // 4] for part in range(5)} if epochs else ()
        ):
            rows.append(
                Row(
                    (named[one.setting], one.name, str(epoch)),
                    {
                        title: {seed: curves[name][epoch] for seed, curves in noted.items()}
                        for name, title in EVIDENCE.items()
                    },
                )
            )
    return (
        [
            Table(
                "Evidence while it is trained",
                rows,
                [*EVIDENCE.values()],
                heads=("tested on", "model", "epoch"),
            )
        ]
        if rows
        else []
    )


def word_tables(
    series: list[Series], named: dict[Setting, str], inspections: Inspections
) -> list[Table]:
    """The table of the words nearest to each context token, once for each training, and of how far a word is from the nearest other one;
    none where no prompts are at hand."""
    rows, seen = [], set()
    for one in series:
        for run in one.runs:
            inspection, prompts, seed = (
                inspections.get(run.folder),
                run.record["prompts_hash"],
                run.record["seed"],
            )
            if inspection is None or prompts in seen:
                continue
            seen.add(prompts)
            for template, tokens in enumerate(inspection.words, start=1):
                for token, near in enumerate(tokens, start=1):
                    listed = ", ".join(f"{word} {distance:.2f}" for word, distance in near)
                    rows.append(
                        Row(
                            (
                                named[one.setting],
                                one.name,
                                str(seed),
                                str(template),
                                str(token),
                                listed,
                            ),
                            {"between words": {seed: inspection.between_words}},
                        )
                    )
    heads = (
        "tested on",
        "model",
        "seed",
        "template",
        "token",
        "nearest words, with their distances",
    )
    return (
        [Table("Words nearest to the context tokens", rows, ["between words"], heads=heads)]
        if rows
        else []
    )
