"""Drawing sets with open licences → one array of small RGBA pictures, each with the concept it shows.

The sets are npm packages @iconify-json/<set>: an `icons.json` of SVG bodies by icon name. Each set spells its names in
its own way; emojibase's labels, shortcodes and Unicode's names map them to one hexcode.
"""

import io
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image
from tqdm import tqdm

EMOJI_SETS = (
    "noto",
    "twemoji",
    "fluent-emoji-flat",
    "fluent-emoji",
    "noto-v1",
    "emojione",
    "fxemoji",
    "streamline-emojis",
    "fluent-emoji-high-contrast",
    "emojione-monotone",
)
# Icons for other purposes: only those whose name is an emoji's own are used.
ICON_SETS = (
    "streamline-color",
    "streamline-cyber-color",
    "streamline-kameleon-color",
    "streamline-plump-color",
    "streamline-flex-color",
    "icon-park",
    "icon-park-twotone",
    "flat-color-icons",
    "game-icons",
    "ph",
)
STROKES = (
    None,
    0.014,
    0.025,
)  # widths of the dark lines drawn around all shapes, as a share of the picture; OpenMoji's are 0.028
SIZE = 64  # pixels, the model's input
log = logging.getLogger(__name__)


def bare(hexcode: str) -> str:
    """Hexcode in capitals without variation selectors, which the sets use inconsistently."""
    return "-".join(p for p in hexcode.upper().split("-") if p != "FE0F")


def squash(name: str) -> str:
    """A name's letters and digits only: "beer-mug", "Beer Mug" and "beermug" are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("’", "").replace("&", "and"))


def read_concepts(node_modules: str | Path) -> dict[str, Any]:
    """{bare hexcode: emojibase's record with keys label, tags, subgroup …}, skin tones left out, in Unicode's order."""
    path = Path(node_modules, "emojibase-data", "en", "data.json")
    records = json.loads(path.read_text(encoding="utf-8"))
    return {bare(r["hexcode"]): r for r in records if "subgroup" in r}


def read_labels(concepts: Mapping[str, Any]) -> dict[str, str]:
    """{squashed CLDR label: bare hexcode}."""
    return {squash(record["label"]): code for code, record in concepts.items()}


def read_names(node_modules: str | Path, concepts: Mapping[str, Any]) -> dict[str, str]:
    """{squashed name: bare hexcode}. Earlier sources win: CLDR labels, the sets' own tables, Unicode names, shortcodes."""
    base = Path(node_modules, "emojibase-data")
    names = read_labels(concepts)
    tables = [Path(node_modules, "@iconify-json", s, "chars.json") for s in EMOJI_SETS]
    tables.append(base / "meta" / "unicode-names.json")
    tables += sorted((base / "en" / "shortcodes").glob("*.json"))
    for table in tables:
        if not table.exists():
            continue
        for code, found in json.loads(table.read_text(encoding="utf-8")).items():
            for name in [found] if isinstance(found, str) else found:
                if bare(code) in concepts:
                    names.setdefault(squash(name), bare(code))
    return names


def find_concept(icon: str, names: Mapping[str, str]) -> str | None:
    """The bare hexcode an icon name stands for, or None. Handles "flag-for-x", "-1" and the like, "-flat" and the like."""
    for name in (
        icon,
        re.sub(r"^flag-for-(flag-)?", "flag-", icon),
        re.sub(r"-(\d|one|two|flat|duo|duotone)$", "", icon),
    ):
        if squash(name) in names:
            return names[squash(name)]
    return None


def render(
    body: str, box: Sequence[float], stroke: float | None = None, size: int = SIZE
) -> np.ndarray:
    """SVG body and its view box (left, top, width, height) → uint8 array (size, size, 4), straight alpha.

    stroke: width of a dark line around every shape, as OpenMoji has it; drawings that have lines of their own keep them.
    """
    style = ""
    if stroke and "stroke=" not in body:
        style = f"<style>*{{stroke:#000;stroke-width:{stroke * max(box[2:]):.4g};stroke-linejoin:round}}</style>"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, box))}">{style}{body}</svg>'
    )
    scale = 2 * size / max(box[2], box[3])  # drawn at twice the size, then averaged
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=round(box[2] * scale),
        height=round(box[3] * scale),
        skip_system_fonts=True,
    )
    drawn = Image.open(io.BytesIO(bytes(png)), formats=["PNG"]).convert("RGBA")
    canvas = Image.new("RGBA", (2 * size, 2 * size))
    canvas.paste(drawn, ((2 * size - drawn.width) // 2, (2 * size - drawn.height) // 2))
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX))


def render_sets(
    node_modules: str | Path, sets: Sequence[str] = EMOJI_SETS + ICON_SETS
) -> tuple[np.ndarray, list[str], list[str]]:
    """→ (images uint8 (3, N, SIZE, SIZE, 4), list of N hexcodes, list of N set names); the first axis is STROKES.

    Icons of no known concept are left out.

    Raises FileNotFoundError when none of the sets is there.
    """
    concepts = read_concepts(node_modules)
    names, labels = read_names(node_modules, concepts), read_labels(concepts)
    jobs = []
    for name in sets:
        path = Path(node_modules, "@iconify-json", name, "icons.json")
        if not path.exists():
            log.warning("drawing set %s is not under %s", name, node_modules)
            continue
        book = json.loads(path.read_text(encoding="utf-8"))
        for icon, entry in book["icons"].items():
            code = find_concept(icon, names if name in EMOJI_SETS else labels)
            if code is not None and not entry.get("hidden"):
                default = {"left": 0, "top": 0, "width": 16, "height": 16}
                box = [entry.get(k, book.get(k, default[k])) for k in default]
                jobs.append((name, code, entry["body"], box))
    if not jobs:
        raise FileNotFoundError(
            f"no drawing set of {', '.join(sets)} under {Path(node_modules, '@iconify-json')}"
        )
    drawn = [
        [render(body, box, stroke) for stroke in STROKES]
        for _, _, body, box in tqdm(jobs, desc="drawing")
    ]
    images = np.stack(drawn, axis=1)
    return images, [job[1] for job in jobs], [job[0] for job in jobs]


def load_drawings(
    node_modules: str | Path, cache: str | Path
) -> tuple[np.ndarray, list[str], list[str]]:
    """As render_sets, drawn once and kept in the file `cache` (.npz), which is written whole or not at all."""
    cache = Path(cache)
    if not cache.exists():
        images, codes, sets = render_sets(node_modules)
        temporary = cache.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            np.savez(file, images=images, codes=np.array(codes), sets=np.array(sets))
        os.replace(temporary, cache)
    with np.load(cache) as kept:
        return kept["images"], kept["codes"].tolist(), kept["sets"].tolist()
