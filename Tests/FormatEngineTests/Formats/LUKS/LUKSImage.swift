import TestSupport

@testable import FormatEngine

/// A LUKS volume of 1 MiB, its bytes in memory.
struct LUKSImage {
  static let passphrase = "open sesame"
  static let size = 1 << 20
  /// Of the default cipher.
  static let payloadOffset = 2_068_480

  var store = MemoryStore()

  private static let made = Guarded<[String: [UInt8]]>([:])

  /// Made by our own engine, once for the same options.
  init(_ options: [String: String] = [:]) throws {
    let key = "\(options.sorted { $0.key < $1.key })"
    if let known = Self.made.withLock({ $0[key] }) {
      store = MemoryStore(known)
      return
    }
    try LUKSFormat.create(on: store, Self.request(options))
    let bytes = store.snapshot
    Self.made.withLock { $0[key] = bytes }
  }

  init(bytes: [UInt8]) { store = MemoryStore(bytes) }

  static func request(_ options: [String: String]) throws -> CreateRequest {
    var values = OptionValues(LUKSFormat.createOptions)
    let all = ["key-secret": "key", "iter-time": "1"].merging(options) { $1 }
    for (name, text) in all { try values.set(name, to: text) }
    var request = CreateRequest(
      path: "image", virtualSize: UInt64(size), options: values, references: ReferenceOpener())
    request.secrets.add(Secret(text: passphrase), id: "key")
    return request
  }

  /// `header`: a header that lies in a file of its own.
  func open(
    _ access: FileAccess = .readOnly, passphrase: String? = Self.passphrase, header: LUKSImage? = nil
  ) throws(EngineError) -> ImageChain {
    try chain(access, passphrase, header, isForInspection: false)
  }

  func inspect(header: LUKSImage? = nil) throws(EngineError) -> ImageChain {
    try chain(.readOnly, nil, header, isForInspection: true)
  }

  private func chain(
    _ access: FileAccess, _ passphrase: String?, _ header: LUKSImage?, isForInspection: Bool
  ) throws(EngineError) -> ImageChain {
    var request = LayerRequest(
      path: "image", access: access, references: ReferenceOpener(), isForInspection: isForInspection)
    if let passphrase {
      request.options["key-secret"] = "key"
      request.secrets.add(Secret(text: passphrase), id: "key")
    }
    if let header {
      request.files["header"] = NamedStore(role: "header", path: "header", store: header.store)
    }
    let layer = try LUKSFormat.open(store, request)
    let member = ChainMember(layer: layer, file: store, path: "image", formatName: "luks")
    return ImageChain(members: [member], access: access)
  }

  /// What opening it says, nil where it opens.
  func failure(passphrase: String? = Self.passphrase, header: LUKSImage? = nil) -> String? {
    do throws(EngineError) {
      _ = try open(passphrase: passphrase, header: header)
      return nil
    } catch { return error.message }
  }

  /// With other bytes at an offset.
  func with(_ bytes: [UInt8], at offset: Int) -> LUKSImage {
    var changed = store.snapshot
    changed.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    return LUKSImage(bytes: changed)
  }

  func with(_ number: UInt32, at offset: Int) -> LUKSImage {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: number)
    return with(bytes, at: offset)
  }

  /// The first bytes of it.
  func cut(to count: Int) -> LUKSImage { LUKSImage(bytes: Array(store.snapshot.prefix(count))) }

  func activeSlots() throws -> [Int] {
    let header = try store.snapshot.parsed { (span) throws(EngineError) in
      try LUKSHeader.parse(span, isDetached: true)
    }
    return header.slots.indices.filter { header.slots[$0].isActive }
  }

  /// Amends it with options that name secrets by their own text, and gives what it says.
  func amend(
    with passphrase: String = Self.passphrase, force: Bool = false, header: LUKSImage? = nil,
    _ options: [String: String]
  ) throws -> String? {
    var values = OptionValues(LUKSFormat.amendOptions)
    var request = AmendRequest(isForced: force)
    for (name, text) in options {
      try values.set(name, to: text)
      if name.hasSuffix("secret") { request.secrets.add(Secret(text: text), id: text) }
    }
    do throws(EngineError) {
      try open(.readWrite, passphrase: passphrase, header: header).amend(values, request)
      return nil
    } catch { return error.message }
  }

  static func adding(_ passphrase: String, _ more: [String: String] = [:]) -> [String: String] {
    more.merging(["state": "active", "new-secret": passphrase, "iter-time": "1"]) { given, _ in given }
  }
}
