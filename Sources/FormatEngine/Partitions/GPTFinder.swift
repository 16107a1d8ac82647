/// Looks for a sound GUID partition table where one may be: in sector 1, in the last sector, and where the header in sector
/// 1 says that the other one is.
struct GPTFinder {
  enum Result {
    case found(GPTEntries, findings: [String])
    /// There is none; the findings say why.
    case missing(findings: [String])
  }

  private let disk: DiskWindow
  private let sectorByteCounts: [UInt64]

  init(_ disk: DiskWindow, sectorByteCounts: [UInt64]) {
    self.disk = disk
    self.sectorByteCounts = sectorByteCounts
  }

  /// The primary table, if it is sound.
  func soundPrimary() -> GPTEntries? {
    for size in sectorByteCounts {
      if let found = try? GPTEntries.read(disk, sector: 1, sectorByteCount: size) { return found }
    }
    return nil
  }

  func find() -> Result {
    if let primary = soundPrimary() { return .found(primary, findings: backupFindings(primary)) }
    let damage = primaryDamage()
    for size in sectorByteCounts {
      for sector in backupSectors(size) {
        guard let backup = try? GPTEntries.read(disk, sector: sector, sectorByteCount: size) else { continue }
        return .found(backup, findings: ["\(damage): the backup in sector \(sector) is used"])
      }
    }
    return .missing(findings: ["\(damage), and there is no sound backup"])
  }

  /// What is wrong with the primary table: what was said of a header that is there, else of the first place.
  private func primaryDamage() -> String {
    var reasons: [EngineError] = []
    for size in sectorByteCounts {
      do throws(EngineError) {
        _ = try GPTEntries.read(disk, sector: 1, sectorByteCount: size)
      } catch { reasons.append(error) }
    }
    let reason = reasons.first { $0.code != .notThisFormat } ?? reasons.first
    return "The primary GPT is damaged (\(reason?.message ?? "it cannot be read"))"
  }

  /// Where a backup may be: in the last sector, and where a header in sector 1 has it, be that damaged or not.
  private func backupSectors(_ sectorByteCount: UInt64) -> [UInt64] {
    let count = disk.byteCount / sectorByteCount
    guard count >= 2 else { return [] }
    let named = try? disk.parsed(at: sectorByteCount, count: 512) { (span) throws(EngineError) -> UInt64 in
      guard try span.littleEndian(UInt64.self, at: 0) == GPTHeader.signature else {
        throw EngineError(.notThisFormat, "no header")
      }
      return try span.littleEndian(UInt64.self, at: 32)
    }
    // Sector 0 is the MBR's.
    return [count - 1] + (named.map { (1..<count - 1).contains($0) ? [$0] : [] } ?? [])
  }

  private func backupFindings(_ primary: GPTEntries) -> [String] {
    let (sector, size) = (primary.header.otherSector, primary.sectorByteCount)
    do throws(EngineError) {
      _ = try GPTEntries.read(disk, sector: sector, sectorByteCount: size)
    } catch {
      return ["The backup GPT in sector \(sector) is damaged (\(error.message))"]
    }
    return sector == disk.byteCount / size - 1 ? [] : ["The backup GPT is not at the end of the disk"]
  }
}
