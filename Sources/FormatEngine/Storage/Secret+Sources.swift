import Glibc

extension Secret {
  /// How a secret is written down.
  public enum Encoding: String, Sendable {
    case raw
    case base64
  }

  /// Passphrases and key files are far smaller.
  private static let maximumByteCount = Int(4 * MiB)

  /// A secret on the command line, where others see it anyway.
  public static func text(_ text: String, _ encoding: Encoding) throws(EngineError) -> Secret {
    let bytes = text.hostBytes
    return try decoded(unsafe bytes.withUnsafeBytes { unsafe Secret($0) }, encoding)
  }

  /// A secret in a file, which may be a pipe or /dev/fd/N. A line feed at the end belongs to it.
  public static func file(_ path: String, _ encoding: Encoding) throws(EngineError) -> Secret {
    try decoded(try content(of: path), encoding)
  }

  /// A secret that comes out of an open file or pipe, up to its end. The descriptor stays open.
  public static func descriptor(_ number: CInt, _ encoding: Encoding = .raw) throws(EngineError) -> Secret {
    try decoded(try content(of: number, called: "descriptor \(number)"), encoding)
  }

  /// Without a line feed at its end, as people write passphrases into files.
  public var withoutLineEnd: Secret {
    unsafe withBytes { bytes in
      let hasLineEnd = unsafe bytes.last == UInt8(ascii: "\n")
      return unsafe Secret(UnsafeRawBufferPointer(rebasing: bytes.dropLast(hasLineEnd ? 1 : 0)))
    }
  }

  private static func decoded(_ secret: Secret, _ encoding: Encoding) throws(EngineError) -> Secret {
    guard encoding == .base64 else { return secret }
    guard let decoded = decodedBase64(secret) else {
      throw .invalid("Base64 data contains invalid characters")
    }
    return decoded
  }

  private static func content(of path: String) throws(EngineError) -> Secret {
    let descriptor = unsafe path.withHostBytes { unsafe open($0, O_RDONLY | O_CLOEXEC) }
    guard descriptor >= 0 else {
      throw .systemCall("Unable to read \(path): Failed to open file “\(path)”", errno: errno, path: path)
    }
    defer { close(descriptor) }
    return try content(of: descriptor, called: path)
  }

  /// The bytes pass through no memory but such as is wiped.
  private static func content(of descriptor: CInt, called path: String) throws(EngineError) -> Secret {
    // Room for the largest, and one byte to see that there is more; untouched pages cost nothing.
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: maximumByteCount + 1, alignment: 1)
    var done = 0
    defer {
      if let base = buffer.baseAddress { unsafe explicit_bzero(base, done) }
      unsafe buffer.deallocate()
    }
    while done < buffer.count {
      // SAFETY: `done` stays below the buffer's count.
      let count = unsafe read(descriptor, buffer.baseAddress?.advanced(by: done), buffer.count - done)
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else {
        throw .systemCall(
          "Unable to read \(path): Error reading file “\(path)”", errno: errno, path: path)
      }
      if count == 0 { return unsafe Secret(UnsafeRawBufferPointer(rebasing: buffer[..<done])) }
      done += count
    }
    throw EngineError(.tooLarge, "Unable to read \(path): it is too large for a secret", path: path)
  }

  /// RFC 4648, with line feeds anywhere; nil where it is not base64.
  static func decodedBase64(_ text: Secret) -> Secret? {
    var byteCount: Int?
    let room = unsafe Secret(count: text.count) { target in
      byteCount = unsafe text.withBytes { unsafe decodeBase64($0, into: target) }
    }
    guard let byteCount else { return nil }
    return unsafe room.withBytes { unsafe Secret(UnsafeRawBufferPointer(rebasing: $0[..<byteCount])) }
  }

  /// Returns how many bytes it came to: fewer than `text` has, which `target` has room for.
  private static func decodeBase64(
    _ text: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer
  ) -> Int? {
    var (byteCount, bits, bitCount, paddingCount, digitCount): (Int, UInt32, UInt32, Int, Int) = (
      0, 0, 0, 0, 0
    )
    for index in 0..<text.count {
      let byte = unsafe text[index]
      if byte == 0x0A { continue }
      let digit: UInt32
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): digit = UInt32(byte - UInt8(ascii: "A"))
      case UInt8(ascii: "a")...UInt8(ascii: "z"): digit = UInt32(byte - UInt8(ascii: "a")) + 26
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = UInt32(byte - UInt8(ascii: "0")) + 52
      case UInt8(ascii: "+"): digit = 62
      case UInt8(ascii: "/"): digit = 63
      case UInt8(ascii: "="):
        paddingCount += 1
        continue
      default: return nil
      }
      guard paddingCount == 0 else { return nil }
      digitCount += 1
      bits = bits << 6 | digit
      bitCount += 6
      if bitCount >= 8 {
        bitCount -= 8
        // SAFETY: four digits give three bytes, so there is room for each.
        unsafe target[byteCount] = UInt8(truncatingIfNeeded: bits >> bitCount)
        byteCount += 1
      }
    }
    return (digitCount + paddingCount) % 4 == 0 && paddingCount < 3 ? byteCount : nil
  }
}
