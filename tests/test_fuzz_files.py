"""Files of every kind that are read, with made-up or damaged content: what comes out is a result or
a ``UserError``, nothing else.

The examples are the same every time, so that a test fails because of a change, not by chance.
"""

import contextlib
import functools
import io
import json
import math
import operator
import os
import pickle
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from dassl.data.datasets import Datum
from dassl.engine import TRAINER_REGISTRY
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from datasets.clones import GroceryStore
from datasets.splits import read_split
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from results import render, runs, table
from results.kept import FIGURES, IMAGES, read_figures, write_figures
from results.report import page as report
from tests.results.conftest import make_answers, write_curve, write_run
from tests.runs import base_arguments, record_of, sign
from trainers.classifier.saved_run import config_of, find_method
from trainers.common import record_file
from trainers.common.config_files import flatten
from trainers.common.errors import UserError
from trainers.common.image_files import read_picture
from trainers.data.class_folders import read_classnames
from trainers.data.fewshot import resolve
from trainers.data.lists import Image
from trainers.data.pickles import read_pickle
from trainers.engine import checkpoint
from trainers.engine.checks import check_run
from trainers.prompting.backbone import load_backbone
from trainers.prompting.tokens import tokenize_classes

settings.register_profile(
    "files",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FILES = settings.get_profile("files")
TEXTS = st.text(
    st.characters(codec=None, categories=None), max_size=20
)  # lone surrogates and NUL included
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def only_user_errors(function, *arguments):
    """The function's result, or None after a ``UserError`` of one line; all else comes through."""
    try:
        return function(*arguments)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return None


def damaged(content):
    """Strategy: bytes of a sound file cut, with bits flipped, bytes overwritten, or a piece left
    out."""
    size = len(content)
    place = st.integers(0, size - 1)

    def flipped(places):
        changed = bytearray(content)
        for where, bit in places:
            changed[where] ^= 1 << bit
        return bytes(changed)

    return st.one_of(
        place.map(lambda end: content[:end]),
        st.lists(st.tuples(place, st.integers(0, 7)), min_size=1, max_size=4).map(flipped),
        st.tuples(place, st.binary(min_size=1, max_size=8)).map(
            lambda at: content[: at[0]] + at[1] + content[at[0] + len(at[1]) :]
        ),
        st.tuples(place, place).map(lambda ends: content[: min(ends)] + content[max(ends) :]),
    )


def paths_of(tree, path=()):
    items = {dict: dict.items, list: enumerate}.get(type(tree), lambda _: ())(tree)
    for key, value in items:
        yield (*path, key)
        yield from paths_of(value, (*path, key))


def variants(tree):
    """Strategy: bytes of a sound JSON tree with one to three of its entries changed, or left out by
    ``...``."""
    change = st.tuples(st.sampled_from(sorted(paths_of(tree), key=str)), JSON | st.just(...))

    def apply(changes):
        copy = json.loads(json.dumps(tree))
        for (*path, last), value in changes:
            with contextlib.suppress(KeyError, IndexError, TypeError):  # its place is taken away
                node = functools.reduce(operator.getitem, path, copy)
                if value is ...:
                    del node[last]
                else:
                    node[last] = value
        return json.dumps(copy).encode()

    return st.lists(change, min_size=1, max_size=3).map(apply)


def whatever(sound, tree=None):
    """Strategy: bytes of a damaged file, of a JSON tree with other entries, of any JSON, of no
    format at all."""
    made = (
        damaged(sound) | JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)
    )
    return made if tree is None else made | variants(tree)


# ---- configs and class names ----

VALUES = "-1 0 1 0.5 1e400 -1e400 nan 4611686018427387904 99999999999 1e-320 True None x '' [] () {} [[1]] [0] ['x'] [1,'x'] (5,1) (0,0) {'a':1} 1j b'x' 0x7fffffffffffffff '\\ud800' '\\x00' *a !!x [ ((( 1_000 .5. -".split()
KEYS = flatten(build_config(parse_arguments(base_arguments("CDC", "data", "tiny", "out"))))
KEYS = [key for key in KEYS if not key.startswith("TRAINER.DEPT")]


def config_of_text(tmp_path, content, *options):
    """A config after all checks that come before the data."""
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    arguments = base_arguments("CDC", "data", "tiny", tmp_path / "out")
    arguments[arguments.index("--config-file") + 1] = str(path)
    cfg = build_config(parse_arguments([*arguments, *options]))
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    trainer.method.check(cfg.TRAINER.CDC, "TRAINER.CDC")
    check_run(cfg)
    return cfg


def nest(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return json.dumps(value).encode()


@settings(FILES, max_examples=300)
@given(
    content=whatever(b"OPTIM:\n  LR: 0.5\nINPUT: {SIZE: [64, 64]}\n")
    | st.builds(nest, st.sampled_from(KEYS), JSON)
    | st.text("abOPTIM:LR \n\t-[]{}&*!?|>'\"%@`#,0.", max_size=40).map(str.encode),
    key=st.sampled_from([*KEYS, "SEED.X"]) | st.text("OPTIM.LR", max_size=8),
    value=st.sampled_from(VALUES)
    | st.text("0123456789.e-+()[]{}'\",:abNone TrueFalse", max_size=20),
)
def test_configs_and_options(tmp_path, content, key, value):
    for cfg in (
        only_user_errors(config_of_text, tmp_path, content),
        only_user_errors(config_of_text, tmp_path, b"SEED: 1\n", key, value),
    ):
        assert cfg is None or isinstance(cfg.OPTIM.LR, float) and isinstance(cfg.SEED, int)
    assert config_of_text(tmp_path, b"OPTIM: {LR: 0.5}").OPTIM.LR == 0.5  # a sound file is taken


@settings(FILES)
@given(names=st.lists(TEXTS | st.text("<|>endoftxsar&l;_ ", max_size=30), min_size=1, max_size=3))
def test_class_names(names):
    tokens = only_user_errors(tokenize_classes, names, "{}.", 61)
    assert tokens is None or (tokens.argmax(dim=1) > 1).all()


# ---- lists of images: a split, CoOp's few-shot sample, class names, lists with commas ----

SPLIT = {part: [["a/1.png", 0, "ant"], ["b/2.png", 1, "bee"]] for part in ("train", "val", "test")}
GROCERY = b"Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)\nFuji,0,Apple,0\n"


def coops_pickle():
    """Of Dassl's own class, so that the bytes are as CoOp writes them."""
    datum = Datum.__new__(Datum)
    vars(datum).update(_impath="a.png", _label=0, _domain=0, _classname="ant")
    return pickle.dumps({"train": [datum], "val": [datum]})


def inside(lists, folder):
    return all(
        os.path.normpath(image.impath).startswith(f"{folder}/") and 0 <= image.label < 10
        for images in lists
        for image in images
    )


def sampled(path, folder):
    train, val = ([Image(f"{folder}/a.png", 0, "ant")] for _ in range(2))
    parts = {"train": train, "val": val}
    return resolve(path, read_pickle(path, parts), parts, {"train": 1, "val": 1}, folder)


def groceries(path, _):
    folder = Path(path).parent
    shutil.copy(path, folder / "classes.csv")
    for part in SPLIT:
        (folder / f"{part}.txt").write_text("a.jpg, 0, 0")
    return GroceryStore.list_images(str(folder))


LISTS = {  # sound content, its tree if it is JSON, how it is read, what holds for what is read
    "split": (json.dumps(SPLIT).encode(), SPLIT, read_split, inside),
    "CoOp's sample": (coops_pickle(), None, sampled, lambda sample, folder: inside(sample.values(), folder)),
    "class names": (b"n01 shark\nn02 cock\n", None, lambda path, _: read_classnames(path), lambda names, _: all(map(str.strip, names))),
    "lists with commas": (GROCERY, None, groceries, lambda lists, folder: inside(lists, os.path.dirname(folder))),
}  # fmt: skip


def check_reader(path, folder, sound, tree, read, holds, examples=50):
    """Whatever the file holds is refused in a line, or ``holds``; what is sound is taken."""

    @settings(FILES, max_examples=examples)
    @given(content=whatever(sound, tree))
    @example(content=sound)
    @example(content=b"[" * 100_000)
    @example(content=b"cos\nsystem\n(S'touch executed'\ntR.")
    def check(content):
        path.write_bytes(content)
        result = only_user_errors(read, str(path), folder)
        assert holds(result, folder) if result is not None else content != sound

    check()


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_images(tmp_path, kind):
    check_reader(tmp_path / "list", f"{tmp_path}/images", *LISTS[kind])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_images(tmp_path, kind):
    buffer = io.BytesIO()
    noise = numpy.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype="uint8")
    Picture.fromarray(noise).save(buffer, kind)
    sound, is_rgb = buffer.getvalue(), lambda image, _: image.mode == "RGB"
    check_reader(tmp_path / "x", "", sound, None, read_picture, is_rgb, examples=20)


# ---- weights, and runs to ask ----


def test_checkpoints(trained, tmp_path):
    path, sound = tmp_path / "model", trained("CoOp") / "prompt_learner/model.pth.tar-3"
    is_state = lambda state, _: isinstance(state, dict)  # noqa: E731
    check_reader(
        path, "", sound.read_bytes(), None, lambda path, _: checkpoint.load(path), is_state
    )


def test_records_of_runs_to_ask(trained, tmp_path):
    def load(path, _):
        record = record_file.read_record(path)
        return config_of(record, find_method(record["trainer"]))

    tree = {**record_of(trained("CoOp")), "metrics": {}}
    has_rate = lambda cfg, _: isinstance(cfg.OPTIM.LR, float)  # noqa: E731
    check_reader(tmp_path / "x.json", "", json.dumps(tree).encode(), tree, load, has_rate)


def test_clip_weights(tmp_path, stock_vit):
    """The ends of the file, where the names are, matter most: its middle is numbers."""
    state, path = stock_vit.state_dict(), tmp_path / "clip.pt"
    small = {key: value[..., :1] if value.dim() else value for key, value in state.items()}
    script = torch.jit.script(torch.nn.Linear(2, 2))
    for write in (functools.partial(torch.save, small), script.save):
        write(str(path))

        @settings(FILES, max_examples=30)
        @given(content=damaged(path.read_bytes()))
        def check(content):
            path.write_bytes(content)
            assert only_user_errors(load_backbone, str(path)) is None

        check()


# ---- what runs leave ----


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A made-up run in a protocol's folder, and its files' bytes."""
    root = tmp_path_factory.mktemp("finished")
    folder = write_run(
        root / "fewshot",
        "train_all",
        "CDC",
        1,
        arrays=make_answers(1, templates=2),
        skipped_images={"test": ["a/1.png"]},
        classnames=[*"abcd"],
        parameters={"learnable": 3, "total": 4},
        seconds={"train": 1.0},
        git_commit="abc",
        finished="today",
    )
    write_curve(folder, (1, 2.0, 50.0), (2, 1.0, 75.0))
    return root, folder, {path.name: path.read_bytes() for path in folder.iterdir()}


def report_numbers(root, folder):
    """All that a report computes before it draws."""
    found = runs.collect(root)
    series = runs.group(found)
    for made in (*report.protocol_tables([root]), *report.measured_tables(series)):
        render.render(made, "csv")
    for run in found:
        for curve in runs.training_curve(run).values():
            assert all(
                1 <= epoch < 10**9 and math.isfinite(value) for epoch, value in curve.items()
            )
    for one in runs.with_answers(series):
        assert (
            len(one.pooled("answer"))
            == len(one.pooled("right"))
            == len(one.pooled("max_probability"))
        )
    return True


def other_arrays():
    """Strategy: predictions of which one array has another shape or type."""
    arrays = make_answers(1, templates=2)
    shapes = st.sampled_from([(), (0,), (3,), (40,), (40, 4), (2, 40), (40, 0), (1, 1, 1)])
    kinds = st.sampled_from(["int64", "float32", "U3", "bool", "complex64", "uint8"])

    def packed(name, shape, kind):
        buffer = io.BytesIO()
        numpy.savez(buffer, **{**arrays, name: numpy.zeros(shape, dtype=kind)})
        return buffer.getvalue()

    return st.builds(packed, st.sampled_from(sorted(arrays)), shapes, kinds)


@pytest.mark.parametrize("name", ["results.json", "predictions-test.npz", "metrics.jsonl"])
def test_what_a_run_leaves_in_tables_and_reports(finished, name):
    root, folder, files = finished
    more = {
        "results.json": lambda: variants(json.loads(files[name])),
        "predictions-test.npz": other_arrays,
        "metrics.jsonl": lambda: variants(json.loads(files[name].splitlines()[-1])),
    }

    @settings(FILES)
    @given(content=damaged(files[name]) | more[name]())
    def check(content):
        (folder / name).write_bytes(content)
        if name.startswith("predictions"):
            sign(folder)
        only_user_errors(report_numbers, root, folder)
        only_user_errors(lambda: table.tables(runs.collect(root / "fewshot"), "ece"))

    check()
    for each, content in files.items():
        (folder / each).write_bytes(content)
    assert report_numbers(root, folder)


def test_kept_measures_are_whole_or_made_again(tmp_path):
    record = dict.fromkeys(("prompts_hash", "backbone_hash", "split_hash", "finished"), "x")
    figures, arrays = {"a": [1.5, None], "b": {"c": "ü"}}, {"d": numpy.arange(3)}
    write_figures(tmp_path, record, figures, arrays)
    files = {name: (tmp_path / name).read_bytes() for name in (FIGURES, IMAGES)}

    @settings(FILES)
    @given(damage=st.one_of(*(st.tuples(st.just(n), damaged(b)) for n, b in files.items())))
    def check(damage):
        name, content = damage
        (tmp_path / name).write_bytes(content)
        assert read_figures(tmp_path, record) in (None, whole)
        (tmp_path / name).write_bytes(files[name])

    whole = read_figures(tmp_path, record)
    assert figures.items() <= whole.items()
    for key in record:
        assert read_figures(tmp_path, {**record, key: "y"}) is None
    check()
    (tmp_path / IMAGES).unlink()
    assert read_figures(tmp_path, record) is None
