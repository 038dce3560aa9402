"""The next round of a run by the same command: what is kept, said and compared, and that a killed one goes on."""

import functools
import logging
import os
import shutil
from types import SimpleNamespace
from unittest.mock import patch

import numpy
import pytest
from PIL import Image

from labelling import PromptedClassifier, encode, fit, rounds
from labelling.rounds import Labelled, differences
from results.runs import collect
from tests.labelling.cases import MULTI, PICTURES, SINGLE, by_turns, over_tasks, train, write
from tests.runs import make_pictures, record_of, refuses
from tests.same_run import assert_same_run
from trainers.common.record_file import read_answers
from trainers.data.kept import PictureCache
from trainers.engine.run import Run
from trainers.engine.testing import Evaluator

FIRST = 40  # pictures of the first round
BLOCKS = ("DATALOADER.TEST.BATCH_SIZE", 4)
ROUND = "the next round: 8 pictures more, 1 label changed, 1 gone"


def second_rows(task):
    """All pictures but the first, of which one has another label."""
    rows = task.rows()
    rows[3] = (rows[3][0], "red" if rows[3][1] != "red" else "blue")
    return rows[1:]


@pytest.fixture(scope="session")
def first_of(pictures_of, tmp_path_factory, small_clip_file):
    """``first_of(task)``: the folder of a first round, to be left as it is."""

    @functools.cache
    def make(task):
        place = tmp_path_factory.mktemp("rounds")
        file = write(pictures_of(task) / "first.csv", task.rows()[:FIRST])
        with patch.object(encode, "PICTURES_PER_BLOCK", 4):
            assert train(task, file, place / "run", small_clip_file, settings=BLOCKS) == 0
        return place / "run"

    return make


@pytest.fixture
def in_rounds(first_of, own_pictures, tmp_path, small_clip_file, monkeypatch):
    """``in_rounds(task)``: a copy of a first round, and a function that makes the second one."""
    monkeypatch.setattr(encode, "PICTURES_PER_BLOCK", 4)

    def first(task):
        folder = shutil.copytree(first_of(task), tmp_path / "run")
        file = own_pictures(task) / "labels.csv"

        def second(*more):
            write(file, second_rows(task))
            return train(task, file, folder, small_clip_file, *more, settings=BLOCKS)

        return folder, second

    return first


@pytest.fixture(scope="session")
def whole_of(first_of, pictures_of, tmp_path_factory, small_clip_file):
    """``whole_of(task)``: the folder of both rounds, made without an interruption, to be left as it is."""

    @functools.cache
    def make(task):
        place = tmp_path_factory.mktemp("rounds")
        folder = shutil.copytree(first_of(task), place / "run")
        shutil.copytree(pictures_of(task), place / "pictures")
        file = write(place / "pictures/labels.csv", second_rows(task))
        with patch.object(encode, "PICTURES_PER_BLOCK", 4):
            assert train(task, file, folder, small_clip_file, settings=BLOCKS) == 0
        return folder

    return make


@over_tasks
def test_the_same_command_makes_the_next_round(task, in_rounds, capsys, monkeypatch):
    folder, second = in_rounds(task)
    shutil.copytree(folder, folder.with_name("former"))
    encoded = []
    write_block = encode.write_block

    def noted(place, images, contents, key):
        encoded.append(len(contents))
        write_block(place, images, contents, key)

    monkeypatch.setattr(encode, "write_block", noted)
    decoded = []
    take = PictureCache.take

    def taken(self, path, *images):
        decoded.append(path)
        take(self, path, *images)

    monkeypatch.setattr(PictureCache, "take", taken)
    capsys.readouterr()
    assert second() == 0
    said = "".join(capsys.readouterr())
    assert ROUND in said.lower()
    assert encoded == [4, 4]  # the new ones
    assert len({*decoded}) == len(decoded) == 8
    former = folder / "rounds/1"
    assert_same_run(former, folder.with_name("former"))
    for name in ("results.json", "predictions-test.npz"):
        assert os.path.getmtime(former / name) == os.path.getmtime(
            folder.with_name("former") / name
        )
    assert PromptedClassifier.load(former).classnames == ["blue", "green", "red"]
    assert len(collect(folder.parent / "run")) == 1 + len([*folder.glob("ZeroshotCLIP")])
    capsys.readouterr()
    assert second() == 0
    assert "Done already" in "".join(capsys.readouterr())
    assert [path.name for path in (folder / "rounds").iterdir()] == ["1"]


@over_tasks
def test_rounds_are_compared_on_the_pictures_of_both(task, in_rounds, capsys):
    """By today's labels, against a plain recount."""
    folder, second = in_rounds(task)
    assert second() == 0
    said = "".join(capsys.readouterr())
    labels = {name: own.split(";") if own else [] for name, own in second_rows(task)}
    scores = []
    for place in (folder, folder / "rounds/1"):
        record = record_of(place)
        answers = read_answers(place, "test", record)
        both = [row for row, name in enumerate(answers["image"]) if labels_of_both(name)]
        names = record["classnames"]
        if task is SINGLE:
            right = [names[answers["top"][row][0]] in labels[answers["image"][row]] for row in both]
            scores.append(100 * numpy.mean(right))
        else:
            precisions = []
            for label, name in enumerate(names):
                order = sorted(both, key=lambda row: -answers["probability"][row, label])
                has = [name in labels[answers["image"][row]] for row in order]
                found = numpy.cumsum(has) / numpy.arange(1, len(has) + 1)
                precisions.append(found[has].mean())
            scores.append(100 * numpy.mean(precisions))
    line = next(line for line in said.splitlines() if "This round" in line)
    assert f"on the {FIRST - 1} pictures of both rounds" in line
    assert f"{scores[0]:.1f} %, before {scores[1]:.1f} %" in line
    metric = "accuracy" if task is SINGLE else "map"
    for place in (folder, folder / "rounds/1"):
        assert f"{record_of(place)['metrics']['test'][metric]:.1f} %" in line


def labels_of_both(name):
    number = int(name.partition(".")[0])
    return 0 < number < FIRST


def die(*_, **__):
    raise KeyboardInterrupt


def after(call):
    """Do something, and die."""

    def both(*words, **options):
        call(*words, **options)
        die()

    return both


KILLS = {
    "while the former round is copied": lambda patch: patch.setattr(rounds.shutil, "copy2", die),
    "before the copy has its name": lambda patch: patch.setattr(rounds.os, "rename", die),
    "before anything is removed": lambda patch: patch.setattr(
        rounds, "keep_round", after(rounds.keep_round)
    ),
    "while it is removed": lambda patch: patch.setattr(
        rounds.shutil, "rmtree", after(rounds.shutil.rmtree)
    ),
    "before the record is removed": lambda patch: patch.setattr(rounds, "remove_record", die),
    "after it": lambda patch: patch.setattr(fit, "begin_round", after(fit.begin_round)),
    "between two blocks": lambda patch: patch.setattr(
        encode, "write_block", after(encode.write_block)
    ),
    "in the training": lambda patch: patch.setattr(fit, "cross_fit", die),
    "before the test": lambda patch: patch.setattr(Run, "end_without_epochs", die),
    "before the record": lambda patch: patch.setattr(Evaluator, "write_record", die),
    "after the record": lambda patch: patch.setattr(fit, "end_round", die),
}


@by_turns("kill", KILLS)
def test_a_killed_round_goes_on_to_the_same_bytes(task, kill, in_rounds, whole_of, monkeypatch):
    folder, second = in_rounds(task)
    with monkeypatch.context() as patched:
        kill(patched)
        assert second() == 130
    assert second() == 0
    whole = whole_of(task)
    assert_same_run(folder, whole)
    assert_same_run(folder / "rounds/1", whole / "rounds/1")
    assert [path.name for path in (folder / "rounds").iterdir()] == ["1"]
    pictures = "pictures.json"
    assert (folder / pictures).read_bytes() == (whole / pictures).read_bytes()


@pytest.mark.parametrize(
    "now, is_known, stays", [("A", True, True), ("B", True, False), ("B", False, True)]
)
def test_of_a_killed_round_on_other_pictures_nothing_stays(
    tmp_path, monkeypatch, now, is_known, stays
):
    """Where the former round is one of this run's."""
    of = {name: {"a.png": Labelled(name, ("x",))} for name in ("A", "B", "former")}
    (tmp_path / "prompt_learner").mkdir()
    (tmp_path / "rounds/1").mkdir(parents=True)
    rounds.write_pictures(str(tmp_path), of["A"])
    monkeypatch.setattr(rounds, "pictures_of", lambda _: of[now])
    former = of["former"] if is_known else {}
    monkeypatch.setattr(rounds, "former_pictures", lambda *_: former)
    run = SimpleNamespace(
        cfg=SimpleNamespace(OUTPUT_DIR=str(tmp_path)), loaders=SimpleNamespace(images=None)
    )
    rounds.begin_round(run, SINGLE.task)
    assert (tmp_path / "prompt_learner").exists() == stays
    assert rounds.read_pictures(str(tmp_path)) == of["A" if stays else now]
    assert (tmp_path / "rounds/1").exists()


@pytest.mark.slow
@over_tasks
def test_after_a_killed_round_the_next_one_may_have_other_pictures(
    task, in_rounds, first_of, small_clip_file, monkeypatch, capsys
):
    folder, second = in_rounds(task)
    with monkeypatch.context() as patched:
        KILLS["before the record"](patched)
        assert second() == 130
    with refuses(f"a training that has ended, such as one in {folder}/rounds"):
        PromptedClassifier.load(folder)
    file = write(folder.with_name("pictures") / "labels.csv", task.rows()[2:])
    capsys.readouterr()
    assert train(task, file, folder, small_clip_file, settings=BLOCKS) == 0
    said = "".join(capsys.readouterr())
    assert f"A killed round on other pictures is left out; the former one is in {folder}" in said
    whole = shutil.copytree(first_of(task), folder.with_name("whole"))
    assert train(task, file, whole, small_clip_file, settings=BLOCKS) == 0
    assert_same_run(folder, whole)
    assert_same_run(folder / "rounds/1", whole / "rounds/1")


@pytest.mark.slow
@over_tasks
def test_after_a_killed_round_other_settings_are_another_run(task, in_rounds, monkeypatch, capsys):
    folder, second = in_rounds(task)
    with monkeypatch.context() as patched:
        KILLS["before the record"](patched)
        assert second() == 130
    assert second("--seed", "2") == 2
    assert "belongs to another run" in capsys.readouterr().err


@over_tasks
@pytest.mark.parametrize("more", [("--seed", "2"), ("--skip-small", "--shots", "6")])
def test_other_settings_are_another_run(task, in_rounds, more, capsys):
    folder, second = in_rounds(task)
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.name != "log.txt"}
    assert second(*more) == 2
    assert "belongs to another run" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in folder.rglob("*.*") if path.name != "log.txt"}
    assert after == before


@pytest.mark.slow
@over_tasks
def test_another_clip_is_another_run(task, in_rounds, own_pictures, small_resnet_file, capsys):
    folder, _ = in_rounds(task)
    file = write(own_pictures(task) / "labels.csv", second_rows(task))
    assert train(task, file, folder, small_resnet_file, settings=BLOCKS) == 2
    assert "belongs to another run" in capsys.readouterr().err
    assert not (folder / "rounds").exists()


@over_tasks
def test_pictures_of_which_none_is_known_are_another_run(
    task, in_rounds, own_pictures, tmp_path, small_clip_file, capsys
):
    folder, _ = in_rounds(task)
    other = own_pictures(task)
    for path in other.glob("*.png"):
        with Image.open(path) as picture:
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    assert train(task, other / "labels.csv", folder, small_clip_file, settings=BLOCKS) == 2
    assert "its images are others" in capsys.readouterr().err
    assert not (folder / "rounds").exists()


@over_tasks
def test_a_third_round_is_compared_with_the_second(task, in_rounds, small_clip_file, capsys):
    folder, second = in_rounds(task)
    assert second() == 0
    file = write(folder.with_name("pictures") / "labels.csv", task.rows())
    capsys.readouterr()
    assert train(task, file, folder, small_clip_file, settings=BLOCKS) == 0
    assert "1 picture more, 1 label changed; the former" in "".join(capsys.readouterr())
    assert sorted(path.name for path in (folder / "rounds").iterdir()) == ["1", "2"]
    assert record_of(folder)["metrics"]["test"]["images"] == PICTURES


def test_what_changed_in_words():
    def of(**pictures):
        return {name: Labelled(name[0], tuple(own)) for name, own in pictures.items()}

    first = of(a=["x"], b=["x"], c=["y"])
    assert differences(first, first) == ""
    assert differences(first, of(a2=["x"], b2=["x"], c2=["y"])) == ""  # renamed
    assert differences(first, of(d=["x"])) == ""  # nothing in common
    said = differences(first, of(a=["y"], c=["y"], d=["z"], e=["z"]))
    assert said == "2 pictures more, 1 label changed, 1 gone, new classes: z, classes gone: x"
    assert differences(of(a=["x", "y"]), of(a=[])) == "1 label changed, classes gone: x, y"


@pytest.mark.parametrize("refit", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_training_in_epochs_has_rounds_too(tmp_path, refit, caplog):
    caplog.set_level(logging.INFO, "labelling")  # else a test before this one has set it, or none
    folder = make_pictures(tmp_path / "shapes", names=("red square", "blue quokka"), count=10)
    settings = {"OPTIM.MAX_EPOCH": 1, "DATALOADER.NUM_WORKERS": 0}
    options = {"trainer": "CoOp", "backbone": "tiny", "folder": tmp_path / "run", "refit": refit}
    PromptedClassifier.fit(folder, settings=settings, **options)
    first = record_of(tmp_path / "run")
    gone = sorted((folder / "red square").iterdir())[0]
    gone.rename(folder / "blue quokka" / "moved.png")
    PromptedClassifier.fit(folder, settings=settings, **options)
    assert "1 label changed; the former" in (tmp_path / "run/log.txt").read_text()
    kept = record_of(tmp_path / "run/rounds/1")
    assert (
        kept["prompts_hash"] == first["prompts_hash"] != record_of(tmp_path / "run")["prompts_hash"]
    )
    assert (tmp_path / "run/rounds/1/refit/results.json").exists() == refit
    fresh = {**options, "folder": tmp_path / "fresh", "refit": False}
    PromptedClassifier.fit(folder, settings=settings, **fresh)
    hashes = {record_of(tmp_path / name)["prompts_hash"] for name in ("run", "fresh")}
    assert len(hashes) == 1


@pytest.mark.slow
def test_after_a_killed_round_in_epochs_the_next_one_may_have_other_pictures(tmp_path, monkeypatch):
    folder = make_pictures(tmp_path / "shapes", names=("red square", "blue quokka"), count=10)
    settings = {"OPTIM.MAX_EPOCH": 2, "TRAIN.CHECKPOINT_FREQ": 1, "DATALOADER.NUM_WORKERS": 0}
    options = {"trainer": "CoOp", "backbone": "tiny", "settings": settings}
    PromptedClassifier.fit(folder, folder=tmp_path / "run", **options)
    first, second = sorted((folder / "red square").iterdir())[:2]
    first.rename(folder / "blue quokka" / "moved.png")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Run, "test", die)
        PromptedClassifier.fit(folder, folder=tmp_path / "run", **options)
    assert [*(tmp_path / "run/prompt_learner").glob("model.pth.tar-*")]
    second.rename(folder / "blue quokka" / "moved, too.png")
    for name in ("run", "fresh"):
        PromptedClassifier.fit(folder, folder=tmp_path / name, **options)
    found, expected = (record_of(tmp_path / name) for name in ("run", "fresh"))
    assert found["prompts_hash"] == expected["prompts_hash"]
    assert found["metrics"] == expected["metrics"]
    assert [path.name for path in (tmp_path / "run/rounds").iterdir()] == ["1"]


def test_multi_label_rounds_are_of_their_task(in_rounds, own_pictures, tmp_path, small_clip_file):
    folder, _ = in_rounds(MULTI)
    own_pictures(SINGLE)
    file = write(tmp_path / "pictures" / "single.csv", SINGLE.rows())
    assert train(SINGLE, file, folder, small_clip_file, settings=BLOCKS) == 2
