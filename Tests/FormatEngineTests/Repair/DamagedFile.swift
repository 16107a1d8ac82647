import TestSupport

/// The bytes of an image file that is being damaged.
///
/// Of several kinds of damage one may have sent an offset anywhere, or cut the file: what lies outside reads as 0, and is
/// not written.
struct DamagedFile {
  var bytes: [UInt8]
  var isBigEndian = false

  func number(at offset: Int, width: Int = 8) -> UInt64 {
    guard holds(offset, width) else { return 0 }
    let field = bytes[offset..<offset + width]
    return (isBigEndian ? Array(field) : field.reversed()).reduce(0) { $0 << 8 | UInt64($1) }
  }

  mutating func put(_ value: UInt64, at offset: Int, width: Int = 8) {
    guard holds(offset, width) else { return }
    for index in 0..<width {
      let shift = UInt64(8 * (isBigEndian ? width - 1 - index : index))
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> shift)
    }
  }

  mutating func change(_ offset: Int, width: Int = 8, _ body: (UInt64) -> UInt64) {
    put(body(number(at: offset, width: width)), at: offset, width: width)
  }

  mutating func fill(_ range: Range<Int>, with byte: UInt8) {
    for place in range.clamped(to: 0..<bytes.count) { bytes[place] = byte }
  }

  mutating func cut(to count: Int) {
    if count >= 0, count < bytes.count { bytes.removeLast(bytes.count - count) }
  }

  private func holds(_ offset: Int, _ width: Int) -> Bool {
    offset >= 0 && offset <= bytes.count - width
  }
}

/// One way to damage images of a kind.
struct DamageKind: Sendable {
  enum Outcome: Sendable {
    /// After `check -r all` nothing is wrong any more.
    case mended
    /// It stays, is named and counted: what was there cannot be told, and is not thrown away.
    case stays
    /// The image is not opened, nor written to.
    case refused
    /// That depends on what it meets.
    case depends
  }

  var name: String
  var outcome = Outcome.depends
  /// A check has nothing to say of it.
  var isSilent = false
  /// Why the judge's check does not count the same; nil where it must.
  var judgeDiffers: String?
  /// Why what is read may be another thing after a repair; nil where it must not.
  var ambiguity: String?
  var apply: @Sendable (inout DamagedFile, inout SeededRandom) -> Void

  init(
    _ name: String, _ outcome: Outcome = .depends, isSilent: Bool = false, judgeDiffers: String? = nil,
    ambiguity: String? = nil,
    _ apply: @escaping @Sendable (inout DamagedFile, inout SeededRandom) -> Void
  ) {
    self.name = name
    self.outcome = outcome
    self.isSilent = isSilent
    self.judgeDiffers = judgeDiffers
    self.ambiguity = ambiguity
    self.apply = apply
  }
}

extension Array {
  /// One of them; there must be some.
  func any(_ random: inout SeededRandom) -> Element { self[random.below(count)] }
}

extension DamageKind {
  /// What may befall a file of any format. `unit`: its cluster.
  static func ofFiles(unit: Int) -> [DamageKind] {
    let words = "the judge goes by what the format says of its end"
    return [
      DamageKind("file cut off at a cluster", judgeDiffers: words) { file, random in
        file.cut(to: file.bytes.count - min(file.bytes.count, unit * (1 + random.below(4))))
      },
      DamageKind("file cut in the middle of a cluster", judgeDiffers: words) { file, random in
        file.cut(to: file.bytes.count - min(file.bytes.count, 1 + random.below(3 * unit)))
      },
      DamageKind("file cut anywhere", judgeDiffers: words) { file, random in
        file.cut(to: random.below(max(file.bytes.count, 1)))
      },
      DamageKind("garbage behind the end", judgeDiffers: words) { file, random in
        file.bytes += random.bytes(1 + random.below(2 * unit))
      },
      DamageKind("zeros behind the end", judgeDiffers: words) { file, random in
        file.bytes += [UInt8](repeating: 0, count: unit * (1 + random.below(3)))
      },
    ]
  }

  /// Bytes of tables and fields, flipped and set.
  static func anyBytes(of name: String, in places: [Range<Int>]) -> DamageKind {
    DamageKind("any bytes of \(name)", judgeDiffers: "anything may be meant") { file, random in
      for _ in 0...random.below(3) {
        let range = places.any(&random)
        let place = range.lowerBound + random.below(max(range.count, 1))
        guard place < file.bytes.count else { continue }
        file.bytes[place] =
          random.oneIn(2) ? file.bytes[place] ^ (1 << UInt8(random.below(8))) : UInt8(random.below(256))
      }
    }
  }
}
