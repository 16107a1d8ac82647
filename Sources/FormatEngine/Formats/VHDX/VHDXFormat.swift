/// Hyper-V's virtual hard disks, version 2 ([MS-VHDX]).
public enum VHDXFormat: ImageFormat {
  public static let name = "vhdx"

  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    let count = VHDXFileIdentifier.signature.count
    guard let start = try? head.bytes(in: 0..<count), start == VHDXFileIdentifier.signature else {
      return .none
    }
    return .certain
  }

  public static let supportsBacking = true
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([])

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    guard try file.bytes(at: 0, count: 8) == VHDXFileIdentifier.signature else {
      throw EngineError(.notThisFormat, "Image is not in VHDX format")
    }
    let (header, slot) = try VHDXHeader.readCurrent(from: file)
    try header.validate(fileByteCount: try file.byteCount())
    let headers = VHDXHeaderWriter(header, slot: slot, file: file)
    var (content, replay) = (file, VHDXLayer.LogReplay.none)
    if header.hasLog {
      var reader = VHDXLogReader(file, header)
      let sequence = try reader.activeSequence()
      if request.access == .readWrite && file.isWritable {
        try VHDXReplay.run(sequence, in: file, headers, request.progress)
        replay = .inFile
      } else {
        content = try VHDXReplay.overlay(sequence, over: file)
        replay = .inMemory
      }
    }
    let image = try VHDXImage(file: content, header: headers.header, slot: headers.slot)
    return try VHDXLayer(content, image, replay: replay, path: request.path, request.identities)
  }
}
