#!/usr/bin/env python3
"""Prints the disk of an image as an independent reader sees it, as raw bytes on standard output.

  read_disk.py READER IMAGE [PARENT...]     PARENT: what lies below, the nearest first

READER is a library of PyPI and its format: libvmdk, libvhdi, libqcow, libmodi (libyal's), or dissect-vmdk,
dissect-vhd, dissect-vhdx, dissect-vdi, dissect-qcow2, dissect-hdd.
"""
import sys
from pathlib import Path

PIECE = 1 << 20


def libyal(module_name, kind):
    """One of Joachim Metz's libraries: they all have the same interface."""

    def opened(path):
        module = __import__(module_name)
        handle = getattr(module, kind)()
        handle.open(path)
        if hasattr(handle, "open_extent_data_files"):
            handle.open_extent_data_files()
        return handle

    def read(image, parents):
        below = None
        for path in reversed(parents):
            handle = opened(path)
            if below is not None:
                handle.set_parent(below)
            below = handle
        disk = opened(image)
        if below is not None:
            disk.set_parent(below)
        size = disk.get_media_size()
        for offset in range(0, size, PIECE):
            yield disk.read_buffer_at_offset(min(PIECE, size - offset), offset)

    return read


def pieces(stream, size):
    """A dissect stream in pieces."""
    stream.seek(0)
    while size > 0:
        data = stream.read(min(PIECE, size))
        if not data:
            raise EOFError(f"{size} bytes before the end")
        size -= len(data)
        yield data


def dissect_vmdk(image, parents):
    from dissect.hypervisor.disk.vmdk import VMDK

    disk = VMDK(Path(image))
    yield from pieces(disk, disk.size)


def dissect_vhd(image, parents):
    from dissect.hypervisor.disk.vhd import VHD

    with open(image, "rb") as file:
        disk = VHD(file)
        yield from pieces(disk, disk.size)


def dissect_vhdx(image, parents):
    from dissect.hypervisor.disk.vhdx import VHDX

    disk = VHDX(Path(image))
    yield from pieces(disk, disk.size)


def dissect_vdi(image, parents):
    from dissect.hypervisor.disk.vdi import VDI

    below = None
    for path in reversed(parents):
        below = VDI(Path(path), below).open()
    disk = VDI(Path(image), below).open()
    yield from pieces(disk, disk.size)


def dissect_qcow2(image, parents):
    from dissect.hypervisor.disk.qcow2 import QCow2

    disk = QCow2(Path(image)).open()
    yield from pieces(disk, disk.size)


def dissect_hdd(image, parents):
    from dissect.hypervisor.disk.hdd import HDD

    disk = HDD(Path(image)).open()
    yield from pieces(disk, disk.size)


READERS = {
    "libvmdk": libyal("pyvmdk", "handle"),
    "libvhdi": libyal("pyvhdi", "file"),
    "libqcow": libyal("pyqcow", "file"),
    "libmodi": libyal("pymodi", "handle"),
    "dissect-vmdk": dissect_vmdk,
    "dissect-vhd": dissect_vhd,
    "dissect-vhdx": dissect_vhdx,
    "dissect-vdi": dissect_vdi,
    "dissect-qcow2": dissect_qcow2,
    "dissect-hdd": dissect_hdd,
}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    reader, image, *parents = sys.argv[1:]
    for data in READERS[reader](image, parents):
        sys.stdout.buffer.write(data)


main()
