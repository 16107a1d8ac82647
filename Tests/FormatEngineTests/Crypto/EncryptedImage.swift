import TestSupport

@testable import FormatEngine

/// An encrypted qcow2 image of 1 MiB, its bytes in memory.
struct EncryptedImage {
  static let passphrase = "open sesame"
  static let size = 1 << 20
  /// LUKS header and key material, where our engine puts them with clusters of 64 KiB.
  static let headerOffset = 4 << 16

  var store = MemoryStore()

  private static let made = Guarded<[String: [UInt8]]>([:])

  /// Made by our own engine, once for the same options; `options` without the `encrypt.` before them.
  init(_ options: [String: String] = [:], others: [String: String] = [:]) throws {
    let key = "\(options.sorted { $0.key < $1.key }) \(others.sorted { $0.key < $1.key })"
    if let known = Self.made.withLock({ $0[key] }) {
      store = MemoryStore(known)
      return
    }
    var all: [String: String] = ["format": "luks", "key-secret": "key"]
    for (name, text) in options { all[name] = text }
    if all["format"] == "luks" && all["iter-time"] == nil { all["iter-time"] = "1" }
    var values = OptionValues(Qcow2Format.createOptions)
    for (name, text) in all { try values.set("encrypt." + name, to: text) }
    for (name, text) in others { try values.set(name, to: text) }
    var request = CreateRequest(
      path: "image", virtualSize: UInt64(Self.size), options: values, references: ReferenceOpener())
    request.secrets.add(Secret(text: Self.passphrase), id: "key")
    try Qcow2Format.create(on: store, request)
    let bytes = store.snapshot
    Self.made.withLock { $0[key] = bytes }
  }

  init(bytes: [UInt8]) { store = MemoryStore(bytes) }

  func open(_ access: FileAccess = .readOnly, passphrase: String? = Self.passphrase) throws(EngineError)
    -> ImageChain
  {
    try ImageChain.over(store, format: Qcow2Format.self, access: access, passphrase: passphrase)
  }

  func inspect() throws(EngineError) -> ImageChain {
    try ImageChain.over(store, format: Qcow2Format.self, isForInspection: true)
  }

  /// What opening it says, nil where it opens.
  func failure(passphrase: String? = Self.passphrase) -> String? {
    do throws(EngineError) {
      _ = try open(passphrase: passphrase)
      return nil
    } catch { return error.message }
  }

  /// With other bytes at an offset.
  func with(_ bytes: [UInt8], at offset: Int) -> EncryptedImage {
    var changed = store.snapshot
    changed.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    return EncryptedImage(bytes: changed)
  }

  /// With another number in the LUKS header.
  func with<T: FixedWidthInteger>(_ number: T, inHeaderAt offset: Int) -> EncryptedImage {
    var bytes: [UInt8] = []
    bytes.append(bigEndian: number)
    return with(bytes, at: Self.headerOffset + offset)
  }
}
