"""What all curves have in common: a row of commands, timed at one amount of work after the other."""

import collections
import contextlib
import json
import re
import statistics

from bench import mounts, programs, tools
from bench.tools import Failed
from scale import quiet

# A line of a curve: its name, the program whose start-up is in its time, and what measures one run in seconds.
Row = collections.namedtuple("Row", "title program measure")

# Bytes of memory that all commands of a round may take, those that they write included.
FETCHED_SIZE = 2 << 30


class Curve:
    """Commands over amounts of work. A subclass has the texts and amounts, and makes what each amount needs."""

    name = title = axis = ""
    works = ()
    # What one piece of work is called in the table.
    unit = ""
    # Whether more work may take more time at all: more threads may not.
    may_grow = True
    # Whether the images of all amounts of work stay until the end.
    is_kept = True

    def __init__(self, folder, programs_folder):
        self.folder, self.programs = folder, programs_folder
        self.side = {"mount": (mounts.ImgfsMount, self.programs / "imgfs")}
        self.point = folder / "mnt-imgfs"
        self.work, self.said = None, {}

    def prepare(self, work):
        """Makes the images of that amount of work, or takes those that were made before."""
        raise NotImplementedError

    def rows(self):
        """The commands, over the images that were prepared last."""
        raise NotImplementedError

    @staticmethod
    def label(work):
        """How an amount of work is written."""
        return str(work)

    def measure(self, runs, patience):
        """The medians of all rows by title, for each amount of work; one round goes before that does not count.

        Where the images of all amounts have room side by side, the amounts take turns: what else the machine does
        then spoils all of them alike. `patience` is how many seconds each round may wait for a quiet machine.
        """
        times = {row.title: {work: [] for work in self.works} for row in self.rows()}
        rounds = [(turn, work) for work in self.works for turn in range(runs + 1)]
        for turn, work in sorted(rounds, key=lambda pair: pair[0]) if self.is_kept else rounds:
            self.prepare(work)
            quiet.wait(patience)
            tools.fetch_memory(FETCHED_SIZE)
            for row in self.rows():
                seconds = row.measure()
                if turn:
                    times[row.title][work].append(seconds)
        return {title: [statistics.median(values) for values in row.values()] for title, row in times.items()}

    def start_up(self, runs):
        """How long the programs take to do nothing, by name."""
        ours = {row.program: self.programs / row.program for row in self.rows()}
        found = {name: path if path.exists() else name for name, path in ours.items()}
        return {name: statistics.median(self.timed(path, "--version")[0] for _ in range(runs))
                for name, path in found.items()}

    def timed(self, *command):
        """Runs a command: (seconds, output)."""
        seconds, _, _, output = tools.timed(command, self.folder)
        return seconds, output

    def verb(self, *words):
        """Runs our qemu-img: (seconds, output)."""
        return self.timed(self.programs / "qemu-img", *words)

    # Rows that several curves have.

    def inspect(self, same, *words):
        """A verb that only reads; `same` turns what it prints into what QEMU's program must say, too."""
        seconds, output = self.verb(*words)
        key = (self.work, words)
        if key not in self.said:
            self.said[key] = same(tools.run(["qemu-img", *words]))
        if same(output) != self.said[key]:
            raise Failed(f"the two programs differ: {' '.join(map(str, words))}")
        return seconds

    def convert(self, source, output, *options):
        """A conversion; what was written is compared with the source."""
        output.unlink(missing_ok=True)
        kind = output.suffix[1:]
        seconds, _ = self.verb("convert", "-O", kind, *options, source, output)
        tools.run(["qemu-img", "compare", "-F", kind, source, output])
        if kind != "raw":
            tools.run(["qemu-img", "check", "-q", "-f", kind, output])
        output.unlink()
        return seconds

    def mounted(self, image):
        """The image's tree for as long as the body runs, served by a process in front."""
        return mounts.mounted(self.side, image, self.folder)

    @contextlib.contextmanager
    def mounted_behind(self, image):
        """The same by the command as people type it, which returns when the tree is there. Gives its time."""
        self.point.mkdir(exist_ok=True)
        try:
            yield self.timed(self.programs / "imgfs", image, self.point)[0]
        finally:
            if mounts.is_mounted(self.point):
                tools.run([self.programs / "imgfs", "--unmount", self.point])


def info_facts(output):
    """Of each layer, where there are several; and the names of the snapshots."""
    reports = json.loads(output)
    return [(programs.info_facts(json.dumps(report)), [entry["name"] for entry in report.get("snapshots", [])])
            for report in (reports if isinstance(reports, list) else [reports])]


def snapshot_names(output):
    return re.findall(rb"\bs\d{4}\b", output)
