"""CDC in another Dassl toolbox, which has packages ``trainers`` and ``clip`` of its own and adds
CDC with two lines."""

import re
import shutil
import textwrap
from pathlib import Path

import clip
import pytest
import yaml
from dassl.config import get_cfg_default

from tests.runs import REPOSITORY, python, record_of, refuses, small_recipe
from trainers.cdc import CDC, add_cdc_config

HOST = """
import argparse, sys
import clip, datasets, trainers                     # the host's own packages, whose names ours must not take
from trainers.coop import CoOp
from datasets.textures import Textures
from cdc_trainers.cdc import add_cdc_config         # the plug-in, line 1: registers CDC
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed, setup_logger

parser = argparse.ArgumentParser()
for flag in ("--root", "--output-dir", "--trainer", "--config-file", "--backbone", "--model-dir"):
    parser.add_argument(flag)
parser.add_argument("--seed", type=int)
parser.add_argument("--load-epoch", type=int)
parser.add_argument("--eval-only", action="store_true")
parser.add_argument("opts", nargs=argparse.REMAINDER)
args = parser.parse_args()

cfg = get_cfg_default()
cfg.DATASET.SUBSAMPLE_CLASSES = "all"
add_cdc_config(cfg)                                 # the plug-in, line 2
cfg.merge_from_file(args.config_file)
cfg.DATASET.NAME, cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS = "Textures", args.root, -1
cfg.MODEL.BACKBONE.NAME, cfg.OUTPUT_DIR, cfg.TRAINER.NAME, cfg.SEED = args.backbone, args.output_dir, args.trainer, args.seed
cfg.merge_from_list(args.opts)
cfg.merge_from_list(["MODEL.BACKBONE.INTERPOLATE_POSITIONS", False, "DATALOADER.BROKEN_IMAGES", "skip",
                     "DATASET.DESCRIPTIONS", ""])  # what CDC's messages advise
cfg.freeze()
set_random_seed(cfg.SEED)
setup_logger(cfg.OUTPUT_DIR)

assert TRAINER_REGISTRY.get("CoOp") is CoOp and not any(name.startswith("cdc_trainers.coop") for name in sys.modules)
assert all(package.__file__.startswith(sys.path[0]) for package in (clip, datasets, trainers))
trainer = build_trainer(cfg)
if args.eval_only:
    trainer.load_model(args.model_dir, epoch=args.load_epoch)
    trainer.test()
else:
    trainer.train()
"""

HOSTS_DATA = """
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

NAMES = ("banded", "dotted", "striped", "woven")

@DATASET_REGISTRY.register()
class Textures(DatasetBase):
    def __init__(self, cfg):
        names = {"all": NAMES, "base": NAMES[:2], "new": NAMES[2:]}[cfg.DATASET.SUBSAMPLE_CLASSES]
        items = [Datum(impath=f"{cfg.DATASET.ROOT}/dtd/images/{name}/{i:02d}.png", label=label, classname=name)
                 for label, name in enumerate(names) for i in range(8)]
        super().__init__(train_x=items[::2], test=items[1::2])
"""

HOSTS_COOP = """
from dassl.engine import TRAINER_REGISTRY, TrainerX

@TRAINER_REGISTRY.register()
class CoOp(TrainerX):
    pass
"""


def test_a_host_that_forgets_the_config_node_is_told_so_and_its_own_keys_keep_their_values():
    cfg = get_cfg_default()
    with refuses(r"call add_cdc_config\(cfg\) in extend_cfg"):
        CDC(cfg)
    cfg.DATASET.SUBSAMPLE_CLASSES = "base"
    add_cdc_config(cfg)
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "base"
    assert cfg.DATALOADER.BROKEN_IMAGES == "error"


def test_yacs_reads_a_recipe_of_cdc_whole():
    for path in REPOSITORY.glob("configs/trainers/CDC/*.yaml"):
        cfg = get_cfg_default()
        add_cdc_config(cfg)
        cfg.merge_from_file(str(path))
        content = yaml.safe_load(path.read_text())
        assert cfg.MODEL.BACKBONE.NAME == content["MODEL"]["BACKBONE"]["NAME"]


@pytest.fixture
def host(tmp_path):
    """A checkout in CoOp's manner: its own ``train.py`` and its own packages ``trainers``,
    ``datasets`` and ``clip``."""
    folder = tmp_path / "host"
    folder.mkdir()
    for package, name, text in (
        ("trainers", "coop", HOSTS_COOP),
        ("datasets", "textures", HOSTS_DATA),
    ):
        (folder / package).mkdir()
        (folder / f"{package}/__init__.py").write_text("")
        (folder / f"{package}/{name}.py").write_text(text)
    (folder / "train.py").write_text(textwrap.dedent(HOST))
    shutil.copytree(
        Path(clip.__file__).parent, f"{folder}/clip", ignore=shutil.ignore_patterns("__pycache__")
    )
    # as in MaPLe's checkout: the host's towers want an argument that ours don't know
    model, signature = folder / "clip/model.py", "def build_model(state_dict: dict"
    model.write_text(model.read_text().replace(signature, f"{signature}, design_details"))
    recipe = yaml.safe_load(Path(small_recipe()).read_text())
    recipe["TRAINER"] = {"CDC": recipe["TRAINER"]["CDC"]}  # the host declares no other node of ours
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture
def in_host(host, data_root, small_clip_file):
    """``in_host(folder, classes, *more)``: what the host's command printed, and the record of its run."""

    def start(folder, classes, *more):
        words = (
            f"train.py --root {data_root} --trainer CDC --config-file recipe.yaml --seed 1 "
            f"--backbone {small_clip_file} --output-dir {folder} {' '.join(more)} "
            f"TRAINER.CDC.PREC amp DATASET.SUBSAMPLE_CLASSES {classes}"
        )
        done = python(*words.split(), cwd=host)
        assert done.returncode == 0, done.stderr
        # what parse_test_res.py reads
        assert "=> result" in done.stdout
        assert "=> result" in (folder / "log.txt").read_text()
        return done.stdout, record_of(folder)

    return start


def test_two_lines_bring_cdc_into_another_toolbox(in_host, tmp_path):
    printed, trained = in_host(tmp_path / "base", "base")
    assert "Finish training" in printed
    assert (tmp_path / "base/prompt_learner/model.pth.tar-3").exists()
    assert re.search(r"^CDC: [\d,]+ learnable parameters", printed, re.MULTILINE)
    assert trained["config"]["TRAINER"]["CDC"]["PREC"] == "amp"
    assert set(trained["metrics"]["test"]["per_class_accuracy"]) == {"banded", "dotted"}


@pytest.mark.slow
def test_what_is_trained_there_on_base_classes_is_tested_there_on_new_ones(in_host, tmp_path):
    base = tmp_path / "base"
    _, trained = in_host(base, "base")
    from_base = f"--eval-only --model-dir {base} --load-epoch 3"
    _, tested = in_host(tmp_path / "new", "new", from_base)
    assert tested["prompts_hash"] == trained["prompts_hash"]
    assert tested["config"]["TRAINER"]["CDC"]["PREC"] == "amp"
    assert set(tested["metrics"]["test"]["per_class_accuracy"]) == {"striped", "woven"}


LOADED = """
import sys, torch, torchvision
sys.modules["pkg_resources"] = None
before = set(sys.modules)
import trainers.cdc
new = {name for name in sys.modules if name not in before}
heavy = {name.partition(".")[0] for name in new} & set("sklearn scipy torchmetrics matplotlib pandas transformers open_clip huggingface_hub safetensors".split())
from dassl.engine import TRAINER_REGISTRY
print(len(new), sorted(heavy), TRAINER_REGISTRY.registered_names())
"""


def test_importing_a_method_registers_no_other_loads_no_heavy_library_and_warns_of_nothing():
    done = python("-W", "error", "-c", LOADED)
    assert done.returncode == 0, done.stderr
    count, rest = done.stdout.strip().split(" ", 1)
    assert int(count) <= 600
    assert rest == "[] ['CDC']"
