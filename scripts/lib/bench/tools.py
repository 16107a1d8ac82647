"""Commands that are run, timed and compared."""

import contextlib
import filecmp
import mmap
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile


class Failed(Exception):
    """A command failed or printed something else than it must."""


def run(command, **options):
    """Runs a command to its end; another exit status than 0 is a failure that shows what it printed."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, **options)
    if done.returncode != 0:
        text = (done.stdout[-1000:] + done.stderr[-1000:]).decode("utf-8", "replace")
        raise Failed(f"exit status {done.returncode}: {' '.join(map(str, command))}\n{text}")
    return done.stdout


TIMER = pathlib.Path(__file__).with_name("timer.py")


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


def figures(command, folder, outputs=None):
    """The figures of one run of a command; its output is added to `outputs`."""
    seconds, processor, memory, output = timed(command, folder)
    if outputs is not None:
        outputs.append(output)
    return {"time": seconds, "processor": processor, "memory": memory}


def same_bytes(first, second):
    """Fails unless two files have the same content."""
    if not filecmp.cmp(first, second, shallow=False):
        raise Failed(f"{first} and {second} differ")


def sha256(path):
    """The digest of a file's bytes."""
    return run(["sha256sum", "--", path]).split()[0].lstrip(b"\\")


def build(project):
    """Builds what users run; the folder of the programs."""
    command = ["swift", "build", "--configuration", "release", "--static-swift-stdlib", "--package-path", project]
    subprocess.run(command, check=True, stdout=sys.stderr)
    path = subprocess.run([*command, "--show-bin-path"], check=True, capture_output=True, text=True).stdout.strip()
    return pathlib.Path(path)


def available_memory():
    return int(re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) * 1024


def work_folder(needed):
    """Where images go that nobody chose a place for: memory when there is room for that many bytes, else disk."""
    memory = pathlib.Path("/dev/shm")
    if memory.is_dir() and min(available_memory(), shutil.disk_usage(memory).free) > needed:
        return str(memory)
    return tempfile.gettempdir()


# Bytes that the images without data take, whatever the size of the disk: those with tables for tebibytes.
TABLES_SIZE = 1 << 30


def fetch_memory(byte_count):
    """Takes free memory and gives it back: the host of a virtual machine may have taken it meanwhile, and what fetches it
    again would be counted for whichever side comes first."""
    byte_count = min(byte_count, available_memory() // 4)
    mmap.mmap(-1, byte_count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


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
