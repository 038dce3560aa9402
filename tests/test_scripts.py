"""Configs and scripts: each is valid and points to something that is there."""

import os
import subprocess

import pytest
import yaml
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY

from protocols.arguments import extend_config
from tests.conftest import REPOSITORY
from trainers.common.config_files import merge

TRAINER_CONFIGS = sorted((REPOSITORY / "configs/trainers").glob("*/*.yaml"))


@pytest.mark.parametrize(
    "path", TRAINER_CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_trainer_config_is_valid_and_says_what_it_is(path):
    assert path.parent.name in TRAINER_REGISTRY.registered_names()
    assert path.read_text().startswith("# "), "the head says what the recipe is and what it costs"
    cfg = get_cfg_default()
    extend_config(cfg)
    merge(cfg, str(path), "config file", leave_out="RULES")
    trainer = TRAINER_REGISTRY.get(path.parent.name)
    trainer.check_cfg(trainer.__new__(trainer), cfg)
    assert list(yaml.safe_load(path.read_text())["TRAINER"]) == [path.parent.name.upper()]


def test_every_script_parses():
    for path in (REPOSITORY / "scripts").rglob("*.sh"):
        subprocess.run(["bash", "-n", str(path)], check=True)


STAGES = ("base2new_train", "base2new_test", "fewshot_train", "xd_train", "xd_test", "dg_test")


@pytest.fixture
def script(tmp_path):
    """What a script of CoOp's manner asks run.py for."""
    python = tmp_path / "python"  # shows its arguments; stands in for pip as well
    shown = f'case "$1" in run.py) echo "$@" ;; -c) echo {tmp_path} ;; esac'
    python.write_text(f"#!/usr/bin/env bash\n{shown}\n")
    python.chmod(0o755)

    def start(words, **settings):
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VIRTUAL_ENV": str(tmp_path), **settings}
        command = ["bash", *f"scripts/{words}".split()]
        return subprocess.run(command, text=True, capture_output=True, cwd=REPOSITORY, env=env)

    return start


@pytest.mark.parametrize("stage", STAGES)
def test_every_script_asks_for_the_protocol_it_is_named_after(stage, script):
    protocol, part = stage.split("_")
    for trainer, words in (("MaPLe", f"{stage}.sh MaPLe"), ("CDC", f"cdc/{stage}.sh")):
        shown = script(f"{words} openmoji 3 OPTIM.MAX_EPOCH 2", SHOTS="1 4", BACKBONE="RN50")
        assert shown.stdout.endswith(
            f"run.py --protocol {protocol} --stage {part} --trainer {trainer} --dataset openmoji "
            "--seeds 3 --root data --backbone RN50 --shots 1 4 -- OPTIM.MAX_EPOCH 2\n"
        ), shown.stderr


def test_a_script_says_which_of_its_words_is_missing(script):
    for words, missing in (
        ("xd_test.sh", "TRAINER"),
        ("xd_test.sh CoOp dtd", "SEED"),
        ("cdc/xd_test.sh", "DATASET"),
    ):
        shown = script(words)
        assert shown.returncode and f"{missing} is missing" in shown.stderr
        assert "run.py" not in shown.stdout
