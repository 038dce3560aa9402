"""The tables of what measures of doubt are worth, by hand."""

import statistics

from analysis.uncertainty import tables
from datasets.drawn.emoji_styles import SEVERITIES
from results.render import render
from tests.results.conftest import values


def made_up(seed, evidence=False):
    """Figures of a run that can be followed by hand."""

    def of(start, scale=1.0):
        tenths = [scale * severity / 10 for severity in SEVERITIES]
        return {
            "error_auroc": start + seed,
            "aurc": start - seed,
            "new_auroc": start,
            "corrupted_auroc": [start + seed + severity for severity in SEVERITIES],
            "mean": {"base": 0.1 * scale, "new": 0.2 * scale, "corrupted": tenths},
        }

    calibrated = {
        "before": {"ece": 10.0 + seed, "adaptive_ece": 11.0, "nll": 1.5, "brier": 0.5},
        "after": {"ece": 5.0, "adaptive_ece": 6.0, "nll": 1.25, "brier": 0.25},
    }
    vacuity = {"vacuity": of(70.0)} if evidence else {}
    return {
        "temperature": 1.0 + seed,
        "accuracy": {"base": 60.0 + seed, "corrupted": [50.0, 40.0, 30.0, 20.0, 10.0]},
        "doubt": {"max_probability": of(80.0), "energy": of(60.0, -100.0), **vacuity},
        "calibration": {"base": calibrated, "new": calibrated},
    }


CDC, COOP = (("dtd", 16, trainer, "tiny") for trainer in ("CDC", "CoOp"))


def test_tables_by_hand():
    runs = {seed: made_up(seed, evidence=True) for seed in (1, 3)}
    made = tables([*((CDC, seed, run) for seed, run in runs.items()), (COOP, 1, made_up(1))])
    apart, means, calibrated = map(values, made)
    names = ("max probability", "energy", "vacuity")
    assert list(apart) == [
        *((*CDC, name) for name in names),
        *((*COOP, name) for name in names[:2]),
    ]
    numbered = [(severity, f"corrupted {severity}") for severity in SEVERITIES]
    assert apart[(*CDC, "vacuity")] == {
        "errors": [71, 73],
        "AURC": [69, 67],
        "new": [70, 70],
        **{name: [71 + n, 73 + n] for n, name in numbered},
    }
    corrupted = {name: [60 - 10 * n] * 2 for n, name in numbered}
    assert means[(*CDC, "accuracy")] == {"base": [61, 63], "new": [0, 0], **corrupted}
    # nats, percent
    assert means[(*COOP, "energy")]["new"] == [-20]
    assert means[(*COOP, "max probability")]["new"] == [20]
    after = calibrated[(*CDC, "base", "after")]
    assert (after["T"], after["ECE"]) == ([2, 4], [5, 5])
    figures = {"ECE": [11, 13], "adaptive ECE": [11, 11], "NLL": [1.5] * 2, "Brier": [0.5] * 2}
    assert calibrated[(*CDC, "new", "before")] == {"T": [1, 1], **figures}
    assert f"72.00 ± {statistics.stdev([71, 73]):.2f}" in render(made[0])


def test_a_figure_that_is_not_defined_leaves_its_seed_out():
    perfect = made_up(1)
    perfect["doubt"]["energy"]["error_auroc"] = None  # no wrong answer to tell from the right ones
    apart = values(tables([(COOP, 1, perfect), (COOP, 2, made_up(2))])[0])
    assert apart[(*COOP, "energy")]["new"] == [60]
    assert apart[(*COOP, "max probability")]["new"] == [80, 80]


def test_several_data_sets_have_an_average():
    sets = {"dtd": 1, "eurosat": 3}
    made = tables([((data, *COOP[1:]), 1, made_up(seed)) for data, seed in sets.items()])
    counts = [list(table.means.index.get_level_values(0)).count("average of 2") for table in made]
    assert counts == [2, 3, 4]
    assert values(made[1])[("average of 2", *COOP[1:], "accuracy")]["base"] == [62]
