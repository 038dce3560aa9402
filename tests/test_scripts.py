"""The shell scripts: CoOp's folders, done runs skipped, half-done ones redone, and the two never mistaken for each other."""
import os
import re
import subprocess

import pytest
import yaml
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from tests.conftest import REPOSITORY
from train import extend_config

TRAINER_CONFIGS = sorted((REPOSITORY / "configs" / "trainers").glob("*/*.yaml"))
DATASET_CONFIGS = sorted((REPOSITORY / "configs" / "datasets").glob("*.yaml"))
SCRIPTS = sorted((REPOSITORY / "scripts").rglob("*.sh"))

# stands in for python: notes its arguments, and finishes the run unless told to die
STUB = """#!/usr/bin/env bash
echo "$@" >> "$CALLS"
while [ $# -gt 0 ]; do [ "$1" = --output-dir ] && folder=$2; shift; done
mkdir -p "$folder/prompt_learner"; touch "$folder/prompt_learner/checkpoint"
[ -n "${DIE:-}" ] && exit 1
echo '{}' > "$folder/results.json"
"""


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(STUB)
    (tmp_path / "bin" / "python").chmod(0o755)
    calls = tmp_path / "calls"

    def start(command, **environment):
        calls.write_text("")
        clean = {key: value for key, value in os.environ.items() if key not in ("DATA", "CFG", "SHOTS", "OUTPUT")}
        done = subprocess.run(["bash", "-c", f"set -euo pipefail; source scripts/base2new.sh; {command}"], cwd=REPOSITORY, text=True,
                              capture_output=True, env={**clean, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                                                        "CALLS": str(calls), "OUTPUT": str(tmp_path / "o"), **environment})
        return done, calls.read_text().splitlines()
    start.output = tmp_path / "o"
    return start


def test_folders_follow_coops_convention(shell):
    done, calls = shell("base2new_train CDC imagenet 1; base2new_test CDC imagenet 1")
    assert done.returncode == 0 and len(calls) == 2
    train, test = (f"{shell.output}/{part}/imagenet/shots_16/CDC/vit_b16/seed1" for part in ("train_base", "test_new"))
    assert f"--output-dir {train} DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base" in calls[0]
    assert f"--output-dir {test} --eval-only --model-dir {train} DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new" in calls[1]
    assert "configs/trainers/CDC/vit_b16.yaml" in calls[0] and "configs/datasets/imagenet.yaml" in calls[0]


def test_openmoji_takes_the_tiny_recipe_and_variables_change_it(shell):
    assert "CoOp/tiny.yaml" in shell("base2new_train CoOp openmoji 2")[1][0]
    _, calls = shell("base2new_train CoOp openmoji 2", CFG="vit_b16", SHOTS="4", DATA="/d")
    assert "--root /d" in calls[0] and f"{shell.output}/train_base/openmoji/shots_4/CoOp/vit_b16/seed2 DATASET.NUM_SHOTS 4" in calls[0]


def test_a_done_run_is_skipped_and_a_half_done_one_redone(shell):
    done, calls = shell("base2new_train CDC openmoji 1", DIE="1")
    assert done.returncode != 0 and len(calls) == 1
    done, calls = shell("base2new_test CDC openmoji 1")
    assert done.returncode == 2 and not calls and "is not trained to its end" in done.stderr
    done, calls = shell("base2new_train CDC openmoji 1")
    assert done.returncode == 0 and len(calls) == 1
    done, calls = shell("base2new_train CDC openmoji 1")
    assert done.returncode == 0 and not calls and "done already" in done.stderr


def test_prompts_that_were_trained_anew_are_tested_anew(shell):
    shell("base2new_train CDC openmoji 1; base2new_test CDC openmoji 1")
    _, calls = shell("base2new_test CDC openmoji 1")
    assert not calls
    trained = shell.output / "train_base" / "openmoji" / "shots_16" / "CDC" / "tiny" / "seed1" / "results.json"
    os.utime(trained, (trained.stat().st_atime + 60, trained.stat().st_mtime + 60))
    _, calls = shell("base2new_test CDC openmoji 1")
    assert len(calls) == 1 and "SUBSAMPLE_CLASSES new" in calls[0]


@pytest.mark.parametrize("path", TRAINER_CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_trainer_config_is_valid_and_says_what_it_is(path):
    assert path.parent.name in TRAINER_REGISTRY.registered_names()
    assert path.read_text().startswith("# "), "the head says what the recipe is and what it costs"
    cfg = get_cfg_default()
    extend_config(cfg)
    cfg.merge_from_file(str(path))
    trainer = TRAINER_REGISTRY.get(path.parent.name)
    trainer.check_cfg(trainer.__new__(trainer), cfg)
    assert list(yaml.safe_load(path.read_text())["TRAINER"]) == [path.parent.name.upper()]


@pytest.mark.parametrize("path", DATASET_CONFIGS, ids=lambda path: path.stem)
def test_every_data_set_config_names_a_registered_data_set(path):
    assert yaml.safe_load(path.read_text())["DATASET"]["NAME"] in DATASET_REGISTRY.registered_names()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_parses(path):
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0


def test_every_relative_link_in_the_documents_resolves():
    for document in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "dassl-lite" / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()) + re.findall(r'src="([^"]+)"', document.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
