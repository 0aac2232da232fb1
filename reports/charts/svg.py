"""From a matplotlib figure to an inline `<svg>` element with colours, fonts and ids that suit the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from matplotlib.figure import Figure

from reports.charts.canvas import VARIABLES
from reports.wording.printable import printable

_SVG = "http://www.w3.org/2000/svg"
_LINK = "http://www.w3.org/1999/xlink"
_HIT_RADIUS = "11"
_COLOUR = re.compile("|".join(VARIABLES))
_DECIMAL = re.compile(r"-?\d+\.\d+")
_NO_TURN = re.compile(r"^rotate\(-?0 ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The text that pointing at a mark shows, and the arm that the mark belongs to, if any."""

    text: str
    arm: str | None = None


def inline(
    figure: Figure,
    name: str,
    label: str,
    tips: Mapping[str, Tip] | None = None,
    *,
    panels: Mapping[str, str] | None = None,
    focusable: bool = False,
) -> str:
    """The figure as an `<svg>` element that scales with its container.

    `name` is the prefix of every id, so that no two charts on a page share one. `label` is for screen readers. `tips`
    are by the gid of the artist; with `focusable`, they can also be reached by keyboard. `panels` has the arms that
    whole areas belong to, by the gid of the background.
    """
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(written.getvalue())
    del root.attrib["width"], root.attrib["height"]
    root.attrib |= {"role": "group" if tips else "img", "aria-label": printable(label), "class": "chart"}
    _drop_style(root)
    for group in root.iter(f"{{{_SVG}}}g"):
        if tips and (tip := tips.get(group.get("id", ""))):
            _make_point(group, tip, focusable=focusable)
        if panels and (arm := panels.get(group.get("id", ""))):
            classes = f"{group.get('class', '')} panel".strip()
            group.attrib |= {"class": classes, "data-arm": printable(arm)}
    for element in root.iter():
        _own_ids(element, name)
        _tidy(element)
    _drop_unseen(root)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    return ElementTree.tostring(root, encoding="unicode")


def _drop_style(root: ElementTree.Element) -> None:
    """Remove the style sheet that matplotlib adds: it would apply to the whole page."""
    for definitions in root.findall(f"{{{_SVG}}}defs"):
        for style in definitions.findall(f"{{{_SVG}}}style"):
            definitions.remove(style)


def _make_point(group: ElementTree.Element, tip: Tip, *, focusable: bool) -> None:
    """Give the group a title and an invisible, larger target: a disc on a marker, a broad line on a line."""
    text = printable(tip.text)
    group.attrib |= {"class": "point", "role": "img", "aria-label": text}
    if tip.arm is not None:
        group.attrib["data-arm"] = printable(tip.arm)
    if focusable:
        group.attrib["tabindex"] = "0"
    title = ElementTree.Element(f"{{{_SVG}}}title")
    title.text = text
    group.insert(0, title)
    markers = group.findall(f".//{{{_SVG}}}use")
    for path in [] if markers else group.findall(f"./{{{_SVG}}}path"):
        broad = {"d": path.get("d", ""), "fill": "none", "stroke": "transparent", "stroke-width": _HIT_RADIUS}
        ElementTree.SubElement(group, f"{{{_SVG}}}path", broad)
    for use in markers:
        disc = {"cx": use.get("x", "0"), "cy": use.get("y", "0"), "r": _HIT_RADIUS, "fill": "transparent"}
        ElementTree.SubElement(group, f"{{{_SVG}}}circle", disc)


def _own_ids(element: ElementTree.Element, name: str) -> None:
    for key, value in element.attrib.items():
        if key == "id":
            element.attrib[key] = f"{name}-{value}"
        elif key == f"{{{_LINK}}}href":
            element.attrib[key] = f"#{name}-{value[1:]}"
        elif value.startswith("url(#"):
            element.attrib[key] = value.replace("url(#", f"url(#{name}-")


def _tidy(element: ElementTree.Element) -> None:
    """Replace colours by variables, and remove what is invisible: indentation, digits below 0.01 pixels, font lists."""
    if not (element.text or "").strip():
        element.text = None
    element.tail = None
    for key in ("d", "x", "y", "cx", "cy", "transform"):
        if key in element.attrib:
            element.attrib[key] = " ".join(_DECIMAL.sub(_two_decimals, element.attrib[key]).split())
    if _NO_TURN.match(element.get("transform", "")):
        del element.attrib["transform"]
    if "style" in element.attrib:
        # Older matplotlib (3.9) writes the shorthand. In both cases the page's own font is wanted.
        plain = re.sub(r"font: (\S+px)[^;]*", r"font-size: \1", element.attrib["style"])
        plain = re.sub(r" *font-family:[^;]*;?", "", plain)
        element.attrib["style"] = _COLOUR.sub(lambda found: f"var(--{VARIABLES[found[0]]})", plain)


def _two_decimals(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _drop_unseen(element: ElementTree.Element) -> None:
    """Remove empty groups, and backgrounds that are neither filled nor stroked."""
    for child in list(element):
        _drop_unseen(child)
        empty = child.tag in (f"{{{_SVG}}}g", f"{{{_SVG}}}defs") and len(child) == 0
        if empty or (child.tag == f"{{{_SVG}}}path" and child.get("style") == "fill: none"):
            element.remove(child)
