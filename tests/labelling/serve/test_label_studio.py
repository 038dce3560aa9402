"""Label Studio's ML backend by its protocol's JSON: predictions, annotations, and a new round of them."""

import json
import logging
import os
import shutil
from types import SimpleNamespace

import pytest

from labelling import PromptedClassifier
from labelling.commands import serve as cdc_serve
from labelling.commands import train as cdc_train
from labelling.own_run import complete, config_of_images
from labelling.request import ask_by
from labelling.rounds import keep_round, newest_finished
from labelling.serve.demo import Demo
from labelling.serve.label_studio import read_interface
from labelling.serve.page import make_app
from labelling.serve.rounds import ANNOTATIONS, Rounds, start_training, words_of
from labelling.table import read_table
from tests.conftest import slow_but_for
from tests.labelling.cases import NAMES, PICTURES, SINGLE, TASKS, over_tasks
from tests.runs import PATIENCE, call, record_of, refuses
from trainers.common.config_files import settings_in
from trainers.common.record_file import remove_record
from trainers.common.same_run import changes


def interface(task, names=NAMES):
    values = "".join(f'<Choice value="{name}"/>' for name in names)
    several = 'choice="multiple"' if task.task.multi_label else ""
    return (
        '<View><Image name="photo" value="$image"/>'
        f'<Choices name="colour" toName="photo" {several}>{values}</Choices></View>'
    )


def task_of(number, **facts):
    return {"id": number, "data": {"image": f"/data/local-files/?d={number}.png"}, **facts}


def annotation(names, number=1):
    result = {
        "from_name": "colour",
        "to_name": "photo",
        "type": "choices",
        "value": {"choices": list(names)},
    }
    return {"id": number, "result": [result], "created_at": "2026-01-01T00:00:00Z"}


@pytest.fixture
def backend(run_of, pictures_of, tmp_path):
    """``backend(task)``: a client, and the rounds of a copy of the task's run on a copy of its pictures."""

    def start(task, after=100):
        folder = shutil.copytree(run_of(task), tmp_path / "run")
        load = lambda: PromptedClassifier.load(folder)  # noqa: E731
        demo = Demo(load(), root=str(pictures_of(task)))
        rounds = Rounds(demo, str(folder), load, after)
        return make_app(demo, rounds=rounds).test_client(), rounds

    return start


@over_tasks
def test_tasks_get_the_predictions_of_the_run(task, backend, pictures_of):
    client, rounds = backend(task)
    assert client.get("/health").json["status"] == "UP"
    set_up = client.post("/setup", json={"project": "1.2", "schema": interface(task)})
    asked = {"tasks": [task_of(number) for number in range(6)], "label_config": interface(task)}
    answer = client.post("/predict", json=asked).json
    known = rounds.demo.classifier.predict([str(pictures_of(task) / f"{n}.png") for n in range(6)])
    assert answer["model_version"] == set_up.json["model_version"]
    for found, label in zip(answer["results"], known.labels, strict=True):
        (result,) = found["result"]
        assert (result["from_name"], result["to_name"]) == ("colour", "photo")
        assert result["type"] == "choices"
        assert result["value"]["choices"] == (label if task.task.multi_label else [label])
        assert 0 <= found["score"] <= 1
        assert found["model_version"] == answer["model_version"]


def test_no_address_is_fetched_and_no_file_elsewhere_is_read(backend, tmp_path):
    client, _ = backend(SINGLE)
    addresses = [
        "/data/local-files/?d=../secret.png",
        "http://localhost:1/0.png",
        "/etc/hostname",
        "/data/upload/1/abc-1.png",
    ]
    tasks = [{"id": 1, "data": {"image": address}} for address in addresses]
    answer = client.post("/predict", json={"tasks": tasks}).json
    assert [bool(one["result"]) for one in answer["results"]] == [False, False, False, True]


@over_tasks
def test_an_interface_that_cannot_show_the_answers_is_refused(task, backend):
    client, _ = backend(task)
    for schema, message in (
        ("<View/>", "has no choices"),
        (interface(task, NAMES[1:]), "lacks classes of the run: add <Choice value=…/> for blue"),
    ):
        response = client.post("/setup", json={"schema": schema})
        assert response.status_code == 400
        assert message in response.json["error"]
    response = client.post("/setup", json={"schema": interface(SINGLE)})
    assert (response.status_code == 400) == task.task.multi_label


def test_an_interface_expands_no_entities():
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    found = read_interface(bomb + interface(SINGLE, ["&b;", *NAMES]))
    assert found.choices[1:] == tuple(NAMES)
    assert "aaaa" not in found.choices[0]
    with refuses("has no choices"):
        read_interface("<" * 10_000)


def test_an_interface_with_choices_and_rectangles_is_read_as_the_run_is():
    both = interface(SINGLE).replace(
        "</View>",
        '<RectangleLabels name="kind" toName="photo"><Label value="red"/></RectangleLabels></View>',
    )
    assert read_interface(both) == read_interface(interface(SINGLE))
    found = read_interface(both, boxes=True)
    assert (found.from_name, found.to_name, found.choices) == ("kind", "photo", ("red",))


@pytest.mark.parametrize(
    "path, content",
    [
        ("/setup", {}),
        ("/setup", []),
        ("/webhook", {"action": 3}),
        ("/webhook", {"action": "ANNOTATION_CREATED"}),
        ("/webhook", {"action": "ANNOTATION_CREATED", "task": task_of(1)}),
        (
            "/webhook",
            {"action": "ANNOTATION_CREATED", "task": task_of(1), "annotation": {"result": 3}},
        ),
        ("/predict", {"tasks": 3}),
        ("/predict", {"tasks": [3]}),
        ("/predict", {"tasks": [{"data": {"image": 3}}]}),
        ("/predict", {"tasks": [], "label_config": 3}),
    ],
)
def test_other_bodies_are_refused_in_one_line(backend, path, content):
    client, rounds = backend(SINGLE)
    response = client.post(path, json=content)
    assert response.status_code == 400
    assert "\n" not in response.json["error"]
    assert not rounds.tasks


# ---- rounds ----


@over_tasks
def test_annotations_are_kept_as_an_export_and_survive_a_restart(task, backend):
    client, rounds = backend(task)
    names = task.own(5)

    def send(action, number=5, **facts):
        body = {"action": action, "task": task_of(number), "annotation": annotation(names, **facts)}
        response = client.post("/webhook", json=body)
        assert response.status_code in (200, 201)
        return response.json["status"]

    assert send("ANNOTATION_CREATED") == "kept"
    assert send("ANNOTATION_UPDATED") == "kept"
    assert send("PROJECT_UPDATED") == "ignored"
    again = Rounds(rounds.demo, rounds.folder, rounds.load, 0)
    assert again.tasks == rounds.tasks
    ((kept,),) = [one["annotations"] for one in again.tasks.values()]
    assert kept["result"] == annotation(names)["result"]
    assert send("ANNOTATION_DELETED") == "kept"
    assert [one["annotations"] for one in rounds.tasks.values()] == [[]]


EVERY_OPTION = "--skip-small", "--shots", "6", "--seed", "3", "--group-by", "none"


@over_tasks
@pytest.mark.parametrize("more", [(), pytest.param(EVERY_OPTION, marks=pytest.mark.slow)])
def test_the_next_rounds_command_has_the_settings_of_the_run(
    task, more, run_of, pictures_of, tmp_path
):
    folder = str(run_of(task, *more))
    file = str(annotated(task, pictures_of, tmp_path))
    asked = asked_by(words_of(folder, file, "cuda:1"))
    assert asked.settings["DEVICE"] == "cuda:1", "where the server answers"
    assert asked.multi_label == task.task.multi_label
    assert not changes(config_of_images(complete(asked, [])[0]), record_of(folder))


def test_it_trains_on_all_images_once_more_where_the_run_was(own_run, pictures_of, tmp_path):
    folder = own_run(SINGLE)
    file = annotated(SINGLE, pictures_of, tmp_path)
    assert not asked_by(words_of(str(folder), str(file), "auto")).refit
    (folder / "refit").mkdir()
    assert asked_by(words_of(str(folder), str(file), "auto")).refit


def annotated(task, pictures_of, folder):
    """A file with an annotation of a picture."""
    image = str(pictures_of(task) / "1.png")
    file = folder / "annotations.json"
    file.write_text(
        json.dumps([{"data": {"image": image}, "annotations": [annotation(task.own(1))]}])
    )
    return file


def asked_by(words):
    """The request of cdc-train's words."""
    args = cdc_train.parse_arguments(words)
    return ask_by(args, args.recipe, args.seed, settings_in(args.settings, "--settings"))


def test_a_round_that_fails_is_said_and_the_former_one_answers(backend, caplog, monkeypatch):
    client, rounds = backend(SINGLE, after=1)
    # a training in this process may have taken the handler from the root
    monkeypatch.setattr(logging.getLogger("serve"), "handlers", [caplog.handler])
    before = rounds.demo.classifier
    names = ["blue"]
    body = {"action": "ANNOTATION_CREATED", "task": task_of(0), "annotation": annotation(names)}
    shutil.rmtree(f"{rounds.folder}/prompt_learner")
    with open(f"{rounds.folder}/results.json", "w") as file:
        file.write("no record")
    assert client.post("/webhook", json=body).json["status"] == "a round is trained"
    rounds.training.join()
    assert "No round was made, the former one answers" in caplog.text
    assert rounds.demo.classifier is before
    assert client.post("/predict", json={"tasks": [task_of(0)]}).json["results"][0]["result"]


@slow_but_for(["multi-label"], TASKS)
def test_annotations_make_a_new_round_while_the_old_one_answers(name, backend):
    client, rounds = backend(TASKS[name], after=2)
    before = rounds.demo.classifier
    said = []
    for number in (1, 2):
        note = annotation(["red"], number)
        body = {"action": "ANNOTATION_CREATED", "task": task_of(number), "annotation": note}
        said.append(client.post("/webhook", json=body).json["status"])
    assert said == ["kept", "a round is trained"]
    results = client.post("/predict", json={"tasks": [task_of(0)]}).json["results"]
    assert results[0]["result"], "meanwhile"
    assert (
        client.post("/webhook", json={"action": "START_TRAINING"}).json["status"].startswith("kept")
    )
    rounds.training.join()
    assert rounds.demo.classifier is not before
    assert json.load(open(f"{rounds.folder}/rounds/1/results.json"))


@pytest.mark.slow
@over_tasks
def test_a_killed_round_goes_on_and_the_former_one_answers_meanwhile(task, backend):
    client, rounds = backend(task)
    for number in (1, 2):
        note = annotation(["red"], number)
        body = {"action": "ANNOTATION_CREATED", "task": task_of(number), "annotation": note}
        assert client.post("/webhook", json=body).json["status"] == "kept"
    before = kill_a_round(rounds.folder)
    assert newest_finished(rounds.folder) == before
    rounds.begin()
    rounds.training.join()
    assert newest_finished(rounds.folder) == rounds.folder
    assert os.listdir(f"{rounds.folder}/rounds") == ["1"]


@pytest.mark.slow
def test_a_training_ends_with_its_server(pictures_of, tmp_path):
    folder = tmp_path / "run"
    words = [pictures_of(SINGLE) / "labels.csv", "--output-dir", folder, "--backbone", "tiny"]
    with start_training(map(str, words)) as training:
        training.stdin.close()
        training.wait(PATIENCE)
    assert training.returncode == 1
    assert not (folder / "results.json").exists()


def kill_a_round(folder):
    """Leave a run's folder as a round does that was killed at its beginning; return the former one's folder."""
    former = keep_round(str(folder))
    remove_record(str(folder))
    return former


def test_a_server_that_is_started_after_a_killed_round_goes_on_with_it(
    own_run, pictures_of, monkeypatch, caplog
):
    folder = own_run(SINGLE)
    former = kill_a_round(folder)
    monkeypatch.setattr(logging.getLogger("serve"), "handlers", [caplog.handler])
    begun = []
    monkeypatch.setattr(Rounds, "begin", lambda rounds: begun.append(rounds.folder))
    server = SimpleNamespace(effective_port=1, run=lambda: None)
    monkeypatch.setattr("labelling.serve.page.make_server", lambda *_: server)
    words = "--run", folder, "--root", pictures_of(SINGLE), "--train-after", 5
    assert call(cdc_serve.main, *words) == 0
    assert begun == [str(folder)]
    assert f"The newest round of {folder} is not finished: {former} answers" in caplog.text


def chosen_in(row):
    """The choices of a row of Label Studio's JSON_MIN, which is flat where there is one."""
    chosen = row.get("colour") or []
    if isinstance(chosen, dict):
        return chosen["choices"]
    return [chosen] if isinstance(chosen, str) else chosen


@pytest.mark.slow
@over_tasks
def test_label_studios_own_client_takes_and_reads_a_whole_round(
    task, backend, pictures_of, tmp_path
):
    """Predictions are valid by its rules, and what is kept of annotations is, by its converter, what a round is
    trained on."""
    from label_studio_sdk.converter import Converter  # slow to import
    from label_studio_sdk.label_interface import LabelInterface

    schema = interface(task)
    client, rounds = backend(task, after=PICTURES)
    interface_of_client = LabelInterface(schema)
    tasks = [task_of(number) for number in range(PICTURES)]

    def check_predictions():
        asked = {"tasks": tasks, "label_config": schema}
        for found in client.post("/predict", json=asked).json["results"]:
            assert interface_of_client.validate_prediction(found)
            found["result"][0]["value"]["choices"] = ["no such colour"]
            assert not interface_of_client.validate_prediction(found)

    check_predictions()
    before = rounds.demo.classifier
    for number, own in enumerate(tasks):
        note = annotation(task.own(number), number)
        assert interface_of_client.validate_annotation(note)
        body = {"action": "ANNOTATION_CREATED", "task": own, "annotation": note}
        said = client.post("/webhook", json=body).json["status"]
    assert said == "a round is trained"
    rounds.training.join()
    assert rounds.demo.classifier is not before
    check_predictions()
    converter = Converter(schema, str(tmp_path), download_resources=False)
    converter.convert_to_json_min(rounds.file, str(tmp_path / "read"), is_dir=False)
    table = read_table(rounds.file, task.task.multi_label)
    known = {}
    for path, has in zip(table.paths, table.truth):
        known[os.path.realpath(path)] = [
            name for name, is_own in zip(table.classnames, has) if is_own
        ]
    read = json.loads((tmp_path / "read/result.json").read_text())
    assert len(read) == len(known) == PICTURES
    for row in read:
        assert sorted(chosen_in(row)) == sorted(known[row["image"]])


def test_a_users_file_is_not_taken_for_annotations(own_run):
    folder = own_run(SINGLE)
    file = folder.with_name(folder.name + ANNOTATIONS)
    file.write_text("mine")
    with refuses("is not a file of annotations that cdc-serve has written"):
        Rounds(None, str(folder), None, 1)
    assert file.read_text() == "mine"


def test_rounds_need_a_root(run_of, error_of):
    line = error_of(cdc_serve.main, "--run", run_of(SINGLE), "--train-after", "20")
    assert line.startswith("error: --train-after learns from pictures below --root")
