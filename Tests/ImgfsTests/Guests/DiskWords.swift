import CLinux
import Foundation
import TestSupport

/// A file that is read and written in words, from memory that O_DIRECT takes.
final class DiskWords {
  static let direct = Int32(IMGFS_O_DIRECT)

  private let descriptor: Int32

  init(_ path: String, _ flags: Int32) throws {
    descriptor = unsafe open(path, flags | O_CLOEXEC)
    try check(descriptor, "open \(path)")
  }

  deinit { close(descriptor) }

  func read(_ offset: Int, count: Int) throws -> [UInt64] {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 4096)
    defer { unsafe buffer.deallocate() }
    var done = 0
    while done < count {
      let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
      let got = unsafe pread(descriptor, rest.baseAddress, rest.count, off_t(offset + done))
      guard got > 0 else { throw TestFailure("pread \(offset + done): \(got), \(errno)") }
      done += got
    }
    return unsafe [UInt64](buffer.bindMemory(to: UInt64.self))
  }

  func write(_ words: [UInt64], at offset: Int) throws {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: words.count * 8, alignment: 4096)
    defer { unsafe buffer.deallocate() }
    unsafe words.withUnsafeBytes { unsafe buffer.copyMemory(from: $0) }
    let got = unsafe pwrite(descriptor, buffer.baseAddress, buffer.count, off_t(offset))
    guard got == words.count * 8 else { throw TestFailure("pwrite \(offset): \(got), \(errno)") }
  }

  /// Carries out write `number` of a `SharedDisk`.
  func put(_ number: UInt32, _ blocks: Range<Int>) throws {
    let offset = blocks.lowerBound * SharedDisk.blockSize
    if SharedDisk.isZeros(number) {
      try letGo(offset, count: blocks.count * SharedDisk.blockSize)
    } else {
      let words = blocks.flatMap {
        [UInt64](repeating: SharedDisk.word($0, number), count: SharedDisk.wordsOfBlock)
      }
      try write(words, at: offset)
    }
  }

  func letGo(_ offset: Int, count: Int) throws {
    try check(
      fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(offset), off_t(count)),
      "fallocate")
  }

  func sync() throws { try check(fsync(descriptor), "fsync") }
}

func check(_ status: Int32, _ what: String) throws {
  guard status >= 0 else { throw TestFailure("\(what): \(unsafe String(cString: strerror(errno)))") }
}
