internal import CFuse
import FormatEngine
import Glibc

/// Extended attributes: what the tree tells of itself, and one that asks for something.
extension FuseCallbacks {
  static func addExtendedAttributes(to table: inout fuse_lowlevel_ops) {
    unsafe table.getxattr = { request, id, name, room in
      guard let request = unsafe FuseRequest.answerable(request) else { return }
      let name = unsafe String(hostBytes: FuseCallbacks.bytes(of: name))
      request.answer { () throws(EngineError) in
        var value = try request.fileSystem.extendedAttribute(name, of: id)
        if id == NodeNumbers.root, name == ServingProcess.attributeName {
          value = request.context.process.description
        }
        guard let value else { return request.fail(ENODATA) }
        request.reply(attribute: value.hostBytes, room: room)
      }
    }
    unsafe table.listxattr = { request, id, room in
      guard let request = unsafe FuseRequest.answerable(request) else { return }
      request.answer { () throws(EngineError) in
        var names = try request.fileSystem.extendedAttributeNames(of: id)
        if id == NodeNumbers.root { names.append(ServingProcess.attributeName) }
        request.reply(attribute: names.flatMap { $0.hostBytes + [0] }, room: room)
      }
    }
    unsafe table.setxattr = { request, id, name, value, count, _ in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      let name = unsafe String(hostBytes: FuseCallbacks.bytes(of: name))
      // A commit waits until the kernel has told of the closing of lower layers' files.
      request.answerFromOwnThread { () throws(EngineError) in
        try request.fileSystem.setExtendedAttribute(name, of: id)
        request.fail(0)
      }
    }
    unsafe table.removexattr = { request, _, _ in
      guard let request = unsafe request.map({ unsafe FuseRequest($0) }) else { return }
      request.fail(request.context.isWritable ? EPERM : EROFS)
    }
  }
}
