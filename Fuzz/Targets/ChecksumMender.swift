internal import CGcrypt
import FormatEngine
import TestSupport

/// Puts the checksums of a damaged image right, so that what lies behind them is reached: whoever makes an image to do harm can sum, too.
struct ChecksumMender {
  let store: SparseStore

  func mend(format: String) throws(EngineError) {
    switch format {
    case "vpc": try mendVPC()
    case "vhdx": try mendVHDX()
    case "parallels": try mendParallels()
    default: try mendGPT()
    }
  }

  private func number(at offset: UInt64, bytes count: Int) throws(EngineError) -> UInt64 {
    try store.bytes(at: offset, count: count).reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  private func put(_ value: UInt32, bigEndian: Bool = false, at offset: UInt64) throws(EngineError) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    try store.write(bytes: bigEndian ? bytes.reversed() : bytes, at: offset)
  }

  // MARK: VHD: the complement of the sum of all bytes but those of the sum

  private func mendVPC() throws(EngineError) {
    let end = try store.byteCount()
    try sum(at: 0, count: 512, field: 64)
    if end >= 512 { try sum(at: (end - 512) / 512 * 512, count: 512, field: 64) }
    let header = try number(at: 16, bytes: 8).byteSwapped
    for place in [512, header] where place < end { try sum(at: place, count: 1024, field: 36) }
  }

  private func sum(at offset: UInt64, count: Int, field: Int) throws(EngineError) {
    var bytes = try store.bytes(at: offset, count: count)
    // Of what is none of its structures no sum is wanted.
    guard bytes.starts(with: Array("conectix".utf8)) || bytes.starts(with: Array("cxsparse".utf8)) else {
      return
    }
    for index in field..<field + 4 { bytes[index] = 0 }
    try put(~bytes.reduce(UInt32(0)) { $0 &+ UInt32($1) }, bigEndian: true, at: offset + UInt64(field))
  }

  // MARK: VHDX: CRC-32C of headers, region tables and entries of the log

  private func mendVHDX() throws(EngineError) {
    for place: UInt64 in [64 * KiB, 128 * KiB] { try crc(at: place, count: 4096, "head") }
    for place: UInt64 in [192 * KiB, 256 * KiB] { try crc(at: place, count: 65536, "regi") }
    let end = try store.byteCount()
    for header in [64 * KiB, 128 * KiB] {
      let (byteCount, start) = (try number(at: header + 68, bytes: 4), try number(at: header + 72, bytes: 8))
      guard start < end else { continue }
      let logEnd = start + min(byteCount, MiB, end - start)
      for place in stride(from: start, to: logEnd, by: 4096) {
        let count = min(try number(at: place + 8, bytes: 4), logEnd - place)
        if count >= 64 { try crc(at: place, count: Int(count), "loge") }
      }
    }
  }

  private func crc(at offset: UInt64, count: Int, _ signature: String) throws(EngineError) {
    guard try store.bytes(at: offset, count: 4) == Array(signature.utf8) else { return }
    var bytes = try store.bytes(at: offset, count: count)
    for index in 4..<8 { bytes[index] = 0 }
    try put(CRC32C.checksum(of: bytes), at: offset + 4)
  }

  // MARK: Parallels: MD5 of the cluster of the extension

  private func mendParallels() throws(EngineError) {
    let (cluster, sector) = (try number(at: 28, bytes: 4) * 512, try number(at: 56, bytes: 8))
    let end = try store.byteCount()
    guard sector > 0, sector < end / 512, (512...MiB).contains(cluster) else { return }
    let bytes = try store.bytes(at: sector * 512 + 24, count: Int(cluster) - 24)
    var digest = [UInt8](repeating: 0, count: 16)
    // SAFETY: MD5 has 16 bytes, and the whole of `bytes` is summed.
    unsafe bytes.withUnsafeBytes { from in
      unsafe digest.withUnsafeMutableBytes { to in
        unsafe gcry_md_hash_buffer(CInt(GCRY_MD_MD5.rawValue), to.baseAddress, from.baseAddress, from.count)
      }
    }
    try store.write(bytes: digest, at: sector * 512 + 8)
  }

  // MARK: LUKS: no checksums, but numbers that say how long a passphrase takes

  /// As few iterations as there may be: with millions in each slot an input would take as long as a passphrase does.
  func limitKeyWork() throws(EngineError) {
    guard try store.bytes(at: 0, count: 4) == Array("LUKS".utf8) else { return }
    for field in [164] + (0..<8).map({ 208 + 48 * $0 + 4 }) as [UInt64] {
      if try number(at: field, bytes: 4).byteSwapped >> 32 > 4000 {
        try put(1000, bigEndian: true, at: field)
      }
    }
  }

  // MARK: GPT: CRC-32 of the header and of the entries

  private func mendGPT() throws(EngineError) {
    let end = try store.byteCount()
    for sector: UInt64 in [512, 4096] where end >= 2 * sector {
      for place in [sector, (end / sector - 1) * sector] {
        guard try store.bytes(at: place, count: 8) == Array("EFI PART".utf8) else { continue }
        let entries = try number(at: place + 72, bytes: 8)
        let byteCount =
          min(
            try number(at: place + 80, bytes: 4), 1024) * min(try number(at: place + 84, bytes: 4), 1024)
        if entries < end / sector {
          try put(
            CRC32.checksum(of: try store.bytes(at: entries * sector, count: Int(byteCount))), at: place + 88)
        }
        try put(0, at: place + 16)
        let headerByteCount = min(try number(at: place + 12, bytes: 4), sector)
        try put(CRC32.checksum(of: try store.bytes(at: place, count: Int(headerByteCount))), at: place + 16)
      }
    }
  }
}
