"""Every trainer runs every protocol on the embedded data, in the smallest settings: one shot, one
epoch, one seed."""

import time
from itertools import count
from math import isnan
from types import SimpleNamespace

import pytest
from dassl.engine import TRAINER_REGISTRY

import run as protocol_run
from protocols import PROTOCOLS
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import TARGETS, ablation_rows, plan
from results import ablation
from results.runs import collect
from results.table import tables as tables_of
from tests.conftest import METHOD_OF, TRAINERS
from tests.runs import call, make_small_options, prompts_of
from trainers.common.same_run import config_of_run


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_runs_every_protocol(name, drawn_root, in_this_process, tmp_path, capsys):
    learns = METHOD_OF[name].learns
    templates = [f"TRAINER.{name.upper()}.N_TEMPLATES", "2"] if name.startswith("CDC") else []
    for protocol in PROTOCOLS:
        # the last two have tests of their own
        if protocol == "zeroshot" and learns or protocol in ("ablation", "factors"):
            continue
        words = (
            f"--protocol {protocol} --trainer {name} --shots 1 --seeds 1 --root {drawn_root} "
            f"--output {tmp_path} -- OPTIM.MAX_EPOCH 1 OPTIM.WARMUP_EPOCH -1"
        )
        assert call(protocol_run.main, *words.split(), *templates) == 0, capsys.readouterr().err
    tables = {table.title: table for table in tables_of(collect(tmp_path))}
    expected = {
        "base-to-new": {"base", "new", "H"},
        "few-shot, by shots": {1},
        "base and new together": {"base", "new", "AUROC", "OpenworldAUC", "H"},
        "cross-data-set from openmoji": {"source", "average", *TARGETS["xd"]["openmoji"]},
        "domain generalisation from openmoji": {"source", "average", *TARGETS["dg"]["openmoji"]},
    }
    if not learns:
        expected["zero-shot"] = {"all classes"}
    assert {title: set(table.names) for title, table in tables.items()} == expected
    for table in tables.values():
        assert list(table.means.index.unique("trainer")) == [name]
        assert len(table.means) == 1
        assert ((table.by_seed.iloc[0] > 0) & (table.by_seed.iloc[0] < 100)).all()


def row_configs(dataset):
    """Name of a row of CDC's ablation → its flat config; the rows are in their order."""
    trainer, found = TRAINER_REGISTRY.get("CDC"), {}
    jobs = plan("ablation", "CDC", dataset, [16], [1], "output")
    trainings = [job for job in jobs if job.model is None]
    for row, job in zip(ablation_rows("CDC"), trainings, strict=True):
        cfg = build_config(parse_arguments(job.arguments("data")))
        trainer.check_cfg(trainer.__new__(trainer), cfg)
        found[row.name] = config_of_run(cfg, ("OUTPUT_DIR",))
    return found


@pytest.mark.parametrize("dataset", ["openmoji", "imagenet"])
def test_the_ablations_rows_add_one_part_each_or_change_one_setting(dataset):
    configs = row_configs(dataset)

    def changed(one, other):
        return {
            key.removeprefix("TRAINER.CDC.")
            for key in configs[one]
            if configs[one][key] != configs[other][key]
        }

    ladder = "single_template templates views consistency decoupling full".split()
    assert list(configs)[:6] == ladder
    assert [changed(*pair) for pair in zip(ladder, ladder[1:])] == [
        {"N_TEMPLATES", "CTX_INIT"},
        {"AUGMENTATION"},
        {"CONSISTENCY_WEIGHT"},
        {"DECOUPLING_WEIGHT"},
        {"LOSS", "FUSION"},
    ]
    assert all(len(changed(name, "full")) == 1 for name in list(configs)[6:] if name != "text")
    assert "PROMPT_MODALITY" in changed("text", "full")
    assert len({str(config) for config in configs.values()}) == len(configs), "no row twice"


@pytest.fixture
def run_ablation(data_root, small_clip_file, in_this_process, tmp_path, capsys):
    """``run_ablation(words)``: makes rows of CDC's in their smallest settings; what is printed."""

    def run(words):
        words = f"--protocol ablation --trainer CDC --dataset dtd --root {data_root} {words}"
        options = "INPUT.GB_K 5 TRAINER.CDC.PREC fp32 TRAINER.CDC.PROMPT_DEPTH 2".split()
        options += make_small_options(small_clip_file, epochs=2)
        code = call(protocol_run.main, *words.split(), "--output", tmp_path, "--", *options)
        assert code == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_an_ablation_from_training_to_table(run_ablation, tmp_path, capsys):
    printed = run_ablation("--shots 4 --seeds 1 2 --rows text single_template full")
    assert call(ablation.main, tmp_path) == 0
    table = capsys.readouterr().out
    assert printed.endswith(table)
    rows = [line.split()[0] for line in table.partition("\n\n")[0].splitlines()[2:]]
    assert rows == ["single_template", "full", "text"]
    (lines,) = ablation.collect_ablations(tmp_path).values()
    single, full, text = lines.itertuples()
    # prompts and their maps for each template
    assert full.parameters == 4 * single.parameters > text.parameters
    assert isnan(full.difference)
    assert single.lower <= single.difference <= single.upper
    base = tables_of(collect(tmp_path), seed_h=True)[0].means.xs("full", level="config")
    assert base["H"].item() == pytest.approx(full.H_mean)


@pytest.mark.slow
def test_every_reading_trains(run_ablation, tmp_path):
    """In its smallest setting: what is answered and lost is finite, and no row is another's."""
    run_ablation("--shots 1 --seeds 1 --rows readings")
    trained = [run for run in collect(tmp_path) if run.part == "train_base"]
    assert {run.config for run in trained} == {
        row.name for row in ablation_rows("CDC", ["readings"])
    }
    for run in trained:
        (measures,) = run.record["metrics"].values()
        assert measures["nll"] < float("inf"), run.config
    assert len({run.record["prompts_hash"] for run in trained}) == len(trained)


def test_times_are_medians_over_steps_and_test_batches(run, monkeypatch):
    ticks = count()  # a clock that stands still between two looks and goes on by a second with each
    clock = SimpleNamespace(monotonic=time.monotonic, perf_counter=lambda: next(ticks))
    for module in ("engine.fit", "engine.testing"):
        monkeypatch.setattr(f"trainers.{module}.time", clock)
    _, record, folder = run("CDC")
    assert record["seconds_per_step"] == 1
    assert record["test_images_per_second"] == 12  # 24 images in batches of 16 and 8
    _, tested, _ = run("CDC", name="again", flags=prompts_of(folder))
    assert tested["seconds_per_step"] is None
    assert tested["test_images_per_second"] == 12
