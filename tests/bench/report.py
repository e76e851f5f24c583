# SPDX-License-Identifier: BSD-3-Clause
"""report.py: tables of what was measured, also for the README."""

import statistics

MARKS = "<!-- bench:begin -->", "<!-- bench:end -->"


def median(values):
    return statistics.median(values) if values else None


def number(x):
    if x is None:
        return ""
    if x >= 1000:
        return f"{x:,.0f}"
    return f"{x:.3g}"


def cell(values):
    """median (min..max)"""
    if not values:
        return ""
    if len(values) == 1:
        return number(values[0])
    return (f"{number(median(values))} "
            f"({number(min(values))}..{number(max(values))})")


def times_better(row, other, key="values"):
    """How many times better ours is than the other."""
    ours, theirs = median(row[key].get("ours")), median(row[key].get(other))
    if not ours or not theirs:
        return None
    if key == "cpu" or row["less_is_better"]:
        return theirs / ours
    return ours / theirs


def ratio(x):
    return "" if x is None else f"{x:.2f}" if x < 10 else f"{x:.0f}"


def foreign(row):
    """Told where others took more than a tenth of a core."""
    return "" if row["foreign"] < 0.1 else f"{100 * row['foreign']:.0f} %"


def table(rows):
    lines = ["| | unit | raw file | qemu | ours | ours / qemu | ours / raw "
             "| CPU: ours / qemu | others' CPU |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        v = row["values"]
        lines.append("| " + " | ".join([
            row["name"], row["unit"], cell(v.get("raw")), cell(v.get("qemu")),
            cell(v.get("ours")), ratio(times_better(row, "qemu")),
            ratio(times_better(row, "raw")),
            ratio(times_better(row, "qemu", "cpu")), foreign(row)]) + " |")
    return "\n".join(lines) + "\n"


def cpu_table(rows):
    lines = ["| CPU | us | raw file | qemu | ours |",
             "| --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        scale = 1e6 if row["per_operation"] else 1
        cells = [cell([c * scale for c in row["cpu"].get(who, [])])
                 for who in ("raw", "qemu", "ours")]
        lines.append(f"| {row['name']} | "
                     f"{'us/operation' if scale > 1 else 's'} | "
                     + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def short_table(rows, others):
    """For the README: medians and ratios; of others, measured elsewhere, the
    ratios alone."""
    others = {row["name"]: row for row in others}
    lines = ["| | unit | raw file | QEMU | ours | ours / QEMU | CPU "
             "| tmpfs: ours / QEMU | CPU |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: "
             "| ---: |"]
    for row in rows:
        v, both = row["values"], [row, others.get(row["name"])]
        lines.append("| " + " | ".join(
            [row["name"], row["unit"]]
            + [number(median(v.get(who))) for who in ("raw", "qemu", "ours")]
            + [ratio(times_better(r, "qemu", key) if r else None)
               for r in both for key in ("values", "cpu")]) + " |")
    return "\n".join(lines) + "\n"


def refresh_readme(path, result, other):
    with open(path) as f:
        text = f.read()
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    with open(path, "w") as f:
        f.write(before + MARKS[0] + "\n" + result["machine"] + "\n\n"
                + short_table(result["rows"], other["rows"]) + MARKS[1]
                + after)
