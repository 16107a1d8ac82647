/// What can be done with a file's bytes, as QEMU divides it: programs that use the same file tell each other by
/// locks what they do with it (`FileLock`).
public struct FilePermissions: OptionSet, Sendable {
  public let rawValue: UInt8

  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Reading what was written, in a state that makes sense.
  public static let consistentRead = FilePermissions(rawValue: 1 << 0)
  public static let write = FilePermissions(rawValue: 1 << 1)
  /// Writing bytes that are there already, at the same place.
  public static let writeUnchanged = FilePermissions(rawValue: 1 << 2)
  /// Giving the file another size.
  public static let resize = FilePermissions(rawValue: 1 << 3)
  public static let all: FilePermissions = [.consistentRead, .write, .writeUnchanged, .resize]
  static let allButResize: FilePermissions = [.consistentRead, .write, .writeUnchanged]

  /// What QEMU calls each of them; the place is the number of the bit.
  static let names = ["consistent read", "write", "write unchanged", "resize"]

  /// The numbers of the bits that are set.
  var numbers: [Int] { Self.names.indices.filter { rawValue & 1 << UInt8($0) != 0 } }
}

/// What an open of a file does with it, and what it lets others do meanwhile.
public struct LockRequest: Equatable, Sendable {
  public var taken: FilePermissions
  public var shared: FilePermissions

  public init(taking taken: FilePermissions, sharing shared: FilePermissions = .all) {
    self.taken = taken
    self.shared = shared
  }

  var unshared: FilePermissions { FilePermissions.all.subtracting(shared) }

  /// Of nobody.
  public static let none = LockRequest(taking: [])
  /// Of somebody who gives a file a new content.
  public static let creation = LockRequest(
    taking: [.write, .resize], sharing: .allButResize)
  /// The same of what is read, too, while it is made.
  static let creationOfTables = LockRequest(
    taking: [.consistentRead, .write, .resize], sharing: [.consistentRead, .writeUnchanged])
}

/// What the bytes of a file are to the image that has it. It decides on who else may change them.
public enum FileContent: Sendable {
  /// Tables, perhaps beside guest bytes. They never change but by the one who has the image open.
  case tables
  /// Guest bytes at places that tables elsewhere say: others may write them, the size stays.
  case guestBytes
  /// The disk as it is, or encrypted: who may change the disk may change the file.
  case disk
}

extension LockRequest {
  /// What the file of an image asks for where the image itself asks for this.
  func forFile(holding content: FileContent, access: FileAccess) -> LockRequest {
    var request = self
    switch content {
    case .tables:
      if access == .readWrite { request.taken.formUnion([.write, .resize]) }
      request.shared.subtract([.write, .resize])
    case .guestBytes:
      if access == .readOnly { request.taken.subtract([.write, .resize]) }
      if request.taken.contains(.write) { request.taken.insert(.resize) }
      request.shared.subtract(.resize)
    case .disk: break
    }
    return request
  }

  /// What the image below asks for. It is only read, and may change where this one may.
  func forBacking() -> LockRequest {
    LockRequest(
      taking: taken.intersection(.consistentRead),
      sharing: shared.contains(.write) ? .all : [.consistentRead, .writeUnchanged])
  }
}
