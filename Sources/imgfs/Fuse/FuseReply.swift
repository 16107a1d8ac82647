internal import CFuse
import FormatEngine
import Glibc

/// One request of the kernel, answered exactly once.
///
/// @unchecked: libfuse takes the answer from any thread; only one has the request at a time.
@safe struct FuseRequest: @unchecked Sendable {
  private let raw: fuse_req_t

  init(_ raw: fuse_req_t) { unsafe self.raw = raw }

  /// For requests that come of following a name: nil where it is a thread of our own that follows one, and that has been
  /// told so. It holds what the answer takes, or is about to be the one who answers.
  static func answerable(_ raw: fuse_req_t?) -> FuseRequest? {
    guard let request = unsafe raw.map({ unsafe FuseRequest($0) }) else { return nil }
    let asker = unsafe fuse_req_ctx(request.raw)
    if let asker = unsafe asker, !request.context.mount.mayAsk(unsafe asker.pointee.pid) {
      request.fail(EDEADLK)
      return nil
    }
    return request
  }

  var context: FuseContext {
    // SAFETY: FuseSession gave the context as user data and keeps it until the session is gone.
    unsafe Unmanaged<FuseContext>.fromOpaque(fuse_req_userdata(raw)).takeUnretainedValue()
  }

  var fileSystem: FileSystem { context.fileSystem }

  func fail(_ number: CInt) { _ = unsafe fuse_reply_err(raw, number) }
  func finish() { unsafe fuse_reply_none(raw) }

  /// Runs `body`, which replies; where it throws, the error is the reply.
  func answer(_ body: () throws(EngineError) -> Void) {
    do throws(EngineError) { try body() } catch { fail(error.errno) }
  }

  /// The same on a thread of its own, for what makes requests or waits for one: with `-s` nobody else would answer them.
  func answerFromOwnThread(_ body: @escaping @Sendable () throws(EngineError) -> Void) {
    if !context.ownThreads.run({ answer(body) }) { fail(EAGAIN) }
  }

  func reply(_ bytes: UnsafeRawBufferPointer) {
    _ = unsafe fuse_reply_buf(raw, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
  }

  func replyNothing() { _ = unsafe fuse_reply_buf(raw, nil, 0) }

  /// `seconds`: how long the kernel may keep them, where that is not as long as ever.
  func reply(_ attributes: Attributes, seconds: Double? = nil) {
    var status = context.status(of: attributes)
    _ = unsafe fuse_reply_attr(raw, &status, seconds ?? context.attributeSeconds(attributes))
  }

  /// Whether it comes from our own thread that has the kernel ask for sizes.
  var isOfSizeCorrection: Bool {
    guard let asker = unsafe fuse_req_ctx(raw) else { return false }
    return context.sizeCorrection.isRunning(in: unsafe asker.pointee.pid)
  }

  /// The answer to a lookup; where nothing was found, the kernel may remember that for as long as it lasts.
  func reply(_ lookup: FileSystem.Lookup) {
    var entry = fuse_entry_param()
    if let found = lookup.found {
      entry = context.entry(for: found)
    } else if lookup.hasLastingName {
      entry.entry_timeout = FuseContext.cacheSeconds
    } else {
      return fail(ENOENT)
    }
    _ = unsafe fuse_reply_entry(raw, &entry)
  }

  func reply(made attributes: Attributes) {
    var entry = context.entry(for: attributes)
    _ = unsafe fuse_reply_entry(raw, &entry)
  }

  func reply(target: [UInt8]) {
    let text = target.map { CChar(bitPattern: $0) } + [0]
    _ = unsafe fuse_reply_readlink(raw, text)
  }

  func reply(written count: Int) { _ = unsafe fuse_reply_write(raw, count) }

  func reply(_ opened: FileSystem.Opened, _ info: fuse_file_info) {
    var info = info
    info.fh = opened.handle
    info.keep_cache = opened.keepsCache ? 1 : 0
    info.direct_io = opened.bypassesCache ? 1 : 0
    info.noflush = 1
    reply(opened: info)
  }

  func reply(opened info: fuse_file_info) {
    var info = info
    _ = unsafe fuse_reply_open(raw, &info)
  }

  func reply(offset: UInt64) { _ = unsafe fuse_reply_lseek(raw, off_t(clamping: offset)) }

  /// The value of an extended attribute, or its length where the kernel asks with no room for it.
  func reply(attribute value: [UInt8], room: Int) {
    if room == 0 {
      _ = unsafe fuse_reply_xattr(raw, value.count)
    } else if room < value.count {
      fail(ERANGE)
    } else {
      unsafe value.withUnsafeBytes { unsafe reply($0) }
    }
  }

  func reply(statistics: statvfs) {
    var statistics = statistics
    _ = unsafe fuse_reply_statfs(raw, &statistics)
  }

  /// Lets the kernel take `count` bytes out of a file of the host, without copying them through here.
  func reply(descriptor: CInt, offset: UInt64, count: Int) {
    var vector = fuse_bufvec()
    vector.count = 1
    unsafe vector.buf.size = count
    unsafe vector.buf.flags = fuse_buf_flags(FUSE_BUF_IS_FD.rawValue | FUSE_BUF_FD_SEEK.rawValue)
    unsafe vector.buf.fd = descriptor
    unsafe vector.buf.pos = off_t(offset)
    _ = unsafe fuse_reply_data(raw, &vector, fuse_buf_copy_flags(0))
  }

  /// Adds an entry to a folder's listing in `buffer`, and says how much of it that took: more than
  /// there was where it did not fit.
  func add(
    _ name: [UInt8], _ attributes: Attributes, next: UInt64, withAttributes: Bool,
    to buffer: UnsafeMutableRawBufferPointer
  ) -> Int {
    let start = unsafe buffer.baseAddress?.assumingMemoryBound(to: CChar.self)
    let text = name.map { CChar(bitPattern: $0) } + [0]
    if withAttributes {
      var entry = context.entry(for: attributes)
      return unsafe fuse_add_direntry_plus(raw, start, buffer.count, text, &entry, off_t(next))
    }
    var status = context.status(of: attributes)
    return unsafe fuse_add_direntry(raw, start, buffer.count, text, &status, off_t(next))
  }
}
