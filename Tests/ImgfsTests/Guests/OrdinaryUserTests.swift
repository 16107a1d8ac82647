import Foundation
import TestSupport
import Testing

/// An ordinary user mounts an image with imgfs and the file system in it with fuse2fs: no root, no loop device.
@Suite(.enabled(if: MountedImage.ordinaryUsersMay && Files.exists("/usr/bin/fuse2fs")), .serialized)
struct OrdinaryUserTests {
  @Test func mountsAGuestWithoutRoot() throws {
    try TemporaryFolder.with { folder in
      // Root becomes somebody else; others are ordinary already.
      let user = getuid() == 0 ? "setpriv --reuid=65534 --regid=65534 --clear-groups" : "env"
      try Shell.run(
        "chmod 755 .; mkdir own; [ $EUID != 0 ] || chown 65534:65534 own; cp \"$imgfs\" own/imgfs; chmod 755 own/imgfs",
        ["imgfs": try BuiltProduct.imgfs.path], in: folder)
      defer { _ = try? Shell.run("umount --lazy own/guest own/image || true", in: folder) }
      let output = try Shell.run(
        """
        cd own
        cat >steps <<'STEPS'
        set -eux
        qemu-img create -q -f qcow2 disk.qcow2 32M
        mkdir image guest
        ./imgfs -o rw disk.qcow2 image
        mkfs.ext4 -q -F -E root_owner image/disk.raw
        fuse2fs -o rw image/disk.raw guest
        mkdir guest/folder
        head -c 3M /dev/urandom >source
        cp source guest/folder/file
        ln -s file guest/folder/link
        sync guest/folder/file
        fusermount3 -u guest
        for attempt in $(seq 200); do ./imgfs --unmount image 2>/dev/null && break; sleep 0.05; done
        ! mountpoint -q image
        qemu-img check -q disk.qcow2
        qemu-img convert -O raw disk.qcow2 disk.raw
        e2fsck -fn disk.raw
        ./imgfs disk.qcow2 image
        fuse2fs -o ro image/disk.raw guest
        cmp source guest/folder/link
        stat -c %u image/disk.raw
        fusermount3 -u guest
        for attempt in $(seq 200); do ./imgfs --unmount image 2>/dev/null && break; sleep 0.05; done
        ! mountpoint -q image
        TMPDIR=$PWD ./imgfs --overlay tmp disk.qcow2 image
        printf folded | dd of=image/disk.raw conv=notrunc status=none
        ./imgfs --commit image
        for attempt in $(seq 200); do ./imgfs --unmount image 2>/dev/null && break; sleep 0.05; done
        qemu-img convert -O raw disk.qcow2 disk.raw
        test "$(head -c 6 disk.raw)" = folded
        STEPS
        timeout 60 $user bash steps
        """, ["user": user], in: folder)
      #expect(output.contains(getuid() == 0 ? "\n65534\n" : "\n\(getuid())\n"))
    }
  }

  /// Runs `steps` as somebody else than root, in a folder of his own with a disk and imgfs.
  private func asOrdinary(_ steps: String, in folder: TemporaryFolder) throws -> String {
    let user = getuid() == 0 ? "setpriv --reuid=65534 --regid=65534 --clear-groups" : "env"
    try Shell.run(
      """
      chmod 755 .; mkdir own; cp "$imgfs" own/imgfs; chmod 755 own/imgfs
      truncate -s 1M own/disk.raw; mkdir own/mnt; [ $EUID != 0 ] || chown -R 65534:65534 own
      """, ["imgfs": try BuiltProduct.imgfs.path], in: folder)
    defer { _ = try? Shell.run("umount --lazy own/mnt || true", in: folder) }
    return try Shell.run(
      "cd own\ncat >steps <<'STEPS'\nset -eu\n\(steps)\nSTEPS\ntimeout 60 $user bash steps", ["user": user],
      in: folder)
  }

  /// Who starts programs with SIGCHLD ignored hears of none that has ended: a helper that failed has failed all the same.
  @Test func unmountFailsWhereItsHelperFails() throws {
    try TemporaryFolder.with { folder in
      let output = try asOrdinary(
        """
        ./imgfs -F raw disk.raw mnt
        exec 5<mnt/disk.raw
        env --ignore-signal=CHLD ./imgfs --unmount mnt && echo unmounted || echo refused
        mountpoint -q mnt && echo stays
        exec 5<&-
        env --ignore-signal=CHLD ./imgfs --unmount mnt && echo unmounted
        mountpoint -q mnt || echo gone
        env --ignore-signal=CHLD ./imgfs -F qcow2 disk.raw mnt || echo failed
        """, in: folder)
      #expect(output.contains("Device or resource busy\nrefused\nstays\nunmounted\ngone\n"), "\(output)")
      #expect(output.hasSuffix("failed\n"))
    }
  }

  /// Whoever unmounts is content where somebody else was quicker.
  @Test func severalMayUnmountAtOnce() throws {
    try TemporaryFolder.with { folder in
      let output = try asOrdinary(
        """
        for round in 1 2 3 4 5 6 7 8 9 10; do
          ./imgfs -F raw disk.raw mnt
          for number in 1 2 3 4; do ./imgfs --unmount mnt 2>&1 & done
          wait
          mountpoint -q mnt && echo stays
        done
        echo done
        """, in: folder)
      let lines = output.split(separator: "\n").filter { !$0.contains("is not a mount point of imgfs") }
      #expect(lines == ["done"])
    }
  }

  /// What is not confined is not to be traced by those who are the same user.
  @Test(.enabled(if: geteuid() == 0)) func secondProcessCannotBeTraced() throws {
    try TemporaryFolder.with { folder in
      let output = try asOrdinary(
        """
        ./imgfs -F raw --pid-file pid disk.raw mnt
        stat -c %u /proc/$(pgrep -P $(cat pid))/environ
        ./imgfs --unmount mnt
        """, in: folder)
      #expect(output == "0\n")
    }
  }
}
