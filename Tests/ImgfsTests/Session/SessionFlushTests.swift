import FormatEngine
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import imgfs

/// A flush of an image that is being closed, or was.
@Suite struct SessionFlushTests {
  /// It opens nothing, waits for the end of the closing, and tells once how that went.
  @Test(arguments: [false, true]) func waitsForAClosing(_ isForGood: Bool) throws {
    let openings = Atomic<Int>(0)
    let (closing, goOn) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    let session = ImageSession(name: "a", access: ImageSession.Access(isWritable: true)) {
      () throws(EngineError) in
      openings.add(1, ordering: .relaxed)
      return ClosingLayer { () throws(EngineError) in
        closing.signal()
        _ = goOn.wait(timeout: .now() + 5)
        throw EngineError(.noSpace, "The disk is full")
      }.chain()
    }
    let size = try session.withChain { (chain) throws(EngineError) in chain.virtualSize }
    #expect(size == 4096)
    let answer = Guarded<String?>(nil)
    let closer = Thread { try? session.closeIfIdle(for: 0, forGood: isForGood) }
    let flusher = Thread {
      do throws(EngineError) {
        try session.flush()
        answer.withLock { $0 = "well" }
      } catch {
        let message = error.message
        answer.withLock { $0 = message }
      }
    }
    Deadline.within(seconds: 30, "a flush beside a closing") {
      closer.start()
      closing.wait()
      #expect(session.isOpen)
      flusher.start()
      usleep(100_000)
      #expect(answer.withLock { $0 } == nil)
      goOn.signal()
      #expect(MountedImage.waits { flusher.isFinished && closer.isFinished })
    }
    #expect(answer.withLock { $0 } == "The disk is full")
    try session.flush()
    #expect(openings.load(ordering: .relaxed) == 1 && !session.isOpen)
    #expect(throws: EngineError.self) { try session.close() }
  }
}
