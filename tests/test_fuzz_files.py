"""Files of every kind that are read, with made-up or damaged content: what comes out is a result or a ``UserError``, nothing else.

The examples are the same every time, so that a test fails because of a change, not by chance.
"""

import contextlib
import io
import json
import math
import os
import pickle

import numpy
import pytest
import torch
import yaml
from dassl.data.datasets import Datum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sweeps.store import last_progress

from datasets.fewshot import read_sample, resolve
from datasets.pickles import read_pickle
from datasets.splits import read_split
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from results import render, runs, table
from results.kept import read_kept, write_kept
from results.report import page as report
from tests.conftest import base_arguments
from tests.results.conftest import make_answers, write_curve, write_run
from trainers.classifier.saved_run import config_of, find_trainer
from trainers.common import record_file
from trainers.common.errors import UserError
from trainers.common.image_files import read_picture
from trainers.engine import checkpoint
from trainers.prompting.backbone import load_backbone
from trainers.prompting.tokens import class_tokens

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
        assert str(error)
        return None


def damaged(content):
    """Strategy: bytes of a sound file cut, with bits flipped, bytes overwritten, or a piece left out."""
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


def changed(tree, path, value):
    """A copy of a JSON tree with another value at a path; ``...`` leaves the entry out."""
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return copy


def paths_of(tree, path=()):
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from paths_of(value, (*path, key))


def variants(tree):
    """Strategy: a sound JSON tree with one to three of its entries changed or left out."""
    change = st.tuples(st.sampled_from(sorted(paths_of(tree), key=str)), JSON | st.just(...))

    def apply(changes):
        found = tree
        for path, value in changes:
            with contextlib.suppress(
                KeyError, IndexError, TypeError
            ):  # an earlier change has taken the place away
                found = changed(found, path, value)
        return found

    return st.lists(change, min_size=1, max_size=3).map(apply)


# ---- configs ----

KEYS = (
    "OPTIM",
    "OPTIM.LR",
    "INPUT.SIZE",
    "INPUT.TRANSFORMS",
    "DATASET.NUM_SHOTS",
    "TRAINER.CDC.CTX_INIT",
    "SEED",
    "DATASET.FACTORS.CORRELATION",
    "TRAINER.CDC.AUGMENTATION",
    "MODEL.BACKBONE.NAME",
    "OPTIM.LR.X",
)


def config_of_text(tmp_path, text, *options):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    arguments = base_arguments("CDC", "data", "tiny", tmp_path / "out")
    arguments[arguments.index("--config-file") + 1] = str(path)
    return build_config(parse_arguments([*arguments, *options]))


def nest(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@settings(FILES)
@given(
    text=st.one_of(
        JSON.map(lambda tree: json.dumps(tree)),
        st.tuples(st.sampled_from(KEYS), JSON).map(lambda pair: json.dumps(nest(*pair))),
        st.binary(max_size=60),
        st.text("abOPTIM:LR \n\t-[]{}&*!?|>'\"%@`#,0.", max_size=40),
    )
)
def test_config_files(tmp_path, text):
    cfg = only_user_errors(config_of_text, tmp_path, text)
    assert (
        cfg is None
        or isinstance(cfg.OPTIM.LR, float)
        and isinstance(cfg.INPUT.TRANSFORMS, (list, tuple))
    )


@settings(FILES)
@given(
    key=st.sampled_from(KEYS) | st.text("OPTIM.LR", max_size=8),
    value=st.text("0123456789.e-+()[]{}'\",:abNone TrueFalse", max_size=20),
)
def test_options(tmp_path, key, value):
    cfg = only_user_errors(config_of_text, tmp_path, "SEED: 1\n", key, value)
    assert cfg is None or isinstance(cfg.SEED, int)


# ---- splits and samples ----

SPLIT = {part: [["a/1.png", 0, "ant"], ["b/2.png", 1, "bee"]] for part in ("train", "val", "test")}
SAMPLE = {"train": [["a/1.png", 0]], "val": [["b/2.png", 1]], "seed": 1}


@settings(FILES)
@given(
    content=st.one_of(
        variants(SPLIT).map(lambda tree: json.dumps(tree).encode()),
        damaged(json.dumps(SPLIT).encode()),
        JSON.map(lambda tree: json.dumps(tree).encode()),
    )
)
def test_split_files(tmp_path, content):
    (tmp_path / "split.json").write_bytes(content)
    lists = only_user_errors(read_split, str(tmp_path / "split.json"), str(tmp_path / "images"))
    for image in (image for images in lists or () for image in images):
        assert (
            os.path.normpath(image.impath).startswith(f"{tmp_path}/images/")
            and isinstance(image.classname, str)
            and 0 <= image.label < 10
        )


@settings(FILES)
@given(
    content=st.one_of(
        variants(SAMPLE).map(lambda tree: json.dumps(tree).encode()),
        damaged(json.dumps(SAMPLE).encode()),
    )
)
def test_few_shot_samples(tmp_path, content):
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    train, val, _ = read_split(str(tmp_path / "split.json"), str(tmp_path / "images"))
    (tmp_path / "sample.json").write_bytes(content)

    def read():
        parts = {"train": train, "val": val}
        return resolve(
            "sample.json",
            read_sample(str(tmp_path / "sample.json"), parts),
            parts,
            {"train": 1, "val": 1},
            str(tmp_path / "images"),
        )

    found = only_user_errors(read)
    assert found is None or set(found["train"]) <= set(train)


@pytest.fixture(scope="module")
def coops_pickle(tmp_path_factory):
    image = tmp_path_factory.mktemp("pickle") / "a.png"
    image.touch()
    return pickle.dumps(
        {
            "train": [Datum(str(image), 0, classname="ant")],
            "val": [Datum(str(image), 1, classname="bee")],
        }
    )


@settings(FILES)
@given(data=st.data())
def test_few_shot_pickles(tmp_path, coops_pickle, data):
    (tmp_path / "sample.pkl").write_bytes(data.draw(damaged(coops_pickle) | st.binary(max_size=60)))
    found = only_user_errors(read_pickle, str(tmp_path / "sample.pkl"), ("train", "val"))
    assert found is None or all(
        isinstance(path, str) and isinstance(label, int)
        for part in found.values()
        for path, label in part
    )


@settings(FILES)
@given(names=st.lists(TEXTS | st.text("<|>endoftxsar&l;_ ", max_size=30), min_size=1, max_size=3))
def test_class_names(names):
    tokens = only_user_errors(class_tokens, names, 60)
    assert tokens is None or all(length > 0 for length in tokens.name_lengths)


# ---- images ----


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype="uint8")).save(
        buffer, kind
    )
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_images(tmp_path, kind):
    @settings(FILES, max_examples=20)
    @given(content=damaged(encoded(kind)))
    def check(content):
        (tmp_path / "image").write_bytes(content)
        image = only_user_errors(read_picture, str(tmp_path / "image"))
        assert image is None or image.mode == "RGB"

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
        classnames=["a", "b"],
        parameters={"learnable": 3, "total": 4},
        seconds={"train": 1.0},
        git_commit="abc",
        finished="today",
    )
    return root, folder, {path.name: path.read_bytes() for path in folder.iterdir()}


def report_numbers(root, folder):
    """All that a report computes before it draws."""
    found = runs.find_runs([root])
    series, named = runs.group(found), runs.titles([run.setting for run in found])
    for made in (*report.protocol_tables(found, [root]), *report.measured_tables(series, named)):
        render.render(made, "csv")
    report.list_runs(found)
    for run in found:
        runs.training_curve(run)
    for one in runs.with_answers(series):
        assert len(one.answer) == len(one.right) == len(one.pooled("max_probability"))
    return True


def test_records_in_tables_and_reports(finished, tmp_path):
    root, folder, files = finished
    sound = json.loads(files["results.json"])

    @settings(FILES)
    @given(
        content=st.one_of(
            variants(sound).map(lambda tree: json.dumps(tree).encode()),
            damaged(files["results.json"]),
        )
    )
    def check(content):
        (folder / "results.json").write_bytes(content)
        only_user_errors(report_numbers, root, folder)
        only_user_errors(table.collect, root / "fewshot", "ece")

    check()
    (folder / "results.json").write_bytes(files["results.json"])
    assert report_numbers(root, folder)


def test_predictions_in_reports(finished):
    root, folder, files = finished
    arrays = make_answers(1, templates=2)
    shapes = st.sampled_from([(), (0,), (3,), (40,), (40, 4), (2, 40), (40, 0), (1, 1, 1)])
    other = st.tuples(
        st.sampled_from(sorted(arrays)),
        shapes,
        st.sampled_from(["int64", "float32", "U3", "bool", "complex64", "uint8"]),
    )

    def packed(change):
        name, shape, kind = change
        buffer = io.BytesIO()
        numpy.savez(buffer, **{**arrays, name: numpy.zeros(shape, dtype=kind)})
        return buffer.getvalue()

    @settings(FILES)
    @given(content=damaged(files["predictions-test.npz"]) | other.map(packed))
    def check(content):
        (folder / "predictions-test.npz").write_bytes(content)
        only_user_errors(report_numbers, root, folder)

    check()
    (folder / "predictions-test.npz").write_bytes(files["predictions-test.npz"])


def test_metrics_of_a_training(finished):
    root, folder, _ = finished
    write_curve(folder, (1, 2.0, 50.0), (2, 1.0, 75.0))
    path = folder / "metrics.jsonl"
    sound = json.loads(path.read_text().splitlines()[0])

    @settings(FILES)
    @given(
        content=damaged(path.read_bytes())
        | variants(sound).map(lambda tree: json.dumps(tree).encode())
    )
    def check(content):
        path.write_bytes(content)
        (run,) = runs.find_runs([root])
        for curve in runs.training_curve(run).values():
            assert all(
                1 <= epoch < 10**9 and math.isfinite(value) for epoch, value in curve.items()
            )
        assert all(isinstance(part, str) for part in last_progress(str(folder)))

    check()
    path.unlink()


def test_kept_measures_are_whole_or_made_again(tmp_path):
    content, path = {"a": [1.5, None], "b": {"c": "ü"}}, tmp_path / "kept.json"
    write_kept(path, 1, {"of": "x"}, content)

    @settings(FILES)
    @given(content=damaged(path.read_bytes()))
    def check(content):
        path.write_bytes(content)
        found = read_kept(path, 1, {"of": "x"})
        assert found is None or found == whole

    whole = read_kept(path, 1, {"of": "x"})
    assert whole == {**content, "format": 1, "made_from": {"of": "x"}}
    check()


def test_records_of_runs_to_ask(trained, tmp_path):
    folder = trained("CoOp")[1]
    sound = json.loads((folder / "results.json").read_text())

    @settings(FILES)
    @given(content=variants({**sound, "metrics": {}}))
    def check(content):
        (tmp_path / "results.json").write_text(json.dumps(content))

        def load():
            record = record_file.read_record(tmp_path / "results.json")
            return config_of(record, find_trainer(record["trainer"]))

        cfg = only_user_errors(load)
        assert cfg is None or isinstance(cfg.OPTIM.LR, float)

    check()


# ---- weights ----


def test_checkpoints(trained, tmp_path):
    sound = (trained("CoOp")[1] / "prompt_learner" / "model.pth.tar-3").read_bytes()

    @settings(FILES)
    @given(content=damaged(sound))
    def check(content):
        (tmp_path / "model.pth.tar-3").write_bytes(content)
        state = only_user_errors(checkpoint.load, str(tmp_path / "model.pth.tar-3"))
        assert state is None or isinstance(state, dict)

    check()


def test_clip_weights(tmp_path, stock_vit):
    """The ends of the file, where the names are, matter most: its middle is numbers."""
    torch.save(
        {
            key: value[..., :1] if value.dim() else value
            for key, value in stock_vit.state_dict().items()
        },
        tmp_path / "small.pt",
    )
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    for name in ("small.pt", "script.pt"):

        @settings(FILES, max_examples=30)
        @given(content=damaged((tmp_path / name).read_bytes()))
        def check(content):
            (tmp_path / "clip.pt").write_bytes(content)
            assert only_user_errors(load_backbone, str(tmp_path / "clip.pt")) is None

        check()


def test_yaml_is_what_the_configs_are(tmp_path):
    """The control: a sound file is taken."""
    assert config_of_text(tmp_path, yaml.safe_dump({"OPTIM": {"LR": 0.5}})).OPTIM.LR == 0.5
