/// What `stat` shows of a file or folder, less its owner.
struct Attributes: Equatable, Sendable {
  enum Kind: Equatable, Sendable { case folder, file, link }

  var id: UInt64
  var kind: Kind
  var byteCount: UInt64
  /// Bytes that take room: what is not known to be zeros.
  var allocatedByteCount: UInt64
  var time: FileTime
  /// Whether its owner may change it, or, of a folder, make something in it.
  var isWritable: Bool
  /// False: size and room are first guesses, since finding them out takes reading; ask `attributes`.
  var isExact: Bool
  /// Whether what stands here holds for as long as the tree is mounted, if it is exact.
  var isLasting: Bool
  /// Whether the name it was found by goes on meaning this for as long as the tree is mounted.
  var hasLastingName: Bool
  /// False where the size is not known at all, and the kernel must not be told one.
  var hasSize = true

  var isFolder: Bool { kind == .folder }
}
