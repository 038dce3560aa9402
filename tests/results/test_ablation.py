"""The ablation's table: the bootstrap against a loop and a closed form, the figures by hand,
refusals."""

import statistics

import numpy
import pytest
from scipy.stats import binom

from results.ablation import bootstrap, chance, collect_ablations, ends, main, resampled_h
from results.table import harmonic_mean
from tests.results.conftest import write
from tests.runs import call, write_answers


def rights(generator, seeds, base, new):
    """Made-up (S, N_base) and (S, N_new), whether answers are right."""
    return generator.random((seeds, base)) < 0.6, generator.random((seeds, new)) < 0.6


# ---- the bootstrap ----


def test_resampling_is_the_loop_over_drawn_seeds_and_images():
    generator = numpy.random.default_rng(0)
    sizes = (3, 4, 2)  # so few that some accuracies, and so some H, are 0
    base, new = rights(generator, *sizes)
    drawn = [generator.integers(0, size, (50, size)) for size in sizes]
    expected = []
    for seeds, base_images, new_images in zip(*drawn):
        of_seeds = [
            harmonic_mean(
                (100 * base[seed, base_images].mean(), 100 * new[seed, new_images].mean())
            )
            for seed in seeds
        ]
        expected.append(statistics.mean(of_seeds))
    counts = [
        numpy.apply_along_axis(numpy.bincount, 1, places, minlength=size)
        for places, size in zip(drawn, sizes)
    ]
    numpy.testing.assert_allclose(resampled_h((base, new), *counts), expected, rtol=1e-12)
    assert 0 in expected


def test_images_alone_give_the_quantiles_of_the_binomial_distribution(monkeypatch):
    monkeypatch.setattr("results.ablation.BOOTSTRAP_DRAWS", 50000)
    base, new = numpy.arange(40)[None] < 25, numpy.ones((1, 3), dtype=bool)
    found = ends(bootstrap((base, new), (base & False, new)))
    accuracies = [100 * binom.ppf(quantile, 40, 25 / 40) / 40 for quantile in (0.025, 0.975)]
    assert found == pytest.approx([harmonic_mean((accuracy, 100.0)) for accuracy in accuracies])


def test_p_is_twice_the_share_on_the_rarer_side():
    drawn = numpy.linspace(-1, 9, 100_000)
    assert chance(drawn) == pytest.approx(0.2, abs=1e-3)
    assert chance(-drawn) == pytest.approx(0.2, abs=1e-3)
    assert chance(numpy.zeros(9)) == 1
    assert chance(numpy.ones(1999)) == pytest.approx(2 / 2000)


# ---- the table ----


def answers(seed):
    """Whether a run with that seed answers each of 50 base and 40 new images rightly."""
    base, new = rights(numpy.random.default_rng(seed), 1, 50, 40)
    return base[0], new[0]


def write_row(root, name, seeds=(1, 2), offset=0, trainer="CDC", **changes):
    """The runs of a row, which answer at random."""
    record = {"parameters": {"learnable": 1000, "total": 10**6}, "seconds_per_step": 0.02}
    for seed in seeds:
        base, new = answers(seed + offset)
        for part, classes, right in (("train_base", "base", base), ("test_new", "new", new)):
            own = {"prompts_hash": f"{name} {seed}", "test_images_per_second": 90.0 + seed}
            facts = (trainer, seed, 100 * right.mean(), classes, f"{part} {seed}")
            folder = write(root, part, *facts, recipe=name, **{**record, **own, **changes})
            label = numpy.arange(len(right)) % 5
            arrays = {
                "image": [f"{classes}/{index}.png" for index in range(len(right))],
                "label": label,
                "top": (label + ~right)[:, None],
                "top_probability": numpy.ones((len(right), 1)),
                "max_probability": numpy.zeros(len(right)),
            }
            write_answers(folder, "test", arrays)


@pytest.fixture
def folder(tmp_path):
    write_row(tmp_path, "full")
    write_row(tmp_path, "templates_1", offset=10, seconds_per_step=0.01)
    write_row(tmp_path, "single_template", seeds=(1, 2, 3))  # for full's seeds the same answers
    return tmp_path


def lines_of(folder):
    """row → its line, without what is NaN."""
    (lines,) = collect_ablations(folder).values()
    lines = lines.set_index("row")
    return {name: line.dropna().to_dict() for name, line in lines.iterrows()}


def test_figures_by_hand(folder):
    lines = lines_of(folder)
    assert list(lines) == ["single_template", "full", "templates_1"], "in the file's order"
    found = lines["templates_1"]
    pairs = [answers(seed) for seed in (11, 12, 1, 2)]
    base = [100 * pair[0].mean() for pair in pairs]
    new = [100 * pair[1].mean() for pair in pairs]
    h = list(map(harmonic_mean, zip(base, new)))
    difference = statistics.mean(h[:2]) - statistics.mean(h[2:])
    expected = {
        "seeds": 2,
        "base_mean": statistics.mean(base[:2]),
        "base_std": statistics.stdev(base[:2]),
        "H_mean": statistics.mean(h[:2]),
        "H_std": statistics.stdev(h[:2]),
        "difference": difference,
        "parameters": 1000,
        "seconds_per_step": 0.01,
        "images_per_second": 91.5,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["lower"] < difference < found["upper"]
    assert "difference" not in lines["full"]
    assert 0 < found["p"] <= 1
    same = lines["single_template"]
    assert same["p"] == 1
    assert (same["difference"], same["lower"], same["upper"]) == (0, 0, 0)


def test_without_a_seed_that_full_has_and_without_times_the_cells_are_empty(tmp_path):
    write_row(tmp_path, "views", seeds=(1,), seconds_per_step=None, test_images_per_second=None)
    write_row(tmp_path, "full", seeds=(2,))
    missing = {"difference", "seconds_per_step", "images_per_second", "H_std"}
    assert not missing & lines_of(tmp_path)["views"].keys()


def test_the_table_has_the_figures_of_known_rows_and_names_others(folder, capsys, caplog):
    row = lines_of(folder)["templates_1"]
    write_row(folder, "tiny")
    assert call(main, folder) == 0
    text = capsys.readouterr().out
    assert "{difference:+.2f}".format(**row) in text
    assert "{lower:+.2f} … {upper:+.2f}".format(**row) in text
    assert text.split("\n")[2].split()[-3:] == ["1,000", "20.0", "92"]
    assert "left out: tiny is not a row of CDC's ablation" in caplog.text


def test_ps_are_corrected_over_the_tables_differences_and_the_test_is_named(tmp_path, capsys):
    for place, name in enumerate(("full", "templates_1", "single_template", "views")):
        write_row(tmp_path / "four", name, offset=10 * place)
        if name in ("full", "templates_1"):
            write_row(tmp_path / "two", name, offset=10 * place)
    alone = lines_of(tmp_path / "two")["templates_1"]["p"]
    among = [line["p"] for line in lines_of(tmp_path / "four").values() if "p" in line]
    assert len(among) == 3
    assert min(1, alone) <= lines_of(tmp_path / "four")["templates_1"]["p"] <= min(1, 3 * alone)
    assert max(among) > alone
    assert call(main, tmp_path / "four") == 0
    text = capsys.readouterr().out
    assert "p, Holm" in text
    assert "bootstrap over seeds and test images; p by Holm" in text


def test_seeds_of_two_experiments_are_compared_with_the_full_ones_of_theirs(tmp_path, caplog):
    for name in ("full", "views"):
        write_row(tmp_path, name, seeds=(1, 2))
        write_row(tmp_path, name, seeds=(3,), git_commit="another")
    lines = lines_of(tmp_path)
    names = {f"{row}, {of}" for row in ("full", "views") for of in ("seeds 1, 2", "seed 3")}
    assert {*lines} == names
    for of in ("seeds 1, 2", "seed 3"):
        assert lines[f"views, {of}"]["difference"] == 0
    assert "seeds 1, 2 and seed 3 differ in commit unknown → another" in caplog.text


def test_a_trainer_without_an_ablation_is_named(tmp_path, error_of):
    write_row(tmp_path, "full", trainer="CoOp")
    assert "error: CoOp has no ablation" in error_of(main, tmp_path)


@pytest.mark.parametrize("part", ["train_base", "test_new"])
def test_rows_on_other_images_are_refused(folder, error_of, part):
    (path,) = folder.glob(f"{part}/**/templates_1/seed2/predictions-test.npz")
    arrays = dict(numpy.load(path))
    write_answers(path.parent, "test", {**arrays, "image": arrays["image"][::-1]})
    message = "templates_1 and full, or their seeds, were tested on different images"
    assert message in error_of(main, folder)


def test_each_number_of_shots_has_a_table_of_its_own(folder):
    write_row(folder, "full", seeds=(1,), shots=4)
    titles = ["CDC on openmoji, 4 shots", "CDC on openmoji, 16 shots"]
    assert list(collect_ablations(folder)) == titles
