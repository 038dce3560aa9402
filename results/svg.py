"""Pictures of tables and reports as SVG, one for light and for dark pages."""

import io
from pathlib import Path

from matplotlib import rc_params_from_file
from matplotlib.figure import Figure as Canvas

PAPERS = {"light": "#ffffff", "dark": "#171b21"}
INKS = {"light": "#1d2430", "dark": "#e4e8ee"}
INK = "#123456"  # replaced by the page's own ink
SVG_MARK = "<!-- A figure of CDC for prompt learning -->\n"  # begins each, for ``check_output``
STYLE = rc_params_from_file(Path(__file__).with_suffix(".mplstyle"), use_default_template=False)


def svg_of(canvas: Canvas) -> str:
    """SVG on a transparent ground, in the ink of the page that shows it, light or dark."""
    canvas.savefig(buffer := io.StringIO(), format="svg", transparent=True, metadata={"Date": None})
    ink = (
        f"svg{{color:{INKS['light']}}}"
        f"@media(prefers-color-scheme:dark){{svg{{color:{INKS['dark']}}}}}</style>"
    )
    svg = buffer.getvalue().replace(INK, "currentColor").replace("</style>", ink, 1)
    return SVG_MARK + svg[svg.index("<svg") :]  # SVG needs no head
