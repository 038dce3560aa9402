"""Label Studio's ML backend by its protocol's JSON."""

import pytest

from labelling import PromptedClassifier
from labelling.serve.demo import Demo
from labelling.serve.label_studio import read_interface
from labelling.serve.page import make_app
from tests.labelling.cases import NAMES, SINGLE, over_tasks
from tests.runs import refuses


def interface(task, names=NAMES):
    values = "".join(f'<Choice value="{name}"/>' for name in names)
    several = 'choice="multiple"' if task.task.multi_label else ""
    return (
        '<View><Image name="photo" value="$image"/>'
        f'<Choices name="colour" toName="photo" {several}>{values}</Choices></View>'
    )


def task_of(number, **facts):
    return {"id": number, "data": {"image": f"/data/local-files/?d={number}.png"}, **facts}


@pytest.fixture
def backend(run_of, pictures_of):
    """``backend(task)``: a client of the task's run on its pictures, and the classifier."""

    def start(task):
        classifier = PromptedClassifier.load(run_of(task))
        return make_app(Demo(classifier, root=str(pictures_of(task)))).test_client(), classifier

    return start


@over_tasks
def test_tasks_get_the_predictions_of_the_run(task, backend, pictures_of):
    client, classifier = backend(task)
    assert client.get("/health").json["status"] == "UP"
    set_up = client.post("/setup", json={"project": "1.2", "schema": interface(task)})
    asked = {"tasks": [task_of(number) for number in range(6)], "label_config": interface(task)}
    answer = client.post("/predict", json=asked).json
    known = classifier.predict([str(pictures_of(task) / f"{n}.png") for n in range(6)])
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


@pytest.mark.parametrize(
    "path, content",
    [
        ("/setup", {}),
        ("/setup", []),
        ("/predict", {"tasks": 3}),
        ("/predict", {"tasks": [3]}),
        ("/predict", {"tasks": [{"data": {"image": 3}}]}),
        ("/predict", {"tasks": [], "label_config": 3}),
    ],
)
def test_other_bodies_are_refused_in_one_line(backend, path, content):
    client, _ = backend(SINGLE)
    response = client.post(path, json=content)
    assert response.status_code == 400
    assert "\n" not in response.json["error"]
