"""Published figures beside one's own: what is compared with what, and what counts as reproduced. The runs are made up."""

import csv
import io
import json

import pytest

from results import check
from results.published import read_published
from results.table import harmonic_mean, main


def write(
    root,
    part,
    trainer,
    seed,
    accuracy,
    classes="all",
    data="eurosat",
    shots=16,
    config="vit_b16",
    backbone="ViT-B/16",
):
    folder = root / part / data / f"shots_{shots}" / trainer / config / f"seed{seed}"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(
        json.dumps(
            {
                "format": 1,
                "trainer": trainer,
                "dataset": data,
                "classes": classes,
                "shots": shots,
                "seed": seed,
                "split_hash": f"{part}{data}{seed}",
                "metrics": {"test": {"accuracy": accuracy}},
                "prompts_hash": "p",
                "backbone_hash": "b",
                "config": {"MODEL": {"BACKBONE": {"NAME": backbone}}},
            }
        )
    )


def write_pair(root, trainer, bases, news, **facts):
    for seed, (base, new) in enumerate(zip(bases, news), 1):
        write(root, "train_base", trainer, seed, base, "base", **facts)
        write(root, "test_new", trainer, seed, new, "new", **facts)


def checked(folder, capsys):
    """(trainer, data set, column) → reproduces."""
    assert check.main([str(folder)]) == 0
    lines = [
        line.split(", ") for line in capsys.readouterr().out.splitlines() if ", published" in line
    ]
    return {
        (words[1].split()[0], words[2], words[3].split(":")[0]): words[0].startswith("reproduces ")
        for words in lines
    }


def test_the_figures_agree_with_each_other():
    known = read_published()
    averages = {
        name: figures for name, figures in known["base2new_average"].items() if name != "HPT"
    }  # see the file
    for figures in [
        *(pair for method in known["base2new"].values() for pair in method.values()),
        *averages.values(),
    ]:
        assert harmonic_mean(figures[:2]) == pytest.approx(figures[2], abs=0.011)
    for method, sets in known["base2new"].items():
        means = [sum(pair[index] for pair in sets.values()) / 11 for index in (0, 1)]
        assert known["base2new_average"][method][:2] == pytest.approx(means, abs=0.0101)


def test_within_two_deviations_or_one_point_is_reproduced(tmp_path, capsys):
    """MaPLe on EuroSAT: 94.07 / 73.23 / 82.35; CoOp: 92.19 / 54.74 / 68.69."""
    write_pair(
        tmp_path, "MaPLe", (93.0, 93.3, 93.3), (66.0, 71.0, 76.0)
    )  # base 0.87 points off; new 2.23 points, 0.45 deviations
    write_pair(
        tmp_path, "CoOp", (90.0, 90.1, 90.2), (40.0, 41.0, 42.0)
    )  # base 2.09 points and 21 deviations off
    assert checked(tmp_path, capsys) == {
        ("MaPLe", "eurosat", "base"): True,
        ("MaPLe", "eurosat", "new"): True,
        ("MaPLe", "eurosat", "H"): True,
        ("CoOp", "eurosat", "base"): False,
        ("CoOp", "eurosat", "new"): False,
        ("CoOp", "eurosat", "H"): False,
    }
    check.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert (
        "DIFFERS     base-to-new, CoOp vit_b16, eurosat, base: 90.10 ± 0.10 over 3 seeds, published 92.19 (-2.09 points, -20.9 deviations)"
        in printed
    )
    assert "3 of 6 figures reproduce" in printed


def test_one_seed_has_a_point_and_no_deviation(tmp_path, capsys):
    write_pair(tmp_path, "CoOp", (93.1,), (56.0,))
    found = checked(tmp_path, capsys)
    assert found["CoOp", "eurosat", "base"] and not found["CoOp", "eurosat", "new"]


@pytest.mark.parametrize("facts", [{"backbone": "RN50"}, {"shots": 4}, {"data": "openmoji"}])
def test_another_experiment_is_not_compared(facts, tmp_path, capsys):
    write_pair(tmp_path, "CoOp", (92.19,), (54.74,), **facts)
    assert check.main([str(tmp_path)]) == 2
    assert "nothing to compare" in capsys.readouterr().err


def test_averages_are_compared_over_the_same_data_sets_and_the_same_recipe(tmp_path, capsys):
    sets = list(read_published()["base2new"]["CoOp"])
    for data in sets[:-1]:
        write_pair(tmp_path, "IVLP", (82.15,), (74.07,), data=data)
        write_pair(tmp_path, "IVLP", (82.15,), (74.07,), data=data, config="vit_b16_ep20")
    write_pair(tmp_path, "IVLP", (82.15,), (74.07,), data="openmoji")
    assert check.main([str(tmp_path)]) == 2, "11 data sets, but not the eleven"
    for config in ("vit_b16", "vit_b16_ep20"):
        write_pair(tmp_path, "IVLP", (82.15,), (74.07,), data=sets[-1], config=config)
    write_pair(tmp_path / "other", "IVLP", (82.15,), (74.07,), data=sets[0])
    capsys.readouterr()
    assert check.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines if "vit_b16_ep20" in line] == [
        "DIFFERS",
        "DIFFERS",
        "reproduces",
    ], "84.21, 71.79, 77.51"
    assert not [line for line in lines if "vit_b16," in line], "with openmoji they are twelve"


def test_transfer_is_compared_set_by_set_and_the_average_when_all_are_there(tmp_path, capsys):
    order = read_published()["cross_dataset"]["order"]
    figures = dict(zip(order, read_published()["cross_dataset"]["MaPLe"]))
    facts = {"config": "vit_b16_xd"}
    write(tmp_path, "train_source", "MaPLe", 1, figures["imagenet"], data="imagenet", **facts)
    for data in order[1:-2]:
        write(
            tmp_path,
            "xd_from_imagenet",
            "MaPLe",
            1,
            figures[data] + (5 if data == "dtd" else 0),
            data=data,
            **facts,
        )
    write(tmp_path, "dg_from_imagenet", "MaPLe", 1, 64.07, data="imagenetv2", **facts)
    found = checked(tmp_path, capsys)
    assert (
        found["MaPLe", "imagenet", "source"]
        and found["MaPLe", "imagenet", "eurosat"]
        and not found["MaPLe", "imagenet", "dtd"]
    )
    assert (
        found["MaPLe", "imagenet", "imagenetv2"] and ("MaPLe", "imagenet", "average") not in found
    )
    write(tmp_path, "xd_from_imagenet", "MaPLe", 1, figures["ucf101"], data="ucf101", **facts)
    assert checked(tmp_path, capsys)["MaPLe", "imagenet", "average"], "half a point above"


def test_the_table_has_the_published_figure_and_the_difference(tmp_path, capsys):
    write_pair(tmp_path, "CoOp", (90.0, 90.1, 90.2), (40.0, 41.0, 42.0))
    assert main([str(tmp_path), "--published"]) == 0
    assert "92.19 (-2.09, -20.9 sd)" in capsys.readouterr().out
    assert main([str(tmp_path), "--published", "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (
        float(row["base_published"]),
        float(row["base_difference"]),
        float(row["base_deviations"]),
    ) == (92.19, -2.09, pytest.approx(-20.9))
    capsys.readouterr()
    assert main([str(tmp_path), "--published", "--metric", "accuracy_of_nothing"]) == 2
