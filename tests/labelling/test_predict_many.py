"""predict.py on more pictures than a process lives for, or memory holds: it goes on after a kill, reads
ahead by one batch, and spreads over a Ray cluster."""

import contextlib
import os
import shutil
import signal
import threading
import weakref
from itertools import count
from unittest.mock import patch

import numpy
import pandas
import pytest

import predict
from labelling import classifier as prompted
from labelling.answers.part_file import PartFile
from tests.children import PROCESSES
from tests.runs import PATIENCE, REPOSITORY, call

BATCHES = 6  # of the 90 pictures


@pytest.fixture
def run(trained):
    return str(trained("CDC"))


@pytest.fixture
def pictures(data_root, tmp_path):
    """A folder of 90 pictures, one of which is broken."""
    place = shutil.copytree(f"{data_root}/dtd/images", tmp_path / "pictures")
    (place / "grid/03.png").write_bytes(b"no image")
    return str(place)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def label_and_die(words, batch, moment):
    """Labels up to a batch, and is killed when it is answered, or while it is being written."""
    add, transaction, number = PartFile.add, PartFile.transaction, count(1)

    @contextlib.contextmanager
    def killed(part):
        with transaction(part):
            yield
            die()

    def add_some(part, *answers):
        if next(number) < batch:
            add(part, *answers)
            return
        if moment == "within":
            PartFile.transaction = killed
        add(part, *answers)
        die()

    PartFile.add = add_some
    predict.main(words)


def finish(*arguments):
    """Exit code of ``label_and_die``."""
    process = PROCESSES.Process(target=label_and_die, args=arguments)
    with patch.dict(os.environ, PYTHONPATH=str(REPOSITORY)):
        process.start()
    process.join(PATIENCE)
    return process.exitcode


def batches_added(*words):
    """How many batches a command answers to its end."""
    with patch.object(PartFile, "add", autospec=True, side_effect=PartFile.add) as added:
        assert call(predict.main, *words) == 1
    return sum(any(answers.args[1:]) for answers in added.call_args_list)


# ---- a kill ----


@pytest.mark.parametrize(
    "option, order, moments",
    [
        ("--csv", [], [(1, "within"), (2, "after")]),
        ("--csv", ["--least-certain-first", "--min-certainty", "0.3"], [(3, "within")]),
        pytest.param("--parquet", [], [(4, "after")], marks=pytest.mark.slow),
    ],
)
def test_a_command_that_is_killed_goes_on_and_its_table_is_the_same_to_the_byte(
    run, pictures, tmp_path, capsys, option, order, moments
):
    if option == "--parquet":
        pytest.importorskip("pyarrow")
    words = ["--run", run, *order, pictures, option]
    whole = tmp_path / "whole"
    killed = tmp_path / "killed"
    capsys.readouterr()
    assert call(predict.main, *words, whole) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("No answer for 1 image: ")
    assert "03.png" in said
    for batch, moment in moments:
        assert finish([*words, str(killed)], batch, moment) == -signal.SIGKILL
        assert not killed.exists()
        assert os.path.getsize(f"{killed}.part") > 0
    answered = sum(batch if moment == "after" else batch - 1 for batch, moment in moments)
    assert batches_added(*words, killed) == BATCHES - answered
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert killed.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "whole", "killed"}


def test_a_part_file_is_of_one_command_one_run_and_one_list_of_images(
    run, copied, pictures, tmp_path, error_of
):
    table = f"{tmp_path}/labels.csv"
    other = copied("CoOp")
    assert finish(["--run", run, pictures, "--csv", table], 2, "after") == -signal.SIGKILL
    stopped = f"{table}.part holds the answers of a command that was stopped, with other "
    for words, what in (
        (["--run", run, pictures, "--topk", "2"], "--topk"),
        (["--run", run, f"{pictures}/grid"], "images"),
        (["--run", other, pictures], "--run"),
    ):
        assert f"{stopped}{what}: " in error_of(predict.main, *words, "--csv", table)
    assert batches_added("--run", run, pictures, "--csv", table) == BATCHES - 2


def test_two_commands_never_write_the_same_table_at_a_time(run, pictures, tmp_path, error_of):
    words = ["--run", run, pictures, "--csv", tmp_path / "labels.csv"]
    refused = []
    add = PartFile.add

    def add_beside_another(part, *answers):
        add(part, *answers)
        if not refused:
            refused.append(error_of(predict.main, *words))

    with patch.object(PartFile, "add", add_beside_another):
        assert call(predict.main, *words) == 1
    assert "labels.csv.part is being written by another process" in refused[0]
    assert len(pandas.read_csv(tmp_path / "labels.csv")) == 89


def test_a_part_file_of_somebody_is_left_alone(run, pictures, tmp_path, error_of):
    part = tmp_path / "labels.csv.part"
    part.write_bytes(b"my notes")
    line = error_of(predict.main, "--run", run, pictures, "--csv", tmp_path / "labels.csv")
    assert f"{part} exists already, and was not written by this command" in line
    assert part.read_bytes() == b"my notes"


def test_the_last_pictures_may_all_be_broken(run, pictures, tmp_path, capsys):
    paths = [f"{pictures}/grid/00.png", *[f"{pictures}/grid/03.png"] * 37]
    capsys.readouterr()
    assert call(predict.main, "--run", run, *paths, "--csv", tmp_path / "labels.csv") == 1
    assert len(pandas.read_csv(tmp_path / "labels.csv")) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("No answer for 37 images: ")
    assert said.endswith("; and 17 more")


# ---- batches ----


def test_batches_together_are_what_predict_says(loaded, pictures):
    classifier = loaded("CDC")
    paths = sorted(f"{pictures}/grid/{name}" for name in os.listdir(f"{pictures}/grid"))
    many = [*paths, *paths[4:]]
    broken = {}
    whole = classifier.predict(many, [])
    parts = list(classifier.predict_batches(many, broken))
    assert [len(part) for part in parts] == [15, 10]
    assert list(broken) == [3]
    for name in ("probabilities", "uncertainty", "vacuity", "conflict", "votes", "vote_vacuity"):
        joined = numpy.concatenate([getattr(part, name) for part in parts])
        assert numpy.array_equal(joined, getattr(whole, name))
    assert sum((part.labels for part in parts), []) == whole.labels
    assert sum((part.images for part in parts), []) == whole.images
    assert list(classifier.predict_batches([])) == []


def test_a_batch_is_computed_while_the_next_one_is_read(loaded, pictures, monkeypatch):
    """Each computation ends only when the next batch has been read, so that it has to be."""
    classifier = loaded("CoOp")
    answer, read, was_read = classifier.method.answer, classifier.read, threading.Semaphore(0)
    paths = [f"{pictures}/grid/00.png"] * 40  # 16, 16 and 8
    reads = iter([16 + 16, 8, 0])  # of which nothing was known before

    def answer_after_reading(shown, encoded):
        assert all(was_read.acquire(timeout=PATIENCE) for _ in range(next(reads)))
        return answer(shown, encoded)

    def noted(image):
        result = read(image)
        was_read.release()
        return result

    monkeypatch.setattr(classifier.method, "answer", answer_after_reading)
    monkeypatch.setattr(classifier, "read", noted)
    assert len(classifier.predict(paths)) == 40


@pytest.mark.parametrize("option", ["--csv", "--least-certain-first", "--json"])
def test_memory_does_not_grow_with_the_pictures(run, pictures, tmp_path, monkeypatch, option):
    """Of all that is answered three batches are alive at a time: one that is computed, one that is
    written, and one that is handed over."""
    alive = weakref.WeakSet()
    most = []
    made = prompted.Answers.__init__
    monkeypatch.setattr(prompted.Answers, "__hash__", object.__hash__)

    def counted(answers, *arguments, **named):
        made(answers, *arguments, **named)
        alive.add(answers)
        most.append(len(alive))

    monkeypatch.setattr(prompted.Answers, "__init__", counted)
    table = ["--csv", tmp_path / "labels.csv"]
    words = {"--csv": table, "--least-certain-first": [*table, option], "--json": [option]}
    assert call(predict.main, "--run", run, pictures, *words[option]) == 1
    assert len(most) == BATCHES
    assert max(most) <= 3


# ---- forms ----


def test_parquet_is_the_same_table_in_full_precision(run, pictures, tmp_path, error_of):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("csv", "parquet", "parquet"):  # a table of our own is replaced
        assert call(predict.main, "--run", run, pictures, f"--{name}", tmp_path / name) == 1
    table = pandas.read_parquet(tmp_path / "parquet")
    text = pandas.read_csv(tmp_path / "csv")
    assert list(table) == list(text)
    for name in table:
        if table[name].dtype == numpy.float32:
            numpy.testing.assert_allclose(table[name], text[name], rtol=1e-5)
        else:
            assert table[name].dropna().tolist() == text[name].dropna().tolist()
    others = tmp_path / "others.parquet"
    parquet.write_table(parquet.read_table(tmp_path / "parquet").select(["label"]), others)
    line = error_of(predict.main, "--run", run, pictures, "--parquet", others)
    assert "was not written by this command" in line


def test_a_cluster_chooses_the_devices(run, pictures, tmp_path, error_of):
    words = ["--csv", tmp_path / "x.csv", "--ray", "auto", "--device", "cuda:1"]
    line = error_of(predict.main, "--run", run, pictures, *words)
    assert "--ray labels on what the cluster gives: leave out --device" in line


@pytest.mark.parametrize(
    "package, words", [("pyarrow", ["--parquet", "x"]), ("ray", ["--csv", "x", "--ray", "auto"])]
)
def test_a_package_that_is_not_installed_is_named(
    run, pictures, tmp_path, monkeypatch, error_of, package, words
):
    monkeypatch.chdir(tmp_path)
    with patch.dict("sys.modules", {package: None}):
        line = error_of(predict.main, "--run", run, pictures, *words)
    assert "pip install" in line
    assert package in line
    assert os.listdir(tmp_path) == ["pictures"]


# ---- a cluster ----


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of two machines with a processor each, on this one; its address."""
    pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # which would be sent to Ray's makers
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    from ray.cluster_utils import Cluster

    machines = Cluster()
    for _ in range(2):
        machines.add_node(num_cpus=1)
    yield machines.address
    machines.shutdown()


@pytest.mark.slow
def test_a_cluster_says_what_one_process_says_also_where_a_worker_is_killed(
    run, pictures, tmp_path, cluster
):
    words = ["--run", run, pictures, "--csv"]
    assert call(predict.main, *words, tmp_path / "alone") == 1
    add, killed = PartFile.add, []

    def add_and_kill(part, *answers):
        add(part, *answers)
        if not killed:
            killed.append(labeller())
            killed[0].kill()

    with patch.object(PartFile, "add", add_and_kill):
        assert call(predict.main, *words, tmp_path / "cluster", "--ray", cluster) == 1
    assert len(killed) == 1
    assert not killed[0].is_running()
    alone = pandas.read_csv(tmp_path / "alone")
    pandas.testing.assert_frame_equal(pandas.read_csv(tmp_path / "cluster"), alone, rtol=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "alone", "cluster"}


def labeller():
    """A process that labels for Ray."""
    import psutil

    def is_labeller(process):
        return any("MapWorker" in word and "Labeller" in word for word in process.cmdline())

    return next(filter(is_labeller, psutil.process_iter()))
