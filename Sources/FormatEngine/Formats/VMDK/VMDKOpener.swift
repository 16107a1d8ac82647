/// Opens the descriptor of an image, and the files of its extents.
struct VMDKOpener {
  private let file: any ByteStore
  private let request: LayerRequest
  private let pool = OpenFilePool()
  /// Files that are tables and grains of an extent already: two maps of one file would write over each other.
  private var sparseFiles: Set<HostFiles.Identity> = []
  /// Files of flat extents, of which several may lie in one.
  private var flatFiles: Set<HostFiles.Identity> = []

  /// The role of the n-th extent's file is `extents.n`.
  static let role = "extents"

  init(_ file: any ByteStore, _ request: LayerRequest) {
    self.file = file
    self.request = request
  }

  mutating func open() throws(EngineError) -> VMDKOpenedImage {
    let byteCount = try file.byteCount()
    guard byteCount > 0 else { throw .corrupt("File is too small, not a valid image") }
    let magic = try file.bytes(at: 0, count: 4).parsed { (span) throws(EngineError) in
      try span.littleEndian(UInt32.self, at: 0)
    }
    if magic == VMDKSparseHeader.magic { return try openSparse() }
    guard magic != VMDKCOWDHeader.magic else {
      throw .unsupported("The file is one extent of a disk: the descriptor that names it is to be opened")
    }
    guard byteCount <= UInt64(VMDKDescriptor.maximumByteCount) else {
      throw EngineError(.notThisFormat, "invalid VMDK image descriptor")
    }
    let text = try file.bytes(at: 0, count: Int(byteCount))
    return try openExtents(try VMDKDescriptor(text), at: 0)
  }

  // MARK: One file

  private mutating func openSparse() throws(EngineError) -> VMDKOpenedImage {
    let header = try VMDKSparseHeader.read(from: file)
    guard let text = try header.readDescriptor(from: file) else {
      throw .corrupt("The VMDK file is one extent of a disk, and has no descriptor of its own")
    }
    let descriptor = try VMDKDescriptor(text)
    let place = header.descriptorOffset * VMDKExtentLine.sectorByteCount
    if header.capacity == 0 { return try openExtents(descriptor, at: place) }
    guard descriptor.extents.count <= 1 else {
      throw .unsupported("A VMDK file with the descriptor of several extents in it is not supported")
    }
    guard header.capacity <= maximumFileOffset / VMDKExtentLine.sectorByteCount else {
      throw .corrupt("L1 size too big")
    }
    let size = header.capacity * VMDKExtentLine.sectorByteCount
    var line = VMDKExtentLine(byteCount: size, kind: "SPARSE", fileName: "")
    line.access = descriptor.extents.first?.access ?? .readWrite
    let geometry = try VMDKGrainGeometry(header, byteCount: size)
    let extent = VMDKOpenedExtent(
      line: line, range: 0..<size, content: .sparse(geometry),
      file: NamedStore(role: "file", path: request.path, store: file), isOwnFile: true)
    return VMDKOpenedImage(
      descriptor: descriptor, descriptorPlace: self.place(of: descriptor, at: place), extents: [extent])
  }

  private func place(of descriptor: VMDKDescriptor, at offset: UInt64) -> VMDKDescriptorPlace {
    VMDKDescriptorPlace(
      file: file, offset: offset, contentIDRange: descriptor.contentIDRange,
      parentContentIDRange: descriptor.parentContentIDRange,
      longContentIDRange: descriptor.longContentIDRange,
      textEnd: descriptor.textEnd,
      capacity: offset == 0 ? VMDKDescriptor.maximumByteCount : descriptor.capacity)
  }

  // MARK: Several files

  /// Types of disks that are described by a text. Others are of another kind than their extents say.
  private static let types: Set<String> = [
    "monolithicflat", "monolithicsparse", "streamoptimized", "twogbmaxextentsparse", "twogbmaxextentflat",
    "2gbmaxextentsparse", "2gbmaxextentflat", "custom", "fulldevice", "partitioneddevice", "vmfs",
    "vmfssparse",
    "vmfsthin", "vmfspreallocated", "vmfseagerzeroedthick", "vmfsraw", "sesparse",
  ]

  private mutating func openExtents(_ descriptor: VMDKDescriptor, at offset: UInt64) throws(EngineError)
    -> VMDKOpenedImage
  {
    guard Self.types.contains(descriptor.createType.lowercased()) else {
      throw .unsupported("Unsupported image type '\(descriptor.createType)'")
    }
    var extents: [VMDKOpenedExtent] = []
    extents.reserveCapacity(descriptor.extents.count)
    var start: UInt64 = 0
    for (index, line) in descriptor.extents.enumerated() {
      let end = try start.adding(line.byteCount, orCorrupt: "The size of the disk")
      guard end <= maximumFileOffset else { throw .corrupt("The size of the disk is out of range") }
      extents.append(try open(line, index, start..<end, of: descriptor))
      start = end
    }
    for number in request.files.keys {
      guard let index = Int(number.dropFirst(Self.role.count + 1)), index < extents.count else {
        throw .invalid("The image has no extent for the option '\(number)'")
      }
    }
    try checkUnits(extents)
    return VMDKOpenedImage(
      descriptor: descriptor, descriptorPlace: place(of: descriptor, at: offset), extents: extents)
  }

  private mutating func open(
    _ line: VMDKExtentLine, _ index: Int, _ range: Range<UInt64>, of descriptor: VMDKDescriptor
  ) throws(EngineError) -> VMDKOpenedExtent {
    var extent = VMDKOpenedExtent(line: line, range: range, content: .zeros)
    if line.kind == "ZERO" { return extent }
    guard ["FLAT", "VMFS", "SPARSE", "VMFSSPARSE", "SESPARSE"].contains(line.kind) else {
      throw .unsupported("Unsupported extent type '\(line.kind)'")
    }
    guard line.kind != "SESPARSE" || request.access == .readOnly else { throw VMDKSESparseExtent.readOnly }
    let role = "\(Self.role).\(index)"
    if let given = try request.given(role, holding: line.fileContent) {
      extent.file = given
    } else if request.references.opens(.extent) {
      let many = descriptor.extents.count > OpenFilePool.largestWithout
      extent.file = NamedStore(
        role: role, path: ImageName.join(line.fileName, toFolderOf: request.path),
        store: try openFile(line, pooled: many))
    } else {
      extent.content = .unopened
      // Of one that may not be opened there is nothing to tell but its line.
      let unopened = try? request.references.pooled(
        line.fileName, for: .extent, namedBy: request.path, access: .readOnly, in: pool)
      extent.file = unopened.map {
        NamedStore(role: role, path: ImageName.join(line.fileName, toFolderOf: request.path), store: $0)
      }
      return extent
    }
    guard let store = extent.file?.store else { return extent }
    switch line.kind {
    case "SPARSE", "VMFSSPARSE", "SESPARSE":
      do throws(EngineError) {
        extent.content = try sparseContent(of: store, line)
      } catch {
        throw error.whileTrying("Could not open extent '\(line.fileName)'")
      }
    default:
      guard line.hostOffset <= maximumFileOffset - line.byteCount else {
        throw .corrupt("A flat extent ends at a place that no file has")
      }
      extent.content = .flat(start: line.hostOffset)
    }
    return extent
  }

  private mutating func openFile(_ line: VMDKExtentLine, pooled: Bool) throws(EngineError) -> any ByteStore {
    let references = request.references
    let access = line.access == .readWrite ? request.access : .readOnly
    let store: any ByteStore
    let identity: HostFiles.Identity?
    if pooled {
      let pooled = try references.pooled(
        line.fileName, for: .extent, namedBy: request.path, access: access, in: pool)
      // It is there, and it is a file.
      _ = try pooled.byteCount()
      (store, identity) = (pooled, HostFiles.identity(of: pooled.place))
    } else {
      let opened = try references.open(
        line.fileName, for: .extent, namedBy: request.path, access: access, holding: line.fileContent)
      (store, identity) = (opened, opened.identity)
    }
    guard access == .readWrite, let identity else { return store }
    guard identity != (file as? FileStore)?.identity, !sparseFiles.contains(identity) else {
      throw Self.usedTwice(line)
    }
    if line.kind == "FLAT" || line.kind == "VMFS" {
      flatFiles.insert(identity)
    } else if flatFiles.contains(identity) || !sparseFiles.insert(identity).inserted {
      throw Self.usedTwice(line)
    }
    return store
  }

  private static func usedTwice(_ line: VMDKExtentLine) -> EngineError {
    .corrupt("The file '\(line.fileName)' is used by the image in two ways")
  }

  /// What the first bytes of the file say that it is counts, whatever type the descriptor has.
  private func sparseContent(of store: any ByteStore, _ line: VMDKExtentLine) throws(EngineError)
    -> VMDKOpenedExtent.Content
  {
    if line.kind == "SESPARSE" { return .spaceEfficient(try seSparseGeometry(of: store, line)) }
    let magic = try store.bytes(at: 0, count: 4).parsed { (span) throws(EngineError) in
      try span.littleEndian(UInt32.self, at: 0)
    }
    if magic == VMDKCOWDHeader.magic {
      let header = try VMDKCOWDHeader.read(from: store)
      try requireRoom(for: line, in: UInt64(header.capacity))
      return .sparse(VMDKGrainGeometry(header, byteCount: line.byteCount))
    }
    let header = try VMDKSparseHeader.read(from: store)
    try requireRoom(for: line, in: header.capacity)
    return .sparse(try VMDKGrainGeometry(header, byteCount: line.byteCount))
  }

  private func seSparseGeometry(of store: any ByteStore, _ line: VMDKExtentLine) throws(EngineError)
    -> VMDKSESparseGeometry
  {
    let header = try VMDKSESparseHeader.read(from: store)
    try requireRoom(for: line, in: header.capacity)
    if header.needsReplay {
      request.note(
        "The extent '\(line.fileName)' was not closed: it is read without the changes that only its journal has"
      )
    }
    return VMDKSESparseGeometry(header, byteCount: line.byteCount)
  }

  /// `capacity`: of the extent's file, in sectors.
  private func requireRoom(for line: VMDKExtentLine, in capacity: UInt64) throws(EngineError) {
    guard capacity >= line.byteCount / VMDKExtentLine.sectorByteCount else {
      throw .corrupt("It is smaller than the descriptor says")
    }
  }

  /// Readers and writers work by the largest grain: packed grains must be of one size and lie at multiples of it.
  private func checkUnits(_ extents: [VMDKOpenedExtent]) throws(EngineError) {
    guard let largest = extents.compactMap(\.grainSize).max() else { return }
    for extent in extents {
      guard let grainSize = extent.grainSize else { continue }
      let isRegular = grainSize == largest && extent.range.lowerBound.isAligned(to: largest)
      guard isRegular || (extent.geometry?.isPacked != true && request.access == .readOnly) else {
        throw .unsupported(
          "Extents whose grains have several sizes, or do not begin at multiples of them, are only read, and only"
            + " where nothing is packed")
      }
    }
  }
}
