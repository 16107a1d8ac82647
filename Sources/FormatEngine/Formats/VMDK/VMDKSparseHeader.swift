/// The header of a sparse extent. Little-endian. ("Virtual Disk Format 5.0", "Hosted Sparse Extent Header".)
///
/// | bytes  | field             | meaning                                                            |
/// |--------|-------------------|--------------------------------------------------------------------|
/// | 0..3   | magicNumber       | "KDMV"                                                             |
/// | 4..7   | version           | 1; 2: zeroed grains; 3: packed grains, or change tracking          |
/// | 8..11  | flags             | 1: line ends; 2: redundant tables; 4: zeroed grains; 2^16: packed; 2^17: markers |
/// | 12..19 | capacity          | guest sectors; 0: only the descriptor counts                       |
/// | 20..27 | grainSize         | sectors in a grain, a power of two                                 |
/// | 28..35 | descriptorOffset  | sector of the embedded descriptor; 0: there is none                |
/// | 36..43 | descriptorSize    | its room in sectors                                                |
/// | 44..47 | numGTEsPerGT      | entries in a grain table: 512                                      |
/// | 48..55 | rgdOffset         | sector of the redundant grain directory                            |
/// | 56..63 | gdOffset          | sector of the grain directory; all ones: the footer has it         |
/// | 64..71 | overHead          | sectors of everything before the first grain                       |
/// | 72     | uncleanShutdown   | 1 while VMware has it open for writing                             |
/// | 73..76 | line ends         | "\n", " ", "\r", "\n": broken by transfers as text                 |
/// | 77..78 | compressAlgorithm | 0: none; 1: deflate                                                |
/// | 79..511| pad               | zeros                                                              |
struct VMDKSparseHeader: Equatable, Sendable {
  struct Flags: OptionSet, Sendable {
    let rawValue: UInt32
    static let validLineEnds = Flags(rawValue: 1)
    static let redundantTables = Flags(rawValue: 2)
    static let zeroedGrains = Flags(rawValue: 4)
    static let packed = Flags(rawValue: 1 << 16)
    static let markers = Flags(rawValue: 1 << 17)
  }

  var version: UInt32
  var flags: Flags
  var capacity: UInt64
  var grainSectors: UInt64
  var descriptorOffset: UInt64
  var descriptorSectors: UInt64
  var entriesInTable: UInt32
  var redundantDirectoryOffset: UInt64
  var directoryOffset: UInt64
  var overheadSectors: UInt64
  var compression: UInt16
  /// The four bytes that a transfer as text would have changed are what they should be.
  private(set) var hasWholeLineEnds = true

  static let magic: UInt32 = 0x564d_444b
  static let byteCount = 512
  /// In `directoryOffset`: a copy of the header at the end of the file has it.
  static let directoryAtEnd = UInt64.max
  private static let lineEnds = Array("\n \r\n".utf8)

  init(
    version: UInt32, flags: Flags, capacity: UInt64, grainSectors: UInt64, descriptorOffset: UInt64,
    descriptorSectors: UInt64, entriesInTable: UInt32, redundantDirectoryOffset: UInt64,
    directoryOffset: UInt64, overheadSectors: UInt64, compression: UInt16 = 0
  ) {
    self.version = version
    self.flags = flags
    self.capacity = capacity
    self.grainSectors = grainSectors
    self.descriptorOffset = descriptorOffset
    self.descriptorSectors = descriptorSectors
    self.entriesInTable = entriesInTable
    self.redundantDirectoryOffset = redundantDirectoryOffset
    self.directoryOffset = directoryOffset
    self.overheadSectors = overheadSectors
    self.compression = compression
  }

  /// Parses the fields; `validate` says whether they can be true.
  init(_ bytes: RawSpan) throws(EngineError) {
    guard try bytes.littleEndian(UInt32.self, at: 0) == Self.magic else {
      throw EngineError(.notThisFormat, "Image not in VMDK format")
    }
    version = try bytes.littleEndian(UInt32.self, at: 4)
    flags = Flags(rawValue: try bytes.littleEndian(UInt32.self, at: 8))
    capacity = try bytes.littleEndian(UInt64.self, at: 12)
    grainSectors = try bytes.littleEndian(UInt64.self, at: 20)
    descriptorOffset = try bytes.littleEndian(UInt64.self, at: 28)
    descriptorSectors = try bytes.littleEndian(UInt64.self, at: 36)
    entriesInTable = try bytes.littleEndian(UInt32.self, at: 44)
    redundantDirectoryOffset = try bytes.littleEndian(UInt64.self, at: 48)
    directoryOffset = try bytes.littleEndian(UInt64.self, at: 56)
    overheadSectors = try bytes.littleEndian(UInt64.self, at: 64)
    compression = try bytes.littleEndian(UInt16.self, at: 77)
    hasWholeLineEnds = try bytes.bytes(in: 73..<77) == Self.lineEnds
  }

  func serialised() -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: Self.magic)
    bytes.append(littleEndian: version)
    bytes.append(littleEndian: flags.rawValue)
    bytes.append(littleEndian: capacity)
    bytes.append(littleEndian: grainSectors)
    bytes.append(littleEndian: descriptorOffset)
    bytes.append(littleEndian: descriptorSectors)
    bytes.append(littleEndian: entriesInTable)
    bytes.append(littleEndian: redundantDirectoryOffset)
    bytes.append(littleEndian: directoryOffset)
    bytes.append(littleEndian: overheadSectors)
    bytes.append(0)
    bytes += Self.lineEnds
    bytes.append(littleEndian: compression)
    bytes.pad(toMultipleOf: Self.byteCount)
    return bytes
  }

  /// Whether grains may be packed, each with its own length before it.
  var isPacked: Bool { compression != 0 }
}
