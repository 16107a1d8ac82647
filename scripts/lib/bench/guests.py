"""What a mounted disk is used for: read, written, and a guest's file system on it."""

import json
import pathlib

from bench import mounts, tools

# As in programs.py: measure(bench, side) -> figures.


def read(name, *flags, again=False):
    """dd of the whole disk by 1 MiB out of a fresh mount; `again`: the second time in one mount."""
    def measure(bench, side):
        with mounts.mounted(side, bench.images[name], bench.folder) as (disk, memory):
            command = ["dd", f"if={disk}", "of=/dev/null", "bs=1M", *flags]
            if again:
                tools.run(command)
            seconds, *_ = tools.timed(command, bench.folder)
            tools.same_bytes(bench.images.content(name), disk)
        return {"time": seconds, **memory}
    return measure


def random_reads(jobs, depth):
    """fio: random reads of 4 KiB past the page cache, for three seconds. The figure is the time of one read."""
    def measure(bench, side):
        with mounts.mounted(side, bench.images["plain"], bench.folder) as (disk, memory):
            report = fio(bench, disk, "read", [
                "--rw=randread", "--direct=1", f"--ioengine={'psync' if depth == 1 else 'libaio'}",
                f"--iodepth={depth}", f"--numjobs={jobs}", "--runtime=3", "--time_based", "--group_reporting",
                "--readonly"])
            tools.same_bytes(bench.images.content("plain"), disk)
        return {"time": 1 / report["iops"], "operations": True, **memory}
    return measure


def write(name):
    """dd of the whole disk by 1 MiB into an image, with fsync in the end; `new`: an image made just now."""
    def measure(bench, side):
        if name == "new":
            image = bench.folder / "part-new.qcow2"
            tools.run(["qemu-img", "create", "-f", "qcow2", image, bench.images.size])
        else:
            image = bench.images.scratch(name)
        with mounts.mounted(side, image, bench.folder, is_writable=True) as (disk, memory):
            seconds, *_ = tools.timed(
                ["dd", f"if={bench.images['raw']}", f"of={disk}", "bs=1M", "conv=notrunc,fsync"], bench.folder)
        tools.run(["qemu-img", "check", image])
        tools.run(["qemu-img", "compare", bench.images["raw"], image])
        image.unlink()
        return {"time": seconds, **memory}
    return measure


def random_writes():
    """fio: 16384 random writes of 4 KiB over allocated clusters, with fsync each 64. The figure is the time of one."""
    def measure(bench, side):
        image = bench.images.scratch("filled")
        with mounts.mounted(side, image, bench.folder, is_writable=True) as (disk, memory):
            report = fio(bench, disk, "write", [
                "--rw=randwrite", "--ioengine=psync", "--fsync=64", "--io_size=64m", "--verify=pattern",
                "--verify_pattern=%o", "--do_verify=0"])
        tools.run(["qemu-img", "check", image])
        plain = bench.folder / "part-plain.raw"
        tools.run(["qemu-img", "convert", "-O", "raw", image, plain])
        bench.expect_same("random writes", tools.sha256(plain))
        plain.unlink()
        image.unlink()
        return {"time": 1 / report["iops"], "operations": True, **memory}
    return measure


def fio(bench, disk, direction, options):
    output = tools.run(
        ["fio", "--name=random", f"--filename={disk}", "--bs=4k", "--randseed=7", f"--size={bench.images.size}",
         "--output-format=json", *options], cwd=bench.folder)
    report = json.loads(output[output.index(b"{"):])["jobs"][0]
    if report["error"] != 0 or report[direction]["iops"] <= 0:
        raise tools.Failed(f"fio failed: {report['error']}")
    return report[direction]


# A guest's work, as one timed command: $1 disk, $2 mount point, $3 archive.
GUEST_WORK = """
set -e
mount -o loop "$1" "$2"
trap 'umount "$2"' EXIT
tar --extract --file "$3" --directory "$2"
sync --file-system "$2"
echo 2 >/proc/sys/vm/drop_caches
find "$2" -type f -size +0 -newermt 1990-01-01 | wc -l
"""


def guest():
    """ext4 in a qcow2, mounted read-write through a loop device: unpack an archive, sync, look for files, unmount."""
    def measure(bench, side):
        archive, point = guest_archive(bench), bench.folder / "mnt-guest"
        point.mkdir(exist_ok=True)
        image = bench.images.scratch("guest")
        with mounts.mounted(side, image, bench.folder, is_writable=True) as (disk, memory):
            seconds, *_ = tools.timed(["sh", "-c", GUEST_WORK, "sh", disk, point, archive], bench.folder)
        tools.run(["qemu-img", "check", image])
        plain = bench.folder / "part-plain.raw"
        tools.run(["qemu-img", "convert", "-O", "raw", image, plain])
        tools.run(["e2fsck", "-fn", plain])
        with mounts.loop_mounted(plain, point, "ro"):
            tools.run(["tar", "--compare", "--file", archive, "--directory", point])
        plain.unlink()
        image.unlink()
        return {"time": seconds, **memory}
    return measure


def guest_archive(bench):
    """Some thousand files of all sizes: Python's own library, which every machine that runs this has."""
    path = bench.folder / "part-files.tar"
    if not path.exists():
        library = pathlib.Path(json.__file__).parent.parent
        tools.run(["tar", "--create", "--file", path, "--exclude=__pycache__", "--exclude=site-packages",
                   "--exclude=dist-packages", "--directory", library.parent, library.name])
    return path
