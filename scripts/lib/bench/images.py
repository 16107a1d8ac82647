"""The images that the rows work on: made by the peer out of one disk, each when it is first asked for."""

import random

from bench import content
from bench.tools import run

MIB = 1 << 20
GIB = 1 << 30


class Images:
    """A folder of images by name. Those that few rows use are removed after each."""

    LASTING = {"raw", "plain", "zlib", "zstd", "tebibyte"}

    def __init__(self, folder, size):
        self.folder, self.size = folder, size
        self.paths = {}
        self.makers = {
            "raw": self.make_raw, "zlib": self.make_packed, "zstd": self.make_packed, "stream": self.make_stream,
            "layers": self.make_layers, "filled": self.make_filled, "tebibyte": self.make_tebibyte,
            "tebibytes": self.make_tebibytes,
            "snapshots": self.make_snapshots, "empty": self.make_empty, "base": self.make_base,
            "middle": self.make_middle, "guest": self.make_guest}

    def __getitem__(self, name):
        """The path of an image: `plain` is the disk as qcow2, and so is `plain.vmdk` as VMDK."""
        if name not in self.paths:
            self.paths[name] = self.makers.get(name, self.make_plain)(name)
        return self.paths[name]

    def format(self, name):
        """What the image is, as -f takes it."""
        suffix = self[name].suffix[1:]
        return "raw" if suffix == "tar" else suffix

    def content(self, name):
        """A raw file of the bytes that an image has to show."""
        if name != "layers":
            return self["raw"]
        path = self.folder / "part-content.raw"
        if not path.exists():
            run(["qemu-img", "convert", "-O", "raw", self[name], path])
        return path

    def forget(self):
        """Removes what only the last row needed."""
        for name in set(self.paths) - self.LASTING:
            self.paths.pop(name).unlink(missing_ok=True)
        for path in self.folder.glob("part-*"):
            path.unlink()

    def scratch(self, name):
        """A copy that a run may change."""
        path = self.folder / f"scratch{self[name].suffix}"
        path.unlink(missing_ok=True)
        return self.copy(self[name], path)

    @staticmethod
    def copy(source, target):
        run(["cp", "--sparse=always", source, target])
        return target

    # What the names mean.

    def make_raw(self, name):
        path = self.folder / f"{name}.raw"
        content.write_image(path, self.size)
        return path

    def make_plain(self, name):
        path = self.folder / (name if "." in name else f"{name}.qcow2")
        run(["qemu-img", "convert", "-f", "raw", "-O", path.suffix[1:], self["raw"], path])
        return path

    def make_packed(self, name):
        """All clusters compressed, by zlib (deflate) or zstd."""
        path = self.folder / f"{name}.qcow2"
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", f"compression_type={name}", self["raw"], path])
        return path

    def make_stream(self, name):
        path = self.folder / f"{name}.vmdk"
        run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", self["raw"], path])
        return path

    def make_layers(self, name, count=9):
        """A chain of that many layers: each has new bytes in a sixteenth of the disk, in pieces of 64 KiB."""
        chance = random.Random(11)
        below = self["plain"]
        for depth in range(1, count):
            path = self.folder / (f"part-{depth}.qcow2" if depth < count - 1 else f"{name}.qcow2")
            run(["qemu-img", "create", "-f", "qcow2", "-b", below, "-F", "qcow2", path])
            pieces = chance.sample(range(self.size >> 16), max(self.size >> 20, 1))
            write_patterns(path, [(piece << 16, 1 << 16) for piece in pieces], depth)
            below = path
        return below

    def make_filled(self, name):
        """Every cluster allocated, with other bytes than those of the disk."""
        path = self.folder / f"{name}.qcow2"
        run(["qemu-img", "create", "-f", "qcow2", path, self.size])
        write_patterns(path, [(start, min(64 * MIB, self.size - start)) for start in range(0, self.size, 64 * MIB)], 0xa5)
        return path

    def make_tebibyte(self, name, size="1T"):
        path = self.folder / f"{name}.qcow2"
        run(["qemu-img", "create", "-f", "qcow2", "-o", "preallocation=metadata", path, size])
        return path

    def make_tebibytes(self, name):
        return self.make_tebibyte(name, "4T")

    def make_empty(self, name):
        path = self.folder / f"{name}.qcow2"
        run(["qemu-img", "create", "-f", "qcow2", path, "1T"])
        return path

    def make_snapshots(self, name, count=20):
        """100 GiB with metadata for all of it, and between the snapshots writes to a hundred places."""
        path = self.folder / f"{name}.qcow2"
        chance = random.Random(5)
        run(["qemu-img", "create", "-f", "qcow2", "-o", "preallocation=metadata", path, "100G"])
        for number in range(count):
            run(["qemu-img", "snapshot", "-c", f"s{number}", path])
            write_patterns(path, [(chance.randrange(100 * GIB) & ~4095, 4096) for _ in range(100)], number + 1)
        return path

    # The chain of commit and rebase: a disk four times as large.

    def make_base(self, name):
        """A quarter of it has bytes."""
        path = self.folder / f"{name}.qcow2"
        run(["qemu-img", "create", "-f", "qcow2", path, 4 * self.size])
        write_patterns(path, [(start, MIB) for start in range(0, 4 * self.size, 4 * MIB)], 0x11)
        return path

    def make_middle(self, name):
        """Over `base`: other bytes than there in three quarters of the disk."""
        path = self.folder / f"{name}.qcow2"
        run(["qemu-img", "create", "-f", "qcow2", "-b", self["base"], "-F", "qcow2", path])
        write_patterns(path, [(start, 3 * MIB) for start in range(0, 4 * self.size, 4 * MIB)], 0x22)
        return path

    def make_guest(self, name):
        """An empty ext4, of 1 GiB at least."""
        path, raw = self.folder / f"{name}.qcow2", self.folder / "part-guest.raw"
        raw.touch()
        run(["truncate", "--size", max(self.size, GIB), raw])
        run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", raw])
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])
        raw.unlink()
        return path


def write_patterns(image, ranges, byte):
    """Fills ranges (offset, length) of an image with one byte, by the peer."""
    commands = [f"write -q -P {byte} {offset} {length}" for offset, length in ranges]
    for first in range(0, len(commands), 1000):
        words = [word for command in commands[first:first + 1000] for word in ("-c", command)]
        run(["qemu-io", "-f", "qcow2", "-t", "unsafe", *words, image])
