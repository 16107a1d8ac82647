import TestSupport

@testable import FormatEngine

/// Small VMDK images to be damaged.
enum VMDKImages {
  static let grain = 65536

  /// A sparse image of 1 MiB by our own `create`, with patterns in grains 0, 1 and 5.
  static func sparse(_ options: [String: String] = [:], size: UInt64 = MiB) throws -> [UInt8] {
    let store = MemoryStore([])
    var values = OptionValues(VMDKFormat.createOptions)
    for (name, text) in options { try values.set(name, to: text) }
    try VMDKFormat.create(
      on: store,
      CreateRequest(path: "image", virtualSize: size, options: values, references: ReferenceOpener()))
    let chain = try ImageChain.over(store, format: VMDKFormat.self, access: .readWrite, path: "image")
    for number in [0, 1, 5] {
      try chain.writeBytes(
        [UInt8](repeating: UInt8(10 + number), count: grain), at: UInt64(number * grain))
    }
    try chain.close()
    return store.snapshot
  }

  static func number(_ bytes: [UInt8], at offset: Int, width: Int) -> UInt64 {
    bytes[offset..<offset + width].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  static func put(_ value: UInt64, into bytes: inout [UInt8], at offset: Int, width: Int) {
    for index in 0..<width { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
  }

  /// Where the first primary (0) or redundant (1) grain table is.
  static func table(_ bytes: [UInt8], copy: Int) -> Int {
    let directory = Int(number(bytes, at: copy == 0 ? 56 : 48, width: 8)) * 512
    return Int(number(bytes, at: directory, width: 4)) * 512
  }

  static func open(_ bytes: [UInt8], _ access: FileAccess = .readOnly) throws -> (ImageChain, MemoryStore) {
    let store = MemoryStore(bytes)
    return (try ImageChain.over(store, format: VMDKFormat.self, access: access, path: "image"), store)
  }

  static func report(_ bytes: [UInt8]) throws -> CheckReport {
    let (chain, _) = try open(bytes)
    guard let layer = chain.top as? any Checkable else { throw TestFailure("Not checkable") }
    return try layer.check(progress: .none)
  }

  /// A descriptor over these extent lines.
  static func descriptor(_ lines: [String], parent: String = "ffffffff", hint: String? = nil) -> [UInt8] {
    var all = ["# Disk DescriptorFile", "version=1", "CID=deadbee1", "parentCID=\(parent)"]
    all.append("createType=\"custom\"")
    if let hint { all.append("parentFileNameHint=\"\(hint)\"") }
    return Array((all + lines + [""]).joined(separator: "\n").utf8)
  }
}
