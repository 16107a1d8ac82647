extension Qcow2Rewrite {
  /// Lets go of all that the disk stores. Snapshots keep what they share with it.
  func removeContent() throws(EngineError) {
    let header = prologue.header
    let l1 = try Qcow2L1Table(at: header.l1Offset, count: header.l1Count, from: file)
    if header.incompatibleFeatures.contains(.externalDataFile) {
      let reader = try Qcow2TableReader(header, file: file)
      for index in 0..<l1.count {
        if let table = try reader.cluster(of: l1[index]) { try remove(table..<table + 1) }
      }
    } else {
      try Qcow2TreeRewriter(self).removeReferences(of: l1)
    }
    var empty = try Qcow2L1Table(at: 0, count: 0, from: file)
    empty.grow(to: l1.count)
    try replaceL1(with: empty)
  }

  /// Writes a new L1 table and lets go of the old one.
  func replaceL1(with table: Qcow2L1Table) throws(EngineError) {
    let header = prologue.header
    if header.l1Count > 0 {
      try remove(clusters(at: header.l1Offset, byteCount: UInt64(header.l1Count) * 8))
    }
    prologue.header.l1Offset = try table.write(to: self)
    prologue.header.l1Count = UInt32(table.count)
  }
}
