"""CDC as a guest: another Dassl toolbox, with packages ``trainers`` and ``clip`` of its own, takes it in with two lines."""
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import clip
import pytest
import yaml

from tests.conftest import REPOSITORY

HOST = """
import argparse, sys
import trainers.coop                                # the host's own package, whose name ours must not take
from cdc_trainers.cdc import add_cdc_config         # the plug-in, line 1: registers CDC
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed, setup_logger


@DATASET_REGISTRY.register()
class HostData(DatasetBase):
    def __init__(self, cfg):
        items = [Datum(impath=f"{cfg.DATASET.ROOT}/dtd/images/{name}/{i:02d}.png", label=label, classname=name)
                 for label, name in enumerate(("banded", "dotted")) for i in range(6)]
        super().__init__(train_x=items[::2], test=items[1::2])


cfg = get_cfg_default()
cfg.DATASET.SUBSAMPLE_CLASSES = "all"
add_cdc_config(cfg)                                 # the plug-in, line 2
cfg.merge_from_file(sys.argv[1])
cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS = "HostData", sys.argv[2], -1
cfg.MODEL.BACKBONE.NAME, cfg.OUTPUT_DIR, cfg.TRAINER.NAME = sys.argv[3], sys.argv[4], "CDC"
cfg.SEED = 1
cfg.freeze()
set_random_seed(1)
assert "CoOp" in TRAINER_REGISTRY.registered_names() and TRAINER_REGISTRY.get("CoOp").__module__ == "trainers.coop"
assert not any(name.startswith("cdc_trainers.coop") for name in sys.modules)
import clip
assert clip.__file__.startswith(sys.path[0])
build_trainer(cfg).train()
"""

HOSTS_COOP = """
from dassl.engine import TRAINER_REGISTRY, TrainerX

@TRAINER_REGISTRY.register()
class CoOp(TrainerX):
    pass
"""


def test_a_host_that_forgets_the_config_node_is_told_so():
    from dassl.config import get_cfg_default

    from trainers.cdc import CDC
    from trainers.errors import UserError
    with pytest.raises(UserError, match=r"call add_cdc_config\(cfg\) in extend_cfg"):
        CDC(get_cfg_default())


def test_two_lines_bring_cdc_into_another_toolbox(tmp_path, data_root, small_clip_file):
    host = tmp_path / "host"
    (host / "trainers").mkdir(parents=True)
    (host / "trainers" / "__init__.py").write_text("")
    (host / "trainers" / "coop.py").write_text(HOSTS_COOP)
    (host / "train.py").write_text(textwrap.dedent(HOST))
    shutil.copytree(Path(clip.__file__).parent, host / "clip", ignore=shutil.ignore_patterns("__pycache__"))
    model = host / "clip" / "model.py"  # as in MaPLe's checkout: the host's towers want an argument that ours don't know
    model.write_text(model.read_text().replace("def build_model(state_dict: dict):", "def build_model(state_dict: dict, design_details):"))
    recipe = yaml.safe_load((REPOSITORY / "tests" / "small.yaml").read_text())
    recipe["TRAINER"] = {"CDC": recipe["TRAINER"]["CDC"]}  # the host declares no other node of ours
    (host / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = subprocess.run([sys.executable, "train.py", "recipe.yaml", data_root, small_clip_file, str(tmp_path / "out")], cwd=host,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "=> result" in done.stdout and "Finish training" in done.stdout
    assert (tmp_path / "out" / "results.json").exists()
    assert (tmp_path / "out" / "prompt_learner" / "model.pth.tar-3").exists()
