"""One run in two processes against the same run in one."""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from ast import literal_eval
from unittest import mock

import numpy
import pytest
import torch
from dassl.utils import set_random_seed
from hypothesis import given
from hypothesis import strategies as st

from protocols import training as train
from tests.conftest import REPOSITORY, base_arguments, in_turn, make_textures
from tests.trainers.test_every_trainer import TRAINERS
from trainers import distributed
from trainers.base import PromptTrainer
from trainers.common.config_files import flatten
from trainers.common.errors import UserError
from trainers.common.interruption import REQUEUE
from trainers.data.loader import FACTS
from trainers.engine.precision import Precision
from trainers.engine.saved_prompts import MODEL_NAME

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["train"])
QUIET = ("OPTIM.LR", "0.002")  # CoOp's rate; the small recipe's magnifies roundings
BASE = (
    "DATASET.SUBSAMPLE_CLASSES",
    "base",
)  # three classes, which two processes can't share equally

pytestmark = pytest.mark.usefixtures("one_thread")


def serve(rank, connection):
    """A process of the pair: calls what it is sent as ``torchrun``'s process ``rank`` of two, answers (result, standard error)."""
    multiprocessing.set_start_method(
        "fork", force=True
    )  # of loaders' workers, as in a process that torchrun starts
    torch.set_num_threads(1)
    train.collect_env_info = lambda: "left out in tests"
    while True:
        try:
            port, function, arguments = connection.recv()
        except EOFError:  # the tests have ended
            return
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        with (
            contextlib.redirect_stderr(io.StringIO()) as errors,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            try:
                answer = function(*arguments)
            except SystemExit as end:
                answer = end.code
            except Exception:
                answer = traceback.format_exc()
            distributed.leave()
        connection.send((answer, errors.getvalue()))


@pytest.fixture(scope="module")
def pair():
    """Two processes on this machine: ``pair(function, *arguments)`` → what it returned in each; ``pair.errors`` what they said."""
    ends, processes = [], []
    for rank in range(2):
        ours, theirs = PROCESSES.Pipe()
        processes.append(PROCESSES.Process(target=serve, args=(rank, theirs)))
        processes[-1].start()
        theirs.close()
        ends.append(ours)

    def call(function, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for end in ends:
            end.send((port, function, arguments))
        for end in ends:
            assert end.poll(300), "a process of the pair hangs"
        answers, call.errors = zip(*(end.recv() for end in ends))
        return answers

    yield call
    for process in processes:
        process.kill()


@pytest.fixture
def divided(pair, data_root, small_clip_file, tmp_path):
    """A run by the pair: ``divided(trainer, *options)`` → its folder."""

    def start(trainer, *options, name="divided"):
        folder = tmp_path / name
        assert pair(
            train.main, [*base_arguments(trainer, data_root, small_clip_file, folder), *options]
        ) == (0, 0), pair.errors
        return folder

    return start


def prompts(folder, epoch=3):
    return torch.load(folder / MODEL_NAME / f"model.pth.tar-{epoch}", weights_only=True)[
        "state_dict"
    ]


def files(folder):
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "tensorboard"
    }


def assert_same_run(folder, expected):
    """The same files, prompts, metrics and answers; calibration errors, which are in percent, to 1e-6 of one, all else to 1e-6."""
    assert files(folder) == files(expected)
    if (expected / MODEL_NAME).exists():
        for name, known in prompts(expected).items():
            torch.testing.assert_close(
                prompts(folder)[name],
                known,
                rtol=1e-6,
                atol=1e-6,
                msg=lambda text, name=name: f"{name}: {text}",
            )
    found, metrics = (
        flatten(json.loads((path / "results.json").read_text())["metrics"])
        for path in (folder, expected)
    )
    for name in metrics:
        near = {"abs": 1e-4} if name.endswith("ece") else {"rel": 1e-6, "abs": 1e-6}
        assert found[name] == metrics[name] or literal_eval(found[name]) == pytest.approx(
            literal_eval(metrics[name]), **near
        ), name
    answers, before = (numpy.load(path / "predictions-test.npz") for path in (folder, expected))
    assert list(answers["image"]) == list(before["image"]) and list(answers["label"]) == list(
        before["label"]
    )
    assert numpy.allclose(
        answers["top_probability"], before["top_probability"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", in_turn(TRAINERS))
def test_two_processes_are_one_run(divided, trained, name):
    assert_same_run(divided(name, *QUIET), trained(name, *QUIET)[1])


def test_features_that_two_processes_have_kept_are_taken_by_both(divided, tmp_path):
    """CoCoOp's texts depend on the image: each process has the features of all images, and a share of the classes."""
    kept = ("TEST.FEATURE_CACHE", str(tmp_path / "cache"))
    expected = divided("CoCoOp", *QUIET, name="plain")
    for name in ("first", "second"):
        assert_same_run(divided("CoCoOp", *QUIET, *kept, name=name), expected)
        assert len(list((tmp_path / "cache").iterdir())) == 2  # of val and test


@pytest.mark.parametrize(
    "options",
    [
        ("DATALOADER.TRAIN_X.BATCH_SIZE", "5", "DATALOADER.TEST.BATCH_SIZE", "11", *BASE),
        (
            "TRAINER.CDC.AUGMENTATION",
            "2",
            "TRAINER.CDC.CONSISTENCY_WEIGHT",
            "3.0",
            "TRAINER.CDC.TEXT_CHUNK",
            "2",
        ),
        ("TEST.FINAL_MODEL", "best_val", "DATALOADER.NUM_WORKERS", "1"),
    ],
    ids=["uneven shares", "more losses", "best epoch"],
)
def test_two_processes_are_one_run_of_cdc(divided, trained, options):
    assert_same_run(divided("CDC", *QUIET, *options), trained("CDC", *QUIET, *options)[1])


def test_a_process_may_have_no_image_of_a_batch(divided, trained):
    options = (
        *QUIET,
        *BASE,
        "DATALOADER.TRAIN_X.BATCH_SIZE",
        "1",
        "OPTIM.MAX_EPOCH",
        "1",
        "OPTIM.WARMUP_EPOCH",
        "0",
    )
    folder, known = divided("CoCoOp", *options), trained("CoCoOp", *options)[1]
    for name, value in prompts(known, epoch=1).items():
        torch.testing.assert_close(prompts(folder, epoch=1)[name], value, rtol=1e-6, atol=1e-6)


# ---- beginning and end ----


def cut(folder, copy):
    """A copy of a run that was stopped after its second epoch."""
    shutil.copytree(
        folder, copy, ignore=shutil.ignore_patterns("model.pth.tar-3", "*.json", "*.npz", "log.txt")
    )
    (copy / MODEL_NAME / "checkpoint").write_text("model.pth.tar-2\n")


def test_a_run_goes_on_in_another_number_of_processes(divided, trained, run, tmp_path):
    options = (*QUIET, "TRAIN.CHECKPOINT_FREQ", "1", "OPTIM.NAME", "adamw")
    whole = trained("PromptSRC", *options)[1]
    cut(whole, tmp_path / "more")
    more = divided("PromptSRC", *options, name="more")
    assert "2 epochs and 0 steps done" in (more / "log.txt").read_text()
    assert_same_run(more, whole)
    cut(more, tmp_path / "fewer")
    assert_same_run(run("PromptSRC", *options, name="fewer")[2], whole)


def train_until_one_is_asked_to_stop(arguments):
    step = PromptTrainer.forward_backward

    def signalled(self, batch):
        if (self.epoch, self.batch_idx, distributed.rank()) == (1, 1, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    PromptTrainer.forward_backward = signalled
    try:
        return train.main(arguments)
    finally:
        PromptTrainer.forward_backward = step


def test_a_signal_to_one_process_stops_both_behind_the_same_step(
    pair, divided, trained, data_root, small_clip_file, tmp_path
):
    codes = pair(
        train_until_one_is_asked_to_stop,
        [*base_arguments("CDC", data_root, small_clip_file, tmp_path / "divided"), *QUIET],
    )
    assert codes == (REQUEUE, REQUEUE)
    assert "".join(pair.errors).count("SIGTERM: checkpoint") == 1
    folder = divided("CDC", *QUIET)
    assert "1 epochs and 2 steps done" in (folder / "log.txt").read_text()
    assert_same_run(folder, trained("CDC", *QUIET)[1])


def test_what_is_wrong_in_all_processes_is_said_once(pair, data_root, small_clip_file, tmp_path):
    codes = pair(
        train.main,
        [
            *base_arguments("CDC", data_root, small_clip_file, tmp_path / "out"),
            "TRAINER.CDC.FUSION",
            "vote",
        ],
    )
    assert sorted(codes) == [1, 2]
    said = "".join(pair.errors)
    assert said.startswith("error: TRAINER.CDC.FUSION is 'vote'") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_in_one_process_ends_both(pair, small_clip_file, tmp_path):
    make_textures(tmp_path, sizes=(4, 1, 4))
    (broken,) = (tmp_path / "dtd").rglob(
        "striped/05.png"
    )  # among the test images of the first batch the tenth: the second process's
    broken.write_bytes(b"no image")
    codes = pair(
        train.main, base_arguments("ZeroshotCLIP", str(tmp_path), small_clip_file, tmp_path / "out")
    )
    assert codes == (1, 2)
    assert "error" not in pair.errors[0].lower() and pair.errors[1].count("error: image") == 1
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_loss_that_is_no_number_leaves_the_whole_batch(
    pair, data_root, small_clip_file, tmp_path
):
    arguments = base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out")
    codes = pair(train.main, [*arguments, "OPTIM.LR", "1e38", "OPTIM.WARMUP_EPOCH", "0"])
    assert sorted(codes) == [1, 2]
    kept = torch.load(tmp_path / "out" / "failed_batch.pt", weights_only=True)
    assert (
        kept["images"].shape == (1, 8, 3, 32, 32) and len(kept["labels"]) == len(kept["paths"]) == 8
    )


def test_broken_images_are_not_skipped_by_several_processes(
    pair, data_root, small_clip_file, tmp_path
):
    arguments = base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out")
    assert sorted(pair(train.main, [*arguments, "DATALOADER.BROKEN_IMAGES", "skip"])) == [1, 2]
    assert "error: DATALOADER.BROKEN_IMAGES skip is for one process" in "".join(pair.errors)


def train_from_own_seed(arguments):
    return train.main([*arguments, "--seed", os.environ["RANK"]])


def test_processes_with_different_data_are_refused(pair, data_root, small_clip_file, tmp_path):
    codes = pair(
        train_from_own_seed, base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out")
    )
    assert sorted(codes) == [1, 2]
    assert "".join(pair.errors).startswith("error: processes 0 and 1 differ in their data")


def test_an_unseeded_run_starts_alike_in_all_processes(pair, data_root, small_clip_file, tmp_path):
    arguments = base_arguments("CoOp", data_root, small_clip_file, tmp_path / "out", seed=-1)
    assert pair(train.main, [*arguments, "OPTIM.MAX_EPOCH", "1", "OPTIM.WARMUP_EPOCH", "0"]) == (
        0,
        0,
    ), pair.errors


def test_torchrun_starts_it(data_root, small_clip_file, tmp_path, trained):
    folder = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "train.py",
    ]
    done = subprocess.run(
        [*command, *base_arguments("CoOp", data_root, small_clip_file, folder), *QUIET],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Finish training") == 1
    assert_same_run(folder, trained("CoOp", *QUIET)[1])
    assert json.loads((folder / "results.json").read_text())["processes"] == 2


# ---- shares ----


def test_a_share_of_a_batch_is_what_the_whole_has_in_its_place(run):
    dataset = run("CoOp", flags=("--no-train",))[0].train_loader_x.dataset
    indices = [3, 1, 8, 0, 5]
    set_random_seed(1)
    whole = dataset.__getitems__(indices)
    for process in range(2):
        dataset.process = process, 2
        set_random_seed(1)
        share = dataset.__getitems__(indices)
        own = range(5)[distributed.share(5, process, 2)]
        for place, (item, known) in enumerate(zip(share, whole)):
            assert all(item[name] == known[name] for name in FACTS)
            assert ("img" in item) == (place in own)
            assert "img" not in item or all(map(torch.equal, item["img"], known["img"]))


@given(st.integers(1, 40), st.integers(1, 12))
def test_shares_follow_each_other_without_gap_or_duplicate_and_differ_by_one_at_most(
    total, processes
):
    bounds = [distributed.bounds(total, rank, processes) for rank in range(processes)]
    assert [place for first, end in bounds for place in range(first, end)] == list(range(total))
    sizes = [end - first for first, end in bounds]
    assert max(sizes) - min(sizes) <= 1
    for rank, size in enumerate(sizes):
        assert len(range(total)[distributed.share(total, rank, processes)]) == max(1, size)


def steps_of_which_one_overflows():
    """Two steps along a loss whose gradient is 1 in the first process and 2 in the second, but infinite there in the first step."""
    with distributed.joined():
        precision = Precision("fp32", torch.device("cpu"))
        precision.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        parameter = torch.nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        for second in (float("inf"), 2.0):
            precision.step((parameter * (second if distributed.rank() else 1.0)).sum(), optimizer)
        return parameter.tolist(), precision.scaler.get_scale()


def test_an_overflow_in_one_process_is_skipped_by_both(pair):
    assert pair(steps_of_which_one_overflows) == (([-1.5, -1.5], 2.0),) * 2


def gpu_of_one_that_is_there():
    with (
        distributed.joined(),
        mock.patch("torch.cuda.device_count", return_value=1),
        mock.patch("torch.cuda.set_device") as chosen,
    ):
        try:
            distributed.choose_gpu()
        except UserError as error:
            return str(error)
        return chosen.call_args.args


def test_each_process_of_a_machine_needs_a_gpu(pair):
    first, second = pair(gpu_of_one_that_is_there)
    assert first == (0,) and second.startswith("process 1 of this machine has no GPU, there are 1")


def loss_of_shares(weight, texts, images):
    """Gradient of a loss of every image and text, each process having mapped its own only, and of a term that has neither."""
    with distributed.joined():
        weight = weight.clone().requires_grad_()
        features = [
            distributed.gathered(
                table[:, distributed.own_share(table.shape[1])] @ weight,
                dim=1,
                total=table.shape[1],
            )
            for table in (texts, images)
        ]
        loss = (features[1] @ features[0].transpose(1, 2)).sin().sum() + weight.square().sum()
        (gradient,) = distributed.averaged(torch.autograd.grad(loss, weight))
        return loss.item(), gradient


@pytest.mark.parametrize("classes, images", [(7, 4), (1, 3), (6, 1)])
def test_the_averaged_gradient_is_that_of_the_whole_loss(pair, classes, images):
    weight, texts, pictures = (
        torch.randn(5, 3, dtype=torch.double),
        torch.randn(4, classes, 5).double(),
        torch.randn(4, images, 5).double(),
    )
    expected = weight.clone().requires_grad_()
    whole = (
        (pictures @ expected) @ (texts @ expected).transpose(1, 2)
    ).sin().sum() + expected.square().sum()
    whole.backward()
    for loss, gradient in pair(loss_of_shares, weight, texts, pictures):
        assert loss == pytest.approx(whole.item(), rel=1e-12)
        torch.testing.assert_close(gradient, expected.grad, rtol=1e-12, atol=1e-12)
