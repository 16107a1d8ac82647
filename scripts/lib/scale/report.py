"""The tables of results, for the terminal and for Docs/PERFORMANCE.md."""

from bench import table
from scale import growth

MARKS = ("<!-- scale: begin -->", "<!-- scale: end -->")


class Result:
    """The measured times of a curve by row, and what its steps are like."""

    def __init__(self, curve, times, start_up):
        self.curve, self.times, self.start_up = curve, times, start_up
        self.steps = {row.title: growth.steps(curve.works, times[row.title], start_up[row.program], curve.may_grow)
                      for row in curve.rows()}

    def head(self):
        more = [f"each more {self.curve.unit}"] if self.curve.may_grow else []
        return [self.curve.axis, *(self.curve.label(work) for work in self.curve.works), *more, "steepest step"]

    def cells(self):
        """A row per command; the time at the end of a step that is too steep is marked."""
        return [self.row(title, times) for title, times in self.times.items()]

    def row(self, title, times):
        steps, works = self.steps[title], self.curve.works
        marks = [False, *(growth.is_worse(figure) for figure in steps)]
        cells = [("✘ " if mark else "") + table.shown({}, time) for mark, time in zip(marks, times)]
        if self.curve.may_grow:
            cells.append(f"{max(times[-1] - times[0], 0) / (works[-1] - works[0]) * 1e6:.0f} µs")
        return [title, *cells, f"{max(steps):.2f}"]

    def worse(self):
        """Sentences about the steps that are too steep."""
        works = [self.curve.label(work) for work in self.curve.works]
        return [f"✘ {self.curve.name}: {title}: {works[index]} → {works[index + 1]}: {figure:.2f}"
                for title, figures in self.steps.items() for index, figure in enumerate(figures)
                if growth.is_worse(figure)]


def line(row):
    """A row for the terminal."""
    return "  ".join([row[0].ljust(24), *(cell.rjust(9) for cell in row[1:-2]), *(cell.rjust(13) for cell in row[-2:])])


def verdict(results):
    """What the steps come to, and how much of each time is start-up."""
    starts = {name: seconds for result in results for name, seconds in result.start_up.items()}
    named = ", ".join(f"{name} {table.shown({}, seconds)}" for name, seconds in starts.items())
    worse = [text for result in results for text in result.worse()]
    return [*(worse or ["No step is steeper than it may be."]), f"Start-up alone takes: {named}."]


def markdown(results, preface):
    lines = [preface]
    for result in results:
        head = result.head()
        lines += ["", "| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in result.cells()]
    return "\n".join([*lines, *(part for text in verdict(results) for part in ("", text))]) + "\n"
