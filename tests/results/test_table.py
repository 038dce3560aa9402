"""The tables: mean, deviation, H and averages by hand, only complete seeds, every format, and
warnings where figures don't belong together."""

import csv
import io
import statistics

import pytest

from report import __main__ as report
from results import ablation, check
from results.runs import collect
from results.table import harmonic_mean, main, tables
from tests.conftest import GOLDEN
from tests.results.conftest import values, write, write_labels, write_pair
from tests.runs import call, change_record
from trainers.common.record_file import FORMAT, ZERO_SHOT

PAIRS = [(80.0, 60.0), (70.0, 70.0), (75.0, 50.0)]  # base and new of CDC's seeds 1, 2, 3
COMMANDS = [module.main for module in (check, ablation, report)]
CDC = ("openmoji", 16, "CDC", "tiny")


@pytest.fixture
def folder(tmp_path):
    for seed, pair in enumerate(PAIRS, 1):
        write_pair(tmp_path, "CDC", seed, *pair)
    write_pair(tmp_path, "CoOp", 1, 90.0, 30.0)
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
        of_seeds, means = values(made[title]), values(made[title], by_seed=False)
        assert {" ".join(map(str, key)) for key in means} == rows.keys()
        for key, of_means in means.items():
            row = rows[" ".join(map(str, key))]
            assert row.keys() == of_means.keys()
            for column, value in row.items():
                found = of_seeds[key] if isinstance(value, list) else of_means
                assert found[column] == pytest.approx(value)


def test_every_format_has_mean_and_sample_deviation(folder, tmp_path, capsys, caplog):
    def printed(*arguments):
        assert call(main, folder, *arguments) == 0
        return capsys.readouterr().out

    text = printed()
    assert "75.00 ± 5.00" in text
    assert "90.00 ±" not in text, "of one seed"
    assert " 66.67\n" in text, "H of the means"
    of_seeds = list(map(harmonic_mean, PAIRS))
    both = f"{statistics.mean(of_seeds):.2f} ± {statistics.stdev(of_seeds):.2f}"
    assert both in printed("--seed-h")
    for style, mark in (("markdown", "| data set"), ("latex", "\\toprule"), ("html", "<table>")):
        assert mark in printed("--format", style)
    assert printed("--format", "csv", "--output", f"{tmp_path}/tables/t.csv") == ""
    cdc, coop = csv.DictReader(io.StringIO((tmp_path / "tables/t.csv").read_text()))
    assert (cdc["base_mean"], cdc["base_std"], cdc["seeds"]) == ("75.0000", "5.0000", "3")
    assert coop["base_std"] == ""
    assert not caplog.records


@pytest.mark.parametrize("style, legend", [("text", "† learns"), ("latex", "% † learns")])
def test_trainers_with_parts_for_the_trained_classes_are_marked(tmp_path, capsys, style, legend):
    write_pair(tmp_path, "GDA", 1, 80.0, 60.0, class_parameters=["weight", "bias"])
    write_pair(tmp_path, "CoOp", 1, 70.0, 60.0)
    assert call(main, tmp_path, "--format", style) == 0
    printed = capsys.readouterr().out
    assert "GDA †" in printed
    assert "CoOp †" not in printed
    assert legend in printed.splitlines()[-1]


def test_another_metric_has_no_harmonic_mean_unless_papers_print_one(tmp_path):
    metrics = {"accuracy": 1.0, "ece": 5.0, "macro_f1": 50.0}
    write_pair(tmp_path, "CDC", 1, 80.0, 60.0, metrics={"test": metrics})
    (table,) = tables_of(tmp_path, "ece")
    assert table.title == "base-to-new, ece"
    assert values(table) == {CDC: {"base": [5], "new": [5]}}
    assert tables_of(tmp_path, "macro_f1")[0].means["H"].tolist() == [50]


def test_runs_without_the_metric_are_left_out_and_said(tmp_path, caplog, error_of):
    for trainer, doubt in (("CDC", {"vacuity": {"aurc": 12.5, "error_auroc": None}}), ("CoOp", {})):
        metrics = {"test": {"accuracy": 1.0, "uncertainty": doubt}}
        write_pair(tmp_path, trainer, 1, 80.0, 60.0, metrics=metrics)
    (table,) = tables_of(tmp_path, "uncertainty.vacuity.aurc")
    assert values(table) == {CDC: {"base": [12.5], "new": [12.5]}}
    assert "left out: 2 run(s) that have no uncertainty.vacuity.aurc" in caplog.text
    line = error_of(main, tmp_path, "--metric", "uncertainty.vacuity.error_auroc")
    assert "has the metric 'uncertainty.vacuity.error_auroc'; it is" in line


@pytest.mark.parametrize(
    "base, new, message",
    [
        ({"split": "other"}, {}, "seed 1: the runs used different samples"),
        ({"prompts_hash": "old"}, {}, "MaPLe tiny, seed 1: its parts were tested"),
        ({"backbone_hash": "old"}, {"backbone_hash": "old"}, "tiny had different weights"),
        ({}, {"classes": "base"}, "tests the base classes' test"),
        ({}, {"skipped_images": {"test": ["a.png"]}}, "skipped 1 test image that could"),
    ],
)
def test_what_does_not_belong_together_is_said(folder, caplog, base, new, message):
    for part, classes, changes in (("train_base", "base", base), ("test_new", "new", new)):
        facts = {"classes": classes, "split": f"openmoji {classes}1", **changes}
        write(folder, part, "MaPLe", 1, 50.0, **facts)
    tables_of(folder)
    assert message in caplog.text


def test_an_average_is_no_matter_of_names(tmp_path):
    """Each row has its own runs, and an average those of all its rows."""
    names = ["average of nothing", "dtd"]
    for data in names:
        write_pair(tmp_path, "CDC", 1, 80.0, 60.0, data)
    (table,) = tables_of(tmp_path)
    *own, average = table.means.index
    assert [row[0] for row in own] == names
    for row in own:
        assert {run.task[0] for run in table.runs_of(row)} == {row[0]}
        assert not table.is_average(row)
    assert table.is_average(average)
    assert len(table.runs_of(average)) == 4


def test_multi_label_runs_have_their_measures_and_one_that_ranks_alone_has_its_own(tmp_path):
    for seed in (1, 2):
        write_labels(tmp_path, seed)
    write_labels(tmp_path, 1, ZERO_SHOT)
    measured = [run.metrics for run in collect(tmp_path / "BinaryProbe")]
    names = {"mAP": "map", "micro F1": "micro_f1", "macro F1": "macro_f1"}
    given = {
        column: pytest.approx([metrics[name] for metrics in measured])
        for column, name in names.items()
    }
    (untrained,) = collect(tmp_path / ZERO_SHOT)
    ranked = {"mAP": pytest.approx([untrained.metrics["map"]])}
    made = {table.title: values(table) for table in tables_of(tmp_path)}
    assert made == {
        "multi-label": {("scenes", "BinaryProbe", ""): given},
        "multi-label, ranked and not given": {("scenes", ZERO_SHOT, ""): ranked},
    }


def test_of_halves_whole_seeds_count(folder, caplog):
    (folder / "test_new/openmoji/shots_16/CDC/tiny/seed3/results.json").unlink()
    assert values(tables_of(folder)[0])[CDC]["base"] == [80, 70]
    assert "seed(s) 3, of which only a part is done" in caplog.text


@pytest.mark.parametrize("command", [*COMMANDS, main], ids=lambda command: command.__module__)
def test_every_command_says_in_one_line_that_there_is_nothing_for_it(command, tmp_path, error_of):
    message = f"no results.json in or below {tmp_path}: give the folder of a finished run"
    assert message in error_of(command, tmp_path)
    folder = write(tmp_path, "train_base", "CDC", 1, 50.0, "new")
    change_record(folder, format=1, git_commit="ae9b73b4793e")
    assert (
        f"{folder}/results.json is no run record of this version (of commit ae9b73b, whose format "
        f"is 1 and not {FORMAT}): use the version that wrote it, or delete its folder and run it "
        "again"
    ) in error_of(command, tmp_path)
    (folder / "results.json").write_text("{")
    message = f"{folder}/results.json is no run record of this version"
    assert message in error_of(command, tmp_path)
