import FormatEngine
import Foundation
import TestSupport
import Testing

/// A resize that fails leaves a disk of the old size or of the new one, and the file says the same as the layer.
@Suite struct VPCResizeTests {
  private static let blockSize: UInt64 = 4096

  @Test(arguments: [10, 2000])
  func failedCallLeavesOneSize(_ blockCount: UInt64) throws {
    let good = MemoryStore(VPCImage().empty(byteCount: 1024 * Int(Self.blockSize)))
    let filled = try ImageChain.over(good, format: VPCFormat.self, access: .readWrite)
    for block: UInt64 in [0, 5, 900] { try filled.writeBytes([7], at: block * Self.blockSize) }
    try filled.close()
    var failures = 0
    for number in 0..<60 {
      let memory = MemoryStore(good.snapshot)
      let store = FaultStore(memory)
      let chain = try ImageChain.over(store, format: VPCFormat.self, access: .readWrite)
      store.arm(failing: number, of: [.write, .writeZeros, .resize, .flush])
      do throws(EngineError) { try chain.resize(to: blockCount * Self.blockSize) } catch { failures += 1 }
      store.arm(failing: nil)
      // What comes next may move the footer.
      try chain.writeBytes([8], at: 7 * Self.blockSize)
      try chain.close()
      let reopened = try ImageChain.over(MemoryStore(memory.snapshot), format: VPCFormat.self)
      #expect(reopened.virtualSize == chain.virtualSize, "call \(number)")
      for (block, byte) in [(0, 7), (5, 7), (7, 8)] as [(UInt64, UInt8)] {
        #expect(try reopened.readBytes(at: block * Self.blockSize, count: 1) == [byte], "call \(number)")
      }
    }
    #expect(failures > 2 && failures < 60)
  }

  /// On a file system in memory, which refuses at once what is larger than itself.
  @Test(.enabled(if: FileManager.default.isWritableFile(atPath: "/dev/shm")))
  func fixedDiskWithoutRoomToGrowStaysAsItIs() throws {
    let path = "/dev/shm/imgfs-test-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: path) }
    let bytes = VPCImage().fixed([UInt8](repeating: 1, count: 8192), id: .init(repeating: 2, count: 16))
    try Files.write(bytes, to: path)
    let chain = try ImageOpener.open(path, OpenOptions(format: "vpc", access: .readWrite))
    #expect(throws: EngineError.self) { try chain.resize(to: 1 << 40, preallocation: .falloc) }
    #expect(chain.virtualSize == 8192)
    try chain.close()
    #expect(try Files.read(path) == bytes)
  }
}
