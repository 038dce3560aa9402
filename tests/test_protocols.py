"""Every trainer runs every protocol on the embedded data, in the smallest settings: one shot, one epoch, one seed."""

import json
import time
from itertools import count
from types import SimpleNamespace

import pytest
from dassl.engine import TRAINER_REGISTRY

import run as protocol_run
from analysis import ablation
from datasets.drawn.openmoji import DrawnDataset
from protocols import launch
from protocols import training as train
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import PROTOCOLS, TARGETS, ablation_rows, plan
from results.runs import collect
from results.table import tables as tables_of
from tests.conftest import ALWAYS, in_turn
from trainers.engine.checkpoint import config_of_run
from trainers.trainer import MethodTrainer

TRAINERS = [
    name
    for name in TRAINER_REGISTRY.registered_names()
    if issubclass(TRAINER_REGISTRY.get(name), MethodTrainer)
]


@pytest.fixture
def in_this_process(monkeypatch):
    """Starting Python anew takes longer than these runs."""
    monkeypatch.setattr(
        launch,
        "start",
        lambda job, args: train.run(parse_arguments(job.arguments(args.root, args.opts))),
    )


@pytest.fixture
def few_tested(monkeypatch):
    """Drawn data sets have every fourth of their test images."""
    build = DrawnDataset.__init__

    def with_few(self, cfg):
        build(self, cfg)
        self.test = self.test[::4]

    monkeypatch.setattr(DrawnDataset, "__init__", with_few)


@pytest.mark.slow
@pytest.mark.parametrize("name", in_turn(TRAINERS, always=("CDC", "ZeroshotCLIP", ALWAYS[-1])))
def test_every_trainer_runs_every_protocol(
    name, drawn_root, in_this_process, few_tested, tmp_path, capsys
):
    learns = TRAINER_REGISTRY.get(name).method.learns
    templates = [f"TRAINER.{name.upper()}.N_TEMPLATES", "2"] if name.startswith("CDC") else []
    for protocol in PROTOCOLS:
        if (
            protocol == "zeroshot" and learns or protocol in ("ablation", "factors")
        ):  # which have tests of their own
            continue
        code = protocol_run.main(
            [
                "--protocol",
                protocol,
                "--trainer",
                name,
                "--shots",
                "1",
                "--seeds",
                "1",
                "--root",
                str(drawn_root),
                "--output",
                str(tmp_path),
                "--",
                "OPTIM.MAX_EPOCH",
                "1",
                "OPTIM.WARMUP_EPOCH",
                "-1",
                "DATALOADER.TEST.BATCH_SIZE",
                "500",
                *templates,
            ]
        )
        assert code == 0, capsys.readouterr().err
    tables = {table.title: table for table in tables_of(collect(tmp_path))}
    expected = {
        "base-to-new": {"base", "new", "H"},
        "few-shot, by shots": {1},
        "base and new together": {"base", "new", "AUROC", "OpenworldAUC", "H"},
        "base and new together, told apart by doubt": {"AUROC", "OpenworldAUC"},
        "cross-data-set from openmoji": {"source", "average", *TARGETS["xd"]["openmoji"]},
        "domain generalisation from openmoji": {"source", "average", *TARGETS["dg"]["openmoji"]},
    }
    if not learns:
        expected["zero-shot"] = {"all classes"}
    assert {title: set(table.names) for title, table in tables.items()} == expected
    for table in tables.values():
        assert list(table.means.index.unique("trainer")) == [name]
        assert len(table.means) == 1 or table.heads[-1] == "doubt"
        assert ((table.by_seed.iloc[0] > 0) & (table.by_seed.iloc[0] < 100)).all()
    records = [
        json.loads(path.read_text()) for path in (tmp_path / "train_source").rglob("results.json")
    ]
    assert [record["metrics"]["test"]["images"] for record in records] == [126]


def row_configs(dataset):
    """Name of a row of CDC's ablation → its flat config; the rows are in their order."""
    jobs = [
        job for job in plan("ablation", "CDC", dataset, [16], [1], "output") if job.model is None
    ]
    configs = [build_config(parse_arguments(job.arguments("data"))) for job in jobs]
    for cfg in configs:
        trainer = TRAINER_REGISTRY.get("CDC")
        trainer.check_cfg(trainer.__new__(trainer), cfg)
    return {
        row.name: config_of_run(cfg, ("OUTPUT_DIR",))
        for row, cfg in zip(ablation_rows("CDC"), configs, strict=True)
    }


@pytest.mark.parametrize("dataset", ["openmoji", "imagenet"])
def test_the_ablations_rows_add_one_part_each_or_change_one_setting(dataset):
    configs = row_configs(dataset)

    def changed(one, other):
        return {
            key.removeprefix("TRAINER.CDC.")
            for key in configs[one]
            if configs[one][key] != configs[other][key]
        }

    ladder = [
        "single_template",
        "templates",
        "views",
        "phrases",
        "consistency",
        "decoupling",
        "full",
    ]
    assert list(configs)[:7] == ladder
    assert [changed(*pair) for pair in zip(ladder, ladder[1:])] == [
        {"N_TEMPLATES", "CTX_INIT"},
        {"AUGMENTATION"},
        {"CTX_INIT"},
        {"CONSISTENCY_WEIGHT"},
        {"DECOUPLING_WEIGHT"},
        {"LOSS", "FUSION"},
    ]
    assert all(len(changed(name, "full")) == 1 for name in list(configs)[7:] if name != "text")
    assert "PROMPT_MODALITY" in changed("text", "full")
    assert len({tuple(config.items()) for config in configs.values()}) == len(configs), (
        "no row twice"
    )


def test_the_ablations_first_row_is_maple(run):
    (row,) = ablation_rows("CDC", ["single_template"])
    _, maple, _ = run("MaPLe", name="maple")
    _, cdc, _ = run("CDC", *row.settings, name="cdc")
    for figure in ("accuracy", "macro_f1", "nll", "ece"):
        assert cdc["metrics"]["test"][figure] == pytest.approx(
            maple["metrics"]["test"][figure], rel=1e-3, abs=1e-3
        )


def test_an_ablation_from_training_to_table(
    data_root, small_clip_file, in_this_process, tmp_path, capsys
):
    small = [
        "MODEL.BACKBONE.NAME",
        small_clip_file,
        "INPUT.SIZE",
        "(32, 32)",
        "INPUT.GB_K",
        "5",
        "DATALOADER.TRAIN_X.BATCH_SIZE",
        "8",
        "DATALOADER.NUM_WORKERS",
        "0",
        "OPTIM.MAX_EPOCH",
        "2",
        "TRAINER.CDC.PREC",
        "fp32",
        "TRAINER.CDC.PROMPT_DEPTH",
        "2",
    ]
    code = protocol_run.main(
        [
            "--protocol",
            "ablation",
            "--trainer",
            "CDC",
            "--dataset",
            "dtd",
            "--shots",
            "4",
            "--seeds",
            "1",
            "2",
            "--root",
            data_root,
            "--output",
            str(tmp_path),
            "--rows",
            "text",
            "single_template",
            "full",
            "--",
            *small,
        ]
    )
    assert code == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert ablation.main([str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert printed.endswith(table) and [line.split()[0] for line in table.splitlines()[2:]] == [
        "single_template",
        "full",
        "text",
    ]
    (lines,) = ablation.collect_ablations(tmp_path).values()
    single, full, text = (line for _, line in lines.iterrows())
    # prompts and their maps for each template
    assert full.parameters == 4 * single.parameters > text.parameters
    assert full.isna().difference and single.lower <= single.difference <= single.upper
    assert (lines[["seconds_per_step", "images_per_second"]] > 0).all(axis=None)
    base = tables_of(collect(tmp_path), seed_h=True)[0].means.xs("full", level="config")
    assert base["H"].item() == pytest.approx(full.H_mean)


def test_times_are_medians_over_steps_and_test_batches(run, monkeypatch):
    ticks = count()  # a clock that stands still between two looks and goes on by a second with each
    clock = SimpleNamespace(monotonic=time.monotonic, perf_counter=lambda: next(ticks))
    for module in ("trainer", "evaluation.testing"):
        monkeypatch.setattr(f"trainers.{module}.time", clock)
    _, record, folder = run("CDC")
    assert record["seconds_per_step"] == 1
    assert record["test_images_per_second"] == 12  # 24 images in batches of 16 and 8
    _, tested, _ = run("CDC", name="again", flags=("--eval-only", "--model-dir", str(folder)))
    assert tested["seconds_per_step"] is None and tested["test_images_per_second"] == 12
    _, untested, _ = run("CDC", "TEST.NO_TEST", "True", name="untested")
    assert untested["seconds_per_step"] == 1 and untested["test_images_per_second"] is None
