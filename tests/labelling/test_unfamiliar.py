"""Pictures unlike a run's own, of either task: each form of the answers says it, ``--max-error`` gives them no
label, and what a run has kept of its pictures is its own."""

import json

import numpy
import pytest
from PIL import Image

import predict
from labelling import PromptedClassifier
from labelling.answers.on_ray import Labeller
from labelling.appearance import looks_of
from labelling.familiar import FAMILIAR_FILE, read_familiar
from labelling.shift import FEWEST_PICTURES
from report.gallery import LEAST_CERTAIN, LIST_COLUMNS
from report.tasks import shown_of
from results.runs import FinishedRun, group
from tests.labelling.cases import MULTI, PICTURES, SINGLE, over_tasks, read, train
from tests.runs import call, record_of, refuses
from trainers.common.record_file import UNFAMILIAR, read_answers

FEW = 3  # odd pictures


@pytest.fixture
def odd(tmp_path):
    """Pictures of one colour each, where the run's are noise."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for number in range(FEWEST_PICTURES):
        Image.new("RGB", (32, 32), (8 * number, 0, 255)).save(folder / f"{number}.png")
    return folder


def own_of(folder):
    return [folder / f"{number}.png" for number in range(PICTURES)]


def label(capsys, *words):
    """The exit code of predict.py, what it prints, and what it says on standard error."""
    capsys.readouterr()
    code = call(predict.main, *words)
    return code, *capsys.readouterr()


@over_tasks
def test_each_form_of_the_answers_says_how_unfamiliar_a_picture_is(
    task, run_of, pictures_of, odd, tmp_path, capsys
):
    run = run_of(task)
    own = own_of(pictures_of(task))[:FEW]
    images = [*own, *sorted(odd.iterdir())[:FEW]]
    answers = PromptedClassifier.load(run).predict(images)
    assert (answers.unfamiliar[:FEW] > UNFAMILIAR).all()
    assert (answers.unfamiliar[FEW:] <= UNFAMILIAR).all()
    assert answers.to_pandas()["unfamiliar"].tolist() == answers.unfamiliar.tolist()
    words = ["--run", run, *images]
    code, printed, _ = label(capsys, *words)
    assert code == 0
    ends = [line.endswith(", unlike the run's pictures") for line in printed.splitlines()]
    assert ends == [False] * FEW + [True] * FEW
    rows = json.loads(label(capsys, *words, "--json")[1])
    assert [row["unfamiliar"] for row in rows] == answers.unfamiliar.tolist()
    assert call(predict.main, *words, "--csv", tmp_path / "table.csv") == 0
    cells = [float(row["unfamiliar"]) for row in read(tmp_path / "table.csv")]
    assert cells == pytest.approx(answers.unfamiliar.tolist(), rel=1e-5)


@over_tasks
def test_a_task_for_label_studio_says_it_too(task, run_of, odd, capsys):
    images = sorted(odd.iterdir())[:FEW]
    file = odd / "tasks.json"
    assert call(predict.main, "--run", run_of(task), *images, "--label-studio", file) == 0
    shown = [each["data"]["unfamiliar"] for each in json.loads(file.read_text())]
    assert shown == PromptedClassifier.load(run_of(task)).predict(images).unfamiliar.tolist()


@over_tasks
def test_a_parquet_table_and_rays_actors_say_it_too(task, run_of, odd, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    images = sorted(odd.iterdir())[:FEW]
    expected = PromptedClassifier.load(run_of(task)).predict(images).unfamiliar
    file = tmp_path / "table.parquet"
    assert call(predict.main, "--run", run_of(task), *images, "--parquet", file) == 0
    assert parquet.read_table(file)["unfamiliar"].to_pylist() == pytest.approx(expected.tolist())
    names = numpy.array([*map(str, images), str(tmp_path / "gone.png")], dtype=object)
    actor = Labeller(str(run_of(task)), wanted={"max_error": 0.9})
    columns = actor({"image": names})
    assert columns["unfamiliar"][:FEW] == pytest.approx(expected)
    assert numpy.isnan(columns["unfamiliar"][FEW])
    assert columns["label"][:FEW].tolist() == [None] * FEW


@over_tasks
def test_a_promise_gives_no_label_to_what_is_unlike_the_runs(task, run_of, odd, capsys):
    """Unless that is asked for; with a share so large that it can be promised."""
    images = sorted(odd.iterdir())[:FEW]
    words = ["--run", run_of(task), *images, "--json", "--max-error", 0.9, "--explain"]
    _, printed, said = label(capsys, *words)
    rows = json.loads(printed)
    assert [row["label"] for row in rows] == [None] * FEW
    assert all(row["doubtful"] for row in rows)
    assert "Pictures unlike the run's get no label" in said
    assert f"{FEW} of them too uncertain or too unfamiliar for a label" in said
    _, printed, said = label(capsys, *words, "--label-unfamiliar")
    assert "unlike the run's get no label" not in said
    labels = [row["label"] for row in json.loads(printed)]
    own = PromptedClassifier.load(run_of(task), max_error=0.9, label_unfamiliar=True)
    answers = own.predict(images)
    if task is MULTI:
        assert labels == [";".join(names) for names in answers.labels]
    else:
        assert [name is None for name in labels] == answers.doubtful


@over_tasks
def test_labelling_pictures_of_another_kind_says_so(task, run_of, pictures_of, odd, capsys):
    code, _, said = label(capsys, "--run", run_of(task), odd)
    assert code == 0
    assert f"{FEWEST_PICTURES} of {FEWEST_PICTURES} pictures are unlike the run's" in said
    assert "are less certain and less familiar, taken together, than the run's median" in said
    own = own_of(pictures_of(task))[:FEWEST_PICTURES]
    assert "unlike" not in label(capsys, "--run", run_of(task), *own)[2]


@over_tasks
def test_fewer_pictures_say_nothing(task, run_of, odd, capsys):
    few = sorted(odd.iterdir())[: FEWEST_PICTURES - 1]
    assert "are unlike the run's (" not in label(capsys, "--run", run_of(task), *few)[2]


@over_tasks
def test_a_run_keeps_its_training_pictures_as_its_clip_sees_them(task, run_of, pictures_of):
    """In float16, of length one, by the CLIP without what was learned."""
    run = run_of(task)
    kept = read_familiar(str(run), record_of(run))
    classifier = PromptedClassifier.load(run)
    ((pixels, _),) = classifier.batches(own_of(pictures_of(task)), None)
    features = classifier.method.towers.encode_images(pixels[None])[0]
    found = {tuple(row) for row in kept.features.astype(float).round(2).tolist()}
    expected = {
        tuple(row) for row in features.double().half().numpy().astype(float).round(2).tolist()
    }
    assert len(found & expected) > PICTURES * 0.9, "but for the last digit"
    numpy.testing.assert_allclose(
        kept.look.mean, looks_of(pixels).mean(axis=0), rtol=1e-4, atol=1e-5
    )


@over_tasks
def test_a_run_says_how_unfamiliar_its_own_pictures_are(task, run_of):
    """To those of other groups, which its report lists."""
    run = run_of(task)
    kept = read_answers(run, "test", record_of(run))["unfamiliar"]
    expected = read_familiar(str(run), record_of(run)).own_p_values()
    assert kept.tolist() == expected.tolist()
    (entry,) = group([FinishedRun(run, record_of(run))])
    listed = shown_of(entry).gallery(entry, {}).rows[LEAST_CERTAIN]
    place = LIST_COLUMNS.index("unfamiliar") - len(LIST_COLUMNS)  # beside the run's own columns
    assert sorted(row[place] for row in listed) == sorted(expected.tolist())


@over_tasks
@pytest.mark.parametrize("damage", ["gone", "cut", "another's"])
def test_what_a_run_keeps_is_refused_where_it_is_damaged_and_made_again(
    task, damage, own_run, pictures_of, small_clip_file
):
    run = own_run(task)
    file = run / FAMILIAR_FILE
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:100] if damage == "cut" else content + b"more")
    with refuses("familiar.npz can.t be read .*repeat the run.s command"):
        PromptedClassifier.load(run)
    assert train(task, pictures_of(task) / "labels.csv", run, small_clip_file) == 0
    assert PromptedClassifier.load(run).familiar is not None


@over_tasks
def test_class_names_do_not_change_how_unfamiliar_a_picture_is(task, run_of, odd):
    classifier = PromptedClassifier.load(run_of(task))
    images = sorted(odd.iterdir())[:FEW]
    names = classifier.classnames
    expected = classifier.predict(images).unfamiliar
    for others in (names[::-1], names[:2]):
        found = classifier.with_classes(others).predict(images).unfamiliar
        numpy.testing.assert_array_equal(found, expected)


def test_names_alone_know_no_pictures(odd):
    classifier = PromptedClassifier.zero_shot(["ant", "bee"], "tiny")
    assert classifier.predict(sorted(odd.iterdir())[:FEW]).unfamiliar is None


def test_prompts_tell_odd_pictures_by_the_features_of_their_clip(
    pictures_of, small_clip_file, odd, tmp_path
):
    settings = "OPTIM.MAX_EPOCH", 1, "TRAINER.CDC.PROMPT_DEPTH", 3
    words = tmp_path / "run", small_clip_file, "--trainer", "CDC"
    assert train(SINGLE, pictures_of(SINGLE) / "labels.csv", *words, settings=settings) == 0
    images = sorted(odd.iterdir())[:FEW]
    answers = PromptedClassifier.load(tmp_path / "run").predict(images)
    assert (answers.unfamiliar <= UNFAMILIAR).all()
