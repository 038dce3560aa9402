"""Checkpoints that the authors' own code wrote, for ``--eval-only``: the prompts in them are taken,
and what CLIP gives is compared.

Dassl writes ``<folder>/model.pth.tar-<epoch>`` with all parameters and buffers of the registered
model, which for MaPLe and PromptSRC is the whole prompted CLIP.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common.console import first_few
from ..common.errors import UserError
from ..method import Method
from ..prompting.tokens import END_TOKEN, TOKENIZER, tokenize_classes

log = logging.getLogger(__name__)
HALF_ROUNDING = 0.01  # of a tensor's largest number: PromptSRC adds up all epochs' float16
ROWS_AT_ONCE = 256  # that are looked up in the vocabulary together: 50 MB


OfficialState = Mapping[str, Tensor]  # by the official names


class OfficialLayout(NamedTuple):
    """The layout of a method's official checkpoints.

    Attributes:
        folder: of the files, in a run's folder.
        name: the name there of one of the learner's parameters.
        settings: the ones that follow from the shapes of a state, KEY → value.
        shapes: the names of the tensors whose shapes these are; the first is the context, which is
            in every file.
        unused: beginnings of names that change no answer.
    """

    folder: str
    name: Callable[[str], str]
    settings: Callable[[OfficialState], dict[str, object]]
    shapes: tuple[str, ...]
    unused: tuple[str, ...] = ()


def same(name: str) -> str:
    return name


def of_learner(name: str) -> str:
    return f"prompt_learner.{name}"


def of_block(name: str) -> str:
    """PromptSRC's: prompts belong to the layer that they enter, but for the text's first ones."""
    tower = "image_encoder" if name.startswith("visual.") else "text_encoder"
    last = name.rpartition(".")[2]
    if last.isdecimal():  # of the deep ones, which begin at the second layer
        return f"{tower}.transformer.resblocks.{int(last) + 1}.VPT_shallow"
    return "image_encoder.VPT" if tower == "image_encoder" else of_learner(name)


def count_numbered(state: OfficialState, start: str, end: str = "") -> int:
    """Count the names of a state that are ``start``, a number, ``end``."""
    return sum(name.startswith(start) and name.endswith(end) for name in state)


def of_context(state: OfficialState) -> dict[str, object]:
    """CoOp's settings, from a context (n, D) or, one per class, (K, n, D)."""
    return {**of_shared_context(state), "CSC": state["ctx"].dim() == 3}


def of_shared_context(state: OfficialState) -> dict[str, object]:
    """CoCoOp's and KgCoOp's settings, from a context (n, D).

    A phrase would bring its own number of tokens, and is only where training starts.
    """
    return {"N_CTX": state["ctx"].shape[-2], "CTX_INIT": ""}


def of_coupled_prompts(state: OfficialState) -> dict[str, object]:
    """MaPLe's settings, from (n, D) per layer."""
    return {
        "N_CTX": state["prompt_learner.ctx"].shape[0],
        "PROMPT_DEPTH": 1 + count_numbered(state, "prompt_learner.compound_prompts_text."),
    }


def of_independent_prompts(state: OfficialState) -> dict[str, object]:
    """PromptSRC's settings, from (n, D) per layer of either encoder."""
    settings: dict[str, object] = {"N_CTX_TEXT": state["prompt_learner.ctx"].shape[0]}
    images = state.get("image_encoder.VPT")
    settings["N_CTX_VISION"] = 0 if images is None else images.shape[0]
    for key, tower in (("PROMPT_DEPTH_TEXT", "text"), ("PROMPT_DEPTH_VISION", "image")):
        first = tower == "text" or images is not None
        blocks = f"{tower}_encoder.transformer.resblocks."
        settings[key] = first + count_numbered(state, blocks, ".VPT_shallow")
    return settings


LAYOUTS = {
    "CoOp": OfficialLayout("prompt_learner", same, of_context, ("ctx",)),
    "CoCoOp": OfficialLayout("prompt_learner", same, of_shared_context, ("ctx",)),
    "KgCoOp": OfficialLayout(
        "prompt_learner", same, of_shared_context, ("ctx",), unused=("bias_vectors", "meta_net.")
    ),
    "MaPLe": OfficialLayout(
        "MultiModalPromptLearner", of_learner, of_coupled_prompts, ("prompt_learner.ctx",)
    ),
    "PromptSRC": OfficialLayout(
        "VLPromptLearner",
        of_block,
        of_independent_prompts,
        ("prompt_learner.ctx", "image_encoder.VPT"),
    ),
}
# the beginning of a name → the trainer whose files have it; KgCoOp's have CoCoOp's, too
KEY_MARKS = {
    "bias_vectors": "KgCoOp",
    "meta_net.": "CoCoOp",
    "prompt_learner.proj.": "MaPLe",
    "prompt_learner.ZS_image_encoder.": "PromptSRC",
}


class LeftOut:
    """A stand-in for the schedule and its optimiser, which Dassl pickles as they are."""

    def __setstate__(self, state: object) -> None: ...


def empty(*parts: object) -> dict[object, object]:
    """Return an empty dict, in the place of the dicts in the schedule and its optimiser."""
    return {}


STAND_INS: list[Any] = [  # for ``torch.serialization.safe_globals``: nothing else is made of a file
    *((LeftOut, f"torch.optim.lr_scheduler.{name}") for name in ("StepLR", "MultiStepLR")),
    (LeftOut, "torch.optim.lr_scheduler.CosineAnnealingLR"),
    *((LeftOut, f"torch.optim.{name.lower()}.{name}") for name in ("Adam", "AdamW", "SGD")),
    *((LeftOut, f"torch.optim.{name.lower()}.{name}") for name in ("RMSprop", "RAdam")),
    (LeftOut, "dassl.optim.radam.RAdam"),
    *((empty, f"collections.{name}") for name in ("defaultdict", "Counter")),
    dict,
]


def is_official(state: object, method: Method | type[Method]) -> bool:
    """Whether a file's content is a checkpoint of the method's authors."""
    return (
        isinstance(state, dict)
        and {*state} >= {"state_dict", "epoch", "optimizer", "scheduler"}
        and "trainer" not in state
        and isinstance(state["state_dict"], dict)
        and all(isinstance(value, Tensor) for value in state["state_dict"].values())
        and method.name() in LAYOUTS
    )


def check_state(state: OfficialState, method: Method | type[Method], path: str) -> None:
    """Checks that a checkpoint's tensors can be the method's; path: of its file, for messages.

    Raises:
        UserError: they have no names, or can't be computed with, or another trainer's code wrote
            them.
    """
    trainer = method.name()
    if not all(isinstance(name, str) for name in state):
        raise UserError(f"{path} has tensors without names: download it again")
    odd = [name for name, value in state.items() if not is_plain(value)]
    if odd:
        raise UserError(
            f"{path} has tensors that are quantized, complex, sparse or without numbers "
            f"({first_few(sorted(odd))}): give a file as the authors' code writes it"
        )
    for mark, writer in KEY_MARKS.items():
        if any(name.startswith(mark) for name in state):
            if writer != trainer:
                raise UserError(
                    f"{path} was trained by {writer}, whose files have {mark.strip('.')}: give the "
                    f"trainer {writer} and not {trainer}"
                )
            break
    shapes = LAYOUTS[trainer].shapes
    if shapes[0] not in state:
        raise UserError(
            f"{path} has no {shapes[0]}, so it is not {trainer}'s (it has {first_few(sorted(state))}): "
            "give the trainer that it was trained by"
        )
    for name in shapes:
        if name in state and (state[name].dim() < 2 or not state[name].numel()):
            raise UserError(
                f"{path} holds no prompts: its {name} has the shape {tuple(state[name].shape)}; "
                "download it again"
            )


def is_plain(value: Tensor) -> bool:
    """Whether a tensor can come from a training: real numbers, all of them stored."""
    if value.is_quantized or value.is_complex() or value.is_meta or value.is_nested:
        return False
    return value.layout == torch.strided and value.nbytes <= value.untyped_storage().nbytes()


def prompts_in(state: OfficialState, method: Method, path: str) -> dict[str, Tensor]:
    """The learner's state from an official one.

    Args:
        state: by the official names, as ``check_state``; path: of its file, for messages.

    Raises:
        UserError: it lacks some of the prompts or has more, or is of another CLIP.
    """
    layout = LAYOUTS[method.name()]
    learner: Any = method.learner
    names = {name: layout.name(name) for name in learner.state_dict()}
    frozen = given_by_clip(state, method)
    if missing := names.values() - state.keys():
        raise UserError(
            f"{path} lacks {first_few(sorted(missing))}: give the trainer and the settings that it was trained with"
        )
    rest = state.keys() - names.values() - frozen.keys()
    more = [name for name in rest if not name.startswith((*layout.unused, *OF_CLASSES))]
    if more:
        raise UserError(
            f"{path} has {first_few(sorted(more))} too: give the trainer and the settings that it was trained with"
        )
    for name, value in frozen.items():
        if name in state and not is_alike(state[name], value):
            raise UserError(
                f"{path} was trained for another CLIP than MODEL.BACKBONE.NAME: its {name} differs"
            )
    return {ours: state[theirs].float() for ours, theirs in names.items()}


def trained_names(state: OfficialState, method: Method, path: str) -> list[str]:
    """The method's class names in the order in which a file has their contexts.

    A context that all classes share serves any names, in their own order. Each of the
    class-specific contexts belongs to a name, whose tokens the file has beside it.

    Args:
        state, path: as in ``prompts_in``.

    Raises:
        UserError: the file's contexts belong to other names.
    """
    given = method.classnames
    if not method.is_class_specific:
        return given
    if "token_suffix" not in state:
        log.warning(
            "%s does not say whose its class-specific contexts are: they are taken for those of the "
            "given names, in that order",
            path,
        )
        return given
    text: Any = method.backbone.text
    table = text.token_embedding.weight.detach().float().cpu()  # (V, D)
    theirs = tokens_of_names(state["token_suffix"], table, path)
    rows = tokenize_classes(given, "{}.", text.context_length)
    ours = [row[1 : row.argmax()].tolist() for row in rows]
    waiting = defaultdict(list)  # the embeddings of a name's tokens → the names that have them
    for name, ids in zip(given, ours):
        waiting[embeddings(ids, table)].append(name)
    keys = [embeddings(ids, table) for ids in theirs]
    if Counter(keys) != Counter({key: len(names) for key, names in waiting.items()}):
        known = [TOKENIZER.decode(ids).strip().removesuffix(".").rstrip() for ids in theirs]
        others = [name for key in waiting.keys() - {*keys} for name in waiting[key]]
        unknown = f", and not for {first_few(sorted(others))}" if others else ""
        raise UserError(
            f"{path} has a context for each of {len(known)} classes, {first_few(known)}{unknown}: "
            f"give these {len(known)} names, in any order (there are {len(given)})"
        )
    return [waiting[key].pop(0) for key in keys]


def tokens_of_names(suffix: Tensor, table: Tensor, path: str) -> list[list[int]]:
    """The token ids of each of K names, and of the full stop after it.

    Args:
        suffix: (K, S, D), embeddings of the tokens after each context, rounded to float16; table: (V,
            D), embeddings of all tokens; path: of the file, for messages.

    Raises:
        UserError: they are another CLIP's.
    """
    if suffix.dim() != 3 or suffix.shape[2] != table.shape[1]:
        raise UserError(
            f"{path} was trained for another CLIP than MODEL.BACKBONE.NAME: its token_suffix differs"
        )
    rows, places = suffix.float().flatten(0, 1).unique(dim=0, return_inverse=True)
    nearest = torch.cat(
        [torch.cdist(some, table).argmin(dim=1) for some in rows.split(ROWS_AT_ONCE)]
    )
    names = []
    for ids in nearest[places].view(suffix.shape[:2]).tolist():
        names.append(ids[: ids.index(END_TOKEN)] if END_TOKEN in ids else ids)
    return names


def embeddings(ids: list[int], table: Tensor) -> bytes:
    """The embeddings of tokens. A small CLIP has the same for all tokens that it has not learned,
    so that they are told apart by these and not by their ids."""
    return table[ids].numpy().tobytes()


OF_CLASSES = ("token_suffix", "prompt_learner.token_suffix")  # the names that were trained


def given_by_clip(state: OfficialState, method: Method) -> dict[str, Tensor]:
    """Return CLIP's own tensors under the official names."""
    backbone = method.backbone
    learner: Any = method.learner
    places = {
        "image_encoder": backbone.image,
        "text_encoder": backbone.text,
        "prompt_learner.ZS_image_encoder": backbone.image,
    }
    given = {
        f"{place}.{name}": value
        for place, tower in places.items()
        for name, value in tower.state_dict().items()
    }
    given["logit_scale"] = backbone.log_scale
    for name in ("token_prefix", "prompt_learner.token_prefix"):
        classes = state[name].shape[:1] if name in state else ()
        given[name] = learner.tokens.start.expand(*(classes or (1,)), -1, -1)
    return given


def is_alike(theirs: Tensor, ours: Tensor) -> bool:
    """Whether two weights are the same but for rounding."""
    if theirs.shape != ours.shape or not theirs.numel():
        return False
    difference = (theirs.float() - ours.float().cpu()).abs().max()
    return bool(difference <= HALF_ROUNDING * ours.float().abs().max())
