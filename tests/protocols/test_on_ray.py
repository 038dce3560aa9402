"""run.py --ray: on a stand-in for Ray that starts tasks in threads and loses machines, and on a
cluster on this machine where Ray is installed."""

import sys
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest

import run as protocol_run
from protocols import on_ray
from protocols.on_ray import share_of
from protocols.runs import plan_runs
from tests.protocols.test_run_processes import wait_until
from tests.runs import REPOSITORY, call, make_small_options, record_of
from trainers.common.interruption import REQUEUE

WORDS = "--protocol base2new --trainer CoOp --dataset dtd --config tiny --shots 4 --seeds 1 2"


class FakeRay:
    """As much of Ray as is asked for: ``init``, ``nodes``, tasks with their retries, ``get``,
    ``cancel``. ``lost``: how many tasks lose their machine before they have begun."""

    class RayError(Exception):
        pass

    def __init__(self, nodes, lost=0):
        self.resources, self.lost = nodes, lost
        self.options, self.calls = {}, []
        self.is_open = True
        self.pool = ThreadPoolExecutor(2)
        self.exceptions = SimpleNamespace(RayError=self.RayError)

    def init(self, address, runtime_env, **_):
        if address == "nowhere":
            raise ConnectionError("Could not find any running Ray instance")
        assert str(REPOSITORY) in runtime_env["env_vars"]["PYTHONPATH"]

    def nodes(self):
        return [{"Alive": True, "Resources": node} for node in self.resources]

    def remote(self, function):
        def options(**given):
            self.options = given
            return SimpleNamespace(
                remote=lambda *given: self.pool.submit(self.run, function, given)
            )

        return SimpleNamespace(options=options)

    def run(self, function, given):
        for _ in range(self.options["max_retries"]):
            self.calls.append(given)
            if self.lost:
                self.lost -= 1
                continue
            try:
                return function(*given)
            except tuple(self.options["retry_exceptions"]):
                continue
        raise self.RayError("the task was lost too often")

    def get(self, task):
        return task.result()

    def cancel(self, task):
        task.cancel()

    def shutdown(self):
        self.is_open = False


@pytest.fixture
def play(monkeypatch):
    """``play(fake)``: it is what ``import ray`` finds."""
    return lambda fake: monkeypatch.setitem(sys.modules, "ray", fake)


@pytest.fixture
def start(data_root, small_clip_file, tmp_path, capfd, monkeypatch):
    """``start(output, *words)`` → exit code and what was printed, of small runs. Each has one thread,
    as Ray gives it: several add in another order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def go(output, *words):
        place = ["--root", data_root, "--output", f"{tmp_path}/{output}"]
        options = [*make_small_options(small_clip_file, 2), "USE_CUDA", "False"]
        code = call(protocol_run.main, *WORDS.split(), *place, *words, "--", *options)
        return code, capfd.readouterr()

    return go


def numbers_below(folder):
    """The accuracies and hashes of all runs below a folder."""
    found = {}
    for path in sorted(folder.rglob("results.json")):
        record = record_of(path.parent)
        found[str(path.relative_to(folder))] = record["metrics"], record["prompts_hash"]
    return found


@pytest.mark.parametrize(
    "nodes, jobs, share",
    [
        ([{"CPU": 64, "GPU": 8}], 1, {"GPU": 1, "CPU": 1}),
        ([{"CPU": 4}, {"CPU": 64, "GPU": 8}], 4, {"GPU": 0.25, "CPU": 1}),
        ([{"CPU": 16}, {"CPU": 8}], 1, {"CPU": 8}),
        ([{"CPU": 16}, {"CPU": 8}], 4, {"CPU": 2}),
        ([{"CPU": 2}], 4, {"CPU": 1}),
        ([{"CPU": 2}, {}], 1, {"CPU": 2}),
    ],
)
def test_a_run_takes_a_gpu_or_its_share_or_else_processors(nodes, jobs, share):
    alive = [{"Alive": True, "Resources": node} for node in nodes]
    assert share_of([*alive, {"Alive": False, "Resources": {"CPU": 1, "GPU": 1}}], jobs) == share


@pytest.mark.slow
def test_runs_on_ray_are_those_of_one_process_and_lost_ones_are_made_again(start, play, tmp_path):
    assert start("alone")[0] == 0
    fake = FakeRay([{"CPU": 1}], lost=2)
    play(fake)
    code, printed = start("ray", "--ray", "auto")
    assert code == 0, printed.err
    assert not fake.is_open
    assert len(fake.calls) == 4 + 2
    assert printed.out == start("alone")[1].out, "one table"
    assert numbers_below(tmp_path / "ray") == numbers_below(tmp_path / "alone")


def task_of(program):
    """``work`` with a program in place of train.py."""
    return on_ray.work(["-c", program], str(REPOSITORY), 1)


def test_what_a_machine_says_of_a_run_is_its_code_and_its_last_lines():
    assert task_of("import sys; sys.exit('no')") == (1, "no\n")
    code, said = task_of("import sys; sys.stderr.write('a' * 9999 + 'b')")
    assert (code, len(said), said[-1]) == (0, on_ray.END, "b")
    with pytest.raises(on_ray.Stopped, match="asked"):
        task_of(f"import sys; sys.stderr.write('asked'); sys.exit({REQUEUE})")


def test_a_run_that_fails_on_a_machine_ends_the_command_with_its_line(start, play, monkeypatch):
    monkeypatch.setattr(on_ray, "work", lambda words, folder, cores: (2, "error: no such thing\n"))
    play(FakeRay([{"CPU": 1}]))
    code, printed = start("o", "--ray", "auto")
    assert code == 2
    assert "error: no such thing" in printed.err
    assert "failed (exit code 2)" in printed.err


def test_a_run_that_loses_every_machine_is_given_up(start, play):
    """One run alone: of several, which are made at the same time, any may be the first that is lost."""
    play(FakeRay([{"CPU": 1}], lost=10**6))
    code, printed = start("o", "--ray", "auto", "--seeds", "1")
    assert code == 2
    assert "seed1: the task was lost too often" in printed.err


def test_without_ray_or_a_cluster_a_line_says_what_to_do(start, play):
    play(None)
    code, printed = start("o", "--ray", "auto")
    assert code == 2
    assert "pip install 'ray[data]'" in printed.err
    play(FakeRay([]))
    code, printed = start("o", "--ray", "nowhere")
    assert code == 2
    assert "--ray nowhere: no cluster is reached" in printed.err


def test_a_command_that_is_asked_to_stop_cancels_its_tasks(play, monkeypatch):
    fake = FakeRay([{"CPU": 1}])
    cancelled = threading.Event()
    monkeypatch.setattr(fake, "cancel", lambda task: cancelled.set())

    def get(task):
        assert cancelled.wait(60)
        raise fake.RayError("cancelled")

    monkeypatch.setattr(fake, "get", get)
    monkeypatch.setattr(on_ray, "work", lambda words, folder, cores: (0, ""))
    play(fake)
    args = protocol_run.parse_arguments([*WORDS.split(), "--ray", "auto"])
    cluster = on_ray.Cluster(args, f"{REPOSITORY}/train.py")
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(cluster.make, plan_runs(args)[0])
        wait_until(lambda: cluster.tasks)
        cluster.stop()
        assert code.result() == REQUEUE


# ---- a cluster on this machine ----


@pytest.fixture
def machines(monkeypatch):
    """``machines(count, …)``: a cluster of as many machines with these resources, on this one."""
    pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # which would be sent to Ray's makers
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # Ray gives out those alone
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})

    def add(count, **resources):
        cluster.nodes = [cluster.add_node(**resources) for _ in range(count)]
        return cluster

    yield add
    cluster.shutdown()


@pytest.fixture
def watched(tmp_path):
    """Folder of a run → process that has made it → the GPU that it was told; ``watched.then``, if any,
    is called once two runs have been seen."""
    found, over = Watch(set), threading.Event()

    def watch():
        while not over.wait(0.2):
            for process in psutil.process_iter(["cmdline", "environ"]):
                words = process.info["cmdline"] or []
                folder = words[words.index("--output-dir") + 1] if "--with-parent" in words else ""
                if folder.startswith(f"{tmp_path}/"):
                    told = (process.info["environ"] or {}).get("CUDA_VISIBLE_DEVICES")
                    found[folder].add((process.pid, told))
            if len(found) == 2 and found.then is not None:
                found.then()
                found.then = None

    watching = threading.Thread(target=watch)
    watching.start()
    yield found
    over.set()
    watching.join()


class Watch(defaultdict):
    then = None


@pytest.mark.slow
def test_a_machine_that_is_lost_changes_no_number(start, machines, watched, tmp_path):
    """It is lost as soon as each of two has a training."""
    assert start("alone")[0] == 0
    watched.clear()
    cluster = machines(2, num_cpus=1)
    watched.then = lambda: cluster.remove_node(cluster.nodes[0], allow_graceful=False)
    code, printed = start("cluster", "--ray", cluster.address)
    assert code == 0, printed.err
    assert numbers_below(tmp_path / "cluster") == numbers_below(tmp_path / "alone")
    assert sum(map(len, watched.values())) == 4 + 1, "one was lost and made again"


@pytest.mark.slow
def test_runs_on_a_machine_with_gpus_are_told_one_each(start, machines, watched, tmp_path):
    """Which are pretended: ``ray start --num-gpus 4``. The same folders, numbers and table."""
    code, alone = start("alone")
    assert code == 0
    watched.clear()
    code, printed = start("cluster", "--ray", machines(1, num_cpus=4, num_gpus=4).address)
    assert code == 0, printed.err
    assert "each run takes 1 GPU and 1 CPU" in printed.err
    assert printed.out == alone.out
    assert numbers_below(tmp_path / "cluster") == numbers_below(tmp_path / "alone")
    told = {folder: gpu for folder, made in watched.items() for _, gpu in made}
    assert len(told) == 4
    assert set(told.values()) <= {"0", "1", "2", "3"}
    trainings = [gpu for folder, gpu in told.items() if "train_base" in folder]
    assert len({*trainings}) == 2, "they are made at the same time"
