/// Names of images as users and images write them.
public enum ImageName {
  /// Protocols of QEMU that are not built in; a name that begins so is no file name.
  static let protocols: Set<String> = [
    "blklogwrites", "blkverify", "copy-on-read", "fat", "fuse", "host_cdrom", "host_device", "io_uring",
    "nvme",
    "quorum", "replication", "throttle", "virtio-blk-vhost-vdpa", "vvfat",
  ]

  /// Those by which QEMU reaches other machines, with the names that stand in addresses.
  static let networkProtocols: Set<String> = [
    "ftp", "ftps", "gluster", "gluster+rdma", "gluster+tcp", "gluster+unix", "http", "https", "iscsi", "iser",
    "nbd",
    "nbd+tcp", "nbd+unix", "nfs", "rbd", "sheepdog", "sheepdog+tcp", "sheepdog+unix", "ssh",
  ]

  /// Protocols that are there, and that make no images.
  private static let readOnlyProtocols: Set<String> = ["blkdebug", "null-aio", "null-co"]

  /// Says that there is no such `kind` ("protocol", "driver"), and why.
  static func unknown(_ kind: String, _ name: String) -> EngineError {
    let reason = networkProtocols.contains(name) ? ": network protocols are not built in" : ""
    return .unsupported("Unknown \(kind) '\(name)'\(reason)")
  }

  /// Whether an image may record `format` for the file below it: a format, or what QEMU has for files that hold none.
  public static func isDriver(_ format: String) -> Bool {
    format == "file" || protocols.contains(format) || networkProtocols.contains(format)
      || readOnlyProtocols.contains(format) || FormatCatalog.format(named: format) != nil
  }

  /// The path that `name` stands for: `file:` is taken off, other protocols are refused by name.
  public static func plainPath(_ name: String, allowingFilePrefix: Bool = true) throws(EngineError) -> String
  {
    guard let prefix = protocolPrefix(of: name) else { return name }
    if prefix == "file" && allowingFilePrefix {
      let path = text(after: "file:", in: name)
      // What is left may look like a protocol itself; with a folder before it, it no longer does.
      return protocolPrefix(of: path) == nil ? path : "./" + path
    }
    if prefix == "file" || protocols.contains(prefix) {
      throw .unsupported("Protocol '\(prefix)' is not built in")
    }
    if readOnlyProtocols.contains(prefix) {
      throw .unsupported("Protocol driver '\(prefix)' does not support image creation")
    }
    throw unknown("protocol", prefix)
  }

  /// The device that a name such as `host_device:/dev/sda` stands for.
  static func devicePath(of name: String) -> String? {
    protocolPrefix(of: name) == "host_device" ? text(after: "host_device:", in: name) : nil
  }

  /// Whether a name such as `file:/a` says that no device is meant.
  static func asksForRegularFile(_ name: String) -> Bool { protocolPrefix(of: name) == "file" }

  /// What follows `json:` in a name that describes a tree of drivers.
  static func jsonText(of name: String) -> String? {
    protocolPrefix(of: name) == "json" ? text(after: "json:", in: name) : nil
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

  /// What follows `prefix`, which `name` begins with. Byte by byte: a mark at the start of what follows makes one
  /// character of itself and the colon.
  private static func text(after prefix: String, in name: String) -> String {
    String(Substring(name.utf8.dropFirst(prefix.utf8.count)))
  }

  /// `name` as it is when absolute, else below the folder that holds `path`.
  public static func join(_ name: String, toFolderOf path: String) -> String {
    if name.utf8.first == UInt8(ascii: "/") { return name }
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return name }
    return String(path[...slash]) + name
  }

  /// The part after the last slash.
  public static func lastComponent(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return path }
    return String(path[path.utf8.index(after: slash)...])
  }
}
