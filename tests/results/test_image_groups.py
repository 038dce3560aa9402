"""How good the measures of uncertainty are: whole runs against the runs' own records, scikit-learn, textbook loops; the cache."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from analysis import image_groups
from analysis.uncertainty import main, tables
from datasets.drawn.emoji_styles import SEVERITIES, corrupted_at
from results.kept import SCALED, read_figures
from results.render import FORMATS
from tests.results.conftest import write
from tests.trainers.test_every_trainer import BASE, NEW
from trainers import PromptedClassifier
from trainers.common.errors import UserError

# with evidence, with texts that depend on the image, with nothing learned
TRAINERS = ("CDC", "CoCoOp", "ZeroshotCLIP")
CONTENDER = "CDC"
LEARNED = "VPT"  # its validation images want a temperature inside of what is looked through
OPTIONS = {LEARNED: ("OPTIM.LR", "0.1", "OPTIM.MAX_EPOCH", "10")}


def record_of(folder):
    return json.loads((folder / "results.json").read_text())


def lay(folder, output, trainer="CDC", seed=1):
    """A copy of a run where the base-to-new protocol has it."""
    place = output / "train_base" / "dtd" / "shots_4" / trainer / "tiny" / f"seed{seed}"
    shutil.copytree(folder, place)
    what = {"protocol": "base2new", "part": "train_base", "dataset": "dtd", "recipe": "tiny"}
    (place / "results.json").write_text(json.dumps({**record_of(place), "run": what}))
    return place


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """``evaluated(trainer)``: figures, arrays, folder of a run on the base classes of the miniature; each made once."""
    made = {}

    def start(trainer):
        if trainer not in made:
            run = trained(trainer, *BASE, *OPTIONS.get(trainer, ()))[1]
            folder = lay(run, tmp_path_factory.mktemp(trainer), trainer)
            assert main([str(folder.parents[5])]) == 0
            with numpy.load(folder / "uncertainty.npz", allow_pickle=False) as arrays:
                figures = json.loads((folder / "uncertainty.json").read_text())
                made[trainer] = figures, dict(arrays), folder
        return made[trainer]

    return start


def kept_paths(folder, split, data_root):
    with numpy.load(folder / f"predictions-{split}.npz", allow_pickle=False) as kept:
        return [f"{data_root}/dtd/images/{name}" for name in kept["image"]], kept["label"]


# ---- whole runs ----


@pytest.mark.parametrize("trainer", TRAINERS)
def test_on_base_classes_it_finds_what_the_runs_own_test_found(evaluated, trainer):
    figures, arrays, folder = evaluated(trainer)
    metrics = record_of(folder)["metrics"]["test"]
    assert (
        figures["images"] == {"base": metrics["images"], "new": 12}
        and figures["accuracy"]["base"] == metrics["accuracy"]
    )
    assert set(figures["doubt"]) == {*metrics["uncertainty"], SCALED}
    for name, kept in metrics["uncertainty"].items():
        assert {key: figures["doubt"][name][key] for key in kept} == kept
    assert figures["calibration"]["base"]["before"] == {
        key: metrics[key] for key in ("ece", "adaptive_ece", "nll", "brier")
    }
    with numpy.load(folder / "predictions-test.npz", allow_pickle=False) as kept:
        for name in metrics["uncertainty"]:
            numpy.testing.assert_array_equal(arrays[f"base_{name}"], kept[name])
        numpy.testing.assert_array_equal(arrays["base_right"], kept["top"][:, 0] == kept["label"])
        numpy.testing.assert_array_equal(arrays["base_image"], kept["image"])


@pytest.mark.parametrize("trainer", TRAINERS)
def test_with_the_new_classes_names_it_finds_what_the_protocols_test_found(
    evaluated, run, trained, trainer
):
    _, record, _ = run(
        trainer, *NEW, flags=("--eval-only", "--model-dir", str(trained(trainer, *BASE)[1]))
    )
    found = evaluated(trainer)[0]["calibration"]["new"]["before"]
    assert found == {key: record["metrics"]["test"][key] for key in found} and len(found) == 4


@pytest.mark.parametrize("trainer", TRAINERS)
def test_figures_follow_from_what_is_kept_of_each_image(evaluated, trainer):
    figures, arrays, _ = evaluated(trainer)
    assert arrays["corrupted_right"].shape == (5, 12) and arrays["new_image"].shape == (12,)
    assert figures["accuracy"]["corrupted"] == pytest.approx(
        (100 * arrays["corrupted_right"].mean(axis=1)).tolist()
    )
    for name, found in figures["doubt"].items():
        base, new, corrupted = (arrays[f"{group}_{name}"] for group in ("base", "new", "corrupted"))
        assert corrupted.shape == (5, 12) and {part.dtype for part in (base, new, corrupted)} == {
            numpy.dtype("float32")
        }

        def against_base(others):
            return pytest.approx(
                100
                * roc_auc_score(
                    [0] * len(base) + [1] * len(others), numpy.concatenate([base, others])
                ),
                rel=1e-5,
            )

        assert found["new_auroc"] == against_base(new)
        assert found["corrupted_auroc"] == [against_base(part) for part in corrupted]
        wrong = ~arrays["base_right"]  # none: nothing to tell apart
        errors = pytest.approx(100 * roc_auc_score(wrong, base), rel=1e-5) if wrong.any() else None
        assert found["error_auroc"] == errors
        assert (found["mean"]["base"], found["mean"]["new"]) == pytest.approx(
            (base.mean(dtype=float), new.mean(dtype=float))
        )
        assert found["mean"]["corrupted"] == pytest.approx(
            corrupted.mean(axis=1, dtype=float).tolist()
        )


def test_new_and_corrupted_images_are_shown_to_the_base_classes(evaluated, data_root):
    _, arrays, folder = evaluated(CONTENDER)
    classifier = PromptedClassifier.load(folder)
    new = classifier.predict([f"{data_root}/dtd/images/{name}" for name in arrays["new_image"]])
    assert new.probabilities.shape == (12, 3) and {
        name.split("/")[0] for name in arrays["new_image"]
    } == {"woven", "zigzagged", "grid"}
    for name in ("vacuity", "conflict"):
        numpy.testing.assert_array_equal(arrays[f"new_{name}"], getattr(new, name))
    paths, labels = kept_paths(folder, "test", data_root)
    for number, severity in enumerate(SEVERITIES):
        found = classifier.predict(
            [
                corrupted_at(severity, Image.open(path).convert("RGB"), Path(path).stem)
                for path in paths
            ]
        )
        numpy.testing.assert_array_equal(arrays["corrupted_vacuity"][number], found.vacuity)
        numpy.testing.assert_array_equal(
            arrays["corrupted_right"][number], found.probabilities.argmax(axis=1) == labels
        )


@pytest.mark.parametrize("trainer", [CONTENDER, LEARNED])
def test_temperature_scaling_is_that_of_the_runs_validation_images(evaluated, data_root, trainer):
    figures, arrays, folder = evaluated(trainer)
    classifier, temperature = PromptedClassifier.load(folder), figures["temperature"]
    found = {
        split: (classifier.predict(paths).probabilities.astype(float), labels)
        for split, (paths, labels) in (
            (split, kept_paths(folder, split, data_root)) for split in ("val", "test")
        )
    }

    def scaled(split, temperature):
        powers = found[split][0] ** (1 / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    def nll(split, temperature):
        labels = found[split][1]
        return -numpy.log(scaled(split, temperature)[range(len(labels)), labels]).mean()

    others = [
        *numpy.geomspace(0.05, 100, 60),
        *(temperature * factor for factor in (0.99, 1.01) if trainer == LEARNED),
    ]
    assert all(nll("val", temperature) <= nll("val", other) + 1e-12 for other in others)
    assert trainer != LEARNED or 0.05 < temperature < 20 and nll("val", temperature) < nll("val", 1)
    probability, labels = scaled("test", temperature), found["test"][1]
    numpy.testing.assert_allclose(arrays[f"base_{SCALED}"], 1 - probability.max(axis=1), atol=1e-6)
    after = figures["calibration"]["base"]["after"]
    assert after["nll"] == pytest.approx(nll("test", temperature), rel=1e-5)
    assert after["brier"] == pytest.approx(
        ((probability - numpy.eye(3)[labels]) ** 2).sum(axis=1).mean(), rel=1e-5
    )


def test_the_new_classes_are_scaled_by_the_same_temperature(evaluated, data_root):
    figures, arrays, folder = evaluated(LEARNED)
    classifier = PromptedClassifier.load(folder).with_classes(["woven", "zigzagged", "grid"])
    names = arrays["new_image"].tolist()
    found = classifier.predict([f"{data_root}/dtd/images/{name}" for name in names]).probabilities
    powers = found.astype(float) ** (1 / figures["temperature"])
    own = [
        powers[row, classifier.classnames.index(name.split("/")[0])] / powers[row].sum()
        for row, name in enumerate(names)
    ]
    assert figures["calibration"]["new"]["after"]["nll"] == pytest.approx(
        -numpy.log(own).mean(), rel=1e-5
    )


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_new_classes_are_scaled_by_the_distances_of_their_texts(evaluated, data_root, trainer):
    figures, arrays, folder = evaluated(trainer)
    found, base = figures["calibration"]["new"]["by_distance"], PromptedClassifier.load(folder)
    if trainer == "CoCoOp":  # whose texts depend on the image
        assert found is None
        return
    new = base.with_classes(["woven", "zigzagged", "grid"])
    names = arrays["new_image"].tolist()
    probability = new.predict(
        [f"{data_root}/dtd/images/{name}" for name in names]
    ).probabilities.astype(float)

    def distance(of, texts):  # of three base classes, fewer than the nearest five
        return numpy.mean([numpy.linalg.norm(of - text) for text in texts])

    temperatures = [
        numpy.exp(
            numpy.mean(
                [
                    distance(tuned[k], others)
                    for tuned, others in zip(new.embed_text(), base.embed_text())
                ]
            )
            - distance(new.method.hand_crafted[k].numpy(), base.method.hand_crafted.numpy())
        )
        for k in range(3)
    ]
    own = [temperatures[row.argmax()] for row in probability]
    powers = [row ** (1 / temperature) for row, temperature in zip(probability, own)]
    right = [
        row[new.classnames.index(name.split("/")[0])] / row.sum()
        for row, name in zip(powers, names)
    ]
    assert found["nll"] == pytest.approx(-numpy.log(right).mean(), rel=1e-4) and found[
        "temperature"
    ] == pytest.approx(numpy.mean(own), rel=1e-4)
    assert (found["temperature"] == 1) == (trainer == "ZeroshotCLIP"), (
        "without tuning no text has moved"
    )


def test_without_validation_images_of_its_own_nothing_is_scaled(
    trained, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(image_groups, "validates_on_test_images", lambda data: True)
    folder = lay(trained("ZeroshotCLIP", *BASE)[1], tmp_path, "ZeroshotCLIP")
    figures, arrays = image_groups.evaluate(folder)
    assert (
        figures["temperature"] is None
        and set(figures["doubt"]) == {"max_probability", "energy"}
        and f"base_{SCALED}" not in arrays
    )
    assert all(figures["calibration"][classes]["after"] is None for classes in ("base", "new"))
    assert figures["calibration"]["new"]["by_distance"] is not None, "it needs no validation images"
    assert "has no validation images of its own" in caplog.text
    calibrated = tables({("dtd", 4, "ZeroshotCLIP", "tiny"): {1: figures}})[2]
    assert [row[4:] for row in calibrated.means.index] == [
        ("base", "before"),
        ("new", "before"),
        ("new", "by distance"),
    ]


def test_class_specific_contexts_have_no_calibration_on_new_classes(trained, tmp_path):
    run = trained("CoOp", *BASE, "TRAINER.COOP.CSC", "True")[1]
    figures, _ = image_groups.evaluate(lay(run, tmp_path, "CoOp"))
    assert (
        figures["calibration"]["new"] is None
        and figures["doubt"]["max_probability"]["new_auroc"] is not None
    )
    assert [
        row[4:] for row in tables({("dtd", 4, "CoOp", "tiny"): {1: figures}})[2].means.index
    ] == [
        ("base", "before"),
        ("base", "after"),
    ]


# ---- what is kept ----


def test_what_is_found_once_is_only_read(evaluated, monkeypatch, capsys):
    folder = evaluated(CONTENDER)[2]
    monkeypatch.setattr(image_groups, "evaluate", lambda *_: pytest.fail("computed again"))
    assert main([str(folder.parents[5])]) == 0
    assert "CDC" in capsys.readouterr().out and not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("change", ["prompts_hash", "backbone_hash", "split_hash", "finished"])
def test_the_figures_of_another_run_are_not_taken(evaluated, change):
    figures, _, folder = evaluated(CONTENDER)
    record = record_of(folder)
    assert read_figures(folder, record) == {
        name: value for name, value in figures.items() if name != "sha256"
    }
    assert read_figures(folder, {**record, change: "other"}) is None


def flip(path):
    """Changes one digit in the middle of a JSON file, or one bit in that of another."""
    content = bytearray(path.read_bytes())
    places = (
        [place for place, byte in enumerate(content) if chr(byte).isdigit()]
        if path.suffix == ".json"
        else range(len(content))
    )
    content[places[len(places) // 2]] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "uncertainty.npz").unlink(),
        lambda folder: flip(folder / "uncertainty.npz"),
        lambda folder: flip(folder / "uncertainty.json"),
        lambda folder: (folder / "uncertainty.json").write_text("[]"),
    ],
)
def test_what_is_missing_damaged_or_of_another_version_is_computed_again(
    evaluated, tmp_path, monkeypatch, damage
):
    figures, arrays, folder = evaluated(CONTENDER)
    copy = lay(folder, tmp_path)
    damage(copy)
    results = {
        name: value
        for name, value in figures.items()
        if name not in ("format", "made_from", "sha256", "images_sha256")
    }
    monkeypatch.setattr(image_groups, "evaluate", lambda *_: (results, arrays))
    assert main([str(tmp_path)]) == 0
    assert json.loads((copy / "uncertainty.json").read_text()) == figures
    assert read_figures(copy, record_of(copy)) == {
        name: value for name, value in figures.items() if name != "sha256"
    }


@pytest.mark.parametrize("style", FORMATS)
def test_every_format_has_three_tables(evaluated, capsys, style):
    assert main([str(evaluated(CONTENDER)[2].parents[5]), "--format", style]) == 0
    text = capsys.readouterr().out
    for title in ("What doubt tells apart", "Accuracy and mean doubt", "Calibration before and"):
        assert title in text
    # once where there is no mistake, from which nothing could tell
    assert {text.count(name) for name in ("vacuity", "conflict", "probability, scaled")} <= {1, 2}


# ---- refusals ----


def refusal(capsys, *arguments):
    assert main([*map(str, arguments)]) == 2
    (line,) = [
        line
        for line in capsys.readouterr().err.replace("\r", "\n").splitlines()
        if line.startswith("error: ")
    ]
    return line


def test_a_folder_without_base_runs_says_what_makes_them(tmp_path, capsys):
    write(tmp_path, "test_all", "CoOp", 1, 50.0)
    assert f"no trained base run below {tmp_path}: python run.py" in refusal(capsys, tmp_path)


def test_other_data_than_the_runs_are_refused(evaluated, tmp_path, data_root, capsys):
    copy = lay(evaluated("ZeroshotCLIP")[2], tmp_path / "output", "ZeroshotCLIP")
    (copy / "uncertainty.json").unlink()
    assert "data folder" in refusal(capsys, tmp_path / "output", "--root", tmp_path)
    shutil.copytree(f"{data_root}/dtd", tmp_path / "data" / "dtd")
    split = tmp_path / "data" / "dtd" / "split_zhou_DescribableTextures.json"
    content = json.loads(split.read_text())
    split.write_text(json.dumps({**content, "test": content["test"][1:]}))
    line = refusal(capsys, tmp_path / "output", "--root", tmp_path / "data")
    assert (
        "holds other images, or another few-shot sample, than the run" in line
        and not (copy / "uncertainty.json").exists()
    )


def test_another_root_with_the_same_data_will_do(trained, tmp_path, data_root, evaluated):
    copy = lay(trained("ZeroshotCLIP", *BASE)[1], tmp_path / "output", "ZeroshotCLIP")
    record = json.loads((copy / "results.json").read_text())
    record["config"]["DATASET"]["ROOT"] = str(tmp_path / "gone")
    (copy / "results.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="data folder"):
        image_groups.evaluate(copy)
    shutil.copytree(f"{data_root}/dtd", tmp_path / "data" / "dtd")
    figures, _ = image_groups.evaluate(copy, tmp_path / "data")
    assert figures.items() <= evaluated("ZeroshotCLIP")[0].items()
