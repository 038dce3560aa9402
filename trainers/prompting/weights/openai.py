"""OpenAI's CLIPs by name: on this machine already, else downloaded once.

OpenAI's addresses answer 404 to some users since October 2025 (openai/CLIP, issue 516). timm's
copies on the Hugging Face hub hold the same weights; they are taken where OpenAI does not answer.
"""

import http.client
import logging
import os
import socket
import sys

import torch

from ...common.errors import UserError
from ...common.files import file_hash
from ...common.hub import path_in_cache
from ...common.locks import turn

log = logging.getLogger(__name__)

CACHE = "~/.cache/clip"  # the package ``clip`` keeps them there, too
TIMEOUT = 10  # seconds without a connection or without another byte
OPENAI_FILES = {  # name: <SHA-256 of the file>/<file>, as in the package ``clip``
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599/RN101.pt",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd/RN50x4.pt",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa/RN50x16.pt",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c/RN50x64.pt",
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "ViT-B/16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "ViT-L/14@336px": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
}
ADDRESSES = {
    name: f"https://openaipublic.azureedge.net/clip/models/{file}"
    for name, file in OPENAI_FILES.items()
}
HUB_ADDRESS = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
HUB_FILE = "open_clip_model.safetensors"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
TIMM = {  # name: the hub's repository, and the SHA-256 of HUB_FILE in it, as far as it is known
    "RN50": (
        "timm/resnet50_clip.openai",
        "da0baa37fb2211eee5729ab69ed587eb10d48f5b7076ceeed01552fc3d4cb4ee",
    ),
    "RN101": ("timm/resnet101_clip.openai", ""),
    "RN50x4": ("timm/resnet50x4_clip.openai", ""),
    "RN50x16": ("timm/resnet50x16_clip.openai", ""),
    "RN50x64": ("timm/resnet50x64_clip.openai", ""),
    "ViT-B/32": (
        "timm/vit_base_patch32_clip_224.openai",
        "e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
    ),
    "ViT-B/16": (
        "timm/vit_base_patch16_clip_224.openai",
        "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
    ),
    "ViT-L/14": (
        "timm/vit_large_patch14_clip_224.openai",
        "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e",
    ),
    "ViT-L/14@336px": ("timm/vit_large_patch14_clip_336.openai", ""),
}
TRANSFORMERS = {  # name: the hub's repository with the weights as ``transformers`` names them
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}


def find(name: str) -> str:
    """Path of the weights of one of OpenAI's names, downloaded if no cache has them.

    Raises:
        UserError: they are not available; the message names another one to take, and then lists
            all places and the file for each. Or the file in the cache, which is left as it
            is, is another one.
    """
    folder = os.path.expanduser(CACHE)
    address = ADDRESSES[name]
    (repository, sha256) = TIMM[name]
    target = os.path.join(folder, os.path.basename(address))
    sources = [(address, target, address.split("/")[-2])]
    if sha256:
        url = f"{HUB_ADDRESS}/{repository}/resolve/main/{HUB_FILE}"
        sources.append((url, f"{os.path.splitext(target)[0]}.safetensors", sha256))
    for _, path, expected in sources:
        if os.path.isfile(path):
            sha256 = file_hash(path)
            if sha256 == expected:
                return path
            raise UserError(
                f"{path} is not OpenAI's {name}: its SHA-256 is {sha256[:16]}…, "
                f"{os.path.getsize(path)} bytes, not {expected[:16]}…. To use it all the same give "
                "its path as MODEL.BACKBONE.NAME; to have OpenAI's downloaded move it elsewhere (a "
                "download that was broken off leaves such a file)"
            )
    places = [(repository, HUB_FILE)]
    places += [(TRANSFORMERS[name], file) for file in HUB_FILES] if name in TRANSFORMERS else []
    for repository, file in places:
        if in_cache := path_in_cache(repository, file):
            return in_cache
    failures = []
    for url, path, expected in sources:
        try:
            with turn(f"the weights of {name} are downloaded", folder):
                if not os.path.isfile(path):
                    log.info("Downloading the weights of %s from %s", name, url)
                    download(url, path, expected)
            return path
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failures.append(f"{url} ({error}), to be put at {path}")
    raise UserError(
        f"the weights of {name} can't be downloaded, and this machine does not have them. Take the "
        "CLIP that comes with this package, which needs no download: MODEL.BACKBONE.NAME tiny and "
        "INPUT.SIZE (64, 64) among the settings, backbone='tiny' where Python takes a backbone, or "
        "--backbone tiny where a command does. Or fetch one of these files elsewhere: "
        f"{'; '.join(failures)}. Hugging Face's cache was searched for "
        f"{' and '.join('/'.join(place) for place in places)}"
    )


def download(url: str, path: str, sha256: str) -> None:
    """Download a file; it is there whole or not at all.

    Raises:
        OSError, RuntimeError, http.client.HTTPException: the download fails, or its SHA-256 is another.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch has no argument for it
    try:
        torch.hub.download_url_to_file(url, path, sha256, progress=sys.stderr.isatty())
    finally:
        socket.setdefaulttimeout(before)
