"""Mounts of two kinds - imgfs, and the FUSE export of qemu-storage-daemon - that never outlive the benchmark."""

import contextlib
import json
import pathlib
import re
import subprocess
import time

from bench.tools import Failed, run


class ImgfsMount:
    """An image mounted by imgfs; `disk` is the file to read and write."""

    def __init__(self, program, image, folder, is_writable):
        self.program, self.point = program, folder / "mnt-imgfs"
        self.point.mkdir(exist_ok=True)
        options = ["-o", "rw"] if is_writable else []
        self.process = subprocess.Popen([program, "-f", *options, image, self.point], stdin=subprocess.DEVNULL)
        self.disk = self.point / "disk.raw"
        wait_for_mount(self, self.point, image)

    def close(self):
        run([self.program, "--unmount", self.point])
        self.process.wait(60)


class ExportMount:
    """An image that qemu-storage-daemon shows over a regular file."""

    def __init__(self, program, image, folder, is_writable):
        self.disk = folder / "export.raw"
        self.disk.touch()
        kind = json.loads(run(["qemu-img", "info", "--output=json", image]))["format"]
        access = "read-only=off" if is_writable else "read-only=on"
        self.process = subprocess.Popen(
            [program, "--blockdev", f"driver=file,node-name=file,filename={image},{access}",
             "--blockdev", f"driver={kind},node-name=disk,file=file,{access}",
             "--export", f"type=fuse,id=export,node-name=disk,mountpoint={self.disk},growable=off,"
             f"writable={'on' if is_writable else 'off'}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_mount(self, self.disk, image)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if is_mounted(self.disk):
            subprocess.run(["umount", "--lazy", self.disk], check=False)


def wait_for_mount(mount, point, image):
    end = time.monotonic() + 20
    while not is_mounted(point):
        if mount.process.poll() is not None or time.monotonic() > end:
            mount.process.kill()
            raise Failed(f"{mount.process.args[0]} did not show {image}")
        time.sleep(0.002)


def is_mounted(path):
    return any(line.split()[4] == str(path) for line in open("/proc/self/mountinfo", encoding="utf-8"))


def peak_memory(process):
    """The most memory in MiB that a running process has had."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024


@contextlib.contextmanager
def mounted(side, image, folder, is_writable=False):
    """The mounted disk's path and, once the body is done, the memory that its server had at most."""
    kind, program = side["mount"]
    mount = kind(program, image, folder, is_writable)
    memory = {}
    try:
        yield mount.disk, memory
        memory["memory"] = peak_memory(mount.process)
    finally:
        mount.close()


@contextlib.contextmanager
def loop_mounted(disk, point, *options):
    """A file system inside of a disk, mounted through a loop device."""
    point.mkdir(exist_ok=True)
    run(["mount", "-o", ",".join(["loop", *options]), disk, point])
    try:
        yield point
    finally:
        run(["umount", point])
