/// An L1 table in memory, apart from the one that the layer works with: of a snapshot, or one that is to be.
struct Qcow2L1Table: Equatable {
  /// In disk order.
  private var raw: [UInt64]

  /// Reads a table that was found to be where a table can be.
  init(at hostOffset: UInt64, count: UInt32, from file: any ByteStore) throws(EngineError) {
    raw = [UInt64](repeating: 0, count: Int(count))
    guard count > 0 else { return }
    var failure: EngineError?
    unsafe raw.withUnsafeMutableBytes { bytes in
      do throws(EngineError) { unsafe try file.read(into: bytes, at: hostOffset) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  var count: Int { raw.count }

  subscript(_ index: Int) -> Qcow2L1Entry {
    get { Qcow2L1Entry(UInt64(bigEndian: raw[index])) }
    set { raw[index] = newValue.raw.bigEndian }
  }

  /// Appends entries without a table up to `count`.
  mutating func grow(to count: Int) {
    if raw.count < count { raw.append(contentsOf: repeatElement(0, count: count - raw.count)) }
  }

  /// Writes the table to a new place and gives its host offset, 0 for a table without entries.
  func write(to rewrite: Qcow2Rewrite) throws(EngineError) -> UInt64 {
    guard !raw.isEmpty else { return 0 }
    var padded = raw
    let entriesInCluster = Int(rewrite.geometry.clusterSize / 8)
    let clusters = (raw.count + entriesInCluster - 1) / entriesInCluster
    padded.append(contentsOf: repeatElement(0, count: clusters * entriesInCluster - raw.count))
    let place = try rewrite.allocate(clusters: UInt64(clusters))
    var failure: EngineError?
    unsafe padded.withUnsafeBytes { bytes in
      do throws(EngineError) { unsafe try rewrite.file.write(bytes, at: place) } catch { failure = error }
    }
    if let failure { throw failure }
    return place
  }
}
