"""The table: mean, deviation and H by hand, only complete seeds, every format, and warnings where figures don't belong together."""
import csv
import io
import json
import statistics

import pytest

from results.table import collect, harmonic_mean, main, render

ACCURACY = {("CDC", 1): (80.0, 60.0), ("CDC", 2): (70.0, 70.0), ("CDC", 3): (75.0, 50.0), ("CoOp", 1): (90.0, 30.0)}


def write(root, part, trainer, seed, accuracy, classes, split="abc", **changes):
    folder = root / part / "openmoji" / "shots_16" / trainer / "tiny" / f"seed{seed}"
    folder.mkdir(parents=True)
    record = {"format": 1, "trainer": trainer, "dataset": "OpenMoji", "classes": classes, "shots": 16, "seed": seed,
              "metrics": {"test": {"accuracy": accuracy}}, "split_hash": split, "prompts_hash": "p", "backbone_hash": "b", **changes}
    (folder / "results.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def folder(tmp_path):
    for (trainer, seed), (base, new) in ACCURACY.items():
        write(tmp_path, "train_base", trainer, seed, base, "base", split=f"base{seed}")
        write(tmp_path, "test_new", trainer, seed, new, "new", split=f"new{seed}")
    return tmp_path


def test_figures_by_hand(folder, caplog):
    rows = {row.key[2]: row for row in collect(folder)}
    assert rows["CDC"].figures("base") == [80, 70, 75] and rows["CDC"].seeds == [1, 2, 3]
    assert rows["CDC"].figures("H") == pytest.approx([2 * 80 * 60 / 140, 70, 60])
    assert rows["CoOp"].figures("H") == [45]
    assert not caplog.records


def test_harmonic_mean_of_nothing_is_nothing():
    assert harmonic_mean(0.0, 0.0) == 0 and harmonic_mean(0.0, 50.0) == 0 and harmonic_mean(40.0, 60.0) == 48


def test_text_and_markdown_show_mean_and_sample_deviation(folder, capsys):
    assert main([str(folder)]) == 0
    text = capsys.readouterr().out
    h = [2 * 80 * 60 / 140, 70.0, 60.0]
    assert "75.00 ± 5.00" in text and "60.00 ± 10.00" in text
    assert f"{statistics.mean(h):.2f} ± {statistics.stdev(h):.2f}" in text
    assert "90.00" in text and "90.00 ±" not in text  # one seed has no deviation
    assert main([str(folder), "--format", "markdown"]) == 0
    assert "| data set" in capsys.readouterr().out


def test_csv_and_latex(folder, tmp_path):
    assert main([str(folder), "--format", "csv", "--output", str(tmp_path / "tables" / "t.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "t.csv").read_text())))
    cdc = next(row for row in rows if row["trainer"] == "CDC")
    assert float(cdc["base_mean"]) == 75 and float(cdc["base_std"]) == 5 and cdc["seeds"] == "3"
    assert next(row for row in rows if row["trainer"] == "CoOp")["base_std"] == ""
    assert "\\toprule" in render(collect(folder), "latex")


def test_a_seed_of_which_one_half_is_missing_is_left_out_and_said(folder, caplog):
    (folder / "test_new" / "openmoji" / "shots_16" / "CDC" / "tiny" / "seed3" / "results.json").unlink()
    row = next(row for row in collect(folder) if row.key[2] == "CDC")
    assert row.seeds == [1, 2]
    assert "seed(s) 3, of which only one half is done" in caplog.text


def test_runs_on_different_samples_are_called_incomparable(folder, caplog):
    write(folder, "train_base", "MaPLe", 1, 50.0, "base", split="other")
    write(folder, "test_new", "MaPLe", 1, 50.0, "new", split="new1")
    collect(folder)
    assert "not comparable" in caplog.text and "seed 1" in caplog.text


def test_halves_tested_with_different_prompts_are_called_out(folder, caplog):
    write(folder, "train_base", "MaPLe", 1, 50.0, "base", split="base1", prompts_hash="old")
    write(folder, "test_new", "MaPLe", 1, 50.0, "new", split="new1")
    collect(folder)
    assert "MaPLe tiny, seed 1: base and new classes were tested with different prompts" in caplog.text


def test_a_record_of_the_wrong_classes_is_left_out(folder, caplog):
    write(folder, "test_new", "CDC", 9, 99.0, "base")
    assert all(9 not in row.new for row in collect(folder))
    assert "tests the base classes" in caplog.text


def test_trouble_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: no run record below")
    folder = write(tmp_path, "train_base", "CDC", 1, 50.0, "base", format=99)
    assert main([str(tmp_path)]) == 2
    assert "has the format 99" in capsys.readouterr().err
    (folder / "results.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "is no run record" in capsys.readouterr().err
