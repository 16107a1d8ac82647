import Glibc
import TestSupport
import Testing

/// What makes no sense in the tree fails as the manual pages of the calls say.
@Suite(.enabled(if: MountedImage.isPossible), .serialized) struct RefusalTests {
  /// A call, made on a mount; gives what errno says, 0 where it went well.
  private struct Call: Sendable {
    var name: String
    var number: CInt
    var run: @Sendable (MountedImage) -> CInt

    init(_ name: String, _ number: CInt, _ run: @escaping @Sendable (MountedImage) -> CInt) {
      (self.name, self.number, self.run) = (name, number, run)
    }
  }

  /// Calls that change names, or what is known of a file.
  private static func changes(_ refusal: CInt) -> [Call] {
    [
      Call("rename", refusal) { unsafe rename($0.file("disk.raw"), $0.file("new")) },
      Call("rename a folder", refusal) { unsafe rename($0.file("layers"), $0.file("new")) },
      Call("link", refusal) { unsafe link($0.file("disk.raw"), $0.file("new")) },
      Call("symlink", refusal) { unsafe symlink("disk.raw", $0.file("new")) },
      Call("mkdir", refusal) { unsafe mkdir($0.file("new"), 0o755) },
      Call("unlink", refusal) { unsafe unlink($0.file("disk.raw")) },
      Call("rmdir", refusal) { unsafe rmdir($0.file("layers")) },
      Call("mknod", refusal) { unsafe mknod($0.file("new"), S_IFREG | 0o644, 0) },
      Call("mkfifo", refusal) { unsafe mkfifo($0.file("new"), 0o644) },
      Call("create", refusal) { unsafe open($0.file("new"), O_WRONLY | O_CREAT, 0o644) },
      Call("chmod", refusal) { unsafe chmod($0.file("disk.raw"), 0o600) },
      Call("chown", refusal) { unsafe chown($0.file("disk.raw"), 1, 1) },
      Call("times of a text", refusal) { unsafe utimes($0.file("info.json"), nil) },
      Call("truncate a text", refusal) { unsafe truncate($0.file("info.json"), 0) },
    ]
  }

  private static let writable: [Call] =
    changes(EPERM) + [
      Call("mkdir of what is there", EEXIST) { unsafe mkdir($0.file("layers"), 0o755) },
      Call("symlink to what is there", EEXIST) { unsafe symlink("x", $0.file("disk.raw")) },
      Call("unlink of nothing", ENOENT) { unsafe unlink($0.file("nothing")) },
      Call("rmdir of nothing", ENOENT) { unsafe rmdir($0.file("snapshots/nothing")) },
      Call("rmdir of a file", ENOTDIR) { unsafe rmdir($0.file("disk.raw")) },
      Call("create in snapshots", EPERM) { unsafe open($0.file("snapshots/new"), O_WRONLY | O_CREAT, 0o644) },
      Call("write a text", EACCES) { unsafe open($0.file("info.json"), O_WRONLY) },
      Call("write a layer", EACCES) { unsafe open($0.file("layers/0-image.qcow2/disk.raw"), O_WRONLY) },
      Call("write a folder", EISDIR) { unsafe open($0.file("layers"), O_WRONLY) },
      Call("nameless file", EOPNOTSUPP) { unsafe open($0.path, O_RDWR | 0o20200000, 0o600) },
      Call("truncate to less", EPERM) { unsafe truncate($0.file("disk.raw"), 0) },
      Call("truncate to too much", EFBIG) { unsafe truncate($0.file("disk.raw"), 1 << 62) },
      Call("truncate to less than nothing", EINVAL) { unsafe truncate($0.file("disk.raw"), -1) },
      Call("readlink", EINVAL) {
        var byte: CChar = 0
        return unsafe CInt(readlink($0.file("disk.raw"), &byte, 1))
      },
      Call("times", 0) { unsafe utimes($0.file("disk.raw"), nil) },
    ]

  private static let readOnly: [Call] =
    changes(EROFS) + [
      Call("take a snapshot", EROFS) { unsafe mkdir($0.file("snapshots/new"), 0o755) },
      Call("write", EROFS) { unsafe open($0.file("disk.raw"), O_RDWR) },
      Call("truncate", EROFS) { unsafe truncate($0.file("disk.raw"), 0) },
      Call("times", EROFS) { unsafe utimes($0.file("disk.raw"), nil) },
    ]

  @Test(arguments: ["rw", "ro"]) func failWithTheNumbersOfTheManual(_ option: String) throws {
    try TemporaryFolder.with { folder in
      let kind = WritableImage(format: "qcow2")
      let image = try kind.make(4 << 20, in: folder)
      try kind.mounted(image, options: option, in: folder) { mount in
        for call in option == "rw" ? Self.writable : Self.readOnly {
          let result = call.run(mount)
          let number = result < 0 ? errno : 0
          if result > 2 { close(result) }
          // Root may open what nobody may write; the mount says no all the same.
          #expect(number == call.number, "\(call.name) in a mount that is \(option)")
        }
        let output = try Shell.run(
          """
          python3 - "$disk" <<'PYTHON'
          import errno, os, sys
          disk = sys.argv[1]
          for name, call in {
              "set": lambda: os.setxattr(disk, "user.imgfs.format", b"raw"),
              "remove": lambda: os.removexattr(disk, "user.imgfs.format"),
              "set another": lambda: os.setxattr(disk, "user.other", b"1"),
              "get none": lambda: os.getxattr(disk, "user.other"),
          }.items():
              try:
                  call()
              except OSError as error:
                  print(name, errno.errorcode[error.errno])
          PYTHON
          """, ["disk": mount.file("disk.raw")], in: folder)
        let (refusal, other) = option == "rw" ? ("EPERM", "ENOTSUP") : ("EROFS", "EROFS")
        #expect(output == "set \(refusal)\nremove \(refusal)\nset another \(other)\nget none ENODATA\n")
        var status = stat()
        #expect(unsafe stat(mount.file("disk.raw"), &status) == 0)
        #expect(status.st_size == 4 << 20)
      }
    }
  }
}
