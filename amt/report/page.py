"""Pages of HTML that need nothing beside themselves: sections of facts, tables and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_PIXELS = 96  # of CSS, in an inch


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str
    kind: ClassVar = "note"


@dataclass(frozen=True)
class Facts:
    """Names and what is known of them."""

    title: str
    entries: Mapping[str, str]
    kind: ClassVar = "facts"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        folded: whether a reader has to open it.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False
    kind: ClassVar = "table"

    @classmethod
    def of(cls, caption: str, frame: pd.DataFrame, *, folded: bool = False) -> "Table":
        """The table of a frame, without its index."""
        rows = [[as_text(value) for value in row] for row in frame.to_numpy(object)]
        return cls(caption, list(map(str, frame.columns)), rows, folded)

    @property
    def numeric(self) -> list[bool]:
        """Which columns have numbers only, or nothing."""
        return [
            all(cell[:1].isdigit() or cell[:1] == "-" for cell in column if cell)
            for column in zip(*self.rows, strict=True)
        ] or [False] * len(self.heads)


@dataclass(frozen=True)
class Drawing:
    """A figure, with a caption that says in words what it shows."""

    caption: str
    figure: Figure
    kind: ClassVar = "drawing"


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own."""

    title: str
    blocks: Sequence[Note | Facts | Table | Drawing]


def as_text(value: Any) -> str:
    """A value as tables show it: nothing for what is missing, four digits of a fraction."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def render(title: str, sections: Sequence[Section]) -> str:
    """The page, in which nothing that is text can be markup."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _numbered_svg()
    return environment.get_template("page.html.jinja").render(title=title, sections=sections)


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """A figure as an `svg` element of HTML, as wide as its place up to its own width.

    Args:
        prefix: of all identifiers, which must differ from those of the page's other figures.
        label: what the figure shows, for those who do not see it.
    """
    buffer = BytesIO()
    # Texts stay texts, and the same figure is the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "amt"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        attributes = {name.replace(_HREF, "href"): v for name, v in element.attrib.items()}
        for name, value in attributes.items():
            if name == "id":
                attributes[name] = prefix + value
            elif name == "href" and value.startswith("#"):
                attributes[name] = f"#{prefix}{value[1:]}"
            else:
                attributes[name] = value.replace("url(#", f"url(#{prefix}")
        element.attrib.clear()
        element.attrib.update(attributes)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    width = _PIXELS * figure.get_size_inches()[0]
    root.attrib.update({"role": "img", "aria-label": label, "style": f"max-width: {width:.0f}px"})
    return ElementTree.tostring(root, encoding="unicode")


def _numbered_svg() -> Callable[[Drawing], Markup]:
    numbers = count(1)

    def svg(drawing: Drawing) -> Markup:
        # What Matplotlib and ElementTree wrote has its texts escaped.
        return Markup(inline_svg(drawing.figure, f"figure{next(numbers)}-", drawing.caption))

    return svg
