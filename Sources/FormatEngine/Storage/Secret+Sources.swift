import Glibc

extension Secret {
  /// How a secret is written down.
  public enum Encoding: String, Sendable {
    case raw
    case base64
  }

  /// Passphrases and key files are far smaller.
  private static let maximumByteCount = Int(4 * MiB)

  /// A secret on the command line.
  public convenience init(text: String, _ encoding: Encoding) throws(EngineError) {
    try self.init(Array(text.utf8), encoding)
  }

  /// A secret in a file, which may be a pipe or /dev/fd/N. A line feed at the end belongs to it.
  public convenience init(file path: String, _ encoding: Encoding) throws(EngineError) {
    try self.init(try Self.content(of: path), encoding)
  }

  /// Wipes `bytes`.
  private convenience init(_ bytes: [UInt8], _ encoding: Encoding) throws(EngineError) {
    var bytes = bytes
    defer { Self.wipe(&bytes) }
    guard encoding == .base64 else {
      self.init(copying: bytes)
      return
    }
    guard var decoded = Self.decodedBase64(bytes) else {
      throw .invalid("Base64 data contains invalid characters")
    }
    defer { Self.wipe(&decoded) }
    self.init(copying: decoded)
  }

  private convenience init(copying bytes: [UInt8]) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 1)
    unsafe buffer.copyBytes(from: bytes)
    unsafe self.init(UnsafeRawBufferPointer(rebasing: buffer[..<bytes.count]))
    if let base = buffer.baseAddress { unsafe explicit_bzero(base, buffer.count) }
    unsafe buffer.deallocate()
  }

  private static func wipe(_ bytes: inout [UInt8]) {
    unsafe bytes.withUnsafeMutableBytes { raw in
      if let base = raw.baseAddress { unsafe explicit_bzero(base, raw.count) }
    }
  }

  private static func content(of path: String) throws(EngineError) -> [UInt8] {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw .systemCall("Unable to read \(path): Failed to open file “\(path)”", errno: errno, path: path)
    }
    defer { close(descriptor) }
    var content: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 4096)
    defer { wipe(&piece) }
    while true {
      let count = unsafe read(descriptor, &piece, piece.count)
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else {
        let number = errno
        wipe(&content)
        throw .systemCall(
          "Unable to read \(path): Error reading file “\(path)”", errno: number, path: path)
      }
      if count == 0 { return content }
      content.append(contentsOf: piece[..<count])
      guard content.count <= maximumByteCount else {
        wipe(&content)
        throw EngineError(.tooLarge, "Unable to read \(path): it is too large for a secret", path: path)
      }
    }
  }

  /// RFC 4648, with line feeds anywhere; nil where it is not base64.
  static func decodedBase64(_ text: [UInt8]) -> [UInt8]? {
    var (result, bits, bitCount, paddingCount, digitCount): ([UInt8], UInt32, UInt32, Int, Int) = (
      [], 0, 0, 0, 0
    )
    for byte in text where byte != 0x0A {
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
        result.append(UInt8(truncatingIfNeeded: bits >> bitCount))
      }
    }
    return (digitCount + paddingCount) % 4 == 0 && paddingCount < 3 ? result : nil
  }
}
