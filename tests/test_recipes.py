"""Recipes are the experiments they name: the plan of the paper grid against a golden table, and what a recipe's rules do."""

import functools
import re
from dataclasses import replace

import pytest
from dassl.engine import TRAINER_REGISTRY
from sweeps.grid import read_file, requests

import run as protocol_run
from protocols.arguments import build_config, config_and_rules
from protocols.command_line import parse_arguments
from protocols.plan import CONFIGS
from protocols.runs import Request
from tests.conftest import REPOSITORY
from trainers.common.errors import UserError

PAPER = [
    replace(request, seeds=(1,))
    for request in requests(read_file(str(REPOSITORY / "configs" / "sweeps" / "paper.yaml")))
]


def golden():
    """(protocol, trainer, data set, shots) → recipe, epochs, batch size, learning rate, further settings, for every training of the grid."""
    lines = [
        line.split("#")[0]
        for line in (REPOSITORY / "tests" / "golden" / "plan.txt").read_text().splitlines()
    ]
    lines = [[cell.strip() for cell in line.split("|")] for line in lines if "|" in line]
    datasets = PAPER[0].datasets
    found = {}
    for protocol, trainer, sets, shots, *rest in lines:
        for number in shots.split():
            named = [
                name
                for p, t, other, n, *_ in lines
                if (p, t) == (protocol, trainer) and number in n.split()
                for name in other.split()
            ]
            for data in (
                [name for name in datasets if name not in named]
                if sets == "others"
                else sets.split()
            ):
                assert found.setdefault(
                    (protocol, trainer, data, number), tuple(rest[:5])
                ) == tuple(rest[:5])
    return found


def read_plan(text):
    """The rows of ``--plan`` as dicts."""
    heads, dashes, *rows = text.splitlines()
    ends, at = [], 0
    for width in map(len, dashes.split("  ")):
        ends.append((at, at + width))
        at += width + 2
    names = [heads[start:end].strip() for start, end in ends]
    return [dict(zip(names, (row[start:end].strip() for start, end in ends))) for row in rows]


def test_the_plan_of_the_paper_grid_is_what_the_authors_ran(monkeypatch):
    monkeypatch.setattr(
        Request, "config_and_rules", functools.cache(Request.config_and_rules)
    )  # asked for twice below
    expected, planned, protocols = (
        golden(),
        {},
        {"train_base": "base2new", "train_all": "fewshot", "train_source": "xd"},
    )
    for request in PAPER:
        if request.protocol == "dg":
            continue  # the training is xd's, see below
        configs = {
            (job.dataset, job.trainer, str(job.shots)): request.wanted_config(job)
            for job in request.runs()
            if not job.model and TRAINER_REGISTRY.get(job.trainer).learns
        }
        for row in read_plan(request.plan()):
            if row["part"] in protocols:
                key = protocols[row["part"]], row["trainer"], row["data set"], row["shots"]
                node = configs[row["data set"], row["trainer"], row["shots"]].TRAINER[
                    row["trainer"].upper()
                ]
                further = expected[key][4]
                for setting in re.split(", (?=[A-Z])", further):  # a value may be a list
                    name, _, value = setting.partition(" ")
                    assert str(node[name]) == value, (key, setting)
                planned[key] = (
                    row["recipe"],
                    row["epochs"],
                    row["batch"],
                    row["learning rate"],
                    further,
                )
    assert planned == expected
    assert len(planned) == (9 + 8) * 11 + (9 + 5) * 11 * 5 + (9 + 2)


def test_domain_generalisation_tests_what_cross_data_set_trained():
    trainings = [
        {job for job in request.runs() if not job.model}
        for request in PAPER
        if request.protocol in ("xd", "dg")
    ]
    assert trainings[0] == trainings[1] and len(trainings[0]) == 9 + 2


def test_the_plan_names_the_rules_and_starts_nothing(tmp_path, capsys):
    assert (
        protocol_run.main(
            [
                "--protocol",
                "fewshot",
                "--trainer",
                "ProGrad",
                "--dataset",
                "eurosat",
                "--shots",
                "16",
                "--plan",
                "--output",
                str(tmp_path / "o"),
                "--",
                "OPTIM.LR",
                "0.1",
            ]
        )
        == 0
    )
    (row,) = read_plan(capsys.readouterr().out)
    assert row["rules, a later one wins"] == (
        "protocol fewshot: OPTIM.MAX_EPOCH 200; "
        "protocol fewshot, shots 8|16, dataset oxford_flowers|dtd|eurosat: TRAINER.PROGRAD.LAMBDA 0.8"
    )
    assert (row["epochs"], row["learning rate"], row["seeds"]) == ("200", "0.1", "1 2 3")
    assert not (tmp_path / "o").exists()


def config(tmp_path, rules, *options, protocol="fewshot", dataset="eurosat"):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"OPTIM:\n  MAX_EPOCH: 7\nRULES:\n{rules}\n")
    return config_and_rules(
        parse_arguments(
            [
                "--trainer",
                "CoOp",
                "--config-file",
                str(path),
                "--dataset-config-file",
                f"{CONFIGS}/datasets/{dataset}.yaml",
                "--protocol",
                protocol,
                *options,
            ]
        )
    )


def test_a_later_rule_wins_and_the_command_line_wins_over_all(tmp_path):
    rules = "  - {shots: [1, 2], OPTIM.MAX_EPOCH: 3}\n  - {dataset: [eurosat, dtd], OPTIM.MAX_EPOCH: 4}\n  - {protocol: xd, OPTIM.MAX_EPOCH: 5}"

    def epochs(*options, **run):
        return config(tmp_path, rules, *options, **run)[0].OPTIM.MAX_EPOCH

    assert epochs("DATASET.NUM_SHOTS", "1") == 4, "of two that hold the later one"
    assert epochs("DATASET.NUM_SHOTS", "2", dataset="imagenet") == 3
    assert epochs("DATASET.NUM_SHOTS", "16", dataset="imagenet") == 7
    assert epochs(protocol="dg", dataset="imagenet") == 5, "dg is tested with xd's prompts"
    assert epochs(dataset="eurosat", protocol="xd") == 5, (
        "what is tested there was trained on ImageNet"
    )
    assert epochs("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "9") == 9
    assert [str(rule) for rule in config(tmp_path, rules, "DATASET.NUM_SHOTS", "2")[1]] == [
        "shots 1|2: OPTIM.MAX_EPOCH 3",
        "dataset eurosat|dtd: OPTIM.MAX_EPOCH 4",
    ]


def test_without_a_protocol_base_and_new_classes_are_base_to_new_and_all_are_few_shot():
    recipe = [
        "--trainer",
        "CoOp",
        "--config-file",
        f"{CONFIGS}/trainers/CoOp/vit_b16.yaml",
        "--dataset-config-file",
        f"{CONFIGS}/datasets/dtd.yaml",
        "DATASET.NUM_SHOTS",
        "16",
    ]
    contexts = {
        classes: build_config(
            parse_arguments([*recipe, "DATASET.SUBSAMPLE_CLASSES", classes])
        ).TRAINER.COOP.N_CTX
        for classes in ("base", "new", "all")
    }
    assert contexts == {"base": 4, "new": 4, "all": 16}


@pytest.mark.parametrize(
    "rules, message",
    [
        (
            "  - {protocol: fewshot, OPTIM.MAX_EPOCHS: 3}",
            "rule 1: unknown config key OPTIM.MAX_EPOCHS (did you mean OPTIM.MAX_EPOCH?)",
        ),
        ("  - {protocol: xd, OPTIM.MAX_EPOCHS: 3}", "rule 1: unknown config key OPTIM.MAX_EPOCHS"),
        (
            "  - {dataset: eurosta, OPTIM.MAX_EPOCH: 3}",
            "rule 1: unknown dataset 'eurosta' (did you mean eurosat?)",
        ),
        ("  - {protocol: few, OPTIM.MAX_EPOCH: 3}", "unknown protocol 'few'"),
        ("  - {shot: 1, OPTIM.MAX_EPOCH: 3}", "unknown condition 'shot' (did you mean shots?)"),
        ("  - {shots: '1', OPTIM.MAX_EPOCH: 3}", "shots is '1', it takes whole numbers"),
        ("  - {default_shots: 0}", "default_shots is 0"),
        ("  - {OPTIM.MAX_EPOCH: many}", "rule 1: "),
        ("  - 3", "rule 1: 3 must have keys"),
        ("  3", "RULES must be a list of rules"),
    ],
)
def test_a_rule_that_would_never_hold_or_set_nothing_is_refused(rules, message, tmp_path):
    with pytest.raises(UserError) as caught:
        config(tmp_path, rules)
    assert message in str(caught.value)


def test_the_shots_of_a_recipe_are_a_default(tmp_path, capsys):
    def shots(*options):
        assert (
            protocol_run.main(
                [
                    "--protocol",
                    "xd",
                    "--trainer",
                    "KgCoOp",
                    "--dataset",
                    "imagenet",
                    "--plan",
                    *options,
                ]
            )
            == 0
        )
        return {(row["part"], row["shots"]) for row in read_plan(capsys.readouterr().out)}

    assert shots() == {("train_source", "4"), ("xd_from_imagenet", "")}
    assert shots("--shots", "16") == {("train_source", "16"), ("xd_from_imagenet", "")}
