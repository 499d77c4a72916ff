"""The reliability plot, in a terminal and as SVG."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from batchinfer.evaluate.plot import bar, reliability_svg
from batchinfer.evaluate.stats import Bin

BINS = [Bin(0.55, 0.25, 4), Bin(0.95, 1.0, 16)]
SVG = "{http://www.w3.org/2000/svg}"


def test_a_bar_shows_share_and_score() -> None:
    """As long as the share that is right, with a mark at the score, also at the ends."""
    assert bar(BINS[0]) == "█████······┃········"
    assert bar(Bin(1.0, 1.0, 1)) == "█" * 19 + "┃"
    assert bar(Bin(0.0, 0.0, 1)) == "┃" + "·" * 19


def test_the_svg_has_a_dot_for_each_bin() -> None:
    """Well-formed, whatever names hold; dots lie where score and share say, larger for more rows; nothing is loaded or run."""
    text = reliability_svg("a <job> & more", {"0-shot": BINS, "+<x>.txt": BINS[:1]})
    tree = ET.fromstring(text)  # noqa: S314 - our own
    dots = [dot for dot in tree.iter(f"{SVG}circle") if dot.find(f"{SVG}title") is not None]
    assert len(dots) == 3
    assert (float(dots[0].attrib["cx"]), float(dots[0].attrib["cy"])) == (50 + 0.55 * 300, 50 + 0.75 * 300)
    assert float(dots[0].attrib["r"]) < float(dots[1].attrib["r"])
    assert {element.text for element in tree.iter(f"{SVG}text")} >= {"a <job> & more", "0-shot", "+<x>.txt"}
    assert not [word for word in ("script", "href", "url(", "@import") if word in text]
