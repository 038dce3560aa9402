"""The tables: mean, deviation, H and averages by hand, only complete seeds, every format, and
warnings where figures don't belong together."""

import csv
import io
import statistics

import pytest

from analysis import uncertainty
from results import ablation, check, factors, templates
from results.report import __main__ as report
from results.runs import collect
from results.table import harmonic_mean, main, tables
from tests.conftest import CASES, GOLDEN
from tests.results.conftest import values, write, write_pair
from tests.runs import call
from trainers.common.record_file import FORMAT

ACCURACY = {
    "CDC": [(80.0, 60.0), (70.0, 70.0), (75.0, 50.0)],  # base and new of seeds 1, 2, 3
    "CoOp": [(90.0, 30.0)],
}
COMMANDS = [module.main for module in (check, ablation, factors, templates, uncertainty, report)]
COMMANDS.append(main)
OF_SEEDS = [harmonic_mean(pair) for pair in ACCURACY["CDC"]]
CDC = ("openmoji", 16, "CDC", "tiny")


@pytest.fixture
def folder(tmp_path):
    for trainer, pairs in ACCURACY.items():
        for seed, pair in enumerate(pairs, 1):
            write_pair(tmp_path, trainer, seed, *pair)
    return tmp_path


def tables_of(folder, metric="accuracy"):
    return tables(collect(folder), metric)


@pytest.mark.parametrize("runs, expected", GOLDEN["tables"]["tables"])
def test_figures_by_hand(tmp_path, runs, expected):
    """Lists are the seeds', a number is the mean as papers print it: H is that of the means."""
    for *run, facts in runs:
        write(tmp_path, *run, **facts)
    made = {table.title: table for table in tables_of(tmp_path)}
    assert made.keys() == expected.keys()
    for title, rows in expected.items():
        of_seeds, means = (
            {" ".join(map(str, key)): row for key, row in values(made[title], by_seed).items()}
            for by_seed in (True, False)
        )
        assert means.keys() == rows.keys()
        for name, row in rows.items():
            assert row.keys() == means[name].keys()
            for column, value in row.items():
                found = of_seeds if isinstance(value, list) else means
                assert found[name][column] == pytest.approx(value)
    assert harmonic_mean((0.0, 50.0)) == harmonic_mean((0.0, 0.0)) == 0


def test_every_format_has_mean_and_sample_deviation(folder, tmp_path, capsys, caplog):
    def printed(*arguments):
        assert call(main, folder, *arguments) == 0
        return capsys.readouterr().out

    of_seeds = f"{statistics.mean(OF_SEEDS):.2f} ± {statistics.stdev(OF_SEEDS):.2f}"
    assert "75.00 ± 5.00" in printed() and "90.00 ±" not in printed()  # of one seed
    assert " 66.67\n" in printed() and of_seeds not in printed()
    assert of_seeds in printed("--seed-h")
    for style, mark in (("markdown", "| data set"), ("latex", "\\toprule"), ("html", "<table>")):
        assert mark in printed("--format", style)
    assert printed("--format", "csv", "--output", f"{tmp_path}/tables/t.csv") == ""
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables/t.csv").read_text())))
    cdc, coop = sorted(rows, key=lambda row: row["trainer"])
    assert (cdc["base_mean"], cdc["base_std"], cdc["seeds"]) == ("75.0000", "5.0000", "3")
    assert coop["base_std"] == "" == cdc["H_std"] and not caplog.records


def test_trainers_with_parts_for_the_trained_classes_are_marked(tmp_path, capsys):
    write_pair(tmp_path, "GDA", 1, 80.0, 60.0, class_parameters=["weight", "bias"])
    write_pair(tmp_path, "CoOp", 1, 70.0, 60.0)
    for style, legend in (("text", "† learns"), ("latex", "% † learns"), ("csv", None)):
        assert call(main, tmp_path, "--format", style) == 0
        printed = capsys.readouterr().out
        assert ("GDA †" in printed) == (legend is not None) and "CoOp †" not in printed
        assert (legend or "") in printed.splitlines()[-1]


def test_another_metric_has_no_harmonic_mean_unless_papers_print_one(tmp_path, caplog, error_of):
    for trainer, doubt in (("CDC", {"vacuity": {"aurc": 12.5, "error_auroc": None}}), ("CoOp", {})):
        metrics = {"accuracy": 1.0, "ece": 5.0, "macro_f1": 50.0, "uncertainty": doubt}
        write_pair(tmp_path, trainer, 1, 80.0, 60.0, metrics={"test": metrics})
    (table,) = tables_of(tmp_path, "ece")
    assert table.title == "base-to-new, ece"
    assert list(values(table).values()) == [{"base": [5], "new": [5]}] * 2
    assert tables_of(tmp_path, "macro_f1")[0].means["H"].tolist() == [50, 50]
    assert not caplog.records
    (table,) = tables_of(tmp_path, "uncertainty.vacuity.aurc")
    assert values(table) == {CDC: {"base": [12.5], "new": [12.5]}}
    assert "left out: 2 run(s) that have no uncertainty.vacuity.aurc" in caplog.text
    line = error_of(main, tmp_path, "--metric", "uncertainty.vacuity.error_auroc")
    assert "has the metric 'uncertainty.vacuity.error_auroc'; it is" in line


@pytest.mark.parametrize("base, new, message", CASES["odd pairs"])
def test_what_does_not_belong_together_is_said(folder, caplog, base, new, message):
    for part, classes, changes in (("train_base", "base", base), ("test_new", "new", new)):
        facts = {"classes": classes, "split": f"openmoji {classes}1", **changes}
        write(folder, part, "MaPLe", 1, 50.0, **facts)
    tables_of(folder)
    assert message in caplog.text


@pytest.mark.parametrize("name", ["average_joe", "average of nothing", "openmoji"])
def test_an_average_is_no_matter_of_names(tmp_path, name):
    """Each row has its own runs, and an average those of all its rows."""
    for data in ("dtd", name):
        write_pair(tmp_path, "CDC", 1, 80.0, 60.0, data)
    (table,) = tables_of(tmp_path)
    *own, average = table.means.index
    assert [row[0] for row in own] == sorted(["dtd", name]) and average[0] == "average of 2"
    for row in own:
        assert {run.setting[0] for run in table.runs_of(row)} == {row[0]}
        assert not table.is_average(row)
    assert table.is_average(average) and len(table.runs_of(average)) == 4


def test_of_two_runs_of_one_kind_the_first_counts_and_of_halves_whole_seeds(folder, caplog):
    (folder / "test_new/openmoji/shots_16/CDC/tiny/seed3/results.json").unlink()
    write_pair(folder / "again", "CDC", 1, 1.0, 1.0)
    assert values(tables_of(folder)[0])[CDC]["base"] == [1, 70]
    assert "another run is in" in caplog.text
    assert "seed(s) 3, of which only a part is done" in caplog.text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__module__)
def test_every_command_says_in_one_line_that_there_is_nothing_for_it(command, tmp_path, error_of):
    def refused(message):
        assert message in error_of(command, tmp_path)

    refused(f"no results.json in or below {tmp_path}: give the folder of a finished run")
    folder = write(tmp_path, "train_base", "CDC", 1, 50.0, "new", git_commit="ae9b73b4793e")
    path = folder / "results.json"
    if command is main:
        refused("no run of a protocol's is done there")
    path.write_text(path.read_text().replace(f'"format": {FORMAT}', '"format": 1'))
    refused(
        f"{path} is no run record of this version (of commit ae9b73b, whose format is 1 and not "
        f"{FORMAT}): use the version that wrote it, or delete its folder and run it again"
    )
    path.write_text("{")
    refused(f"{path} is no run record of this version")
