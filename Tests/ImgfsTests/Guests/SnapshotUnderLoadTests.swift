import TestSupport
import Testing

/// Snapshots that come and go while the disk is being written.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct SnapshotUnderLoadTests {
  private let kind = WritableImage(format: "qcow2")

  /// What a program wrote before it made the folder is in the snapshot, synced or not.
  @Test(arguments: [[], ["-s"]]) func snapshotHoldsWhatOnlyTheKernelHad(_ more: [String]) throws {
    try TemporaryFolder.with { folder in
      let image = try kind.make(64 << 20, in: folder)
      try MountedImage.with(image, options: ["-o", "rw"] + more, in: folder) { mount in
        try Shell.run(
          """
          head -c 20M /dev/urandom >source
          # Open all the time: a close would have the kernel write.
          python3 - "$mount" <<'PYTHON'
          import os, sys
          file = os.open(sys.argv[1] + "/disk.raw", os.O_RDWR)
          os.write(file, open("source", "rb").read())
          os.mkdir(sys.argv[1] + "/snapshots/now")
          PYTHON
          cmp -n 20971520 source "$mount/snapshots/now/disk.raw"
          """, ["mount": mount.path], in: folder)
      }
      try kind.expectSound(image)
      let raw = folder.file("now.raw")
      try ReferenceTool.qemuImg("convert", "-l", "snapshot.name=now", "-O", "raw", image, raw)
      try Shell.run("cmp -n 20971520 source now.raw", in: folder)
    }
  }

  /// Who deletes a snapshot right after its disk was read need not wait for the kernel to say that it is closed.
  @Test(arguments: [[], ["-s"]]) func isDeletedOnceItsReadersHaveGone(_ more: [String]) throws {
    try TemporaryFolder.with { folder in
      let image = try kind.make(8 << 20, in: folder)
      try MountedImage.with(image, options: ["-o", "rw"] + more, in: folder) { mount in
        try Shell.run(
          """
          mkdir "$mount/snapshots/now"
          exec 3<"$mount/snapshots/now/disk.raw"
          head -c 1M <&3 >/dev/null
          rmdir "$mount/snapshots/now" 3<&- & rmdir=$!
          sleep 0.2
          exec 3<&-
          wait $rmdir
          """, ["mount": mount.path], in: folder)
      }
      try kind.expectSound(image)
    }
  }

  /// fio verifies what it writes while snapshots are taken and deleted; one that was taken at a quiet moment stays so.
  @Test func snapshotsComeAndGoUnderLoad() throws {
    let seconds = Effort.current == .soak ? 60 : 4
    try TemporaryFolder.with { folder in
      let image = try kind.make(48 << 20, in: folder)
      try kind.mounted(image, in: folder) { mount in
        try Shell.run(
          """
          cd "$mount"
          head -c 8M /dev/urandom | dd of=disk.raw bs=1M seek=36 conv=notrunc,fsync status=none
          mkdir snapshots/quiet; cp disk.raw "$work/quiet.raw"
          fio --name=load --filename="$mount/disk.raw" --rw=randwrite --bsrange=4k-64k --size=8m \\
            --offset_increment=8m --numjobs=4 --thread --verify=crc32c --verify_fatal=1 --time_based \\
            --runtime=\(seconds) --output="$work/fio" &
          fio=$!
          count=0
          while [ -e /proc/$fio/exe ]; do
            mkdir snapshots/s$count
            [ $count -lt 3 ] || rmdir snapshots/s$((count - 3))
            count=$((count + 1))
          done
          wait $fio || { cat "$work/fio"; exit 1; }
          echo "$count snapshots"
          cmp snapshots/quiet/disk.raw "$work/quiet.raw"
          """, ["mount": mount.path, "work": folder.path], in: folder, timeout: 200)
      }
      let raw = folder.file("judged.raw")
      try ReferenceTool.qemuImg("convert", "-l", "snapshot.name=quiet", "-O", "raw", image, raw)
      try GuestImages.expectSame(raw, folder.file("quiet.raw"))
      let list = try ReferenceTool.qemuImg("snapshot", "-l", image).stdoutText
      #expect(list.split(separator: "\n").count == 2 + 4)
    }
  }
}
