internal import CFuse
import FormatEngine
import Glibc

/// The functions that libfuse calls, on threads of its own. They translate, and nothing else: what a
/// file system does stands in `FileSystem`.
///
/// They live in a type of their own, since closures written in `main` belong to the main actor and stop
/// the program on any other thread.
enum FuseCallbacks {
  static func table() -> fuse_lowlevel_ops {
    var table = fuse_lowlevel_ops()
    addSession(to: &table)
    addNames(to: &table)
    addFiles(to: &table)
    addFolders(to: &table)
    addChanges(to: &table)
    addExtendedAttributes(to: &table)
    addRefusals(to: &table)
    return table
  }

  private static func addSession(to table: inout fuse_lowlevel_ops) {
    unsafe table.`init` = { context, connection in
      guard let context = unsafe context, let connection = unsafe connection else { return }
      // SAFETY: as in FuseRequest.context.
      unsafe Unmanaged<FuseContext>.fromOpaque(context).takeUnretainedValue().start(&connection.pointee)
    }
    unsafe table.statfs = { request, _ in
      guard let request = unsafe FuseRequest.answerable(request) else { return }
      var statistics = statvfs()
      statistics.f_bsize = 4096
      statistics.f_frsize = 4096
      statistics.f_blocks = fsblkcnt_t(request.fileSystem.capacity.dividedRoundingUp(by: 4096))
      statistics.f_namemax = UInt(SafeName.maximumByteCount)
      request.reply(statistics: statistics)
    }
  }

  private static func addNames(to table: inout fuse_lowlevel_ops) {
    unsafe table.lookup = { request, parent, name in
      guard let request = unsafe FuseRequest.answerable(request) else { return }
      let name = unsafe FuseCallbacks.bytes(of: name)
      request.answer { () throws(EngineError) in
        request.reply(try request.fileSystem.lookUp(name, in: parent))
      }
    }
    unsafe table.forget = { request, id, count in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      request.fileSystem.forget(id, count: count)
      request.finish()
    }
    unsafe table.forget_multi = { request, count, list in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }), let list = unsafe list
      else { return }
      for index in 0..<count {
        // SAFETY: libfuse says how long its list is.
        unsafe request.fileSystem.forget(list[index].ino, count: list[index].nlookup)
      }
      request.finish()
    }
    unsafe table.getattr = { request, id, info in
      guard let request = unsafe FuseRequest.answerable(request) else { return }
      // With a handle the kernel asks before it writes into its cache, where what it knew has run out: an error here is an
      // error of write(2). (It asks so for SEEK_END and for reads past the end, too.)
      let attention =
        unsafe (info?.pointee.fh).map { request.fileSystem.openFiles.attention(to: $0) } ?? .none
      if case .overrun = attention { return request.fail(ENOSPC) }
      let seconds: Double? = if case .suspected = attention { 0 } else { nil }
      request.answer { () throws(EngineError) in
        request.reply(try request.fileSystem.attributes(of: id), seconds: seconds)
      }
    }
    unsafe table.readlink = { request, id in
      guard let request = unsafe FuseRequest.answerable(request) else { return }
      request.answer { () throws(EngineError) in request.reply(target: try request.fileSystem.target(of: id))
      }
    }
  }

  private static func addFiles(to table: inout fuse_lowlevel_ops) {
    unsafe table.open = { request, id, info in
      guard let request = unsafe FuseRequest.answerable(request),
        let info = unsafe info?.pointee
      else { return }
      request.answer { () throws(EngineError) in
        let forWriting =
          (info.flags & O_ACCMODE != O_RDONLY || info.flags & O_TRUNC != 0) && !request.isOfSizeCorrection
        request.context.setReadAhead()
        do throws(EngineError) {
          request.reply(try request.fileSystem.open(id, forWriting: forWriting), info)
        } catch {
          guard forWriting, error.errno == EBUSY else { throw error }
          FuseCallbacks.openAfterOthers(request, id, info)
        }
      }
    }
    unsafe table.release = { request, _, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      if let info = unsafe info { unsafe request.fileSystem.close(info.pointee.fh) }
      request.fail(0)
    }
    unsafe table.read = { request, _, count, offset, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      guard let info = unsafe info, let offset = UInt64(exactly: offset) else { return request.fail(EINVAL) }
      let handle = unsafe info.pointee.fh
      request.answer { () throws(EngineError) in
        try FuseCallbacks.read(request, handle, at: offset, count: count)
      }
    }
    unsafe table.lseek = { request, _, offset, whence, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      guard let info = unsafe info, let offset = UInt64(exactly: offset),
        whence == CInt(IMGFS_SEEK_DATA) || whence == CInt(IMGFS_SEEK_HOLE)
      else { return request.fail(EINVAL) }
      let handle = unsafe info.pointee.fh
      let toData = whence == CInt(IMGFS_SEEK_DATA)
      request.context.afterSending(handle) { isAllKnown in
        request.answer { () throws(EngineError) in
          request.reply(
            offset: try request.fileSystem.seek(
              handle, from: offset, toData: toData, isAllKnown: isAllKnown))
        }
      }
    }
  }

  /// Another file of the same bytes is open for writing; perhaps it has just been closed, which the kernel tells only after
  /// whoever closed it goes on. Waited for by a thread of its own, so that this is heard.
  private static func openAfterOthers(_ request: FuseRequest, _ id: UInt64, _ info: fuse_file_info) {
    request.answerFromOwnThread { () throws(EngineError) in
      let isOpen = try ClosingDelay.waits { () throws(EngineError) in
        do throws(EngineError) {
          request.reply(try request.fileSystem.open(id, forWriting: true), info)
          return true
        } catch {
          guard error.errno == EBUSY else { throw error }
          return false
        }
      }
      if !isOpen { throw .system(EBUSY) }
    }
  }

  /// Somebody who makes the disk smaller may come in between: then what is left is read, in one of so many `attempts`.
  private static func read(
    _ request: FuseRequest, _ handle: UInt64, at offset: UInt64, count: Int, attempts: Int = 8
  ) throws(EngineError) {
    let file = try request.fileSystem.file(handle)
    let count = file.readable(at: offset, count: count)
    guard count > 0 else { return request.replyNothing() }
    switch file {
    case .folder: throw .system(EISDIR)
    case .text(let text):
      // SAFETY: `readable` ends the range inside the text.
      unsafe text.withUnsafeBytes { raw in
        unsafe request.reply(UnsafeRawBufferPointer(rebasing: raw[Int(offset)..<Int(offset) + count]))
      }
    case .disk(let disk):
      do throws(EngineError) {
        try disk.reading(at: offset, count: count) { (chain) throws(EngineError) in
          try read(request, disk, at: offset, count: count, in: chain)
        }
      } catch {
        guard error.code == .outsideDisk, attempts > 1 else { throw error }
        try read(request, handle, at: offset, count: count, attempts: attempts - 1)
      }
    }
  }

  private static func read(
    _ request: FuseRequest, _ disk: OpenDisk, at offset: UInt64, count: Int, in chain: ImageChain
  ) throws(EngineError) {
    let source = try disk.source(at: offset, count: count, in: chain)
    if case .file(let descriptor, let hostOffset) = source {
      return request.reply(descriptor: descriptor, offset: hostOffset, count: count)
    }
    let pool = request.context.buffers
    let isPooled = count <= pool.bufferByteCount
    let buffer = isPooled ? pool.take() : AlignedBuffer(byteCount: count)
    defer { if isPooled { pool.give(buffer) } }
    let bytes = unsafe buffer.prefix(count)
    unsafe try disk.read(source, at: offset, in: chain, into: bytes)
    unsafe request.reply(UnsafeRawBufferPointer(bytes))
  }

  private static func addFolders(to table: inout fuse_lowlevel_ops) {
    unsafe table.opendir = { request, id, info in
      guard let request = unsafe FuseRequest.answerable(request),
        var info = unsafe info?.pointee
      else { return }
      request.answer { () throws(EngineError) in
        let isFixed = try request.fileSystem.isFixed(id)
        info.fh = try request.fileSystem.openFolder(id)
        info.cache_readdir = isFixed ? 1 : 0
        info.keep_cache = isFixed ? 1 : 0
        request.reply(opened: info)
      }
    }
    unsafe table.readdir = { request, id, room, offset, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      guard let handle = unsafe info?.pointee.fh else { return request.fail(EBADF) }
      FuseCallbacks.list(request, id, handle, room: room, from: offset, withAttributes: false)
    }
    unsafe table.readdirplus = { request, id, room, offset, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      guard let handle = unsafe info?.pointee.fh else { return request.fail(EBADF) }
      FuseCallbacks.list(request, id, handle, room: room, from: offset, withAttributes: true)
    }
    unsafe table.releasedir = { request, _, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      if let info = unsafe info { unsafe request.fileSystem.close(info.pointee.fh) }
      request.fail(0)
    }
  }

  private static func list(
    _ request: FuseRequest, _ id: UInt64, _ handle: UInt64, room: Int, from offset: off_t,
    withAttributes: Bool
  ) {
    guard let position = UInt64(exactly: offset) else { return request.fail(EINVAL) }
    let pool = request.context.buffers
    let buffer = pool.take()
    defer { pool.give(buffer) }
    let bytes = unsafe buffer.prefix(min(room, pool.bufferByteCount))
    request.answer { () throws(EngineError) in
      var used = 0
      try request.fileSystem.entries(of: id, handle, from: position, remembering: withAttributes) {
        name, attributes, next in
        let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[used...])
        let needed = unsafe request.add(
          name, attributes, next: next, withAttributes: withAttributes, to: rest)
        guard needed <= rest.count else { return false }
        used += needed
        return true
      }
      unsafe request.reply(UnsafeRawBufferPointer(rebasing: bytes[..<used]))
    }
  }

  static func bytes(of name: UnsafePointer<CChar>?) -> [UInt8] {
    guard let name = unsafe name else { return [] }
    // SAFETY: libfuse ends names with a NUL.
    return unsafe [UInt8](UnsafeRawBufferPointer(start: name, count: strlen(name)))
  }
}
