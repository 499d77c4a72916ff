"""How far scores can be taken for probabilities, as pictures: a bar for a terminal, and an SVG that needs nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

from batchinfer.evaluate.stats import Bin

WIDTH = 20  # characters of a bar
SIDE, EDGE = 300, 50  # of the square, and around it
LARGEST, SMALLEST = 9.0, 2.5  # radius of a bin's dot; its area goes with the bin's rows
COLOURS = ("#0b6e99", "#b3541e")
STYLE = (
    "text { font: 12px sans-serif; fill: #222 } .axis { stroke: #888; fill: none } "
    "@media (prefers-color-scheme: dark) { svg { background: #1b1b1b } text { fill: #ddd } }"
)


def bar(each: Bin) -> str:
    """The share of right answers as a bar, with a mark where the mean score is."""
    filled, mark = round(each.right * WIDTH), min(int(each.score * WIDTH), WIDTH - 1)
    return "".join("┃" if place == mark else "█" if place < filled else "·" for place in range(WIDTH))


def reliability_svg(title: str, curves: Mapping[str, Sequence[Bin]]) -> str:
    """A reliability plot: the share of right answers by score, which is the diagonal where scores are probabilities.

    curves: the bins of one or two arms, by their names.
    """
    size = SIDE + 2 * EDGE
    height = size + 18 * len(curves)
    body = "\n".join(
        [*_frame(), *(line for place, curve in enumerate(curves.items()) for line in _curve(place, *curve))]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {height}" width="{size}" height="{height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<text x="{EDGE}" y="24">{escape(title)}</text>\n{body}\n</svg>\n'
    )


def _frame() -> Iterator[str]:
    low, high = EDGE, EDGE + SIDE
    yield f'<path class="axis" d="M {low} {low} V {high} H {high}"/>'
    yield f'<path class="axis" stroke-dasharray="4 4" d="M {low} {high} L {high} {low}"/>'
    for part in (0.0, 0.5, 1.0):
        yield f'<text x="{_x(part):.1f}" y="{high + 16}" text-anchor="middle">{part:g}</text>'
        yield f'<text x="{low - 8}" y="{_y(part) + 4:.1f}" text-anchor="end">{part:g}</text>'
    yield f'<text x="{EDGE + SIDE // 2}" y="{high + 32}" text-anchor="middle">score of the answer</text>'
    yield f'<text x="14" y="{EDGE + SIDE // 2}" text-anchor="middle" transform="rotate(-90 14 {EDGE + SIDE // 2})">share right</text>'


def _curve(place: int, name: str, bins: Sequence[Bin]) -> Iterator[str]:
    colour, most = COLOURS[place % len(COLOURS)], max((each.rows for each in bins), default=1)
    points = " ".join(f"{_x(each.score):.1f},{_y(each.right):.1f}" for each in bins)
    yield f'<polyline points="{points}" fill="none" stroke="{colour}"/>'
    for each in bins:
        radius = max(SMALLEST, LARGEST * (each.rows / most) ** 0.5)
        said = f"{name}: {each.rows} rows, score {each.score:.2f}, {each.right:.0%} right"
        yield (
            f'<circle cx="{_x(each.score):.1f}" cy="{_y(each.right):.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.7">'
            f"<title>{escape(said)}</title></circle>"
        )
    line = 2 * EDGE + SIDE + 18 * place
    yield f'<circle cx="{EDGE + 6}" cy="{line - 4}" r="5" fill="{colour}"/><text x="{EDGE + 18}" y="{line}">{escape(name)}</text>'


def _x(share: float) -> float:
    return EDGE + SIDE * share


def _y(share: float) -> float:
    return EDGE + SIDE * (1 - share)
