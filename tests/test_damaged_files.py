"""Files that are damaged, and files that the machine can't give: each is told in one line that names
the file, and the one is never taken for the other."""

import builtins
import errno
import io
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from dassl.config import get_cfg_default
from dassl.data.datasets import Datum

from datasets.splits import read_split
from labelling.threshold import read_validation
from results.kept import KEPT_FILE, UNCERTAINTY_FILE, read_kept, write_kept
from results.runs import FinishedRun
from tests.runs import REPOSITORY, contents_of, record_of, refuses
from train import main
from trainers.common.config_files import merge
from trainers.common.errors import exit_code
from trainers.common.record_file import read_record
from trainers.data.class_folders import read_classnames
from trainers.data.pickles import read_pickle
from trainers.engine import checkpoint
from trainers.prompting.backbone import load_backbone
from trainers.texts.descriptions import read_descriptions


def answers_in(path):
    folder = Path(path).parent
    return FinishedRun(folder, record_of(folder)).answers


READERS = {
    "model.pth.tar-3": checkpoint.load,
    "results.json": read_record,
    "predictions-val.npz": lambda path: read_validation(os.path.dirname(path)),
    "predictions-test.npz": answers_in,
    "small.pt": load_backbone,
    "split.json": lambda path: read_split(path, "."),
    "sample.pkl": lambda path: read_pickle(path, ["train"]),
    "descriptions.json": lambda path: read_descriptions(path, ["ant"]),
    "config.yaml": lambda path: merge(get_cfg_default(), path, "config file"),
    "classnames.txt": read_classnames,
}


@pytest.fixture(scope="module")
def sound(trained, small_clip_file, data_root, tmp_path_factory):
    """A folder with a sound file of each kind."""
    folder = shutil.copytree(trained("CoOp"), tmp_path_factory.mktemp("sound") / "run")
    shutil.copy(folder / "prompt_learner/model.pth.tar-3", folder)
    shutil.copy(small_clip_file, folder)
    shutil.copy(f"{data_root}/dtd/split_zhou_DescribableTextures.json", folder / "split.json")
    datum = Datum.__new__(Datum)  # as CoOp writes it
    vars(datum).update(_impath="a.png", _label=0, _domain=0, _classname="ant")
    (folder / "sample.pkl").write_bytes(pickle.dumps({"train": [datum]}))
    (folder / "descriptions.json").write_text(json.dumps({"ant": ["It has six legs."]}))
    (folder / "config.yaml").write_text("INPUT: {SIZE: [64, 64]}")
    (folder / "classnames.txt").write_text("n01 shark\nn02 cock")
    return folder


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_or_missing_file_is_refused_in_a_line_that_names_it(sound, name):
    path = sound / name
    READERS[name](str(path))
    content = path.read_bytes()
    for damaged in (content[: len(content) * 3 // 4], b"\xff\xfe[{", b"[" * 100_000):
        path.write_bytes(damaged)
        with refuses(name):
            READERS[name](str(path))
    path.unlink()
    if name != "predictions-test.npz":  # a run may have no answers to test images
        with refuses(name):
            READERS[name](str(path))
    path.write_bytes(content)


def test_texts_are_read_as_utf_8_with_a_mark_or_without_and_in_no_other_encoding(tmp_path):
    path = tmp_path / "classnames.txt"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("a Kühe\nb Pferde\n", encoding=encoding)
        assert read_classnames(path) == {"a": "Kühe", "b": "Pferde"}
    path.write_text("a Kühe\n", encoding="latin-1")
    with refuses("classnames.txt can't be read .ValueError: it is not UTF-8 .*: save it as UTF-8"):
        read_classnames(path)


@pytest.mark.parametrize(
    ("text", "key", "line", "before"),
    [
        ("SEED: 1\nOPTIM:\n  LR: 0.1\nSEED: 2\n", "SEED", 4, 1),
        ("SEED: 1\nOPTIM:\n  LR: 0.1\n  NAME: sgd\n  LR: 0.2\n", "LR", 5, 3),
        ("OPTIM: {LR: 0.1, LR: 0.1}\n", "LR", 1, 1),
    ],
)
def test_a_config_with_a_key_twice_is_refused_with_both_lines(tmp_path, text, key, line, before):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with refuses(f"config.yaml: the key {key} of line {line} stands in line {before} already"):
        merge(get_cfg_default(), str(path), "config file")


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(".json")])
def test_a_file_of_json_with_a_key_twice_is_refused_with_the_key(sound, name):
    path = sound / name
    text = path.read_text()
    for place in [found.end() for found in re.finditer("{", text)][:2]:  # an inner one, too
        path.write_text(f'{text[:place]}"kept": 1, "other": [], "kept": 1, {text[place:]}')
        with refuses(f"{name} .*the key kept stands in one object twice: leave one of them out"):
            READERS[name](str(path))
    path.write_text(text)


def places_of(pattern):
    """Product files that have a pattern."""
    places = []
    for folder in ("trainers", "labelling", "protocols", "datasets", "results", "report"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if re.search(pattern, path.read_text("utf-8")):
                places.append(path.relative_to(REPOSITORY).as_posix())
    return sorted(places)


def test_all_yaml_that_may_be_a_users_is_read_by_one_loader():
    """Beside it stand Dassl's own defaults, which have Python's tuples."""
    places = places_of(r"yaml\.\w*load|merge_from_file")
    assert places == ["trainers/common/readers.py", "trainers/settings.py"]


def test_all_json_that_may_be_a_users_is_read_by_one_reader():
    """Beside it stand rows that a labelling has written itself, and the text of an exported script."""
    own = ["labelling/answers/part_file.py", "labelling/export.py"]
    places = places_of(r"json\.loads?\((?!json\.dumps)")
    assert places == [*own, "trainers/common/readers.py"]


FAULTS = {
    "memory": lambda: MemoryError(),
    "disk": lambda: OSError(errno.EIO, "Input/output error"),
    "right": lambda: PermissionError(errno.EACCES, "Permission denied"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", READERS)
def test_what_the_machine_refuses_is_told_as_that_and_never_as_a_damaged_file(
    sound, monkeypatch, capsys, name, fault
):
    """The fault is that of opening the file, whatever opens it."""
    path, original = str(sound / name), open

    def refused(opened, *rest, **named):
        if str(opened) == path:
            raise FAULTS[fault]()
        return original(opened, *rest, **named)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", refused)
    capsys.readouterr()
    assert exit_code(READERS[name], path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    if fault == "memory":
        assert "memory is used up" in line
    else:
        assert f"{path}: {FAULTS[fault]().strerror}: " in line
    for advice in ("delete", "cut", "run it again", "damaged", "can't be read"):
        assert advice not in line


def test_a_training_that_can_not_look_at_what_is_there_is_not_begun_anew(
    copied, arguments, monkeypatch, capsys
):
    folder = copied("CoOp")
    before = contents_of(folder, "log.txt")

    def refused(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", refused)
    assert main(arguments("CoOp", folder=folder)) == 2
    assert "memory is used up" in capsys.readouterr().err
    assert contents_of(folder, "log.txt") == before


def test_measures_that_are_damaged_or_another_runs_are_not_taken(tmp_path):
    record = dict.fromkeys(("prompts_hash", "backbone_hash", "split_hash", "finished"), "x")
    for name in (KEPT_FILE, UNCERTAINTY_FILE):
        write_kept(tmp_path, record, {"a": [1.5, None]}, {"d": numpy.arange(3)})
        assert read_kept(tmp_path, record)["a"] == [1.5, None]
        os.truncate(tmp_path / name, 100)
        assert read_kept(tmp_path, record) is None
    write_kept(tmp_path, record, {"a": 1}, {})
    for key in record:
        assert read_kept(tmp_path, {**record, key: "y"}) is None
