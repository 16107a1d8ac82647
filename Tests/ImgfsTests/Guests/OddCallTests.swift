import TestSupport
import Testing

/// Calls with numbers and names that no program of good will has: each is answered as the manual says, and the mount goes on.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct OddCallTests {
  /// Makes the calls on a mount, and prints what became of each. In Python, which has all of them.
  private static let script = #"""
    import ctypes, errno, fcntl, mmap, os, sys, time
    mount, writable = sys.argv[1], sys.argv[2] == "rw"
    libc = ctypes.CDLL(None, use_errno=True)
    disk = os.path.join(mount, "disk.raw")

    def say(name, call):
        try:
            print(name, call())
        except OSError as error:
            print(name, errno.errorcode[error.errno])
        except OverflowError:
            print(name, "overflow")

    # Names.
    for name in ["n" * 255, "n" * 256, "n" * 1024, "n" * 1025, "n" * 5000]:
        say(f"name of {len(name)}", lambda: os.stat(os.path.join(mount, name)))
    for name in [b"\xff\xfe", b"\x01", b"disk.raw\n", b"\xe2\x80\xaedisk"]:
        say("odd name", lambda: os.stat(mount.encode() + b"/" + name))
    say("below a file", lambda: os.stat(disk + "/x"))

    # By number: flags, setting them, the size of a device, its flush, freezing, a terminal.
    for target in [disk, mount]:
        file = os.open(target, os.O_RDONLY)
        for code in [0x80086601, 0x40086602, 0x80081272, 0x1261, 0xc0045877, 0x5401, 0]:
            say(f"ioctl {code:x}", lambda: fcntl.ioctl(file, code, b"\0" * 64))
        os.close(file)
    file = os.open(disk, os.O_RDWR if writable else os.O_RDONLY)
    other = os.open(disk, os.O_RDONLY)
    say("FICLONE", lambda: fcntl.ioctl(file, 0x40049409, other))

    # Places in a folder.
    def entries(position):
        folder = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.lseek(folder, position, os.SEEK_SET)
            buffer, names = ctypes.create_string_buffer(65536), 0
            while True:
                count = libc.syscall(217, folder, buffer, 65536)
                if count < 0:
                    raise OSError(ctypes.get_errno(), "getdents64")
                if count == 0:
                    return names
                at = 0
                while at < count:
                    at += int.from_bytes(buffer.raw[at + 16:at + 18], "little")
                    names += 1
        finally:
            os.close(folder)
    whole = entries(0)
    for position in [1, 2, 3, whole - 1]:
        say("entries that are left out", lambda: whole - entries(position) - position)
    for position in [whole, whole + 1, 1 << 32, 1 << 40, (1 << 63) - 1, -1]:
        say("entries from the end on", lambda: entries(position))

    # Places in a file.
    for place in [-1, os.path.getsize(disk), 1 << 62, (1 << 63) - 1]:
        for what in [os.SEEK_DATA, os.SEEK_HOLE]:
            say(f"seek {place} {what}", lambda: os.lseek(file, place, what))
    for place in [1 << 62, (1 << 63) - 2, (1 << 63) - 1, -1]:
        say(f"read {place}", lambda: os.pread(file, 1, place))
    if writable:
        def allocate(mode):
            if libc.fallocate(file, mode, ctypes.c_long(1 << 62), ctypes.c_long(1 << 61)) != 0:
                raise OSError(ctypes.get_errno(), "fallocate")
        for mode in [0, 1, 3, 8, 16, 32, 64, 0x7fffffff]:
            say(f"fallocate {mode}", lambda: allocate(mode))

    # Locks and memory.
    say("flock", lambda: fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB))
    say("lockf", lambda: fcntl.lockf(other, fcntl.LOCK_SH | fcntl.LOCK_NB, (1 << 63) - 1, 0))
    fcntl.flock(other, fcntl.LOCK_UN)
    say("map", lambda: mmap.mmap(other, 4096, mmap.MAP_SHARED, mmap.PROT_READ)[0])
    say("map to write", lambda: mmap.mmap(other, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)[0])
    if writable:
        with mmap.mmap(file, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
            memory[0:4] = b"mmap"
            memory.flush()
        print(os.pread(other, 4, 0))

        # The kernel keeps what is written, and is told later; then all is as before.
        size = os.path.getsize(disk)
        for place in [-1, 1 << 62]:
            say(f"write {place}", lambda: os.pwrite(file, b"x", place))
            say("fsync", lambda: os.fsync(file))
        end = time.monotonic() + 10
        while os.path.getsize(disk) != size and time.monotonic() < end:
            time.sleep(0.01)
        print("size", os.path.getsize(disk), os.pread(other, 4, 0))
    """#

  private static func answers(isWritable: Bool) -> String {
    let ioctls = """
      ioctl 80086601 ENOTTY
      ioctl 40086602 \(isWritable ? "ENOTTY" : "EROFS")
      ioctl 80081272 ENOTTY
      ioctl 1261 ENOTTY
      ioctl c0045877 ENOTSUP
      ioctl 5401 ENOTTY
      ioctl 0 ENOTTY

      """
    let places = [4 << 20, 1 << 62, Int.max]
    let common = [
      "name of 255 ENOENT\n",
      [256, 1024, 1025, 5000].map { "name of \($0) ENAMETOOLONG\n" }.joined(),
      String(repeating: "odd name ENOENT\n", count: 4), "below a file ENOTDIR\n", ioctls, ioctls,
      "FICLONE \(isWritable ? "ENOTSUP" : "EBADF")\n",
      String(repeating: "entries that are left out 0\n", count: 4),
      String(repeating: "entries from the end on 0\n", count: 5), "entries from the end on EINVAL\n",
      "seek -1 3 EINVAL\nseek -1 4 EINVAL\n",
      places.map { "seek \($0) 3 ENXIO\nseek \($0) 4 ENXIO\n" }.joined(),
      "read \(1 << 62) b''\nread \(Int.max - 1) b''\nread \(Int.max) EINVAL\nread -1 EINVAL\n",
    ].joined()
    let locks = "flock None\nlockf None\nmap 0\nmap to write EACCES\n"
    guard isWritable else { return common + locks }
    return common + """
      fallocate 0 ENOTSUP
      fallocate 1 ENOTSUP
      fallocate 3 None
      fallocate 8 ENOTSUP
      fallocate 16 ENOSPC
      fallocate 32 ENOTSUP
      fallocate 64 ENOTSUP
      fallocate 2147483647 ENOTSUP

      """ + locks + """
        b'mmap'
        write -1 EINVAL
        fsync None
        write 4611686018427387904 1
        fsync ENOSPC
        size 4194304 b'mmap'

        """
  }

  @Test(arguments: ["rw", "ro"]) func areAnsweredAsTheManualSays(_ option: String) throws {
    try TemporaryFolder.with { folder in
      let kind = WritableImage(format: "qcow2")
      let image = try kind.make(4 << 20, in: folder)
      try kind.mounted(image, options: option, in: folder) { mount in
        let script = try folder.write(Array(Self.script.utf8), to: "calls.py")
        let output = try Shell.run(
          "python3 \"$script\" \"$mount\" \(option)", ["script": script, "mount": mount.path], in: folder)
        #expect(output == Self.answers(isWritable: option == "rw"))
      }
    }
  }
}
