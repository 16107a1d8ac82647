internal import CFuse
import FormatEngine
import Glibc

/// What the command line asks for.
enum Invocation: Equatable {
  case help
  case version
  case unmount(String)
  case mount(MountOptions)
}

/// A command line that makes no sense, in one sentence; getopt has printed it already where it is nil.
struct UsageError: Error, Equatable {
  var sentence: String?
}

/// How to mount an image.
struct MountOptions: Equatable {
  var image = ""
  var mountPoint = ""
  /// As `-F` takes it; nil probes.
  var format: String?
  var followsBacking = true
  var isWritable = false
  /// Whether a disk may be made smaller.
  var mayShrink = false
  var isForeground = false
  var isDebugging = false
  var isSingleThreaded = false
  var pidFile: String?
  /// Owner that the files show; nil: the user who mounts.
  var userID: UInt32?
  var groupID: UInt32?
  /// Permissions that files and folders do not have.
  var umask: UInt32 = 0
  /// What goes to the kernel as it is.
  var passedOn: [String] = []

  private static let shortOptions = "fdsF:o:uhV"
  private static let longOptions: [(name: StaticString, takesValue: Bool, value: Character)] = [
    ("foreground", false, "f"), ("debug", false, "d"), ("single-thread", false, "s"), ("format", true, "F"),
    ("options", true, "o"), ("unmount", false, "u"), ("backing", true, "b"), ("pid-file", true, "p"),
    ("help", false, "h"), ("version", false, "V"),
  ]

  static let help = """
    Usage: imgfs [OPTION]... IMAGE MOUNTPOINT
           imgfs --unmount MOUNTPOINT
    Show a disk image, its snapshots and its layers as raw disks below MOUNTPOINT.

      -f, --foreground       stay in front; otherwise imgfs returns when the tree is there
      -d, --debug            print every request (stays in front)
      -s, --single-thread    answer one request at a time
      -F, --format FMT       format of IMAGE; otherwise it is found out
          --backing MODE     follow (all layers below IMAGE, the default) or none
          --pid-file FILE    write the process number to FILE once the tree is there
      -u, --unmount          take the tree away; returns when its process has ended
      -h, --help             print this text
      -V, --version          print the version

    Mount options, after -o, separated by commas:
      ro                     the only way there is, so far
      allow_other            other users may look too
      default_permissions    always on: the kernel checks the files' modes
      uid=N, gid=N           owner that the files show (the user who mounts)
      umask=OCTAL            permissions that the files do not have (0)
      fsname=NAME            what /proc/mounts shows as the source (IMAGE)
      auto_unmount, nosuid, suid, nodev, dev, noexec, exec, noatime, atime, sync, async, dirsync,
      context=..., and what /etc/fstab has for others (defaults, noauto, nofail, _netdev, x-...)

    """

  /// Understands a command line, without the program's name. One thread at a time: getopt's state is
  /// global.
  static func parse(_ arguments: [String]) throws(UsageError) -> Invocation {
    var options = MountOptions()
    var wantsUnmount = false
    var final: Invocation?
    let operands = try scan(arguments) { (option, value) throws(UsageError) in
      switch option {
      case "f": options.isForeground = true
      case "d": (options.isDebugging, options.isForeground) = (true, true)
      case "s": options.isSingleThreaded = true
      case "F": options.format = value
      case "o": try options.addMountOptions(value)
      case "u": wantsUnmount = true
      case "b": options.followsBacking = try backingMode(value)
      case "p": options.pidFile = value
      case "h": final = final ?? .help
      default: final = final ?? .version
      }
    }
    if let final { return final }
    if wantsUnmount {
      guard operands.count == 1 else { throw UsageError(sentence: "--unmount takes one mount point") }
      return .unmount(operands[0])
    }
    guard operands.count == 2 else {
      throw UsageError(sentence: "Expecting an image and a mount point")
    }
    options.image = operands[0]
    options.mountPoint = operands[1]
    return .mount(options)
  }

  /// Runs getopt_long, gives each option to `take`, and returns the operands.
  private static func scan(
    _ arguments: [String], _ take: (_ option: Character, _ value: String) throws(UsageError) -> Void
  ) throws(UsageError) -> [String] {
    let words = CStrings(["imgfs"] + arguments)
    // SAFETY: the names are literals, which live as long as the program.
    var table = unsafe longOptions.map { entry in
      unsafe option(
        name: UnsafeRawPointer(entry.name.utf8Start).assumingMemoryBound(to: CChar.self),
        has_arg: entry.takesValue ? required_argument : no_argument, flag: nil,
        val: CInt(entry.value.asciiValue ?? 0))
    }
    unsafe table.append(option())
    imgfs_start_options()
    while true {
      let found = unsafe getopt_long(CInt(words.count), words.pointers, shortOptions, table, nil)
      if found == -1 { break }
      guard found != CInt(UInt8(ascii: "?")), let letter = UInt8(exactly: found) else {
        throw UsageError(sentence: nil)
      }
      let value = unsafe imgfs_option_argument().map { unsafe String(hostBytes: $0) } ?? ""
      try take(Character(Unicode.Scalar(letter)), value)
    }
    return (Int(imgfs_first_operand())..<words.count).compactMap { index in
      unsafe words.pointers[index].map { unsafe String(hostBytes: $0) }
    }
  }

  private static func backingMode(_ text: String) throws(UsageError) -> Bool {
    switch text {
    case "follow": return true
    case "none": return false
    default: throw UsageError(sentence: "--backing is 'follow' or 'none', not '\(text)'")
    }
  }

  private static let kernelOptions: Set<String> = [
    "allow_other", "auto_unmount", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime",
    "sync", "async", "dirsync",
  ]
  /// Meant for mount(8) and its like, always on, or about access times, which never change here.
  private static let optionsWithoutEffect: Set<String> = [
    "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "default_permissions", "ro",
    "nodiratime", "diratime", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime",
    "nolazytime",
  ]

  private mutating func addMountOptions(_ list: String) throws(UsageError) {
    for item in Self.split(list) where !item.isEmpty {
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let (name, value) = (String(parts[0]), parts.count > 1 ? String(parts[1]) : nil)
      switch (name, value) {
      case ("uid", let value?): userID = try Self.number(value, name, radix: 10)
      case ("gid", let value?): groupID = try Self.number(value, name, radix: 10)
      case ("umask", let value?): umask = try Self.number(value, name, radix: 8) & 0o777
      case ("fsname", _?), ("context", _?), ("fscontext", _?), ("rootcontext", _?), ("defcontext", _?):
        passedOn.append(item)
      case ("rw", nil): isWritable = true
      case ("ro", nil): isWritable = false
      case ("shrink", nil): mayShrink = true
      case (_, nil) where Self.kernelOptions.contains(name): passedOn.append(name)
      case (_, nil) where Self.optionsWithoutEffect.contains(name): break
      case _ where name.hasPrefix("x-"): break
      default: throw UsageError(sentence: "Unknown mount option '\(item)'")
      }
    }
  }

  /// The items of a comma list; a backslash takes the meaning from the character after it.
  private static func split(_ list: String) -> [String] {
    var items: [String] = [""]
    var isEscaped = false
    for character in list {
      switch character {
      case "\\" where !isEscaped: isEscaped = true
      case "," where !isEscaped: items.append("")
      default:
        items[items.count - 1].append(character)
        isEscaped = false
      }
    }
    return items
  }

  private static func number(_ text: String, _ name: String, radix: Int) throws(UsageError) -> UInt32 {
    guard let number = UInt32(text, radix: radix), !text.hasPrefix("+") else {
      throw UsageError(sentence: "The mount option '\(name)' takes a number, not '\(text)'")
    }
    return number
  }
}
