"""run.py: CoOp's folders, finished runs skipped, unfinished ones redone, contradictions refused."""

import json
import os
import re
import shlex
import shutil
from itertools import product
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

import run as protocol_run
from protocols import launch
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import TARGETS, ablation_rows, plan
from protocols.runs import default_output, planned
from tests.conftest import CASES, GOLDEN, REFUSALS
from tests.runs import REPOSITORY, call, record_of, refuses
from trainers.common.config_files import CONFIGS
from trainers.common.record_file import described, read_record


@pytest.fixture
def calls(monkeypatch, finished):
    """Stands in for a run's process: notes its arguments and finishes the run, unless its trainer
    is in ``calls.die``."""

    class Calls:
        noted, die, threads, exit_code = [], set(), set(), 1

    def start(command, env, **_):
        assert command[1:3] == [f"{REPOSITORY}/train.py", "--with-parent"]
        Calls.threads.add(env["OMP_NUM_THREADS"] if "TQDM_DISABLE" in env else None)
        arguments = parse_arguments(command[3:])
        Calls.noted.append(arguments)
        os.makedirs(f"{arguments.output_dir}/prompt_learner", exist_ok=True)
        process = MagicMock()
        code = process.__enter__.return_value.wait
        code.return_value = Calls.exit_code if arguments.trainer in Calls.die else 0
        if code():
            return process
        cfg = build_config(arguments)
        prompts = f"prompts {len(Calls.noted)}"
        if arguments.model_dir:
            trained = Path(arguments.model_dir, "results.json").read_text()
            prompts = json.loads(trained)["prompts_hash"]
        record = {
            **finished,
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
        if arguments.trainer == "GDA":
            record["class_parameters"] = ["gaussians"]
        record["run"] = described(record, arguments.run)
        Path(arguments.output_dir, "results.json").write_text(json.dumps(record))
        return process

    monkeypatch.setattr(launch, "Popen", start)
    return Calls


@pytest.fixture
def start(calls, tmp_path, capsys):
    """``start("base2new --seeds 1")`` → exit code, the parsed arguments of the runs it made, what
    was printed; CoOp unless a trainer is named."""

    def go(words, *more):
        calls.noted.clear()
        words = words.split()
        trainer = [] if "--trainer" in words else ["--trainer", "CoOp"]
        output = ["--output", f"{tmp_path}/o"]
        code = call(protocol_run.main, "--protocol", words[0], *trainer, *output, *words[1:], *more)
        return code, list(calls.noted), capsys.readouterr()

    go.output = tmp_path / "o"
    return go


@pytest.mark.parametrize("words", GOLDEN["runs"])
def test_a_protocol_makes_the_runs_of_the_golden_file(words):
    args = protocol_run.parse_arguments(f"--protocol {words} --output o".split())
    lines = [shlex.join(run.arguments("data")) for run in planned(args)]
    assert [line.replace(f"{REPOSITORY}/", "") for line in lines] == GOLDEN["runs"][
        words
    ].splitlines()


def test_protocols_that_share_a_training_make_it_once(start):
    _, (train, _), _ = start("base2new --seeds 1 --root /d")
    code, (test,), printed = start("open --seeds 1")
    assert code == 0 and test.eval_only and test.model_dir == train.output_dir
    assert train.root == "/d" and "51.00" in printed.out
    _, noted, printed = start("xd --seeds 1", "--protocol", "xd", "dg")
    assert [run.eval_only for run in noted] == [False] + [True] * (len(noted) - 1)
    for title in ("domain generalisation from openmoji", "cross-data-set from openmoji"):
        assert title in printed.out
    assert default_output("base2new") == default_output("open")
    assert default_output("xd") == default_output("dg")


def test_accuracies_of_a_stage_say_what_their_mark_means(start):
    _, _, printed = start("base2new --seeds 1 --stage train --trainer GDA")
    assert "GDA †" in printed.out and printed.out.splitlines()[-1].startswith("† learns")
    _, _, printed = start("base2new --seeds 1 --stage train --trainer CoOp")
    assert "CoOp" in printed.out and "†" not in printed.out


def test_an_ablations_settings_come_last(start):
    rows = "--seeds 1 2 --trainer CDC --rows text views"
    weight = "-- TRAINER.CDC.CONSISTENCY_WEIGHT 3.0"
    code, noted, _ = start(f"ablation --stage train {rows} {weight}")
    folders = [run.output_dir for run in noted]
    views, text = (build_config(run).TRAINER.CDC for run in noted[:2])
    shown = [(cfg.CONSISTENCY_WEIGHT, cfg.LOSS, cfg.PROMPT_MODALITY) for cfg in (views, text)]
    assert shown == [(0, "cross_entropy", "dual"), (3, "evidential", "text")] and code == 0
    code, noted, printed = start(f"ablation --stage test {rows} {weight}")
    assert code == 0 and [run.model_dir for run in noted] == folders
    assert re.search(r"test_new +openmoji +CDC +views +16 +1 2 +51\.50 ± 0\.71", printed.out)
    code, noted, printed = start(f"ablation --stage train {rows}")
    assert code == 2 and not noted
    assert "holds a run with other settings (TRAINER.CDC.CONSISTENCY_WEIGHT 3.0" in printed.err


@pytest.mark.parametrize("text, message", REFUSALS["ablations"])
def test_a_broken_ablation_is_refused(text, message, tmp_path, monkeypatch):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations/CDC.yaml").write_text(text)
    monkeypatch.setattr("trainers.common.recipes.CONFIGS", str(tmp_path))
    with refuses(r"^.*CDC\.yaml.*$") as refused:
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
    assert "2 runs: 1 done, 1 missing. " in start("base2new --seeds 1 --plan")[2].out
    assert made() == [True] and made("-- DATALOADER.NUM_WORKERS 1") == []
    code, noted, printed = start("base2new --seeds 1 -- OPTIM.LR 0.5")
    assert code == 2 and not noted and "OPTIM.LR 0.02 → 0.5" in printed.err
    (trained,) = start.output.glob("train_base/**/results.json")
    trained.write_text(trained.read_text().replace('"prompts 1"', '"other prompts"'))
    assert made() == [True], "other prompts are tested again"
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
    assert calls.threads == {None, str(max(1, torch.get_num_threads() // 3))}
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
    assert code == returned and message in printed.err
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


@pytest.mark.parametrize("words, message", REFUSALS["run.py"])
def test_contradictions_are_refused_before_anything_starts(start, words, message, monkeypatch):
    if "partition" in words:
        monkeypatch.setenv("PATH", "")
    code, noted, printed = start(words)
    assert code == 2 and not noted and message in printed.err
    assert printed.err.strip().splitlines()[-1].startswith("error: ")


def test_every_target_is_a_data_set_and_every_protocol_has_a_recipe():
    configs = {path.stem for path in Path(CONFIGS, "datasets").glob("*.yaml")}
    for source, targets in (pair for sources in TARGETS.values() for pair in sources.items()):
        assert {source, *targets} <= configs
    for folder in Path(CONFIGS, "trainers").iterdir():
        for case in product(("base2new", "fewshot", "xd", "dg"), ("openmoji", "imagenet")):
            assert plan(case[0], folder.name, case[1], [1], [1], "output"), (folder.name, case)


# ---- what a record says of its run ----


def test_a_record_says_what_the_protocol_handed_over(run):
    given = {"protocol": "ablation", "part": "train_base", "row": "text", "dataset": "mine"}
    _, record, folder = run("CoOp", flags=("--run", json.dumps({**given, "shots": 3})))
    assert read_record(folder / "results.json")["run"] == record["run"]
    own = {"classes": "all", "trainer": "CoOp", "recipe": "small", "seed": 1}
    assert record["run"] == {**given, **own, "shots": 3}


def test_a_run_by_hand_belongs_to_no_protocol(finished):
    names = ("dataset", "classes", "trainer", "shots", "seed")
    facts = {name: finished[name] for name in names}
    known = dict.fromkeys(("protocol", "part", "recipe", "row")) | facts
    assert described(finished, {}) == known


@pytest.mark.parametrize("name, value", CASES["odd descriptions"])
def test_a_run_of_another_kind_is_refused(name, value, finished, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**finished, "run": {**finished["run"], name: value}}))
    with refuses(rf"its run\.{name} is missing or of another kind"):
        read_record(path)


def test_a_run_of_an_earlier_commit_is_refused_in_a_line(finished, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({name: finished[name] for name in finished if name != "run"}))
    with refuses(r"is no run record of this version \(its run is missing .*run it again"):
        read_record(path)


@pytest.fixture(scope="module")
def finished(trained):
    """The record of a finished run."""
    return record_of(trained("ZeroshotCLIP"))
