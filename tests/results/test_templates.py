"""Whether templates differ: the numbers against textbook loops and closed forms, and the command on real runs."""

import csv
import io
import json
import shutil

import numpy
import pytest
import torch
from clip.simple_tokenizer import SimpleTokenizer
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from analysis.inspection import IMAGES, OCCLUDED, inspect, inspect_all, nearest_words, similarity
from analysis.occlusion import GREY, occlusion_map, occlusions, patch_size, pictures
from analysis.templates import main
from protocols import training as train
from protocols.command_line import parse_arguments
from results import answers as numbers
from results.report.page import make_report
from results.runs import find_runs
from tests.conftest import base_arguments
from tests.results.conftest import Page, make_answers, write_run
from tests.trainers.test_every_trainer import BASE, NEW, TEXT_ONLY
from trainers import PromptedClassifier
from trainers.common.metrics import read_metrics


@pytest.fixture(scope="module")
def protocol(tmp_path_factory, data_root, small_clip_file):
    """Base to new of the miniature: CDC with two seeds, CoOp with one; where the protocol puts them."""
    root = tmp_path_factory.mktemp("base2new")

    def start(part, name, seed, *more):
        folder = root / part / "dtd" / "shots_4" / name / "small" / f"seed{seed}"
        train.run(
            parse_arguments(
                [*base_arguments(name, data_root, small_clip_file, folder, seed), *more]
            )
        )
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "collect_env_info", lambda: "left out in tests")
        for name, seed in (("CDC", 1), ("CDC", 2), ("CoOp", 1)):
            start(
                "test_new",
                name,
                seed,
                "--eval-only",
                "--model-dir",
                str(start("train_base", name, seed, *BASE)),
                *NEW,
            )
    return root


@pytest.fixture
def tables(capsys):
    """Runs the command and returns title → list of rows, dicts by column."""

    def start(*arguments):
        assert main([*map(str, arguments), "--format", "csv"]) == 0
        parts = capsys.readouterr().out.split("\n\n")
        return {
            title.strip(): list(csv.DictReader(io.StringIO(body)))
            for title, body in zip(parts[::2], parts[1::2])
        }

    return start


def unit(features):
    return features / numpy.linalg.norm(features, axis=-1, keepdims=True)


# ---- numbers ----


def test_similarity_is_the_mean_cosine_over_classes():
    features = unit(numpy.random.default_rng(0).normal(size=(3, 5, 4)))
    expected = [
        [sum(features[m, k] @ features[n, k] for k in range(5)) / 5 for n in range(3)]
        for m in range(3)
    ]
    assert similarity(features) == pytest.approx(numpy.array(expected)) and numpy.diag(
        similarity(features)
    ) == pytest.approx(1)


def test_kappa_is_cohens_formula_and_one_for_copies_even_of_one_class():
    generator = numpy.random.default_rng(1)
    votes = numpy.vstack([generator.integers(0, 3, (3, 50)), numpy.ones((2, 50), int)])

    def cohen(one, other):
        chance = sum((one == label).mean() * (other == label).mean() for label in range(3))
        return ((one == other).mean() - chance) / (1 - chance)

    found = numbers.kappa(votes)
    assert found[:3, :3] == pytest.approx(
        numpy.array([[cohen(one, other) for other in votes[:3]] for one in votes[:3]])
    )
    assert found[3, 4] == 1 and found[3, 0] == pytest.approx(0)


def test_the_oracle_needs_one_right_vote():
    votes = numpy.array([[0, 1, 2, 0], [1, 1, 1, 1]])
    assert numbers.oracle(votes, numpy.array([0, 1, 0, 1])) == 75


def test_certain_answers_are_right_and_of_different_classes():
    doubt, label = numpy.array([0.5, 0.1, 0.2, 0.3, 0.0]), numpy.array([0, 1, 1, 0, 2])
    right = numpy.array([True, True, True, True, False])
    assert numbers.certain_answers(doubt, right, label, 4).tolist() == [
        1,
        3,
    ]  # not 4: wrong; not 2, 0: their classes are there
    assert numbers.certain_answers(doubt, right, label, 1).tolist() == [1]


def test_nearest_words_are_those_of_a_full_search_and_untrained_tokens_are_none():
    words = ["cat", "dog", "photo", "red", "of", "the", "sky"]
    ids = [SimpleTokenizer().encode(word)[0] for word in words]
    embedding = torch.zeros(49408, 3)
    embedding[ids] = torch.randn(len(words), 3, generator=torch.Generator().manual_seed(0))
    context = torch.stack(
        [embedding[ids[:2]], torch.tensor([[0.01, 0.0, 0.0], [9.0, 9.0, 9.0]])]
    )  # (2, 2, 3); zero is no word
    found, between = nearest_words(context, embedding)
    for tokens, expected in zip(found, context):
        for near, token in zip(tokens, expected):
            distances = {
                word: torch.dist(token, embedding[index]).item() for word, index in zip(words, ids)
            }
            assert [word for word, _ in near] == sorted(distances, key=distances.get)[:5]
            assert [distance for _, distance in near] == pytest.approx(
                sorted(distances.values())[:5], abs=1e-6
            )
    assert found[0][0][0] == ("cat", 0) and found[1][1][0][1] > 5
    apart = [min(torch.dist(embedding[a], embedding[b]).item() for b in ids if b != a) for a in ids]
    assert between == pytest.approx(sorted(apart)[3], abs=1e-5)


# ---- occlusion ----


def test_an_answer_that_depends_on_one_place_falls_where_that_is_covered():
    def predict(images):  # the first template looks at one pixel, the second at nothing
        seen = images[:, 0, 5, 9]
        return torch.stack(
            [torch.stack([seen, 1 - seen], 1), torch.full((len(images), 2), 0.5)], 1
        )  # (B, M = 2, K = 2)

    drops = occlusion_map(predict, torch.ones(3, 12, 16), 0, 4, 2)
    covers = [
        [2 * row <= 5 < 2 * row + 4 and 2 * column <= 9 < 2 * column + 4 for column in range(7)]
        for row in range(5)
    ]
    assert (
        drops.shape == (2, 5, 7)
        and drops[0] == pytest.approx((1 - GREY) * numpy.array(covers))
        and not drops[1].any()
    )
    assert (occlusion_map(predict, torch.ones(3, 12, 16), 1, 4, 2) == -drops).all()


@settings(max_examples=20, deadline=None)
@given(some.integers(1, 5), some.integers(1, 4), some.integers(0, 2**16))
def test_of_a_linear_model_the_map_is_the_weighted_sum_below_the_patch(size, stride, seed):
    generator = torch.Generator().manual_seed(seed)
    image, weights = (
        torch.rand(3, 6, 7, generator=generator),
        torch.randn(2, 3, 6, 7, generator=generator),
    )
    drops = occlusion_map(
        lambda images: torch.einsum("bchw,mchw->bm", images, weights)[..., None],
        image,
        0,
        size,
        stride,
    )
    places = [
        (top, left) for top in range(0, 7 - size, stride) for left in range(0, 8 - size, stride)
    ]
    expected = [
        ((image - GREY) * weights)[..., top : top + size, left : left + size].sum(dim=(1, 2, 3))
        for top, left in places
    ]
    assert drops.reshape(2, -1).T == pytest.approx(torch.stack(expected).numpy(), abs=1e-5)


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"a patch of 7 pixels covers all of an image of \(6, 9\)"):
        occlusion_map(None, torch.zeros(3, 6, 9), 0, 7, 1)


def test_what_is_covered_is_what_the_model_is_shown(trained, data_root):
    classifier = PromptedClassifier.load(trained("CDC")[1])
    paths = [f"{data_root}/dtd/images/{name}/00.png" for name in ("banded", "grid")]
    shown = pictures(classifier, paths)
    assert shown.shape == (2, 3, 32, 32) and 0 <= shown.min() < 0.5 < shown.max() <= 1
    whole = classifier.predict(paths).votes
    numpy.testing.assert_array_equal(classifier.predict(shown).votes, whole)
    found = occlusions(classifier, paths, [0, 5])[1]
    covered = shown[1].clone()
    covered[:, 8:24, 16:32] = GREY  # tokens of 8 pixels: patches of 16, every 8
    assert (found.name, found.drops.shape, found.size, found.stride) == ("grid", (4, 3, 3), 16, 8)
    assert found.drops[:, 1, 2] == pytest.approx(
        whole[1, :, 5] - classifier.predict(covered).votes[0, :, 5], abs=1e-6
    )


def test_a_patch_is_a_token_of_the_vit_or_a_place_of_the_resnet(vit, resnet):
    assert patch_size(vit) == 8 and patch_size(resnet) == 32


# ---- real runs ----


def test_tables_have_the_runs_own_accuracies_and_mean_and_deviation_over_seeds(
    protocol, tables, caplog
):
    found = tables(protocol)
    assert list(found) == [
        "Templates before and after training",
        "Evidence while it is trained",
        "Accuracy of 4 templates",
        "Agreement of the votes in %",
        "Cohen's kappa of the votes",
        "Text features, 100 × cosine",
        "Words nearest to the context tokens",
    ]
    learned = [
        json.loads(
            (protocol / f"train_base/dtd/shots_4/CDC/small/seed{seed}/results.json").read_text()
        )["learned"]
        for seed in (1, 2)
    ]
    moved = {
        row["100 × cosine"]: row for row in found["Templates before and after training"]
    }  # of the trainings alone
    assert float(
        moved["images, between deviations from CLIP's own"]["after_mean"]
    ) == pytest.approx(
        100 * numpy.mean([one["images_deviations_after"] for one in learned]), abs=1e-3
    )
    ends = [
        read_metrics(protocol / f"train_base/dtd/shots_4/CDC/small/seed{seed}")[-1]
        for seed in (1, 2)
    ]
    last = found["Evidence while it is trained"][-1]
    assert (last["tested on"], last["epoch"]) == ("dtd, base classes", str(ends[0]["epochs"]))
    for column, name in (
        ("level in nats", "level"),
        ("offset, from its start", "offset"),
        ("vacuity", "vacuity"),
    ):
        assert float(last[f"{column}_mean"]) == pytest.approx(
            numpy.mean([line[name] for line in ends]), abs=1e-3
        )
    for row, part in zip(found["Accuracy of 4 templates"], ("train_base", "test_new"), strict=True):
        metrics = [
            json.loads(
                (protocol / part / f"dtd/shots_4/CDC/small/seed{seed}/results.json").read_text()
            )["metrics"]["test"]
            for seed in (1, 2)
        ]
        for column, values in [
            ("fused", [one["accuracy"] for one in metrics]),
            *((f"S{m + 1}", [one["template_accuracy"][m] for one in metrics]) for m in range(4)),
        ]:
            assert float(row[f"{column}_mean"]) == pytest.approx(numpy.mean(values), abs=1e-3)
            assert float(row[f"{column}_std"]) == pytest.approx(numpy.std(values, ddof=1), abs=1e-3)
        assert (row["seeds"], row["model"]) == ("2", "CDC small")
        assert float(row["oracle_mean"]) >= max(float(row[f"S{m}_mean"]) for m in range(1, 5))
    left_out = [
        record.getMessage()
        for record in caplog.records
        if record.getMessage().startswith("left out")
    ]
    assert left_out == [
        f"left out: CoOp small, dtd, {classes} classes, has no votes of several templates"
        for classes in ("base", "new")
    ]


def test_cosines_are_those_of_the_tested_classes_and_the_last_is_the_hand_crafted_prompt(
    protocol, tables
):
    folder = protocol / "test_new/dtd/shots_4/CDC/small/seed2"
    found = tables(folder)  # whose prompts lie in train_base
    classifier = PromptedClassifier.load(
        protocol / "train_base/dtd/shots_4/CDC/small/seed2"
    ).with_classes(["woven", "zigzagged", "grid"])
    texts, plain = classifier.embed_text(), classifier.method.hand_crafted.numpy()
    rows = {row["template"]: row for row in found["Text features, 100 × cosine"]}
    assert list(rows) == ["1", "2", "3", "4", "t⁰"]
    assert float(rows["1"]["3_mean"]) == pytest.approx(
        100 * (texts[0] * texts[2]).sum(axis=1).mean(), abs=1e-3
    )
    assert float(rows["t⁰"]["2_mean"]) == pytest.approx(
        100 * (texts[1] * plain).sum(axis=1).mean(), abs=1e-3
    )
    words = found["Words nearest to the context tokens"]
    assert [(row["seed"], row["template"], row["token"]) for row in words] == [
        ("2", m, n) for m in "1234" for n in "12"
    ]
    assert all(len(row["nearest words, with their distances"].split(", ")) == 5 for row in words)


def test_image_features_of_a_prompted_encoder_are_compared_with_each_other_and_with_the_plain_one(
    protocol, data_root
):
    folder = protocol / "train_base/dtd/shots_4/CDC/small/seed1"
    (run,) = find_runs([folder])
    paths = {name: f"{data_root}/dtd/images/{name}" for name in run.answers["image"].tolist()}
    found = inspect(run, folder, paths, occlude=True)
    classifier = PromptedClassifier.load(folder)
    features = classifier.embed_image(list(paths.values()))  # (N, M, E)
    assert len(features) < IMAGES and found.image[1, 3] == pytest.approx(
        (features[:, 1] * features[:, 3]).sum(axis=1).mean(), abs=1e-5
    )
    plain = torch.cat(
        [
            classifier.method.encode_images(batch)[0]
            for batch, _ in classifier.batches(list(paths.values()))
        ]
    ).numpy()
    assert found.image[4, 0] == pytest.approx((features[:, 0] * plain).sum(axis=1).mean(), abs=1e-5)
    right = {
        name.split("/")[0]
        for name, top, label in zip(
            run.answers["image"], run.answers["top"][:, 0], run.answers["label"]
        )
        if top == label
    }
    assert {one.name for one in found.occlusions} == right and len(right) <= OCCLUDED


def test_images_that_are_not_at_hand_and_encoders_without_prompts_leave_only_the_texts(
    trained, data_root
):
    _, folder = trained("CDC", *TEXT_ONLY["CDC"])
    (run,) = find_runs([folder])
    paths = {name: f"{data_root}/dtd/images/{name}" for name in run.answers["image"].tolist()[:3]}
    found = inspect(run, folder, paths, occlude=False)
    assert found.text.shape == (5, 5) and found.image is None and found.occlusions == []
    assert inspect(run, folder, {}, occlude=True).occlusions == []


def test_figures_and_text_go_to_files(protocol, data_root, tmp_path, capsys):
    arguments = [
        str(protocol / "train_base"),
        "--root",
        data_root,
        "--format",
        "markdown",
        "--output",
        str(tmp_path / "templates.md"),
    ]
    assert main([*arguments, "--figures", str(tmp_path / "figures")]) == 0
    assert (
        capsys.readouterr().out == ""
        and "| dtd, base classes" in (tmp_path / "templates.md").read_text()
    )
    kinds = {"agreement", "kappa", "text-similarity", "image-similarity", "occlusion"}
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert (
        len(names) == 20 and {name.split("-dtd")[0] for name in names} == kinds
    )  # PNG and SVG, light and dark
    with Image.open(
        tmp_path / "figures" / "occlusion-dtd-base-classes-cdc-small-seed-1.png"
    ) as picture:
        assert numpy.asarray(picture.convert("RGB")).std() > 10


def test_the_report_shows_templates_of_real_runs_with_their_images(protocol, data_root, tmp_path):
    make_report(
        [protocol / "test_new/dtd/shots_4/CDC"], tmp_path / "page.html", inspect_all, data_root
    )
    page = Page(tmp_path / "page.html")
    for title in ("Accuracy of 4 templates", "Words nearest to the context tokens"):
        assert title in page.text
    alternatives = [image["alt"] for image in page.all("img")]
    for start in (
        "Text features, 100 × cosine between",
        "Image features, 100 × cosine between",
        "Cohen's kappa of the votes between",
        "Occlusion maps of",
    ):
        assert len([text for text in alternatives if text.startswith(start)]) == 1, start


# ---- what can't be looked into, and refusals ----


def test_votes_without_the_prompts_make_tables_and_a_warning(tmp_path, tables, caplog):
    write_run(tmp_path, "train_base", "CDC", 1, "base", make_answers(1, templates=3))
    assert list(tables(tmp_path)) == [
        "Accuracy of 3 templates",
        "Agreement of the votes in %",
        "Cohen's kappa of the votes",
    ]
    assert "the prompts of 1 of 1 runs with templates are not at hand" in caplog.text


def test_prompts_that_cannot_be_loaded_are_named_and_the_rest_is_there(
    protocol, tmp_path, tables, caplog
):
    shutil.copytree(protocol, tmp_path / "runs", ignore=shutil.ignore_patterns("test_new", "seed2"))
    folder = tmp_path / "runs/train_base/dtd/shots_4/CDC/small/seed1"
    (folder / "prompt_learner" / "model.pth.tar-3").write_bytes(b"cut")
    assert "Text features, 100 × cosine" not in tables(tmp_path / "runs")
    assert f"the templates of {folder} can't be looked into: checkpoint" in caplog.text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["runs"],
            "no run in or below runs has votes of several templates: train CDC with TRAINER.CDC.N_TEMPLATES above 1",
        ),
        (
            ["nowhere"],
            "no results.json in or below nowhere: give the folder of a finished run, or one that holds such folders",
        ),
        (
            ["runs", "--root", "nowhere"],
            "--root nowhere is no folder: give the one that holds the data sets, or leave it out for what needs no "
            "images",
        ),
    ],
)
def test_refusals_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    write_run(tmp_path / "runs", "train_base", "CoOp", 1, "base", make_answers(1))
    write_run(tmp_path / "runs", "train_base", "CDC", 1, "base", make_answers(1, templates=1))
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")] == [
        f"error: {message}"
    ]
