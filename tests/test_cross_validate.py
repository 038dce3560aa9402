"""The tool that cross-validates on cached features: it trains as the trainer does, and a fold is never trained on."""
import pytest
import torch
from tqdm import tqdm

from tests.conftest import load_tool
from trainers.prediction import Scores

tool = load_tool("cross_validate")
ON_TEXTS = {"CDC": ("TRAINER.CDC.PROMPT_MODALITY", "text"), "CoOp": ()}


def trainer_of(run, name, folder):
    trainer, _, _ = run(name, *ON_TEXTS[name], name=folder, flags=("--no-train",))
    trainer.progress = tqdm(disable=True)
    return trainer


@pytest.mark.parametrize("name", ON_TEXTS)
def test_training_on_features_is_a_plain_loop_over_drawn_views(run, name):
    ours, plain = (trainer_of(run, name, folder) for folder in ("ours", "plain"))
    labels = torch.arange(20) % len(ours.classnames)
    stock = torch.nn.functional.normalize(torch.randn(3, 4 if name == "CDC" else 1, 20, ours.backbone.embed_dim), dim=-1)  # (R, V, N, E)
    chosen, batch = torch.arange(19), ours.cfg.DATALOADER.TRAIN_X.BATCH_SIZE

    torch.manual_seed(3)
    tool.train_on(ours, stock, labels, chosen)

    torch.manual_seed(3)
    if name == "CDC":
        plain.prompt_learner.offset.copy_(plain.initial_offset())
    for _ in range(plain.max_epoch):
        order = chosen[torch.randperm(len(chosen))]
        for images in order.split(batch):
            if len(images) == batch:
                views = stock[torch.randint(3, (batch,)), :, images].transpose(0, 1)  # (V, B, E)
                texts, _ = plain.encode_prompts()
                loss, _ = plain.loss(Scores(plain.logits(views, texts), views, texts, None), labels[images])
                plain.precision.step(loss, plain.optim)
        plain.sched.step()
    start = trainer_of(run, name, "start").prompt_learner.ctx
    assert not torch.equal(ours.prompt_learner.ctx, start)
    for found, expected in zip(ours.prompt_learner.state_dict().values(), plain.prompt_learner.state_dict().values()):
        torch.testing.assert_close(found, expected)

    with torch.no_grad():
        texts, _ = plain.encode_prompts()
        right = plain.predict(plain.logits(stock[0, :1], texts)).probability.argmax(dim=1) == labels
    assert tool.accuracy(ours, stock[0, 0], labels) == pytest.approx(100 * right.float().mean().item())


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
