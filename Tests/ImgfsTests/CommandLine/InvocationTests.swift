import CommandLine
import Testing

@testable import imgfs

/// What command lines mean, and what is wrong with those that mean nothing.
@Suite struct InvocationTests {
  private static func mount(_ arguments: [String]) throws -> MountOptions {
    guard case .mount(let options) = try Invocation.parse(arguments) else {
      throw UsageError("not a mount")
    }
    return options
  }

  private static func complaint(_ arguments: [String]) -> String? {
    do throws(UsageError) {
      _ = try Invocation.parse(arguments)
      return nil
    } catch { return error.sentence }
  }

  /// What stands between "a" and "b", and what it changes.
  struct Line: CustomTestStringConvertible, Sendable {
    let words: [String]
    let change: @Sendable (inout MountOptions) -> Void
    var testDescription: String { words.joined(separator: " ") }

    init(_ words: String..., change: @escaping @Sendable (inout MountOptions) -> Void) {
      self.words = words
      self.change = change
    }
  }

  static let lines: [Line] = [
    Line { _ in },
    Line("-f") { $0.isForeground = true },
    Line("-d") { ($0.isDebugging, $0.isForeground) = (true, true) },
    Line("-o", "debug") { ($0.isDebugging, $0.isForeground) = (true, true) },
    Line("-s") { $0.isSingleThreaded = true },
    Line("-o", "single_thread") { $0.isSingleThreaded = true },
    Line("-fs", "-Fqcow2") { ($0.isForeground, $0.isSingleThreaded, $0.format) = (true, true, "qcow2") },
    Line("--pid-file", "p") { $0.pidFile = "p" },
    Line("-o", "pid_file=p") { $0.pidFile = "p" },
    Line("-F", "vmdk") { $0.format = "vmdk" },
    Line("--format=vmdk") { $0.format = "vmdk" },
    Line("-o", "format=vmdk") { $0.format = "vmdk" },
    Line("--image-opts") { $0.usesImageOptions = true },
    Line("-o", "image_opts") { $0.usesImageOptions = true },
    Line("--snapshot", "one,two") { $0.snapshot = "one,two" },
    Line("-o", "snapshot=one\\,two") { $0.snapshot = "one,two" },
    Line("--backing=none") { $0.followsBacking = false },
    Line("-o", "backing=none") { $0.followsBacking = false },
    Line("-o", "backing=none,backing=follow") { _ in },
    Line("--allow-path", "/x", "-o", "allow_path=/y,allow_path=\"/a,b\"") {
      $0.allowedFolders = ["/x", "/y", "/a,b"]
    },
    Line("-U") { $0.forcesSharing = true },
    Line("--force-share") { $0.forcesSharing = true },
    Line("-o", "ro,force_share") { ($0.forcesSharing, $0.givenAccess) = (true, .readOnly) },
    Line("--object", "secret,id=a,data=b") { $0.objects = ["secret,id=a,data=b"] },
    Line("-o", "object=secret\\,id=a\\,file=b") { $0.objects = ["secret,id=a,file=b"] },
    Line("--passphrase-file", "p") { $0.passphrase = .file("p") },
    Line("-o", "passphrase_file=p") { $0.passphrase = .file("p") },
    Line("--passphrase-fd", "7") { $0.passphrase = .descriptor(7) },
    Line("--overlay", "o.qcow2") { $0.overlay = .file("o.qcow2") },
    Line("--overlay=tmp") { $0.overlay = .temporary },
    Line("-o", "rw,overlay=./tmp,shrink") {
      ($0.overlay, $0.givenAccess, $0.allowsShrinking) = (.file("./tmp"), .readWrite, true)
    },
    Line("--snapshot", "s", "--overlay", "tmp") { ($0.snapshot, $0.overlay) = ("s", .temporary) },
    Line("-o", "idle=0") { $0.idleSeconds = 0 },
    Line("-o", "rw") { $0.givenAccess = .readWrite },
    Line("-o", "rw,ro") { $0.givenAccess = .readOnly },
    Line("-o", "ro", "-o", "rw,shrink") { ($0.givenAccess, $0.allowsShrinking) = (.readWrite, true) },
    Line("-o", "ro,uid=1000,gid=100,umask=027,allow_other", "-o", "noexec,fsname=a\\,b,x-s.idle-timeout=3,,")
    {
      ($0.givenAccess, $0.userID, $0.groupID, $0.umask) = (.readOnly, 1000, 100, 0o27)
      $0.passedOn = ["allow_other", "noexec", "fsname=a,b"]
    },
    Line("-o", "uid=4294967295") { $0.userID = .max },
    Line("-o", "context=\"system_u:object_r:x_t:s0:c1,c2\"") {
      $0.passedOn = ["context=system_u:object_r:x_t:s0:c1,c2"]
    },
    // What mount(8) and mount.fuse3 add, and fstab has for others.
    Line(
      "-o",
      "rw,dev,suid,noauto,nofail,_netdev,user,user=me,x-gvfs-hide,comment=x,default_permissions,lazytime"
    ) {
      ($0.givenAccess, $0.passedOn) = (.readWrite, ["dev", "suid"])
    },
  ]

  @Test(arguments: lines) func changesWhatItSays(_ line: Line) throws {
    var expected = MountOptions()
    (expected.images, expected.mountPoint) = (["a"], "b")
    line.change(&expected)
    #expect(try Self.mount(line.words + ["a", "b"]) == expected)
    #expect(try Self.mount(["a"] + line.words + ["b"]) == expected)
    #expect(try Self.mount(["a", "b"] + line.words) == expected)
  }

  @Test func takesSeveralImages() throws {
    let options = try Self.mount(["--", "a", "-b", "c", "-d"])
    #expect(options.images == ["a", "-b", "c"] && options.mountPoint == "-d")
  }

  @Test(arguments: [
    ("-o nosuch", "Unknown mount option 'nosuch'"),
    ("-o allow_other=1", "Unknown mount option 'allow_other=1'"),
    ("-o allow-path=/x", "Unknown mount option 'allow-path=/x'"),
    ("-o foreground", "Unknown mount option 'foreground'"),
    ("-o passphrase_fd=3", "Unknown mount option 'passphrase_fd=3'"),
    ("-o user_id=0", "Unknown mount option 'user_id=0'"),
    ("-o uid", "The mount option 'uid' needs a value"),
    ("-o ro=1", "The mount option 'ro' takes no value"),
    ("-o uid=me", "The mount option 'uid' takes a number, not 'me'"),
    ("-o uid=-1", "The mount option 'uid' takes a number, not '-1'"),
    ("-o uid=4294967296", "The mount option 'uid' takes a number, not '4294967296'"),
    ("-o umask=9", "The mount option 'umask' takes a number, not '9'"),
    ("-o idle=soon", "The mount option 'idle' takes a number, not 'soon'"),
    ("-o backing=some", "The mount option 'backing' is 'follow' or 'none', not 'some'"),
    ("--backing some", "--backing is 'follow' or 'none', not 'some'"),
    ("--passphrase-fd +3", "--passphrase-fd takes a number, not '+3'"),
    ("--passphrase-fd 4294967295", "--passphrase-fd takes a number, not '4294967295'"),
    ("--overlay=", "--overlay is a file or 'tmp'"),
    ("--nosuch", "unrecognized option '--nosuch'"),
    ("-xf", "unrecognized option '-x'"),
    ("-fx", "unrecognized option '-x'"),
    ("--help=1", "unrecognized option '--help=1'"),
    // Of --pid-file and --passphrase-file.
    ("--p x", "unrecognized option '--p'"),
    (
      "--passphrase-fd 3 --passphrase-file x",
      "There is one passphrase: --passphrase-file and --passphrase-fd are given once"
    ),
    ("--image-opts -F raw", "--image-opts and --format are mutually exclusive"),
    (
      "--image-opts --passphrase-file x",
      "--image-opts names its secrets itself: give them with --object instead of --passphrase-file"
    ),
    ("-o ro,overlay=x", "--overlay is there to be written: it cannot stand beside the mount option 'ro'"),
    (
      "-o rw,force_share",
      "What another program may be changing (--force-share) can only be mounted with 'ro', not 'rw' (which mount(8)"
        + " adds where 'ro' is not given)"
    ),
    (
      "-U --overlay tmp",
      "What another program may be changing (--force-share) can only be mounted with 'ro', without an --overlay"
    ),
    (
      "--snapshot s -o rw",
      "A snapshot (--snapshot) can only be mounted with 'ro', or with an --overlay, not 'rw' (which mount(8) adds"
        + " where 'ro' is not given)"
    ),
    (
      "--backing none -o rw",
      "An image without what lies below it (--backing none) can only be mounted with 'ro', or with an --overlay, not"
        + " 'rw' (which mount(8) adds where 'ro' is not given)"
    ),
    ("-o shrink", "The mount option 'shrink' needs 'rw' or --overlay beside it"),
    ("--overlay x c", "--overlay FILE takes one image"),
    ("--snapshot x c", "--snapshot takes one image"),
  ])
  func refuses(_ words: String, _ sentence: String) {
    #expect(Self.complaint(words.split(separator: " ").map(String.init) + ["a", "b"]) == sentence)
  }

  @Test(arguments: [
    ("", "Expecting an image and a mount point"), ("a", "Expecting an image and a mount point"),
    ("--unmount", "--unmount takes one mount point"), ("-u a b", "--unmount takes one mount point"),
    ("--commit", "--commit takes one mount point"),
    ("--commit --unmount a", "--unmount and --commit are mutually exclusive"),
    ("a b -F", "missing argument for option '-F'"),
  ])
  func refusesOtherNumbersOfWords(_ words: String, _ sentence: String) {
    #expect(Self.complaint(words.split(separator: " ").map(String.init)) == sentence)
  }

  @Test func understandsTheOtherWork() throws {
    #expect(try Invocation.parse(["--unmount", "mnt"]) == .unmount("mnt"))
    #expect(try Invocation.parse(["mnt", "-u"]) == .unmount("mnt"))
    #expect(try Invocation.parse(["--commit", "mnt"]) == .commit("mnt"))
    #expect(try Invocation.parse(["--help"]) == .help)
    #expect(try Invocation.parse(["--version", "whatever"]) == .version)
    #expect(
      try Invocation.parse(["--object", "help"]) == .text("List of user creatable objects:\n  secret\n"))
  }

  @Test func theTableNamesEverythingOnce() {
    let spellings =
      SettingTable.all.compactMap(\.option).flatMap(\.spellings)
      + Invocation.actions.flatMap(\.spellings) + Invocation.mountOptionList.spellings
    #expect(Set(spellings).count == spellings.count)
    let names = SettingTable.all.compactMap(\.mountName)
    #expect(Set(names).count == names.count)
    #expect(MountOptionList.kernelFlags.union(MountOptionList.withoutEffect).isDisjoint(with: names))
  }

  @Test func helpHasEverySettingOn80Columns() {
    let help = HelpText.text
    for option in SettingTable.all.compactMap(\.option) + Invocation.actions {
      #expect(help.contains("--\(option.key)"), "\(option.key)")
    }
    for name in SettingTable.all.compactMap(\.mountName) + Array(MountOptionList.kernelFlags) {
      #expect(help.contains(name), "\(name)")
    }
    #expect(help.split(separator: "\n").allSatisfy { $0.count <= 80 })
  }
}
