"""run.py: CoOp's folders, finished runs skipped, unfinished ones redone, contradictions refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

import run as protocol_run
from protocols import launch
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.plan import CONFIGS, SHOTS, TARGETS, ablation_rows, default_recipe, plan
from protocols.runs import default_output
from tests.conftest import REPOSITORY
from trainers.common.config_files import plain
from trainers.common.errors import UserError


@pytest.fixture
def calls(monkeypatch):
    """Stands in for a run's process: notes its arguments and finishes the run, unless its trainer is in ``calls.die``."""

    class Calls:
        noted, die, threads, exit_code = [], set(), set(), 1

    class Process:
        exitcode = None

        def __init__(self, target, args):
            _, (self.arguments,), self.errors, threads, _ = args
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
            trained = Path(arguments.model_dir, "results.json") if arguments.model_dir else None
            cfg = plain(build_config(arguments))
            prompts = (
                json.loads(trained.read_text())["prompts_hash"]
                if trained
                else f"prompts {len(Calls.noted)}"
            )
            Path(arguments.output_dir, "results.json").write_text(
                json.dumps(
                    {
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
                )
            )
            self.exitcode = 0

        def join(self, timeout):
            assert self.exitcode is not None

    monkeypatch.setattr(launch, "PROCESSES", type("Context", (), {"Process": Process}))
    monkeypatch.setattr(launch, "start_server", lambda: None)
    return Calls


@pytest.fixture
def start(calls, tmp_path, capsys):
    def go(protocol, *arguments, trainer=("CoOp",)):
        calls.noted.clear()
        code = protocol_run.main(
            [
                "--protocol",
                protocol,
                "--trainer",
                *trainer,
                "--output",
                str(tmp_path / "o"),
                *arguments,
            ]
        )
        return code, list(calls.noted), capsys.readouterr()

    start.output = go.output = tmp_path / "o"
    return go


def test_base_to_new_has_coops_folders_and_arguments(start):
    code, (train, test), printed = start(
        "base2new", "--dataset", "imagenet", "--seeds", "2", "--root", "/d", trainer=("CDC",)
    )
    trained, tested = (
        f"{start.output}/{part}/imagenet/shots_16/CDC/vit_b16/seed2"
        for part in ("train_base", "test_new")
    )
    assert code == 0 and train.output_dir == trained and train.root == "/d" and not train.eval_only
    assert train.opts == ["DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", "base"]
    assert (
        test.output_dir == tested
        and test.eval_only
        and test.model_dir == trained
        and test.load_epoch is None
    )
    assert test.opts == ["DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", "new"]
    assert train.config_file.endswith("configs/trainers/CDC/vit_b16.yaml")
    assert train.dataset_config_file.endswith("configs/datasets/imagenet.yaml")
    assert "52.00" in printed.out


def test_open_tests_the_prompts_of_base_to_new_on_all_classes(start):
    _, (train, _), _ = start("base2new", "--seeds", "1")
    code, (test,), _ = start("open", "--seeds", "1")
    assert code == 0 and test.eval_only and test.model_dir == train.output_dir, (
        "nothing is trained again"
    )
    assert test.output_dir.endswith("/o/test_open/openmoji/shots_16/CoOp/tiny/seed1")
    assert test.opts == [
        "DATASET.NUM_SHOTS",
        "16",
        "DATASET.SUBSAMPLE_CLASSES",
        "all",
        "TEST.OPEN",
        "True",
    ]
    assert default_output("open") == default_output("base2new")


def test_few_shot_trains_on_each_number_of_shots_and_draws_the_curve(start):
    code, noted, printed = start("fewshot", "--shots", "1", "4", "--seeds", "1", "2")
    assert code == 0 and [(run.opts[1], run.seed) for run in noted] == [
        ("1", 1),
        ("1", 2),
        ("4", 1),
        ("4", 2),
    ]
    assert all(run.opts[2:] == ["DATASET.SUBSAMPLE_CLASSES", "all"] for run in noted)
    assert "51.50 ± 0.71" in printed.out
    picture = start.output / "curve_openmoji.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert SHOTS["fewshot"] == (1, 2, 4, 8, 16)


def test_xd_and_dg_share_the_training_on_the_source(start):
    _, noted, _ = start("xd", "--seeds", "1")
    assert [run.output_dir.split("/o/")[1].split("/")[0] for run in noted] == [
        "train_source",
        *["xd_from_openmoji"] * len(TARGETS["xd"]["openmoji"]),
    ]
    code, noted, printed = start("dg", "--seeds", "1")
    assert code == 0 and all(run.eval_only for run in noted) and len(noted) == 3
    assert all(run.opts == ["DATASET.SUBSAMPLE_CLASSES", "all"] for run in noted)
    assert (
        "domain generalisation from openmoji" in printed.out
        and "cross-data-set from openmoji" in printed.out
    )


def test_an_ablation_is_base_to_new_for_each_row_whose_settings_come_last(start):
    arguments = ("--stage", "train", "--seeds", "1", "2", "--rows", "text", "views")
    code, noted, _ = start(
        "ablation", *arguments, "--", "TRAINER.CDC.CONSISTENCY_WEIGHT", "3.0", trainer=("CDC",)
    )
    own = f"{start.output}/train_base/openmoji/shots_16/CDC"
    assert code == 0 and [run.output_dir for run in noted] == [
        f"{own}/{row}/seed{seed}" for seed in (1, 2) for row in ("views", "text")
    ]
    views, text = (build_config(run).TRAINER.CDC for run in noted[:2])
    assert (views.CONSISTENCY_WEIGHT, views.LOSS, views.PROMPT_MODALITY) == (
        0,
        "cross_entropy",
        "dual",
    )
    assert (text.CONSISTENCY_WEIGHT, text.LOSS, text.PROMPT_MODALITY) == (3, "evidential", "text")
    code, noted, _ = start(
        "ablation",
        "--stage",
        "test",
        *arguments[2:],
        "--",
        "TRAINER.CDC.CONSISTENCY_WEIGHT",
        "3.0",
        trainer=("CDC",),
    )
    assert code == 0 and [run.model_dir for run in noted] == [
        f"{own}/{row}/seed{seed}" for seed in (1, 2) for row in ("views", "text")
    ]
    code, noted, printed = start("ablation", *arguments, trainer=("CDC",))
    assert (
        code == 2
        and not noted
        and "holds a run with other settings (TRAINER.CDC.CONSISTENCY_WEIGHT 3.0" in printed.err
    )


def test_factors_take_rows_of_the_ablation_and_without_them_the_recipe(start):
    arguments = ("--dataset", "factors_mark", "--seeds", "1", "--stage", "train")
    _, (alone,), _ = start("factors", *arguments, trainer=("CDC",))
    code, noted, _ = start("factors", *arguments, "--rows", "text", "same_view", trainer=("CDC",))
    own = f"{start.output}/train_biased/factors_mark/shots_16/CDC"
    assert code == 0 and [run.output_dir for run in (alone, *noted)] == [
        f"{own}/{name}/seed1" for name in ("tiny", "same_view", "text")
    ]
    recipe, same_view, text = (build_config(run) for run in (alone, *noted))
    assert [cfg.DATASET.FACTORS.TEST for cfg in (recipe, same_view, text)] == ["aligned"] * 3
    assert (recipe.TRAINER.CDC.AUGMENTATION, same_view.TRAINER.CDC.AUGMENTATION) == (1, None)
    assert text.TRAINER.CDC.PROMPT_MODALITY == "text"


@pytest.mark.parametrize(
    "text, message",
    [
        ("[{name: full}", "while parsing"),
        ("name: full", "it must be a list of rows"),
        ("- {name: full}", "missing 1 required"),
        ("- {name: full, description: d, setings: {}}", "setings"),
        ("- {name: full, description: d, settings: [1]}", "it must be a list of rows"),
        ("- {name: 1, description: d}", "it must be a list of rows"),
        (
            "- {name: ../full, description: d}",
            "must be of letters, digits and underscores, and used once",
        ),
        ("- {name: full, description: d}\n- {name: full, description: d}", "used once"),
    ],
)
def test_a_broken_ablation_is_refused(text, message, tmp_path, monkeypatch):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "CDC.yaml").write_text(text)
    monkeypatch.setattr("protocols.plan.CONFIGS", str(tmp_path))
    with pytest.raises(UserError) as refused:
        ablation_rows("CDC")
    assert message in f"{refused.value} {refused.value.__cause__}" and "CDC.yaml" in str(
        refused.value
    )
    assert "\n" not in str(refused.value)


def test_zero_shot_needs_no_shots(start):
    code, (test,), _ = start("zeroshot", "--seeds", "1", trainer=("ZeroshotCLIP",))
    assert (
        code == 0
        and test.opts == ["DATASET.SUBSAMPLE_CLASSES", "all"]
        and "/test_all/openmoji/" in test.output_dir
    )


def test_a_done_run_is_skipped_and_a_half_done_one_redone(start, calls):
    calls.die.add("CoOp")
    code, noted, printed = start("base2new", "--seeds", "1")
    assert code == 2 and len(noted) == 1 and "failed (exit code 1)" in printed.err
    code, noted, printed = start("base2new", "--seeds", "1", "--stage", "test")
    assert code == 2 and not noted and "is not trained to its end" in printed.err
    calls.die.clear()
    assert len(start("base2new", "--seeds", "1", "--stage", "train")[1]) == 1
    assert len(start("base2new", "--seeds", "1")[1]) == 1
    assert start("base2new", "--seeds", "1")[:2] == (0, [])


def test_runs_side_by_side_are_the_same_runs_and_share_the_cores(start, calls):
    one = start("base2new", "--seeds", "1", "2", trainer=("CoOp", "CDC"))
    assert calls.threads == {None}
    assert start("base2new", "--seeds", "1", "2", "--jobs", "3", trainer=("CoOp", "CDC"))[:2] == (
        0,
        [],
    )
    shutil.rmtree(start.output)
    three = start("base2new", "--seeds", "1", "2", "--jobs", "3", trainer=("CoOp", "CDC"))
    assert {run.output_dir for run in one[1]} == {run.output_dir for run in three[1]} and len(
        three[1]
    ) == 8
    assert one[2].out == three[2].out and "[8/8]" in three[2].err
    assert calls.threads == {None, max(1, torch.get_num_threads() // 3)}
    folders = [run.output_dir for run in three[1]]
    assert all(
        folders.index(run.model_dir) < folders.index(run.output_dir)
        for run in three[1]
        if run.eval_only
    )


def test_where_one_of_several_fails_its_message_is_shown_and_what_is_done_stays_done(start, calls):
    calls.die.add("CDC")
    code, noted, printed = start("base2new", "--seeds", "1", "--jobs", "2", trainer=("CoOp", "CDC"))
    assert (
        code == 2
        and "why it died" in printed.err
        and "CDC/tiny/seed1 failed (exit code 1)" in printed.err.splitlines()[-1]
    )
    calls.die.clear()
    code, again, _ = start("base2new", "--seeds", "1", "--jobs", "2", trainer=("CoOp", "CDC"))
    assert code == 0 and len(noted) + len(again) == 5  # four runs, one of them twice


def test_a_run_that_was_asked_to_stop_ends_the_command_with_the_code_to_start_it_again(
    start, calls
):
    calls.die.add("CoOp")
    calls.exit_code = 75
    code, noted, printed = start("base2new", "--seeds", "1")
    assert (
        code == 75
        and len(noted) == 1
        and "CoOp/tiny/seed1 was asked to stop (exit code 75): the same command goes on"
        in printed.err
    )
    calls.die.clear()
    assert start("base2new", "--seeds", "1")[0] == 0
    calls.exit_code = 1


def test_prompts_that_were_trained_anew_are_tested_anew(start):
    start("base2new", "--seeds", "1")
    trained = (
        start.output
        / "train_base"
        / "openmoji"
        / "shots_16"
        / "CoOp"
        / "tiny"
        / "seed1"
        / "results.json"
    )
    trained.write_text(trained.read_text().replace("prompts 1", "other prompts"))
    _, noted, _ = start("base2new", "--seeds", "1")
    assert len(noted) == 1 and noted[0].eval_only


def test_a_done_run_with_other_settings_is_never_taken_for_the_one_asked_for(start):
    start("base2new", "--seeds", "1")
    code, noted, printed = start("base2new", "--seeds", "1", "--", "OPTIM.LR", "0.5")
    assert code == 2 and not noted and "OPTIM.LR 0.02 → 0.5" in printed.err
    assert start("base2new", "--seeds", "1", "--", "DATALOADER.NUM_WORKERS", "1")[0] == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("base2new", "--", "TRAINER.COOP.CSC", "True"), "gives each class a context of its own"),
        (("zeroshot",), "zeroshot is for trainers that learn nothing, CoOp does"),
        (("base2new", "--shots", "1", "2"), "base2new takes one number"),
        (
            ("xd", "--dataset", "dtd"),
            "xd knows no targets for the source 'dtd', only for imagenet, openmoji",
        ),
        (("base2new", "--dataset", "imagnet"), "did you mean imagenet?"),
        (("base2new", "--config", "tini"), "did you mean tiny?"),
        (("ablation",), "CoOp has no ablation; there is CDC, CDCPromptSRC in "),
        (
            ("ablation", "--rows", "veiws", "--trainer", "CDC"),
            "CDC's ablation has no row 'veiws' (did you mean views?); it has single_",
        ),
        (
            ("base2new", "--rows", "full"),
            "--rows are for --protocol ablation and factors, base2new has none",
        ),
        (("base2new", "--seeds", "-1"), "--seeds at least 0"),
        (("base2new", "--jobs", "0"), "--jobs is 0, it must be at least 1"),
        (("base2new", "--", "OPTIM.LRR", "1"), "unknown config key OPTIM.LRR"),
    ],
)
def test_contradictions_are_refused_before_anything_starts(start, arguments, message):
    code, noted, printed = start(*arguments)
    assert (
        code == 2
        and not noted
        and message in printed.err
        and printed.err.strip().splitlines()[-1].startswith("error: ")
    )


def test_an_unknown_trainer_is_named_with_the_nearest(start):
    code, noted, printed = start("base2new", trainer=("CoOpp",))
    assert code == 2 and not noted and "did you mean CoOp?" in printed.err


def test_every_target_is_a_data_set_and_every_protocol_has_a_recipe():
    for sources in TARGETS.values():
        for source, targets in sources.items():
            assert all(
                Path(CONFIGS, "datasets", f"{name}.yaml").is_file() for name in (source, *targets)
            )
    for folder in Path(CONFIGS, "trainers").iterdir():
        for protocol in ("base2new", "fewshot", "xd", "dg"):
            for dataset in ("openmoji", "imagenet"):
                assert plan(protocol, folder.name, dataset, [1], [1], "output"), (
                    folder.name,
                    protocol,
                )
    assert (
        default_recipe("MaPLe", "dg", "imagenet") == "vit_b16_xd"
        and default_recipe("CoOp", "base2new", "imagenet") == "vit_b16"
    )
    with pytest.raises(UserError, match="there is"):
        plan("base2new", "CDC", "openmoji", [1], [1], "output", config="none")


STAGES = ("base2new_train", "base2new_test", "fewshot_train", "xd_train", "xd_test", "dg_test")


def script(tmp_path, *words, **settings):
    """What a script of CoOp's manner asks run.py for."""
    python = tmp_path / "python"  # shows its arguments; stands in for pip as well
    python.write_text(
        f'#!/usr/bin/env bash\ncase "$1" in run.py) echo "$@" ;; -c) echo {tmp_path} ;; esac\n'
    )
    python.chmod(0o755)
    return subprocess.run(
        ["bash", *words],
        text=True,
        capture_output=True,
        cwd=REPOSITORY,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "VIRTUAL_ENV": str(tmp_path), **settings},
    )


@pytest.mark.parametrize("stage", STAGES)
def test_every_script_asks_for_the_protocol_it_is_named_after(stage, tmp_path):
    protocol, part = stage.split("_")
    expected = (
        f"run.py --protocol {protocol} --stage {part} --trainer %s --dataset openmoji --seeds 3 --root data --shots 1 4 "
        "-- OPTIM.MAX_EPOCH 2\n"
    )
    for trainer, words in (
        ("MaPLe", [f"scripts/{stage}.sh", "MaPLe"]),
        ("CDC", [f"scripts/cdc/{stage}.sh"]),
    ):
        shown = script(tmp_path, *words, "openmoji", "3", "OPTIM.MAX_EPOCH", "2", SHOTS="1 4")
        assert shown.stdout.endswith(expected % trainer), shown.stderr


def test_a_script_says_which_of_its_words_is_missing(tmp_path):
    for words, missing in (
        ("scripts/xd_test.sh", "TRAINER"),
        ("scripts/xd_test.sh CoOp dtd", "SEED"),
        ("scripts/cdc/xd_test.sh", "DATASET"),
    ):
        shown = script(tmp_path, *words.split())
        assert (
            shown.returncode
            and f"{missing} is missing" in shown.stderr
            and "run.py" not in shown.stdout
        )


@pytest.fixture
def real(tmp_path, monkeypatch, capfd):
    """Runs base-to-new with real processes, two at once, from another folder; returns the exit code and the output."""

    def start(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv(
            "PYTHONPATH", os.environ.get("PYTHONPATH", "")
        )  # which the command adds to
        capfd.readouterr()
        code = protocol_run.main(
            [
                "--protocol",
                "base2new",
                "--seeds",
                "1",
                "2",
                "--jobs",
                "2",
                "--output",
                str(tmp_path / "o"),
                *arguments,
            ]
        )
        return code, capfd.readouterr()

    return start


def test_real_runs_side_by_side_from_any_folder(real, drawn_root, tmp_path):
    code, said = real("--trainer", "ZeroshotCLIP", "--root", str(drawn_root))
    assert code == 0, said.err
    assert (
        "ZeroshotCLIP" in said.out
        and "± 0.00" in said.out
        and "=> result" not in said.out + said.err
    )
    logs = sorted(tmp_path.glob("o/*/openmoji/shots_16/ZeroshotCLIP/tiny/seed*/log.txt"))
    assert len(logs) == 4 and all("=> result" in log.read_text() for log in logs)


def test_what_a_real_run_says_when_it_fails_is_shown_and_a_log_that_is_gone_is_not_named(
    real, tmp_path
):
    code, said = real("--trainer", "CoOp", "--dataset", "dtd", "--root", str(tmp_path / "no"))
    assert (
        code == 2
        and f"error: data folder {tmp_path}/no/dtd is missing" in said.err
        and "log.txt" not in said.err
    )
    assert "failed (exit code 2); the line above says why" in said.err.splitlines()[-1]


def writers_of(path):
    """Ids of the processes that have a file open."""
    return {
        process.pid
        for process in psutil.process_iter(["open_files"])
        if str(path) in (opened.path for opened in process.info["open_files"] or ())
    }  # None: not ours to look at


def wait_until(condition):
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 180  # a busy machine takes long to import torch
        time.sleep(0.1)


@pytest.mark.parametrize(
    "tell, told",
    [
        (lambda command: os.killpg(command, signal.SIGUSR1), "SIGUSR1"),
        (lambda command: os.kill(command, signal.SIGINT), "SIGTERM"),
    ],
)
def test_a_command_that_is_asked_to_stop_leaves_a_checkpoint_of_each_run(
    data_root, tmp_path, tell, told
):
    """A signal that goes to all processes, as Slurm sends it, must not take the runs' exit codes away; Ctrl-C may reach this one alone."""
    runs = [
        tmp_path / "train_base" / "dtd" / "shots_4" / "CoOp" / "tiny" / f"seed{seed}"
        for seed in (1, 2)
    ]
    command = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "run.py"),
            "--protocol",
            "base2new",
            "--trainer",
            "CoOp",
            "--dataset",
            "dtd",
            "--config",
            "tiny",
            "--shots",
            "4",
            "--seeds",
            "1",
            "2",
            "--jobs",
            "2",
            "--root",
            data_root,
            "--output",
            str(tmp_path),
            "--",
            "OPTIM.MAX_EPOCH",
            "100000",
            "DATALOADER.TRAIN_X.BATCH_SIZE",
            "8",
            "TRAIN.CHECKPOINT_FREQ",
            "1",
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # not as in the background
    try:
        wait_until(
            lambda: all((folder / "prompt_learner" / "checkpoint").exists() for folder in runs)
        )
        tell(command.pid)
        _, errors = command.communicate(timeout=60)
    finally:
        command.kill()
        command.wait()
    assert command.returncode == 75 and "was asked to stop (exit code 75)" in errors
    for folder in runs:
        assert (
            (folder / "prompt_learner" / "checkpoint").read_text().startswith("model-step.pth.tar-")
        )
        assert f"{told}: checkpoint model-step" in (folder / "log.txt").read_text()


def test_a_killed_command_leaves_no_run_behind_that_would_write_beside_the_next_one(
    data_root, tmp_path
):
    log = tmp_path / "train_base" / "dtd" / "shots_4" / "CoOp" / "tiny" / "seed1" / "log.txt"
    command = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "run.py"),
            "--protocol",
            "base2new",
            "--trainer",
            "CoOp",
            "--dataset",
            "dtd",
            "--config",
            "tiny",
            "--shots",
            "4",
            "--seeds",
            "1",
            "--root",
            data_root,
            "--output",
            str(tmp_path),
            "--",
            "OPTIM.MAX_EPOCH",
            "100000",
            "DATALOADER.TRAIN_X.BATCH_SIZE",
            "8",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: writers_of(log))
        assert command.pid not in writers_of(log)
    finally:
        command.kill()
        command.wait()
    wait_until(lambda: not writers_of(log))
