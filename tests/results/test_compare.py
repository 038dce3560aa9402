"""Whether a difference is real: intervals, tests and sentences of ``results.compare``. The runs are
made up."""

import itertools
import math
import re

import numpy
import pytest
from pandas import DataFrame, MultiIndex, Series
from scipy import stats

from results import compare, table
from results.comparison import FEWEST_DATA_SETS, POWER, Difference, Ranking, powerless_over
from results.holm import by_holm
from results.published import PUBLISHED, read_published
from tests.conftest import make_method
from tests.results import conftest
from tests.runs import call
from trainers import METHODS

SETS = [f"set{number}" for number in range(7)]


def values_of(table):
    """A table (data sets, seeds) by data set and seed."""
    table = numpy.asarray(table, float)
    places = itertools.product(SETS[: len(table)], range(table.shape[1]))
    return Series(table.ravel(), MultiIndex.from_tuples(places, names=["data set", "seed"]))


def difference_of(table):
    return Difference.between(values_of(table), 0 * values_of(table))


def test_interval_and_tests_are_scipys_of_the_means_of_the_data_sets():
    table = numpy.random.default_rng(1).normal(1, 2, (7, 3))
    found, means = difference_of(table), table.mean(axis=1)
    expected = stats.ttest_1samp(means, 0)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert found.is_real == (expected.pvalue < 0.05)
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(means).pvalue)
    low, high = found.bootstrap
    assert means.min() < low < found.mean < high < means.max()


def test_what_a_seed_adds_to_both_is_no_noise():
    random = numpy.random.default_rng(3)
    effect = random.normal(1, 1, (7, 1))
    second = values_of(random.normal(0, 9, (7, 3)))
    found = Difference.between(second + values_of(numpy.repeat(effect, 3, axis=1)), second)
    assert found.of.to_numpy() == pytest.approx(effect[:, 0])
    assert found.errors.to_numpy() == pytest.approx(0)
    assert found.noise_of_seeds == pytest.approx(0)


def test_without_a_common_seed_the_means_of_a_data_set_are_compared():
    first, second = values_of([[1, 3]] * 6), values_of([[1.5]] * 6)
    second.index = second.index.set_levels([9], level="seed")
    found = Difference.between(first, second)
    assert [*found.of] == [0.5] * 6
    assert found.errors.isna().all()


@pytest.mark.parametrize("effect", [0.15, 0.9, 2.5])
def test_the_number_of_data_sets_that_would_decide_shows_the_difference_four_times_in_five(effect):
    """By the noncentral t distribution."""
    values = numpy.array([-1.0, 1, -1, 1, -1, 1, 0])
    found = difference_of((effect * values.std(ddof=1) + values)[:, None])

    def power(number):
        limit = stats.t.ppf(0.975, number - 1)
        shift = effect * math.sqrt(number)
        return stats.nct.sf(limit, number - 1, shift) + stats.nct.cdf(-limit, number - 1, shift)

    number = found.deciding_data_sets
    assert power(number) >= POWER - 1e-6
    assert number == FEWEST_DATA_SETS or power(number - 1) < POWER
    assert f" {number} such data sets would" in found.verdict("A", "B")


def test_more_seeds_are_advised_as_many_as_give_that_power():
    noisy = numpy.random.default_rng(4).normal(0, 3, (7, 3))
    noisy -= noisy.mean() - 1
    found = difference_of(noisy)
    assert not found.is_real
    of_seeds = min((found.errors**2).mean(), found.of.var())
    left = found.of.var() - of_seeds + of_seeds / found.deciding_seeds
    limit, shift = stats.t.ppf(0.975, 6), found.mean / math.sqrt(left / 7)
    assert stats.nct.sf(limit, 6, shift) == pytest.approx(POWER, abs=1e-3)
    assert "times as many seeds" in found.verdict("A", "B")


@pytest.mark.parametrize("value", [0, 2])
def test_equal_differences_need_no_interval(value):
    found = difference_of([[value]] * 6)
    assert found.interval == (value, value)
    assert found.is_real == (value > 0)
    assert found.deciding_data_sets == (FEWEST_DATA_SETS if value else None)


def test_ranks_are_demsars_with_holms_and_nemenyis_p():
    table = numpy.random.default_rng(5).normal([0, 0.3, 2], 1, (9, 3))
    places = [(trainer, f"set{row}", 0) for row in range(9) for trainer in "abc"]
    names = MultiIndex.from_tuples(places, names=["trainer", "data set", "seed"])
    found = Ranking.of(Series(table.ravel(), names))
    ranks = 1 + (table[:, None, :] > table[:, :, None]).sum(axis=2)  # (9, 3)
    a, b, c = ranks.mean(axis=0)
    assert found.ranks.to_dict() == pytest.approx({"a": a, "b": b, "c": c})
    assert found.ranks.index[0] == "c"
    assert found.friedman == pytest.approx(stats.friedmanchisquare(*table.T).pvalue)
    statistic = (a - c) / math.sqrt(3 * 4 / (6 * 9)) * math.sqrt(2)
    nemenyi = stats.studentized_range.sf(statistic, 3, numpy.inf)
    assert found.nemenyi.loc["a", "c"] == pytest.approx(nemenyi, abs=1e-3)
    alone = [stats.wilcoxon(table[:, one], table[:, 2]).pvalue for one in (0, 1)]
    assert found.wilcoxon.min(axis=None) == pytest.approx(3 * min(alone))


@pytest.mark.filterwarnings("error")
def test_nothing_tells_trainers_apart_that_are_level_everywhere():
    level = Ranking(DataFrame({name: numpy.arange(6.0) for name in "abc"}))
    assert level.friedman == 1
    assert (level.wilcoxon == 1).all(axis=None)
    assert (level.nemenyi == 1).all(axis=None)


def holm(values):
    """Holm's correction, by its definition."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, values[place] * (len(values) - rank)))
        corrected[place] = largest
    return corrected


def test_p_is_corrected_by_holm_over_the_differences_of_the_table():
    random = numpy.random.default_rng(7)
    family = [difference_of(random.normal(mean, 1, (7, 1))) for mean in (0, 0.9, 1, 1.2, 2)]
    assert [each.student for each in family] == pytest.approx(
        [stats.ttest_1samp(each.of, 0).pvalue for each in family]
    )
    expected = holm([each.student for each in family])
    assert by_holm([each.student for each in family]) == pytest.approx(expected)
    assert any(each.is_real and p >= 0.05 for each, p in zip(family, expected))
    for each, p in zip(family, expected):
        text = each.verdict("A", "B", family)
        assert f"Student's t, p {p:.2g} by Holm over 5 differences" in text
        assert text.startswith("The difference is real") == (p < 0.05)
        assert ("Its interval alone leaves out 0" in text) == (each.is_real and p >= 0.05)


@pytest.mark.parametrize(
    "values, sentence",
    [
        ([0.1] * 10 + [60], "Wilcoxon's test shows it (p 0.00098)."),  # above on all, by any size
        ([1.0, 1.1, 0.9, 1.2, 1.3, 0.8, 0.7], ""),
        ([1.0] * 5, ""),  # five can't
    ],
)
def test_a_verdict_says_where_its_tests_disagree(values, sentence):
    of = Series(values, [f"set{place}" for place in range(len(values))])
    text = Difference(of, of * math.nan).verdict("A", "B")
    assert text.endswith(sentence)
    assert ("Wilcoxon" in text) == bool(sentence)


def test_what_wilcoxons_test_says_otherwise_is_corrected_by_holm_too():
    """Of three differences each test alone shows one; uncorrected, Wilcoxon's would show two."""
    random = numpy.random.default_rng(874)
    family = []
    for mean in (0, 0.9, 1.1):
        of = Series(random.normal(mean, 1, 8), [f"set{place}" for place in range(8)])
        family.append(Difference(of, of * math.nan))
    alone = [stats.wilcoxon(each.of).pvalue for each in family]
    assert [p < 0.05 for p in alone] == [False, True, True]
    none, shown, not_shown = (each.verdict("A", "B", family) for each in family)
    p = holm(alone)
    assert "Wilcoxon" not in none
    assert shown.endswith(f"Wilcoxon's test shows it (p {p[1]:.2g} by Holm over 3 differences).")
    assert not_shown.endswith(f"does not show it (p {p[2]:.2g} by Holm over 3 differences).")


def test_a_test_that_can_show_nothing_says_so_and_contradicts_nothing():
    """Of n data sets Wilcoxon's p is at least 2 / 2ⁿ."""
    of = Series(numpy.arange(1.0, 12), [f"set{place}" for place in range(11)])
    difference = Difference(of, of * math.nan)
    least = 2 / 2**11
    assert difference.wilcoxon_floor == difference.wilcoxon == pytest.approx(least)
    for size, can_answer in ((51, True), (52, False)):
        family = [difference] + [Difference(of - 6, of * math.nan)] * (size - 1)
        assert "The difference is real" in difference.verdict("A", "B", family)
        assert "Wilcoxon" not in difference.verdict("A", "B", family)
        said = powerless_over(difference.wilcoxon_floor, 11, size)
        assert (said == "") == can_answer
    assert said == (
        "Wilcoxon's test can show nothing here: its smallest p over 11 data sets is 0.00098, 0.051 by "
        "Holm over 52 differences."
    )
    assert "over 5 data sets is 0.062." in powerless_over(2 / 2**5, 5, 1)


def test_ranks_of_too_many_pairs_leave_wilcoxons_test_out():
    """Of 7 data sets its p is at least 0.016, over ten pairs 0.16."""
    random = numpy.random.default_rng(0)
    table = DataFrame(random.normal(0, 0.1, (7, 5)) + 9 * numpy.arange(5), columns=[*"abcde"])
    found = Ranking(table.rename_axis(columns="trainer"))
    assert (found.nemenyi.loc["a", "e"] < 0.05) and (found.wilcoxon >= 0.05).all(axis=None)
    (said,) = found.disagreements
    assert said.startswith("Wilcoxon's test can show nothing here: its smallest p over 7 data sets")


def test_ranks_say_which_pairs_one_test_alone_tells_apart():
    frame = DataFrame({"a": numpy.arange(12.0)}, [f"set{place}" for place in range(12)])
    frame["b"] = frame["a"] + 1 + numpy.arange(12) / 100  # above on every one: of five ranks one
    for place, name in enumerate("cde"):
        frame[name] = frame["a"] - place - 1 - numpy.arange(12) / 100
    said = Ranking(frame.rename_axis(columns="trainer")).disagreements
    assert any(line.startswith("Wilcoxon's test alone tells apart b and a") for line in said)


# ---- the command ----


def write_pairs(root, trainer, base, new, seeds=(1, 2), sets=SETS, **facts):
    """Runs of base-to-new whose accuracies are a number plus the data set's and the seed's."""
    for place, data in enumerate(sets):
        for seed in seeds:
            noise = place + (seed * 7 + place * 5) % 4
            prompts = f"{trainer}{data}{seed}"
            pair = (base + noise, new + noise)
            conftest.write_pair(root, trainer, seed, *pair, data, prompts_hash=prompts, **facts)


@pytest.fixture
def printed(capsys):
    def start(*words):
        assert call(compare.main, *words) == 0
        return capsys.readouterr().out

    return start


def test_runs_are_compared_in_every_measure(tmp_path, printed):
    write_pairs(tmp_path, "CDC", 60, 50)
    write_pairs(tmp_path, "CoOp", 58, 50)
    text = printed("CDC", "CoOp", "--from", tmp_path)
    assert "CDC minus CoOp, base-to-new" in text
    assert "\n\nH: The difference is real: CDC is above CoOp by " in text
    lines = {
        line.split("|")[1].strip(): line.split("|") for line in text.splitlines() if "|" in line
    }
    assert "+2.00 (+2.00 … +2.00)" in lines["base"][2]
    assert "+2.00, all equal" in lines["base"][4]
    assert "nan" not in text


def test_verdicts_are_of_h_and_corrected_over_the_rows_h(tmp_path, printed):
    """Whatever else is printed: base and new accuracy have intervals and no p."""
    for name, base in (("CDC", 60), ("CoOp", 58), ("KgCoOp", 59)):
        write_pairs(tmp_path, name, base, 50)
    text = printed("CDC", "CoOp", "KgCoOp", "--from", tmp_path)
    assert text.count("by Holm over 2 differences") == 2
    assert not re.search("^(base|new): (The|A) difference", text, re.M)
    (scores,) = compare.read_scores([str(tmp_path)], "accuracy")
    among = compare.differences_of(scores.of(["CDC", "CoOp", "KgCoOp"]))
    p = holm([among["CoOp", "H"].student, among["KgCoOp", "H"].student])
    rows = [line.split("|") for line in text.splitlines() if re.match(r"\| (base|new|H) ", line)]
    assert [row[3].strip() for row in rows[:6]] == ["", "", f"{p[0]:.2g}", "", "", f"{p[1]:.2g}"]
    assert [bool(row[6].strip()) for row in rows[:6]] == [False, False, True] * 2


def test_where_there_is_no_h_all_measures_are_one_family():
    frame = DataFrame({"base": [1.0], "new": [2.0]})
    assert compare.ProtocolScores("", frame).judged == ["base", "new"]
    assert compare.ProtocolScores("", frame.assign(H=1.0)).judged == ["H"]


def test_cells_of_the_table_are_in_their_rows(tmp_path, printed):
    write_pairs(tmp_path, "CDC", 60, 50)
    write_pairs(tmp_path, "CoOp", 58, 50)
    text = printed("CDC", "CoOp", "--from", tmp_path)
    (row,) = (line for line in text.splitlines() if line.startswith("| set3 "))
    assert [cell.strip() for cell in row.split("|")[2:4]] == ["+2.00", "+0.00"]


def test_a_classifier_of_trained_classes_is_compared_on_base_classes_with_its_like_only(
    tmp_path, printed
):
    write_pairs(tmp_path, "CoOp", 58, 50)
    for name, base in (("GDA", 70), ("LinearProbe", 69)):
        write_pairs(tmp_path, name, base, 50, class_parameters=["weight"])
    text = printed("GDA", "CoOp", "LinearProbe", "--from", tmp_path)
    with_other, with_like, *ranks = text.split("\n\n\n")
    assert "GDA † minus CoOp" in with_other
    assert "Left out: base, H. † learns" in with_other
    assert (
        "labelled, by whatever means: base +12.00 (+12.00 … +12.00); H +4.72 (+4.69 … +4.76), p "
        in with_other
    )
    assert with_other.endswith("by Holm over 2 differences.")
    assert "| new " in with_other
    assert "| base " not in with_other
    assert "H: The difference is real: GDA is above LinearProbe by " in with_like
    assert [part.split(",")[0] for part in ranks] == ["new"]


def test_ones_own_runs_are_compared_with_published_rows(tmp_path, printed):
    for data, (base, new, _) in read_published()["base2new"]["CoOp"].items():
        conftest.write_pair(tmp_path, "CoOp", 1, base - 1, new, data)
    text = printed("CoOp", "CoOp (published)", "--from", tmp_path, PUBLISHED)
    assert "H: The difference is real: CoOp is below CoOp (published) by " in text
    assert re.search(r"\| base \| +−1.00 ", text)


def test_a_trainer_may_be_called_with_its_recipe(tmp_path, printed):
    """As a table shows it, though its only recipe is left out in the names."""
    write_sets = [("CDC", 60.0), ("CoOp", 50.0)]
    for place, data in enumerate("abcde"):
        for trainer, value in write_sets:
            conftest.write_pair(tmp_path, trainer, 1, value + place, value, data)
    assert "CDC minus CoOp" in printed("CDC", "CoOp", "--from", tmp_path)
    assert "CDC tiny minus CoOp" in printed("CDC tiny", "CoOp", "--from", tmp_path)


def test_without_runs_the_published_rows_are_compared(printed, tmp_path):
    picture = tmp_path / "ranks.svg"
    text = printed("MaPLe", "CoOp", "PromptSRC", "--figure", picture)
    assert "MaPLe minus CoOp, base-to-new" in text
    assert "over 11 data sets" in text
    assert "PromptSRC" in picture.read_text("utf-8")


def test_fewer_than_five_data_sets_are_refused(tmp_path, error_of):
    write_pairs(tmp_path, "CoOp", 58, 50, sets=SETS[:4])
    write_pairs(tmp_path, "CDC", 60, 50, sets=SETS[:4])
    message = "4 data sets in common say nothing of further ones"
    assert message in error_of(compare.main, "--from", tmp_path)


@pytest.mark.parametrize(
    "words, message",
    [
        ("CoCoOp Maple", "there is no Maple (did you mean MaPLe?); there are: ZeroshotCLIP, CoOp"),
        ("CoOp", "nothing to compare: name two"),
        ("--metric ece", "only accuracies are published: leave out --metric ece"),
        ("--from none.yaml", "is no table of published numbers"),
        ("--from none.csv", "is no table that results.table writes"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(error_of, words, message):
    assert message in error_of(compare.main, *words.split())


@pytest.mark.parametrize("name", METHODS)
def test_marks_are_of_the_trainers_that_have_parts_for_the_trained_classes(name, vit):
    has_part = bool(make_method(name, vit, ["cat", "dog"]).class_part.names)
    assert has_part == (name in read_published()["trained_classes_alone"])


def test_the_csv_of_a_table_is_compared_as_its_runs_are(tmp_path, printed):
    write_pairs(tmp_path / "runs", "CDC", 60, 50, recipe="tiny")
    write_pairs(tmp_path / "runs", "CDC", 59, 52, recipe="views")
    kept = tmp_path / "kept.csv"
    assert call(table.main, tmp_path / "runs", "--format", "csv", "--seed-h", "--output", kept) == 0
    of_runs, of_csv = (
        printed("CDC tiny", "CDC views", "--from", source).splitlines()
        for source in (tmp_path / "runs", kept)
    )
    rows = [line for line in of_runs if line.startswith("| ")]
    assert "| set0 " in "".join(rows)
    assert rows == [line for line in of_csv if line.startswith("| ")]
