"""run.py: CoOp's folders, finished runs skipped, unfinished ones redone, contradictions refused."""

import json
import os
import shlex
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

import run as protocol_run
from protocols import launch
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import TARGETS, ablation_rows, default_output, plan
from protocols.runs import plan_runs
from tests.conftest import GOLDEN
from tests.runs import REPOSITORY, call, make_record, record_of, refuses
from trainers import METHODS
from trainers.common.config_files import CONFIGS
from trainers.common.environment import OWN_CORES
from trainers.common.record_file import read_record


@pytest.fixture
def calls(monkeypatch):
    """Stands in for a run's process: notes its arguments and finishes the run, unless its trainer
    is in ``calls.die``."""

    class Calls:
        noted, die, threads, cores, exit_code = [], set(), set(), set(), 1

    def start(command, env, **_):
        assert command[1:3] == [f"{REPOSITORY}/train.py", "--with-parent"]
        Calls.threads.add(env["OMP_NUM_THREADS"] if "TQDM_DISABLE" in env else None)
        Calls.cores.add(env.get(OWN_CORES))
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
            prompts = record_of(arguments.model_dir)["prompts_hash"]
        record = make_record(
            arguments.run,
            trainer=arguments.trainer,
            dataset=cfg["DATASET"]["NAME"],
            shots=cfg["DATASET"]["NUM_SHOTS"],
            classes=cfg["DATASET"]["SUBSAMPLE_CLASSES"],
            seed=arguments.seed,
            metrics={"test": {"accuracy": 50.0 + arguments.seed}},
            prompts_hash=prompts,
            config=cfg,
        )
        if arguments.trainer == "GDA":
            record["class_parameters"] = ["gaussians"]
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
    lines = [shlex.join(run.arguments("data")) for run in plan_runs(args)]
    assert [line.replace(f"{REPOSITORY}/", "") for line in lines] == GOLDEN["runs"][
        words
    ].splitlines()


def test_protocols_that_share_a_training_make_it_once(start):
    _, (train, _), _ = start("base2new --seeds 1 --root /d")
    code, (test,), printed = start("open --seeds 1")
    assert code == 0
    assert test.eval_only
    assert test.model_dir == train.output_dir
    assert train.root == "/d"
    assert "51.00" in printed.out
    _, noted, printed = start("xd --seeds 1", "--protocol", "xd", "dg")
    assert [run.eval_only for run in noted] == [False] + [True] * (len(noted) - 1)
    assert "domain generalisation from openmoji" in printed.out
    assert "cross-data-set from openmoji" in printed.out
    assert default_output("base2new") == default_output("open")
    assert default_output("xd") == default_output("dg")


def test_accuracies_of_a_stage_say_what_their_mark_means(start):
    _, _, printed = start("base2new --seeds 1 --stage train --trainer GDA")
    assert "GDA †" in printed.out
    assert printed.out.splitlines()[-1].startswith("† learns")
    _, _, printed = start("base2new --seeds 1 --stage train --trainer CoOp")
    assert "†" not in printed.out


def test_an_ablations_settings_come_last(start):
    rows = "ablation --stage train --seeds 1 --trainer CDC --rows text views"
    code, noted, _ = start(f"{rows} -- TRAINER.CDC.CONSISTENCY_WEIGHT 3.0")
    assert code == 0
    views, text = (build_config(run).TRAINER.CDC for run in noted)
    assert (views.CONSISTENCY_WEIGHT, views.LOSS) == (0, "cross_entropy")
    assert (text.CONSISTENCY_WEIGHT, text.PROMPT_MODALITY) == (3, "text")
    code, noted, printed = start(rows)
    assert code == 2
    assert not noted
    assert "holds a run with other settings (TRAINER.CDC.CONSISTENCY_WEIGHT 3.0" in printed.err


@pytest.mark.parametrize(
    "text, message",
    [
        ("[{name: full}", "while parsing"),
        ("name: full", "it must be a list of rows"),
        ("- {name: full, description: d, setings: {}}", "setings"),
        ("- {name: ../full, description: d}", "has another name"),
    ],
)
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
    assert code == 2
    assert len(noted) == 1
    assert "failed (exit code 1)" in printed.err
    code, noted, printed = start("base2new --seeds 1 --stage test")
    assert code == 2
    assert not noted
    assert "is not trained to its end" in printed.err
    calls.die.clear()
    assert made("--stage train") == [False]
    assert "2 runs: 1 done, 1 missing. " in start("base2new --seeds 1 --plan")[2].out
    assert made() == [True]
    assert made("-- TRAIN.PRINT_FREQ 1") == []
    for change in ("OPTIM.LR 0.02 → 0.5", "DATALOADER.NUM_WORKERS 0 → 1"):
        key, _, _, value = change.split()
        code, noted, printed = start(f"base2new --seeds 1 -- {key} {value}")
        assert code == 2
        assert not noted
        assert change in printed.err
    (trained,) = start.output.glob("train_base/**/results.json")
    trained.write_text(trained.read_text().replace('"prompts 1"', '"other prompts"'))
    assert made() == [True], "other prompts are tested again"
    trained.unlink()
    assert made() == [False, True]


def test_runs_side_by_side_are_the_same_runs_and_share_the_cores(start, calls, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(16)}, raising=False)
    words = "base2new --seeds 1 2 --trainer CoOp CDC"
    one = start(words)
    assert calls.threads == calls.cores == {None}
    assert start(f"{words} --jobs 3")[:2] == (0, [])
    shutil.rmtree(start.output)
    three = start(f"{words} --jobs 3")
    folders = [run.output_dir for run in three[1]]
    assert {run.output_dir for run in one[1]} == set(folders)
    assert len(folders) == 8
    assert one[2].out == three[2].out
    assert "[8/8]" in three[2].err
    assert calls.threads == {None, str(max(1, torch.get_num_threads() // 3))}
    assert calls.cores == {None, "5"}
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
    assert code == returned
    assert message in printed.err
    calls.die.clear()
    code, again, _ = start(words)
    assert code == 0
    assert len(noted) + len(again) == 5


def test_shards_are_all_runs_each_training_with_its_tests_in_one(start, capsys):
    words = "xd --seeds 1 2 --trainer CoOp CDC"
    whole = start(words)
    shutil.rmtree(start.output)
    shards = [start(f"{words} --shard {number}/3") for number in (1, 2, 3)]
    made = [[run.output_dir for run in noted] for _, noted, _ in shards]
    assert sorted(sum(made, [])) == sorted(run.output_dir for run in whole[1])
    assert sorted(map(len, made)) == [2, 2, 4], "four trainings with a test each"
    for (_, noted, printed), folders in zip(shards, made):
        assert all(run.model_dir in folders for run in noted if run.eval_only)
        assert "train_source" in printed.out
        assert "accuracy" in printed.out
    assert start(words)[1] == []
    assert start(words)[2].out == whole[2].out
    with pytest.raises(SystemExit):
        start("xd --shard 3/2")
    assert "error: argument --shard: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        ("base2new -- TRAINER.COOP.CSC True", "gives each class a context of its own"),
        ("zeroshot", "zeroshot needs a training-free method such as ZeroshotCLIP; CoOp is trained"),
        ("base2new --shots 1 2", "base2new takes one number"),
        ("xd --dataset dtd", "unknown source of xd, --dataset 'dtd'; known: imagenet, openmoji"),
        ("base2new --dataset /tmp", "--dataset image_folder --root '/tmp'"),
        ("base2new --config tini", "did you mean tiny?"),
        ("base2new --trainer CoOpp", "did you mean CoOp?"),
        ("ablation", "CoOp has no ablation; there is CDC, CDC_readings in "),
        ("ablation --rows veiws --trainer CDC", "unknown row of CDC's ablation 'veiws'"),
        ("base2new --rows full", "--rows are for --protocol ablation and factors, base2new has"),
        ("base2new --seeds -1", "--seeds at least 0"),
        ("base2new --jobs 0", "--jobs is 0, it must be at least 1"),
        ("base2new -- OPTIM.LR", "must come in pairs"),
        ("factors --dataset openmoji", "known: factors_background, factors_border"),
        ("xd --slurm gpus", "--slurm gpus: it takes KEY=VALUE"),
        ("xd --slurm time=1:00:00", "time=1:00:00: it takes minutes"),
        ("xd --slurm partition=gpu", "Slurm refuses: Could not detect"),
    ],
)
def test_contradictions_are_refused_before_anything_starts(start, words, message, monkeypatch):
    if "partition" in words:
        monkeypatch.setenv("PATH", "")
    code, noted, printed = start(words)
    assert code == 2
    assert not noted
    line = printed.err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line


def test_every_target_is_a_data_set():
    configs = {path.stem for path in Path(CONFIGS, "datasets").glob("*.yaml")}
    for sources in TARGETS.values():
        for source, targets in sources.items():
            assert {source, *targets} <= configs


@pytest.mark.parametrize("name", METHODS)
def test_every_trainer_has_a_recipe_for_every_protocol(name):
    for protocol in ("base2new", "fewshot", "xd", "dg"):
        for source in ("openmoji", "imagenet"):
            assert plan(protocol, name, source, [1], [1], "output")


# ---- what a record says of its run ----


def test_a_record_says_what_the_protocol_handed_over(run):
    given = {"protocol": "ablation", "part": "train_base", "row": "text", "dataset": "mine"}
    _, record, folder = run("CoOp", flags=("--run", json.dumps({**given, "shots": 3})))
    assert read_record(folder / "results.json")["run"] == record["run"]
    own = {"classes": "all", "trainer": "CoOp", "recipe": "small", "seed": 1}
    assert record["run"] == {**given, **own, "shots": 3}
