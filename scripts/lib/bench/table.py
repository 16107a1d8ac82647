"""The table of results, for the terminal and for Docs/PERFORMANCE.md."""

import re
import statistics

MARKS = ("<!-- bench: begin -->", "<!-- bench: end -->")
HEAD = ["row", "ours", "theirs", "ratio", "to reach", "remarks"]
# Memory that no row may take, in MiB, and how much more than the peer's it may be.
LARGEST_MEMORY, MEMORY_RATIO = 96, 1.5


def median(results, key):
    values = [result[key] for result in results if result.get(key) is not None]
    return statistics.median(values) if values else None


def shown(result, seconds):
    """A median in the unit that suits it."""
    if result.get("operations"):
        return f"{1 / seconds / 1000:.1f} k/s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def cells(title, goal, results):
    """The cells of a row: what, ours, theirs, ratio, goal, remarks. A goal that is missed is marked."""
    ours, theirs = median(results["ours"], "time"), median(results["theirs"], "time")
    remarks = []
    if round(ours / theirs, 2) > max(goal, 1):
        remarks.append("✘ slower than the peer")
    elif round(ours / theirs, 2) > goal:
        remarks.append("✘ misses its goal")
    sizes = [median(results[side], "size") for side in ("ours", "theirs")]
    if sizes[0]:
        remarks.append(f"{'✘ ' if sizes[0] > sizes[1] else ''}size {sizes[0] / sizes[1]:.3f}")
    processor = [median(results[side], "processor") for side in ("ours", "theirs")]
    if processor[0] and processor[1]:
        remarks.append(f"processor time {processor[0] / processor[1]:.2f}")
    memory = [median(results[side], "memory") for side in ("ours", "theirs")]
    if memory[0]:
        is_much = memory[0] > min(MEMORY_RATIO * memory[1], LARGEST_MEMORY)
        remarks.append(f"{'✘ ' if is_much else ''}peak memory {memory[0]:.0f} / {memory[1]:.0f} MiB")
    return [title, shown(results["ours"][0], ours), shown(results["theirs"][0], theirs), f"{ours / theirs:.2f}",
            f"{goal:.2f}", "; ".join(remarks)]


def line(row):
    """A row for the terminal."""
    return "  ".join([row[0].ljust(58), *(cell.rjust(10) for cell in row[1:5]), row[5]])


def markdown(rows, preface):
    lines = [preface, "", "| " + " | ".join(HEAD) + " |", "|---|---:|---:|---:|---:|---|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def replace_rows(path, rows, marks=MARKS):
    """Puts rows of a later run in the places of those with their titles."""
    document = path.read_text(encoding="utf-8")
    begin, end = document.index(marks[0]), document.index(marks[1])
    text = document[begin:end]
    for title, *cells in rows:
        new = " | ".join([title, *cells[:-1], f"{cells[-1]}; a later run"])
        text, count = re.subn(rf"(?m)^\| {re.escape(title)} \|.*$", lambda _: f"| {new} |", text)
        if count != 1:
            raise ValueError(f"{path} has no row '{title}'")
    path.write_text(document[:begin] + text + document[end:], encoding="utf-8")


def write_markdown(path, text, marks=MARKS):
    """Puts the table between the two marks of the document."""
    document = path.read_text(encoding="utf-8")
    begin, end = document.index(marks[0]) + len(marks[0]), document.index(marks[1])
    path.write_text(f"{document[:begin]}\n\n{text}\n{document[end:]}", encoding="utf-8")
