# SPDX-License-Identifier: BSD-3-Clause
"""plot.py: a bar for each row, ours against QEMU, and a dot for what was
measured on tmpfs, as SVG."""

import math
from html import escape

from report import ratio, times_better

LEFT, WIDTH, LINE = 290, 420, 17
COLOURS = "#2a7f62", "#b5523b"


def plot(rows, others):
    dots = {r["name"]: times_better(r, "qemu") for r in others}
    bars = [(r["name"], times_better(r, "qemu")) for r in rows]
    bars = [(name, x, dots.get(name) or x) for name, x in bars if x]
    least = min([0.5] + [x for b in bars for x in b[1:]])
    most = max([2] + [x for b in bars for x in b[1:]])

    def place(x):
        return LEFT + WIDTH * ((math.log(x) - math.log(least))
                               / (math.log(most) - math.log(least)))

    height = LINE * len(bars) + 50
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" '
           f'width="{LEFT + WIDTH + 60}" height="{height}" '
           f'font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>']
    for x in (0.5, 1, 2, 5, 10, 20, 50, 100):
        if least <= x <= most:
            out.append(f'<line x1="{place(x):.0f}" x2="{place(x):.0f}" '
                       f'y1="8" y2="{height - 36}" stroke="#ccc" '
                       f'stroke-width="{2 if x == 1 else 1}"/>'
                       f'<text x="{place(x):.0f}" y="{height - 22}" '
                       f'text-anchor="middle" fill="#555">{x}</text>')
    for i, (name, x, dot) in enumerate(bars):
        y = 10 + i * LINE
        a, b = sorted((place(1), place(x)))
        out.append(
            f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">'
            f'{escape(name)}</text>'
            f'<rect x="{a:.0f}" y="{y + 2}" width="{max(b - a, 1):.0f}" '
            f'height="{LINE - 5}" fill="{COLOURS[x < 1]}"/>'
            f'<circle cx="{place(dot):.0f}" cy="{y + 8}" r="3" '
            f'fill="#333"/>'
            f'<text x="{max(b, place(dot)) + 6:.0f}" y="{y + 11}">'
            f'{ratio(x)}</text>')
    out.append(f'<text x="{LEFT}" y="{height - 6}" fill="#555">times better '
               'than qemu-nbd or qemu-img (1: the same); dots: on tmpfs'
               '</text></svg>')
    return "\n".join(out) + "\n"
