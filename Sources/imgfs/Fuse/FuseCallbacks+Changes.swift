internal import CFuse
import FormatEngine
import Glibc

/// What changes the tree or what is in it.
extension FuseCallbacks {
  static func addChanges(to table: inout fuse_lowlevel_ops) {
    addWriting(to: &table)
    unsafe table.setattr = { request, id, attributes, which, _ in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }),
        let status = unsafe attributes?.pointee
      else { return }
      request.answer { () throws(EngineError) in
        // It only wants to hear how long the file is.
        if request.isOfSizeCorrection || request.context.isKernelsOwn(which) {
          return request.reply(try request.fileSystem.attributes(of: id), seconds: 0)
        }
        try request.fileSystem.change(id, FuseCallbacks.changes(status, which))
        request.reply(try request.fileSystem.briefAttributes(of: id))
      }
    }
    unsafe table.mkdir = { request, parent, name, _ in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      let name = unsafe FuseCallbacks.bytes(of: name)
      request.answerFromOwnThread { () throws(EngineError) in
        // A snapshot holds what was written before, also what only the kernel has yet.
        try request.context.mount.writeOut()
        request.reply(made: try request.fileSystem.makeFolder(name, in: parent))
      }
    }
    unsafe table.rmdir = { request, parent, name in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      let name = unsafe FuseCallbacks.bytes(of: name)
      // It waits until the kernel has told of the closing of the snapshot's files.
      request.answerFromOwnThread { () throws(EngineError) in
        try request.fileSystem.removeFolder(name, in: parent)
        request.fail(0)
      }
    }
  }

  private static func addWriting(to table: inout fuse_lowlevel_ops) {
    unsafe table.write = { request, id, bytes, count, offset, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      guard let info = unsafe info, let offset = UInt64(exactly: offset) else { return request.fail(EINVAL) }
      let (handle, flags) = unsafe (info.pointee.fh, info.pointee.flags)
      let isFromCache = unsafe info.pointee.writepage != 0
      // SAFETY: libfuse says how long the bytes of the request are.
      let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
      request.answer { () throws(EngineError) in
        let written: Int
        do throws(EngineError) {
          written = unsafe try request.fileSystem.write(
            buffer, to: handle, at: offset, isSynchronous: flags & (O_SYNC | O_DSYNC) != 0)
        } catch {
          if isFromCache { request.context.mount.noteLostWrite(to: id, error) }
          throw error
        }
        if written == count { return request.reply(written: written) }
        // The end of the disk. What fits is written; a count that is too small the kernel would turn into EIO. Who wrote
        // into its cache was told that all is well.
        if isFromCache {
          request.fileSystem.openFiles.noteOverrun(of: id)
          request.context.sizeCorrection.correct(id)
        }
        request.fail(ENOSPC)
      }
    }
    unsafe table.fsync = { request, _, _, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      guard let handle = unsafe info?.pointee.fh else { return request.fail(EINVAL) }
      request.answer { () throws(EngineError) in
        try request.fileSystem.flush(handle)
        request.fail(0)
      }
    }
    unsafe table.fallocate = { request, _, mode, offset, count, info in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      guard let handle = unsafe info?.pointee.fh, let offset = UInt64(exactly: offset),
        let count = UInt64(exactly: count)
      else { return request.fail(EINVAL) }
      guard let allocation = FuseCallbacks.allocation(mode) else { return request.fail(EOPNOTSUPP) }
      request.answer { () throws(EngineError) in
        let keepsSize = mode & CInt(IMGFS_FALLOC_KEEP_SIZE) != 0
        try request.fileSystem.allocate(
          allocation, in: handle, at: offset, count: count, keepingSize: keepsSize)
        request.fail(0)
      }
    }
  }

  /// Nil for what fallocate(2) may also be asked for: room in advance, and shifting what follows. A disk is not made longer
  /// by it, with or without FALLOC_FL_KEEP_SIZE.
  private static func allocation(_ mode: CInt) -> FileSystem.Allocation? {
    let keepsSize = mode & CInt(IMGFS_FALLOC_KEEP_SIZE) != 0
    switch mode & ~CInt(IMGFS_FALLOC_KEEP_SIZE) {
    case CInt(IMGFS_FALLOC_PUNCH_HOLE) where keepsSize: return .hole
    case CInt(IMGFS_FALLOC_ZERO_RANGE): return .zeros
    default: return nil
    }
  }

  private static func changes(_ status: stat, _ which: CInt) -> FileSystem.AttributeChanges {
    var changes = FileSystem.AttributeChanges()
    if which & FUSE_SET_ATTR_SIZE != 0 { changes.byteCount = UInt64(clamping: status.st_size) }
    if which & FUSE_SET_ATTR_MODE != 0 { changes.mode = status.st_mode & 0o7777 }
    if which & FUSE_SET_ATTR_UID != 0 { changes.userID = status.st_uid }
    if which & FUSE_SET_ATTR_GID != 0 { changes.groupID = status.st_gid }
    if which & FUSE_SET_ATTR_MTIME_NOW != 0 {
      changes.modified = .now
    } else if which & FUSE_SET_ATTR_MTIME != 0 {
      changes.modified = FileTime(
        seconds: Int64(status.st_mtim.tv_sec), nanoseconds: Int64(status.st_mtim.tv_nsec))
    }
    return changes
  }

  /// What makes no sense in this tree. The kernel itself refuses it where the mount is read-only; otherwise the number is
  /// the one that the manual pages of these calls have for file systems without such a thing.
  static func addRefusals(to table: inout fuse_lowlevel_ops) {
    unsafe table.mknod = { request, _, _, _, _ in unsafe FuseCallbacks.refuse(unsafe request) }
    unsafe table.unlink = { request, _, _ in unsafe FuseCallbacks.refuse(unsafe request) }
    unsafe table.symlink = { request, _, _, _ in unsafe FuseCallbacks.refuse(unsafe request) }
    unsafe table.rename = { request, _, _, _, _, _ in unsafe FuseCallbacks.refuse(unsafe request) }
    unsafe table.link = { request, _, _, _ in unsafe FuseCallbacks.refuse(unsafe request) }
    unsafe table.create = { request, _, _, _, _ in unsafe FuseCallbacks.refuse(unsafe request) }
  }

  private static func refuse(_ request: fuse_req_t?) {
    guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
    request.fail(request.context.isWritable ? EPERM : EROFS)
  }
}
