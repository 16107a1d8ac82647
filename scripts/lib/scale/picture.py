"""The picture of the curves: one panel for each, both axes logarithmic, a line for each command."""

import html
import math

from scale import growth
from scale.labels import spread

# Of a panel, in pixels: its size, and the margins around the plot. The labels of the lines are to the right.
WIDTH, HEIGHT = 500, 336
LEFT, RIGHT, TOP, BOTTOM = 60, 168, 52, 44
FOOT = 40
# The colour of a line by the first word of its command; a second line of a colour has hollow points.
HUES = {"convert": 0, "check": 1, "map": 2, "info": 3, "compare": 4, "snapshot": 5, "mount": 6, "ls": 2, "read": 4,
        "bench": 1, "copy": 3}
# Each legible on its ground: for a light page, for a dark one.
LIGHT = ["#2a66b0", "#b45309", "#2f7d4f", "#7b4bb3", "#b8324f", "#0c7a86", "#7a5c3a"]
DARK = ["#7fb2f2", "#f0a868", "#7fcb9d", "#bf9ff2", "#f2919f", "#64c8d0", "#d0ad84"]
GROUNDS = {"light": ("#ffffff", "#24292f", "#59636e", "#e6e9ed", "#8c959f"),
           "dark": ("#0d1117", "#e6edf3", "#9aa4ae", "#242b33", "#6e7781")}


def write(path, results, processors):
    """Two panels in a row, and what the signs mean below them."""
    rows = (len(results) + 1) // 2
    height = rows * HEIGHT + FOOT
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {height}" role="img" '
             'aria-label="How the time of commands grows with the work">', style(),
             f'<rect class="ground" width="{2 * WIDTH}" height="{height}" rx="8"/>']
    for index, result in enumerate(results):
        parts += [f'<g transform="translate({index % 2 * WIDTH} {index // 2 * HEIGHT})">',
                  *Panel(result, processors).parts(), "</g>"]
    parts += [*legend(rows * HEIGHT + 18), "</svg>"]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def style():
    return ("<style>\ntext { font: 12px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; }\n"
            ".title { font-size: 14px; font-weight: 600; }\n"
            ".line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }\n"
            ".leader { fill: none; stroke-width: 0.8; opacity: 0.6; }\n.grid { stroke-width: 1; }\n"
            ".guide { fill: none; stroke-width: 1; stroke-dasharray: 5 4; }\n.point { stroke-width: 1.6; }\n"
            ".steep { font-size: 15px; font-weight: 700; paint-order: stroke; stroke-width: 3px; }\n"
            f"{colours(GROUNDS['light'], LIGHT)}\n@media (prefers-color-scheme: dark) {{\n"
            f"{colours(GROUNDS['dark'], DARK)}\n}}\n</style>")


def colours(ground, hues):
    """The rules of one kind of page."""
    paper, ink, faint, grid, guide = ground
    rules = [f".ground, .hollow {{ fill: {paper}; }}", f".title {{ fill: {ink}; }}", f".tick {{ fill: {faint}; }}",
             f".grid {{ stroke: {grid}; }}", f".guide {{ stroke: {guide}; }}",
             f".steep {{ fill: {hues[4]}; stroke: {paper}; }}"]
    for index, hue in enumerate(hues):
        rules += [f".s{index} {{ stroke: {hue}; }}", f".f{index} {{ fill: {hue}; }}"]
    return "\n".join(rules)


def legend(y):
    """What the dashed lines and the mark mean."""
    return [f'<path class="guide" d="M{LEFT} {y - 4}h34"/>',
            text(LEFT + 42, y, "growth in proportion to the work; for threads, time shared among all processors",
                 "tick"),
            text(2 * WIDTH - 22, y, "steeper than it may be", "tick", "end"),
            text(2 * WIDTH - 170, y + 1, "✘", "steep", "middle")]


def text(x, y, words, kind, anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


class Panel:
    """One curve."""

    def __init__(self, result, processors):
        self.result, self.curve, self.processors = result, result.curve, processors
        self.works = self.curve.works
        times = [time * 1000 for row in result.times.values() for time in row]
        self.low, self.high = min(times) / 1.3, max(times) * 1.3
        self.bottom, self.right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def x(self, work):
        return LEFT + (self.right - LEFT) * math.log(work / self.works[0]) / math.log(self.works[-1] / self.works[0])

    def y(self, milliseconds):
        return self.bottom - (self.bottom - TOP) * math.log(milliseconds / self.low) / math.log(self.high / self.low)

    def parts(self):
        title = self.curve.title + ("" if self.curve.may_grow else f" on {self.processors} processors")
        return [text(LEFT, TOP - 22, title, "title"), *self.axes(), *self.guide(), *self.lines()]

    def axes(self):
        """A thin line at every round time, a label below every amount of work."""
        parts = []
        for tick in ticks(self.low, self.high):
            y = self.y(tick)
            parts += [f'<path class="grid" d="M{LEFT} {y:.1f}H{self.right}"/>',
                      text(LEFT - 8, y + 4, f"{tick:g} ms" if tick < 1000 else f"{tick / 1000:g} s", "tick", "end")]
        for work in self.works:
            x = self.x(work)
            parts += [f'<path class="grid" d="M{x:.1f} {self.bottom}v5"/>',
                      text(x, self.bottom + 20, self.curve.label(work), "tick", "middle")]
        return parts

    def guide(self):
        """Linear growth from the lowest corner; for threads, the first line's time shared among the processors."""
        if self.curve.may_grow:
            end = min(self.works[-1], self.works[0] * self.high / self.low)
            points = [(self.works[0], self.low), (end, self.low * end / self.works[0])]
        else:
            first = next(iter(self.result.times.values()))[0] * 1000
            points = [(work, first / min(work, self.processors)) for work in self.works]
        return [f'<path class="guide" d="{self.path(points)}"/>']

    def path(self, points):
        return "M" + "L".join(f"{self.x(work):.1f} {self.y(time):.1f}" for work, time in points)

    def lines(self):
        """The lines, and at their ends what they are."""
        ends = spread([self.y(row[-1] * 1000) for row in self.result.times.values()], 15, TOP - 8, self.bottom + 4)
        parts, seen = [], set()
        for (title, times), end in zip(self.result.times.items(), ends):
            hue = HUES[title.split()[0].strip(",")]
            parts += self.line(title, [time * 1000 for time in times], hue, hue in seen)
            y = self.y(times[-1] * 1000)
            parts += [f'<path class="leader s{hue}" d="M{self.right + 6} {y:.1f}L{self.right + 16} {end:.1f}"/>',
                      text(self.right + 20, end + 4, title, f"f{hue}")]
            seen.add(hue)
        return parts

    def line(self, title, times, hue, is_second):
        fill = "hollow" if is_second else f"f{hue}"
        points = list(zip(self.works, times))
        parts = [f'<path class="line s{hue}" d="{self.path(points)}"/>']
        for work, time in points:
            place = f'cx="{self.x(work):.1f}" cy="{self.y(time):.1f}"'
            parts.append(f'<circle class="point s{hue} {fill}" {place} r="2.8"/>')
        for index, figure in enumerate(self.result.steps[title], 1):
            if growth.is_worse(figure):
                parts.append(text(self.x(self.works[index]), self.y(times[index]) - 7, "✘", "steep", "middle"))
        return parts


def ticks(low, high):
    """Round numbers between two: 1, 2 and 5 of each power of ten, or the powers alone when those were many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10 ** power for power in powers for digit in digits if low <= digit * 10 ** power <= high]
        if len(found) <= 8:
            break
    return found
