/// What `info` tells of one image file, and of the files that it consists of.
public struct ImageInfo: Sendable {
  public var filename: String
  /// The format; for a file below a format the protocol.
  public var format: String
  /// True for the plain file below a format.
  public var isProtocol = false
  /// Guest bytes; of a plain file its length, filled up to whole sectors.
  public var virtualSize: UInt64
  /// Bytes on the host, nil where the host cannot tell.
  public var actualSize: UInt64?
  /// 0: none.
  public var clusterSize: UInt64 = 0
  public var isEncrypted = false
  public var isCompressed = false
  /// Nil where the format does not say.
  public var isDirty: Bool? = false
  public var backing: BackingReference?
  /// The path that the name of the backing file leads to, nil where it leads nowhere.
  public var backingPath: String?
  public var snapshots: [SnapshotRecord] = []
  /// The fields that only this format has, under the format's name.
  public var formatSpecific: [InfoField]?
  /// The files below, by their role.
  public var children: [(role: String, info: ImageInfo)] = []

  /// What one member of a chain is. Throws why it is missing where it is.
  public static func of(_ member: ChainMember) throws(EngineError) -> ImageInfo {
    if let missing = member.missing { throw missing.reason }
    let layer = member.layer
    var info = ImageInfo(filename: member.name, format: member.formatName, virtualSize: layer.virtualSize)
    info.actualSize = try? member.file.allocatedByteCount()
    info.clusterSize = layer.clusterSize
    info.backing = layer.backing
    info.backingPath = layer.backing.flatMap {
      ImageName.jsonText(of: $0.name) != nil
        ? $0.name : (try? ReferencePolicy.anywhere.place(of: $0, namedBy: member.path))?.path
    }
    if let keeper = layer as? any SnapshotKeeping { info.snapshots = try keeper.shownSnapshots() }
    // A file that is opened as just that has nothing below it.
    guard FormatCatalog.format(named: member.formatName) != nil else { return info }
    var files = [("file", try plainFile(member.file, path: member.path))]
    if let describing = layer as? any SelfDescribing {
      info.isEncrypted = describing.isEncrypted
      info.isCompressed = describing.isCompressedByDefault
      info.isDirty = describing.tellsUnit ? describing.isDirty ?? false : nil
      if !describing.tellsUnit { info.clusterSize = 0 }
      info.formatSpecific = describing.formatSpecificInfo
      // The file that was opened last comes first.
      for extra in describing.extraFiles {
        let size = info.actualSize
        info.actualSize = (try? extra.store.allocatedByteCount()).flatMap { more in size.map { $0 + more } }
        files.insert((extra.role, try plainFile(extra.store, path: extra.path)), at: 0)
      }
    }
    info.children = files.map { (role: $0.0, info: $0.1) }
    return info
  }

  private static func plainFile(_ file: any ByteStore, path: String) throws(EngineError) -> ImageInfo {
    var info = ImageInfo(
      filename: path, format: "file", virtualSize: try file.byteCount().aligned(upTo: 512))
    if file.isDevice { info.format = "host_device" }
    info.isProtocol = true
    info.actualSize = try? file.allocatedByteCount()
    if info.format == "file" { info.formatSpecific = [] }
    return info
  }
}

extension ImageInfo {
  /// As `info --output=json` has it.
  public var json: InfoValue {
    var fields = [
      InfoField("filename", .text(filename)), InfoField("format", .text(format)),
    ]
    if let isDirty { fields.append(InfoField("dirty-flag", .flag(isDirty))) }
    fields.append(InfoField("virtual-size", Self.number(virtualSize)))
    if let actualSize { fields.append(InfoField("actual-size", Self.number(actualSize))) }
    if clusterSize > 0 { fields.append(InfoField("cluster-size", Self.number(clusterSize))) }
    if isEncrypted { fields.append(InfoField("encrypted", .flag(true))) }
    if isCompressed { fields.append(InfoField("compressed", .flag(true))) }
    if let backing {
      fields.append(InfoField("backing-filename", .text(backing.name)))
      if let backingPath { fields.append(InfoField("full-backing-filename", .text(backingPath))) }
      if let format = backing.format { fields.append(InfoField("backing-filename-format", .text(format))) }
    }
    if !snapshots.isEmpty { fields.append(InfoField("snapshots", .list(snapshots.map(Self.json)))) }
    if let formatSpecific {
      fields.append(
        InfoField(
          "format-specific",
          .record([InfoField("type", .text(format)), InfoField("data", .record(formatSpecific))])))
    }
    let below: [InfoValue] = children.map { child in
      .record([InfoField("name", .text(child.role)), InfoField("info", child.info.json)])
    }
    fields.append(InfoField("children", .list(below)))
    return .record(fields)
  }

  private static func json(of snapshot: SnapshotRecord) -> InfoValue {
    var fields = [
      InfoField("id", .text(snapshot.id)), InfoField("name", .text(snapshot.name)),
      InfoField("vm-state-size", number(snapshot.vmStateSize)),
      InfoField("date-sec", .integer(snapshot.dateSeconds)),
      InfoField("date-nsec", .integer(Int64(snapshot.dateNanoseconds))),
      InfoField("vm-clock-sec", number(snapshot.vmClock / 1_000_000_000)),
      InfoField("vm-clock-nsec", number(snapshot.vmClock % 1_000_000_000)),
    ]
    if let count = snapshot.instructionCount { fields.append(InfoField("icount", number(count))) }
    return .record(fields)
  }

  /// QEMU's numbers are signed.
  private static func number(_ value: UInt64) -> InfoValue { .integer(Int64(bitPattern: value)) }
}
