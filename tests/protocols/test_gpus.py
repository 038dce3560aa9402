"""run.py on several GPUs, which are pretended: who is told which, when, and the same numbers."""

import contextlib
import json
import random
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import run as protocol_run
from protocols import launch
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.gpus import visible_gpus
from protocols.runs import plan_runs
from tests.runs import PATIENCE, call, make_small_options, record_of
from trainers.common.errors import UserError
from trainers.common.same_run import changes


@pytest.fixture
def gpus(monkeypatch):
    """``gpus(number)``: as many are pretended."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def pretend(number):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)

    return pretend


@pytest.mark.parametrize(
    "number, chosen, names",
    [
        (0, None, []),
        (3, None, ["0", "1", "2"]),
        (2, "5,3", ["5", "3"]),
        (1, "GPU-8932f937", ["GPU-8932f937"]),
        (0, "", []),
        (1, "2,-1,3", ["2"]),  # CUDA sees none after a wrong one
    ],
)
def test_gpus_are_called_what_the_user_calls_them(gpus, monkeypatch, number, chosen, names):
    gpus(number)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == names


class Machine:
    """Runs that go on until they are ended, one at a time; stands in for ``Popen``."""

    def __init__(self):
        self.running, self.order = {}, []
        self.changed = threading.Condition()

    def start(self, command, env, **_):
        folder = command[command.index("--output-dir") + 1]
        ended = threading.Event()

        def wait():
            assert ended.wait(PATIENCE)
            return 0

        with self.changed:
            self.running[folder] = env.get("CUDA_VISIBLE_DEVICES"), ended
            self.order.append(folder)
            self.changed.notify_all()
        return contextlib.nullcontext(SimpleNamespace(wait=wait, terminate=ended.set))

    def wait_for(self, number):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.running) >= number, PATIENCE)
            return [gpu for gpu, _ in self.running.values()]

    def end(self, folder):
        Path(folder).mkdir(parents=True)
        Path(folder, "results.json").write_text("{}")
        with self.changed:
            self.running.pop(folder)[1].set()


@pytest.mark.parametrize("number, jobs", [(4, 1), (2, 2), (3, 2), (0, 3)])
def test_each_run_has_a_gpu_and_none_is_idle_while_a_run_waits(
    gpus, monkeypatch, tmp_path, number, jobs
):
    """Trainings with one, four and ten tests; runs end in any order."""
    gpus(number)
    machine, draws = Machine(), random.Random(number)
    monkeypatch.setattr(launch, "Popen", machine.start)
    monkeypatch.setattr(launch, "record_of", lambda folder: {"is": Path(folder).is_dir()})
    words = "--protocol xd dg base2new --dataset imagenet --backbone tiny --trainer CoOp CDC"
    args = protocol_run.parse_arguments(
        [*words.split(), "--seeds", "1", "--output", f"{tmp_path}/o", "--jobs", str(jobs)]
    )
    runs = plan_runs(args)
    maker = launch.Processes(args, visible_gpus())
    thread = threading.Thread(target=launch.make_all, args=(runs, [], maker))
    thread.start()
    model_of = {run.folder: run.model for run in runs}
    left, ended = set(model_of), set()
    while left:
        ready = [folder for folder in left if model_of[folder] in (None, *ended)]
        expected = min(len(ready), jobs * max(1, number))
        told = machine.wait_for(expected)
        assert len(told) == expected
        assert set(machine.running) <= set(ready)
        counts = [told.count(str(gpu)) for gpu in range(number)]
        assert sum(counts) == (expected if number else 0)
        assert len(ready) < number * jobs or set(counts) <= {jobs}
        assert max(counts, default=0) <= jobs
        folder = draws.choice(sorted(machine.running))
        machine.end(folder)
        left.remove(folder)
        ended.add(folder)
    thread.join(PATIENCE)
    assert sorted(machine.order) == sorted(model_of)


def test_a_setting_that_wants_the_cpu_gets_no_gpu(gpus, tmp_path):
    gpus(4)
    args = SimpleNamespace(ray=None, jobs=2)
    for use, at_once in ((True, 8), (False, 2)):
        maker = launch.maker_of(args, [SimpleNamespace(USE_CUDA=use, DEVICE="auto")])
        assert maker.at_once == at_once


WORDS = "--protocol base2new --trainer CoOp --dataset dtd --config tiny --shots 4 --seeds 1"


@pytest.mark.parametrize("place", ["--device", "DEVICE"])
@pytest.mark.parametrize(
    "device, told", [("auto", ["0", "1"]), ("cuda", ["0", "1"]), ("cuda:1", [])]
)
def test_runs_are_on_all_gpus_or_on_the_one_that_is_named(
    gpus, monkeypatch, data_root, place, device, told
):
    """And are the same runs: a finished one is done on any other device."""
    gpus(2)
    named = ["--device", device] if place == "--device" else ["--", "DEVICE", device]
    args = protocol_run.parse_arguments([*WORDS.split(), "--root", str(data_root), *named])
    (run, _) = plan_runs(args)
    cfg = launch.wanted_config(run, args)
    maker = launch.maker_of(args, [cfg])
    assert [*maker.on_gpu] == told
    assert maker.at_once == max(1, len(told))
    started = []

    def start(command, env, **_):
        started.append((command, env.get("CUDA_VISIBLE_DEVICES")))
        return contextlib.nullcontext(SimpleNamespace(wait=lambda: 0))

    monkeypatch.setattr(launch, "Popen", start)
    assert maker.make(run) == 0
    ((command, visible),) = started
    assert visible == (told[0] if told else None), "the process sees the GPU that it is to find"
    there = build_config(parse_arguments(command[command.index("--with-parent") :]))
    assert there.DEVICE == device
    usual = launch.wanted_config(run, protocol_run.parse_arguments(WORDS.split()))
    assert not changes(there, {"config": json.loads(json.dumps(usual))})


@pytest.mark.parametrize(
    "device, more, line",
    [
        (
            "cuda:2",
            (),
            "the device is cuda:2, and torch sees 2 of CUDA's and 0 of Apple's GPUs here",
        ),
        ("mps", (), "the device is mps, and torch sees 2 of CUDA's"),
        ("gpu", (), "the device is 'gpu': give auto, cpu, cuda, cuda:1 or mps"),
        ("gpu", ("--plan",), "the device is 'gpu': give auto"),
        (
            "cuda:1",
            ("--slurm", "gpus=1"),
            "a cluster chooses the GPU of each run: give --device cuda",
        ),
        ("cuda:1", ("--ray", "auto"), "a cluster chooses the GPU of each run: give --device cuda"),
    ],
)
def test_a_device_that_cant_be_is_refused_before_a_run_starts(
    gpus, monkeypatch, data_root, tmp_path, capsys, device, more, line
):
    gpus(2)
    monkeypatch.setattr(launch, "Popen", None)
    words = [*WORDS.split(), "--root", data_root, "--output", tmp_path / "o", "--device", device]
    assert call(protocol_run.main, *words, *more) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_without_a_gpu_cuda_is_refused(gpus):
    gpus(0)
    with pytest.raises(UserError, match="the device is cuda, and torch sees 0 of CUDA's"):
        launch.maker_of(SimpleNamespace(ray=None, jobs=1), [SimpleNamespace(DEVICE="cuda")])


def test_where_a_training_fails_nothing_else_is_started(gpus, monkeypatch, tmp_path):
    gpus(2)
    args = protocol_run.parse_arguments(
        f"--protocol base2new --trainer CoOp --seeds 1 2 3 --output {tmp_path}/o".split()
    )
    maker = launch.Processes(args, visible_gpus())
    started = []

    def make(run):
        started.append(run.folder)
        return 1

    monkeypatch.setattr(maker, "make", make)
    with pytest.raises(UserError, match="failed"):
        launch.make_all(plan_runs(args), [], maker)
    assert len(started) <= 2


@pytest.mark.slow
def test_four_pretended_gpus_give_the_numbers_of_one_process(
    gpus, data_root, small_clip_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # several threads add in another order

    def start(output, number):
        gpus(number)
        words = f"--protocol base2new --trainer CoOp CDC --dataset dtd --config tiny --shots 4 --seeds 1 2 --root {data_root} --output {tmp_path}/{output}"
        options = make_small_options(small_clip_file, 2)
        assert call(protocol_run.main, *words.split(), "--", *options) == 0
        return capsys.readouterr()

    one, four = start("one", 0), start("four", 4)
    assert one.out == four.out
    assert "4 GPUs: 1 run on each" in four.err
    for path in (tmp_path / "one").rglob("results.json"):
        other = tmp_path / "four" / path.relative_to(tmp_path / "one")
        first, second = record_of(path.parent), json.loads(other.read_text())
        assert first["metrics"] == second["metrics"]
        assert first["prompts_hash"] == second["prompts_hash"]
