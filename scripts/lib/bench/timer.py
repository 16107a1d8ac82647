"""Runs a command and writes `seconds processor-seconds peak-KiB exit-status` to descriptor 3.

A process of its own, because the kernel counts the memory of the process that starts a command into the
command's peak: it must be small, or small programs all look alike.
"""

import os
import sys
from time import perf_counter

start = perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, 3)])
try:
    _, status, usage = os.wait4(pid, 0)
except BaseException:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise
seconds = perf_counter() - start
os.write(3, f"{seconds} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss} {os.waitstatus_to_exitcode(status)}".encode())
