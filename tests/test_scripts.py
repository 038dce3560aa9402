"""Configs and scripts: each is valid and points to something that is there."""

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
