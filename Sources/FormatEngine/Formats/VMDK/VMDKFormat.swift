/// VMware's disks: a descriptor and extents, in one file or in several. ("Virtual Disk Format 5.0".)
public enum VMDKFormat: ImageFormat {
  public static let name = "vmdk"
  public static let supportsBacking = true
  public static let layerOptions = OptionSchema([])
  public static let fileRoles: [String] = []
  public static let numberedFileRoles = [VMDKOpener.role]

  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    if let magic = try? head.littleEndian(UInt32.self, at: 0),
      magic == VMDKSparseHeader.magic || magic == VMDKCOWDHeader.magic
    {
      return .certain
    }
    guard let text = try? head.bytes(in: 0..<head.byteCount) else { return .none }
    return VMDKDescriptor.begins(text) ? .certain : .none
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    var opener = VMDKOpener(file, request)
    return try VMDKLayer(try opener.open(), file: file, path: request.path, request.identities)
  }
}
