#!/usr/bin/env python3
"""Draws what `lockstep bench` measured: time against size, and bus bandwidth against size, as two SVG files.

    lockstep bench all_reduce --devices=cuda --graph --peer=nccl --format=json >ours.json
    lockstep bench limits --devices=cuda --format=json >limits.json
    tools/plots/plot_bench.py ours.json [limits.json] [pytorch.json] -o DIRECTORY

Files are told apart by what they hold, and any number can be given. Needs nothing but Python.
"""
import argparse
import html
import json
import math
import pathlib
import typing

WIDTH, HEIGHT = 760, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 50, 60
COLORS = ["#0b6e4f", "#c8553d", "#3d5a98", "#8f6bb3", "#b08900", "#555555"]
LIMITS = ["kernel writes", "copy engines"]


class Series(typing.NamedTuple):
    name: str
    points: list
    dashed: bool = False


def size_text(size):
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):g}{unit}"
    return f"{size:g}"


def bus_factor(document):
    """What crosses a link over what a rank asked for, as the benchmark has it itself."""
    for row in document["rows"]:
        if row["algbw_gb_s"] > 0:
            return row["busbw_gb_s"] / row["algbw_gb_s"]
    return 1


def collective_series(document):
    """The times of one file of a collective."""
    rows = [row for row in document["rows"] if row["size_bytes"] > 0]
    names = {"p50_us": f"lockstep, {document.get('mode', 'host')}"}
    if "peer" in document:
        names["peer_p50_us"] = f"{document['peer']}, {document['mode']}"
    return [Series(name, [(row["size_bytes"], row[key]) for row in rows]) for key, name in names.items()]


def pytorch_series(document):
    return [Series(f"PyTorch {name.replace('_', '-')}", [(row["size_bytes"], row[name + "_us"]) for row in document["rows"]])
            for name in ("one_shot", "two_shot")]


def bandwidth_of(series, factor):
    return Series(series.name, [(size, size / time / 1e3 * factor) for size, time in series.points])


def best_limits(documents):
    """GB/s of each limit, at the size and pair where it is highest."""
    best = {}
    for document in documents:
        for row in document["rows"]:
            if row["name"] in LIMITS:
                best[row["name"]] = max(best.get(row["name"], 0), row["gb_s"])
    return best


def log_axis(low, high, begin, end):
    """Where a value stands."""
    scale = (end - begin) / max(math.log(high / low), 1e-9)
    return lambda value: begin + math.log(value / low) * scale


def decades(low, high):
    """1, 2, 5, 10, ... from below `low` to above `high`."""
    ticks = [digit * 10.0**power for power in range(-3, 8) for digit in (1, 2, 5)]
    first = max(i for i, tick in enumerate(ticks) if tick <= low)
    last = min(i for i, tick in enumerate(ticks) if tick >= high)
    return ticks[first:last + 1]


def text(x, y, words, anchor="middle", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{html.escape(words)}</text>'


def axes(x, y, x_ticks, y_ticks, y_title):
    parts = []
    for tick in x_ticks:
        at = x(tick)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
        parts.append(text(at, HEIGHT - BOTTOM + 18, size_text(tick)))
    for tick in y_ticks:
        at = y(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
        parts.append(text(LEFT - 8, at + 4, f"{tick:g}", "end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(text(18, middle, y_title, extra=f'transform="rotate(-90 18 {middle})"'))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, "bytes"))
    return parts


def lines(x, y, all_series):
    parts = []
    label_y = TOP + 10
    for series, color in zip(all_series, COLORS * len(all_series)):
        points = [(x(size), y(value)) for size, value in series.points]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        dash = ' stroke-dasharray="6 4"' if series.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        if not series.dashed:
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{color}"/>' for px, py in points]
        left = WIDTH - RIGHT + 12
        parts.append(f'<line x1="{left}" x2="{left + 22}" y1="{label_y - 4}" y2="{label_y - 4}" '
                     f'stroke="{color}" stroke-width="2"{dash}/>')
        parts.append(text(left + 28, label_y, series.name, "start"))
        label_y += 20
    return parts


def draw(title, subtitle, y_title, all_series):
    sizes = sorted({size for series in all_series for size, _ in series.points})
    values = [value for series in all_series for _, value in series.points if value > 0]
    y_ticks = decades(min(values), max(values))
    x = log_axis(sizes[0], sizes[-1], LEFT, WIDTH - RIGHT)
    y = log_axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    step = max(1, math.ceil(len(sizes) / 10))
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
             f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
             "<style>.grid { stroke: #dddddd; }</style>",
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
             text(LEFT, 22, title, "start", 'font-size="16" font-weight="bold"'),
             text(LEFT, 40, subtitle, "start", 'fill="#555555"')]
    parts += axes(x, y, sizes[::step], y_ticks, y_title)
    parts += lines(x, y, all_series)
    return "\n".join(parts + ["</svg>", ""])


def sort_documents(paths):
    """(collectives, limits, PyTorch's)."""
    collectives, limits, pytorch = [], [], []
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        kind = document.get("benchmark", "")
        if kind == "limits":
            limits.append(document)
        elif kind == "pytorch all_reduce":
            pytorch.append(document)
        elif document.get("rows") and "algbw_gb_s" in document["rows"][0]:
            collectives.append(document)
        else:
            raise SystemExit(f"{path}: neither a collective nor limits, but \"{kind}\"")
    if not collectives:
        raise SystemExit("give the JSON of at least one collective")
    return collectives, limits, pytorch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="JSON of lockstep bench")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("."))
    arguments = parser.parse_args()
    collectives, limits, pytorch = sort_documents(arguments.files)
    # PyTorch has two ranks: what crosses a link is what a rank asked for.
    measured = [(series, bus_factor(document)) for document in collectives for series in collective_series(document)]
    measured += [(series, 1) for document in pytorch for series in pytorch_series(document)]
    times = [series for series, _ in measured]
    bandwidths = [bandwidth_of(series, factor) for series, factor in measured]
    sizes = [size for series in times for size, _ in series.points]
    factor = bus_factor(collectives[0])
    for name, rate in best_limits(limits).items():
        ends = [min(sizes), max(sizes)]
        bandwidths.append(Series(name, [(size, rate) for size in ends], dashed=True))
        times.append(Series(name, [(size, size * factor / rate / 1e3) for size in ends], dashed=True))
    first = collectives[0]
    name = first["benchmark"]
    machine = first.get("gpus", first["machine"])
    subtitle = f"{first['ranks']} ranks, {first['type']}, {machine}"
    arguments.output.mkdir(parents=True, exist_ok=True)
    for kind, y_title, all_series in (("time", "microseconds", times),
                                      ("bandwidth", "bus bandwidth, GB/s", bandwidths)):
        path = arguments.output / f"{name}_{kind}.svg"
        path.write_text(draw(f"{name}: {kind}", subtitle, y_title, all_series), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
