"""A row is one experiment, a comparison counts data sets, and nothing counts twice: in every table and
from every source. The runs are made up."""

import csv
import io
import re

import pytest
from pandas import read_csv

from results import after_runs, compare, table
from results.experiment import OF_ITS_PLACE
from results.render import STYLES, render
from results.runs import collect, group
from results.table import tables
from tests.results import conftest
from tests.runs import REPOSITORY, call, refuses
from trainers.common.same_run import NO_MATTER

SETTINGS = {
    "INPUT.PIXEL_MEAN": [0.5, 0.5, 0.5],
    "INPUT.SIZE": [32, 32],
    "OPTIM.MAX_EPOCH": 9,
    "DATALOADER.NUM_WORKERS": 9,
    "TEST.FINAL_MODEL": "best_val",
    "DATASET.DESCRIPTIONS_HASH": "another",
    "TRAINER.CDC.PREC": "fp16",
}
FACTS = {
    "commit": {"git_commit": "another"},
    "precision": {"precision": "amp"},
    "device": {"device": "cuda:0", "gpu": {"name": "another", "cudnn": 1}},
    "weights": {"backbone_hash": "another"},
    "test images": {"metrics": {"test": {"accuracy": 50.0, "images": 7}}},
    "classes": {"classnames": ["ant", "bee"]},
}
# nothing of these is a word worth
OTHERS = {
    "OUTPUT_DIR": "elsewhere",
    "DATASET.ROOT": "elsewhere",
    "TRAIN.PRINT_FREQ": 9,
    "MODEL.BACKBONE.NAME": "/elsewhere/tiny.pt",
    "TRAINER.COOP.N_CTX": 9,
}


def with_settings(**changes):
    """The field of a record for a config with other values of some of the settings."""
    same = {"TRAINER.NAME": "CDC", "MODEL.BACKBONE.NAME": "tiny.pt"}
    values = {**dict.fromkeys((*SETTINGS, *OTHERS), 1), **same, **changes}
    config = {}
    for key, value in values.items():
        *nodes, leaf = key.split(".")
        node = config
        for name in nodes:
            node = node.setdefault(name, {})
        node[leaf] = value
    return {"config": config}


CHANGES = {
    **{key: with_settings(**{key: value}) for key, value in SETTINGS.items()},
    **{name: {**with_settings(), **change} for name, change in FACTS.items()},
}
WORDLESS = {
    **{key: with_settings(**{key: value}) for key, value in OTHERS.items()},
    "seconds": {**with_settings(), "seconds": {"train": 9.0}, "seconds_per_step": 9.0},
    "date": {**with_settings(), "finished": "2027-01-01T00:00:00+00:00"},
    "sample": {**with_settings(), "split_hash": "another", "prompts_hash": "another"},
}


def write_base_to_new(root, seed, **changes):
    facts = {"metrics": {"test": {"accuracy": 50.0, "images": 9}}, **changes}
    conftest.write_pair(root, "CDC", seed, 0, 0, **facts)


def write_parts(*parts):
    def start(root, seed, **changes):
        facts = {"metrics": {"test": {"accuracy": 50.0, "images": 9}}, **changes}
        for part, data, shots in parts:
            classes = "base" if part in ("train_biased", *table.FACTOR_PARTS) else "all"
            conftest.write(root, part, "CDC", seed, 0, classes, data=data, shots=shots, **facts)

    return start


PROTOCOLS = {
    "base-to-new": write_base_to_new,
    "few-shot, by shots": write_parts(("train_all", "openmoji", 1), ("train_all", "openmoji", 4)),
    "zero-shot": write_parts(("test_all", "openmoji", -1)),
    "cross-data-set from openmoji": write_parts(
        ("train_source", "openmoji", 16), ("xd_from_openmoji", "people", 16)
    ),
    "a factor that goes with the class": write_parts(
        *((part, "factors_mark", 16) for part in table.FACTOR_PARTS)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_seeds_that_are_not_one_experiment_have_a_row_each(tmp_path, protocol, change):
    for seed in (1, 2):
        PROTOCOLS[protocol](tmp_path, seed, **with_settings())
    PROTOCOLS[protocol](tmp_path, 3, **CHANGES[change])
    (made,) = tables(collect(tmp_path))
    assert {row[-1]: seeds for row, seeds in made.seeds.items()} == {
        "tiny, seeds 1, 2": 2,
        "tiny, seed 3": 1,
    }
    (note,) = made.notes
    assert note.startswith("Not one experiment, ")
    assert "seeds 1, 2 and seed 3 differ in " in note
    assert change in note
    assert note in render(made)


@pytest.mark.parametrize("change", WORDLESS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_changes_no_number_divides_no_row(tmp_path, protocol, change):
    PROTOCOLS[protocol](tmp_path, 1, **with_settings())
    PROTOCOLS[protocol](tmp_path, 2, **WORDLESS[change])
    (made,) = tables(collect(tmp_path))
    assert [*made.seeds] == [2]
    assert [*made.notes] == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_reports_series_and_the_lines_after_runs_are_one_experiment_each(tmp_path, change):
    for seed, facts in ((1, with_settings()), (2, with_settings()), (3, CHANGES[change])):
        PROTOCOLS["zero-shot"](tmp_path, seed, **facts)
    runs = collect(tmp_path)
    names = [(series.name, len(series.runs)) for series in group(runs)]
    assert names == [("CDC tiny, seeds 1, 2", 2), ("CDC tiny, seed 3", 1)]

    class Planned:
        def __init__(self, run):
            self.folder, self.seed, self.part = str(run.folder), run.seed, run.part
            self.dataset, self.trainer, self.name, self.shots = "openmoji", "CDC", "tiny", -1
            self.has_sample = True

    printed = after_runs.accuracies(map(Planned, runs))
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines() if "CDC" in line]
    assert [row[-2] for row in rows] == ["1 2", "3"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("change", [*SETTINGS, "commit", "precision", "device"])
def test_columns_that_differ_have_a_line_below_the_table(tmp_path, caplog, change, style):
    for part, classes, facts in (
        ("train_base", "base", with_settings()),
        ("test_new", "new", CHANGES[change]),
    ):
        conftest.write(tmp_path, part, "CDC", 1, 50.0, classes, f"{part} sample", **facts)
    (made,) = tables(collect(tmp_path))
    text = render(made, style) + caplog.text
    assert "base and new differ in " in text
    assert change in text
    assert "openmoji 16 CDC tiny." in text


def test_halves_and_data_sets_have_images_and_classes_of_their_own(tmp_path):
    for part, classes, images in (("train_base", "base", 9), ("test_new", "new", 8)):
        facts = {"metrics": {"test": {"accuracy": 50.0, "images": images}}}
        facts["classnames"] = [classes] * images
        conftest.write(tmp_path, part, "CDC", 1, 50.0, classes, f"{part} sample", **facts)
    (made,) = tables(collect(tmp_path))
    assert [*made.notes] == []


def test_an_average_over_data_sets_says_what_these_differ_in(tmp_path):
    write_base_to_new(tmp_path, 1, **with_settings())
    write_base_to_new(tmp_path, 1, data="dtd", **with_settings(**{"INPUT.SIZE": [32, 32]}))
    (made,) = tables(collect(tmp_path))
    (note,) = made.notes
    assert "average, 16 CDC tiny" in note
    assert "INPUT.SIZE" in note


@pytest.mark.parametrize(
    "change, text",
    [
        ({"metrics": {"test": {"accuracy": 50.0, "images": 3}}}, "test images 252 → 3"),
        ({"classnames": ["a"] * 5}, "classes 23 → 5"),
        (with_settings(**{"INPUT.SIZE": [32, 32]}), "INPUT.SIZE"),
        (
            with_settings(**{"TEST.FINAL_MODEL": "best_val"}),
            "TEST.FINAL_MODEL 'last_step' → 'best_val'",
        ),
    ],
)
def test_rows_that_are_no_comparison_say_why(tmp_path, change, text):
    usual = {"metrics": {"test": {"accuracy": 50.0, "images": 252}}, "classnames": ["a"] * 23}
    usual |= with_settings(**{"TEST.FINAL_MODEL": "last_step"})
    conftest.write_pair(tmp_path, "CDC", 1, 50.0, 50.0, **usual)
    conftest.write_pair(tmp_path, "CoOp", 1, 50.0, 50.0, **{**usual, **change})
    (made,) = tables(collect(tmp_path))
    (note,) = made.notes
    assert note.startswith("CDC tiny and other rows differ in ")
    assert text in note
    assert note.endswith(": CoOp tiny.")


def test_rows_may_differ_in_the_settings_of_their_trainers(tmp_path):
    for trainer, rate in (("CDC", 0.1), ("CoOp", 0.2)):
        conftest.write_pair(tmp_path, trainer, 1, 50.0, 50.0, **with_settings(**{"OPTIM.LR": rate}))
    (made,) = tables(collect(tmp_path))
    assert [*made.notes] == []


def test_the_document_names_what_may_differ_without_a_word():
    page = (REPOSITORY / "docs/api/results.md").read_text("utf-8")
    for key in (*NO_MATTER, *OF_ITS_PLACE):
        assert f"`{key}`" in page, key


# ---- the unit of a comparison is a data set ----


def write_sets(root, sets, shots=(1, 16), parts="pair"):
    """Runs of two trainers: CDC minus CoOp is the number of shots, in each set."""
    for place, data in enumerate(sets):
        for number in shots:
            for trainer, more in (("CDC", number), ("CoOp", 0)):
                value = 20.0 + place + more
                facts = {"shots": number, "prompts_hash": f"{trainer}{data}{number}"}
                if parts == "pair":
                    conftest.write_pair(root, trainer, 1, value, value, data, **facts)
                else:
                    facts |= {"data": data}
                    conftest.write(root, "xd_from_openmoji", trainer, 1, value, **facts)
    if parts != "pair":
        for number in shots:
            for trainer in ("CDC", "CoOp"):
                facts = {"shots": number, "prompts_hash": f"{trainer}{number}"}
                conftest.write(root, "train_source", trainer, 1, 50.0, **facts)


def source_of(tmp_path, kind, sets):
    """Runs of a protocol, or the table of them as CSV."""
    write_sets(tmp_path / "runs", sets, parts="transfer" if "transfer" in kind else "pair")
    if "csv" not in kind:
        return tmp_path / "runs"
    kept = tmp_path / "kept.csv"
    assert call(table.main, tmp_path / "runs", "--format", "csv", "--output", kept) == 0
    return kept


SOURCES = ["pair", "transfer", "pair, csv", "transfer, csv"]


@pytest.mark.parametrize("kind", SOURCES)
def test_each_number_of_shots_is_a_comparison_of_its_own(tmp_path, capsys, kind):
    source = source_of(tmp_path, kind, [f"set{number}" for number in range(7)])
    assert call(compare.main, "CDC", "CoOp", "--from", source) == 0
    verdicts = [line for line in capsys.readouterr().out.splitlines() if "CDC is above" in line]
    assert len(verdicts) == 2, "of H, or of the one measure"
    for number in (1, 16):
        assert sum(f"CoOp by {number}.00 (" in line for line in verdicts) == len(verdicts) / 2
    assert all("over 7 data sets" in line for line in verdicts)


@pytest.mark.parametrize("kind", SOURCES)
def test_numbers_of_shots_do_not_make_up_for_data_sets(tmp_path, error_of, kind):
    source = source_of(tmp_path, kind, ["set0", "set1", "set2"])
    message = "3 data sets in common say nothing of further ones"
    assert message in error_of(compare.main, "CDC", "CoOp", "--from", source)


@pytest.mark.parametrize("parts", ["pair", "transfer"])
@pytest.mark.parametrize("command", [compare.main, table.main])
def test_a_run_that_is_there_twice_is_refused_with_both_places(tmp_path, error_of, command, parts):
    for place in ("one", "two"):
        write_sets(tmp_path / place, ["set0"], parts=parts)
    words = ("--from", tmp_path) if command is compare.main else (tmp_path,)
    line = error_of(command, *words)
    assert "one run, twice (" in line
    for place in ("one", "two"):
        assert f"{tmp_path}/{place}/" in line


def test_a_line_of_a_table_that_is_there_twice_is_refused_with_both_places(tmp_path, error_of):
    kept = source_of(tmp_path, "pair, csv", ["set0"])
    rows = read_csv(kept)
    rows.iloc[[0, 1, 0]].to_csv(kept, index=False)
    assert f"line 2 of {kept} and line 4 of {kept}" in error_of(compare.main, "--from", kept)


def test_a_trainer_that_two_files_have_is_refused_with_both_places(tmp_path, error_of):
    copy = tmp_path / "copy.yaml"
    copy.write_text(compare.PUBLISHED.read_text("utf-8"), "utf-8")
    line = error_of(compare.main, "--from", compare.PUBLISHED, copy)
    assert f"{compare.PUBLISHED} and {copy}" in line


def test_a_report_leaves_out_the_table_of_runs_that_are_there_twice_and_says_so(tmp_path, caplog):
    from report.tables import protocol_tables

    for place in ("one", "two"):
        write_sets(tmp_path / place, ["set0"])
    assert protocol_tables([tmp_path]) == []
    assert "no accuracies by protocol: one run, twice" in caplog.text
    with refuses("one run, twice"):
        tables(collect(tmp_path))


def test_a_divided_row_is_a_row_of_the_csv(tmp_path, capsys):
    write_base_to_new(tmp_path, 1, **with_settings())
    write_base_to_new(tmp_path, 2, **CHANGES["INPUT.SIZE"])
    assert call(table.main, tmp_path, "--format", "csv") == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [row["config"] for row in rows] == ["tiny, seed 1", "tiny, seed 2"]
