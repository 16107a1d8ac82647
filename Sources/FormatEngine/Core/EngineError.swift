/// Why the engine could not do what it was asked: a code to decide by and a sentence for people.
///
/// The codes are few and stable; everything particular goes into `message`. `notThisFormat` ("not mine,
/// try the next") is apart from `corrupt` ("mine, and broken").
public struct EngineError: Error, Sendable, Equatable {
  public enum Code: Sendable, Equatable {
    case notThisFormat
    case corrupt
    case unsupported
    case invalidArgument
    /// A request for bytes past the end of a disk.
    case outsideDisk
    case readOnly
    case noSpace
    case notFound
    case permissionDenied
    /// The rules for files that images name do not allow it, whatever the system says (`ReferencePolicy`).
    case forbidden
    /// Images name each other in a circle.
    case loop
    case locked
    /// The image is encrypted, and nobody gave its passphrase.
    case missingKey
    /// The image is encrypted with another passphrase than the one given.
    case wrongKey
    case tooLarge
    case cancelled
    /// A system call failed with this `errno`.
    case system(errno: CInt)
  }

  public var code: Code
  /// One sentence without a full stop, in qemu-img's words where qemu-img has words for it.
  public var message: String
  /// What there is to add, such as what the user may do about it: sentences for lines of their own.
  public var additions: [String] = []
  /// The file that it is about, if one is known.
  public var path: String?
  /// The guest or host offset in bytes that it is about, if there is one.
  public var offset: UInt64?

  /// Whether it is why a file below an image cannot be opened, and the image can be without that file
  /// (`OpenOptions.MissingMembers.kept`).
  public var isOfMissingMember = false

  public init(_ code: Code, _ message: String, path: String? = nil, offset: UInt64? = nil) {
    self.code = code
    self.message = message
    self.path = path
    self.offset = offset
  }

  /// The message and what there is to add, a line each.
  public var text: String { ([message] + additions).joined(separator: "\n") }

  /// The same error with words before its message: what was being tried when it happened.
  public func whileTrying(_ prefix: String) -> EngineError {
    var error = self
    error.message = "\(prefix): \(message)"
    return error
  }

  public static func corrupt(_ message: String, at offset: UInt64? = nil) -> EngineError {
    EngineError(.corrupt, message, offset: offset)
  }
  public static func unsupported(_ message: String) -> EngineError { EngineError(.unsupported, message) }
  public static func invalid(_ message: String) -> EngineError { EngineError(.invalidArgument, message) }
}

extension EngineError: CustomStringConvertible {
  public var description: String { message }
}
