import Glibc
import TestSupport

@testable import FormatEngine

/// Stands for a queue of the kernel: does one thing at each wait, in any order, and fails or falls short where it is
/// told to.
final class ScriptedQueue: KernelQueue {
  private struct Request {
    let tag: Int
    let offset: UInt64
    let perform: () -> Int
  }

  private var waiting: [Request] = []
  private var random = SeededRandom.fromEnvironment(or: 77)
  private(set) var offsets: [UInt64] = []
  private(set) var mostWaiting = 0
  /// The results of some transfers, by the number in which they were handed in: an error, or fewer bytes than were
  /// asked for, of which none is moved.
  var results: [Int: Int] = [:]

  var waitingCount: Int { waiting.count }

  func read(_ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, tag: Int) {
    let number = offsets.count
    take(tag, offset) { [results] in
      results[number] ?? (unsafe pread(descriptor, buffer.baseAddress, buffer.count, off_t(offset)))
    }
  }

  func write(_ descriptor: CInt, _ bytes: UnsafeRawBufferPointer, at offset: UInt64, tag: Int) {
    let number = offsets.count
    take(tag, offset) { [results] in
      results[number] ?? (unsafe pwrite(descriptor, bytes.baseAddress, bytes.count, off_t(offset)))
    }
  }

  private func take(_ tag: Int, _ offset: UInt64, _ perform: @escaping () -> Int) {
    offsets.append(offset)
    waiting.append(Request(tag: tag, offset: offset, perform: perform))
    mostWaiting = max(mostWaiting, waiting.count)
  }

  /// Is done at once, as if something could be read always.
  func watch(_ descriptor: CInt, tag: Int) {
    waiting.append(Request(tag: tag, offset: 0) { 0 })
  }

  func submit() {}

  func wait(_ body: (Int, Int) -> Void) {
    guard !waiting.isEmpty else { return }
    let request = waiting.remove(at: random.below(waiting.count))
    body(request.tag, request.perform())
  }
}
