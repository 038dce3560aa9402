"""Files of weights → state dicts under OpenAI's names. No code in a file is executed."""

import zipfile
from collections.abc import Mapping

import torch
from torch import Tensor

from ...common.errors import UserError, raise_machines
from ...common.readers import check_archive
from .torchscript import read_torchscript

# No parameters of the towers: sizes kept for the record, and a bias that changes no softmax.
LEFT_OUT = ("input_resolution", "context_length", "vocab_size", "logit_bias", "position_ids")
OF_HUGGING_FACE = {  # what Hugging Face's names have in place of OpenAI's, in this order
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings": "visual",
    "text_model.embeddings.": "",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.final_layer_norm": "ln_final",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "text_model.encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}


def read_state_dict(path: str) -> dict[str, Tensor]:
    """State dict of a file, all tensors fp32 on the CPU.

    Args:
        path: a TorchScript archive, a state dict saved with ``torch.save``, also as ``state_dict``
            of a training's checkpoint and from parallel training, or a ``.safetensors`` file; the
            names in it are OpenAI's, which OpenCLIP shares, or Hugging Face's.

    Raises:
        UserError: the file is none of them.
    """
    try:
        content = read(path)
    except Exception as error:  # damaged or hostile bytes can raise anything
        raise_machines(error, path)
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"{path} can't be read as CLIP weights: {reason}") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path} holds no state dict but a {type(content).__name__}")
    state = {}
    for key, value in content.items():
        if torch.is_tensor(value) and key.rpartition(".")[2] not in LEFT_OUT:
            if value.nbytes > value.untyped_storage().nbytes():
                raise UserError(
                    f"{path} can't be read as CLIP weights: {key} has more numbers than are stored"
                )
            state[key.removeprefix("module.")] = value.float()
    return openai_names(state) if "visual_projection.weight" in state else state


def read(path: str) -> object:
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    check_archive(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.split("/")[1:2] == ["code"] for name in archive.namelist()):
                return read_torchscript(archive)
    return torch.load(path, map_location="cpu", weights_only=True)


def openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a CLIP's weights under OpenAI's names, out of ``transformers``' weights: linear maps transposed, q, k, v apart."""
    renamed = {}
    for key, value in state.items():
        for theirs, ours in OF_HUGGING_FACE.items():
            key = key.replace(theirs, ours)
        renamed[key] = value.T if key in ("text_projection", "visual.proj") else value
    for key in [key for key in renamed if ".q_proj." in key]:
        parts = [key.replace("q_proj", f"{part}_proj") for part in "qkv"]
        rows = [renamed.pop(part) for part in parts if part in renamed]
        renamed[key.replace("q_proj.", "in_proj_")] = torch.cat(rows)  # (3D, D), (3D,)
    return renamed


def check_widths(
    state: Mapping[str, Tensor], source: str, model: str, vision: int, text: int
) -> None:
    """Refuse weights of widths that another model has, for which the number of heads would be wrong.

    Raises:
        UserError: the towers' widths are not ``vision`` (of a ViT) and ``text``.
    """
    for key, width in (("visual.class_embedding", vision), ("ln_final.weight", text)):
        if key in state and len(state[key]) != width:
            raise UserError(
                f"{source} holds another model than {model}: {key} has {len(state[key])} numbers, "
                f"not {width}"
            )
