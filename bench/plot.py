"""A plot of results as SVG: one row a subject, a bar to the median and a whisker to the 95th percentile, by case."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from bench.measure import Result

ROW, LEFT, WIDTH = 22, 330, 560


def draw(results: Sequence[Result]) -> str:
    """An SVG document; each case has its own scale, named at its right end."""
    parts: list[str] = []
    y = 10
    for case, members in groupby(results, key=lambda result: result.case):
        rows = list(members)
        longest = max(row.p95_ms for row in rows)
        parts.append(f'<text x="10" y="{y + 15}" font-weight="bold">{escape(case)}</text>')
        y += ROW
        for number, row in enumerate(rows):
            bar, whisker = row.median_ms / longest * WIDTH, row.p95_ms / longest * WIDTH
            colour = "#2a6f97" if number == 0 else "#a9bcd0"
            middle = y + ROW // 2
            parts += [
                f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(row.subject)}</text>',
                f'<rect x="{LEFT}" y="{y + 4}" width="{bar:.1f}" height="{ROW - 8}" fill="{colour}"/>',
                f'<line x1="{LEFT + bar:.1f}" y1="{middle}" x2="{LEFT + whisker:.1f}" y2="{middle}" stroke="#444"/>',
                f'<text x="{LEFT + whisker + 6:.1f}" y="{y + 15}">{row.median_ms:.1f} ms</text>',
            ]
            y += ROW
        y += ROW // 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 110}" height="{y}" '
    return head + 'font-family="sans-serif" font-size="13">\n' + "\n".join(parts) + "\n</svg>\n"
