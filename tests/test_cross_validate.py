"""The tool that cross-validates settings: it trains as the trainer does, and a fold is never trained on."""
import pytest
import torch

from tests.conftest import load_tool
from trainers.evaluation.prediction import Scores

tool = load_tool("cross_validate")
OPTIONS = {"CDC": ("TRAINER.CDC.PROMPT_MODALITY", "text"), "CoOp": (), "MaPLe": ()}
SMALL = ("TEST.NO_TEST", "True")


def trainer_of(run, name, folder):
    return run(name, *OPTIONS[name], *SMALL, name=folder, flags=("--no-train",))[0]


@pytest.mark.parametrize("name", OPTIONS)
def test_training_on_a_stock_is_a_plain_loop_over_drawn_views(run, name):
    ours, plain = (trainer_of(run, name, folder) for folder in ("ours", "plain"))
    items = list(ours.dm.dataset.train_x)
    labels = torch.tensor([item.label for item in items])
    size = plain.backbone.image.image_size
    on_features = not tool.prompts_images(plain)
    assert on_features == (name != "MaPLe")
    shape = (ours.backbone.embed_dim,) if on_features else (3, size, size)
    stock = torch.randn(3, 4 if name == "CDC" else 1, len(items), *shape)  # (R, V, N, …)
    if on_features:
        stock = torch.nn.functional.normalize(stock, dim=-1)
        ours.encode_images = tool.features_or_images(ours.encode_images)
    chosen, batch = torch.arange(1, len(items)), ours.cfg.DATALOADER.TRAIN_X.BATCH_SIZE

    torch.manual_seed(3)
    tool.train_on(ours, items, stock, labels, chosen)

    torch.manual_seed(3)
    if name == "CDC":
        plain.dm.dataset.train_x[:] = items[1:]
        plain.prompt_learner.offset.copy_(plain.initial_offset())
    plain.set_model_mode("train")
    for _ in range(plain.max_epoch):
        order = chosen[torch.randperm(len(chosen))]
        for images in order.split(batch):
            if len(images) == batch:
                views = stock[torch.randint(3, (batch,)), :, images].transpose(0, 1)  # (V, B, …)
                texts, prompts = plain.encode_prompts()
                features = views if on_features else plain.encode_images(views, prompts)
                loss, _ = plain.loss(Scores(plain.logits(features, texts), features, texts, views), labels[images])
                plain.precision.step(loss, plain.optim)
        plain.sched.step()
    start = trainer_of(run, name, "start").prompt_learner.ctx
    assert not torch.equal(ours.prompt_learner.ctx, start)
    for found, expected in zip(ours.prompt_learner.state_dict().values(), plain.prompt_learner.state_dict().values()):
        torch.testing.assert_close(found, expected)

    with torch.no_grad():
        texts, prompts = plain.encode_prompts()
        features = stock[0, :1] if on_features else plain.encode_images(stock[0, :1], prompts)
        expected = plain.predict(plain.logits(features, texts)).probability
    torch.testing.assert_close(tool.answers(ours, stock[0, 0]), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fold_is_never_trained_on_and_every_class_is_spread_evenly(seed):
    labels = torch.tensor([0] * 5 + [1] * 30 + [2] * 12)
    fold, chosen = tool.folds_of(labels, 4, seed)
    for held_out, images in enumerate(chosen):
        assert held_out not in fold[images] and len(images.unique()) == len(images)
        for label, number in ((0, 5), (1, 30), (2, 12)):
            inside = ((fold == held_out) & (labels == label)).sum().item()
            assert inside in (number // 4, -(-number // 4))
            assert (labels[images] == label).sum().item() == min(tool.SHOTS, number - inside)
