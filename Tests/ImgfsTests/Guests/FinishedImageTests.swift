import TestSupport
import Testing

/// Guests' file systems in images that nobody writes in place: made as a whole by programs of others.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized)
struct FinishedImageTests {
  /// Names of formats, and commands that make `image` of `raw`.
  static let makers: [(format: String, commands: String)] = [
    ("cloop", "create_compressed_fs -q -B 65536 raw image"),
    // It prints thousands of percents.
    ("bochs", "bximage -q -func=convert -imgmode=growing raw image >log"),
    ("vmdk", "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized raw image"),
    ("qcow2", "qemu-img convert -c -f raw -O qcow2 raw image"),
    // Debian has no program that makes these: a trailer, a property list, a table of chunks, each packed with zlib.
    (
      "dmg",
      """
      python3 - <<'PYTHON'
      import base64, plistlib, struct, zlib
      raw = open("raw", "rb").read()
      body, chunks = bytearray(), []
      for start in range(0, len(raw), 1 << 18):
          packed = zlib.compress(raw[start : start + (1 << 18)], 1)
          count = len(raw[start : start + (1 << 18)]) // 512
          chunks.append(struct.pack(">IIQQQQ", 0x80000005, 0, start // 512, count, len(body), len(packed)))
          body += packed
      chunks.append(struct.pack(">IIQQQQ", 0xFFFFFFFF, 0, len(raw) // 512, 0, len(body), 0))
      table = struct.pack(">4sIQQ", b"mish", 1, 0, len(raw) // 512) + bytes(176) + struct.pack(">I", len(chunks))
      plist = plistlib.dumps({"resource-fork": {"blkx": [{"ID": "0", "Data": table + b"".join(chunks)}]}})
      koly = bytearray(512)
      struct.pack_into(">4sII", koly, 0, b"koly", 4, 512)
      struct.pack_into(">QQ", koly, 24, 0, len(body))
      struct.pack_into(">QQ", koly, 216, len(body), len(plist))
      struct.pack_into(">Q", koly, 492, len(raw) // 512)
      open("image", "wb").write(body + plist + koly)
      PYTHON
      """
    ),
  ]

  /// Made by mke2fs out of a folder, packed, mounted, and mounted once more from there.
  @Test(arguments: makers) func showsAGuestsFiles(_ maker: (format: String, commands: String)) throws {
    try TemporaryFolder.with { folder in
      let source = try folder.makeFolder("source")
      try LoopMount.fill(source)
      try Shell.run(
        "truncate -s 32M raw; mke2fs -q -t ext4 -d source raw; \(maker.commands)", in: folder)
      let image = folder.file("image")
      try MountedImage.with(image, options: ["-F", maker.format], in: folder) { mount in
        try TestProcess.run(["/usr/sbin/e2fsck", "-fn", mount.file("disk.raw")]).expecting(0)
        try LoopMount.with(mount.file("disk.raw"), "ro", in: folder) { place in
          let expected = try LoopMount.digests(below: source)
          #expect(try LoopMount.digests(below: place) == expected && !expected.isEmpty)
        }
      }
      // The judge reads the same.
      try Shell.run("qemu-img compare -f raw -F \(maker.format) raw image", in: folder)
    }
  }
}
