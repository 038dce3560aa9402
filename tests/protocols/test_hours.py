"""run.py --plan says how long trainings take, by the steps that scripts/gpu.sh has measured."""

import os
import subprocess
import sys

import pytest

import run as protocol_run
from protocols import hours
from protocols.hours import STEP_COLUMNS, Steps
from tests.commands import asked_of_python
from tests.conftest import IN_EPOCHS
from tests.runs import REPOSITORY, call, refuses

HEAD = ",".join(STEP_COLUMNS)
ROWS = """H100,ViT-B/16,CoOp,fp16,50,32,100,2,900,10
H100,ViT-B/16,CoOp,fp16,500,32,190,4,1900,12
H100,ViT-B/16,CoOp,fp32,500,32,999,4,1900,12
H100,tiny,CoOp,fp16,50,32,7,4,1900,12
"""


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """``measured(text)``: what scripts/gpu.sh has left."""

    def write(text):
        path = tmp_path / "gpu.csv"
        path.write_text(text)
        monkeypatch.setattr(Steps.read.__func__, "__defaults__", (str(path),))
        return path

    return write


def plan(capsys, tmp_path, *words):
    code = call(protocol_run.main, *words, "--output", tmp_path / "o", "--plan")
    return code, capsys.readouterr()


def test_the_hours_are_epochs_times_steps_times_a_steps_time(measured, capsys, tmp_path):
    """50 classes of 100 on Caltech101, 16 pictures of each in batches of 32: 25 steps in each of 200
    epochs. 500 of ImageNet's: 250 steps, 50 epochs. 24 of DTD's 47 lie below what was measured."""
    measured(f"{HEAD}\n{ROWS}")
    of_caltech = 200 * 25 * 0.100
    of_imagenet = 50 * 250 * 0.190
    of_dtd = 200 * 12 * (0.100 - 0.090 * 26 / 450)
    words = "--protocol base2new --trainer CoOp --seeds 1 2 --dataset".split()
    for names, seconds in {
        "caltech101": of_caltech,
        "imagenet": of_imagenet,
        "dtd": of_dtd,
        "caltech101 imagenet dtd": of_caltech + of_imagenet + of_dtd,
    }.items():
        code, printed = plan(capsys, tmp_path, *words, *names.split())
        assert code == 0
        said = f"takes {2 * seconds / 3600:,.1f} hours of steps on one H100 (by output/gpu.csv)\n"
        assert said in printed.out


def test_what_is_done_and_what_tests_takes_no_hours(measured, capsys, tmp_path):
    measured(f"{HEAD}\n{ROWS}")
    words = "--protocol base2new --trainer CoOp --seeds 1 --dataset caltech101".split()
    folder = tmp_path / "o/train_base/caltech101/shots_16/CoOp/vit_b16/seed1"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text("{}")
    assert "takes 0.0 hours" in plan(capsys, tmp_path, *words)[1].out


def test_trainings_of_which_nothing_was_measured_are_counted(measured, capsys, tmp_path):
    measured(f"{HEAD}\n{ROWS}")
    words = "--protocol base2new --trainer CoOp CDC ZeroshotCLIP --seeds 1 2 3".split()
    _, printed = plan(capsys, tmp_path, *words, "--dataset", "caltech101")
    assert ", without 3 trainings of which no step was measured\n" in printed.out


def test_without_the_file_nothing_is_said_and_another_file_is_refused(capsys, measured, tmp_path):
    words = "--protocol base2new --trainer CoOp --seeds 1 --dataset caltech101".split()
    path = measured("")
    path.unlink()
    assert "hours" not in plan(capsys, tmp_path, *words)[1].out
    measured("a,b\n1,2\n")
    code, printed = plan(capsys, tmp_path, *words)
    assert code == 2
    assert "make it again with bash scripts/gpu.sh, or delete it" in printed.err
    with refuses("can't be read as steps on a GPU"):
        Steps.read(path)


def test_the_script_compares_with_the_cpu_and_measures_where_plans_look(tmp_path):
    """Python is a stand-in, whose torch says something of a GPU."""
    script = REPOSITORY / "scripts/gpu.sh"
    compared, measured = asked_of_python(script, [], {}, tmp_path)
    assert compared == "-m pytest -q -m gpu tests/trainers/test_gpu.py "
    assert measured.endswith(f"--every {hours.FILE} ")


@pytest.mark.slow
def test_the_script_ends_green_without_a_gpu_with_a_table_for_the_page():
    """On the pretended one; of the tests marked gpu, which all slow runs have, with CDC's alone."""
    words = ["bash", "scripts/gpu.sh", "-k", "CDC", "-p", "no:cacheprovider"]
    env = {**os.environ, "VIRTUAL_ENV": sys.prefix, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows] == ["trainer", *IN_EPOCHS]
    assert all(len(row) == 8 for row in rows)
