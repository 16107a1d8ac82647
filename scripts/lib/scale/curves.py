"""The five curves: what grows, and which commands are timed over it."""

import random

from bench import content, images, mounts, tools
from bench.images import GIB, MIB
from bench.programs import check_totals, map_entries
from bench.tools import Failed
from scale.curve import Curve, Row, info_facts, snapshot_names


class Size(Curve):
    """Disks with the same data, spread over more and more room; and such with tables for all of it."""

    name, title, axis, unit = "size", "Virtual size of a sparse qcow2", "virtual size", "GiB"
    works = (1, 4, 16, 64, 256, 1024)
    is_kept = False
    # 64 MiB; so many pieces that the largest disk has one in each of its tables.
    PIECES, PIECE = 2048, 32 << 10

    @staticmethod
    def label(work):
        return f"{work} GiB" if work < 1024 else f"{work // 1024} TiB"

    def prepare(self, work):
        if work == self.work:
            return
        self.work = work
        self.sparse, self.copy = self.folder / "sparse.qcow2", self.folder / "copy.qcow2"
        self.raw, self.tables = self.folder / "copy.raw", self.folder / "tables.qcow2"
        for path in (self.sparse, self.copy, self.raw, self.tables):
            path.unlink(missing_ok=True)
        tools.run(["qemu-img", "create", "-f", "qcow2", self.sparse, f"{work}G"])
        step = work * GIB // self.PIECES
        images.write_patterns(self.sparse, [(index * step, self.PIECE) for index in range(self.PIECES)], 0x5a)
        tools.run(["qemu-img", "convert", "-O", "qcow2", self.sparse, self.copy])
        tools.run(["qemu-img", "convert", "-O", "raw", self.sparse, self.raw])
        tools.run(["qemu-img", "create", "-f", "qcow2", "-o", "preallocation=metadata", self.tables, f"{work}G"])

    def rows(self):
        return [
            Row("convert -O qcow2", "qemu-img", lambda: self.convert(self.sparse, self.folder / "output.qcow2")),
            Row("check", "qemu-img", lambda: self.inspect(check_totals, "check", "--output=json", self.sparse)),
            Row("map", "qemu-img", lambda: self.inspect(map_entries, "map", "--output=json", self.sparse)),
            Row("compare with qcow2", "qemu-img", lambda: self.compare(self.copy)),
            Row("compare with raw", "qemu-img", lambda: self.compare(self.raw)),
            Row("check, all tables", "qemu-img",
                lambda: self.inspect(check_totals, "check", "--output=json", self.tables)),
            Row("map, all tables", "qemu-img", lambda: self.inspect(map_entries, "map", "--output=json", self.tables)),
            Row("info, all tables", "qemu-img", lambda: self.inspect(info_facts, "info", "--output=json", self.tables)),
        ]

    def compare(self, other):
        return self.verb("compare", "-f", "qcow2", "-F", other.suffix[1:], self.sparse, other)[0]


class Data(Curve):
    """Full disks without a hole: whoever looks for the end of a run again and again pays for it here."""

    name, title, axis, unit = "data", "Data of a disk without holes", "data", "MiB"
    works = (16, 64, 256, 1024)

    @staticmethod
    def label(work):
        return f"{work} MiB" if work < 1024 else f"{work // 1024} GiB"

    def prepare(self, work):
        self.work, self.output = work, self.folder / "output.raw"
        self.raw, self.image = self.folder / f"full{work}.raw", self.folder / f"full{work}.qcow2"
        if self.raw.exists():
            return
        chance = random.Random(work)
        with open(self.raw, "wb") as disk:
            for _ in range(work):
                disk.write(chance.randbytes(MIB))
        tools.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raw, self.image])

    def rows(self):
        return [
            Row("convert raw to qcow2", "qemu-img",
                lambda: self.convert(self.raw, self.folder / "output.qcow2", "-f", "raw")),
            Row("convert qcow2 to raw", "qemu-img", lambda: self.convert(self.image, self.output)),
            Row("compare", "qemu-img",
                lambda: self.verb("compare", "-f", "raw", "-F", "qcow2", self.raw, self.image)[0]),
            Row("map", "qemu-img", lambda: self.inspect(map_entries, "map", "--output=json", "-f", "raw", self.raw)),
            Row("copy the mounted disk", "cp", self.copy),
        ]

    def copy(self):
        """With holes looked for: that is cp's way."""
        with self.mounted(self.raw) as (disk, _):
            seconds, _ = self.timed("cp", "--reflink=never", disk, self.output)
        tools.same_bytes(self.raw, self.output)
        self.output.unlink()
        return seconds


class Snapshots(Curve):
    """One image that gets more and more internal snapshots, with new bytes before each."""

    name, title, axis, unit = "snapshots", "Internal snapshots of a qcow2", "snapshots", "snapshot"
    works = (1, 10, 100, 1000)
    SIZE, PIECE = 64 * MIB, 1 << 16

    def prepare(self, work):
        self.work, self.image = work, self.folder / f"snapshots{work:04}.qcow2"
        if not self.image.exists():
            self.grow(self.folder / "growing.qcow2")
            images.Images.copy(self.folder / "growing.qcow2", self.image)
            self.starts[work] = bytes(self.disk[:MIB])

    def grow(self, path):
        """Snapshots and bytes go through a mount: that takes no process for each."""
        if not path.exists():
            self.count, self.disk, self.starts = 0, bytearray(self.SIZE), {}
            tools.run(["qemu-img", "create", "-f", "qcow2", path, self.SIZE])
        with mounts.mounted(self.side, path, self.folder, is_writable=True) as (disk, _):
            with open(disk, "r+b", buffering=0) as file:
                while self.count < self.work:
                    self.add(disk.parent / "snapshots", file)

    def add(self, folder, file):
        """New bytes in one place, then a snapshot. 37 is odd, so that every place has its turn."""
        place = self.count * 37 * self.PIECE % self.SIZE
        self.count += 1
        self.disk[place:place + self.PIECE] = bytes([self.count % 255 + 1]) * self.PIECE
        file.seek(place)
        file.write(self.disk[place:place + self.PIECE])
        (folder / f"s{self.count:04}").mkdir()

    def rows(self):
        return [
            Row("snapshot -l", "qemu-img", lambda: self.inspect(snapshot_names, "snapshot", "-l", self.image)),
            Row("snapshot -c", "qemu-img", self.take),
            Row("info", "qemu-img", lambda: self.inspect(info_facts, "info", "--output=json", self.image)),
            Row("check", "qemu-img", lambda: self.inspect(check_totals, "check", "--output=json", self.image)),
            Row("mount by imgfs", "imgfs", self.mount),
            Row("ls -l snapshots/", "ls", self.list),
            Row("read 1 MiB of the last", "dd", self.read),
        ]

    def take(self):
        """One more, which QEMU's program takes away again."""
        seconds, _ = self.verb("snapshot", "-c", "taken", self.image)
        tools.run(["qemu-img", "snapshot", "-d", "taken", self.image])
        return seconds

    def mount(self):
        with self.mounted_behind(self.image) as seconds:
            return seconds

    def list(self):
        with self.mounted(self.image) as (disk, _):
            seconds, output = self.timed("ls", "-l", disk.parent / "snapshots")
        if len(snapshot_names(output)) != self.work:
            raise Failed(f"ls does not show {self.work} snapshots")
        return seconds

    def read(self):
        output = self.folder / "part.raw"
        with self.mounted(self.image) as (disk, _):
            last = disk.parent / "snapshots" / f"s{self.work:04}" / "disk.raw"
            seconds, _ = self.timed("dd", f"if={last}", f"of={output}", "bs=1M", "count=1")
        if output.read_bytes() != self.starts[self.work]:
            raise Failed(f"{last} has other bytes than were written")
        return seconds


class Layers(Curve):
    """A chain of backing files: the lowest has bytes everywhere, each other one new bytes in a 64th of the disk."""

    name, title, axis, unit = "layers", "Layers of a chain of backing files", "layers", "layer"
    works = (1, 2, 4, 8, 16, 32, 64)
    SIZE, PIECE = 64 * MIB, 1 << 16

    def prepare(self, work):
        self.work, self.top = work, self.layer(work)
        self.content = self.folder / f"content{work}.raw"
        if not self.content.exists():
            for number in range(1, work + 1):
                self.make(number)
            tools.run(["qemu-img", "convert", "-O", "raw", self.top, self.content])

    def layer(self, number):
        """Names of one length, so that none is found faster than another."""
        return self.folder / f"layer{number:02}.qcow2"

    def make(self, number):
        path, pieces, chance = self.layer(number), self.SIZE // self.PIECE, random.Random(number)
        if path.exists():
            return
        ranges, below = [(0, self.SIZE)], []
        if number > 1:
            ranges = [(piece * self.PIECE, self.PIECE) for piece in chance.sample(range(pieces), pieces // 64)]
            below = ["-b", self.layer(number - 1), "-F", "qcow2"]
        tools.run(["qemu-img", "create", "-f", "qcow2", *below, path, self.SIZE])
        images.write_patterns(path, ranges, number)

    def rows(self):
        return [
            Row("convert -O raw", "qemu-img", lambda: self.convert(self.top, self.folder / "output.raw")),
            Row("info --backing-chain", "qemu-img",
                lambda: self.inspect(info_facts, "info", "--backing-chain", "--output=json", self.top)),
            Row("map", "qemu-img", lambda: self.inspect(map_entries, "map", "--output=json", self.top)),
            Row("mount by imgfs", "imgfs", self.mount),
            Row("read the mounted disk", "dd", self.read),
        ]

    def mount(self):
        with self.mounted_behind(self.top) as seconds:
            return seconds

    def read(self):
        with self.mounted(self.top) as (disk, _):
            seconds, _ = self.timed("dd", f"if={disk}", "of=/dev/null", "bs=1M")
            tools.same_bytes(self.content, disk)
        return seconds


class Threads(Curve):
    """The same work by more and more threads."""

    name, title, axis, unit = "threads", "Threads", "threads", ""
    works = (1, 2, 4, 8)
    may_grow = False
    SIZE, REQUESTS = 128 * MIB, 75000

    def prepare(self, work):
        self.work, raw, self.image = work, self.folder / "threads.raw", self.folder / "threads.qcow2"
        if not self.image.exists():
            content.write_image(raw, self.SIZE)
            tools.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, self.image])

    def rows(self):
        output = self.folder / "output.qcow2"
        return [
            Row("convert -c, deflate", "qemu-img", lambda: self.convert(self.image, output, "-m", self.work, "-c")),
            Row("convert", "qemu-img", lambda: self.convert(self.image, output, "-m", self.work)),
            Row("bench, reads", "qemu-img",
                lambda: self.verb("bench", "-d", self.work, "-c", self.REQUESTS, self.image)[0]),
        ]


CURVES = (Size, Data, Snapshots, Layers, Threads)
