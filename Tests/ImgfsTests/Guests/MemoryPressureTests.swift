import Foundation
import TestSupport
import Testing

/// A guest that writes more than there is memory for: what has to be written for memory to become free has to go through
/// the process that serves the mount.
///
/// With a memory controller of version 1 that process may only be in the group itself if it has CAP_SYS_RESOURCE, which
/// lets it say that it must not wait for such writes (PR_SET_IO_FLUSHER). Without, it waits for itself, and nothing but
/// aborting the connection ends that.
@Suite(.enabled(if: MountedImage.canLoopMount), .serialized) struct MemoryPressureTests {
  /// The controller's folder, version 1 or 2, where groups can be made.
  private static let controller: String? = {
    for (folder, file) in [
      ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"),
    ] {
      let place = "\(folder)/imgfs-probe-\(getpid())"
      guard unsafe mkdir(place, 0o755) == 0 else { continue }
      defer { _ = unsafe rmdir(place) }
      if Files.exists("\(place)/\(file)") { return folder }
    }
    return nil
  }()

  private static let mayBecomeFlusher: Bool = {
    let status = (try? Files.read("/proc/self/status")).map { String(decoding: $0, as: UTF8.self) } ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("CapEff:") } ?? ""
    return (line.split(separator: "\t").last.flatMap { UInt64($0, radix: 16) } ?? 0) & 1 << 24 != 0
  }()

  /// The writer, the file system's pages and, where it may, imgfs with its image share 64 MiB; several times as much is
  /// written.
  @Test(
    .enabled(if: controller != nil),
    arguments: Effort.current == .soak ? ["qcow2", "vdi", "vhdx", "raw"] : ["qcow2"])
  func writesMoreThanMemoryHolds(_ format: String) throws {
    let mebibytes = Effort.current == .soak ? 640 : 192
    try TemporaryFolder.with { folder in
      let kind = WritableImage(format: format)
      let image = try kind.make((mebibytes + 128) << 20, in: folder)
      defer { _ = try? Shell.run("umount --lazy guest mount || true", in: folder) }
      let output = try Shell.run(
        """
        group=$controller/imgfs-test-$$
        mkdir "$group"
        trap 'umount guest 2>/dev/null || true; "$imgfs" --unmount mount || true
          echo $$ >"$controller/cgroup.procs"; rmdir "$group" || true' EXIT
        if [ -e "$group/memory.max" ]; then limit=memory.max; else limit=memory.limit_in_bytes; fi
        echo $((64 << 20)) >"$group/$limit"
        mkdir mount guest
        if $inside; then echo $$ >"$group/cgroup.procs"; fi
        "$imgfs" -F \(format) -o rw "$image" mount
        echo $$ >"$group/cgroup.procs"
        mkfs.ext4 -q -F mount/disk.raw
        mount -o loop mount/disk.raw guest
        dd if=/dev/urandom of=guest/file bs=1M count=\(mebibytes) status=none
        dd if=guest/file of=guest/copy bs=64k count=500 oflag=direct status=none
        sync guest/file
        sha256sum <guest/file >sum
        umount guest
        """,
        [
          "imgfs": try BuiltProduct.imgfs.path, "image": image, "controller": Self.controller ?? "",
          "inside": Self.mayBecomeFlusher ? "true" : "false",
        ], in: folder,
        timeout: 280)
      #expect(output == "")
      try kind.expectSound(image)
      let raw = try kind.judged(image, in: folder)
      try LoopMount.with(raw, "ro", in: folder) { place in
        try Shell.run("sha256sum <\"$place/file\" | cmp - sum", ["place": place], in: folder)
      }
    }
  }
}
