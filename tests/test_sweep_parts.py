"""The parts of sweep.py, without starting a job: grids, states, estimates, what Slurm is asked for, and what is refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import sweep as sweep_command
from protocols import launch
from protocols.plan import SHOTS, TARGETS
from sweeps import commands, display, executors
from sweeps.display import Display, counts, render
from sweeps.drive import missing_runs
from sweeps.estimate import estimate
from sweeps.grid import Chain, make_chains, read_file, requests
from sweeps.store import Sweep, last_progress
from tests.conftest import REPOSITORY
from tests.sweeping import command
from trainers.common.config_files import plain
from trainers.common.errors import UserError
from trainers.common.metrics import write_metrics

OPTIONS = {
    "executor": "local",
    "jobs": None,
    "partition": None,
    "gpus": None,
    "cpus": None,
    "memory": None,
    "time": 240,
    "account": None,
    "qos": None,
    "slurm": [],
}


def chains_of(tmp_path, **settings):
    given = {
        "name": "grid",
        "output": str(tmp_path),
        "grids": [{"protocols": ["base2new"], "trainers": ["CoOp"], "seeds": [1], **settings}],
    }
    return make_chains(requests(given), str(tmp_path))


@pytest.fixture
def sweep(tmp_path):
    """A sweep of one chain, a training and a test, and its name."""
    (chain,) = chains_of(tmp_path)
    made = Sweep(tmp_path, "grid", [chain], OPTIONS)
    made.save()
    return made, chain.name


def finish(run, **facts):
    Path(run.folder).mkdir(parents=True)
    cfg = run.request.wanted_config(run)
    Path(run.folder, "results.json").write_text(
        json.dumps(
            {
                "format": 1,
                "trainer": run.trainer,
                "dataset": run.dataset,
                "classes": run.classes,
                "shots": 16,
                "seed": run.seed,
                "metrics": {},
                "config": plain(cfg),
                "seconds": {"train": 6.0, "test": 4.0},
                "prompts_hash": "p",
                "backbone_hash": "b",
                "split_hash": "s",
                **facts,
            }
        )
    )


# ---- grids ----


def test_a_grid_is_the_product_of_all_its_lists_and_a_chain_a_training_with_its_tests(tmp_path):
    made = chains_of(
        tmp_path,
        protocols=["base2new", "fewshot"],
        trainers=["CoOp", "CDC"],
        datasets=["openmoji", "dtd"],
        seeds=[0, 3],
        shots=[1, 4],
    )
    assert len(made) == 2 * 2 * 2 * 2 * 2 and len({chain.name for chain in made}) == len(made)
    pairs = [chain for chain in made if chain.name.startswith("base2new")]
    assert all([run.model for run in chain.runs] == [None, chain.runs[0].folder] for chain in pairs)
    assert all(len(chain.runs) == 1 for chain in made if chain.name.startswith("fewshot/"))
    assert all(
        Path(run.folder).is_absolute() and Path(run.request.root).is_absolute()
        for chain in made
        for run in chain.runs
    )
    assert len(chains_of(tmp_path, protocols=["fewshot"])) == len(SHOTS["fewshot"])


def test_what_two_protocols_ask_for_is_one_chain(tmp_path):
    (chain,) = chains_of(tmp_path, protocols=["xd", "dg"])
    assert len(chain.runs) == 1 + sum(
        len(TARGETS[protocol]["openmoji"]) for protocol in ("xd", "dg")
    )
    (chain,) = chains_of(tmp_path, protocols=["fewshot", "xd"], shots=[16])
    assert [Path(run.folder).relative_to(tmp_path).parts[1] for run in chain.runs] == [
        "train_all",
        "train_source",
        "xd_from_openmoji",
    ]


def test_two_grids_that_ask_for_one_folder_must_agree(tmp_path):
    grid = {"protocols": ["base2new"], "trainers": ["CoOp"], "seeds": [1]}
    given = {"name": "grid", "output": str(tmp_path), "grids": [grid, grid]}
    assert len(make_chains(requests(given), str(tmp_path))) == 1
    given["grids"] = [grid, {**grid, "options": {"OPTIM.LR": 0.5}}]
    with pytest.raises(
        UserError,
        match="two grids ask for .*/train_base/openmoji/shots_16/CoOp/tiny/seed1 with other settings",
    ):
        make_chains(requests(given), str(tmp_path))


def test_a_chain_is_the_same_behind_json(tmp_path):
    (chain,) = chains_of(
        tmp_path,
        protocols=["ablation"],
        trainers=["CDC"],
        rows=["views"],
        options={"OPTIM.LR": 0.5},
    )
    assert Chain.from_json(json.loads(json.dumps(chain.to_json()))) == chain
    arguments = chain.runs[0].request.arguments(chain.runs[0])
    assert arguments[-2:] == list(chain.runs[0].settings[-2:]) and "OPTIM.LR" in arguments


def test_grids_of_a_file_go_over_what_it_shares_and_arguments_over_both(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "trainers: [CoOp]\nseeds: [1, 2]\noptions: {OPTIM.LR: 0.5}\ngrids:\n- {protocols: base2new}\n"
        "- {protocols: [fewshot], seeds: 3, options: {OPTIM.MAX_EPOCH: 2}}\n"
    )
    first, second = requests(
        commands.settings_of(sweep_command.parse_arguments(["start", str(file)]))
    )
    assert (first.seeds, second.seeds, first.trainers) == ((1, 2), (3,), ("CoOp",))
    assert first.options == ("OPTIM.LR", "0.5") and second.options == (
        "OPTIM.LR",
        "0.5",
        "OPTIM.MAX_EPOCH",
        "2",
    )
    settings = commands.settings_of(
        sweep_command.parse_arguments(["start", str(file), "--seeds", "7", "--", "OPTIM.LR", "0.1"])
    )
    first, second = requests(settings)
    assert (
        settings["name"] == "mine"
        and (first.seeds, second.seeds) == ((7,), (7,))
        and first.options == ("OPTIM.LR", "0.1")
    )


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_sweep_that_comes_along_can_be_planned_and_its_head_says_what_it_costs(
    path, tmp_path
):
    settings = read_file(str(path))
    made = make_chains(requests({**settings, "output": str(tmp_path)}), str(tmp_path))
    cost = f"# Costs: {sum(len(chain.runs) for chain in made)} runs in {len(made)} jobs"
    assert cost in path.read_text().replace("\n# ", " ") or cost in path.read_text()


@pytest.mark.parametrize(
    "text, message",
    [
        ("protocols: [base2new", "while parsing"),
        ("- base2new", "it must hold lines KEY: value"),
        ("protocol: [base2new]", "unknown key 'protocol' (did you mean protocols?)"),
        (
            "protocols: [base2new]\nseeds: [one]",
            "seeds must be a whole number or a list of such, not ['one']",
        ),
        ("protocols: [base2new]\nseeds: true", "seeds must be a whole number"),
        ("protocols: []", "protocols must be a name or a list of such, not []"),
        ("config: [tiny]", "config must be a name, not ['tiny']"),
        ("options: [OPTIM.LR, 1]", "options must be lines KEY: value, not"),
        ("grids: {protocols: [base2new], output: here}", "grids: unknown key 'output'"),
        ("trainers: [CoOp]", "the sweep bad lacks protocols"),
        (
            "protocols: [base2nu]\ntrainers: [CoOp]",
            "unknown protocol 'base2nu' (did you mean base2new?)",
        ),
        ("protocols: [base2new]\ntrainers: [CoOpp]", "did you mean CoOp?"),
        ("protocols: [zeroshot]\ntrainers: [CoOp]", "zeroshot is for trainers that learn nothing"),
        (
            "protocols: [xd]\ntrainers: [CoOp]\ndatasets: [dtd]",
            "xd knows no targets for the source 'dtd'",
        ),
        (
            "protocols: [base2new]\ntrainers: [CoOp]\noptions: {OPTIM.LRR: 1}",
            "unknown config key OPTIM.LRR",
        ),
        (
            "protocols: [base2new]\ntrainers: [CoOp]\nname: a/b",
            "the sweep's name 'a/b' must be of letters",
        ),
    ],
)
def test_a_file_that_cant_work_is_refused_with_one_line(text, message, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text(text)
    assert command("start", tmp_path / "bad.yaml", "--output", tmp_path / "output") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        line.startswith("error: ")
        and message in line
        and not (tmp_path / "output" / "sweeps" / "bad" / "sweep.json").exists()
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("start", "openmoji.yml"), "sweep file openmoji.yml is missing"),
        (("start", "--protocol", "base2new"), "lacks trainers: which shall run?"),
        (
            ("start", "--protocol", "base2new", "--trainer", "CoOp", "--", "OPTIM.LR"),
            "must come in pairs",
        ),
        (("start", "--protocol", "base2new", "--trainer", "CoOp", "--jobs", "0"), "--jobs is 0"),
        (
            ("start", "--protocol", "base2new", "--trainer", "CoOp", "--time", "4"),
            "--time is 4 minutes, it must be at least 5",
        ),
        (
            ("start", "--protocol", "base2new", "--trainer", "CoOp", "--slurm", "nice"),
            "--slurm nice: it must be KEY=VALUE",
        ),
        (
            ("start", "--protocol", "base2new", "--trainer", "CoOp", "--executor", "slurm"),
            "there is no sbatch or squeue here",
        ),
        (("status", "grids"), "no sweep 'grids' (did you mean grid?); there is grid in"),
        (
            ("cancel", "grid", "CoOp", "seed2"),
            "no job of the sweep grid has CoOp seed2 in its name",
        ),
        (("retry", "grid"), "none of these 1 jobs failed, was cancelled or stopped"),
        (("collect", "grid"), "no run of the sweep grid is done yet"),
    ],
)
def test_arguments_that_cant_work_are_refused_with_one_line(
    arguments, message, sweep, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(executors.shutil, "which", lambda name: None)
    assert (
        command(*arguments, "--output", tmp_path) == 2
        if "--" not in arguments
        else command(*arguments) == 2
    )
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_without_submitit_the_error_says_what_to_install(monkeypatch, capsys):
    for name in [
        name
        for name in sys.modules
        if name.startswith(("sweeps.commands", "sweeps.executors", "sweeps.worker", "submitit"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert command("collect", "grid") == 2
    assert (
        'sweeps need submitit, which is not installed: pip install ".[sweep]"'
        in capsys.readouterr().err
    )


# ---- states ----


def test_a_states_come_from_files_and_the_executor(sweep):
    made, name = sweep
    training, test = made.chains[name].runs

    def state(alive=None):
        return made.status(name, alive).state

    assert state() == "waiting"
    made.note_submission(name, job=1, log="there")
    assert state("queued") == "queued" and state("running") == "running"
    assert (
        state() == "failed"
        and "ended without a word" in made.status(name, None).error
        and made.status(name, None).log == "there"
    )
    made.note_outcome(name, "failed", error="why")
    assert state() == "failed" and made.status(name, None).error == "why"
    assert state("running") == "running", "it was queued again"
    made.note_outcome(name, "stopped")
    assert state() == "stopped"
    made.cancel(name)
    assert state() == "cancelled"
    finish(training)
    made.note_outcome(name, "running", run=test.folder)
    assert state() == "cancelled" and made.status(name, None).runs_done == 1
    made.forget(name)
    assert state() == "waiting"
    finish(test)
    assert state() == "done" and made.status(name, None).runs_done == 2


def test_epoch_and_remaining_time_are_those_of_the_last_line_of_the_metrics(tmp_path, sweep):
    assert last_progress(str(tmp_path)) == ("", "")
    for epoch in range(1, 41):
        write_metrics(
            tmp_path,
            {
                "epoch": epoch,
                "epochs": 50,
                "loss": 1.0,
                "acc": 50.0,
                "eta": 60.0 * epoch,
                "more": "x" * 100,
            },
        )
    assert last_progress(str(tmp_path)) == ("40/50", "0:40:00")
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 41, "epo')
    made, name = sweep
    made.note_submission(name, job=1, log="there")
    made.note_outcome(name, "running", run=str(tmp_path))
    status = made.status(name, "running")
    assert (status.epoch, status.eta) == ("40/50", "0:40:00")


def test_the_table_shows_what_needs_a_look_first_and_is_cut_to_the_screen(sweep, capsys):
    made, name = sweep
    one = made.status(name, None)
    statuses = [
        replace(one, state=state, error="no such file" if state == "failed" else "")
        for state in ("done", "waiting", "failed", "running")
    ]
    assert counts(statuses) == "1 done, 1 waiting, 1 running, 1 failed"
    console = display.Console(width=200)
    console.print(render(statuses, "grid", most=2))
    shown = capsys.readouterr().out
    assert (
        "grid: 1 done, 1 waiting" in shown and "no such file" in shown and "… and 2 more" in shown
    )
    assert shown.index("no such file") < shown.index("│ running")


def test_off_a_terminal_each_change_is_a_line(sweep, caplog):
    made, name = sweep
    one = made.status(name, None)
    caplog.set_level("INFO", "sweep")
    with Display("grid") as shown:
        for state in ("waiting", "queued", "queued", "failed"):
            shown.update([replace(one, state=state, error="why" if state == "failed" else "")])
    assert caplog.messages == [f"{name}: queued", f"{name}: failed: why"]


def test_one_command_at_a_time_submits(sweep):
    made, _ = sweep
    assert not made.is_held()
    with made.held():
        assert made.is_held()
        with pytest.raises(
            UserError, match="another command is running the sweep grid: sweep.py status grid"
        ):
            with Sweep.load(made.key[0], "grid").held():
                pass
    assert not made.is_held()


def test_a_broken_file_of_a_sweep_is_named(sweep, capsys):
    made, name = sweep
    Path(made.folder, "sweep.json").write_text("{")
    assert command("status", "grid", "--output", made.key[0]) == 2
    assert "sweep.json can't be read" in capsys.readouterr().err


# ---- what is missing, and what it costs ----


def test_missing_is_what_is_not_done_or_tested_other_prompts(tmp_path):
    (chain,) = chains_of(tmp_path)
    training, test = chain.runs
    assert missing_runs([chain]) == {chain.name: [training, test]}
    finish(training)
    finish(test, prompts_hash="old")
    assert missing_runs([chain]) == {chain.name: [test]}
    (other,) = chains_of(tmp_path, options={"OPTIM.LR": 0.5})
    with pytest.raises(UserError, match="holds a run with other settings"):
        missing_runs([other])


def test_the_estimate_is_the_mean_of_the_same_run_with_other_seeds_and_unknown_otherwise(tmp_path):
    chains = chains_of(tmp_path, trainers=["CoOp", "CDC"], seeds=[1, 2, 3])
    finish(chains[0].runs[0])
    finish(chains[1].runs[0], seconds={"train": 20.0, "test": 10.0})
    missing = missing_runs(chains)
    assert [len(runs) for runs in missing.values()] == [1, 1, 2, 2, 2, 2]
    assert estimate(missing.values(), 2) == (20.0, 9), (
        "one training, as long as it takes alone; nothing is known of tests and of CDC"
    )
    assert estimate([chains[2].runs[:1]] * 6, 2) == (60.0, 0)
    assert estimate([], 2) == (0.0, 0)


def test_the_estimate_is_said_with_what_it_covers():
    assert (
        display.estimate_line(0, 0, 0) == "nothing"
        and display.estimate_line(0, 0, 3) == "unknown, none like them is done"
    )
    assert (
        display.estimate_line(3723.4, 2, 0)
        == "at least 1:02:03 for 2 runs, by what they took with other seeds"
    )
    assert display.estimate_line(60, 2, 5).endswith(
        "other seeds, and 5 of which none like them is done"
    )


# ---- executors ----


@pytest.mark.parametrize(
    "visible, jobs, slots",
    [
        (None, None, ["0", "1"]),
        ("3,GPU-5", None, ["3", "GPU-5"]),
        ("", None, [None, None, None]),
        (None, 3, ["0", "1", "0"]),
        ("", 1, [None]),
    ],
)
def test_jobs_have_a_gpu_each_or_share_the_cores(visible, jobs, slots, sweep, monkeypatch):
    made, _ = sweep
    monkeypatch.setattr(executors, "cores", lambda: 3)
    monkeypatch.setattr(executors.torch.cuda, "device_count", lambda: 0 if visible == "" else 2)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    made.options["jobs"] = jobs
    assert executors.Local(made).devices == slots


def test_a_job_runs_while_its_process_does_and_the_command_that_started_it(sweep):
    made, name = sweep
    seen = executors.Local(Sweep.load(made.key[0], "grid"))
    made.note_submission(name, job=os.getpid(), log="there")
    assert seen.alive() == {}, "no command runs the sweep: the number is another process's by now"
    with made.held():
        assert seen.alive() == {name: "running"} and executors.Local(made).alive() == {}
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        made.note_submission(name, job=gone.pid, log="there")
        assert seen.alive() == {}


def test_a_job_that_another_command_cancels_is_ended(sweep, monkeypatch):
    made, name = sweep
    job = SimpleNamespace(pid=1, exitcode=None)
    job.terminate = lambda: setattr(job, "exitcode", 75)
    monkeypatch.setattr(launch, "start_process", lambda *_, **__: job)
    with made.held():
        executor = executors.Local(made)
        executor.submit([name], {})
        assert executor.alive() == {name: "running"} and job.exitcode is None
        Sweep.load(made.key[0], "grid").cancel(name)
        executor.alive()
        assert job.exitcode == 75 and executor.alive() == {}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Commands in place of Slurm's: sbatch keeps what it is given, squeue prints the file ``queue``, scancel notes its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, line in {
        "sbatch": "echo Submitted batch job 7",
        "srun": "true",
        "squeue": f"cat {tmp_path}/queue",
        "scancel": f'echo "$@" >> {tmp_path}/ended',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "queue").write_text("")
    return tmp_path


def slurm_sweep(tmp_path, **options):
    made = Sweep(
        tmp_path / "output",
        "grid",
        chains_of(tmp_path / "output", seeds=[1, 2, 3]),
        {**OPTIONS, "executor": "slurm", **options},
    )
    made.save()
    return made, executors.Slurm(made)


def test_the_sbatch_file_is_as_it_was(stand_in):
    made, executor = slurm_sweep(
        stand_in,
        jobs=2,
        partition="gpu",
        gpus=1,
        cpus=8,
        memory="32GB",
        time=90,
        account="lab",
        qos="long",
        slurm=["constraint=a100", "nice=5"],
    )
    executor.submit(list(made.chains), {})
    written = Path(made.folder, "slurm", "7_submission.sh").read_text()
    for place, name in (
        (made.folder, "SWEEP"),
        (sys.executable, "PYTHON"),
        (executors.ENVIRONMENT["PYTHONPATH"], "REPOSITORY"),
    ):
        written = written.replace(place, name)
    golden = REPOSITORY / "tests" / "golden" / "sweep.sbatch"
    assert written == golden.read_text(), (
        f"if that is meant, put this into {golden.name}:\n{written}"
    )
    assert [made.submission(name)["job"] for name in made.chains] == ["7_0", "7_1", "7_2"]


def test_one_job_is_no_array_and_what_is_not_given_is_left_to_slurm(stand_in):
    made, executor = slurm_sweep(stand_in)
    executor.submit(list(made.chains)[:1], {})
    written = Path(made.folder, "slurm", "7_submission.sh").read_text()
    assert not any(
        f"--{option}" in written
        for option in ("array", "partition", "gpus", "cpus", "mem", "account", "qos")
    )
    assert "#SBATCH --time=240\n" in written and "#SBATCH --requeue\n" in written


def test_states_in_slurm_are_squeues_and_cancelling_is_scancels(stand_in):
    made, executor = slurm_sweep(stand_in)
    names = list(made.chains)
    executor.submit(names, {})
    (stand_in / "queue").write_text("7_0 R\n7_1 PD\n9 R\n")
    assert executor.alive() == {names[0]: "running", names[1]: "queued"}
    executor.cancel(names[:2])
    assert (stand_in / "ended").read_text() == "7_0 7_1\n"
    (stand_in / "bin" / "squeue").write_text(
        "#!/bin/sh\necho slurm_load_jobs error: no controller >&2\nexit 1\n"
    )
    with pytest.raises(UserError, match="squeue fails: slurm_load_jobs error: no controller"):
        executor.alive()


def test_what_sbatch_refuses_is_said_in_its_words(stand_in, capsys):
    (stand_in / "bin" / "sbatch").write_text(
        "#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpus' >&2\nexit 1\n"
    )
    assert (
        command(
            "start",
            "--protocol",
            "base2new",
            "--trainer",
            "CoOp",
            "--executor",
            "slurm",
            "--output",
            stand_in / "output",
        )
        == 2
    )
    assert (
        "sbatch refuses: " in (line := capsys.readouterr().err.strip().splitlines()[-1])
        and "invalid partition specified: gpus" in line
    )
