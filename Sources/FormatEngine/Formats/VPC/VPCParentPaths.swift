/// The paths of its parent that a differencing disk records.
struct VPCParentPaths: Equatable {
  /// As recorded, with the separators of Windows.
  var relative: String?
  var absolute: String?
  /// From the header: a name, or a whole path.
  var name: String?

  /// Locators that cannot be read are passed over: each is one of several ways to the same file.
  init(_ header: VPCDynamicHeader, in file: any ByteStore) throws(EngineError) {
    let fileByteCount = try file.byteCount()
    if !header.parentName.isEmpty {
      name = String(characters: String(decoding: header.parentName, as: UTF16.self))
    }
    for locator in header.locators {
      guard let range = locator.range(inFileOf: fileByteCount) else { continue }
      let bytes = try file.bytes(at: range.lowerBound, count: range.count)
      switch locator.platform {
      case VPCParentLocator.Platform.relative: relative = Self.wideText(bytes) ?? relative
      case VPCParentLocator.Platform.absolute: absolute = Self.wideText(bytes) ?? absolute
      case VPCParentLocator.Platform.oldRelative: relative = relative ?? Self.narrowText(bytes)
      case VPCParentLocator.Platform.oldAbsolute: absolute = absolute ?? Self.narrowText(bytes)
      default: break
      }
    }
  }

  /// What a disk over `parent` records: the path as it is given, relative or not.
  init(parent: String) {
    let text = String(
      decoding: parent.utf8.map { $0 == UInt8(ascii: "/") ? UInt8(ascii: "\\") : $0 }, as: UTF8.self)
    if parent.hasPrefix("/") { absolute = text } else { relative = ".\\" + text }
    name = ImageName.lastComponent(of: parent)
  }

  private static func wideText(_ bytes: [UInt8]) -> String? {
    var units: [UInt16] = []
    for index in 0..<bytes.count / 2 {
      let unit = UInt16(bytes[2 * index]) | UInt16(bytes[2 * index + 1]) << 8
      if unit == 0 { break }
      units.append(unit)
    }
    return units.isEmpty ? nil : String(characters: String(decoding: units, as: UTF16.self))
  }

  private static func narrowText(_ bytes: [UInt8]) -> String? {
    let text = bytes.prefix { $0 != 0 }
    return text.isEmpty ? nil : String(hostBytes: text)
  }

  /// The file below, for whoever looks for it: first beside the disk, where the relative path leads, then where
  /// the absolute one does, then the name alone in the folder of the disk.
  var reference: BackingReference {
    var candidates: [String] = []
    for path in [relative, absolute, name].compactMap({ $0 }) { candidates.append(Self.hostPath(path)) }
    for path in [relative, absolute, name].compactMap({ $0 }) {
      candidates.append(ImageName.lastComponent(of: Self.hostPath(path)))
    }
    var known: Set<String> = []
    candidates = candidates.filter { !$0.isEmpty && known.insert($0).inserted }
    return BackingReference(
      name: absolute ?? relative.map(Self.hostPath) ?? name ?? "", format: VPCFormat.name,
      candidates: candidates)
  }

  /// A recorded path with the separators of this host, and without a leading "./".
  static func hostPath(_ path: String) -> String {
    let bytes = path.utf8.map { $0 == UInt8(ascii: "\\") ? UInt8(ascii: "/") : $0 }
    let text = String(decoding: bytes, as: UTF8.self)
    return text.hasPrefix("./") ? String(text.dropFirst(2)) : text
  }
}

// MARK: Recording

extension VPCParentPaths {
  /// The path as a locator has it, UTF-16LE.
  var locatorBytes: [UInt8] {
    var bytes: [UInt8] = []
    for unit in (relative ?? absolute ?? "").utf16 { bytes.append(littleEndian: unit) }
    return bytes
  }

  /// The locator of that path, which has `room` bytes from `hostOffset` on.
  func locator(at hostOffset: UInt64, room: UInt64) -> VPCParentLocator {
    VPCParentLocator(
      platform: relative == nil ? VPCParentLocator.Platform.absolute : VPCParentLocator.Platform.relative,
      room: UInt32(room / VPCGeometry.sectorSize), pathByteCount: UInt32(locatorBytes.count),
      pathOffset: hostOffset)
  }

  /// The file's name as the header has it; what does not fit is cut off.
  var headerName: [UInt16] { Array((name ?? "").utf16.prefix(255)) }
}
