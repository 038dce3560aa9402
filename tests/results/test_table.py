"""The tables: mean, deviation, H and averages by hand, only complete seeds, every format, and warnings where figures don't belong together."""

import csv
import io
import json
import statistics

import pytest

from results.render import render
from results.table import collect, harmonic_mean, main

ACCURACY = {
    ("CDC", 1): (80.0, 60.0),
    ("CDC", 2): (70.0, 70.0),
    ("CDC", 3): (75.0, 50.0),
    ("CoOp", 1): (90.0, 30.0),
}


def write(
    root,
    part,
    trainer,
    seed,
    accuracy,
    classes="all",
    split="abc",
    data="openmoji",
    shots=16,
    **changes,
):
    folder = root / part / data / f"shots_{shots}" / trainer / "tiny" / f"seed{seed}"
    folder.mkdir(parents=True)
    record = {
        "format": 1,
        "trainer": trainer,
        "dataset": data,
        "classes": classes,
        "shots": shots,
        "seed": seed,
        "metrics": {"test": {"accuracy": accuracy}},
        "split_hash": split,
        "prompts_hash": "p",
        "backbone_hash": "b",
        "config": {"MODEL": {"BACKBONE": {"NAME": "tiny"}}},
        **changes,
    }
    (folder / "results.json").write_text(json.dumps(record))
    return folder


def write_pair(root, trainer, seed, base, new, data="openmoji", **changes):
    write(root, "train_base", trainer, seed, base, "base", f"{data} base{seed}", data, **changes)
    write(root, "test_new", trainer, seed, new, "new", f"{data} new{seed}", data, **changes)


@pytest.fixture
def folder(tmp_path):
    for (trainer, seed), (base, new) in ACCURACY.items():
        write_pair(tmp_path, trainer, seed, base, new)
    return tmp_path


def figures(folder, number=0, by_seed=False):
    """(data set, trainer) → column → values."""
    table = collect(folder)[number]
    return {(row.key[0], row.key[2]): table.figures(row, by_seed) for row in table.rows}


def test_figures_by_hand(folder, caplog):
    found = figures(folder)
    assert found["openmoji", "CDC"]["base"] == [80, 70, 75] and found["openmoji", "CDC"]["new"] == [
        60,
        70,
        50,
    ]
    assert found["openmoji", "CDC"]["H"] == pytest.approx([2 * 75 * 60 / 135]), (
        "of the means over seeds, as papers print it"
    )
    assert figures(folder, by_seed=True)["openmoji", "CDC"]["H"] == pytest.approx(
        [2 * 80 * 60 / 140, 70, 60]
    )
    assert found["openmoji", "CoOp"]["H"] == [45]
    assert not caplog.records


def test_harmonic_mean_of_nothing_is_nothing():
    assert (
        harmonic_mean((0.0, 0.0)) == 0
        and harmonic_mean((0.0, 50.0)) == 0
        and harmonic_mean((40.0, 60.0)) == 48
    )


def test_the_average_over_data_sets_is_made_as_papers_make_it(folder):
    for seed, (base, new) in {1: (60.0, 40.0), 2: (50.0, 50.0)}.items():
        write_pair(folder, "CDC", seed, base, new, data="dtd")
    found = figures(folder)
    average = found["average of 2", "CDC"]
    assert average["base"] == [70, 60] and average["new"] == [
        50,
        60,
    ]  # of seeds 1 and 2, which both have
    assert average["H"] == pytest.approx(
        [2 * 65 * 55 / 120]
    )  # of the averages' means, not the average of H
    assert ("average of 2", "CoOp") not in found and ("average of 1", "CoOp") not in found
    assert collect(folder)[0].rows[-1].key[0] == "average of 2"


def write_open(root, trainer, seed, base, new, **apart):
    """A run of ``test_open`` of which AUROC and OpenworldAUC are given by measure of doubt."""
    found = {
        "base_accuracy": base,
        "new_accuracy": new,
        "auroc": {name: pair[0] for name, pair in apart.items()},
        "openworld_auc": {name: pair[1] for name, pair in apart.items()},
    }
    write(
        root,
        "test_open",
        trainer,
        seed,
        (base + new) / 2,
        metrics={"test": {"accuracy": (base + new) / 2, "open": found}},
        split=f"open {seed}",
        prompts_hash=f"{trainer} {seed}",
    )


def test_base_and_new_together_have_the_h_of_both_and_a_row_for_each_measure_of_doubt(
    tmp_path, caplog
):
    write_open(tmp_path, "CDC", 1, 60.0, 30.0, new_probability=(70.0, 20.0), vacuity=(55.0, 15.0))
    write_open(tmp_path, "CDC", 2, 50.0, 50.0, new_probability=(72.0, 24.0), vacuity=(57.0, 17.0))
    write_open(tmp_path, "CoOp", 1, 90.0, 0.0, new_probability=(50.0, 0.0))
    together, apart = collect(tmp_path)
    cdc, coop = (
        next(row for row in together.rows if row.key[2] == trainer) for trainer in ("CDC", "CoOp")
    )
    assert together.figures(cdc) == {
        "base": [60, 50],
        "new": [30, 50],
        "AUROC": [70, 72],
        "OpenworldAUC": [20, 24],
        "H": [pytest.approx(2 * 55 * 40 / 95)],
    }
    assert together.figures(coop)["H"] == [0]
    assert {row.key[2:]: table_row for row in apart.rows for table_row in [apart.figures(row)]} == {
        ("CDC", "tiny", "new probability"): {"AUROC": [70, 72], "OpenworldAUC": [20, 24]},
        ("CDC", "tiny", "vacuity"): {"AUROC": [55, 57], "OpenworldAUC": [15, 17]},
        ("CoOp", "tiny", "new probability"): {"AUROC": [50], "OpenworldAUC": [0]},
    }
    assert "doubt" in render(apart).splitlines()[0] and not caplog.records
    assert collect(tmp_path, "open.auroc.vacuity")[0].figures(
        cdc_of(collect(tmp_path, "open.auroc.vacuity")[0])
    ) == {"all classes": [55, 57]}


def test_trainings_that_only_base_and_new_together_has_tested_are_not_half_done(tmp_path, caplog):
    write(tmp_path, "train_base", "CDC", 1, 60.0, "base", "base")
    write_open(tmp_path, "CDC", 1, 60.0, 30.0, new_probability=(70.0, 20.0))
    assert [len(table.rows) for table in collect(tmp_path)] == [0, 1, 1] and not caplog.records
    write(tmp_path, "train_base", "CoOp", 1, 60.0, "base", "base")
    collect(tmp_path)
    assert "left out: openmoji 16 CoOp tiny seed(s) 1, of which only a part is done" in caplog.text


def cdc_of(table):
    return next(row for row in table.rows if row.key[2] == "CDC")


def test_few_shot_has_a_column_for_each_number_of_shots(tmp_path, caplog):
    for shots, accuracies in {1: (30.0, 34.0), 16: (60.0, 62.0), 4: (50.0, 51.0)}.items():
        for seed, accuracy in enumerate(accuracies, 1):
            write(
                tmp_path,
                "train_all",
                "CDC",
                seed,
                accuracy,
                shots=shots,
                prompts_hash=f"p{shots}{seed}",
                split=f"{shots} {seed}",
            )
    assert figures(tmp_path) == {("openmoji", "CDC"): {1: [30, 34], 4: [50, 51], 16: [60, 62]}}
    text = render(collect(tmp_path)[0])
    assert (
        text.split("\n")[0].split() == ["data", "set", "trainer", "config", "seeds", "1", "4", "16"]
        and "32.00 ± 2.83" in text
    )
    assert not caplog.records


def test_transfer_has_the_source_each_target_and_the_average_of_the_targets(tmp_path, caplog):
    for seed in (1, 2):
        write(
            tmp_path,
            "train_source",
            "CDC",
            seed,
            70.0 + seed,
            data="imagenet",
            split=f"source {seed}",
        )
        for protocol, targets in (
            ("xd", {"dtd": 40.0, "eurosat": 50.0}),
            ("dg", {"imagenet_a": 30.0}),
        ):
            for data, accuracy in targets.items():
                write(
                    tmp_path,
                    f"{protocol}_from_imagenet",
                    "CDC",
                    seed,
                    accuracy + seed,
                    data=data,
                    split=data,
                )
    dg, xd = collect(tmp_path)
    assert (dg.title, xd.title) == (
        "domain generalisation from imagenet",
        "cross-data-set from imagenet",
    )
    assert xd.figures(xd.rows[0]) == {
        "source": [71, 72],
        "dtd": [41, 42],
        "eurosat": [51, 52],
        "average": [46, 47],
    }
    assert dg.figures(dg.rows[0]) == {
        "source": [71, 72],
        "imagenet_a": [31, 32],
        "average": [31, 32],
    }
    assert not caplog.records
    write(
        tmp_path, "xd_from_imagenet", "CoOp", 1, 10.0, data="dtd", split="dtd"
    )  # its training is not there
    assert [row.key[2] for row in collect(tmp_path)[1].rows] == ["CDC"]


def test_text_and_markdown_show_mean_and_sample_deviation(folder, capsys):
    assert main([str(folder)]) == 0
    text = capsys.readouterr().out
    h = [2 * 80 * 60 / 140, 70.0, 60.0]
    assert "75.00 ± 5.00" in text and "60.00 ± 10.00" in text
    by_seed = f"{statistics.mean(h):.2f} ± {statistics.stdev(h):.2f}"
    assert " 66.67\n" in text and by_seed not in text
    assert main([str(folder), "--seed-h"]) == 0
    assert by_seed in capsys.readouterr().out
    assert "90.00" in text and "90.00 ±" not in text  # one seed has no deviation
    assert main([str(folder), "--format", "markdown"]) == 0
    assert "| data set" in capsys.readouterr().out


def test_csv_and_latex(folder, tmp_path):
    assert (
        main([str(folder), "--format", "csv", "--output", str(tmp_path / "tables" / "t.csv")]) == 0
    )
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "t.csv").read_text())))
    cdc = next(row for row in rows if row["trainer"] == "CDC")
    assert float(cdc["base_mean"]) == 75 and float(cdc["base_std"]) == 5 and cdc["seeds"] == "3"
    assert next(row for row in rows if row["trainer"] == "CoOp")["base_std"] == ""
    assert "\\toprule" in render(collect(folder)[0], "latex")


def test_another_metric_has_no_harmonic_mean_unless_papers_print_one(tmp_path, caplog, capsys):
    for trainer, doubt in (("CDC", {"vacuity": {"aurc": 12.5, "error_auroc": None}}), ("CoOp", {})):
        write_pair(tmp_path, trainer, 1, 80.0, 60.0)
        for path in tmp_path.glob(f"*/openmoji/shots_16/{trainer}/tiny/seed1/results.json"):
            record = json.loads(path.read_text())
            record["metrics"]["test"].update(ece=5.0, macro_f1=50.0, uncertainty=doubt)
            path.write_text(json.dumps(record))
    (table,) = collect(tmp_path, "ece")
    assert (
        table.title == "base-to-new, ece"
        and [table.figures(row) for row in table.rows] == [{"base": [5], "new": [5]}] * 2
    )
    assert collect(tmp_path, "macro_f1")[0].figures(collect(tmp_path, "macro_f1")[0].rows[0])[
        "H"
    ] == [50]
    assert not caplog.records
    (table,) = collect(tmp_path, "uncertainty.vacuity.aurc")
    assert [(row.key[2], table.figures(row)) for row in table.rows] == [
        ("CDC", {"base": [12.5], "new": [12.5]})
    ]
    assert "left out: 2 run(s) that have no uncertainty.vacuity.aurc" in caplog.text
    assert main([str(tmp_path), "--metric", "uncertainty.vacuity.error_auroc"]) == 2
    assert (
        "has the metric 'uncertainty.vacuity.error_auroc'; it is a key of their results.json"
        in capsys.readouterr().err
    )


def test_html_is_escaped(tmp_path):
    write_pair(tmp_path, "<CDC>&", 1, 80.0, 60.0)
    html = render(collect(tmp_path)[0], "html")
    assert (
        "&lt;CDC&gt;&amp;" in html
        and "<CDC>" not in html
        and html.startswith("<table>")
        and ">68.57<" in html.replace(" ", "")
    )


def test_a_seed_of_which_one_half_is_missing_is_left_out_and_said(folder, caplog):
    (
        folder / "test_new" / "openmoji" / "shots_16" / "CDC" / "tiny" / "seed3" / "results.json"
    ).unlink()
    assert figures(folder)["openmoji", "CDC"]["base"] == [80, 70]
    assert "seed(s) 3, of which only a part is done" in caplog.text


def test_runs_on_different_samples_are_called_incomparable(folder, caplog):
    write(folder, "train_base", "MaPLe", 1, 50.0, "base", split="other")
    write(folder, "test_new", "MaPLe", 1, 50.0, "new", split="openmoji new1")
    collect(folder)
    assert "not comparable" in caplog.text and "seed 1" in caplog.text


def test_parts_tested_with_different_prompts_are_called_out(folder, caplog):
    write(
        folder, "train_base", "MaPLe", 1, 50.0, "base", split="openmoji base1", prompts_hash="old"
    )
    write(folder, "test_new", "MaPLe", 1, 50.0, "new", split="openmoji new1")
    collect(folder)
    assert "MaPLe tiny, seed 1: its parts were tested with different prompts" in caplog.text


def test_a_backbone_that_changed_between_runs_is_called_out(folder, caplog):
    write_pair(folder, "MaPLe", 1, 50.0, 50.0, backbone_hash="other")
    collect(folder)
    assert "the backbone tiny had 2 different weights in these runs" in caplog.text


def test_a_record_of_the_wrong_classes_is_left_out(folder, caplog):
    write(folder, "test_new", "CDC", 9, 99.0, "base")
    assert len(figures(folder)["openmoji", "CDC"]["new"]) == 3
    assert "tests the base classes" in caplog.text


def test_trouble_is_one_line(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main([str(folder)]) == 2
        assert capsys.readouterr().err.startswith(
            "error: no run record in a protocol's folder below"
        )
    folder = write(tmp_path, "train_base", "CDC", 1, 50.0, "base", format=99)
    assert main([str(tmp_path)]) == 2
    assert "has the format 99" in capsys.readouterr().err
    (folder / "results.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "is no run record" in capsys.readouterr().err
