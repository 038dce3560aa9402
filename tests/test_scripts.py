"""Configs and scripts: each is valid and points to something that is there."""

import os
import subprocess

import pytest
import yaml
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from protocols.arguments import extend_config
from tests.conftest import REPOSITORY
from trainers.common.config_files import merge

TRAINER_CONFIGS = sorted((REPOSITORY / "configs" / "trainers").glob("*/*.yaml"))
DATASET_CONFIGS = sorted((REPOSITORY / "configs" / "datasets").glob("*.yaml"))
SCRIPTS = sorted((REPOSITORY / "scripts").rglob("*.sh"))


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


@pytest.mark.parametrize("path", DATASET_CONFIGS, ids=lambda path: path.stem)
def test_every_data_set_config_names_a_registered_data_set(path):
    assert (
        yaml.safe_load(path.read_text())["DATASET"]["NAME"] in DATASET_REGISTRY.registered_names()
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_parses(path):
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0


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
        f"run.py --protocol {protocol} --stage {part} --trainer %s --dataset openmoji --seeds 3 --root data --backbone RN50 --shots 1 4 "
        "-- OPTIM.MAX_EPOCH 2\n"
    )
    for trainer, words in (
        ("MaPLe", [f"scripts/{stage}.sh", "MaPLe"]),
        ("CDC", [f"scripts/cdc/{stage}.sh"]),
    ):
        shown = script(
            tmp_path, *words, "openmoji", "3", "OPTIM.MAX_EPOCH", "2", SHOTS="1 4", BACKBONE="RN50"
        )
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
