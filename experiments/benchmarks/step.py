"""What CDC costs, against the field's usual way: text encoder, training step, fusion and test.

    python -m experiments.benchmarks.step --shape ViT-B/16 --classes 50 100
    python -m experiments.benchmarks.step --shape ViT-B/16 --classes 50 500 --every output/gpu.csv
    python -m experiments.benchmarks.step --shape ViT-B/16 --classes 50 500 --minutes

The usual way is that of the CoOp and MaPLe repositories: the ``clip`` package's transformer over all
77 positions of every text, templates in a loop, all layers on all tokens, opinions fused two at a time
with a K × K table. It has the same weights and gives the same numbers (``experiments/benchmarks/test_benchmarks.py``).
A training step is forward, loss, backward and the optimiser's step; images are in memory already.

Implementations take turns, and a ratio is the median of the rounds' ratios, so that a machine that
slows down does so for all. FLOPs are counted; each row has its share of what a matrix product
reaches in the same run. Memory is what one call adds at its peak to what was in use before.

With ``--every`` it measures a step of every trainer instead, in the batches of its recipe and in each
precision, on the GPU; its memory is all that is in use. Without a GPU the steps run on the pretended
one of the tests, whose times and memory are the CPU's: this shows that they work, and no more.
scripts/gpu.sh calls it; ``run.py --plan`` reads the file. ``--minutes`` says by arithmetic how long that takes
at least on each of ``GPUS``: all passes are counted, of the warm-up and of what comes before a training's first
epoch, too.

With ``--launches`` it counts, for every trainer, the operations that a step dispatches, which a GPU
waits for where batches are small: of a narrow CLIP of ViT-B/16's layers, whose texts are padded as a GPU
has them padded. For one number of names it also counts a ViT-B/16's FLOPs and bytes, without computing
its products, and says how long GPUs take at least, see ``GPUS``. A trainer that changes CLIP's layers
changes them in the usual way, too.
"""

from trainers.common.environment import first_line, start_command

if __name__ == "__main__":
    start_command()

import argparse
import contextlib
import csv
import ctypes
import io
import logging
import math
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product, zip_longest
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import clip
import torch
import torch.nn.functional as F
from pandas import DataFrame, Series
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop, sdpa_flop
from torchvision.models import ResNet50_Weights
from yacs.config import CfgNode

from protocols.arguments import build_config
from protocols.command_line import parse_arguments
from protocols.hours import STEP_COLUMNS
from tests.pretended_gpu import some_gpu
from trainers import METHODS, method_class
from trainers.cdc import CDCMethod
from trainers.common.config_files import CONFIGS
from trainers.common.errors import UserError, run_tool
from trainers.common.files import check_output, write_text
from trainers.engine import fit
from trainers.engine.optimizer import build_optimizer
from trainers.maths.evidence import Opinion, dempster
from trainers.method import Batches, Method
from trainers.prompting.backbone import Backbone, build_backbone
from trainers.prompting.precision import OfficialPrecision
from trainers.prompting.prompts import Prompts
from trainers.prompting.text import GROUP_FLOPS
from trainers.prompting.towers import Towers
from trainers.prompting.transformer import Adapter, Block, attend

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISION, DTYPE = ("amp", torch.bfloat16) if DEVICE.type == "cuda" else ("fp32", torch.float32)
TEMPLATES = 4  # M
BATCH = 4  # images
# of a trainer whose fit before the first epoch would take minutes, and is no step: one view, once
SHORT_START = {"ProLIP": ["TRAINER.PROLIP.VIEWS", "1", "TRAINER.PROLIP.STEPS", "1"]}
LAUNCH = 5e-6  # seconds from the start of an operation to that of the next one, at least
HALF = 2  # bytes of a value in fp16, which the recipes compute in
COUNTED = 50  # names of which --launches counts FLOPs and bytes
PRECISIONS = ("fp32", "amp", "fp16")  # that a method can be asked for
# the eleven data sets of base-to-new
FIELD = (
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)
Work = Callable[[], object]  # what is measured
Row = dict[str, Any]  # column → value
log = logging.getLogger("step")


class Gpu(NamedTuple):
    """What a GPU can do, by its maker's data sheet.

    Attributes:
        half, single: FLOP/s of products in fp16 and in fp32; bandwidth: bytes/s of its memory.
    """

    half: float
    single: float
    bandwidth: float


GPUS = {
    "T4": Gpu(65e12, 8.1e12, 320e9),
    "A100": Gpu(312e12, 19.5e12, 1555e9),
    "H100": Gpu(989e12, 67e12, 3350e9),
}

# shape: arguments of clip.model.CLIP up to the vocabulary, and the recipe of that size
SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    "smallest": ((32, 32, 4, 64, 16, 77, 49408, 64, 1, 3), "tiny"),
    "narrow": ((32, 32, 12, 64, 16, 77, 49408, 64, 1, 12), "vit_b16"),  # of --launches
    "tiny": ((128, 64, 4, 192, 8, 77, 49408, 128, 2, 3), "tiny"),
    "ViT-B/16": ((512, 224, 12, 768, 16, 77, 49408, 512, 8, 12), "vit_b16"),
}


# ---- the usual way: the stock CLIP's modules under the calls of our towers ----


class Changes(NamedTuple):
    """Prompts and adapters of one template's layers.

    Attributes:
        deep: tokens (n, D) or (B, n, D), or None, for each layer from the second on, as far as any has.
        first: place of the tokens that they replace.
        adapters: for each layer, as far as any has; entered: how many tokens from the first on adapters
            take, all of an image, the prefix of texts.
        blocks: our blocks of the same weights, which take adapters.
    """

    deep: Sequence[Tensor | None]
    first: int
    adapters: Sequence[Adapter | None]
    entered: int
    blocks: Sequence[Block]


def through(
    transformer: Any, x: Tensor, changes: Changes, causal: bool = False
) -> tuple[Tensor, int]:
    """(L, B, D) through all blocks; and how many tokens stand before a text's own then."""
    first = changes.first
    entered = changes.entered
    layers = zip_longest(transformer.resblocks, [None, *changes.deep], changes.adapters)
    for layer, (block, prompt, adapter) in enumerate(layers):
        if prompt is not None:
            tokens = prompt.to(x.dtype)
            # (n, B, D)
            replaced = tokens.transpose(0, 1) if tokens.dim() == 3 else tokens[:, None]
            replaced = replaced.expand(-1, x.shape[1], -1)
            end = first % len(x) + len(replaced)
            x = torch.cat([x[: first % len(x)], replaced, x[end:]])
        if adapter is None:
            x = block(x)
            continue
        own = changes.blocks[layer]
        rows = x.transpose(0, 1)  # (B, L, D)
        entering = adapter.enter(rows[:, :entered])
        rows = torch.cat([entering, rows[:, entered:]], dim=1)
        entered = entering.shape[1]
        attended = attend(*own.project(rows, adapter=adapter).unbind(-3), causal=causal)
        x = own.finish(rows, attended, adapter).transpose(0, 1)
        if causal:  # the masks of the stock's blocks are those of 77 positions
            x = x[:77]
    return x, entered


class UsualTowers(Towers):
    """The stock CLIP, called as the field's repositories call it.

    Args:
        stock: a ``clip.model.CLIP``; the others: see ``Towers``.
    """

    def __init__(
        self, backbone: Backbone, settings: CfgNode, official: OfficialPrecision, stock: nn.Module
    ) -> None:
        super().__init__(backbone, settings, official)
        self.stock: Any = stock

    def encode_texts(self, prompts: Prompts, normalize: bool = True) -> Tensor:
        """(M, K, E), one template after the other."""
        tower = self.stock
        prefix, suffix, end, deep, adapters = prompts.texts(slice(None))
        templates, shared = prefix.shape[:2]
        suffix = suffix.expand(templates, -1, -1, -1)  # (M, K, S, D)
        end = end.expand(templates, -1)  # (M, K)
        blocks: Any = self.backbone.text.transformer.resblocks
        features = []
        for m in range(templates):
            layers = [None if layer is None else layer[m % len(layer)] for layer in deep]
            changes = Changes(layers, 1, adapters, shared, blocks)
            x = torch.cat([prefix[m].expand(len(suffix[m]), -1, -1), suffix[m]], dim=1)
            x = F.pad(x, (0, 0, 0, 77 - x.shape[1])) + tower.positional_embedding  # (K, 77, D)
            # (77, K, D)
            x, before = through(tower.transformer, x.transpose(0, 1), changes, causal=True)
            x = tower.ln_final(x.transpose(0, 1))  # (K, 77, D)
            ends = before + end[m].to(x.device)  # (K,)
            features.append(x[torch.arange(len(x), device=x.device), ends] @ tower.text_projection)
        stacked = torch.stack(features).float()
        return F.normalize(stacked, dim=-1) if normalize else stacked

    def encode_images(
        self, images: Tensor, prompts: Prompts | None = None, normalize: bool = True
    ) -> Tensor:
        """Images (V, B, 3, H, W) → (M, B, E), one template after the other; (V, B, E) without prompts, and
        features (V, B, E) as they are. A readout's feature follows the class token's."""
        if images.dim() == 3:
            return super().encode_images(images, prompts, normalize)
        given = prompts or Prompts()
        token = self.stock.visual.class_embedding
        none = token.new_empty(len(images), 0, len(token))
        shown, *deep = given.visual or [none]
        features = []
        for m in range(len(shown)):
            layers = [layer[m] for layer in deep]
            features += self.encode_view(images[m % len(images)], shown[m], layers, given)
        stacked = torch.stack(features).float()
        return F.normalize(stacked, dim=-1) if normalize else stacked

    def encode_view(
        self, view: Tensor, prompt: Tensor, deep: Sequence[Tensor], given: Prompts
    ) -> list[Tensor]:
        """Features (B, E) of images (B, 3, H, W) under one template: the class token's and, where the
        prompts have one, the readout's."""
        visual = self.stock.visual
        token = visual.class_embedding
        blocks: Any = self.backbone.image.transformer.resblocks
        x = visual.conv1(view).flatten(2).transpose(1, 2)  # (B, N, D)
        first = token.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + visual.positional_embedding  # (B, 1 + N, D)
        x = torch.cat([x, prompt.to(x.dtype).expand(len(x), -1, -1)], dim=1)
        x = visual.ln_pre(x).transpose(0, 1)  # (L, B, D)
        changes = Changes(deep, -len(prompt), given.image_adapters, len(x), blocks)
        x, _ = through(visual.transformer, x, changes)
        features = [visual.ln_post(x[0]) @ visual.proj]
        if given.readout:
            read = visual.ln_post(x[1 : 1 + given.readout.tokens].transpose(0, 1))  # (B, R, D)
            features.append(given.readout.feature(read))
        return features


def usual_dempster(log_evidence: Tensor, reliability: Tensor | float = 1.0) -> Opinion:
    """Fuses (M, …, K) opinions, discounted by their reliability, two at a time with all K × K
    products of beliefs (Han et al., 2021, def. 4)."""
    classes = log_evidence.shape[-1]
    weights = torch.as_tensor(reliability, device=log_evidence.device).expand(len(log_evidence))
    weights = weights.view(-1, *[1] * (log_evidence.dim() - 1))  # (M, 1, …)
    fused, *others = classes * torch.expm1(weights * torch.log1p(log_evidence.exp() / classes))
    for evidence in others:
        strengths = [(part + 1).sum(dim=-1, keepdim=True) for part in (fused, evidence)]  # (…, 1)
        a = fused / strengths[0]
        b = evidence / strengths[1]  # beliefs (…, K)
        u, v = (classes / strength for strength in strengths)  # vacuities (…, 1)
        products = a[..., :, None] @ b[..., None, :]  # (…, K, K)
        agreed = products.diagonal(dim1=-2, dim2=-1).sum(dim=-1)  # (…)
        rest = 1 - (products.sum(dim=(-2, -1)) - agreed)[..., None]  # (…, 1), 1 − conflict
        fused = (a * b + a * v + b * u) / rest * classes / (u * v / rest)  # e = b S with S = K / u
    return Opinion(fused.log())


class UsualCDCMethod(CDCMethod):
    """CDC with opinions fused in the usual way."""

    def fuse(self, log_evidence: Tensor) -> Opinion:
        return usual_dempster(log_evidence, self.reliability)


# ---- what is measured ----


def random_clip(shape: str) -> Any:
    """A stock CLIP of a shape on random weights, the same ones whenever it is asked for."""
    torch.manual_seed(0)
    return clip.model.CLIP(*SHAPES[shape][0]).float()


def evenly_spaced(classes: int) -> list[str]:
    """K of ImageNet's names, at most 1000: their lengths are distributed alike for any K."""
    names = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    return [names[index * len(names) // classes] for index in range(classes)]


def config(
    name: str,
    shape: str,
    precision: str,
    options: Sequence[str] = (),
    data: str = "imagenet",
) -> CfgNode:
    """The config of a method's recipe for a shape; options: KEY, VALUE, KEY … over the recipe; data: name of
    a file in configs/datasets."""
    sizes, recipe = SHAPES[shape]
    words = ["--trainer", name, "--config-file", f"{CONFIGS}/trainers/{name}/{recipe}.yaml"]
    words += ["--dataset-config-file", f"{CONFIGS}/datasets/{data}.yaml"]
    words += ["INPUT.SIZE", str((sizes[1],) * 2), "VERBOSE", "False"]
    words += [f"TRAINER.{name.upper()}.PREC", precision, *options]
    return build_config(parse_arguments(words))


def configs_by_batch(
    name: str, shape: str, precision: str, options: Sequence[str]
) -> dict[int, CfgNode]:
    """A config of ``config`` for each number of images in a batch that the recipe has on the field's data
    sets."""
    configs: dict[int, CfgNode] = {}
    for data, classes in product(FIELD, ("base", "all")):  # base-to-new's rules, and few-shot's
        cfg = config(name, shape, precision, [*options, "DATASET.SUBSAMPLE_CLASSES", classes], data)
        configs.setdefault(cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg)
    return configs


def method_of(cfg: CfgNode, classes: int, backbone: Backbone) -> Method:
    """A config's method for K classes."""
    name = cfg.TRAINER.NAME
    settings = cfg.TRAINER[name.upper()]
    dataset = cfg.DATASET.NAME
    return method_class(name)(settings, evenly_spaced(classes), backbone, dataset)


def build(name: str, shape: str, classes: int, **settings: object) -> tuple[Any, Any]:
    """A method on random weights, in our and in the usual way: two methods that share what they learn and
    have looked at a batch as before a training's first epoch.

    Args:
        name: as registered; shape: see ``SHAPES``; classes: K, at most 1000; settings: keys of the
            method's node.
    """
    stock = random_clip(shape)
    node = f"TRAINER.{name.upper()}."
    pairs = [text for key, value in settings.items() for text in (node + key, str(value))]
    cfg = config(name, shape, PRECISION, [*pairs, *SHORT_START.get(name, [])])
    ours: Any = method_of(cfg, classes, build_backbone(stock.state_dict()).to(DEVICE))
    first = random_images(ours, 1, BATCH), torch.arange(BATCH, device=ours.device) % classes
    ours.start(lambda most=None, augmented=False: [first], None)
    ours.optim = build_optimizer(ours, cfg.OPTIM)
    stock = stock.to(DEVICE).requires_grad_(False)
    towers = UsualTowers(ours.backbone, ours.settings, ours.official_precision, stock)
    kind: Any = UsualCDCMethod if name == "CDC" else type(ours)
    usual: Any = kind(ours.settings, ours.classnames, towers, ours.dataset, path=ours.path)
    usual.start(lambda most=None, augmented=False: [first], None)
    usual.learner = ours.learner
    usual.optim = ours.optim
    for method in (ours, usual):
        method.hand_crafted  # noqa: B018  (encoded once in a run, hence no part of a step)
    return ours, usual


def random_images(method: Any, views: int, batch: int) -> Tensor:
    """(V, B, 3, H, W)."""
    side = method.backbone.image.image_size
    return torch.randn(views, batch, 3, side, side, device=method.device)


def training_step(method: Any, views: int, batch: int) -> Work:
    """Forward, loss, backward and the optimiser's step on ``batch`` images in so many views;
    returns the loss."""
    images = random_images(method, views, batch)
    labels = torch.arange(batch, device=method.device) % len(method.classnames)  # (B,)

    def step() -> Tensor:
        method.optim.zero_grad()
        loss, _ = method.loss(method(images), labels)
        loss.backward()
        method.optim.step()
        value: Tensor = loss.detach()
        return value

    return step


def test(method: Any, batch: int, is_usual: bool = False) -> Work:
    """Probabilities (B, K) of test images. Ours encodes the texts once for all, the usual way for
    every batch."""
    images = random_images(method, 1, batch)
    with torch.no_grad(), method.towers.autocast():
        encoded = None if is_usual else method.encode()

    @torch.no_grad()
    def answer() -> Tensor:
        answer: Tensor = method.predict(method(images, encoded).logits).probability
        return answer

    return answer


def text_encoder(method: Any) -> Work:
    """Texts' features (M, K, E) and the gradient of their mean square to the prompts."""

    def encode() -> Tensor:
        method.optim.zero_grad()
        with method.towers.autocast():
            features, _ = method.encode()
        features.square().mean().backward()
        values: Tensor = features.detach()
        return values

    return encode


def fusion(fuse: Callable[..., Opinion], templates: int, batch: int, classes: int) -> Work:
    """Fused log-evidence (B, K) of random opinions, and its gradient."""
    torch.manual_seed(0)
    log_evidence = torch.randn(templates, batch, classes, device=DEVICE, requires_grad=True)

    def both() -> Tensor:
        fused = fuse(log_evidence).log_evidence
        log_evidence.grad = None
        fused.mean().backward()
        return fused.detach()

    return both


# ---- how it is measured ----

# torch counts the fused attention of GPUs but not the CPU's
flop_registry[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu] = sdpa_flop
flop_registry[torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward] = (
    sdpa_backward_flop
)


def count_flops(work: Work) -> int:
    """FLOPs of one call's matrix products, convolutions and attention; a multiplication and an
    addition are two."""
    with FlopCounterMode(display=False) as counter:
        work()
    count: int = counter.get_total_flops()
    return count


class Launches(TorchDispatchMode):
    """Counts the operations that make a tensor or change one, while it lasts, the values that they read and
    write, and their FLOPs: not views, and not what only takes memory.

    Args:
        is_computed: whether products, convolutions and attention are; otherwise zeros stand in for them, so
            that a large model's step takes seconds and little memory.
    """

    def __init__(self, is_computed: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_computed = is_computed
        self.count = 0
        self.values = 0
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        returns = func._schema.returns
        is_view = any(each.alias_info and not each.alias_info.is_write for each in returns)
        name = func.overloadpacket.__name__
        makes_tensor = any(str(each.type) == "Tensor" for each in returns)
        is_empty = name.startswith(("empty", "new_empty"))
        flops_of = flop_registry.get(func.overloadpacket)
        if flops_of is None or self.is_computed:
            result = func(*args, **kwargs)
        else:
            result = zeros(func, args, kwargs)
        if makes_tensor and not is_view and not is_empty and name != "_unsafe_view":
            self.count += 1
            self.values += sum(map(distinct_values, tree_leaves((args, kwargs, result))))
        if flops_of is not None:
            self.flops += flops_of(*args, **kwargs, out_val=result)
        return result


def distinct_values(part: object) -> int:
    """How many values a tensor has in memory; 0 of anything else."""
    if not isinstance(part, Tensor):
        return 0
    return math.prod(size for size, step in zip(part.shape, part.stride()) if step)


def zeros(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Results of an operation's shape and layout without its numbers."""
    on_meta = tree_map_only(Tensor, lambda part: part.to("meta"), (args, kwargs))
    shapes = func(*on_meta[0], **on_meta[1])

    def zero(part: Tensor) -> Tensor:
        whole = torch.zeros(part.untyped_storage().nbytes() // part.itemsize, dtype=part.dtype)
        return whole.as_strided(part.shape, part.stride()).to(DEVICE)

    return tree_map_only(Tensor, zero, shapes)


def count_launches(work: Work) -> int:
    """Operations that one call dispatches, see ``Launches``; the call before it has made what is made
    once."""
    work()
    with Launches() as launches:
        work()
    count: int = launches.count
    return count


class Cost(NamedTuple):
    """Launches, FLOPs and bytes in fp16 of a step or of several."""

    launches: int
    flops: int
    size: int

    def seconds(self, peak: float, bandwidth: float) -> float:
        """The least time on a GPU that computes ``peak`` FLOP/s and moves ``bandwidth`` bytes/s."""
        return max(self.flops / peak, self.size / bandwidth, self.launches * LAUNCH)


def count_cost(work: Work) -> Cost:
    """The cost of one call whose products are not computed; the call before it has made what is made
    once."""
    with Launches(is_computed=False):
        work()
    with Launches(is_computed=False) as launches:
        work()
    return Cost(launches.count, launches.flops, HALF * launches.values)


def added_memory(work: Work) -> float:
    """GB that one call adds at its peak to what was in use before."""
    forget_peak()
    before = peak_memory()
    work()
    return (peak_memory() - before) / 1e9


def forget_peak() -> None:
    """From here on ``peak_memory`` is that of what follows."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    # glibc's: what earlier calls have freed would hide this one's
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far


def peak_memory() -> int:
    """Bytes of memory that this process has had in use at most, on the device that is measured."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def timer(work: Work) -> Timer:
    return Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())


@cache
def matmul_peak(dtype: torch.dtype = DTYPE) -> float:
    """FLOP/s of a large matrix product, the best of ten: what the machine can do."""
    size = 8192 if DEVICE.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
    clock = timer(lambda: a @ b)
    return 2 * size**3 / min(clock.timeit(1).mean for _ in range(10))


def compare(works: dict[str, Work], rounds: int, peak: float) -> DataFrame:
    """A row for each implementation; the first is the one that all are compared with."""
    flops = Series({name: count_flops(work) for name, work in works.items()})  # warms up as well
    clocks = {name: timer(work) for name, work in works.items()}
    turns = DataFrame(columns=list(works), dtype=float)
    for turn in range(rounds):
        turns.loc[turn] = [clock.timeit(1).mean for clock in clocks.values()]
    seconds = turns.median()
    return DataFrame(
        {
            "s": seconds,
            "times the first": turns.div(turns.iloc[:, 0], axis=0).median(),
            "GFLOP": flops / 1e9,
            "% of peak": 100 * flops / seconds / peak,
            "GB added": {name: added_memory(work) for name, work in works.items()},
        }
    ).rename_axis("implementation")


# ---- a step of every trainer ----


def started(method: Method, cfg: CfgNode) -> Work:
    """A step of ``fit`` on a random batch, of a method that has done what comes before the first epoch; cfg:
    the method's."""
    optimizer = build_optimizer(method, cfg.OPTIM)
    scaler = fit.scaler_of(method)
    views, _ = method.views(method.settings)
    batch = cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    images = random_images(method, views, batch)
    labels = torch.arange(batch, device=method.device) % len(method.classnames)  # (B,)

    def shown(most: int | None = None, augmented: bool = False) -> Batches:
        return [(images[:1], labels)]

    def step() -> None:
        fit.training_step(method, (images, labels), optimizer, scaler, "a measured step")

    method.start(shown, None)
    method.train()
    return step


def measure_step(method: Method, cfg: CfgNode, rounds: int) -> dict[str, float]:
    """Milliseconds, memory, FLOPs and share of the peak of a step of ``fit``, on a random batch.

    Args:
        cfg: the method's; rounds: steps of which the median is taken.
    """
    step = started(method, cfg)
    flops = count_flops(step)  # warms up as well
    forget_peak()
    seconds = median(timer(step).timeit(1).mean for _ in range(rounds))
    memory = peak_memory()
    dtype = torch.float32  # a CPU has no fast products of half precision
    if DEVICE.type == "cuda":
        dtype = method.towers.autocast_dtype or method.backbone.text.text_projection.dtype
    return {
        "ms": 1000 * seconds,
        "GB": memory / 1e9,
        "GFLOP": flops / 1e9,
        "% of peak": 100 * flops / seconds / matmul_peak(dtype),
    }


def configs_of(args: argparse.Namespace, precision: str) -> Iterator[tuple[CfgNode, int]]:
    """The config and the number of classes of each step that is measured in a precision."""
    shape: str = args.shape or "tiny"
    options = ["DATALOADER.TRAIN_X.BATCH_SIZE", str(args.batch)] if args.batch else []
    for name in in_steps():
        given = [*options, *SHORT_START.get(name, [])]
        by_batch = configs_by_batch(name, shape, precision, given)
        yield from product(by_batch.values(), args.classes or [50, 100])


def measure_all(args: argparse.Namespace) -> tuple[list[Row], bool]:
    """A row of ``STEP_COLUMNS`` for each trainer that learns in steps, precision, number of classes and of images
    in a batch, and whether all could be measured."""
    shape: str = args.shape or "tiny"
    rows: list[Row] = []
    is_whole = True
    with some_gpu() as device:
        backbone = build_backbone(random_clip(shape).state_dict()).to("cuda")
        for precision in PRECISIONS:
            for cfg, number in configs_of(args, precision):
                name = cfg.TRAINER.NAME
                batch = cfg.DATALOADER.TRAIN_X.BATCH_SIZE
                asked = f"{name}, {precision}, {number} classes, batches of {batch}"
                try:
                    measured = measure_step(method_of(cfg, number, backbone), cfg, args.rounds)
                except (UserError, RuntimeError) as error:  # a GPU's memory is used up, too
                    is_whole = False
                    log.error("error: %s: %s", asked, error)
                    continue
                fixed = (device, shape, name, precision, number, batch)
                rows.append(dict(zip(STEP_COLUMNS, (*fixed, *measured.values()))))
                log.info("%s: %.1f ms", asked, measured["ms"])
    return rows, is_whole


def count_minutes(args: argparse.Namespace) -> list[Row]:
    """The least minutes on each GPU of all that ``measure_all`` does there, by precision; what amp casts is left
    out."""
    shape: str = args.shape or "tiny"
    backbone = build_backbone(random_clip(shape).state_dict())
    minutes = {precision: dict.fromkeys(GPUS, 0.0) for precision in PRECISIONS}
    for cfg, number in configs_of(args, "fp32"):
        with layout_of_gpu(shape):
            with Launches(is_computed=False) as start:
                step = started(method_of(cfg, number, backbone), cfg)
            with Launches(is_computed=False) as each:
                step()
        steps = 1 + args.rounds  # one to warm up
        half = Cost(
            start.count + steps * each.count,
            start.flops + steps * each.flops,
            HALF * (start.values + steps * each.values),
        )
        log.info("%s, %d classes: %d GFLOP", cfg.TRAINER.NAME, number, half.flops / 1e9)
        single = half._replace(size=2 * half.size)
        for gpu, speed in GPUS.items():
            minutes["fp32"][gpu] += single.seconds(speed.single, speed.bandwidth) / 60
            for precision in ("amp", "fp16"):
                minutes[precision][gpu] += half.seconds(speed.half, speed.bandwidth) / 60
    rows: list[Row] = [{"precision": name, **times} for name, times in minutes.items()]
    total = {gpu: sum(times[gpu] for times in minutes.values()) for gpu in GPUS}
    return [*rows, {"precision": "all", **total}]


def shown(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown, a line for each trainer and number of classes."""
    lines: dict[tuple[object, ...], Row] = {}
    for row in rows:
        fixed = ("trainer", "batch", "classes")
        line = lines.setdefault(tuple(row[key] for key in fixed), {key: row[key] for key in fixed})
        line[str(row["precision"])] = "{ms:.1f} ms, {GB:.1f} GB, {% of peak:.0f} %".format(**row)
    return tabulate([*lines.values()], headers="keys", tablefmt="pipe", disable_numparse=True)


def write_rows(path: str, rows: Sequence[Row]) -> None:
    """Writes the rows as CSV."""
    text = io.StringIO()
    table = csv.DictWriter(text, STEP_COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


# ---- the command ----


def compare_ways(shape: str, classes: int, rounds: int) -> None:
    """Prints what the usual way and ours take for K classes."""
    cdc, usual_cdc = build("CDC", shape, classes, N_TEMPLATES=TEMPLATES)
    maple, usual_maple = build("MaPLe", shape, classes)
    parts = {
        f"Text encoder under {TEMPLATES} templates, forward and backward": {
            "usual": text_encoder(usual_cdc),
            "ours": text_encoder(cdc),
        },
        f"Training step of {BATCH} images": {
            "usual MaPLe, one template": training_step(usual_maple, 1, BATCH),
            "MaPLe": training_step(maple, 1, BATCH),
            f"usual CDC, {TEMPLATES} templates": training_step(usual_cdc, TEMPLATES, BATCH),
            f"CDC, {TEMPLATES} templates": training_step(cdc, TEMPLATES, BATCH),
        },
        f"Fusion of {TEMPLATES} opinions on {BATCH} images, forward and backward": {
            "usual": fusion(usual_dempster, TEMPLATES, BATCH, classes),
            "ours": fusion(dempster, TEMPLATES, BATCH, classes),
        },
        f"Test of CDC on {BATCH} images": {
            "usual": test(usual_cdc, BATCH, True),
            "ours": test(cdc, BATCH),
        },
    }
    for title, works in parts.items():
        rows = tabulate(compare(works, rounds, matmul_peak()), headers="keys", floatfmt=".4g")
        print(f"\nK = {classes}: {title}\n{rows}", flush=True)


@contextlib.contextmanager
def layout_of_gpu(shape: str) -> Iterator[None]:
    """Pads texts as on a GPU, to the end of the block, with a text tower as wide as ViT-B/16's."""
    widths = [SHAPES[each][0][7] for each in (shape, "ViT-B/16")]
    # padding is worth as many tokens there, see ``TextEncoder.layout``
    flops = GROUP_FLOPS["cuda"] * (widths[0] / widths[1]) ** 2
    with mock.patch.dict(GROUP_FLOPS, {DEVICE.type: flops}):
        yield


def in_steps() -> list[str]:
    """Return the trainers that learn in steps."""
    kinds = {name: method_class(name) for name in METHODS}
    return [name for name, kind in kinds.items() if kind.learns_in_epochs]


def steps_of(name: str, shape: str, classes: int) -> list[Work]:
    """A training step of ``BATCH`` images in the usual way and in ours."""
    ours, usual = build(name, shape, classes)
    views, _ = ours.views(ours.settings)
    return [training_step(method, views, BATCH) for method in (usual, ours)]


def count_all_launches(classes: Sequence[int]) -> list[Row]:
    """The operations of a step of every trainer."""
    rows: list[Row] = []
    for name, number in product(in_steps(), classes):
        with layout_of_gpu("narrow"):
            usual, ours = map(count_launches, steps_of(name, "narrow", number))
        row = {"trainer": name, "names": number, "usual": f"{usual:,}", "ours": f"{ours:,}"}
        rows.append({**row, "ratio": f"{ours / usual:.2f}"})
    return rows


def count_all_costs(shape: str, classes: int) -> list[Row]:
    """What a step of every trainer costs in the usual way → in ours, and the least milliseconds of it on
    each GPU."""
    rows: list[Row] = []
    for name in in_steps():
        with layout_of_gpu(shape), Launches(is_computed=False):
            works = steps_of(name, shape, classes)
        with layout_of_gpu(shape):
            costs = [count_cost(work) for work in works]
        row = {
            "trainer": name,
            "launches": change([cost.launches for cost in costs], ",.0f"),
            "GFLOP": change([cost.flops / 1e9 for cost in costs], ",.0f"),
            "GB moved": change([cost.size / 1e9 for cost in costs], ",.1f"),
        }
        for gpu, speed in GPUS.items():
            times = [1000 * cost.seconds(speed.half, speed.bandwidth) for cost in costs]
            row[f"{gpu}, ms"] = change(times, ".0f")
        rows.append(row)
    return rows


def change(values: Sequence[float], form: str) -> str:
    usual, ours = (format(value, form) for value in values)
    return f"{usual} → {ours}"


def compare_launches(classes: Sequence[int], shape: str) -> None:
    """Prints the operations of a training step of ``BATCH`` images, and what it costs, in Markdown."""
    for rows in (count_all_launches(classes), count_all_costs(shape, COUNTED)):
        print(tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True), flush=True)
        print()


def run(args: argparse.Namespace) -> int:
    """Exit code: 0, or 1 if a step can't be measured.

    Raises:
        UserError: the file to write is somebody's, or no step can be measured.
    """
    if args.launches:
        compare_launches(args.classes or [5, 50, 500], args.shape or "ViT-B/16")
        return 0
    if args.minutes:
        print(tabulate(count_minutes(args), headers="keys", tablefmt="pipe", floatfmt=".1f"))
        return 0
    if not args.every:
        for classes in args.classes or [50, 100]:
            compare_ways(args.shape or "tiny", classes, args.rounds)
        return 0
    check_output("--every", args.every, ",".join(STEP_COLUMNS))
    rows, is_whole = measure_all(args)
    if not rows:
        raise UserError("no step could be measured: the lines above say why")
    print(f"{shown(rows)}\n\n{rows[0]['CLIP']} on {rows[0]['device']}, torch {torch.__version__}")
    write_rows(args.every, rows)
    return 0 if is_whole else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--shape", choices=SHAPES, help="of the random backbone (tiny)")
    parser.add_argument("--classes", type=int, nargs="+", metavar="K", help="names (50 100)")
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken (5)")
    parser.add_argument("--batch", type=int, help="with --every: images in it (the recipe's)")
    parser.add_argument(
        "--launches",
        action="store_true",
        help="count a step of every trainer as a GPU has it, in the usual way and in ours: operations with --classes (5 50 500) "
        "names, and the FLOPs, bytes and least time of --shape (ViT-B/16)",
    )
    parser.add_argument(
        "--every",
        metavar="FILE.csv",
        help="measure a step of every trainer on a GPU, for run.py --plan",
    )
    parser.add_argument(
        "--minutes", action="store_true", help="say how long --every takes on GPUs at least"
    )
    return run_tool(run, parser.parse_args(arguments), log)


if __name__ == "__main__":
    sys.exit(main())
