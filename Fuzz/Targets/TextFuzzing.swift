import FormatEngine
import TestSupport

/// Texts that say what an image consists of.
enum TextFuzzing {
  /// A VMDK's descriptor over extents of which some are there.
  static func descriptor(_ text: [UInt8]) throws {
    var files: [String: NamedStore] = [:]
    for index in 0..<3 {
      let role = "extents.\(index)"
      files[role] = NamedStore(role: role, path: role, store: SparseStore(byteCount: MiB))
    }
    try open("vmdk", text, files)
  }

  static func bundle(_ text: [UInt8]) throws { try open("parallels", text, [:]) }

  private static func open(_ format: String, _ text: [UInt8], _ files: [String: NamedStore]) throws {
    let store = SparseStore()
    try store.write(bytes: text, at: 0)
    let chain = try FuzzedImage.open(store, format: format, path: "DiskDescriptor.xml", files: files)
    try ExtentWalk(chain).run()
  }

  /// A DMG whose property list is this one.
  static func propertyList(_ text: [UInt8]) throws {
    let store = try DMGShell.image(dataFork: [UInt8](repeating: 0x5a, count: 4096), propertyList: text)
    let chain = try FuzzedImage.open(store, format: "dmg")
    try ExtentWalk(chain).run()
    _ = try (chain.top as? any Checkable)?.check(progress: .none)
  }
}
