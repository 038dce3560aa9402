"""Published figures beside one's own: what is compared with what, and what counts as reproduced.
The runs are made up."""

import csv
import io
import json
from functools import cache

import pytest

from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import plan
from results import check
from results.published import Comparison, read_published
from results.table import harmonic_mean, main
from tests.conftest import CASES, make_method
from tests.results import conftest
from tests.runs import call


@cache
def config_of(part, trainer, data, config):
    """What the recipe makes of the published experiment's config."""
    protocol = {"train_base": "base2new", "test_new": "base2new", "train_source": "xd"}
    protocol = protocol.get(part, part.split("_")[0])
    source = data if protocol == "base2new" else "imagenet"
    for run in plan(protocol, trainer, source, [16], [1], "", config):
        if (run.part, run.dataset) == (part, data):
            cfg = build_config(parse_arguments(run.arguments("")))
            return json.loads(json.dumps(cfg))


def write(root, part, trainer, seed, accuracy, classes="all", data="eurosat", **facts):
    """A run by the recipe; facts: ``recipe`` and ``shots``, or sections of the config whose keys
    are others."""
    recipe = facts.pop("recipe", "vit_b16")
    made_by = {"MODEL": {}} if data == "openmoji" else config_of(part, trainer, data, recipe)
    config = {**made_by, "SEED": seed, "MODEL": {"BACKBONE": {"NAME": "ViT-B/16"}}}
    for section in [name for name in facts if name.isupper()]:
        config[section] = {**config.get(section, {}), **facts.pop(section)}
    facts |= {"recipe": recipe, "config": config}
    split = f"{part}{data}{seed}"
    conftest.write(root, part, trainer, seed, accuracy, classes, split, data, **facts)


def write_pair(root, trainer, bases, news, **facts):
    for seed, (base, new) in enumerate(zip(bases, news), 1):
        write(root, "train_base", trainer, seed, base, "base", **facts)
        write(root, "test_new", trainer, seed, new, "new", **facts)


@pytest.fixture
def checked(capsys):
    """Runs the command; returns (trainer, data set, column) → (verdict, line)."""

    def start(folder, differs=False):
        assert call(check.main, folder) == differs
        found = {}
        for line in capsys.readouterr().out.splitlines()[:-1]:
            _, trainer, data, column = line.split(": ")[0].split(", ")
            verdict = next(name for name in check.VERDICTS if line.startswith(name))
            found[trainer.split()[0], data, column] = verdict, line
        return found

    return start


# H that are the means of the seeds' or the sets' own, and one that is not that of its parts: see the
# file
OTHER_H = {("HPT", ""), ("GDA", ""), ("DePTPromptSRC", "ucf101")}


def test_the_figures_agree_with_each_other():
    known = read_published()
    averages = known["base2new_average"]
    cells = {(method, ""): figures for method, figures in averages.items()}
    for method, sets in known["base2new"].items():
        cells |= {(method, data): figures for data, figures in sets.items()}
        means = [sum(figures[index] for figures in sets.values()) / 11 for index in (0, 1)]
        assert averages[method][:2] == pytest.approx(means, abs=0.0101), method
    for (method, data), figures in cells.items():
        of_seeds = method.startswith("CoAPT")
        if (method, data) not in OTHER_H:
            near = 0.04 if of_seeds else 0.011
            assert harmonic_mean(figures[:2]) == pytest.approx(figures[2], abs=near), (method, data)
    own = [figures[2] for figures in known["base2new"]["GDA"].values()]
    assert sum(own) / 11 == pytest.approx(averages["GDA"][2], abs=0.01)


@pytest.mark.parametrize("protocol", ["cross_dataset", "domain_generalisation"])
def test_an_average_of_transfer_is_that_of_the_data_sets_that_were_not_trained_on(protocol):
    for method, figures in read_published()[protocol].items():
        if method != "order":
            targets = figures[1:-1]
            assert sum(targets) / len(targets) == pytest.approx(figures[-1], abs=0.0076), method


def test_prolips_figures_are_those_with_the_data_sets_own_prompts_as_its_recipe_has_them(vit):
    """Its README has others with "a photo of a {}." for all data sets: 83.90, 74.78, 79.08."""
    prolip = make_method("ProLIP", vit, ["cat", "dog"], "OxfordPets")
    assert prolip.hand_crafted_templates() == ["a photo of a {}, a type of pet."]
    assert read_published()["base2new_average"]["ProLIP"] == [84.01, 73.86, 78.61]


@pytest.mark.parametrize("points, deviation, seeds, expected, why", CASES["noise"])
def test_noise_is_never_a_reproduction(points, deviation, seeds, expected, why):
    found = Comparison(("d", 16, "T", "c"), "base", "", 73.2, 73.2 + points, deviation, seeds)
    verdict, reason = check.verdict(found)
    assert verdict == expected and reason.startswith(why)


def test_each_figure_has_a_line_and_one_that_differs_an_exit_code(tmp_path, checked):
    """MaPLe on EuroSAT: 94.07 / 73.23 / 82.35; CoOp: 92.19 / 54.74 / 68.69."""
    write_pair(tmp_path, "MaPLe", (93.0, 93.3, 93.3), (62.0, 71.0, 80.0))
    write_pair(tmp_path, "CoOp", (90.0, 90.1, 90.2), (54.0, 55.0, 56.0))
    found = checked(tmp_path, differs=True)
    columns, noisy = ("base", "new", "H"), "too noisy to say"
    for trainer, verdicts in (
        ("MaPLe", ["reproduces", noisy, noisy]),
        ("CoOp", ["differs", "reproduces", "reproduces"]),
    ):
        assert [found[trainer, "eurosat", column][0] for column in columns] == verdicts
    assert found["CoOp", "eurosat", "base"][1].endswith(
        "base-to-new, CoOp vit_b16, eurosat, base: 90.10 ± 0.10 over 3 seeds, published 92.19 "
        "(-2.09 points; 2 deviations of the mean are 0.12 points)"
    )


@pytest.mark.parametrize("facts, message", CASES["other experiments"])
def test_another_experiment_on_the_same_data_is_listed_and_not_judged(
    tmp_path, checked, monkeypatch, facts, message
):
    if "recipe" in facts:
        made_by = config_of("train_base", "CoOp", "eurosat", "vit_b16")
        monkeypatch.setitem(globals(), "config_of", lambda *_: made_by)
    write_pair(tmp_path, "CoOp", (50.0,), (54.7,), **facts)
    for verdict, line in checked(tmp_path).values():
        assert verdict == "not the published experiment" and message in line


@pytest.mark.parametrize(
    "facts", [{"MODEL": {"BACKBONE": {"NAME": "RN50"}}}, {"shots": 4}, {"data": "openmoji"}]
)
def test_what_nothing_is_published_of_is_not_compared(facts, tmp_path, error_of):
    write_pair(tmp_path, "CoOp", (92.19,), (54.74,), **facts)
    assert "nothing to compare" in error_of(check.main, tmp_path)


def test_averages_are_compared_over_the_same_data_sets_and_the_same_recipe(tmp_path, checked):
    """84.21, 71.79, 77.51; with openmoji in place of one set nothing is published."""
    sets = list(read_published()["base2new"]["CoOp"])
    for data in [*sets[:-1], "openmoji"]:
        write_pair(tmp_path, "IVLP", (84.15,), (72.07,), data=data)
    for data in sets:
        write_pair(tmp_path / "other", "IVLP", (84.15,), (72.07,), data=data, recipe="vit_b16_ep20")
    found = checked(tmp_path)
    assert {column for *_, column in found} == {"base", "new", "H"}
    for verdict, line in found.values():
        assert verdict == "reproduces" and "IVLP vit_b16_ep20, average of 11" in line


def test_transfer_is_compared_set_by_set_and_the_average_when_all_are_there(tmp_path, checked):
    published = read_published()["cross_dataset"]
    figures = dict(zip(published["order"], published["MaPLe"]))

    def write_test(part, data, accuracy):
        write(tmp_path, part, "MaPLe", 1, accuracy, data=data, recipe="vit_b16_xd")

    write_test("train_source", "imagenet", figures["imagenet"])
    for data in published["order"][1:-2]:
        write_test("xd_from_imagenet", data, figures[data] + (5 if data == "dtd" else 0))
    write_test("dg_from_imagenet", "imagenetv2", 64.07)
    found = {key[2]: verdict for key, (verdict, _) in checked(tmp_path).items()}
    assert found["source"] == found["eurosat"] == found["imagenetv2"] == "reproduces"
    assert found["dtd"] == "too noisy to say" and "average" not in found
    write_test("xd_from_imagenet", "ucf101", figures["ucf101"])
    verdict, _ = checked(tmp_path)["MaPLe", "imagenet", "average"]
    assert verdict == "reproduces", "half a point above"


@pytest.mark.parametrize(
    "shifts, expected",
    [((0.5, -0.5, 0.4), "reproduces"), ((-3.0, -2.5, -2.0), "differs"), ((7.0, -6.0, 3.0), "too")],
)
def test_the_mean_over_data_sets_is_judged_by_its_interval(tmp_path, checked, shifts, expected):
    sets = read_published()["base2new"]["CoOp"]
    for place, data in enumerate("stanford_cars fgvc_aircraft sun397 dtd eurosat ucf101".split()):
        base, new, _ = sets[data]
        shift = shifts[place % 3]
        write_pair(tmp_path, "CoOp", (base + shift,), (new + shift,), data=data)
    found = checked(tmp_path, differs=expected == "differs")
    for column in ("base", "new"):
        verdict, line = found["CoOp", "6 data sets", column]
        assert verdict.startswith(expected) and "95 % interval" in line


def test_the_table_has_the_published_figure_and_the_difference(tmp_path, capsys):
    write_pair(tmp_path, "CoOp", (90.0, 90.1, 90.2), (40.0, 41.0, 42.0))
    assert call(main, tmp_path, "--published") == 0
    assert "92.19 (-2.09, -20.9 sd)" in capsys.readouterr().out
    assert call(main, tmp_path, "--published", "--format", "csv") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    names = ("base_published", "base_difference", "base_deviations")
    assert [float(row[name]) for name in names] == [92.19, -2.09, pytest.approx(-20.9)]
