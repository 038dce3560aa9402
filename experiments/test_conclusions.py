"""Sentences of README and the documents that compare say what the kept results say: each is made
again from them."""

import functools
import itertools
import re

import pandas
import pytest
from pandas import DataFrame
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from experiments import comparison, cross_validate, reliabilities, verdicts
from results.compare import kept_scores, published_scores
from results.comparison import Difference
from results.published import PUBLISHED
from tests.runs import REPOSITORY
from trainers.common.config_files import CONFIGS
from trainers.common.readers import read_yaml

DOCS = REPOSITORY / "docs"
DATA = DOCS / "data"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("cross_validation*.yaml"))


def text_of(page):
    """A page's words, with single spaces."""
    return " ".join((REPOSITORY / page).read_text("utf-8").split())


def table_of(page, head):
    """The cells of the table below a line of heads, by the first cell of its rows."""
    lines = (REPOSITORY / page).read_text("utf-8").split(head)[1].splitlines()[2:]
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        first, *others = (cell.strip() for cell in line.strip().strip("|").split("|"))
        rows[first] = others
    return rows


def cells_of(name):
    """The cells of a file of docs/data, by the first cell of its rows."""
    table = pandas.read_csv(DATA / f"{name}.csv", dtype=str, index_col=0)
    return {first: [*row] for first, row in zip(table.index, table.to_numpy())}


def number(value, places=1, plus=True):
    return f"{value:{'+' if plus else ''}.{places}f}".replace("-", "−")


def ends(difference, places=1):
    """The interval: signs where its ends differ in them, or both are negative."""
    low, high = difference.interval
    plus = low <= 0 < high
    return f"{number(low, places, plus)} … {number(high, places, plus)}"


def said(difference):
    """``+0.6 (−0.6 … +1.7)``."""
    return f"{number(difference.mean)} ({ends(difference)})"


def holm(values):
    return multipletests(values, method="holm")[1]


@pytest.fixture(scope="module")
def rows():
    return cross_validate.read_rows(REPOSITORY / "experiments/cross_validation.jsonl")


@pytest.fixture(scope="module")
def settings():
    found = {}
    for experiment in EXPERIMENTS:
        for setting in read_yaml(experiment):
            found.setdefault(setting["name"], setting)
    return list(found.values())


@pytest.fixture(scope="module")
def suite(rows, settings):
    """(first, second, measure) → their ``Difference`` over the suite's tasks."""

    @functools.cache
    def minus(second):
        return comparison.differences(settings, rows, second)

    def difference(first, second, measure="H"):
        return minus(second).loc[first, measure]

    return difference


@pytest.fixture(scope="module")
def put_aside():
    """The difference over the tasks put aside."""
    (scores,) = kept_scores(DATA / "put_aside.csv")
    return scores.difference


def on_last_tasks(put_aside):
    """CDC minus PromptSRC in H over the tasks that are laid out again by put_aside.py."""
    of_all = put_aside("CDC tiny", "PromptSRC", "H")
    names = [*read_yaml(REPOSITORY / "experiments/put_aside.yaml")["tasks"]]
    return Difference(of_all.of[names], of_all.errors[names])


def test_readme_and_the_ablation_say_what_cdc_gains_over_tasks(suite, put_aside):
    to_averaged = put_aside("CDC tiny", "CDC views", "H"), suite("cdc", "averaged")
    to_promptsrc = put_aside("CDC tiny", "PromptSRC", "H"), suite("cdc", "promptsrc")
    averaged_aside, averaged_seen = map(said, to_averaged)
    promptsrc_aside, promptsrc_seen = map(said, to_promptsrc)
    readme = text_of("README.md")
    assert "fifteen tasks that nothing was tuned on" in readme
    above = f"{promptsrc_aside} above PromptSRC's, and {averaged_aside} above the same CLIP"
    assert f"Its H is {above} with four averaged sentences" in readme
    assert "**CDC itself is not shown to be better than simpler methods.**" in readme
    shown = table_of("docs/ablation.md", "were chosen on](#by-cross-validation-over-the-suite) |")
    assert shown == {
        "CDC minus four averaged templates": [averaged_aside, averaged_seen],
        "CDC minus PromptSRC": [promptsrc_aside, promptsrc_seen],
    }
    seen = to_averaged[1]
    page = text_of("docs/ablation.md")
    enough = f"Showing {number(seen.mean)} would take {seen.deciding_data_sets} such tasks."
    assert enough in page


@pytest.fixture(scope="module")
def weakest(rows):
    """The weakest of CDC's templates minus the untrained CLIP, on base classes of the suite."""
    untrained = {
        (row["task"], row["seed"]): row["base"] for row in rows if row["setting"] == "zeroshot"
    }
    gaps = [
        (comparison.task_of(row["task"]), row["worst_base"] - untrained[row["task"], row["seed"]])
        for row in rows
        if row["setting"] == "cdc"
    ]
    of_task = DataFrame(gaps, columns=["task", "gap"]).groupby("task")["gap"]
    return Difference(of_task.mean(), of_task.sem())


def test_the_ablation_says_what_the_suite_says_of_styles_templates_and_steps(suite, weakest):
    page = text_of("docs/ablation.md")
    styles = [
        number(suite("cdc", name, "styles_H"), 1, False) for name in ("averaged", "promptsrc")
    ]
    assert f"CDC is {styles[0]} above averaged templates and {styles[1]} above PromptSRC" in page
    twice = said(suite("lr02steps2", "averaged_steps2"))
    assert (
        f"Trained twice as long, both gain on base classes, and CDC's H minus theirs is {twice}"
        in page
    )
    assert weakest.is_real and (weakest.of + 2 * weakest.errors >= 0).all()
    above = f"{number(weakest.mean, 1, False)} points above the untrained CLIP on base classes"
    assert f"{above} ({ends(weakest)}), in no task below it by more than two" in page


def test_calibration_is_compared_as_trained_and_after_the_same_fit(suite):
    family = {
        (name, measure): suite("cdc", name, measure)
        for name in ("averaged", "promptsrc", "coop")
        for measure in verdicts.CALIBRATION
    }
    judged = verdicts.calibration()
    assert [each.mean for each in judged.values()] == [each.mean for each in family.values()]
    student, wilcoxon = (
        dict(zip(family, multipletests(values, method="holm")[1]))
        for values in (
            [ttest_1samp(each.of, 0).pvalue for each in family.values()],
            [each.wilcoxon for each in family.values()],
        )
    )
    shown = {key for key in family if student[key] < 0.05}
    assert shown == {("promptsrc", "ece_new"), ("coop", "ece_new")}
    by_ranks = {key for key in family if wilcoxon[key] < 0.05} - shown
    assert by_ranks == {(name, "nll_fit_new") for name in ("averaged", "promptsrc", "coop")}
    to_averaged, to_promptsrc, to_coop = (
        f"{number(each.mean)}, {ends(each)}"
        for each in (family[name, "ece_fit_new"] for name in ("averaged", "promptsrc", "coop"))
    )
    trained = family["promptsrc", "ece_new"]
    low, high = (number(-end, 1, False) for end in trained.interval[::-1])
    below = f"CDC's ECE of new classes is {number(-trained.mean, 1, False)} below PromptSRC's"
    page = text_of("docs/ablation.md")
    chances = [student["promptsrc", name] for name in ("ece_new", "ece_fit_new")]
    assert (
        f"as trained {below} ({low} … {high}; p {chances[0]:.3f} by Holm over the table's "
        f"{len(family)} differences)"
    ) in page
    assert (
        f"not shown to be below PromptSRC's ({to_promptsrc}; p {chances[1]:.2f}), averaged templates' "
        f"({to_averaged}) or CoOp's ({to_coop})"
    ) in page
    assert (
        f"against PromptSRC (p {chances[0]:.3f}) and CoOp ({student['coop', 'ece_new']:.3f})"
        in page
    )
    ranks = [wilcoxon[name, "nll_fit_new"] for name in ("averaged", "promptsrc", "coop")]
    assert "(p {:.3f}, {:.3f} and {:.3f})".format(*ranks) in page
    shown = cells_of("calibration")
    names = {"four averaged templates": "averaged", "PromptSRC": "promptsrc", "CoOp": "coop"}
    assert shown == {
        described: [str(family[name, measure]) for measure in verdicts.CALIBRATION]
        for described, name in names.items()
    }


def test_what_labels_the_trained_classes_best_is_said_beside_the_claim(put_aside):
    gained = put_aside("GDA", "CDC tiny", "H")
    low, high = gained.interval
    said_so = f"{number(gained.mean)} ({low:.1f} … {high:.1f}) over the fifteen"
    assert f"minus CDC is H {said_so} tasks" in text_of("docs/ablation.md")
    assert f"GDA minus CDC is H {said_so} tasks" in text_of("docs/choosing.md")
    assert f"minus CDC its H is {said_so}." in text_of("README.md")


def test_the_ablations_table_of_the_suite_is_what_the_command_prints(rows, settings, suite):
    """Whichever settings it has; the cell of a difference is empty where none is to be compared."""
    names = {each.get("description", each["name"]): each["name"] for each in settings}
    means, sizes = comparison.by_task(comparison.frame_of(rows))
    means = means.groupby("setting").mean()
    shown = table_of("docs/ablation.md", "| H minus averaged templates' |")
    assert len(shown) >= 4
    assert "(66 runs a row)" in text_of("docs/ablation.md")
    for description, (*cells, difference) in shown.items():
        name = names[description]
        assert sizes.loc[name, "runs"] == 66, description
        expected = [f"{means.loc[name, measure]:.2f}" for measure in ("train", "base", "new", "H")]
        assert cells == expected, description
        if name != "averaged":
            assert difference == comparison.cell(suite(name, "averaged")), description


def test_the_tables_of_parts_are_what_the_command_prints(rows, settings):
    """All columns in a file, two of them on the page."""
    names = {each["description"]: each["name"] for each in settings}
    compared = comparison.differences(settings, rows, "full")
    shown = cells_of("parts")
    assert len(shown) == 6
    assert "eleven tasks, 66 runs a row" in text_of("docs/ablation.md")
    measures = ["base", "new", "H", "ece_new", "ece_fit_new"]
    for description, cells in shown.items():
        of_part = compared.loc[names[description]]
        assert (of_part.tasks, of_part.runs) == (11, 66), description
        assert cells == [comparison.cell(of_part[measure]) for measure in measures], description
    on_page = table_of("docs/ablation.md", "| minus CDC again | H |")
    assert on_page == {description: [cells[2], cells[4]] for description, cells in shown.items()}
    worse, fitted = compared.loc["independent", ["ece_new", "ece_fit_new"]]
    assert fitted.mean < worse.mean / 2
    chance = {}
    for measure in ("H", "ece_fit_new"):
        of_rows = compared.loc[[names[description] for description in shown], measure]
        alone = [ttest_1samp(difference.of, 0).pvalue for difference in of_rows]
        chance |= dict(zip([(name, measure) for name in of_rows.index], holm(alone)))
    assert {key for key, p in chance.items() if p < 0.05} == {
        ("text", "H"),
        ("no_decoupling", "ece_fit_new"),
        ("independent", "ece_fit_new"),
    }
    assert (
        f"shows text prompts' alone (p {chance['text', 'H']:.3f}), over the six in fitted ECE, a family of "
        f"their own, those without L_de ({chance['no_decoupling', 'ece_fit_new']:.4f}) and with ω = 1 "
        f"({chance['independent', 'ece_fit_new']:.5f}), and not that without views "
        f"({chance['same_view', 'ece_fit_new']:.3f})."
    ) in text_of("docs/ablation.md")
    without = compared.loc["no_decoupling", "ece_fit_new"]
    assert (without.of > 0).all()
    higher = f"{number(without.mean, 1, False)} higher ({ends(without)}), on each of the eleven"
    assert higher in text_of("docs/ablation.md")


@pytest.fixture(scope="module")
def readings(rows):
    """Each reading of the paper minus CDC and minus the untrained CLIP, over the first fold in one
    direction; and plain cosines minus CDC in H over all other runs."""
    names = [setting["name"] for setting in read_yaml(CONFIGS / "ablations/CDC_readings.yaml")]
    compared = (*names, "zeroshot")
    shown, others = [], []
    for row in rows:
        if row["setting"] in compared:
            is_first = row["seed"] == 1 and comparison.task_of(row["task"]) == row["task"]
            (shown if is_first else others).append(row)
    settings = [{"name": name} for name in compared]
    to_untrained = comparison.differences(settings, shown, "zeroshot")["new"]
    elsewhere = comparison.differences(settings, others, "full").loc["plain_cosines"]
    return comparison.differences(settings, shown, "full").loc[names[1:]], to_untrained, elsewhere


def test_the_table_of_readings_is_of_the_first_fold(readings):
    to_cdc, to_untrained, elsewhere = readings
    shown = cells_of("readings")
    assert [*shown] == [*to_cdc.index]
    for name, (tasks, *cells) in shown.items():
        of_reading = to_cdc.loc[name]
        assert int(tasks) == of_reading.tasks == of_reading.runs == 11, "one run of each task"
        found = [of_reading[measure] for measure in ("train", "base", "new", "H")]
        assert cells == [str(each) for each in (*found, to_untrained[name])], name
    alone = {name: ttest_1samp(each.of, 0).pvalue for name, each in to_cdc["H"].items()}
    p = dict(zip(alone, holm([*alone.values()])))
    lost = {name for name in p if p[name] < 0.05}
    assert lost == {"softplus", "relu", "divergence", "text", "literal"}
    assert all(to_cdc["H"][name].mean < 0 for name in lost)
    page = text_of("docs/ablation.md")
    most = max(p[name] for name in lost)
    assert f"shown to lower H, by Holm over the ten (p {most:.3f} at most)" in page
    gained = {name for name, difference in to_cdc["H"].items() if difference.interval[0] > 0}
    assert gained == {"plain_cosines"}
    gain = number(to_cdc["H"]["plain_cosines"].mean)
    assert f"nor is the gain of `plain_cosines` ({gain}, p {p['plain_cosines']:.2f})" in page
    below = {name for name, difference in to_untrained.items() if difference.interval[1] < 0}
    assert below == {"literal"}
    runs = f"in {elsewhere.runs} runs of other folds of {elsewhere.tasks} tasks"
    assert f"{runs} (H {said(elsewhere['H'])} minus CDC)" in text_of("docs/ablation.md")
    assert not elsewhere["H"].is_real


def test_the_log_says_what_a_shrunken_covariance_gains(rows, suite, put_aside):
    """On tasks that are folders: of OpenMoji's GDA keeps its authors' rule."""
    folders = [row for row in rows if comparison.task_of(row["task"]) not in cross_validate.DRAWN]
    settings = [{"name": "gda"}, {"name": "gda_pooled"}]
    gained = comparison.differences(settings, folders, "gda_pooled").loc["gda"]
    assert (gained.tasks, gained.runs) == (9, 54)
    page = text_of("docs/log.md")
    base, new, both = (said(gained[measure]) for measure in ("base", "new", "H"))
    assert f"gains {both} in H, {base} on base classes and {new} on new ones" in page
    of_suite = [said(suite("cdcgda", name)) for name in ("gda", "gda_pooled")]
    aside = said(put_aside("CDCGDA", "GDA", "H"))
    assert (
        f"minus GDA is {of_suite[0]} over the suite, where it was {of_suite[1]}, and {aside}"
        in page
    )


def test_the_log_says_what_gda_has_by_its_authors_rules(rows):
    by_authors = comparison.differences([{"name": "gda"}, {"name": "gda_authors"}], rows, "gda")
    found = by_authors.loc["gda_authors"]
    assert (found.tasks, found.runs) == (11, 39)
    both, base, new = (said(found[measure]) for measure in ("H", "base", "new"))
    text = f"H {both}, base {base} and new {new} over the eleven tasks"
    assert text in text_of("docs/log.md")


def test_what_the_rows_beside_cdc_take_is_corrected_over_the_four():
    page = text_of("docs/log.md")
    table = verdicts.minus("full_fp32", verdicts.SINGLE_CHANGES)
    names = [name.partition(" ")[0] for name in table]
    lost = dict(zip(names, map(said, table.values())))
    alone = [ttest_1samp(each.of, 0).pvalue for each in table.values()]
    p = dict(zip(names, holm(alone)))
    assert len(p) == 4
    assert {name for name in p if p[name] >= 0.05} == {"shared_view"}
    of_base = said(*verdicts.minus("full_fp32", ["text_alone"], "base").values())
    text = f"in the text encoder only**, {lost['text_alone']}, p {p['text_alone']:.4f}, with base {of_base};"
    assert text in page
    assert f"which collapses, {lost['relu_kl10']}, p {p['relu_kl10']:.5f};" in page
    assert f"with it over 50 epochs, {lost['softplus_kl50']}, p {p['softplus_kl50']:.4f}." in page
    assert f"is not shown to change H, {lost['shared_view']}." in page


def test_the_log_says_what_two_readings_and_cdc_gain_over_the_untrained_clip(rows):
    names = ("zeroshot", "full_fp32", "relu_kl10", "softplus_kl50")
    own = [row for row in rows if row["setting"] in names]
    gained = comparison.differences([{"name": name} for name in names], own, "zeroshot")["H"]
    relu, softplus, cdc = (said(gained[name]) for name in names[2:] + ("full_fp32",))
    text = f"Minus the untrained CLIP their H is {relu} and {softplus}, where CDC's is {cdc}"
    assert text in text_of("docs/log.md")


def test_gda_by_its_authors_rules_is_shown_to_have_a_lower_h():
    (difference,) = verdicts.minus("gda", ["gda_authors"]).values()
    p = ttest_1samp(difference.of, 0).pvalue
    assert p < 0.05 and difference.mean < 0
    assert f"of which that in H is shown (p {p:.3f}, the one" in text_of("docs/log.md")


def test_a_reliability_for_each_template_gains_nothing():
    rows = cross_validate.read_rows(REPOSITORY / "experiments/reliabilities.jsonl")
    totals = DataFrame(rows).groupby("setting")["log_likelihood"].sum()
    names = [f"{deviation:g}" for deviation in reliabilities.STRENGTHS]
    compared = comparison.differences([{"name": name} for name in names], rows)
    shown = table_of("docs/log.md", "| τ | log likelihood |")
    assert list(shown) == names[1:]
    for name, (likelihood, *cells) in shown.items():
        assert likelihood == number(totals[name] - totals["0"])
        measures = ("base", "new", "H", "nll_fit_base", "nll_fit_new")
        assert cells == [comparison.cell(compared.loc[name, measure]) for measure in measures]
        for measure in ("H", "nll_fit_new"):
            gained = compared.loc[name, measure]
            assert not (gained.is_real and (gained.mean > 0) == (measure == "H")), measure
    assert totals.idxmax() == "0.5"


def test_the_command_prints_every_family_with_its_size_and_verdicts(capsys):
    assert verdicts.main([]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    assert len(cells) == sum(map(len, verdicts.families().values()))
    shown = {(table.partition(" (")[0], what): verdict for table, what, *_, verdict in cells}
    family = "ablation: one change alone"
    assert shown[family, "text_alone − full_fp32, H"] == "below"
    assert shown[family, "shared_view − full_fp32, H"] == "not shown"
    assert shown["README, ablation: tasks put aside", "CDC − PromptSRC, H"] == "not shown"
    assert shown["README, ablation: tasks put aside", "CDC − GDA, H"] == "below"
    (size,) = {table for table, *_ in cells if table.startswith("benchmark")}
    assert size.endswith("(7)")


# the log's rows of verdicts that changed: their family, and its differences
CHANGED = {
    "prompts in the text encoder only, minus CDC, H": (
        "ablation: one change alone",
        ["text_alone − full_fp32, H"],
    ),
    "softplus and the KL term over 50 epochs, H": (
        "ablation: one change alone",
        ["softplus_kl50 − full_fp32, H"],
    ),
    "GDA by its authors' rules minus ours, H": (
        "log: GDA by its authors' rules",
        ["gda_authors − gda, H"],
    ),
    "CDC minus PromptSRC on the tuned tasks, H": (
        "ablation: the tuned tasks",
        ["cdc − promptsrc, H"],
    ),
    "`softplus`, `relu`, `divergence`, `text`, `literal` minus CDC, H": (
        "ablation: readings",
        [f"{name} − full, H" for name in ("softplus", "relu", "divergence", "text", "literal")],
    ),
    "`LinearProbe` minus `TipAdapter`, 16 pictures": (
        "choosing: 16 pictures per class",
        ["TipAdapter − LinearProbe, accuracy"],
    ),
}


def test_the_log_lists_the_verdicts_that_one_family_changed():
    """What is, is what the command prints; what was, is Holm's correction of the same p."""
    listed = table_of("docs/log.md", "| difference | was | is |")
    families = verdicts.families()
    assert {*CHANGED} == {name for name in listed if listed[name][1] != "interval alone"}
    unjudged = {"text_alone − full_fp32, base", "independent − full, ece_new"}
    assert unjudged.isdisjoint(itertools.chain(*families.values()))
    for name, (table, differences) in CHANGED.items():
        was, now = listed[name]
        family = families[table]
        judged = verdicts.judged(family).loc[differences]
        least = max(judged["holm"], key=float)
        assert least in now
        assert now.endswith("alone)" if len(family) == 1 else f"of {len(family)})")
        sides = {"above": "below", "below": "above"} if name.startswith("`LinearProbe`") else {}
        assert {sides.get(side, side) for side in judged["shown"]} == {now.split()[0]}
        if before := re.fullmatch(r"not shown \((.+) of (\d+)\)", was):
            alone = family[differences[0]].student
            p, size = map(float, before.groups())
            assert max(alone, 0.05) <= p <= min(1, alone * size)


def test_each_occasion_of_the_tasks_put_aside_is_what_its_file_says(put_aside):
    to_averaged, to_promptsrc = (
        put_aside("CDC tiny", other, "H").of for other in ("CDC views", "PromptSRC")
    )
    shown = table_of("docs/ablation.md", "| minus PromptSRC |")
    assert sum(len(tasks.split(", ")) for tasks in shown) == len(to_promptsrc) == 15
    signs = []
    for tasks, (_, averaged, promptsrc) in shown.items():
        names = [name.partition(" (")[0] for name in tasks.split(", ")]
        means = [number(of[names].mean()) for of in (to_averaged, to_promptsrc)]
        assert [averaged, promptsrc] == means
        signs.append(means[1][0])
    assert signs == ["−", "−", "−", "+"]
    last = on_last_tasks(put_aside)
    assert len(last.of) == 6
    text = f"On the last six its {number(last.mean)} has the interval {ends(last)}."
    assert text in text_of("docs/ablation.md")


def test_the_tables_of_published_improvements_are_what_the_command_prints():
    scores = next(iter(published_scores(PUBLISHED)))
    """All columns in a file, those of H on the page."""
    shown = {
        pair: ["" if cell != cell else cell for cell in cells]  # NaN
        for pair, cells in cells_of("published_improvements").items()
    }
    on_page = table_of("docs/benchmark.md", "| new, old | H | data sets |")
    assert on_page == {pair: cells[2:] for pair, cells in shown.items() if cells[2]}
    assert len(shown) == 8
    needed = []
    family = {}
    for pair, cells in shown.items():
        new, old = (name.removesuffix(" †") for name in pair.split(", "))
        assert pair.count("†") == len({new, old} & scores.marked)
        expected = [""] * 4
        for place, measure in enumerate(scores.measures):
            if scores.may_compare((new, old), measure):
                difference = scores.difference(new, old, measure)
                expected[place] = str(difference)
                if measure == "H":
                    family[old, new] = difference
        if expected[2]:
            enough = family[old, new].deciding_data_sets
            expected[3] = str(enough)
            needed += [enough] if old == "PromptSRC" else []
        assert cells == expected, pair
    student, wilcoxon = (
        dict(zip(family, multipletests(values, method="holm")[1]))
        for values in (
            [ttest_1samp(each.of, 0).pvalue for each in family.values()],
            [each.wilcoxon for each in family.values()],
        )
    )
    page = text_of("docs/benchmark.md")
    first, second, third, fourth = (key for key in family if family[key].is_real)
    assert [key for key in family if student[key] < 0.05] == [first]
    assert first == ("CoOp", "CoCoOp")
    told = f"for the table's {len(family)} differences in H: from CoOp to CoCoOp (p {student[first]:.3f})"
    assert told in page
    assert (
        f"from CoCoOp to MaPLe (p {student[second]:.2f}), from MaPLe to PromptSRC "
        f"({student[third]:.2f}), and from GDA † to DePTPromptSRC † ({student[fourth]:.2f})"
    ) in page
    by_ranks = [key for key in family if wilcoxon[key] < 0.05 and key != first]
    assert by_ranks == [("CoCoOp", "MaPLe"), ("PromptSRC", "ProMetaR")]
    floor = len(family) * 2 / 2**11
    for key in by_ranks:
        assert (family[key].of > 0).all() and wilcoxon[key] == pytest.approx(floor)
    assert f"on 11 of 11 data sets, where its p has its floor ({floor:.4f})" in page
    assert f"{min(needed)} to {max(needed)} data sets would be needed" in page


@pytest.fixture(scope="module")
def own_pictures():
    """(pictures per class, first, second) → their ``Difference`` over the sixteen folders."""
    lines = cross_validate.read_rows(REPOSITORY / "experiments/candidates.jsonl")
    means = DataFrame(lines).groupby(["shots", "folder", "trainer"])["accuracy"].mean().unstack()

    def difference(shots, first, second):
        of = means.loc[shots, first] - means.loc[shots, second]
        assert len(of) == 16
        return Difference(of, of * float("nan"))

    difference.means = means
    return difference


def test_what_is_said_of_ones_own_pictures_is_what_the_folders_say(own_pictures):
    difference = own_pictures
    means = own_pictures.means
    page = text_of("docs/choosing.md")
    choice = difference(0, "chosen", "LinearProbe")
    assert not choice.is_real
    shown = f"{number(choice.mean, 1, False)}, {ends(choice)}"
    assert f"not shown to gain over always taking `LinearProbe` (all pictures: {shown})" in page
    four = difference(4, "LinearProbe", "ZeroshotCLIP")
    low, high = four.interval
    accuracies = [f"{means.loc[4, name].mean():.1f}" for name in ("ZeroshotCLIP", "LinearProbe")]
    assert (
        f"zero-shot CLIP has {accuracies[0]} % over the sixteen folders, a linear probe with 4 "
        f"pictures per class {accuracies[1]} % ({four.mean:+.0f}, {low:.0f} … {high:.0f})"
    ) in page
    cache = difference(16, "LinearProbe", "TipAdapter")
    low, high = cache.interval
    text = f"above `TipAdapter`, by {cache.mean:.0f} points (16 pictures: {low:.0f} … {high:.0f})"
    assert f"`LinearProbe` is shown to be {text}, and is not shown to differ from `GDA`" in page
    verdict = verdicts.judged(verdicts.own_pictures(16))["shown"]
    assert [*verdict] == ["below", "not shown", "below", "not shown"]
    few_shot = pandas.read_csv(DATA / "few_shot.csv").set_index("trainer")["16_mean"]
    assert few_shot["LinearProbe"] < few_shot["TipAdapter"]


def test_the_tables_of_which_trainer_to_take_are_those_of_the_benchmark():
    few_shot = pandas.read_csv(DATA / "few_shot.csv").set_index("trainer")
    pairs = pandas.read_csv(DATA / "base_to_new.csv").set_index("trainer")
    ece = pandas.read_csv(DATA / "ece.csv").set_index("trainer")
    steps = pandas.read_csv(DATA / "steps.csv").set_index("trainer")
    page = (DOCS / "choosing.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\|[^|]*\| `(\w+)`[^|]*" + 5 * r"\|([\d .–]*)" + r"\|$", page)
    assert len(rows) >= 7
    for name, *cells in rows:
        step = f"{steps.loc[name, 'ms a step']:.0f}" if name in steps.index else "–"
        errors = (ece["base_mean"][name], ece["new_mean"][name])
        numbers = (few_shot["16_mean"][name], pairs["H_mean"][name], *errors)
        expected = [f"{value + 1e-9:.1f}" for value in numbers] + [step]
        assert [cell.strip() for cell in cells] == expected, name
    shown = table_of("docs/choosing.md", "| pictures per class | 1 | 2 | 4 | 8 | 16 |")
    for name, cells in shown.items():
        row = few_shot.loc[name.removesuffix(" †")]
        assert cells == [f"{row[f'{shots}_mean'] + 1e-9:.1f}" for shots in (1, 2, 4, 8, 16)], name


def test_the_benchmarks_sentences_have_the_numbers_of_their_tables():
    page = text_of("docs/benchmark.md")
    tables = {
        name: pandas.read_csv(DATA / f"{name}.csv").set_index("trainer")
        for name in ("open", "ece", "base_to_new")
    }
    names = {
        "DePT over PromptSRC": "DePTPromptSRC",
        "DePT over KgCoOp": "DePTKgCoOp",
        "zero-shot CLIP": "ZeroshotCLIP",
    }
    for start, end, table, column in (
        ("OpenworldAUC counts it:", ".", "open", "OpenworldAUC_mean"),
        ("on base classes DePT", "have the worst", "ece", "base_mean"),
        ("on new ones VPT", ". ##", "ece", "new_mean"),
        ("In base-to-new CDC", "are level.", "base_to_new", "H_mean"),
    ):
        sentence = re.search(rf"{re.escape(start)}.*?(?={re.escape(end)} )", page).group()
        told = re.findall(
            r"([A-Z][\w-]*(?: over \w+)?|zero-shot CLIP)(?: has)? \(?(?:H )?(\d+\.\d)", sentence
        )
        assert len(told) >= 2, sentence
        for name, value in told:
            known = tables[table].loc[names.get(name, name), column]
            assert abs(known - float(value)) <= 0.0501, (name, value, known)
    ece = tables["ece"]
    assert {*ece["base_mean"].nlargest(2).index} == {"DePTKgCoOp", "CDC"}
    assert {*ece["new_mean"].nlargest(2).index} == {"VPT", "IVLP"}
    assert tables["open"]["OpenworldAUC_mean"].idxmax() == "ProLIP"


def test_how_many_trainers_a_table_has_is_what_it_has():
    counts = {
        name: len({*pandas.read_csv(DATA / f"{name}.csv")["trainer"]})
        for name in ("few_shot", "cross_data_set", "domain_generalisation", "steps")
    }
    page = text_of("docs/benchmark.md")
    assert f"(data/few_shot.csv), {counts['few_shot']} trainers |" in page
    assert counts["cross_data_set"] == counts["domain_generalisation"]
    assert f"(data/domain_generalisation.csv), {counts['cross_data_set']} trainers |" in page
    assert f"[{counts['few_shot']} trainers](data/few_shot.csv)" in text_of("docs/choosing.md")
    assert f"A step of {counts['steps']} of the trainers on" in text_of("docs/performance.md")


def test_the_probability_ranks_mistakes_best_and_energy_tells_unknown_classes_best():
    page = text_of("docs/uncertainty.md")
    apart = pandas.read_csv(DATA / "uncertainty_apart.csv")
    apart["measure"] = apart["measure"].str.removesuffix(", scaled")
    trainers = apart.groupby("trainer")
    assert (
        f"for each of the {['', 'one', 'two', 'three', 'four', 'five', 'six'][len(trainers)]} trainers"
        in page
    )
    for _, of_trainer in trainers:
        for column in ("errors_mean", "corrupted 5_mean"):
            best = of_trainer.loc[of_trainer[column].idxmax(), "measure"]
            assert best == "max probability"
    new = apart.set_index("measure")["new_mean"]
    levels = new[["energy", "vacuity"]], new["max probability"]
    (low, high), (worst, best) = ((of.min(), of.max()) for of in levels)
    assert (
        f"({low:.0f} to {high:.0f} %) than any probability does ({worst:.0f} to {best:.0f} %)"
        in page
    )
    assert low > best


def test_the_encoders_prompts_are_compared_over_the_suite(suite):
    text = f"CLIP `dual` has H {said(suite('cdc', 'text'))} over the [suite]"
    assert text in text_of("docs/method.md")


def test_every_interval_in_a_document_is_of_kept_results(
    rows, settings, put_aside, own_pictures, weakest, readings
):
    """But for the lab book's, which are of their day."""
    to_cdc, to_untrained, elsewhere = readings
    differences = [weakest, elsewhere["H"], on_last_tasks(put_aside), *to_untrained]
    differences += [*to_cdc[["train", "base", "new", "H"]].to_numpy().ravel()]
    for first in (
        "cdc",
        "averaged",
        "promptsrc",
        "coop",
        "zeroshot",
        "averaged_steps2",
        "text",
        "gda",
        "full",
        "full_fp32",
    ):
        of_first = comparison.differences(settings, rows, first)[comparison.COMPARED]
        differences += [cell for cell in of_first.to_numpy().ravel() if hasattr(cell, "interval")]
    trainers = ("CDC tiny", "CDC views", "CDCGDA", "GDA", "PromptSRC", "DePTPromptSRC")
    for first, second in itertools.permutations(trainers, 2):
        differences += [put_aside(first, second, measure) for measure in ("base", "new", "H")]
    candidates = ("ZeroshotCLIP", "GDA", "TipAdapter", "LinearProbe", "chosen")
    for shots, (first, second) in itertools.product(
        (0, 4, 16), itertools.permutations(candidates, 2)
    ):
        differences.append(own_pictures(shots, first, second))
    published = next(iter(published_scores(PUBLISHED)))
    for first, second in itertools.permutations(published.trainers, 2):
        for measure in published.measures:
            differences.append(published.difference(first, second, measure))
    known = set()
    for difference in differences:
        low, high = difference.interval
        for pair in ((low, high), (-high, -low)):  # "below" has the sizes of a negative difference
            for places in (0, 1, 2):
                known.add(tuple(float(f"{end:.{places}f}") for end in pair))
    found = 0
    for page in PAGES:
        if page.stem == "log":
            continue
        text = page.read_text("utf-8").replace("\n", " ")
        for low, high in re.findall(r"([+−]?\d+(?:\.\d+)?) … ([+−]?\d+(?:\.\d+)?)", text):
            interval = tuple(float(end.replace("−", "-")) for end in (low, high))
            assert interval in known, (page.name, low, high)
            found += 1
    assert found > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_is_said_what_plus_minus_is(page):
    """A standard error, or a deviation: in the same paragraph, or in a table's or the one before it."""
    blocks = page.read_text("utf-8").split("\n\n")
    for before, block in zip(["", *blocks], blocks):
        without_ranges = block.replace("within ±2", "")
        if "±" in without_ranges:
            around = before + block if block.startswith("|") else block
            assert "deviation" in around or "standard error" in around, block[:200]
