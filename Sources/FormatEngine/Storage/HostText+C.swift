/// Text of the host as C has it: bytes up to a NUL.
extension String {
  public init(hostBytes text: UnsafePointer<CChar>) {
    var (bytes, next): ([UInt8], Int) = ([], 0)
    // SAFETY: the text ends with a NUL.
    while case let byte = unsafe text[next], byte != 0 {
      bytes.append(UInt8(bitPattern: byte))
      next += 1
    }
    self.init(hostBytes: bytes)
  }

  /// Lends the bytes that the host knows this text by, for a system call.
  public func withHostBytes<T>(_ body: (UnsafePointer<CChar>) -> T) -> T {
    let bytes = hostBytes.map { CChar(bitPattern: $0) } + [0]
    return unsafe bytes.withUnsafeBufferPointer { raw in
      // SAFETY: there is at least the NUL.
      unsafe body(raw.baseAddress.unsafelyUnwrapped)
    }
  }

  /// The words of the process's command line.
  public static func hostWords(
    _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>, count: CInt
  ) -> [String] {
    // SAFETY: there are `count` words.
    (0..<Int(count)).compactMap { unsafe words[$0].map { unsafe String(hostBytes: $0) } }
  }
}
