/// An entry of the BAT: bits 0 - 2 the state, 3 - 19 reserved, 20 - 63 the place in MiB ([MS-VHDX] 2.5.1).
struct VHDXEntry: Equatable, Sendable {
  var raw: UInt64

  /// States of payload blocks; sector bitmaps have `notPresent` and `fullyPresent` alone.
  enum State: UInt64 {
    /// Nothing here: what the parent has, or zeros.
    case notPresent = 0
    /// May read as anything; here as zeros.
    case undefined = 1
    case zero = 2
    /// A guest let go of it; here it reads as zeros.
    case unmapped = 3
    /// The number of `unmapped` in drafts of the format (0.95).
    case draftUnmapped = 5
    case fullyPresent = 6
    /// The sector bitmap says which sectors are here; the others are the parent's.
    case partiallyPresent = 7
  }

  init(raw: UInt64) { self.raw = raw }

  init(_ state: State, hostOffset: UInt64 = 0) { raw = hostOffset | state.rawValue }

  /// Nil for a reserved one.
  var state: State? { State(rawValue: raw & 7) }
  /// In bytes, of whole MiB.
  var hostOffset: UInt64 { raw & ~(MiB - 1) }

  /// Whether a block of the file belongs to it. (`undefined` and `unmapped` may go on having one, which nothing reads.)
  var isStored: Bool { state == .fullyPresent || state == .partiallyPresent }
}
