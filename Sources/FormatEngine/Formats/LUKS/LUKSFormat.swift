/// LUKS version 1 as an image of its own (LUKS on-disk format): a header with key material, and behind it, or in a
/// file of its own, the encrypted disk.
public enum LUKSFormat: ImageFormat {
  public static let name = "luks"
  public static let supportsBacking = false
  /// Its header changes with the keys alone (`LUKSKeySlots`).
  public static let fileContent = FileContent.disk
  /// The file with the header, where it does not lie before the disk.
  public static let fileRoles = [headerRole]
  public static let layerOptions = OptionSchema([
    .init("key-secret", .text, "ID of the secret that opens it", changesContent: true)
  ])

  static let headerRole = "header"

  /// Other versions are left to raw, as qemu-img does: copying such a disk as it is loses nothing.
  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    LUKSHeader.isFirstVersion(head) ? .certain : .none
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    let detached = try request.given(headerRole, holding: .disk)
    let headerStore = detached?.store ?? file
    let whole = try LUKSArea(store: headerStore, offset: 0, byteCount: UInt64(LUKSHeader.byteCount))
    let header = try whole.readHeader(isDetached: detached != nil)
    let area = try LUKSArea(store: headerStore, offset: 0, byteCount: header.materialEnd)
    var volumeKey: Secret?
    if !request.isForInspection {
      let passphrase = try request.secrets.passphrase(for: "key-secret", in: request.options)
      volumeKey = try header.volumeKey(for: passphrase, in: area)
    }
    return try LUKSLayer(file, header: header, in: area, headerFile: detached, volumeKey: volumeKey)
  }
}
