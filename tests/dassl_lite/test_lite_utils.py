"""Registry, names, seeds, files, meters, the log, scalars."""

import csv
import importlib.util
import json
import os
import random
import re
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn as nn
from dassl.utils import (
    AverageMeter,
    Logger,
    MetricMeter,
    Registry,
    check_availability,
    check_isfile,
    collect_env_info,
    count_num_param,
    get_most_similar_str_to_a_from_b,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    set_random_seed,
    setup_logger,
    tolist_if_not,
    write_json,
)
from dassl.utils.random_state import get_random_state, set_random_state
from dassl.utils.writer import SummaryWriter
from PIL import Image

# Registry


def test_a_registry_stores_under_the_objects_own_name():
    registry = Registry("THING")

    @registry.register()
    class B:
        pass

    def a():
        pass

    assert registry.register(a) is None
    assert registry.get("B") is B and registry.get("a") is a
    assert registry.registered_names() == ["B", "a"]


def test_a_name_is_taken_once_unless_forced():
    registry = Registry("THING")

    def thing():
        return 1

    registry.register(thing)
    first = thing

    def thing():
        return 2

    with pytest.raises(
        KeyError, match='An object named "thing" was already registered in "THING" registry'
    ):
        registry.register(thing)
    assert registry.get("thing") is first
    registry.register(thing, force=True)
    assert registry.get("thing") is thing


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError, match='Object name "X" does not exist in "THING" registry'):
        Registry("THING").get("X")


# Names


def test_check_availability_names_the_nearest():
    assert check_availability("CoOp", ["CoOp", "CoCoOp"]) is None
    with pytest.raises(ValueError) as err:
        check_availability("Coop", ["MaPLe", "CoOp"])
    assert str(err.value) == (
        "The requested one is expected to belong to ['MaPLe', 'CoOp'], but got [Coop] (do you mean [CoOp]?)"
    )
    with pytest.raises(ValueError, match=r"^OPTIM.NAME: The requested one"):
        check_availability("sgdd", ["sgd"], key="OPTIM.NAME")
    with pytest.raises(
        ValueError, match=r"belong to \[\], but got \[x\] \(do you mean \[None\]\?\)"
    ):
        check_availability("x", [])


def test_of_equally_similar_names_the_later_one_counts():
    assert get_most_similar_str_to_a_from_b("ab", ["abc", "abd", "zz"]) == "abd"
    assert get_most_similar_str_to_a_from_b("ab", ["x", "y"]) == "y"
    assert get_most_similar_str_to_a_from_b("ab", []) is None


def test_tolist_if_not():
    assert tolist_if_not("a") == ["a"]
    assert tolist_if_not(["a"]) == ["a"]
    assert tolist_if_not(None) == [None]


# Seeds


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_every_seed_fixes_all_generators_zero_included(seed):
    set_random_seed(seed)
    got = random.random(), np.random.rand(), torch.rand(3)
    assert got[0] == random.Random(seed).random()
    assert got[1] == np.random.RandomState(seed).rand()
    assert torch.equal(got[2], torch.rand(3, generator=torch.Generator().manual_seed(seed)))


def test_an_impossible_seed_is_refused_and_changes_nothing():
    set_random_seed(5)
    before = random.getstate(), torch.get_rng_state()
    with pytest.raises(ValueError, match="between 0 and 2\\*\\*32 - 1, got -1"):
        set_random_seed(-1)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])


def test_the_random_state_survives_a_file_of_plain_values(tmp_path):
    set_random_seed(3)
    np.random.randn()  # leaves a second normal in numpy's store
    torch.save(get_random_state(), tmp_path / "s")

    def draw():
        return (
            random.random(),
            random.gauss(0, 1),
            np.random.randn(),
            np.random.rand(),
            torch.rand(1).item(),
        )

    expected = draw()
    set_random_seed(4)
    set_random_state(torch.load(tmp_path / "s", weights_only=True))
    assert draw() == expected


# Files


def test_json_is_written_with_indent_four_into_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json({"x": [1, "é"]}, str(path))
    assert path.read_text() == '{\n    "x": [\n        1,\n        "\\u00e9"\n    ]\n}'
    assert read_json(path) == {"x": [1, "é"]}


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "b.json"
    write_json({"x": 1}, path)
    with pytest.raises(TypeError):
        write_json({"x": object()}, path)
    assert json.loads(path.read_text()) == {"x": 1}
    assert os.listdir(tmp_path) == ["b.json"]


def test_folders_and_files(tmp_path):
    mkdir_if_missing(str(tmp_path / "a" / "b"))
    mkdir_if_missing(str(tmp_path / "a" / "b"))
    mkdir_if_missing("")
    for name in ("c", ".hidden", "a2"):
        (tmp_path / name).write_text("")
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "a2", "c"]
    assert sorted(listdir_nohidden(str(tmp_path))) == ["a", "a2", "c"]
    assert check_isfile(str(tmp_path / "c")) is True
    with pytest.warns(UserWarning, match='No file found at ".*nothing"'):
        assert check_isfile(str(tmp_path / "nothing")) is False


def test_images_are_read_as_rgb(tmp_path):
    Image.new("L", (3, 2), 77).save(tmp_path / "grey.png")
    image = read_image(str(tmp_path / "grey.png"))
    assert image.mode == "RGB" and image.size == (3, 2) and image.getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_image_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    if content is None:  # cut off in the middle
        Image.effect_noise((64, 64), 50).save(path)
        content = path.read_bytes()[:200]
    path.write_bytes(content)
    with pytest.raises(OSError, match='Cannot read image ".*broken.png"'):
        read_image(str(path))


def test_a_missing_image_is_named():
    with pytest.raises(FileNotFoundError, match="No file exists at no/where.png"):
        read_image("no/where.png")


def test_environment_info_names_torch_and_pillow(monkeypatch):
    import torch.utils.collect_env as collect_env

    monkeypatch.setattr(collect_env, "get_pretty_env_info", lambda: "PyTorch version: 9.9")
    assert re.fullmatch(r"PyTorch version: 9\.9\n +Pillow \([\d.]+.*\)", collect_env_info())


# Meters


def test_an_average_meter_weighs_by_n():
    meter = AverageMeter()
    meter.update(1.0)
    meter.update(torch.tensor(4.0), n=3)
    assert (meter.val, meter.avg, meter.sum, meter.count) == (4.0, 13 / 4, 13.0, 4)
    meter.reset()
    assert (meter.val, meter.avg, meter.sum, meter.count) == (0, 0, 0, 0)


def test_an_exponential_meter_keeps_nine_tenths():
    meter = AverageMeter(ema=True)
    meter.update(1.0)
    meter.update(2.0)
    assert meter.avg == pytest.approx(0.9 * 0.1 + 0.2)


def test_a_metric_meter_prints_value_and_average():
    meter = MetricMeter()
    meter.update({"loss": torch.tensor(2.0), "acc": 50})
    meter.update(None)
    meter.update({"loss": 1.0, "acc": 100})
    assert str(meter) == "loss 1.0000 (1.5000) acc 100.0000 (75.0000)"
    assert str(MetricMeter()) == ""
    with pytest.raises(TypeError, match="needs a dict of numbers, got list"):
        meter.update([1.0])


# Models


def test_parameters_are_counted_in_models_lists_and_groups():
    model = nn.Linear(3, 2)
    assert count_num_param(model) == 8
    assert count_num_param(params=model.parameters()) == 8
    assert (
        count_num_param(params=[{"params": list(model.parameters())}, {"params": model.bias}]) == 10
    )
    with pytest.raises(ValueError, match="needs a model or params"):
        count_num_param()


# Log


def test_the_log_gets_what_the_console_gets(tmp_path, capsys):
    setup_logger(str(tmp_path / "out"))
    print("a line")
    print("half", end="")
    sys.stdout.flush()
    assert (tmp_path / "out" / "log.txt").read_text() == "a line\nhalf"
    assert capsys.readouterr().out == "a line\nhalf"


@pytest.mark.parametrize("name", ["my.txt", "my.log"])
def test_a_log_file_may_be_named(tmp_path, name):
    setup_logger(str(tmp_path / name))
    print("x")
    assert (tmp_path / name).read_text() == "x\n"


def test_a_log_cut_in_the_middle_of_a_line_goes_on_in_a_new_one(tmp_path):
    (tmp_path / "log.txt").write_text("epoch [3/5] bat")
    setup_logger(str(tmp_path))
    print("next run")
    assert (tmp_path / "log.txt").read_text() == "epoch [3/5] bat\nnext run\n"


def test_no_output_means_no_log():
    before = sys.stdout
    setup_logger(None)
    assert sys.stdout is before


def test_a_second_log_in_one_process_ends_the_first(tmp_path, capsys):
    setup_logger(str(tmp_path / "a"))
    print("first")
    setup_logger(str(tmp_path / "b"))
    print("second")
    assert (tmp_path / "a" / "log.txt").read_text() == "first\n"
    assert (tmp_path / "b" / "log.txt").read_text() == "second\n"
    assert capsys.readouterr().out == "first\nsecond\n"


class Console:
    """A terminal, as far as a program may ask."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return True

    def fileno(self):
        return 7


def test_the_tee_answers_like_the_console(tmp_path, monkeypatch):
    console = Console()
    monkeypatch.setattr(sys, "stdout", console)
    with Logger(str(tmp_path / "log.txt")) as tee:
        assert tee.isatty() is True and tee.fileno() == 7 and tee.encoding == "utf-8"
        assert tee.write("ü") == 1
        with pytest.raises(AttributeError):
            tee.no_such_thing  # noqa: B018
    tee.write("after closing")
    tee.flush()
    assert console.text == "üafter closing"
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "ü"


def test_a_tee_without_a_file_only_passes_on(monkeypatch):
    console = Console()
    monkeypatch.setattr(sys, "stdout", console)
    tee = Logger()
    tee.write("x")
    tee.flush()
    tee.close()
    assert console.text == "x"


# Scalars


def without_tensorboard(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "tensorboard" else real(name, *a),
    )


def test_without_tensorboard_scalars_are_kept_as_csv(tmp_path, monkeypatch):
    without_tensorboard(monkeypatch)
    for run in range(2):  # the second appends
        writer = SummaryWriter(log_dir=str(tmp_path / "tb"))
        writer.add_scalar("train/loss", torch.tensor(0.5), run)
        writer.flush()
        writer.close()
    writer = SummaryWriter(log_dir=str(tmp_path / "tb"))
    writer.add_scalar("test/accuracy", 33.3)
    rows = list(csv.DictReader((tmp_path / "tb" / "scalars.csv").open()))
    assert [(r["step"], r["tag"], float(r["value"])) for r in rows] == [
        ("0", "train/loss", 0.5),
        ("1", "train/loss", 0.5),
        ("", "test/accuracy", 33.3),
    ]


def test_with_tensorboard_its_writer_is_used(tmp_path, monkeypatch):
    calls = []

    class Fake:
        def __init__(self, log_dir, **kwargs):
            calls.append(("new", log_dir, kwargs))

        def add_scalar(self, *args):
            calls.append(args)

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: "here" if name == "tensorboard" else real(name, *a),
    )
    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Fake)
    )
    writer = SummaryWriter(log_dir="d", flush_secs=3)
    writer.add_scalar("a", 1.0, 2)
    assert calls == [("new", "d", {"flush_secs": 3}), ("a", 1.0, 2)]
