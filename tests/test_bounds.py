"""Small files that would take all memory, never end, or start a program: each is refused in a line,
within bounded time and memory."""

import ast
import io
import os
import pickle
import resource
import shutil
import struct
import time
import zipfile
from types import SimpleNamespace

import numpy
import pytest
import torch
from dassl.config import get_cfg_default
from dassl.data.datasets import Datum
from PIL import Image

import predict
from app import demo as asked
from datasets.splits import read_split
from protocols.plan import ablation_rows
from tests.runs import prompts_of, refuses
from tests.test_security import code_files
from trainers.common.config_files import merge
from trainers.common.image_files import read_picture
from trainers.common.readers import parse_json, read_arrays
from trainers.common.record_file import read_record
from trainers.data.pickles import read_pickle
from trainers.engine import checkpoint
from trainers.prompting.backbone import load_backbone

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


@pytest.fixture
def bounded():
    """A limit of 2 GB on what this process may take beyond what it has, and of 10 seconds of a
    processor."""
    with open("/proc/self/statm") as file:
        own = int(file.read().split()[0]) * resource.getpagesize()
    before, started = resource.getrlimit(resource.RLIMIT_AS), time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (own + 2 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.process_time() - started < 10


# ---- pictures ----


def test_every_picture_is_opened_with_its_formats_named():
    opened = [
        (path, "formats" in {keyword.arg for keyword in call.keywords})
        for path in code_files()
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Image.open")
    ]
    assert len(opened) >= 3 and all(is_named for _, is_named in opened), opened


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """A stand-in for Ghostscript, which Pillow by itself would start; it leaves a file when started."""
    made = tmp_path / "started"
    program = tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {made}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    with pytest.raises(OSError):
        Image.open(io.BytesIO(EPS)).load()
    assert made.exists(), "the control"
    made.unlink()
    yield
    assert not made.exists(), "a picture has started a program"


def test_no_picture_starts_a_program(interpreter, trained, refusal, data_root, tmp_path, error_of):
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    for path in (root / "dtd/images/banded").iterdir():
        path.write_bytes(EPS)
    assert "can't be read" in refusal(root=root)
    assert f"{path} can't be read" in error_of(predict.main, "--run", trained("CoOp"), path)
    with refuses("that was sent can't be read"):
        sent_to_the_page(EPS)


def sent_to_the_page(content):
    """Has the page keep a picture of that content."""
    file = SimpleNamespace(stream=io.BytesIO(content), filename="x.png")
    classifier = SimpleNamespace(classnames=[], with_classes=list, background="white")
    pictures = asked.Demo(classifier, None)
    return pictures.open(pictures.keep(file))


# ---- text ----

NESTED = "[" * 20_000
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(10 * [f'*{before}'])}]\n"
    for before, name in zip("abcdefgh", "bcdefghi")
)
YAML = {
    "aliases": (ALIASES, "has an alias"),
    "nested": (f"a: {NESTED}", "nested too deeply"),
    "long": ("# " + " " * 2**21, "more than 64 kB"),
    "many": ("a: [" + ("[" * 300 + "a," * 100 + "]" * 300 + ",") * 80 + "]", "nested too deeply"),
    "time": ("a: " + "1:" * 200_000 + "1", "more than 64 kB"),
    "list": ("a: [" + "a, " * 130_000 + "a]", "more than 64 kB"),
    "value": (f"OPTIM:\n  LR: '{'-' * 20_000}1'\n", "nested too deeply"),
}
JSON = {
    "infinite": ('{"a": 1e999}', "the number 1e999 is not finite"),
    "surrogate": (r'["\ud800"]', "a lone surrogate"),
    "nested": (NESTED, "nested too deeply"),
    "nan": ("[NaN]", "the number NaN is not finite"),
}


@pytest.mark.parametrize("kind", YAML)
def test_yaml_is_bounded(bounded, tmp_path, monkeypatch, kind):
    content, message = YAML[kind]
    (tmp_path / "ablations").mkdir()
    path = tmp_path / "ablations/CDC.yaml"
    path.write_text(content)
    with refuses(message):
        merge(get_cfg_default(), str(path), "config file")
    monkeypatch.setattr("trainers.common.recipes.CONFIGS", str(tmp_path))
    if kind != "value":
        with refuses(message):
            ablation_rows("CDC")


@pytest.mark.parametrize("kind", JSON)
def test_json_is_bounded(bounded, tmp_path, kind):
    content, message = JSON[kind]
    path = tmp_path / "x.json"
    path.write_text(content)
    for read in (
        read_record,
        lambda path: read_split(path, tmp_path),
    ):
        with refuses(message):
            read(path)
    with pytest.raises(ValueError, match=message.split(" (")[0]):
        parse_json(content)


def test_a_pipe_is_not_waited_for(bounded, tmp_path, trained, error_of):
    pipe = tmp_path / "x.png"
    os.mkfifo(pipe)
    for read in (
        lambda path: merge(None, path, "config file"),
        lambda path: read_split(path, "."),
        read_record,
        read_picture,
        load_backbone,
        checkpoint.load,
    ):
        with refuses():
            read(str(pipe))
    line = error_of(predict.main, "--run", trained("CoOp"), pipe)
    assert "it is not a regular file" in line


# ---- pickles and archives ----


def test_a_pickle_of_lists_by_reference_is_refused(bounded, tmp_path):
    """Thirty lists, each twice in the next one, whose text would have a billion letters."""
    nested = []
    for _ in range(30):
        nested = [nested, nested]
    path = tmp_path / "shot_2-seed_1.pkl"
    datum = Datum.__new__(Datum)
    datum._impath, datum._label = nested, 0
    path.write_bytes(pickle.dumps({"train": [datum]}))
    with refuses("a Datum whose path is a list and whose label is a int"):
        read_pickle(path, ("train",))


def test_a_pickle_that_claims_much_gets_nothing(bounded, tmp_path):
    for content in (
        b"\x80\x02Nr" + struct.pack("<I", 2**28) + b".",
        b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"abc.",
    ):
        (tmp_path / "x.pkl").write_bytes(content)
        with refuses("is not read"):
            read_pickle(tmp_path / "x.pkl", ("train",))


def inflating(path, member="x/data.pkl", size=2**29):
    """An archive of half a megabyte that unpacks to 512 MB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(member, "w", force_zip64=True) as file,
    ):
        for _ in range(size // 2**24):
            file.write(bytes(2**24))


def test_archives_that_inflate_are_refused(bounded, tmp_path):
    inflating(tmp_path / "x.npz", "label.npy")
    with pytest.raises(ValueError, match="it unpacks to 512 MB"):
        read_arrays(tmp_path / "x.npz")
    for read, message in (
        (checkpoint.load, "can't be read"),
        (load_backbone, "it unpacks to 512 MB"),
    ):
        os.replace(tmp_path / ("x.npz" if read is checkpoint.load else "x.pt"), f"{tmp_path}/x.pt")
        with refuses(message):
            read(f"{tmp_path}/x.pt")


def test_weights_that_claim_more_numbers_than_they_hold_are_refused(bounded, tmp_path):
    weights = {"text_projection": torch.zeros(1, dtype=torch.half).expand(2**40)}
    torch.save(weights, f"{tmp_path}/x.pt")
    with refuses("text_projection has more numbers than are stored"):
        load_backbone(f"{tmp_path}/x.pt")
    numpy.savez(f"{tmp_path}/x.npz", a=numpy.zeros(3))
    assert list(read_arrays(tmp_path / "x.npz")) == ["a"]  # the control


# ---- settings, names, answers ----


def test_names_are_bounded(bounded, loaded):
    own = [f"class {number}" for number in range(2000)]
    with refuses("there are 2000 class names: give at most 1000"):
        asked.Demo(loaded("CoOp"), None).ask(None, own)
    with refuses("is too long: it has 100000 characters"):
        loaded("CoOp").with_classes(["a" * 100_000, "b"])


def test_what_is_no_number_is_never_an_answer(
    refusal, trained, stock_vit, data_root, tmp_path, error_of
):
    state = {name: value.clone() for name, value in stock_vit.state_dict().items()}
    state["visual.proj"][0, 0] = float("nan")
    torch.save(state, path := f"{tmp_path}/broken.pt")
    message = "are not numbers (NaN or infinite)"
    assert message in refusal(trainer="ZeroshotCLIP", backbone=path)
    folder = trained("CDC")
    assert message in refusal(*prompts_of(folder), backbone=path)
    words = "--run", folder, "--backbone", path, "--json", f"{data_root}/dtd/images/woven"
    assert message in error_of(predict.main, *words)
    assert error_of.printed == ""
