"""Published figures beside one's own: what is compared with what, and what counts as reproduced.
The runs are made up."""

import csv
import io
import json
import re
from collections import Counter
from datetime import date
from functools import cache

import pytest

from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import plan
from results import check
from results.published import PUBLISHED, Comparison, read_published
from results.table import harmonic_mean, main
from tests.results import conftest
from tests.runs import call
from trainers.common.readers import read_yaml

# ---- the figures ----

# H that are the means of the seeds' or the sets' own, and one that is not that of its parts: see the
# file
AVERAGES_WITH_OTHER_H = ("HPT", "GDA", "RPO", "RMAdapter", "CAPT")
OTHER_H = {*((name, "") for name in AVERAGES_WITH_OTHER_H), ("DePTPromptSRC", "ucf101")}


def test_h_is_that_of_base_and_new():
    known = read_published()
    cells = {(method, ""): figures for method, figures in known["base2new_average"].items()}
    for method, sets in known["base2new"].items():
        cells |= {(method, data): figures for data, figures in sets.items()}
    for (method, data), (base, new, h) in cells.items():
        if (method, data) not in OTHER_H:
            near = 0.04 if method.startswith("CoAPT") else 0.011  # CoAPT's are means of seeds' own
            assert harmonic_mean((base, new)) == pytest.approx(h, abs=near), (method, data)


def test_gdas_published_h_is_the_mean_of_the_sets_own():
    """As README says of its column."""
    known = read_published()
    own = [h for _, _, h in known["base2new"]["GDA"].values()]
    assert known["base2new_average"]["GDA"][2] == pytest.approx(sum(own) / 11, abs=0.01)


def test_methods_that_saw_images_of_the_new_classes_are_marked():
    known = read_published()
    marked = {*known["unlabelled_target_images"]}
    assert marked <= {*known["base2new_average"]}
    assert marked >= {name for name in known["base2new_average"] if "PromptKD" in name}


def test_averages_are_those_of_the_eleven_data_sets():
    known = read_published()
    for method, sets in known["base2new"].items():
        means = [sum(figures[index] for figures in sets.values()) / 11 for index in (0, 1)]
        assert known["base2new_average"][method][:2] == pytest.approx(means, abs=0.0101), method


TRANSFER = ["cross_dataset", "domain_generalisation"]


@pytest.mark.parametrize("protocol", TRANSFER)
def test_an_average_of_transfer_is_that_of_the_data_sets_that_were_not_trained_on(protocol):
    for method, figures in read_published()[protocol].items():
        if method != "order":
            targets = figures[1:-1]
            assert sum(targets) / len(targets) == pytest.approx(figures[-1], abs=0.0076), method


# ---- where they were read ----

EVIDENCE = read_yaml(PUBLISHED.with_name("published_evidence.yaml"))
PROTOCOLS = (
    "base2new",
    "base2new_average",
    "cross_dataset",
    "domain_generalisation",
    "calibration",
)


def lines_read():
    """Protocol, method and line of each row that was read, source by source."""
    for source in EVIDENCE:
        for protocol, rows in source["rows"].items():
            for method, line in rows.items():
                yield protocol, method, line


def means_of_columns(numbers, columns):
    parts = [numbers[index::columns] for index in range(columns)]
    return [sum(part) / len(part) for part in parts]


def numbers_of(protocol, line):
    """The row that a line of a source gives, in the order of published.yaml."""
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", line)]
    if protocol == "calibration":
        halves = [re.findall(r"\d+\.\d+", half) for half in line.split(" / ")]
        return [float(half[-1]) if half else None for half in halves]
    if protocol == "base2new" and len(numbers) == 22:  # a log of base and new
        pairs = zip(numbers[::2], numbers[1::2])
        return [value for base, new in pairs for value in (base, new, harmonic_mean((base, new)))]
    if protocol == "base2new_average" and len(numbers) == 22:
        means = means_of_columns(numbers, 2)
        return [*means, harmonic_mean(means)]
    if protocol == "base2new_average":
        return numbers[-4:-1] if "(+" in line else numbers[-3:]
    return numbers


def test_every_published_row_was_read_somewhere_once():
    known = read_published()
    rows = [(protocol, method) for protocol in PROTOCOLS for method in known[protocol]]
    read = Counter((protocol, method) for protocol, method, _ in lines_read())
    assert {*rows} - {(name, "order") for name in TRANSFER} == {*read}
    assert max(read.values()) == 1


@pytest.mark.parametrize("protocol, method, line", list(lines_read()), ids=str)
def test_a_published_row_is_that_of_its_source(protocol, method, line):
    row = read_published()[protocol][method]
    if protocol == "base2new":
        row = [value for numbers in row.values() for value in numbers]
    assert row == pytest.approx(numbers_of(protocol, line), abs=0.00501)


def test_a_source_says_where_what_and_when():
    for source in EVIDENCE:
        if "commit" in source:
            assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", source["at"])
            assert re.fullmatch("[0-9a-f]{7}", source["commit"])
        else:
            assert re.fullmatch(r"https://ojs\.aaai\.org/[\w./]+", source["at"])
            assert re.search(r"20\d\d, page \d+", source["file"])
        assert {*source} | {"commit"} == {"at", "commit", "file", "table", "read", "rows"}
        assert date(2024, 1, 1) < source["read"]


# ---- the verdicts ----


@pytest.mark.parametrize(
    "points, deviation, seeds, expected, why",
    [
        (-1.0, None, 1, "reproduces", "within 1 point"),
        (1.4, 1.2, 3, "differs", "2 deviations of the mean are 1.39 points"),
        (1.4, 1.25, 3, "reproduces", "2 deviations of the mean are 1.44 points"),
        (-10.5, 10.0, 3, "too noisy to say", "2 deviations of the mean are 11.55 points: run 178"),
        (1.2, None, 1, "too noisy to say", "one seed has no deviation: run 3"),
    ],
)
def test_noise_is_never_a_reproduction(points, deviation, seeds, expected, why):
    found = Comparison(("d", 16, "T", "c"), "base", "", 73.2, 73.2 + points, deviation, seeds)
    verdict, reason = check.verdict(found)
    assert verdict == expected
    assert reason.startswith(why)


# ---- runs beside them ----


@cache
def config_of(part, seed):
    """What the recipe makes of the published experiment's config for CoOp on EuroSAT."""
    for run in plan("base2new", "CoOp", "eurosat", [16], [seed], "", "vit_b16"):
        if run.part == part:
            return json.loads(json.dumps(build_config(parse_arguments(run.arguments("")))))


@pytest.fixture
def same_experiment(monkeypatch):
    """The runs were made as the published ones were."""
    monkeypatch.setattr(check, "departures", lambda run, recipe: [])


def write(root, part, trainer, seed, accuracy, classes="all", data="eurosat", **facts):
    """A run of that CLIP; facts: ``made``, function that makes its config, ``changes``, sections of
    it that are others, and fields of the record."""
    config = facts.pop("made", lambda part, seed: {})(part, seed)
    config = {**config, "MODEL": {"BACKBONE": {"NAME": "ViT-B/16"}}, **facts.pop("changes", {})}
    facts = {"recipe": "vit_b16", "config": config, **facts}
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


def test_each_figure_has_a_line_and_one_that_differs_an_exit_code(tmp_path, checked):
    """CoOp on EuroSAT: 92.19 / 54.74 / 68.69."""
    write_pair(tmp_path, "CoOp", (90.0, 90.1, 90.2), (54.0, 55.0, 56.0), made=config_of)
    found = checked(tmp_path, differs=True)
    verdicts = [found["CoOp", "eurosat", column][0] for column in ("base", "new", "H")]
    assert verdicts == ["differs", "reproduces", "reproduces"]
    assert found["CoOp", "eurosat", "base"][1].endswith(
        "base-to-new, CoOp vit_b16, eurosat, base: 90.10 ± 0.10 over 3 seeds, published 92.19 "
        "(-2.09 points; 2 deviations of the mean are 0.12 points)"
    )


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"changes": {"OPTIM": {"LR": 0.1}}}, "OPTIM.LR 0.1 → 0.002"),
        ({"recipe": "vit_b16_text"}, "recipe vit_b16_text → vit_b16"),
    ],
)
def test_another_experiment_on_the_same_data_is_listed_and_not_judged(
    tmp_path, checked, facts, message
):
    write_pair(tmp_path, "CoOp", (50.0,), (54.7,), made=config_of, **facts)
    for verdict, line in checked(tmp_path).values():
        assert verdict == "not the published experiment"
        assert message in line


@pytest.mark.parametrize(
    "facts", [{"changes": {"MODEL": {"BACKBONE": {"NAME": "RN50"}}}}, {"shots": 4}]
)
def test_what_nothing_is_published_of_is_not_compared(facts, tmp_path, error_of):
    write_pair(tmp_path, "CoOp", (92.19,), (54.74,), **facts)
    assert "nothing to compare" in error_of(check.main, tmp_path)


def test_averages_are_compared_over_the_same_data_sets_and_the_same_recipe(
    tmp_path, checked, same_experiment
):
    """84.21, 71.79, 77.51; with ten of the sets nothing is published."""
    sets = list(read_published()["base2new"]["CoOp"])
    for data in sets[:-1]:
        write_pair(tmp_path, "IVLP", (84.15,), (72.07,), data=data)
    for data in sets:
        other = {"data": data, "recipe": "vit_b16_ep20"}
        write_pair(tmp_path / "other", "IVLP", (84.15,), (72.07,), **other)
    found = checked(tmp_path)
    assert {data for _, data, _ in found} == {"average of 11"}
    for verdict, line in found.values():
        assert verdict == "reproduces"
        assert "IVLP vit_b16_ep20" in line


def test_transfer_is_compared_set_by_set_and_the_average_when_all_are_there(
    tmp_path, checked, same_experiment
):
    published = read_published()["cross_dataset"]
    figures = dict(zip(published["order"], published["MaPLe"]))
    *first, last, _ = published["order"]

    def write_test(data, part="xd_from_imagenet", more=0.0):
        write(tmp_path, part, "MaPLe", 1, figures[data] + more, data=data)

    write_test("imagenet", "train_source")
    for data in first[1:]:
        write_test(data, more=5 if data == "dtd" else 0)
    found = {key[2]: verdict for key, (verdict, _) in checked(tmp_path).items()}
    assert found["source"] == found["eurosat"] == "reproduces"
    assert found["dtd"] == "too noisy to say"
    assert "average" not in found
    write_test(last)
    verdict, _ = checked(tmp_path)["MaPLe", "imagenet", "average"]
    assert verdict == "reproduces", "half a point above"


@pytest.mark.parametrize(
    "shifts, expected",
    [((0.5, -0.5, 0.4), "reproduces"), ((-3.0, -2.5, -2.0), "differs"), ((7.0, -6.0, 3.0), "too")],
)
def test_the_mean_over_data_sets_is_judged_by_its_interval(
    tmp_path, checked, same_experiment, shifts, expected
):
    sets = read_published()["base2new"]["CoOp"]
    for place, data in enumerate("stanford_cars fgvc_aircraft sun397 dtd eurosat ucf101".split()):
        base, new, _ = sets[data]
        shift = shifts[place % 3]
        write_pair(tmp_path, "CoOp", (base + shift,), (new + shift,), data=data)
    verdict, line = checked(tmp_path, differs=expected == "differs")["CoOp", "6 data sets", "base"]
    assert verdict.startswith(expected)
    assert "95 % interval" in line


def test_the_table_has_the_published_figure_and_the_difference(tmp_path, capsys):
    write_pair(tmp_path, "CoOp", (90.0, 90.1, 90.2), (40.0, 41.0, 42.0))
    assert call(main, tmp_path, "--published") == 0
    assert "92.19 (-2.09, -20.9 sd)" in capsys.readouterr().out
    assert call(main, tmp_path, "--published", "--format", "csv") == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    names = ("base_published", "base_difference", "base_deviations")
    assert [float(row[name]) for name in names] == [92.19, -2.09, pytest.approx(-20.9)]
