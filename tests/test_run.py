"""run.py: CoOp's folders, finished runs skipped, unfinished ones redone, contradictions refused."""

import json
import os
import re
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch

import run as protocol_run
from protocols import launch
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import CONFIGS, TARGETS, ablation_rows, plan
from protocols.runs import default_output
from trainers.common.config_files import plain
from trainers.common.errors import UserError
from trainers.common.record_file import described


@pytest.fixture
def calls(monkeypatch):
    """Stands in for a run's process: notes its arguments and finishes the run, unless its trainer is in ``calls.die``."""

    class Calls:
        noted, die, threads, exit_code = [], set(), set(), 1

    class Process:
        exitcode = None

        def __init__(self, target, args):
            self.arguments, self.errors, threads = args
            Calls.threads.add(threads)

        def start(self):
            arguments = parse_arguments(self.arguments)
            Calls.noted.append(arguments)
            os.makedirs(f"{arguments.output_dir}/prompt_learner", exist_ok=True)
            if arguments.trainer in Calls.die:
                if self.errors:
                    Path(self.errors).write_text("why it died")
                self.exitcode = Calls.exit_code
                return
            cfg = plain(build_config(arguments))
            prompts = f"prompts {len(Calls.noted)}"
            if arguments.model_dir:
                trained = Path(arguments.model_dir, "results.json").read_text()
                prompts = json.loads(trained)["prompts_hash"]
            record = {
                "format": 1,
                "trainer": arguments.trainer,
                "dataset": cfg["DATASET"]["NAME"],
                "shots": cfg["DATASET"]["NUM_SHOTS"],
                "classes": cfg["DATASET"]["SUBSAMPLE_CLASSES"],
                "seed": arguments.seed,
                "split_hash": "s",
                "metrics": {"test": {"accuracy": 50.0 + arguments.seed}},
                "prompts_hash": prompts,
                "backbone_hash": "b",
                "config": cfg,
            }
            record["run"] = described(record, arguments.run)
            Path(arguments.output_dir, "results.json").write_text(json.dumps(record))
            self.exitcode = 0

        def join(self, timeout):
            assert self.exitcode is not None

    monkeypatch.setattr(launch, "PROCESSES", type("Context", (), {"Process": Process}))
    monkeypatch.setattr(launch, "start_server", lambda: None)
    return Calls


@pytest.fixture
def start(calls, tmp_path, capsys):
    """``start("base2new --seeds 1")`` → exit code, the parsed arguments of the runs it made, what was printed; CoOp unless a trainer is named."""

    def go(words, *more):
        calls.noted.clear()
        words = words.split()
        trainer = [] if "--trainer" in words else ["--trainer", "CoOp"]
        output = ["--output", str(tmp_path / "o")]
        code = protocol_run.main(["--protocol", words[0], *trainer, *output, *words[1:], *more])
        return code, list(calls.noted), capsys.readouterr()

    go.output = tmp_path / "o"
    return go


def test_base_to_new_has_coops_folders_and_arguments(start):
    words = "base2new --dataset imagenet --seeds 2 --root /d --trainer CDC"
    code, (train, test), printed = start(words)
    trained, tested = (
        f"{start.output}/{part}/imagenet/shots_16/CDC/vit_b16/seed2"
        for part in ("train_base", "test_new")
    )
    assert code == 0 and (train.output_dir, train.root, train.eval_only) == (trained, "/d", False)
    found = (test.output_dir, test.eval_only, test.model_dir, test.load_epoch)
    assert found == (tested, True, trained, None)
    for run, classes in ((train, "base"), (test, "new")):
        options = ["DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", classes]
        assert run.opts == options
    assert train.config_file.endswith("configs/trainers/CDC/vit_b16.yaml")
    assert train.dataset_config_file.endswith("configs/datasets/imagenet.yaml")
    assert "52.00" in printed.out


def test_protocols_that_share_a_training_make_it_once(start):
    _, (train, _), _ = start("base2new --seeds 1")
    code, (test,), _ = start("open --seeds 1")
    assert code == 0 and test.eval_only and test.model_dir == train.output_dir
    assert test.output_dir.endswith("/o/test_open/openmoji/shots_16/CoOp/tiny/seed1")
    assert test.opts[2:] == ["DATASET.SUBSAMPLE_CLASSES", "all", "TEST.OPEN", "True"]
    _, noted, printed = start("xd --seeds 1", "--protocol", "xd", "dg")
    parts = [run.output_dir.split("/o/")[1].split("/")[0] for run in noted]
    xd, dg = (len(TARGETS[protocol]["openmoji"]) for protocol in ("xd", "dg"))
    assert parts == ["train_source"] + ["xd_from_openmoji"] * xd + ["dg_from_openmoji"] * dg
    assert all(run.opts == ["DATASET.SUBSAMPLE_CLASSES", "all"] for run in noted[1:])
    for title in ("domain generalisation from openmoji", "cross-data-set from openmoji"):
        assert title in printed.out
    assert default_output("base2new") == default_output("open")
    assert default_output("xd") == default_output("dg")


def test_few_shot_trains_on_each_number_of_shots_and_draws_the_curve(start):
    code, noted, printed = start("fewshot --shots 1 4 --seeds 1 2")
    shots = [(run.opts[1], run.seed) for run in noted]
    assert code == 0 and shots == [("1", 1), ("1", 2), ("4", 1), ("4", 2)]
    assert all(run.opts[2:] == ["DATASET.SUBSAMPLE_CLASSES", "all"] for run in noted)
    assert "51.50 ± 0.71" in printed.out
    assert (start.output / "curve_openmoji.png").read_bytes().startswith(b"\x89PNG")


def test_an_ablation_is_base_to_new_for_each_row_whose_settings_come_last(start):
    rows = "--seeds 1 2 --trainer CDC --rows text views"
    weight = "-- TRAINER.CDC.CONSISTENCY_WEIGHT 3.0"
    code, noted, _ = start(f"ablation --stage train {rows} {weight}")
    own = f"{start.output}/train_base/openmoji/shots_16/CDC"
    folders = [f"{own}/{row}/seed{seed}" for seed in (1, 2) for row in ("views", "text")]
    assert code == 0 and [run.output_dir for run in noted] == folders
    views, text = (build_config(run).TRAINER.CDC for run in noted[:2])
    shown = [(cfg.CONSISTENCY_WEIGHT, cfg.LOSS, cfg.PROMPT_MODALITY) for cfg in (views, text)]
    assert shown == [(0, "cross_entropy", "dual"), (3, "evidential", "text")]
    code, noted, printed = start(f"ablation --stage test {rows} {weight}")
    assert code == 0 and [run.model_dir for run in noted] == folders
    assert re.search(r"test_new +openmoji +CDC +views +16 +1 2 +51\.50 ± 0\.71", printed.out)
    code, noted, printed = start(f"ablation --stage train {rows}")
    assert code == 2 and not noted
    assert "holds a run with other settings (TRAINER.CDC.CONSISTENCY_WEIGHT 3.0" in printed.err
    words = "factors --dataset factors_mark --seeds 1 --stage train --trainer CDC"
    (recipe, *noted) = start(words)[1] + start(f"{words} --rows text same_view")[1]
    names = ["tiny", "same_view", "text"]
    assert [run.output_dir.split("/")[-2] for run in (recipe, *noted)] == names
    same_view, text = (build_config(run).TRAINER.CDC for run in noted)
    assert same_view.AUGMENTATION is None and text.PROMPT_MODALITY == "text"


@pytest.mark.parametrize(
    "text, message",
    [
        ("[{name: full}", "while parsing"),
        ("name: full", "it must be a list of rows"),
        ("- {name: full, description: d, setings: {}}", "setings"),
        ("- {name: full, description: d, settings: [1]}", "it must be a list of rows"),
        ("- {name: ../full, description: d}", "must be of letters, digits and underscores"),
        ("- {name: full, description: d}\n- {name: full, description: d}", "used once"),
    ],
)
def test_a_broken_ablation_is_refused(text, message, tmp_path, monkeypatch):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "CDC.yaml").write_text(text)
    monkeypatch.setattr("protocols.plan.CONFIGS", str(tmp_path))
    with pytest.raises(UserError, match=r"^.*CDC\.yaml.*$") as refused:
        ablation_rows("CDC")
    assert message in f"{refused.value} {refused.value.__cause__}"


def test_a_done_run_is_skipped_and_a_half_done_one_or_one_with_other_settings_never(start, calls):
    def made(more=""):
        return [run.eval_only for run in start(f"base2new --seeds 1 {more}")[1]]

    calls.die.add("CoOp")
    code, noted, printed = start("base2new --seeds 1")
    assert code == 2 and len(noted) == 1 and "failed (exit code 1)" in printed.err
    code, noted, printed = start("base2new --seeds 1 --stage test")
    assert code == 2 and not noted and "is not trained to its end" in printed.err
    calls.die.clear()
    assert made("--stage train") == [False]
    assert "2 runs: 1 done, 1 missing\n" in start("base2new --seeds 1 --plan")[2].out
    assert made() == [True] and made("-- DATALOADER.NUM_WORKERS 1") == []
    code, noted, printed = start("base2new --seeds 1 -- OPTIM.LR 0.5")
    assert code == 2 and not noted and "OPTIM.LR 0.02 → 0.5" in printed.err
    (trained,) = start.output.glob("train_base/**/results.json")
    trained.write_text(trained.read_text().replace('"prompts 1"', '"other prompts"'))
    assert made() == [True], "other prompts are tested anew"
    trained.unlink()
    assert made() == [False, True]


def test_runs_side_by_side_are_the_same_runs_and_share_the_cores(start, calls):
    words = "base2new --seeds 1 2 --trainer CoOp CDC"
    one = start(words)
    assert calls.threads == {None}
    assert start(f"{words} --jobs 3")[:2] == (0, [])
    shutil.rmtree(start.output)
    three = start(f"{words} --jobs 3")
    folders = [run.output_dir for run in three[1]]
    assert {run.output_dir for run in one[1]} == set(folders) and len(folders) == 8
    assert one[2].out == three[2].out and "[8/8]" in three[2].err
    assert calls.threads == {None, max(1, torch.get_num_threads() // 3)}
    tests = [run for run in three[1] if run.eval_only]
    assert all(folders.index(run.model_dir) < folders.index(run.output_dir) for run in tests)


@pytest.mark.parametrize(
    "exit_code, returned, message",
    [
        (1, 2, "CDC/tiny/seed1 failed (exit code 1)"),
        (75, 75, "was asked to stop (exit code 75): the same command resumes it"),
    ],
)
def test_where_one_of_several_fails_its_message_is_shown_and_what_is_done_stays_done(
    start, calls, monkeypatch, exit_code, returned, message
):
    calls.die.add("CDC")
    monkeypatch.setattr(calls, "exit_code", exit_code)
    words = "base2new --seeds 1 --jobs 2 --trainer CoOp CDC"
    code, noted, printed = start(words)
    assert code == returned and "why it died" in printed.err
    assert message in printed.err.splitlines()[-1]
    calls.die.clear()
    code, again, _ = start(words)
    assert code == 0 and len(noted) + len(again) == 5  # four runs, one of them twice


def test_shards_are_all_runs_each_training_with_its_tests_in_one(start, capsys):
    words = "xd --seeds 1 2 3 --trainer CoOp CDC"
    whole = start(words)
    shutil.rmtree(start.output)
    shards = [start(f"{words} --shard {number}/4") for number in (1, 2, 3, 4)]
    made = [[run.output_dir for run in noted] for _, noted, _ in shards]
    assert sorted(sum(made, [])) == sorted(run.output_dir for run in whole[1])
    assert sorted(map(len, made)) == [2, 2, 4, 4], "six trainings with a test each"
    for (_, noted, printed), folders in zip(shards, made):
        assert all(run.model_dir in folders for run in noted if run.eval_only)
        assert "train_source" in printed.out and "accuracy" in printed.out
    assert start(words)[1] == [] and start(words)[2].out == whole[2].out
    for text in ("0/2", "3/2", "1", "a/b", "1/2/3"):
        with pytest.raises(SystemExit):
            start(f"xd --shard {text}")
        assert "error: argument --shard: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        ("base2new -- TRAINER.COOP.CSC True", "gives each class a context of its own"),
        ("zeroshot", "zeroshot needs a training-free method such as ZeroshotCLIP; CoOp is trained"),
        ("base2new --shots 1 2", "base2new takes one number"),
        ("xd --dataset dtd", "no targets for the source 'dtd', only for imagenet, openmoji"),
        ("base2new --dataset imagnet", "did you mean imagenet?"),
        ("base2new --config tini", "did you mean tiny?"),
        ("base2new --trainer CoOpp", "did you mean CoOp?"),
        ("ablation", "CoOp has no ablation; there is CDC in "),
        ("ablation --rows veiws --trainer CDC", "no row 'veiws' (did you mean views?)"),
        ("base2new --rows full", "--rows are for --protocol ablation and factors, base2new has"),
        ("base2new --seeds -1", "--seeds at least 0"),
        ("base2new --jobs 0", "--jobs is 0, it must be at least 1"),
        ("base2new -- OPTIM.LRR 1", "unknown config key OPTIM.LRR"),
        ("base2new -- OPTIM.LR", "must come in pairs"),
    ],
)
def test_contradictions_are_refused_before_anything_starts(start, words, message):
    code, noted, printed = start(words)
    assert code == 2 and not noted and message in printed.err
    assert printed.err.strip().splitlines()[-1].startswith("error: ")


def test_every_target_is_a_data_set_and_every_protocol_has_a_recipe(start):
    configs = {path.stem for path in Path(CONFIGS, "datasets").glob("*.yaml")}
    for source, targets in (pair for sources in TARGETS.values() for pair in sources.items()):
        assert {source, *targets} <= configs
    for folder in Path(CONFIGS, "trainers").iterdir():
        for case in product(("base2new", "fewshot", "xd", "dg"), ("openmoji", "imagenet")):
            assert plan(case[0], folder.name, case[1], [1], [1], "output"), (folder.name, case)
    code, (test,), _ = start("zeroshot --seeds 2 1 3 --trainer ZeroshotCLIP")
    assert code == 0 and test.opts == ["DATASET.SUBSAMPLE_CLASSES", "all"] and test.seed == 2
    assert "/test_all/openmoji/" in test.output_dir
