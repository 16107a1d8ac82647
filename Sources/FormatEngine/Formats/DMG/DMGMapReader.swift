/// Reads the block tables of an image: from its resource fork, or from its property list.
struct DMGMapReader {
  let file: any ByteStore
  let trailer: DMGTrailer

  /// A map of a million chunks, 1 TiB in chunks of 1 MiB, is 54 MiB of property list.
  private static let maximumByteCount = 64 * MiB

  /// In the order of the image. Where there is a resource fork, it counts, as in qemu-img.
  func tables() throws(EngineError) -> [DMGBlockTable] {
    let tables: [DMGBlockTable]
    if trailer.resourceFork.byteCount > 0 {
      tables = try parse(DMGResourceFork.resources("blkx", in: try bytes(trailer.resourceFork)))
    } else if trailer.propertyList.byteCount > 0 {
      let list = trailer.propertyList
      try requireLimit(list)
      tables = try parse(
        try DMGPropertyList.blockTables(in: list.offset..<list.offset + list.byteCount, of: file))
    } else {
      throw .corrupt("The image has neither a resource fork nor a property list")
    }
    guard !tables.isEmpty else { throw .corrupt("The image has no block table") }
    return tables
  }

  private func requireLimit(_ part: DMGTrailer.Part) throws(EngineError) {
    guard part.byteCount <= Self.maximumByteCount else {
      throw EngineError(
        .tooLarge, "The map of the image is \(part.byteCount) bytes, more than \(Self.maximumByteCount)")
    }
  }

  private func bytes(_ part: DMGTrailer.Part) throws(EngineError) -> [UInt8] {
    try requireLimit(part)
    return try file.bytes(at: part.offset, count: Int(part.byteCount))
  }

  private func parse(_ resources: consuming [[UInt8]]) throws(EngineError) -> [DMGBlockTable] {
    var tables: [DMGBlockTable] = []
    for index in resources.indices {
      let number = UInt32(tables.count)
      // Each is let go of when its chunks are there.
      var resource: [UInt8] = []
      swap(&resource, &resources[index])
      let table = try resource.parsed { (span) throws(EngineError) in
        try DMGBlockTable.parse(span, number: number, dataFork: trailer.dataFork)
      }
      if let table { tables.append(table) }
    }
    return tables
  }
}

/// The property list of an image: a dictionary "resource-fork" with an array "blkx" of dictionaries, whose "Data" are
/// the tables in base64.
enum DMGPropertyList {
  static func blockTables(in range: Range<UInt64>, of file: any ByteStore) throws(EngineError) -> [[UInt8]] {
    var limits = XMLLimits()
    limits.dataElement = "data"
    let list = try XMLElement.parse(range, of: file, limits)
    guard let fork = value("resource-fork", in: list.child("dict")),
      let tables = value("blkx", in: fork)
    else { throw .corrupt("The property list of the image has no block tables") }
    var result: [[UInt8]] = []
    for table in tables.children {
      guard let data = value("Data", in: table)?.data else {
        throw .corrupt("A block table of the property list has no data")
      }
      result.append(try data.finish())
    }
    return result
  }

  /// The element that follows a key.
  private static func value(_ key: String, in dictionary: XMLElement?) -> XMLElement? {
    guard let children = dictionary?.children,
      let index = children.firstIndex(where: { $0.name == "key" && $0.text == key }),
      index + 1 < children.count
    else { return nil }
    return children[index + 1]
  }
}

/// A resource fork of the old Mac OS ("Inside Macintosh: More Macintosh Toolbox", Resource Manager). All numbers are
/// big-endian.
///
/// It begins with the offsets of its data and of its map, 4 bytes each. The map has at byte 24 the offset of its list of
/// types: their number less 1 in 2 bytes, then for each type its name (4), the number of its resources less 1 (2)
/// and where in this list their entries are (2). An entry is 12 bytes, of which 5..7 are the offset in the data; there,
/// 4 bytes of length come before the resource.
enum DMGResourceFork {
  /// Of one type an old Mac OS could not list more.
  private static let maximumCount = 1 << 16

  /// The resources of a type. Each has its own bytes of the fork: a few of them, listed over and over, would fill the
  /// memory.
  static func resources(_ type: String, in bytes: [UInt8]) throws(EngineError) -> [[UInt8]] {
    try bytes.parsed { (span) throws(EngineError) in
      let data = Int(try span.bigEndian(UInt32.self, at: 0))
      let map = Int(try span.bigEndian(UInt32.self, at: 4))
      let types = map + Int(try span.bigEndian(UInt16.self, at: map + 24))
      var result: [[UInt8]] = []
      var listed = 0
      // 0xffff: no types at all.
      for number in 0..<Int(try span.bigEndian(UInt16.self, at: types) &+ 1) {
        let entry = types + 2 + number * 8
        guard try span.bytes(in: entry..<entry + 4) == Array(type.utf8) else { continue }
        let first = types + Int(try span.bigEndian(UInt16.self, at: entry + 6))
        for index in 0...Int(try span.bigEndian(UInt16.self, at: entry + 4)) {
          let place = Int(try span.bigEndian(UInt32.self, at: first + index * 12 + 4) & 0xff_ffff)
          let start = data + place + 4
          let count = Int(try span.bigEndian(UInt32.self, at: start - 4))
          listed += 4 + count
          guard listed <= bytes.count else {
            throw .corrupt("The resource fork lists the same bytes more than once")
          }
          // However short: an array of its own takes more than what is in it.
          guard result.count < maximumCount else {
            throw EngineError(.tooLarge, "The resource fork has more than \(maximumCount) block tables")
          }
          result.append(try span.bytes(in: start..<start + count))
        }
      }
      return result
    }
  }
}
