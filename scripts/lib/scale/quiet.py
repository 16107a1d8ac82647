"""Waiting for a machine that others use as well."""

import pathlib
import time

# Of the processors' time in a second; the rest is what a machine at rest does anyway.
IDLE = 0.9


def wait(seconds):
    """Returns when the processors have done next to nothing for a second, or after that many seconds at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = processor_times()
        time.sleep(1)
        spent = [after - former for former, after in zip(before, processor_times())]
        if sum(spent[3:5]) > IDLE * sum(spent):
            return


def processor_times():
    """user, nice, system, idle, waiting for disks, interrupts (two kinds), taken by other machines."""
    line = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    return [int(word) for word in line.split()[1:9]]
