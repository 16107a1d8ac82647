import TestSupport
import Testing

@testable import FormatEngine

/// A LUKS header of a qcow2 image that shares clusters with something else (QEMU's c9b83e9c23): keys that are changed, or guest
/// bytes that are written, would destroy the other.
@Suite struct LUKSOverlapTests {
  enum Sharing: String, CaseIterable, Sendable {
    case l1Table, l2Table, refcountTable, refcountBlock, data, longHeader
  }

  private static let content = [UInt8](repeating: 6, count: 3 * 65536)

  /// A sound image with bytes in its first three clusters.
  private func soundImage() throws -> Qcow2Bytes {
    let image = try EncryptedImage()
    let chain = try image.open(.readWrite)
    try chain.writeBytes(Self.content, at: 0)
    try chain.close()
    return Qcow2Bytes(bytes: image.store.snapshot)
  }

  private func image(_ sharing: Sharing) throws -> Qcow2Bytes {
    var image = try soundImage()
    let place = try #require(image.headerExtension(0x0537_be77)).offset
    let (start, count) = (Int(image.number(at: place, width: 8)), Int(image.number(at: place + 8, width: 8)))
    // Key material of the last slot, which has no key.
    let shared = (start + count - 65536) / 65536 * 65536
    func move(_ offset: Int) {
      image.bytes.replaceSubrange(shared..<shared + 65536, with: image.bytes[offset..<offset + 65536])
    }
    switch sharing {
    case .l1Table:
      move(image.l1Offset)
      image.put(UInt64(shared), at: 40, width: 8)
    case .l2Table:
      move(image.l2Offset)
      image.put(1 << 63 | UInt64(shared), at: image.l1Offset, width: 8)
    case .refcountTable:
      move(image.refcountTableOffset)
      image.put(UInt64(shared), at: 48, width: 8)
    case .refcountBlock:
      move(image.refcountBlockOffset)
      image.put(UInt64(shared), at: image.refcountTableOffset, width: 8)
    case .data: image.put(1 << 63 | UInt64(shared), at: image.l2Entry(1), width: 8)
    case .longHeader:
      // Over the table and the clusters that came after it.
      #expect(image.l2Offset >= start + count)
      image.put(UInt64(image.bytes.count - start), at: place + 8, width: 8)
    }
    return image
  }

  @Test(arguments: Sharing.allCases) func isReadAndNotWritten(_ sharing: Sharing) throws {
    let image = try image(sharing)
    let reading = try EncryptedImage(bytes: image.bytes).open()
    // All but the shared cluster is as it was.
    #expect(try reading.readBytes(at: 0, count: 65536).holdsOnly(6))
    #expect(try reading.readBytes(at: 2 * 65536, count: 65536).holdsOnly(6))
    let report = try #require(try EncryptedImage(bytes: image.bytes).inspect().top as? any Checkable)
      .check(progress: .none)
    #expect(report.corruptions > 0)

    let written = EncryptedImage(bytes: image.bytes)
    let chain = try written.open(.readWrite)
    do throws(EngineError) {
      try chain.writeBytes([UInt8](repeating: 7, count: 4096), at: 65536)
      Issue.record("written")
    } catch {
      #expect(error.code == .corrupt && error.message.contains("header extension"), "\(error.message)")
    }
    try? chain.close()
    var expected = image.bytes
    expected[79] |= 2
    #expect(ModelDisk.firstDifference(written.store.snapshot, expected) == nil)
  }

  /// Another passphrase is written into the header. (Which guest bytes lie in it only a check could tell.)
  @Test(arguments: Sharing.allCases.filter { $0 != .data }) func getsNoPassphrase(_ sharing: Sharing) throws {
    let image = try image(sharing)
    let store = MemoryStore(image.bytes)
    let chain = try ImageChain.over(
      store, format: Qcow2Format.self, access: .readWrite, passphrase: EncryptedImage.passphrase)
    var options = OptionValues(Qcow2Format.amendOptions)
    for (name, text) in ["state": "active", "new-secret": "more", "keyslot": "7", "iter-time": "1"] {
      try options.set("encrypt." + name, to: text)
    }
    var request = AmendRequest()
    request.secrets.add(Secret(text: "another"), id: "more")
    request.secrets.add(Secret(text: EncryptedImage.passphrase), id: "key")
    do throws(EngineError) {
      try chain.amend(options, request)
      Issue.record("written")
    } catch {
      #expect(error.code == .corrupt && error.message.contains("header extension"), "\(error.message)")
    }
    try? chain.close()
    var expected = image.bytes
    expected[79] |= 2
    #expect(ModelDisk.firstDifference(store.snapshot, expected) == nil)
  }
}
