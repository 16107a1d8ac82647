import CommandLine
import FormatEngine

/// All settings of a mount, in the order of the help.
enum SettingTable {
  static let all = life + image + mount

  /// How the program goes to work.
  static let life: [Setting] = [
    Setting("foreground", "f", as: .option, "stay in front; otherwise imgfs returns when the tree is there") {
      options, _ in options.isForeground = true
    },
    Setting("debug", "d", as: .both, "print every request (stays in front)") { options, _ in
      (options.isDebugging, options.isForeground) = (true, true)
    },
    Setting("single-thread", "s", as: .both, "answer one request at a time") { options, _ in
      options.isSingleThreaded = true
    },
    Setting(
      "pid-file", as: .both, takes: ArgumentValue("FILE", .file),
      "write the process number to FILE once the tree is there"
    ) { $0.pidFile = $1.value },
    Setting(
      "seccomp", as: .both,
      "once the tree is there, have the kernel refuse every system call that it does not take"
    ) { options, _ in options.refusesUnusualCalls = true },
  ]

  /// What is opened, and how.
  static let image: [Setting] = [
    Setting(
      "format", "F", as: .both, takes: ArgumentValue("FMT", .format),
      "format of IMAGE; otherwise it is found out"
    ) { $0.format = $1.value },
    Setting(
      "image-opts", as: .both, "IMAGE is a list of options: driver=qcow2,file.filename=..."
    ) { options, _ in options.usesImageOptions = true },
    Setting(
      "snapshot", as: .both, takes: ArgumentValue("NAME"), "mount this internal snapshot (an id or a name)"
    ) { $0.snapshot = $1.value },
    Setting(
      "backing", as: .both, takes: ArgumentValue("MODE", .words(["follow", "none"])),
      "follow (all layers below IMAGE, the default) or none"
    ) { (options, given) throws(UsageError) in
      switch given.value {
      case "follow": options.followsBacking = true
      case "none": options.followsBacking = false
      default: throw UsageError("\(given.spelling) is 'follow' or 'none', not '\(given.value)'")
      }
    },
    Setting(
      "allow-path", as: .both, takes: ArgumentValue("DIR", .file),
      "images may name files in DIR, too, besides their own folder; may be repeated"
    ) { $0.allowedFolders.append($1.value) },
    Setting(
      "force-share", "U", as: .both, "read an image that a running machine may be changing; it may be stale"
    ) { options, _ in options.forcesSharing = true },
    Setting(
      "object", as: .both, takes: ArgumentValue("DEF"),
      "secret,id=ID,file=FILE: a secret that --image-opts names; may be repeated"
    ) { $0.objects.append($1.value) },
    Setting(
      "passphrase-file", as: .both, takes: ArgumentValue("FILE", .file),
      "passphrase of an encrypted IMAGE, less a line feed at its end"
    ) { (options, given) throws(UsageError) in
      try options.setPassphrase(.file(given.value))
    },
    Setting(
      "passphrase-fd", as: .option, takes: ArgumentValue("N"), "the same from an open descriptor"
    ) { (options, given) throws(UsageError) in
      try options.setPassphrase(.descriptor(CInt(clamping: try given.number(upTo: UInt32(CInt.max)))))
    },
    Setting(
      "overlay", as: .both, takes: ArgumentValue("FILE", .file),
      "put writes into this qcow2 file instead of IMAGE; 'tmp' throws them away in the end"
    ) { (options, given) throws(UsageError) in
      guard !given.value.isEmpty else { throw UsageError("\(given.spelling) is a file or 'tmp'") }
      options.overlay = given.value == "tmp" ? .temporary : .file(given.value)
    },
  ]

  /// What is said in lists of mount options only.
  static let mount: [Setting] = [
    Setting("ro", as: .mountOption, "nothing can be written (the default of imgfs, not of mount(8))") {
      options, _ in options.givenAccess = .readOnly
    },
    Setting("rw", as: .mountOption, "disks and partitions can be written") { options, _ in
      options.givenAccess = .readWrite
    },
    Setting("shrink", as: .mountOption, "truncating a disk may make it smaller, too") { options, _ in
      options.allowsShrinking = true
    },
    Setting(
      "idle", as: .mountOption, takes: ArgumentValue("SECONDS"),
      "when one of several images is closed again (10)"
    ) { (options, given) throws(UsageError) in options.idleSeconds = try given.number() },
    Setting(
      "uid", as: .mountOption, takes: ArgumentValue("N"), "owner that the files show (the user who mounts)"
    ) { (options, given) throws(UsageError) in options.userID = try given.number() },
    Setting(
      "gid", as: .mountOption, takes: ArgumentValue("N"), "group that the files show (that of the user)"
    ) {
      (options, given) throws(UsageError) in options.groupID = try given.number()
    },
    Setting(
      "umask", as: .mountOption, takes: ArgumentValue("OCTAL"), "permissions that the files do not have (0)"
    ) { (options, given) throws(UsageError) in options.umask = try given.number(radix: 8) & 0o777 },
    Setting(
      "fsname", as: .mountOption, takes: ArgumentValue("NAME"),
      "what /proc/mounts shows as the source (IMAGE)"
    ) { $0.passedOn.append("fsname=\($1.value)") },
  ]
}

extension UsageError {
  init(_ sentence: String) { self.sentence = sentence }
}

extension Setting.Given {
  /// The value as a number without a sign.
  func number(radix: Int = 10, upTo limit: UInt32 = .max) throws(UsageError) -> UInt32 {
    guard let number = UInt32(value, radix: radix), number <= limit, !value.hasPrefix("+") else {
      throw UsageError("\(spelling) takes a number, not '\(value)'")
    }
    return number
  }
}

extension MountOptions {
  mutating func setPassphrase(_ source: PassphraseSource) throws(UsageError) {
    guard passphrase == nil || passphrase == source else {
      throw UsageError("There is one passphrase: --passphrase-file and --passphrase-fd are given once")
    }
    passphrase = source
  }
}
