"""What qemu-img does, timed and looked at afterwards: conversions, and verbs that only read."""

import contextlib
import json
import shutil

from bench import mounts, tools

# Each function here makes one that measures one run of one side: measure(bench, side) -> figures by name. `time` is in
# seconds, `processor` too, `memory` and `size` in MiB and bytes. It raises Failed where the result is not what it must be.


def convert(source, target, *options, size=False):
    """A conversion; the judge compares what was written with the source. `size`: how large it became is told."""
    def measure(bench, side):
        output = bench.folder / f"output.{target}"
        output.unlink(missing_ok=True)
        figures = converted(bench, side, bench.images[source], bench.images.format(source), output, *options)
        if size:
            figures["size"] = output.stat().st_blocks * 512
        output.unlink()
        return figures
    return measure


def converted(bench, side, source, kind, output, *options):
    target = output.suffix[1:]
    command = [side["qemu-img"], "convert", "-f", kind, "-O", target, *options, source, output]
    figures = tools.figures(command, bench.folder)
    if target == "raw":
        tools.same_bytes(bench.images["raw"], output)
    else:
        tools.run(["qemu-img", "compare", "-f", "raw", "-F", target, bench.images["raw"], output])
        tools.run(["qemu-img", "check", "-f", target, output])
    return figures


def convert_empty():
    """A disk of 1 TiB without any bytes."""
    def measure(bench, side):
        output = bench.folder / "output.qcow2"
        output.unlink(missing_ok=True)
        figures = tools.figures([side["qemu-img"], "convert", "-O", "qcow2", bench.images["empty"], output], bench.folder)
        tools.run(["qemu-img", "compare", bench.images["empty"], output])
        tools.run(["qemu-img", "check", output])
        return figures
    return measure


def convert_shared(kind, source, target):
    """A conversion inside of a file system of that kind, whose files can share room."""
    def measure(bench, side):
        with shared_folder(bench, kind) as folder:
            image = folder / f"source.{bench.images.format(source)}"
            if not image.exists():
                bench.images.copy(bench.images[source], image)
            output = folder / f"output.{target}"
            output.unlink(missing_ok=True)
            tools.run(["sync", "--file-system", folder])
            # Newly mounted, it has nothing in the page cache.
            tools.run(["dd", f"if={image}", "of=/dev/null", "bs=1M"])
            figures = converted(bench, side, image, bench.images.format(source), output)
            output.unlink()
        return figures
    return measure


@contextlib.contextmanager
def shared_folder(bench, kind):
    """A mounted file system that stays from run to run of one row."""
    device, point = bench.folder / f"part-{kind}", bench.folder / f"mnt-{kind}"
    if not device.exists():
        tools.run(["truncate", "--size", 4 * bench.images.size + (1 << 30), device])
        options = {"xfs": ["-q", "-m", "reflink=1"], "btrfs": ["-q"]}[kind]
        tools.run([f"mkfs.{kind}", *options, device])
    with mounts.loop_mounted(device, point):
        yield point


def copy_raw():
    """The disk as it is into another file; the peer is cp."""
    def measure(bench, side):
        source, output = bench.images["raw"], bench.folder / "output.raw"
        output.unlink(missing_ok=True)
        if side is bench.ours:
            command = [side["qemu-img"], "convert", "-f", "raw", "-O", "raw", source, output]
        else:
            command = ["cp", "--sparse=always", source, output]
        figures = tools.figures(command, bench.folder)
        tools.same_bytes(source, output)
        output.unlink()
        return figures
    return measure


def inspect(*arguments, same=None):
    """A verb that reads images, named {NAME}; `same` turns its output into what both must agree on."""
    def measure(bench, side):
        words = [str(bench.images[word[1:-1]]) if word[:1] == "{" else word for word in arguments]
        output = []
        figures = tools.figures([side["qemu-img"], *words], bench.folder, output)
        if same:
            bench.expect_same(arguments, same(output[0]))
        return figures
    return measure


def check_totals(output):
    report = json.loads(output)
    return {key: report.get(key, 0) for key in ("corruptions", "leaks", "check-errors", "allocated-clusters")}


def map_entries(output):
    return [{key: entry.get(key) for key in ("start", "length", "depth", "zero", "data", "offset")}
            for entry in json.loads(output)]


def info_facts(output):
    report = json.loads(output)
    return {key: report.get(key) for key in ("virtual-size", "filename", "format", "cluster-size", "actual-size")}


def measured_size(output):
    return json.loads(output)["required"]


REQUESTS = 75000


def requests(name, *options):
    """The verb bench: that many requests of 4 KiB; the judge looks at what writes left."""
    def measure(bench, side):
        image, layout = bench.images[name], bench.images.format(name)
        writes = "-w" in options
        if writes:
            image = bench.images.scratch(name)
        figures = tools.figures(
            [side["qemu-img"], "bench", "-f", layout, "-c", str(REQUESTS), *options, image], bench.folder)
        if writes:
            tools.run(["qemu-img", "compare", "-f", "raw", "-F", layout, overwritten(bench), image])
            if layout != "raw":
                tools.run(["qemu-img", "check", "-f", layout, image])
            image.unlink()
        return figures
    return measure


def overwritten(bench):
    """The disk after the requests of the verb bench have written zeros."""
    path = bench.folder / "part-overwritten.raw"
    if not path.exists():
        shutil.copy(bench.images["raw"], path)
        with open(path, "r+b") as file:
            file.write(bytes(min(REQUESTS * 4096, bench.images.size)))
    return path


def snapshot():
    """A snapshot of 1 TiB with metadata for all of it; the judge takes it away again."""
    def measure(bench, side):
        image = bench.images["tebibyte"]
        figures = tools.figures([side["qemu-img"], "snapshot", "-c", "taken", image], bench.folder)
        if b"taken" not in tools.run(["qemu-img", "snapshot", "-l", image]):
            raise tools.Failed("there is no snapshot")
        tools.run(["qemu-img", "snapshot", "-d", "taken", image])
        return figures
    return measure


def commit():
    """What an overlay has goes into its base; the overlay stays as it is."""
    def measure(bench, side):
        middle, base = bench.images["middle"], bench.images["base"]
        target, overlay = bench.folder / "part-target.qcow2", bench.folder / "part-overlay.qcow2"
        bench.images.copy(base, target)
        overlay.unlink(missing_ok=True)
        # Over the copy of the base; its data are the same.
        bench.images.copy(middle, overlay)
        tools.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", target, "-F", "qcow2", overlay])
        figures = tools.figures([side["qemu-img"], "commit", "-q", "-d", "-f", "qcow2", overlay], bench.folder)
        tools.run(["qemu-img", "check", target])
        tools.run(["qemu-img", "compare", middle, target])
        target.unlink()
        overlay.unlink()
        return figures
    return measure


def rebase():
    """An empty overlay over `middle` comes to lie over `base`: it gets what differs."""
    def measure(bench, side):
        top = bench.folder / "part-top.qcow2"
        top.unlink(missing_ok=True)
        tools.run(["qemu-img", "create", "-f", "qcow2", "-b", bench.images["middle"], "-F", "qcow2", top])
        figures = tools.figures(
            [side["qemu-img"], "rebase", "-f", "qcow2", "-b", bench.images["base"], "-F", "qcow2", top], bench.folder)
        tools.run(["qemu-img", "check", top])
        tools.run(["qemu-img", "compare", bench.images["middle"], top])
        top.unlink()
        return figures
    return measure
