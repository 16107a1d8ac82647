internal import CDeflate
internal import CIsal
import Glibc

/// Packs units as deflate streams. Belongs to one thread.
///
/// Three ways, by what the bytes look like (Docs/PERFORMANCE.md has the figures):
/// - what looks like chance gets one quick attempt by ISA-L, in a tenth of libdeflate's time: what that finds no repetition in,
///   because there is none or because it is far apart, stays as it is;
/// - text may go to ISA-L's highest level, which takes a third of the time of libdeflate's level 2;
/// - all else goes to libdeflate.
@safe final class DeflatePacker: ClusterPacker {
  /// What packs units without any byte above 127.
  enum TextMethod {
    /// A tenth larger than libdeflate's level 4, in a third of the time.
    case isal
    case libdeflate
  }

  private let context: OpaquePointer
  private let fastContext: UnsafeMutableRawPointer
  private let framing: DeflateFraming
  private let textMethod: TextMethod

  /// `level`: libdeflate's, 1 (fast) to 12 (small).
  init(_ framing: DeflateFraming, level: Int, text: TextMethod = .libdeflate) throws(EngineError) {
    self.framing = framing
    textMethod = text
    let noMemory = EngineError(.system(errno: ENOMEM), "No memory for a deflate context")
    guard let context = unsafe libdeflate_alloc_compressor(CInt(level)) else { throw noMemory }
    guard let fastContext = unsafe imgfs_isal_make() else {
      unsafe libdeflate_free_compressor(context)
      throw noMemory
    }
    unsafe self.context = context
    unsafe self.fastContext = fastContext
  }

  deinit {
    unsafe libdeflate_free_compressor(context)
    unsafe free(fastContext)
  }

  func pack(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) throws(EngineError)
    -> Int?
  {
    switch unsafe ByteProfile(source) {
    case .sevenBit where textMethod == .isal: return unsafe packFast(source, into: target, level: 3)
    case .even:
      // Without room for what does not get smaller there is no result.
      guard let count = unsafe packFast(source, into: target, level: 1) else { return nil }
      return count < source.count ? unsafe packWell(source, into: target) : count
    case .sevenBit, .mixed: return unsafe packWell(source, into: target)
    }
  }

  private func packFast(
    _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, level: CInt
  ) -> Int? {
    let count = unsafe imgfs_isal_pack(
      fastContext, level, framing == .zlib ? 1 : 0, source.baseAddress, source.count, target.baseAddress,
      target.count)
    return count == 0 ? nil : count
  }

  private func packWell(_ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int?
  {
    let pack =
      switch framing {
      case .raw: unsafe libdeflate_deflate_compress
      case .zlib: unsafe libdeflate_zlib_compress
      }
    let count = unsafe pack(context, source.baseAddress, source.count, target.baseAddress, target.count)
    return count == 0 ? nil : count
  }
}
