"""Whether a difference is real: intervals, tests and sentences of ``results.compare``. The runs are
made up."""

import itertools
import math

import numpy
import pytest
from pandas import MultiIndex, Series
from scipy import stats

from results import compare, table
from results.comparison import LEAST, POWER, Difference, Ranking
from results.published import PUBLISHED, read_published
from tests.conftest import make_method
from tests.results import conftest
from tests.runs import call
from trainers import METHODS
from trainers.common.errors import UserError

SETS = [f"set{number}" for number in range(7)]


def values_of(table, sets=SETS):
    """A table (data sets, seeds) by data set and seed."""
    table = numpy.asarray(table, float)
    names = itertools.product(sets[: len(table)], range(table.shape[1]))
    return Series(table.ravel(), MultiIndex.from_tuples(names, names=["data set", "seed"]))


def difference_of(table):
    return Difference.paired(values_of(table), 0 * values_of(table))


def test_the_interval_holds_the_true_mean_as_often_as_it_says_however_few_the_data_sets():
    """800 draws of five data sets; a percentile bootstrap of five holds it in 84 %."""
    random = numpy.random.default_rng(0)
    held = 0
    for values in random.normal(1, 2, (800, LEAST)):
        low, high = difference_of(values[:, None]).interval
        held += low <= 1 <= high
    assert held / 800 == pytest.approx(0.95, abs=0.02)


def test_interval_and_tests_are_scipys_of_the_means_of_the_data_sets():
    table = numpy.random.default_rng(1).normal(1, 2, (7, 3))
    found = difference_of(table)
    means = table.mean(axis=1)
    expected = stats.ttest_1samp(means, 0)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert found.mean == pytest.approx(means.mean())
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(means).pvalue)
    low, high = found.bootstrap
    assert means.min() < low < found.mean < high < means.max()
    assert found.is_real == (expected.pvalue < 0.05)


def test_turned_round_a_difference_is_its_negative():
    first, second = map(values_of, numpy.random.default_rng(2).normal(0, 1, (2, 7, 3)))
    there, back = Difference.paired(first, second), Difference.paired(second, first)
    assert there.interval == pytest.approx([-end for end in back.interval[::-1]])
    assert there.wilcoxon == back.wilcoxon and there.is_real == back.is_real
    assert there.deciding_data_sets == back.deciding_data_sets


def test_what_a_seed_adds_to_both_is_no_noise():
    random = numpy.random.default_rng(3)
    effect, of_seed = random.normal(1, 1, (7, 1)), random.normal(0, 9, (7, 3))
    second = values_of(random.normal(0, 1, (7, 1)) + of_seed)
    first = second + values_of(effect + 0 * of_seed)
    found = Difference.paired(first, second)
    assert found.of.to_numpy() == pytest.approx(effect[:, 0])
    assert found.errors.to_numpy() == pytest.approx(0) and found.noise_of_seeds == pytest.approx(0)


def test_without_a_common_seed_the_means_of_a_data_set_are_compared():
    first, second = values_of([[1, 3]] * 6), values_of([[1.5]] * 6)
    second.index = second.index.set_levels([9], level="seed")
    found = Difference.paired(first, second)
    assert [*found.of] == [0.5] * 6 and found.errors.isna().all()


@pytest.mark.parametrize("effect", [0.15, 0.4, 0.9, 2.5])
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
    assert number == LEAST or power(number - 1) < POWER
    assert f" {number} such data sets would" in found.verdict("A", "B")


def test_seeds_decide_only_what_seeds_make_unclear():
    random = numpy.random.default_rng(4)
    between, within = random.normal(0, 1, (7, 1)), random.normal(0, 1, (7, 3))
    between -= between.mean()
    within -= within.mean(axis=1, keepdims=True)
    of_sets = difference_of(0.3 + between + 0.01 * within)
    assert not of_sets.is_real and of_sets.deciding_seeds is None
    assert "more seeds on these would not" in of_sets.verdict("A", "B")
    noisy = random.normal(0, 3, (7, 3))
    noisy -= noisy.mean() - 1
    found = difference_of(noisy)
    assert found.deciding_seeds > 1 and not found.is_real
    # with that many the variance is what the power asks for
    of_seeds = (found.errors**2).mean()
    between = max(0, found.of.var() - of_seeds)
    left = between + min(of_seeds, found.of.var()) / found.deciding_seeds
    number = len(found.of)
    shift = found.mean / math.sqrt(left / number)
    limit = stats.t.ppf(0.975, number - 1)
    assert stats.nct.sf(limit, number - 1, shift) == pytest.approx(POWER, abs=1e-3)
    assert "times as many seeds" in found.verdict("A", "B")


@pytest.mark.parametrize("value", [0, 2])
def test_equal_differences_need_no_interval(value):
    found = difference_of([[value]] * 6)
    assert found.interval == (value, value) and found.is_real == (value > 0)
    assert found.deciding_data_sets == (LEAST if value else None)
    assert "more than 1,000" in found.verdict("A", "B") or value


def test_fewer_than_five_data_sets_are_refused():
    difference_of([[1], [2], [3], [4], [5]])
    with pytest.raises(UserError, match="4 data sets in common say nothing of further ones"):
        difference_of([[1], [2], [3], [4]])


def test_ranks_are_demsars_with_holms_and_nemenyis_p():
    table = numpy.random.default_rng(5).normal([0, 0.3, 2, 0.5], 1, (9, 4))
    names = MultiIndex.from_tuples(
        [(trainer, f"set{row}", 0) for row in range(9) for trainer in "abcd"],
        names=["trainer", "data set", "seed"],
    )
    found = Ranking.of(Series(table.ravel(), names))
    ranks = 1 + (table[:, None, :] > table[:, :, None]).sum(axis=2)  # (9, 4)
    means = dict(zip("abcd", ranks.mean(axis=0)))
    assert found.ranks.to_dict() == pytest.approx(means)
    assert found.ranks.index[0] == "c"
    assert found.friedman == pytest.approx(stats.friedmanchisquare(*table.T).pvalue)
    pairs = [*itertools.combinations("abcd", 2)]
    error = math.sqrt(4 * 5 / (6 * 9))
    for first, second in pairs:
        statistic = abs(means[first] - means[second]) / error * math.sqrt(2)
        p = stats.studentized_range.sf(statistic, 4, numpy.inf)
        assert found.nemenyi.loc[first, second] == pytest.approx(p, abs=1e-3)
    plain = {
        (first, second): stats.wilcoxon(*table[:, ["abcd".index(first), "abcd".index(second)]].T)
        for first, second in pairs
    }
    so_far = 0.0
    ordered = sorted(pairs, key=lambda names: plain[names].pvalue)
    for place, (first, second) in enumerate(ordered):
        so_far = max(so_far, min(1.0, (6 - place) * plain[first, second].pvalue))
        assert found.wilcoxon.loc[first, second] == pytest.approx(so_far)


# ---- the command ----


def write_pairs(root, trainer, base, new, seeds=(1, 2, 3), sets=SETS, **facts):
    """Runs of base-to-new whose accuracies are a number plus the seed's."""
    for place, data in enumerate(sets):
        for seed in seeds:
            prompts = {"data": data, "prompts_hash": f"{trainer}{data}{seed}", **facts}
            split = f"{data}{seed}"
            noise = place + (seed * 7 + place * 5) % 4
            conftest.write(
                root, "train_base", trainer, seed, base + noise, "base", split, **prompts
            )
            conftest.write(root, "test_new", trainer, seed, new + noise, "new", split, **prompts)


@pytest.fixture
def printed(capsys):
    def start(*words):
        assert call(compare.main, *words) == 0
        return capsys.readouterr().out

    return start


def test_runs_are_compared_seed_by_seed_in_every_measure(tmp_path, printed):
    write_pairs(tmp_path, "CDC", 60, 50)
    write_pairs(tmp_path, "CoOp", 58, 50)
    text = printed("CDC", "CoOp", "--from", tmp_path)
    assert "CDC minus CoOp, base-to-new" in text and len(text.splitlines()) < 30
    assert "base: The difference is real: CDC is above CoOp by 2.00 (95 % interval +2.00" in text
    assert "new: A difference is not shown: CDC minus CoOp is +0.00" in text
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
    assert "GDA † minus CoOp" in with_other and "Left out: base, H. † learns" in with_other
    assert "| new " in with_other and "| base " not in with_other and "\nH: " not in with_other
    assert "base: The difference is real: GDA is above LinearProbe by 1.00" in with_like
    assert [part.split(",")[0] for part in ranks] == ["new"]
    assert "base: " not in printed("DePTPromptSRC", "PromptSRC").split("cross-data-set")[0]
    assert "base: " in printed("DePTPromptSRC", "GDA")


def test_published_rows_are_compared_as_scipy_does(printed):
    known = read_published()["base2new"]
    first, second = (numpy.array([*known[name].values()]) for name in ("PromptSRC", "MaPLe"))
    text = printed("PromptSRC", "MaPLe")
    for place, name in enumerate(("base", "new", "H")):
        found = stats.ttest_rel(first[:, place], second[:, place])
        low, high = found.confidence_interval()
        ends = f"95 % interval {low:+.2f} … {high:+.2f} over 11 data sets".replace("-", "−")
        verdict = "The difference is real" if found.pvalue < 0.05 else "A difference is not shown"
        (line,) = (line for line in text.splitlines() if line.startswith(f"{name}: "))
        assert verdict in line and ends in line
    assert "over 10 data sets" in text, "cross-data-set"


def test_ones_own_runs_are_compared_with_published_rows(tmp_path, printed):
    for data, (base, new, _) in read_published()["base2new"]["CoOp"].items():
        for part, classes, value in (("train_base", "base", base - 1), ("test_new", "new", new)):
            conftest.write(tmp_path, part, "CoOp", 1, value, classes, data, data)
    text = printed("CoOp", "CoOp (published)", "--from", tmp_path, PUBLISHED)
    assert "CoOp minus CoOp (published), base-to-new" in text
    assert "base: The difference is real: CoOp is below CoOp (published) by 1.00" in text
    assert "new: A difference is not shown" in text and "what more seeds would do is not" in text


def test_a_picture_has_each_trainer(tmp_path, printed):
    picture = tmp_path / "ranks.svg"
    printed("MaPLe", "CoOp", "PromptSRC", "--figure", picture)
    text = picture.read_text("utf-8")
    for name in ("MaPLe", "CoOp", "PromptSRC", "11 data sets", "Matplotlib"):
        assert name in text or name == "11 data sets" and "10 data sets" in text


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path, error_of):
    write_pairs(tmp_path, "CoOp", 58, 50, sets=SETS[:3])
    write_pairs(tmp_path, "CDC", 60, 50, sets=SETS[:3])
    assert "3 data sets in common say nothing" in error_of(compare.main, "--from", tmp_path)
    unknown = error_of(compare.main, "CoCoOp", "Maple")
    assert "there is no Maple (did you mean MaPLe?); there are: ZeroshotCLIP, CoOp" in unknown
    assert "nothing to compare: name two" in error_of(compare.main, "CoOp")
    of_metric = error_of(compare.main, "--metric", "ece")
    assert "only accuracies are published: leave out --metric ece" in of_metric
    (tmp_path / "mine.yaml").write_text("base2new: 3")
    assert "is no table of published numbers" in error_of(
        compare.main, "--from", tmp_path / "mine.yaml"
    )
    assert "is no table of published numbers" in error_of(
        compare.main, "--from", tmp_path / "none.yaml"
    )
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    assert "is no table that results.table writes" in error_of(
        compare.main, "--from", tmp_path / "mine.csv"
    )


@pytest.mark.parametrize("name", METHODS)
def test_marks_are_of_the_trainers_that_have_parts_for_the_trained_classes(name, vit):
    has_part = bool(make_method(name, vit, ["cat", "dog"]).class_part.names)
    assert has_part == (name in read_published()["trained_classes_alone"])


def test_the_csv_of_a_table_is_compared_as_its_runs_are(tmp_path, printed):
    write_pairs(tmp_path / "runs", "CDC", 60, 50, recipe="tiny")
    write_pairs(tmp_path / "runs", "CDC", 59, 52, recipe="views")
    write_pairs(tmp_path / "runs", "GDA", 70, 50, class_parameters=["weight"])
    words = (tmp_path / "runs", "--format", "csv", "--seed-h", "--output", tmp_path / "kept.csv")
    assert call(table.main, *words) == 0
    names = ("CDC tiny", "CDC views", "GDA")
    of_runs, of_csv = (
        printed(*names, "--from", tmp_path / source) for source in ("runs", "kept.csv")
    )
    assert "Left out: base, H" in of_csv
    rows = [line for line in of_runs.splitlines() if line.startswith(("| set", "| new", "| H "))]
    assert rows and all(row in of_csv for row in rows)
