"""Commands on the miniature of a data set: what they are called with, in this process and in
others, and how they refuse."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy
import pytest
import yaml
from PIL import Image

from tests.methods import small_settings
from trainers import METHODS
from trainers.common.errors import UserError
from trainers.common.files import file_hash
from trainers.common.record_file import FORMAT, describe

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENCE = (
    600  # seconds for what would never come otherwise; a busy machine takes long for anything
)
CLASSES = ["banded", "dotted", "striped", "woven", "zigzagged", "grid"]


def code_files():
    """The product's, whatever else somebody has in the checkout: environments, pictures, runs."""
    others = {"tests", "experiments", "build", "data", "output"}
    found = [*REPOSITORY.glob("*.py")]
    for folder in REPOSITORY.glob("[a-z]*/"):
        if folder.name not in others and not (folder / "pyvenv.cfg").exists():
            found += [path for path in folder.rglob("*.py") if "build" not in path.parts]
    return sorted(found)


def call(main, *words):
    """The exit code of a command; words: of any type, as they are typed."""
    return main([*map(str, words)])


def wait_until(condition):
    """Wait until a condition holds; fail where it does not after so many looks: a clock goes on while
    the machine is suspended."""
    for _ in range(10 * PATIENCE):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE} seconds: {condition}")


def python(*words, cwd=REPOSITORY, text=True, **settings):
    """``python words …`` in a process of its own; settings: of its environment."""
    command, env = [sys.executable, *map(str, words)], {**os.environ, **settings}
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=text, timeout=PATIENCE
    )


def record_of(folder):
    """What a finished run has on record."""
    return json.loads(Path(folder, "results.json").read_text())


def words_of(trainer, settings):
    """KEY, VALUE, KEY … of settings of a trainer's own."""
    pairs = ((f"TRAINER.{trainer.upper()}.{key}", value) for key, value in settings.items())
    return [str(word) for pair in pairs for word in pair]


def contents_of(folder, left_out=""):
    """The bytes of all files below a folder by path, but of those of one name."""
    return {
        path: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != left_out
    }


def prompts_of(folder):
    """The flags of train.py with which a run's prompts are tested."""
    return "--eval-only", "--model-dir", str(folder)


def base_arguments(trainer, root, backbone, output, seed=1):
    dataset = REPOSITORY / "configs/datasets/dtd.yaml"
    arguments = {
        "trainer": trainer,
        "root": root,
        "seed": seed,
        "output-dir": output,
        "backbone": backbone,
        "dataset-config-file": dataset,
        "config-file": small_recipe(),
    }
    return [str(word) for key, value in arguments.items() for word in (f"--{key}", value)]


@functools.cache
def small_recipe(*names):
    """A file of tests/small.yaml and some trainers' own smallest settings, by default all of them, in
    fp32."""
    recipe = yaml.safe_load((REPOSITORY / "tests/small.yaml").read_text())
    recipe["TRAINER"] = {
        name.upper(): {"PREC": "fp32", **small_settings(name)} for name in names or METHODS
    }
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)  # some tests start runs as a user without rights
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = os.path.join(folder, "small.yaml")
    Path(path).write_text(yaml.safe_dump(recipe))
    return path


def make_textures(root, classes=CLASSES):
    folder = root / "dtd/images"
    generator = numpy.random.default_rng(0)
    parts = ["train"] * 8 + ["val"] * 3 + ["test"] * 4
    split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        pattern = numpy.kron(generator.integers(0, 256, (8, 8, 3)), numpy.ones((5, 5, 1)))
        for index, part in enumerate(parts):
            pixels = pattern + generator.normal(0, 40, (40, 40, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
            picture.save(f"{folder}/{name}/{index:02d}.png")
            split[part].append([f"{name}/{index:02d}.png", label, name])
    (root / "dtd/split_zhou_DescribableTextures.json").write_text(json.dumps(split))


def make_pictures(folder, seed=0, count=10, names=("ant", "bee")):
    """Class folders of noise: from another seed files of the same names and sizes."""
    generator = numpy.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype="uint8")
            Image.fromarray(pixels).save(f"{folder}/{name}/{index}.bmp")
    return folder


def change_split(root, **parts):
    """Writes other parts into the textures' split; returns what it was."""
    path = Path(root, "dtd/split_zhou_DescribableTextures.json")
    split = json.loads(path.read_text())
    path.write_text(json.dumps({**split, **parts}))
    return split


def change_record(folder, **changes):
    """Writes other values into a run's record; None: without that key."""
    record = {**record_of(folder), **changes}
    kept = {key: record[key] for key in record if changes.get(key, 0) is not None}
    Path(folder, "results.json").write_text(json.dumps(kept))


def make_small_options(clip_file, epochs):
    """KEY, VALUE, KEY … of a run of run.py on the miniature in the smallest settings, which saves
    each epoch."""
    pairs = {
        "MODEL.BACKBONE.NAME": clip_file,
        "INPUT.SIZE": "(32, 32)",
        "DATALOADER.TRAIN_X.BATCH_SIZE": "8",
        "DATALOADER.NUM_WORKERS": "0",
        "OPTIM.MAX_EPOCH": str(epochs),
        "TRAIN.CHECKPOINT_FREQ": "1",
        "TRAIN.PRINT_FREQ": "1",
    }
    return [word for pair in pairs.items() for word in pair]


@contextmanager
def refuses(message=None):
    """What is done in this context ends with a ``UserError`` of one line in which the regular
    expression is found."""
    with pytest.raises(UserError, match=message) as refusal:
        yield refusal
    assert "\n" not in str(refusal.value)


def make_record(given=(), **facts):
    """A record, made up; given: what is known of its run besides, see ``describe``; facts: fields."""
    record = {
        "format": FORMAT,
        "trainer": "CoOp",
        "dataset": "openmoji",
        "classes": "all",
        "shots": 16,
        "seed": 1,
        "metrics": {},
        "split_hash": "s",
        "prompts_hash": "p",
        "backbone_hash": "b",
        "config": {"MODEL": {"BACKBONE": {"NAME": "tiny"}}},
        "classnames": [f"class {number}" for number in range(10)],
        "skipped_images": {},
        "device": "cpu",
        "precision": "fp32",
        "fewshot_sample": None,
        "git_commit": None,
        "finished": "2026-01-01T00:00:00+00:00",
        "seconds_per_step": None,
        "test_images_per_second": None,
        **{name: {} for name in ("parameters", "learned", "seconds", "versions")},
        **facts,
    }
    record["run"] = describe(record, dict(given))
    return record


def write_answers(folder, split, arrays):
    """A run's answers to a split, made up, which its record knows."""
    numpy.savez_compressed(f"{folder}/predictions-{split}.npz", **arrays)
    sign(folder)


def sign(folder):
    """Puts the hashes of a run's answers as they are now into its record, if that can be read."""
    hashes = {
        path.stem.removeprefix("predictions-"): file_hash(path)
        for path in Path(folder).glob("predictions-*.npz")
    }
    with suppress(ValueError):
        change_record(folder, answers=hashes)


def write_validation(folder, uncertainty, wrong, **more):
    """What a run says of its validation images, made up: uncertainties, and which answers are wrong;
    more: further arrays."""
    if not Path(folder, "results.json").exists():
        Path(folder, "results.json").write_text(json.dumps(make_record()))
    wrong = numpy.array(wrong, int)
    names = numpy.array([f"{number}.png" for number in range(len(wrong))])
    facts = {"image": names, "label": 0 * wrong, "top": wrong[:, None], **more}
    doubts = numpy.array(uncertainty, "float32")
    write_answers(folder, "val", {"max_probability": doubts, **facts})
