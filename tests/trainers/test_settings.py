"""What a method's settings make of it: sizes, refusals, first values, and groups of parameters."""

import ast
import json
import re
import sys

import clip
import pytest
import torch
import yaml
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from datasets.drawn.factors import SETTINGS as FACTORS
from protocols.arguments import extend_config, extensions
from tests.conftest import GOLDEN, METHOD_OF, TRAINERS, make_method
from tests.prompting.models import relative
from tests.runs import REPOSITORY, refuses
from trainers import MULTI_LABEL_METHODS, method_node, multi_label_class
from trainers.cdc import add_cdc_config
from trainers.cliplora import LowRank
from trainers.common.config_files import check_values, flatten, merge
from trainers.common.recipes import Recipe
from trainers.common.setting import node_of
from trainers.data.transforms import pixels_of_test, steps_of_training
from trainers.engine.build import settings_with
from trainers.engine.optimizer import build_optimizer
from trainers.settings import (
    OF_DASSL_ALONE,
    READ,
    RUN,
    add_run_settings,
    run_config,
    settings_of_run,
)

METHODS = GOLDEN["methods"]
NAMES = ["banded", "person_on_a_bike"]


@pytest.mark.parametrize("name, settings, size", METHODS["sizes"])
def test_learnable_parameters_on_vit_b16_are_as_many_as_officially(vit_b16, name, settings, size):
    assert make_method(name, vit_b16, NAMES, **settings).count_parameters()[0] == size


@pytest.mark.parametrize("name, settings, names", METHODS["names"])
def test_saved_names_are_the_official_ones(vit, name, settings, names):
    assert sorted(make_method(name, vit, NAMES, **settings).learner.state_dict()) == names


@pytest.mark.parametrize("name, settings, line", METHODS["refused"])
def test_settings_that_can_not_work_are_refused_with_the_key_and_what_it_takes(
    vit, name, settings, line
):
    with refuses(f"^{re.escape(line)}$"):
        _ = make_method(name, vit, NAMES, **settings).hand_crafted


@pytest.mark.parametrize("name, settings, words, tokens", METHODS["contexts"])
def test_a_context_starts_from_a_phrases_first_tokens(
    vit, stock_vit, name, settings, words, tokens
):
    contexts = make_method(name, vit, NAMES, **settings).learner.ctx
    phrase = stock_vit.token_embedding(clip.tokenize(words))[0, 1 : 1 + tokens]
    for context in contexts.reshape(-1, *contexts.shape[-2:]):
        assert torch.equal(context[-tokens:], phrase)
        assert not context[:-tokens].any()


@pytest.mark.parametrize("name, settings, gaussian", METHODS["deviations"])
def test_what_is_drawn_has_the_official_deviation(vit_b16, name, settings, gaussian):
    torch.manual_seed(0)
    state = make_method(name, vit_b16, NAMES, **settings).learner.state_dict()
    for key, deviation in gaussian.items():
        assert state[key].std().item() == pytest.approx(deviation, rel=0.1), key
    if name == "CoOp":
        assert not torch.equal(*state["ctx"])


@pytest.mark.parametrize("name, settings, maps", METHODS["deep maps"])
def test_deep_maps_start_alike_and_are_learned_apart(vit, name, settings, maps):
    learner = make_method(name, vit, NAMES, **settings).learner
    first, second = getattr(learner, maps)[-2:]
    assert torch.equal(first.weight, second.weight)
    assert first.weight is not second.weight


@pytest.mark.parametrize("name", ["CLIPLoRA", "ProLIP", "GDA", "TipAdapter"])
def test_it_starts_as_clip_itself(vit, name):
    method, images = make_method(name, vit, NAMES), torch.randn(1, 3, 3, 32, 32)
    known = make_method("ZeroshotCLIP", vit, NAMES)
    if name == "CLIPLoRA":  # whose prompt is the same for all data sets
        known.hand_crafted = known.towers.teacher.encode_classes(
            "a photo of a {}.", known.classnames
        )
        assert all(change.down.std() > 0 for change in method.learner.text)
    assert relative(method(images).logits, known(images).logits) < 1e-5


def test_queries_keys_and_values_have_dropout_of_their_own_in_training_only():
    change = LowRank(64, 64, alpha=2.0, dropout=0.25)
    with torch.no_grad():
        change.down.copy_(torch.eye(64))
        change.up.copy_(torch.eye(64))
    x, nothing = torch.rand(200, 64) + 1, torch.zeros(200, 192)
    whole = change.eval().project(x, nothing, "qkv")
    torch.testing.assert_close(whole, x.repeat(1, 3) * 2 / 8)
    parts = change.train().project(x, nothing, "qkv").chunk(3, dim=1)
    queries, keys, values = (part != 0 for part in parts)
    for part in parts:
        kept = part != 0
        torch.testing.assert_close(part[kept], (x * 2 / 8 / 0.75)[kept])
        assert kept.float().mean() == pytest.approx(0.75, abs=0.02)
    assert not torch.equal(queries, keys)
    assert not torch.equal(keys, values)


@pytest.mark.parametrize("name, expected", METHODS["groups"])
def test_the_optimiser_has_all_parameters_in_groups_with_the_official_settings(vit, name, expected):
    method, cfg = make_method(name, vit, NAMES), get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "adam", "LR", 0.02])
    groups = build_optimizer(method, cfg).param_groups
    for group, settings in zip(groups, expected, strict=True):
        for key, value in {"lr": 0.02, "eps": 1e-8, **settings}.items():
            assert group[key] == pytest.approx(value)
    numbers = [parameter.numel() for group in groups for parameter in group["params"]]
    assert sum(numbers) == method.count_parameters()[0]


# ---- configs ----


def defaults():
    cfg = get_cfg_default()
    extend_config(cfg)
    return cfg


CONFIGS = [
    path
    for path in sorted(REPOSITORY.glob("configs/*/**/*.yaml"))
    if not {"ablations", "sweeps"} & {*path.parts}
]
OF_MULTI_LABEL = [
    path for path in CONFIGS if path.parent.name in {*MULTI_LABEL_METHODS} - {*TRAINERS}
]
CONFIGS = [path for path in CONFIGS if path not in OF_MULTI_LABEL]


@pytest.mark.parametrize("path", OF_MULTI_LABEL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_of_a_multi_label_trainer_is_valid_without_dassl(path):
    method = multi_label_class(path.parent.name)
    cfg = node_of(settings_with(method))
    merge(cfg, Recipe.read(str(path)).settings, "config file")
    check_values(cfg, settings_with(method))
    assert path.read_text().startswith("# "), "what the recipe is and what it costs"
    assert Recipe.read(str(path)).is_trained == method.learns
    assert list(yaml.safe_load(path.read_text())["TRAINER"]) == [method.name().upper()]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_is_valid_and_a_recipe_says_what_it_is(path):
    cfg, name = defaults(), path.parent.name
    merge(cfg, Recipe.read(str(path)).settings, "config file")
    check_values(cfg, settings_of_run(cfg) | extensions())
    if "trainers" in path.parts:
        assert path.read_text().startswith("# "), "what the recipe is and what it costs"
        trainer = TRAINER_REGISTRY.get(name)
        trainer.check_cfg(trainer.__new__(trainer), cfg)
        assert Recipe.read(str(path)).is_trained == trainer.method.learns
        assert re.match(r"tiny|vit_|rn\d", path.stem), "its name starts with its backbone"
        assert list(yaml.safe_load(path.read_text())["TRAINER"]) == [name.upper()]


def test_a_whole_number_is_a_number_too():
    cfg = defaults()
    settings = {"OPTIM.LR": "1", "OPTIM.WEIGHT_DECAY": 0, "OPTIM.MAX_EPOCH": "5"}
    merge(cfg, settings, "options")
    found = [cfg.OPTIM.LR, cfg.OPTIM.WEIGHT_DECAY, cfg.OPTIM.MAX_EPOCH]
    assert found == [1, 0, 5]
    assert [*map(type, found)] == [float, float, int]


def test_without_dassl_its_keys_have_its_defaults():
    dassls = flatten(get_cfg_default())
    own = flatten(run_config())
    assert {key: dassls[key] for key in READ} == {key: own[key] for key in READ}
    assert own.keys() <= flatten(defaults()).keys()


def steps(transforms):
    """What they say of themselves, without addresses."""
    return [re.sub(" at 0x.*", "", repr(step)) for step in transforms]


@pytest.mark.parametrize(
    "names",
    [
        ("random_resized_crop", "random_flip", "normalize"),
        ("random_crop", "center_crop"),
        ("randaugment", "normalize"),
        (),
    ],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_without_dassl_images_have_its_pixels(names, interpolation):
    cfg = get_cfg_default()
    cfg.INPUT.update(INTERPOLATION=interpolation, TRANSFORMS=names, SIZE=(64, 48))
    tested, trained = (build_transform(cfg, is_train=which).transforms for which in (False, True))
    assert steps(steps_of_training(cfg)) == steps(trained)
    own = run_config()
    own.INPUT.update(INTERPOLATION=interpolation, TRANSFORMS=names, SIZE=(64, 48))
    assert steps(pixels_of_test(own.INPUT).transforms) == steps(tested)


# ---- declarations ----

DECLARED = {
    "run": RUN | OF_DASSL_ALONE,
    "factors": FACTORS,
    **{name: METHOD_OF[name].declared for name in TRAINERS},
}
WHOLE = RUN | OF_DASSL_ALONE | extensions()
LAST = {path.rpartition(".")[2] for path in WHOLE}
# every node, too: code and messages may name a whole one
NAMED = {".".join(key.split(".")[:n]) for key in WHOLE for n in range(1, 5)}


@pytest.mark.parametrize("settings", DECLARED.values(), ids=DECLARED)
def test_every_setting_says_what_it_is_and_takes_its_own_default(settings):
    check_values(node_of(settings), settings)
    for key, setting in settings.items():
        assert setting.says.strip(), key


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainers_node_has_what_its_method_declares(name):
    cfg = run_config()
    module = sys.modules[METHOD_OF[name].__module__]
    getattr(module, f"add_{name.lower()}_config")(cfg)
    assert flatten(cfg.TRAINER[name.upper()]) == flatten(node_of(METHOD_OF[name].declared))


def test_a_list_of_a_node_is_its_own():
    method_node("CDC").CTX_INIT.append("a drawing of a")
    assert len(method_node("CDC").CTX_INIT) == 4


ROOTS = "DATALOADER|DATASET|INPUT|MODEL|OPTIM|TEST|TRAIN|TRAINER"
KEY = r"\.[A-Z][A-Z0-9_]+"


def names_in(path):
    """What a file names as a setting: ``A.B`` of the whole config, or ``.B`` of some node. Docstrings,
    which also name other toolboxes' settings, are left out."""
    nodes = [*ast.walk(ast.parse(path.read_text("utf-8")))]
    docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
    for node in nodes:
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if of_config := re.fullmatch(rf"(?:self\.)?cfg((?:{KEY})+)", text):
                yield of_config[1][1:]
            elif of_node := re.fullmatch(rf"(?:node|(?:\w+\.)?settings|optim_cfg)({KEY})", text):
                yield of_node[1]
        elif isinstance(node, ast.JoinedStr):
            yield from re.findall(rf"path\}}({KEY})", ast.unparse(node))
        elif isinstance(node, ast.Constant) and node not in docstrings:
            yield from re.findall(rf"\b(?:{ROOTS})(?:{KEY})+", str(node.value))


def test_every_setting_that_code_reads_or_a_message_names_is_declared():
    found = {
        (name, path.name)
        for path in (REPOSITORY / "trainers").rglob("*.py")
        for name in names_in(path)
    }
    known = {("TEST.NO_TEST", "trainer.py"), (".N_CTX", "cocoop.py"), (".REP_END", "mmrl.py")}
    assert known <= found
    for name, where in found:
        assert name in NAMED or name[0] == "." and name[1:] in LAST, (name, where)


def test_a_config_holds_plain_values_and_is_checked_alike_however_it_was_copied():
    cfg = get_cfg_default()
    add_cdc_config(cfg)
    assert vars(cfg.TRAINER.CDC).keys() == vars(CfgNode()).keys()
    cfg.merge_from_list(["TRAINER.CDC.N_TEMPLATES", 2, "TRAINER.CDC.AUGMENTATION", None])
    clone = cfg.clone()
    clone.freeze()
    read = CfgNode.load_cfg(clone.dump())
    for copied in (clone, read, CfgNode(json.loads(json.dumps(clone)))):
        node = copied.TRAINER.CDC
        assert node == cfg.TRAINER.CDC
        METHOD_OF["CDC"].check(node, "TRAINER.CDC")
        node.defrost()
        node.N_TEMPLATES = 0
        with refuses("TRAINER.CDC.N_TEMPLATES is 0, it must be at least 1"):
            METHOD_OF["CDC"].check(node, "TRAINER.CDC")


def test_of_dassls_keys_a_run_has_those_that_are_read_and_checks_the_others_where_they_are():
    assert {*flatten(get_cfg_default())} == {*READ, *OF_DASSL_ALONE}
    cfg = run_config()
    assert {*settings_of_run(cfg)} == {*RUN}
    hosted = get_cfg_default()
    add_run_settings(hosted)
    hosted.DATALOADER.K_TRANSFORMS = 2
    with refuses("DATALOADER.K_TRANSFORMS is 2, it takes only 1"):
        check_values(hosted, settings_of_run(hosted))
