/// How to copy disks into another image.
public struct ConvertOptions: Sendable {
  /// What of the sources is copied.
  public enum Scope: Sendable {
    case everything
    /// The target lies over what the source's top layer lies over: only what that holds is copied, and what reads as zeros
    /// because nothing lies below it.
    case topLayer
    /// The source is the upper layers of a chain, `count` of them, and the target the layer below these: what none of them
    /// holds is there already.
    case upperLayers(count: Int)
    /// The target is the source, soon to lie over `backing` or over nothing: only what its top layer does
    /// not store, and what reads otherwise there, is copied into it.
    case differences(from: NewBacking)
  }

  /// What a failed read or write is called, in qemu-img's words for the operation.
  public enum FailureWords: Sendable {
    /// "error while reading at byte N"
    case places
    case given(reading: String, writing: String)

    func reading(at offset: UInt64) -> String {
      if case .given(let reading, _) = self { return reading }
      return "error while reading at byte \(offset)"
    }

    func writing(at offset: UInt64) -> String {
      if case .given(_, let writing) = self { return writing }
      return "error while writing at byte \(offset)"
    }
  }

  public var scope: Scope = .everything
  /// Store whole clusters packed.
  public var compress = false
  /// Zeros of at least this many bytes are not stored; 0 stores all of them.
  public var sparseByteCount: UInt64 = 4096
  public var threadCount = WorkerPool.processorCount()
  /// The target reads as zeros where nothing is written to it.
  public var targetReadsAsZeros = true
  /// Look for zeros in what is read, as well as in what the tables say.
  public var looksForZeros = true
  /// What lies in a file as the target will have it, too, is copied by the host where it can, and as it is: nobody looks for
  /// zeros there.
  public var copiesInHost = false
  /// The target may share blocks of the disk with the source, where the file system can: for files that were made for it.
  public var sharesBlocks = false
  /// Guest bytes a second at most; nil: as fast as can be.
  public var rateLimit: UInt64?
  public var failureWords = FailureWords.places
  /// Write whatever is ready first. In order, two runs give the same file, and its clusters lie as the guest's.
  public var allowsAnyOrder = false
  /// What of all sources together is copied, to the start of the target; nil: everything.
  public var part: Range<UInt64>?
  /// The target, which was made for it, gets the size of a source whose size nobody knew.
  public var fitsTarget = false
  /// What cannot be read becomes zeros, and is told here, a sentence for each sector; nil: it is an error.
  public var salvage: (@Sendable (String) -> Void)?

  public init() {}
}
