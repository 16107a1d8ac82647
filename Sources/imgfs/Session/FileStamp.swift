import FormatEngine
import Glibc

/// By what a file is known again: another file in its place, and most changes, give another one.
struct FileStamp: Equatable, Sendable {
  /// What a file fails with that has become another.
  static let replacedErrno = ESTALE

  let device: UInt64
  let inode: UInt64
  let byteCount: UInt64
  let modified: FileTime

  /// Whether it is the same file, whatever was written to it.
  func isSameFile(as other: FileStamp) -> Bool { device == other.device && inode == other.inode }

  init(_ status: HostFiles.Status) {
    (device, inode) = (status.identity.device, status.identity.inode)
    byteCount = status.byteCount
    modified = FileTime(seconds: status.modifiedSeconds, nanoseconds: status.modifiedNanoseconds)
  }
}

/// The stamps of all files of a chain, member by member, each member's own file first.
struct ChainStamps: Equatable, Sendable {
  private var members: [[FileStamp]]

  init(_ chain: ImageChain) { members = chain.members.map { $0.fileStatuses.map { FileStamp($0) } } }

  /// Of the own file of the member at `depth`; nil where it has none.
  func ownFile(ofMemberAt depth: Int) -> FileStamp? {
    members.indices.contains(depth) ? members[depth].first : nil
  }

  /// Whether nobody else has changed a file since it was as `old` has it (nil: nobody knows), as far as that can be told:
  /// where this mount has written to the top, that is another one by itself.
  func areOurs(since old: ChainStamps?, hasWritten: Bool) -> Bool {
    guard let old else { return true }
    return hasWritten ? members.dropFirst() == old.members.dropFirst() : self == old
  }

  /// The same with the top as `other` has it.
  func withTop(of other: ChainStamps) -> ChainStamps {
    var stamps = self
    stamps.members.replaceSubrange(..<min(1, members.count), with: other.members.prefix(1))
    return stamps
  }
}
