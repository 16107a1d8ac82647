"""Timed commands and mounts of two kinds (imgfs, QEMU's FUSE export) that never outlive the benchmark."""

import contextlib
import filecmp
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time


class Failed(Exception):
    """A command failed or printed something else than it must."""


def run(command, **options):
    """Runs a command to its end; another exit status than 0 is a failure that shows what it printed."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, **options)
    if done.returncode != 0:
        text = (done.stdout[-1000:] + done.stderr[-1000:]).decode("utf-8", "replace")
        raise Failed(f"exit status {done.returncode}: {' '.join(map(str, command))}\n{text}")
    return done.stdout


TIMER = pathlib.Path(__file__).with_name("bench_timer.py")


def timed(command, folder):
    """Runs a command: (seconds, processor seconds, peak memory in MiB, output)."""
    program = shutil.which(str(command[0]))
    read, write = os.pipe()
    with open(folder / "stdout", "w+b") as output, open(folder / "stderr", "w+b") as errors, open(read) as report:
        arguments = [sys.executable, "-I", "-S", str(TIMER), program, *(str(word) for word in command[1:])]
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                   (os.POSIX_SPAWN_DUP2, errors.fileno(), 2), (os.POSIX_SPAWN_DUP2, write, 3)]
        pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions)
        os.close(write)
        try:
            os.waitpid(pid, 0)
        except BaseException:
            os.kill(pid, signal.SIGINT)
            os.waitpid(pid, 0)
            raise
        seconds, processor, peak, status = (report.read() or "0 0 0 -1").split()
        output.seek(0)
        errors.seek(0)
        if status != "0":
            text = errors.read().decode("utf-8", "replace")
            raise Failed(f"exit status {status}: {' '.join(map(str, command))}\n{text}")
        return float(seconds), float(processor), int(peak) / 1024, output.read()


def same_bytes(first, second):
    """Fails unless two files have the same content."""
    if not filecmp.cmp(first, second, shallow=False):
        raise Failed(f"{first} and {second} differ")


class ImgfsMount:
    """An image mounted by imgfs."""

    def __init__(self, program, image, folder):
        self.program, self.point = program, folder / "mnt-imgfs"
        self.point.mkdir(exist_ok=True)
        run([program, image, self.point])
        self.disk = self.point / "disk.raw"

    def close(self):
        run([self.program, "--unmount", self.point])


class ExportMount:
    """An image that qemu-storage-daemon shows over a regular file."""

    def __init__(self, program, image, folder):
        self.disk = folder / "export.raw"
        self.disk.touch()
        kind = json.loads(run(["qemu-img", "info", "--output=json", image]))["format"]
        self.process = subprocess.Popen(
            [program, "--blockdev", f"driver=file,node-name=file,filename={image},read-only=on",
             "--blockdev", f"driver={kind},node-name=disk,file=file,read-only=on",
             "--export", f"type=fuse,id=export,node-name=disk,mountpoint={self.disk},growable=off"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not is_mounted(self.disk):
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise Failed(f"{program} did not export {image}")
            time.sleep(0.002)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if is_mounted(self.disk):
            subprocess.run(["umount", "--lazy", self.disk], check=False)


def is_mounted(path):
    return any(line.split()[4] == str(path) for line in open("/proc/self/mountinfo", encoding="utf-8"))


@contextlib.contextmanager
def mounted(kind, program, image, folder):
    mount = kind(program, image, folder)
    try:
        yield mount.disk
    finally:
        mount.close()


def machine(folder):
    """One line on what the figures were taken with."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                if line.startswith("model name")), os.uname().machine)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    kind = run(["stat", "--file-system", "--format=%T", folder]).decode().strip()
    system = {}
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            system[key] = value.strip('"')
    return (f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {os.uname().release.split('-')[0]}, "
            f"{system.get('PRETTY_NAME', 'unknown system')}, images on {kind}")
