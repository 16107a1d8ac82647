/// The text that describes a disk: its content id, its parent, and the extents that it consists of. A file of its
/// own, or a part of a sparse file. (VMware, "Virtual Disk Format 5.0", "Layout Basics": The Descriptor File.)
///
/// Lines are `key=value` or `key = "value"`, extents (`VMDKExtentLine`), and comments that begin with `#`.
struct VMDKDescriptor: Equatable, Sendable {
  /// Says which state of the disk this is: changes with the first write after each opening.
  var contentID: UInt32
  /// The content id of the parent as it was when this image was made over it; `noParent` where there is none.
  var parentContentID: UInt32
  var createType: String
  var parentFileNameHint: String?
  var extents: [VMDKExtentLine]
  /// Where the digits of the content id stand in the text.
  var contentIDRange: Range<Int>
  var parentContentIDRange: Range<Int>
  /// The same for the long content id, which ends with the short one; nil where there is none.
  var longContentIDRange: Range<Int>?
  /// The content id that the parent may have by now: a commit was about to give it that one. The two may differ for the
  /// moment between two writes to two files only.
  var nextParentContentID: UInt32?
  var nextParentContentIDRange: Range<Int>?
  /// First byte behind the text.
  var textEnd = 0
  /// Bytes that there are for it.
  var capacity = 0
  /// Another file records which parts of the disk change.
  var hasChangeTracking = false

  static let noParent: UInt32 = 0xffff_ffff
  /// VMware's word for "look at the long content id".
  private static let longIDCounts: UInt32 = 0xffff_fffe
  private static let longIDDigitCount = 32
  /// What a line begins with that tells of the parent's next content id. For others it is a comment.
  static let nextParentPrefix = Array("# next parentCID=".utf8)
  /// The longest text with room for 65535 extents of ordinary names; also bounds what a hostile file costs.
  static let maximumByteCount = 4 * Int(MiB)

  var hasParent: Bool { parentContentID != Self.noParent }

  /// Parses a text; it ends at its first NUL byte, as parts of sparse files are filled up with them.
  init(_ text: [UInt8]) throws(EngineError) {
    contentID = 0
    parentContentID = Self.noParent
    createType = ""
    extents = []
    contentIDRange = 0..<0
    parentContentIDRange = 0..<0
    var start = 0
    let end = text.firstIndex(of: 0) ?? text.count
    (textEnd, capacity) = (end, text.count)
    while start < end {
      let lineEnd = text[start..<end].firstIndex(of: UInt8(ascii: "\n")) ?? end
      try take(text[start..<lineEnd])
      start = lineEnd + 1
    }
    guard !createType.isEmpty else { throw .corrupt("invalid VMDK image descriptor") }
    guard !contentIDRange.isEmpty else { throw .corrupt("The VMDK descriptor has no content id (CID)") }
  }

  private mutating func take(_ line: ArraySlice<UInt8>) throws(EngineError) {
    let line = line.trimmed
    if line.starts(with: Self.nextParentPrefix) {
      // The end of a line that is not whole says nothing.
      let digits = line.dropFirst(Self.nextParentPrefix.count)
      guard digits.count == 8, let value = UInt32(String(decoding: digits, as: UTF8.self), radix: 16) else {
        return
      }
      nextParentContentID = value
      nextParentContentIDRange = digits.startIndex..<digits.endIndex
      return
    }
    guard let first = line.first, first != UInt8(ascii: "#") else { return }
    if let extent = try VMDKExtentLine(line) {
      guard extents.count < VMDKExtentLine.maximumCount else {
        throw EngineError(.tooLarge, "A VMDK image has at most \(VMDKExtentLine.maximumCount) extents")
      }
      extents.append(extent)
      return
    }
    guard let equals = line.firstIndex(of: UInt8(ascii: "=")) else { return }
    let value = line[(equals + 1)...].trimmed.unquoted
    // The first of a kind counts.
    switch String(decoding: line[..<equals].trimmed, as: UTF8.self).lowercased() {
    case "cid" where contentIDRange.isEmpty:
      contentID = try Self.contentID(value)
      contentIDRange = value.startIndex..<value.endIndex
    case "parentcid":
      parentContentID = try Self.contentID(value)
      parentContentIDRange = value.startIndex..<value.endIndex
    case "createtype" where createType.isEmpty: createType = String(hostBytes: value)
    case "parentfilenamehint" where parentFileNameHint == nil:
      parentFileNameHint = String(hostBytes: value)
    case "ddb.longcontentid" where value.count == Self.longIDDigitCount:
      longContentIDRange = value.startIndex..<value.endIndex
    case "changetrackpath": hasChangeTracking = !value.isEmpty
    default: break
    }
  }

  private static func contentID(_ digits: ArraySlice<UInt8>) throws(EngineError) -> UInt32 {
    let text = String(decoding: digits, as: UTF8.self)
    guard text.utf8.count <= 8, let value = UInt32(text, radix: 16) else {
      throw .corrupt("Invalid content id '\(text.prefix(32))' in the VMDK descriptor")
    }
    return value
  }

  /// Another content id, with as many digits as stand in the text now: a new id moves nothing of it.
  static func newContentID(after old: UInt32?, digitCount: Int, _ identities: IdentitySource)
    throws(EngineError) -> (value: UInt32, digits: [UInt8])
  {
    let mask = digitCount >= 8 ? UInt32.max : (1 << UInt32(4 * digitCount)) - 1
    let oldDigits = old.map { digits($0, count: 8) } ?? []
    var (value, tries) = (noParent, 0)
    while value == old || value >= longIDCounts {
      value = try identities.number(for: "content, try \(tries)", after: oldDigits) & mask
      tries += 1
    }
    return (value, digits(value, count: digitCount))
  }

  /// Another long content id that ends with the short one.
  static func newLongContentID(endingWith short: UInt32, _ identities: IdentitySource) throws(EngineError)
    -> [UInt8]
  {
    var result: [UInt8] = []
    for part in 0..<3 {
      let number = try identities.number(for: "long content, part \(part)", after: digits(short, count: 8))
      result += digits(number, count: 8)
    }
    return result + digits(short, count: 8)
  }

  static func digits(_ value: UInt32, count: Int) -> [UInt8] {
    let digits = String(value, radix: 16)
    return Array((String(repeating: "0", count: max(0, count - digits.utf8.count)) + digits).utf8)
  }

  /// Whether a file that begins so is a descriptor: comments and blank lines, then a version.
  static func begins(_ head: [UInt8]) -> Bool {
    for line in head.split(separator: UInt8(ascii: "\n")) {
      let line = line.trimmed
      if line.isEmpty || line.first == UInt8(ascii: "#") { continue }
      return ["version=1", "version=2", "version=3"].contains { line.elementsEqual($0.utf8) }
    }
    return false
  }
}

extension ArraySlice<UInt8> {
  /// Without blanks at both ends.
  var trimmed: ArraySlice<UInt8> {
    var rest = self
    while let first = rest.first, first.isBlank { rest = rest.dropFirst() }
    while let last = rest.last, last.isBlank { rest = rest.dropLast() }
    return rest
  }

  /// Without a pair of quotation marks around it.
  fileprivate var unquoted: ArraySlice<UInt8> {
    guard count >= 2, first == UInt8(ascii: "\""), last == UInt8(ascii: "\"") else { return self }
    return dropFirst().dropLast()
  }
}

extension UInt8 {
  /// Space, tab, carriage return.
  fileprivate var isBlank: Bool { self == 0x20 || self == 0x09 || self == 0x0d }
}
