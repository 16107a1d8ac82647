extension VMDKLayer: SelfDescribing {
  var formatSpecificInfo: [InfoField]? {
    [
      InfoField("cid", .integer(Int64(contentID))), InfoField("parent-cid", .integer(Int64(parentContentID))),
      InfoField("create-type", .text(createType)),
      InfoField("extents", .list(extents.map { .record(Self.info($0)) })),
    ]
  }

  private static func info(_ extent: VMDKOpenedExtent) -> [InfoField] {
    var fields: [InfoField] = []
    if extent.geometry?.isPacked == true { fields.append(InfoField("compressed", .flag(true))) }
    let size = extent.range.upperBound - extent.range.lowerBound
    fields.append(InfoField("virtual-size", .integer(Int64(bitPattern: size))))
    fields.append(InfoField("filename", .text(extent.file?.path ?? "")))
    if let grainSize = extent.grainSize {
      fields.append(InfoField("cluster-size", .integer(Int64(bitPattern: grainSize))))
    }
    // As qemu-img has it: a file that is an image by itself has no type of its own.
    fields.append(InfoField("format", .text(extent.isOwnFile ? "" : extent.line.kind)))
    return fields
  }

  var isDirty: Bool? { nil }
  var isEncrypted: Bool { false }
  var isCompressedByDefault: Bool { false }

  /// Those that are there: for inspection nobody has opened them.
  var extraFiles: [NamedStore] {
    extents.compactMap { extent in
      guard !extent.isOwnFile, let file = extent.file, (try? file.store.byteCount()) != nil else {
        return nil
      }
      return file
    }
  }
}
