import Foundation
import TestSupport
import Testing

/// The tools that people use on disks and files, on a mount that can be written.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct ToolTests {
  private let qcow2 = WritableImage(format: "qcow2")

  /// Runs lines of bash with `$disk`, `$mount` and `$image` beside a mounted image with random bytes at 1 MiB and 9 MiB.
  private func withDisk(
    _ kind: WritableImage = WritableImage(format: "qcow2"), mebibytes: Int = 24, options: String = "rw",
    _ body: (_ run: (String) throws -> String, _ image: String, _ folder: TemporaryFolder) throws -> Void
  ) throws {
    try TemporaryFolder.with { folder in
      let image = try kind.make(mebibytes << 20, in: folder)
      try ReferenceTool.io(["write -P 17 1M 3M", "write -P 18 9M 1M"], on: image, format: kind.format)
      try kind.mounted(image, options: options, in: folder) { mount in
        let variables = ["disk": mount.file("disk.raw"), "mount": mount.path, "image": image]
        try body({ try Shell.run($0, variables, in: folder) }, image, folder)
      }
    }
  }

  @Test func copiesKeepContentAndHoles() throws {
    try withDisk { run, _, _ in
      let output = try run(
        """
        cp --sparse=always "$disk" cp.raw
        tar -S -cf disk.tar -C "$mount" disk.raw && mkdir tar && tar -xf disk.tar -C tar
        rsync -S "$disk" rsync.raw
        dd if="$disk" of=dd.raw bs=1M conv=sparse status=none
        for copy in cp.raw tar/disk.raw rsync.raw dd.raw; do
          cmp "$disk" $copy
          [ $(du --block-size=1M $copy | cut -f1) -le 5 ]
        done
        [ $(du --block-size=1M disk.tar | cut -f1) -le 5 ]
        stat -c %b "$disk"
        """)
      #expect(output == "8192\n")
    }
  }

  @Test func writesOfEveryKindArrive() throws {
    try withDisk { run, image, folder in
      _ = try run(
        """
        head -c 2M /dev/urandom >source
        cp --sparse=always "$disk" model
        for target in "$disk" model; do
          dd if=source of="$target" bs=64k seek=16 conv=notrunc,fsync status=none
          dd if=source of="$target" bs=4k seek=1000 count=100 conv=notrunc oflag=direct status=none
          dd if=source of="$target" bs=1000 seek=7003 count=50 conv=notrunc oflag=sync status=none
        done
        """)
      _ = try run(
        """
        python3 - "$disk" model <<'PYTHON'
        import mmap, os, sys
        for name in sys.argv[1:]:
            with open(name, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
                memory[5_000_001:5_000_013] = b"through mmap"
                memory[10_000_000:10_300_000] = bytes(300_000)
                memory.flush(4_997_120, 8192)
                memory[20_000_000:20_000_004] = b"late"
        PYTHON
        fallocate -p -o 2M -l 1000000 "$disk"; fallocate -p -o 2M -l 1000000 model
        fallocate -z -o 9M -l 300k "$disk"; fallocate -z -o 9M -l 300k model
        fallocate -d "$disk"
        cmp "$disk" model
        sync -d "$disk"
        cp "$disk" again
        cmp again model
        rsync --inplace --no-whole-file --checksum model "$disk" && cmp "$disk" model
        """)
      // What was synced is in the image, mounted or not.
      let raw = folder.file("judge.raw")
      try ReferenceTool.qemuImg("convert", "-U", "-f", "qcow2", "-O", "raw", image, raw)
      try GuestImages.expectSame(raw, folder.file("model"))
    }
  }

  /// Holes are let go of in the image, zeros keep their room.
  @Test func holesShrinkTheImage() throws {
    try withDisk { run, image, _ in
      let output = try run(
        """
        stored() { qemu-img map -U -f qcow2 --output=json "$image" | python3 -c '
        import json, sys
        print(sum(x["length"] for x in json.load(sys.stdin) if x["data"]) >> 20)'; }
        # Bytes that the image has room for on the host. Not du, which counts the host's own tables of the file as well:
        # holes make more extents, and ext4 may need a block for them.
        room() { python3 -c '
        import os, sys
        file, total, at = os.open(sys.argv[1], os.O_RDONLY), 0, 0
        while True:
          try: at = os.lseek(file, at, os.SEEK_DATA)
          except OSError: break
          end = os.lseek(file, at, os.SEEK_HOLE)
          total, at = total + end - at, end
        print(total)' "$image"; }
        stored
        fallocate -z -o 9M -l 1M "$disk"; sync "$disk"; stored
        before=$(room)
        fallocate -p -o 1M -l 2M "$disk"; sync "$disk"; stored
        [ $(room) -le $((before - 2097152)) ] && echo smaller
        ! fallocate -l 1M "$disk"
        """)
      #expect(
        output == "4\n3\n1\nsmaller\nfallocate: fallocate failed: Operation not supported\n")
    }
  }

  /// Partitions that sfdisk writes are seen by sfdisk, blkid and a loop device.
  @Test(.enabled(if: MountedImage.canLoopMount)) func partitionsAreWrittenAndSeen() throws {
    try withDisk { run, _, _ in
      let output = try run(
        """
        sfdisk --quiet --label gpt "$disk" <<'TABLE'
        start=2048, size=8192, name=first
        start=10240, size=16384, name=second
        TABLE
        sfdisk -l "$disk" | grep -c '^/.*Linux filesystem'
        sfdisk -d "$disk" | grep -o 'name=.*'
        loop=$(losetup -P -f --show "$disk")
        trap 'losetup -d $loop' EXIT
        # Kernels that read no partition tables themselves are told of them.
        [ -e /sys/block/${loop#/dev/}/${loop#/dev/}p1 ] || partx -a $loop
        mkfs.ext4 -q -L inside -E offset=$((10240 * 512)) "$loop" 8M
        for part in 1 2; do cat /sys/block/${loop#/dev/}/${loop#/dev/}p$part/{start,size}; done
        blkid --probe --offset $((10240 * 512)) -s LABEL -o value "$loop"
        sync "$disk"
        partx --show --noheadings --output NR,START,SECTORS,NAME "$disk" | tr -s " "
        blkid --probe -s PTTYPE -o value "$disk"
        """)
      #expect(
        output == """
          2
          name="first"
          name="second"
          2048
          8192
          10240
          16384
          inside
           1 2048 8192 first
           2 10240 16384 second
          gpt

          """)
    }
  }

  /// fstrim in a guest gives its room back to the host.
  @Test(.enabled(if: MountedImage.canLoopMount), arguments: ["qcow2", "vdi", "vhdx", "raw"])
  func trimmedRoomIsLetGoOf(_ format: String) throws {
    try withDisk(WritableImage(format: format), mebibytes: 64) { run, _, _ in
      let output = try run(
        """
        mkfs.ext4 -q -F "$disk"; mkdir guest; mount -o loop "$disk" guest
        trap 'umount guest 2>/dev/null || true' EXIT
        head -c 40M /dev/urandom >guest/file; sync guest/file
        full=$(du -B1 "$image" | cut -f1)
        rm guest/file; sync -f guest; fstrim guest; umount guest; sync "$disk"
        empty=$(du -B1 "$image" | cut -f1)
        echo "$((full >> 20)) $((empty >> 20)) MiB taken"
        if [ $((full - empty)) -ge $((38 << 20)) ]; then echo smaller; fi
        """)
      #expect(output.hasSuffix("smaller\n"), "\(output)")
    }
  }

  @Test(arguments: WritableImage.all.filter { ["raw", "qcow2", "vdi", "vhdx"].contains($0.format) })
  func truncateMakesDisksLonger(_ kind: WritableImage) throws {
    try withDisk(kind) { run, image, _ in
      let output = try run(
        """
        truncate -s 30M "$disk"; stat -c %s "$disk" "$mount"/layers/*/disk.raw
        truncate -s 20M "$disk" || stat -c %s "$disk"
        printf end | dd of="$disk" bs=1 seek=31457277 conv=notrunc,fsync status=none
        """)
      #expect(
        output.hasPrefix("31457280\n31457280\n") && output.hasSuffix("Operation not permitted\n31457280\n"))
    }
  }

  @Test func truncateMakesDisksShorterWhereItMay() throws {
    try TemporaryFolder.with { folder in
      let image = try qcow2.make(24 << 20, in: folder)
      try qcow2.mounted(image, options: "rw,shrink", in: folder) { mount in
        let output = try Shell.run(
          "truncate -s 5M \"$disk\"; stat -c %s \"$disk\"", ["disk": mount.file("disk.raw")], in: folder)
        #expect(output == "5242880\n")
      }
      let facts = try ReferenceTool.qemuImg("info", "--output=json", image).stdoutText
      #expect(facts.contains("\"virtual-size\": 5242880"))
    }
  }
}
