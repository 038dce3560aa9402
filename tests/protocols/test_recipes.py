"""Recipes are the experiments they name: the plan of scripts/paper.sh against a golden table, and
what a recipe's rules do."""

import functools
import re
import subprocess
from pathlib import Path

import pytest

import run as protocol_run
from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.launch import wanted_config
from protocols.runs import plan_runs, show_plan
from tests.methods import FITTED
from tests.runs import REPOSITORY, call, refuses
from trainers.common.config_files import read_config
from trainers.common.recipes import CONFIGS, Recipe
from trainers.data.loader import steps_of_epoch

DATASETS = 11  # of the paper's grid


def paper(*more):
    """The parsed arguments of each call of run.py in scripts/paper.sh, which a test may change."""
    return [protocol_run.parse_arguments(words) for words in words_of_paper(*more)]


@functools.cache
def words_of_paper(*more):
    """The words of those calls."""
    show = 'python() { printf "%s\\n" "$@" END; }; source scripts/paper.sh "$@"'
    command = ["bash", "-c", show, "scripts/paper.sh", "--seeds", "1", *more]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    calls = [call.split("\n") for call in shown.stdout.strip().split("\nEND") if call]
    return [[word for word in call if word][1:] for call in calls]


def golden():
    """(protocol, trainer, data set, shots) → recipe, epochs, batch size, learning rate, further
    settings, for every training of the grid."""
    lines = (REPOSITORY / "tests/golden/plan.txt").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if "|" in line]
    rows = [row for row in rows if not row[0].startswith("#")]
    found = {}
    all_sets = paper()[0].dataset
    for protocol, trainer, sets, shots, *rest in sorted(rows, key=lambda row: row[2] != "others"):
        for data in all_sets if sets == "others" else sets.split():
            for number in shots.split():
                found[protocol, trainer, data, number] = tuple(rest[:5])
    return found


def read_plan(text):
    """The rows of ``--plan`` as dicts."""
    heads, dashes, *rows, _ = text.splitlines()
    cells = [slice(*column.span()) for column in re.finditer("-+", dashes)]
    return [{heads[cell].strip(): row[cell].strip() for cell in cells} for row in rows]


def test_the_plan_of_the_paper_grid_is_what_the_authors_ran():
    """And is what is trained: for one run of each kind that the golden table and the rules tell apart."""
    expected = golden()
    shown = {}
    looked_at = set()
    protocols = {"train_base": "base2new", "train_all": "fewshot", "train_source": "xd"}
    for args in paper():
        trainings = {
            (protocols[run.part], run.trainer, run.dataset, str(run.shots)): run
            for run in plan_runs(args)
            if not run.model and Recipe.read(run.recipe).is_trained
        }
        for row in read_plan(show_plan(args)):
            key = (protocols.get(row["part"]), row["trainer"], row["data set"], row["shots"])
            if key not in trainings:
                continue
            cells = [row[name] for name in ("recipe", "epochs", "batch", "learning rate", "CLIP")]
            further = expected[key][4]
            shown[key] = (*cells[:4], further)
            kind = (key[1], *cells, further, row["rules, a later one wins"])
            if kind not in looked_at:
                looked_at.add(kind)
                assert_trains_with(wanted_config(trainings[key], args), key[1], cells, further)
    assert shown == expected
    assert len(shown) == (9 + 10) * DATASETS + (9 + 7) * DATASETS * 5 + (9 + 4)


def assert_trains_with(cfg, trainer, cells, further):
    figures = (cfg.OPTIM.MAX_EPOCH, cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.OPTIM.LR)
    assert cells[1:] == [*map(str, figures), cfg.MODEL.BACKBONE.NAME]
    for setting in re.split(", (?=[A-Z])", further):  # a value may be a list
        name, _, value = setting.partition(" ")
        assert str(cfg.TRAINER[trainer.upper()][name]) == value, setting


def recipes_of(trainer):
    return sorted(path.stem for path in (CONFIGS / "trainers" / trainer).iterdir())


def config_of(protocol, trainer, data, recipe):
    """The config that ``run.py`` trains with."""
    words = (
        f"--protocol {protocol} --trainer {trainer} --dataset {data} --config {recipe} --seeds 1"
    )
    args = protocol_run.parse_arguments(words.split())
    first = next(iter(plan_runs(args)))
    return wanted_config(first, args)


@pytest.mark.parametrize("recipe", ["vit_b16", "rn50"])
def test_gda_crops_imagenet_from_8_percent_and_others_from_half_as_its_authors_do(recipe):
    crops = {
        data: config_of("fewshot", "GDA", data, recipe).INPUT.RRCROP_SCALE
        for data in ("imagenet", "dtd")
    }
    assert crops == {"imagenet": (0.08, 1.0), "dtd": (0.5, 1.0)}


@pytest.mark.parametrize("recipe", ["vit_b16", "rn50"])
@pytest.mark.parametrize("images, steps", [(47 * 16, 3), (256, 1), (10, 1)])
def test_tip_adapter_f_shows_every_image_in_each_epoch_as_its_authors_loader_does(
    recipe, images, steps
):
    """DTD has 47 classes; officially ceil(images / 256) steps."""
    cfg = config_of("fewshot", "TipAdapterF", "dtd", recipe)
    assert cfg.OPTIM.LEAST_STEPS > 0
    assert steps_of_epoch(images, cfg.OPTIM, cfg.DATALOADER.TRAIN_X.BATCH_SIZE) == steps


@pytest.mark.parametrize("protocol", ["fewshot", "base2new"])
@pytest.mark.parametrize("trainer", FITTED)
def test_ones_own_pictures_are_fitted_to_in_one_pass_and_a_probe_is_beside_the_texts(
    trainer, protocol
):
    """Under every recipe and protocol, but for GDA's views in base-to-new; a probe of few pictures alone
    is poor."""
    for recipe in recipes_of(trainer):
        settings = config_of(protocol, trainer, "image_folder", recipe).TRAINER[trainer.upper()]
        assert settings.get("BESIDE_TEXTS", True), recipe
        if (trainer, protocol) != ("GDA", "base2new"):
            assert not settings.get("AUGMENT_EPOCH", 0), recipe


@pytest.mark.parametrize("dataset", ["dtd", "image_folder"])
def test_gda_has_its_authors_covariances_and_views_in_base_to_new(dataset):
    for recipe in recipes_of("GDA"):
        settings = config_of("base2new", "GDA", dataset, recipe).TRAINER.GDA
        assert (settings.SHRINK, settings.AUGMENT_EPOCH) == (False, 10), recipe
        assert config_of("fewshot", "GDA", dataset, recipe).TRAINER.GDA.SHRINK, recipe


def test_a_recipe_has_what_its_bases_have_and_its_own_lines_over_it(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("BASE: [rn50, tiny]\nINPUT:\n  SIZE: (96, 96)\nOPTIM:\n  LR: 0.5\n")
    tiny = read_config(CONFIGS / "bases/tiny.yaml", "base")
    config = read_config(path, "recipe")
    assert config.pop("OPTIM") == {"LR": 0.5}
    assert config["INPUT"].pop("SIZE") == "(96, 96)" != tiny["INPUT"].pop("SIZE")
    assert config == tiny
    path.write_text("BASE: tinny")
    with refuses(r"recipe: BASE can't be 'tinny' \(did you mean tiny"):
        read_config(path, "recipe")


@pytest.mark.parametrize(
    "words, expected",
    [
        ("CDC --dataset imagenet --backbone ViT-B/32", "vit_b32_text vit_b32_text ViT-B/32"),
        ("MaPLe --dataset imagenet --backbone RN50", "vit_b16-rn50 vit_b16 RN50"),
    ],
)
def test_a_backbone_takes_its_own_recipe_or_says_that_there_is_none(words, expected, caplog):
    args = protocol_run.parse_arguments(f"--protocol base2new --seeds 1 --trainer {words}".split())
    run = plan_runs(args)[0]
    name, recipe, backbone = expected.split()
    assert (run.name, Path(run.recipe).stem) == (name, recipe)
    assert wanted_config(run, args).MODEL.BACKBONE.NAME == backbone
    missing = "MaPLe has no recipe for RN50: vit_b16's settings are taken"
    assert (missing in caplog.text) == bool(caplog.text) == (backbone == "RN50")


def test_the_plan_names_the_rules_and_starts_nothing(tmp_path, capsys):
    words = (
        f"--protocol fewshot --trainer ProGrad --dataset eurosat --shots 16 --output {tmp_path}/o"
    )
    assert call(protocol_run.main, *words.split(), "--plan", "--", "OPTIM.LR", "0.1") == 0
    shown = capsys.readouterr().out
    assert "\n3 runs: 0 done, 3 missing. Weights of other CLIPs than tiny are downloaded" in shown
    assert shown.endswith("to try it without: --backbone tiny\n")
    (row,) = read_plan(shown)
    assert row["rules, a later one wins"] == (
        "protocol fewshot: OPTIM.MAX_EPOCH 200; "
        "protocol fewshot, shots 8|16, dataset oxford_flowers|dtd|eurosat: TRAINER.PROGRAD.LAMBDA 0.8"
    )
    assert (row["epochs"], row["learning rate"], row["seeds"]) == ("200", "0.1", "1 2 3")
    assert (row["CLIP"], row["done"]) == ("ViT-B/16", "")
    assert not (tmp_path / "o").exists()


def config(tmp_path, rules, *options, protocol="fewshot", dataset="eurosat"):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"OPTIM:\n  MAX_EPOCH: 7\nRULES:\n{rules}\n")
    words = (
        f"--trainer CoOp --config-file {path} --protocol {protocol} "
        f"--dataset-config-file {CONFIGS}/datasets/{dataset}.yaml"
    )
    return build_config(parse_arguments([*words.split(), *options]))


def test_a_later_rule_wins_and_the_command_line_wins_over_all(tmp_path):
    rules = """
  - {shots: [1, 2], OPTIM.MAX_EPOCH: 3}
  - {dataset: [eurosat, dtd], OPTIM.MAX_EPOCH: 4}
  - {protocol: xd, OPTIM.MAX_EPOCH: 5}"""

    def epochs(*options, **run):
        return config(tmp_path, rules, *options, **run).OPTIM.MAX_EPOCH

    assert epochs("DATASET.NUM_SHOTS", "1") == 4, "of two that hold the later one"
    assert epochs("DATASET.NUM_SHOTS", "2", dataset="imagenet") == 3
    assert epochs("DATASET.NUM_SHOTS", "16", dataset="imagenet") == 7
    assert epochs(protocol="dg", dataset="imagenet") == 5, "dg is tested with xd's prompts"
    assert epochs(dataset="eurosat", protocol="xd") == 5, (
        "what is tested there was trained on ImageNet"
    )
    assert epochs("DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "9") == 9
    held = Recipe.read(f"{tmp_path}/recipe.yaml").holding(shots=2, dataset="eurosat")
    assert list(map(str, held)) == [
        "shots 1|2: OPTIM.MAX_EPOCH 3",
        "dataset eurosat|dtd: OPTIM.MAX_EPOCH 4",
    ]


def test_a_rule_for_a_target_holds_where_prompts_of_another_set_are_tested(tmp_path):
    """MMRL's authors answer ImageNet by both features, its variants by the class token alone."""
    rules = "  - {protocol: xd, target: [imagenetv2, imagenet], OPTIM.MAX_EPOCH: 5}"
    epochs = {
        dataset: config(tmp_path, rules, protocol="dg", dataset=dataset).OPTIM.MAX_EPOCH
        for dataset in ("imagenet", "imagenetv2", "imagenet_sketch")
    }
    assert epochs == {"imagenet": 7, "imagenetv2": 5, "imagenet_sketch": 7}
    shares, (args,) = {}, [args for args in paper() if args.protocol == ["xd", "dg"]]
    args.trainer = ["MMRL"]
    for run in plan_runs(args):
        shares[run.dataset] = wanted_config(run, args).TRAINER.MMRL.SCALE
    variants = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")
    assert shares["imagenet"] == shares["dtd"] == 0.7
    assert {shares[variant] for variant in variants} == {1.0}
    shown = {row["data set"]: row["rules, a later one wins"] for row in read_plan(show_plan(args))}
    assert shown["imagenet_sketch"] == (
        f"tests train_source; protocol xd, target {'|'.join(variants)}: TRAINER.MMRL.SCALE 1.0"
    )
    assert shown["dtd"] == "tests train_source"


def test_without_a_protocol_base_and_new_classes_are_base_to_new_and_all_are_few_shot():
    words = (
        f"--trainer CoOp --config-file {CONFIGS}/trainers/CoOp/vit_b16.yaml --dataset-config-file "
        f"{CONFIGS}/datasets/dtd.yaml DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES"
    )
    for classes, context in (("base", 4), ("new", 4), ("all", 16)):
        cfg = build_config(parse_arguments([*words.split(), classes]))
        assert cfg.TRAINER.COOP.N_CTX == context


@pytest.mark.parametrize(
    "rule, message",
    [
        (
            "{protocol: fewshot, OPTIM.MAX_EPOCHS: 3}",
            "unknown config key OPTIM.MAX_EPOCHS .did you",
        ),
        (
            "{dataset: eurosta, OPTIM.MAX_EPOCH: 3}",
            "dataset can't be 'eurosta' .did you mean eurosat",
        ),
        ("{shot: 1, OPTIM.MAX_EPOCH: 3}", "unknown condition 'shot' .did you mean shots"),
        ("{shots: '1', OPTIM.MAX_EPOCH: 3}", "shots can't be '1'"),
        ("{default_shots: 0}", "default_shots can't be 0"),
        ("{OPTIM.MAX_EPOCH: many}", "OPTIM.MAX_EPOCH is 'many', it takes a whole number"),
        ("3", "RULES must be a list of rules"),
    ],
)
def test_a_rule_that_would_never_hold_or_set_nothing_is_refused(rule, message, tmp_path):
    with refuses(message):
        config(tmp_path, f"  - {rule}")
