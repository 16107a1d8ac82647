/// Names of images as users and images write them.
public enum ImageName {
  /// Protocols of QEMU that are not built in; a name that begins so is no file name.
  static let protocols: Set<String> = [
    "blkdebug", "blklogwrites", "blkverify", "copy-on-read", "fat", "ftp", "ftps", "fuse", "gluster",
    "host_cdrom", "host_device", "http", "https", "io_uring", "iscsi", "nbd", "nbd+tcp", "nbd+unix",
    "nfs",
    "null-aio", "null-co", "nvme", "quorum", "rbd", "replication", "ssh", "throttle", "virtio-blk-vhost-vdpa",
  ]

  /// Whether an image may record `format` for the file below it: a format, or what QEMU has for files that hold none.
  public static func isDriver(_ format: String) -> Bool {
    format == "file" || protocols.contains(format) || FormatCatalog.format(named: format) != nil
  }

  /// The path that `name` stands for: `file:` is taken off, other protocols are refused by name.
  public static func plainPath(_ name: String, allowingFilePrefix: Bool = true) throws(EngineError) -> String
  {
    guard let prefix = protocolPrefix(of: name) else { return name }
    if prefix == "file" && allowingFilePrefix {
      let path = String(name.dropFirst("file:".count))
      // What is left may look like a protocol itself; with a folder before it, it no longer does.
      return protocolPrefix(of: path) == nil ? path : "./" + path
    }
    if prefix == "file" || protocols.contains(prefix) {
      throw .unsupported("Protocol '\(prefix)' is not built in")
    }
    throw .unsupported("Unknown protocol '\(prefix)'")
  }

  /// What follows `json:` in a name that describes a tree of drivers.
  static func jsonText(of name: String) -> String? {
    name.hasPrefix("json:") ? String(name.dropFirst("json:".count)) : nil
  }

  /// The driver of names such as `null-co://`, which stand for zeros and for no file.
  static func nullDriver(of name: String) -> String? {
    ["null-co", "null-aio"].first { name == $0 + "://" }
  }

  /// What stands before the first colon, if that colon comes before any slash.
  static func protocolPrefix(of name: String) -> String? {
    guard let colon = name.utf8.firstIndex(of: UInt8(ascii: ":")) else { return nil }
    let prefix = name[..<colon]
    return prefix.utf8.contains(UInt8(ascii: "/")) ? nil : String(prefix)
  }

  /// `name` as it is when absolute, else below the folder that holds `path`.
  public static func join(_ name: String, toFolderOf path: String) -> String {
    if name.hasPrefix("/") { return name }
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return name }
    return String(path[...slash]) + name
  }

  /// The part after the last slash.
  public static func lastComponent(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return path }
    return String(path[path.utf8.index(after: slash)...])
  }
}
