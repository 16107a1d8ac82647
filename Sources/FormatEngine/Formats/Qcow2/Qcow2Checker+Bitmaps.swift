extension Qcow2Checker {
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

  /// Why the bitmaps cannot be used, nil where all of them can.
  func bitmapDamage() throws(EngineError) -> String? {
    let prologue = Qcow2Prologue(header: header, extensions: extensions, backing: nil)
    do throws(EngineError) {
      for bitmap in try Qcow2BitmapDirectory.read(prologue, from: file).bitmaps {
        _ = try Qcow2BitmapTable(bitmap, geometry, from: file)
      }
      return nil
    } catch {
      guard error.code == .corrupt else { throw error }
      return error.message
    }
  }

  /// Whether something else stands in clusters of the bitmaps, too: a guest's write there would change their bits, and marks in
  /// their list what the guest reads. After `findReferences`.
  func bitmapsShareClusters() throws(EngineError) -> Bool {
    let prologue = Qcow2Prologue(header: header, extensions: extensions, backing: nil)
    guard let directory = try? Qcow2BitmapDirectory.read(prologue, from: file) else { return false }
    func isShared(_ offset: UInt64, _ byteCount: UInt64) -> Bool {
      guard byteCount > 0, offset < fileEnd else { return false }
      let last = (offset + byteCount - 1) >> geometry.clusterBits
      return (offset >> geometry.clusterBits...last).contains { $0 < comparedCount && counts[$0] > 1 }
    }
    if isShared(directory.place.lowerBound, directory.place.upperBound - directory.place.lowerBound) {
      return true
    }
    for bitmap in directory.bitmaps {
      if isShared(bitmap.tableOffset, UInt64(bitmap.tableCount) * 8) { return true }
      let table = try Qcow2BitmapTable(bitmap, geometry, from: file)
      if table.clusters.contains(where: { isShared($0, geometry.clusterSize) }) { return true }
    }
    return false
  }

  /// The clusters of an encryption header, whose place an extension names.
  mutating func countEncryptionHeader() {
    guard header.encryptionMethod == 2, let place = extensions.encryptionHeader else { return }
    countRange(place.offset, place.byteCount)
  }
}
