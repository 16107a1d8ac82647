/// A run of guest bytes that lie as they are, one behind the other, in one file of the host.
struct HostPlace {
  let file: FileStore
  let offset: UInt64

  func advanced(by count: Int) -> HostPlace { HostPlace(file: file, offset: offset + UInt64(count)) }
}

/// For those who move the bytes themselves, by a queue of the kernel.
extension ImageChain {
  /// Where the guest bytes lie that `found` says the place of; nil where only `read` gets at them.
  func placeToRead(_ found: LocatedExtent, count: Int) -> HostPlace? {
    let extent = found.extent
    guard !isChanging, extent.source == .stored, !extent.isEncrypted, extent.length >= UInt64(count),
      let offset = extent.hostOffset, let file = layers[found.depth].store(extent.store) as? FileStore
    else { return nil }
    return HostPlace(file: file, offset: offset)
  }

  /// Holds guest bytes for a write in place that the caller carries out, and says where. `endWriteInPlace` gives them
  /// back.
  ///
  /// Nil where only `write` can do it: somebody else is at these bytes, room must be set aside first, they are
  /// encrypted or lie in several places.
  func beginWriteInPlace(at offset: UInt64, count: Int) throws(EngineError) -> HostPlace? {
    guard let writer, writer.cipher == nil, count > 0 else { return nil }
    let range = offset..<offset + UInt64(count)
    guard ranges.take(range) else { return nil }
    do throws(EngineError) {
      if let room = try writer.roomInPlace(at: offset, limit: UInt64(count)),
        room.guestEnd >= range.upperBound,
        let file = writer.store(room.store) as? FileStore
      {
        return HostPlace(file: file, offset: room.hostOffset + (offset - room.guestOffset))
      }
    } catch {
      ranges.give(range)
      throw error
    }
    ranges.give(range)
    return nil
  }

  /// The write has ended, well or not.
  func endWriteInPlace(_ place: HostPlace, at offset: UInt64, count: Int) {
    place.file.noteWrite()
    ranges.give(offset..<offset + UInt64(count))
  }
}
