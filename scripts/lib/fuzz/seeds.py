#!/usr/bin/env python3
"""Makes the inputs that the fuzzers start from: seeds.py FOLDER [SAMPLES]

FOLDER gets a folder for each target (Fuzz/Targets/FuzzTarget.swift). The images are made by Debian's qemu-img, sfdisk and makers of file
systems, with every option that changes what a parser sees; SAMPLES is a folder of images that other programs made.
"""

import base64
import bz2
import itertools
import lzma
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

from pack import pack

PROJECT = pathlib.Path(__file__).resolve().parents[3]
# How an image is used (Fuzz/Targets/ImageFuzzing.swift): mended checksums 1, writes 2, repair 4, passphrase 8, resize 16.
USES = [0, 3, 5, 19]
SECRET = ["--object", "secret,id=key,data=passphrase"]
ENCRYPTION = "encrypt.key-secret=key,encrypt.format={}"
QUICK_KEYS = "encrypt.iter-time=1,"

IMAGES = {
    "qcow2": [
        "", "cluster_size=512", "cluster_size=4k,compat=0.10", "cluster_size=16k,extended_l2=on",
        "cluster_size=4k,compression_type=zstd", "cluster_size=1k,lazy_refcounts=on,refcount_bits=1",
        "cluster_size=4k,refcount_bits=64", "cluster_size=4k,data_file=data,data_file_raw=on",
        "cluster_size=64k,preallocation=metadata", "cluster_size=4k," + QUICK_KEYS + ENCRYPTION.format("luks"),
    ],
    "qcow": ["", ENCRYPTION.format("aes")],
    "qed": ["", "cluster_size=4k,table_size=2"],
    "vmdk": ["", "subformat=streamOptimized", "compat6=on", "subformat=twoGbMaxExtentSparse", "zeroed_grain=on"],
    "vdi": ["", "static=on"],
    "vpc": ["", "force_size=on", "subformat=fixed,force_size=on"],
    "vhdx": ["", "block_size=1M,log_size=1M", "subformat=fixed,block_size=1M"],
    "parallels": ["", "cluster_size=64k"],
    "luks": ["iter-time=1,key-secret=key", "iter-time=1,key-secret=key,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv"],
    "raw": [""],
}
PACKED = [("qcow2", "cluster_size=4k"), ("qcow2", "cluster_size=4k,compression_type=zstd")]

BUNDLE = """<?xml version="1.0"?>
<Parallels_disk_image Version="1.0">
 <Disk_Parameters><Disk_size>8192</Disk_size><Cylinders>8</Cylinders><Heads>16</Heads><Sectors>63</Sectors><Padding>0</Padding>
  <Encryption><Engine>{00000000-0000-0000-0000-000000000000}</Engine></Encryption></Disk_Parameters>
 <StorageData><Storage><Start>0</Start><End>8192</End><Blocksize>2048</Blocksize>
  <Image><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><Type>Compressed</Type><File>disk.hds</File></Image>
  <Image><GUID>{11111111-6958-40ff-92a7-860e329aab41}</GUID><Type>Plain</Type><File>base.hds</File></Image>
 </Storage></StorageData>
 <Snapshots><TopGUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</TopGUID>
  <Shot><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><ParentGUID>{11111111-6958-40ff-92a7-860e329aab41}</ParentGUID></Shot>
  <Shot><GUID>{11111111-6958-40ff-92a7-860e329aab41}</GUID><ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot>
 </Snapshots>
</Parallels_disk_image>
"""

NAMES = [
    "image", "file:image", "json:{}", '{"driver":"qcow2","file":{"driver":"file","filename":"a"}}',
    '{"driver":"raw","offset":512,"size":1024,"file.driver":"null-co","file.size":4096}',
    '{"driver":"null-co","size":"1M","read-zeroes":true}', "driver=null-co,size=1M,read-zeroes=on",
    '{"driver":"qcow2","backing":null,"encrypt":{"format":"luks","key-secret":"a"},"file":"b"}',
    '{"driver":"blkdebug","image":{"driver":"null-co","size":512},"inject-error":[{"event":"read_aio","errno":5}]}',
    "driver=raw,file.driver=file,file.filename=a,,b,read-only=on,discard=unmap", "null-co://", "nbd://localhost",
    '{"a":[1,2.5e3,{"b":"\\n\\t"},null,true,[]],"driver":"vmdk","file":{"extents":{"0":{"driver":"file","filename":"x"}}}}',
]
COMMAND_LINES = [
    "-f\nqcow2\n-o\ncluster_size=64k,preallocation=metadata,compat=1.1\nimage\n1G",
    "--object\nsecret,id=a,data=MTIz,format=base64\n-q\n--backing-chain\nimage", "-hqf\nraw\n--\n-b",
    '--object\n{"qom-type":"secret","id":"a","data":"x"}\n--output=json\n--form\nraw', "-o\nsize=1.5G,encrypt.format=luks\n-b\na",
    "create\n-o\nhelp\n8E\n0x7fffffffffffffff\n1e3\n.5k",
]


def run(*words, **options):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


class Seeds:
    """Writes inputs, each by a name of its own."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.numbers = itertools.count()

    def add(self, target, data):
        place = self.folder / target
        place.mkdir(parents=True, exist_ok=True)
        (place / f"seed-{next(self.numbers):04}").write_bytes(data)

    def add_image(self, target, image, uses=None):
        packed = pack(image)
        # What an input says after the image is where writes go.
        writes = bytes(range(7, 71))
        for use in USES if uses is None else uses:
            self.add(target, bytes([use]) + packed + writes)


def judge_image(place, kind, options, index):
    """An image of 3 MiB with some data, zeros, a hole."""
    path = place / f"{kind}-{index}"
    path.mkdir()
    words = ["qemu-img", "create", "-q", "-f", kind]
    if "key-secret" in options:
        words += SECRET
    if options:
        words += ["-o", options]
    run(*words, "image", "3M", cwd=path)
    steps = ["-c", "write -P 17 0 9k", "-c", "write -P 34 1M 70k", "-c", "write -z 1500k 64k", "-c", "write -P 51 3071k 1k"]
    if "key-secret" in options:
        name = "key-secret" if kind == "luks" else "encrypt.key-secret"
        run("qemu-io", *SECRET, *steps, "--image-opts", f"driver={kind},{name}=key,file.filename=image", cwd=path)
    elif "streamOptimized" not in options:
        run("qemu-io", "-f", kind, *steps, "image", cwd=path)
    return path


def add_judged_images(seeds, place):
    for kind, lists in IMAGES.items():
        for index, options in enumerate(lists):
            path = judge_image(place, kind, options, index)
            uses = [use | 8 for use in USES] + [0] if "key-secret" in options else None
            for file in sorted(path.iterdir()):
                data = file.read_bytes()
                if file.name == "image" and len(data) < 4096 and b"createType" in data:
                    seeds.add("vmdk-descriptor", data)
                elif kind != "raw" or file.name == "image":
                    seeds.add_image(kind, data, uses)
    add_rich_qcow2(seeds, place)
    text = place / "text"
    text.write_bytes(b"".join(b"line %d\n" % number for number in range(9000)).ljust(1 << 17, b"\0"))
    for kind, options in PACKED:
        run("qemu-img", "convert", "-c", "-f", "raw", "-O", kind, *(["-o", options] if options else []), text, place / "packed")
        seeds.add_image(kind, (place / "packed").read_bytes())
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", text, place / "packed.vmdk")
    seeds.add_image("vmdk", (place / "packed.vmdk").read_bytes())


def add_rich_qcow2(seeds, place):
    """Snapshots, bitmaps, a backing file, an unclean end."""
    for index, options in enumerate(["cluster_size=4k", "cluster_size=16k,extended_l2=on", "cluster_size=4k,lazy_refcounts=on"]):
        path = judge_image(place, "qcow2", options, f"rich-{index}") / "image"
        for step in (["snapshot", "-c", "first"], ["bitmap", "--add"], ["snapshot", "-c", "second"], ["bitmap", "--add"]):
            run("qemu-img", *step, path, *(["bitmap" + str(next(seeds.numbers))] if step[0] == "bitmap" else []))
            run("qemu-io", "-f", "qcow2", "-c", "write -P 68 64k 30k", path)
        run("qemu-img", "rebase", "-u", "-F", "raw", "-b", "below", path)
        seeds.add_image("qcow2", path.read_bytes())
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 85 2M 9k", "-c", "abort", path], capture_output=True)
        seeds.add_image("qcow2", path.read_bytes())


SAMPLE_FORMATS = {
    ".qcow2": "qcow2", ".vhd": "vpc", ".vmdk": "vmdk", ".bochs": "bochs", ".cloop": "cloop", ".dmg": "dmg", ".vhdx": "vhdx",
    ".img": "vpc", "parallels-v1": "parallels", "parallels-v2": "parallels", ".raw": "partitions",
}


def add_samples(seeds, folder):
    for path in sorted(pathlib.Path(folder).glob("*.bz2")):
        image = bz2.decompress(path.read_bytes())
        name = path.name.removesuffix(".bz2")
        kind = next((kind for end, kind in SAMPLE_FORMATS.items() if name.endswith(end)), None)
        if kind and len(image) < 1 << 29:
            seeds.add_image(kind, image, [0, 1] if kind == "partitions" else None)
        if kind == "dmg":
            seeds.add("property-list", image[image.index(b"<?xml"):image.index(b"</plist>") + 9])


TABLES = [
    "label: gpt\n,1M\n,2M,L,*\n", "label: dos\n,1M,83\n,10M,E\n,2M,83\n,1M,82\n,1M,83\n",
    "label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\n",
]
FILE_SYSTEMS = [
    "mkfs.vfat -n LABEL", "mkfs.vfat -F 32 -n LABEL", "mkfs.exfat -L label", "mkfs.ntfs -q -F -L label", "mkfs.ext4 -q -L label",
    "mkswap -L label", "mkfs.btrfs -q -L label", "mkfs.xfs -q -f -L label", "mkfs.f2fs -q -l label",
]
# LVM's own program wants a block device.
PHYSICAL_VOLUME = b"".join([
    bytes(512), b"LABELONE", struct.pack("<QII", 1, 0, 32), b"LVM2 001", b"0123456789abcdef0123456789abcdef", bytes(512),
])


def add_disks(seeds, place):
    """Partition tables, and what file systems begin with."""
    disk = place / "disk"
    for text in TABLES:
        disk.write_bytes(bytes(16 << 20))
        run("sfdisk", disk, input=text.encode())
        seeds.add_image("partitions", disk.read_bytes(), [0, 1])
    for line in FILE_SYSTEMS:
        large = any(name in line for name in ("btrfs", "xfs", "f2fs", "-F 32"))
        with open(disk, "wb") as file:
            file.truncate((320 if large else 4) << 20)
        run(*line.split(), disk)
        seeds.add_image("partitions", disk.read_bytes()[:8 << 20], [0])
    seeds.add_image("partitions", PHYSICAL_VOLUME, [0])


def add_texts(seeds):
    seeds.add("parallels-bundle", BUNDLE.encode())
    for shape, name in itertools.product([0, 1, 2, 0x41], NAMES):
        seeds.add("names", bytes([shape]) + name.encode())
    for flag, line in itertools.product([0, 1], COMMAND_LINES):
        seeds.add("options", bytes([flag]) + line.encode())


def add_chunks(seeds):
    """What a chunk of 16 sectors may be packed with; the streams of LZFSE are those of the tests."""
    text = b"".join(b"line %d of %d\n" % (number, number * number % 977) for number in range(600))[:8192]
    streams = [(0, b"\x80" + text[:128]), (1, zlib.compress(text)), (2, bz2.compress(text)), (4, lzma.compress(text))]
    source = (PROJECT / "Tests/FormatEngineTests/Formats/DMG/LZFSEStreams.swift").read_text()
    for stream in re.findall(r'"""\n(.*?)"""', source, re.S):
        streams.append((3, base64.b64decode(stream)))
    for kind, packed in streams:
        seeds.add("dmg-chunk", bytes([kind]) + (16).to_bytes(2, "little") + packed)


def add_steps(seeds):
    """A run of writes for each kind of image (Fuzz/Targets/WrittenDisk.swift)."""
    for kind in range(17):
        seeds.add("writes", bytes([kind, 200, 3]) + bytes((number * 73 + kind * 31) % 256 for number in range(300)))


def main(folder, samples=None):
    seeds = Seeds(folder)
    with tempfile.TemporaryDirectory(prefix="imgfs-seeds.") as place:
        add_judged_images(seeds, pathlib.Path(place))
        add_disks(seeds, pathlib.Path(place))
    if samples:
        add_samples(seeds, samples)
    add_texts(seeds)
    add_chunks(seeds)
    add_steps(seeds)


if __name__ == "__main__":
    main(*sys.argv[1:])
