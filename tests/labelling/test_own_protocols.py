"""One's own folder of pictures in the protocols: what is asked for, what it is called, and a whole
run of run.py."""

import re
from pathlib import Path

import pytest

import run as protocol_run
from protocols.runs import plan_runs
from results.runs import collect
from tests.runs import call, make_pictures


@pytest.fixture
def folder(tmp_path):
    return make_pictures(tmp_path / "mine", names=("ant one", "bee one", "ant two", "bee two"))


def test_the_clip_follows_the_rule_of_train_py(asked, tmp_path, monkeypatch, capsys):
    def clips(*more):
        words = "--protocol base2new --trainer CDC --dataset image_folder --seeds 1 --root a/mine"
        assert call(protocol_run.main, *words.split(), "--output", tmp_path, *more) == 0
        out, err = capsys.readouterr()
        return {*re.findall(r"mine +CDC +(\S+) +16 +(\S+)", out)}, err

    chosen, line = clips("--plan")
    assert chosen == {("vit_b32_text", "ViT-B/32")}
    assert asked == []
    assert "The CLIP is ViT-B/32, which knows photographs; a small one, since no GPU" in line
    for given in ("--backbone tiny", "--config tiny", "-- MODEL.BACKBONE.NAME tiny"):
        assert clips("--plan", *given.split()) == ({("tiny", "tiny")}, "")
    started = []
    monkeypatch.setattr("protocols.launch.make", lambda args: started.extend(plan_runs(args)))
    monkeypatch.setattr("results.after_runs.tables_of_runs", lambda runs, args: "")
    assert "The CLIP is tiny, to try things: it has seen small drawings only" in clips()[1]
    assert {Path(run.recipe).stem for run in started} == {"tiny"}
    assert asked == ["ViT-B/32"]


def test_a_whole_protocol_on_ones_own_images(in_this_process, folder, tmp_path, capsys, error_of):
    words = "--protocol base2new --trainer ZeroshotCLIP --dataset image_folder --seeds 1 --shots 2"
    words += " --backbone tiny --root"
    arguments = [*words.split(), str(folder), "--output", f"{tmp_path}/out"]
    before = sorted(folder.rglob("*"))
    assert protocol_run.main(arguments) == 0
    assert re.search(r"^mine +2 +ZeroshotCLIP", capsys.readouterr().out, re.MULTILINE)
    assert sorted(folder.rglob("*")) == before, "nothing is written among the pictures"
    place = tmp_path / "out/train_base/mine/shots_2/ZeroshotCLIP/tiny/seed1"
    assert collect(place)[0].task == ("mine", "base", 2)
    assert protocol_run.main(arguments) == 0
    assert "2 runs, 2 done already" in capsys.readouterr().err
    (folder / "ant one/0.bmp").unlink()
    line = error_of(protocol_run.main, *arguments)
    assert "with other settings (its images are others: some were added" in line
