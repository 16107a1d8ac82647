import Synchronization

extension Qcow2Checker {
  /// The copied flag of every active entry says whether the counted references are exactly one.
  mutating func checkCopiedFlags() throws(EngineError) {
    let l1 = try ResidentTable(store: file, hostOffset: header.l1Offset, count: Int(header.l1Count))
    let size = geometry.clusterSize
    let buffer = AlignedBuffer(byteCount: Int(size))
    var stored = Qcow2RefcountReader(refcounts)
    for index in 0..<UInt64(l1.count) {
      let entry = Qcow2L1Entry(l1[index])
      guard entry.tableOffset != 0, entry.tableOffset.isAligned(to: size) else { continue }
      let count = stored.count(of: entry.tableOffset >> geometry.clusterBits)
      if (count == 1) != entry.isCopied {
        corruption(
          "ERROR OFLAG_COPIED L2 cluster: l1_index=\(index) l1_entry=\(hex(entry.raw)) refcount=\(count)")
      }
      guard entry.tableOffset >> geometry.clusterBits < counts.clusterCount else { continue }
      unsafe try file.read(into: buffer.bytes, at: entry.tableOffset)
      checkCopiedFlags(inTable: buffer, &stored)
    }
  }

  private mutating func checkCopiedFlags(inTable buffer: AlignedBuffer, _ stored: inout Qcow2RefcountReader) {
    guard !header.incompatibleFeatures.contains(.externalDataFile) else { return }
    for position in stride(from: 0, to: buffer.byteCount, by: Int(geometry.entryByteCount)) {
      // SAFETY: a whole number of entries fills the buffer.
      let raw = UInt64(bigEndian: unsafe buffer.bytes.load(fromByteOffset: position, as: UInt64.self))
      guard raw != 0 else { continue }
      let entry = Qcow2L2Entry(raw)
      guard !entry.isCompressed, entry.hostOffset != 0, entry.hostOffset.isAligned(to: geometry.clusterSize)
      else {
        continue
      }
      let count = stored.count(of: entry.hostOffset >> geometry.clusterBits)
      if (count == 1) != entry.isCopied {
        corruption("ERROR OFLAG_COPIED data cluster: l2_entry=\(hex(raw)) refcount=\(count)")
      }
    }
  }

  /// Bitmaps: directory, tables and their clusters (qcow2.txt, "Bitmaps"). Where a part of them cannot be
  /// understood, what it refers to counts as used by nobody.
  mutating func walkBitmaps() throws(EngineError) {
    let prologue = Qcow2Prologue(header: header, extensions: extensions, backing: nil)
    let directory: Qcow2BitmapDirectory
    do throws(EngineError) {
      directory = try Qcow2BitmapDirectory.read(prologue, from: file)
    } catch {
      corruption("ERROR bitmaps: \(error.message)")
      return
    }
    countRange(directory.place.lowerBound, directory.place.upperBound - directory.place.lowerBound)
    for bitmap in directory.bitmaps {
      let tableEnd = bitmap.tableOffset + UInt64(bitmap.tableCount) * 8
      countRange(bitmap.tableOffset, tableEnd - bitmap.tableOffset)
      // What is past the end was just told.
      guard try tableEnd <= file.byteCount().aligned(upTo: geometry.clusterSize) else { continue }
      do throws(EngineError) {
        let table = try Qcow2BitmapTable(bitmap, geometry, from: file)
        for offset in table.clusters { countRange(offset, geometry.clusterSize) }
      } catch {
        corruption("ERROR \(error.message)")
      }
    }
  }

  /// The clusters of an encryption header, whose place an extension names.
  mutating func countEncryptionHeader() {
    guard header.encryptionMethod == 2, let content = extensions[Qcow2HeaderExtensions.Kind.encryption],
      let place = try? content.parsed({ (span) throws(EngineError) in
        (try span.bigEndian(UInt64.self, at: 0), try span.bigEndian(UInt64.self, at: 8))
      })
    else { return }
    countRange(place.0, place.1)
  }
}

extension Qcow2Layer: Checkable {
  func check(progress: Progress) throws(EngineError) -> CheckReport {
    let prologue = state.withLock { $0.currentPrologue }
    var checker = try Qcow2Checker(prologue, file: file, progress: progress)
    return try checker.run()
  }
}
