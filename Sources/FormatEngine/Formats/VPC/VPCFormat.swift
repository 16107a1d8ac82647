/// VHD, the format of Virtual PC and Hyper-V: fixed, dynamic and differencing disks ("Virtual Hard Disk Image
/// Format Specification", Microsoft, version 1.0). QEMU calls it vpc.
public enum VPCFormat: ImageFormat {
  public static let name = "vpc"
  public static let supportsBacking = true
  public static let fileRoles: [String] = []
  public static let layerOptions = OptionSchema([
    .init(
      "force_size_calc", .text,
      "Force disk size calculation to use either CHS geometry, or use the disk current_size specified in the VHD "
        + "footer. {chs, current_size}", changesContent: true)
  ])

  /// Only dynamic disks can be told by their first bytes; fixed ones begin with what their guest has there.
  public static func probe(_ head: RawSpan, path: String) -> ProbeScore {
    guard let cookie = try? head.bytes(in: 0..<VPCFooter.cookie.count), cookie == VPCFooter.cookie else {
      return .none
    }
    return .certain
  }

  public static func open(_ file: any ByteStore, _ request: LayerRequest) throws(EngineError)
    -> any ImageLayer
  {
    let rule = try VPCSizeRule(option: request.options["force_size_calc"])
    let prologue = try VPCPrologue(file, forcedRule: rule)
    if let header = prologue.header {
      return VPCLayer(try VPCState(prologue, header, file, request))
    }
    return VPCFixedLayer(file, prologue)
  }
}
