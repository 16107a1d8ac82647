/// Names are bytes on the host, in images and on command lines: anything but NUL. As text they lose nothing: a byte that
/// belongs to no UTF-8 becomes one of 256 private scalars, and the bytes of such a scalar that is really there become
/// such scalars themselves. So each text leads back to the bytes that it came from.
extension String {
  /// Text for bytes of the host.
  public init(hostBytes bytes: some Sequence<UInt8>) {
    let bytes = Array(bytes)
    // All of the private scalars begin with this byte.
    if let text = String(validating: bytes, as: UTF8.self),
      !bytes.contains(0xF4) || !text.unicodeScalars.contains(where: { $0.isHostByte })
    {
      self = text
      return
    }
    var scalars = String.UnicodeScalarView()
    var (parser, rest, position) = (Unicode.UTF8.ForwardParser(), bytes.makeIterator(), 0)
    parsing: while true {
      let length: Int
      switch parser.parseScalar(from: &rest) {
      case .valid(let encoded):
        length = encoded.count
        let scalar = Unicode.UTF8.decode(encoded)
        if !scalar.isHostByte {
          scalars.append(scalar)
          position += length
          continue parsing
        }
      case .error(let count): length = count
      case .emptyInput: break parsing
      }
      // The parser has taken these bytes.
      for byte in bytes[position..<position + length] { scalars.append(Unicode.Scalar(hostByte: byte)) }
      position += length
    }
    self = String(scalars)
  }

  /// Text that was decoded from something else than bytes of the host, such as UTF-16: a private scalar in it is a
  /// character as any other, and no byte.
  public init(characters text: String) {
    self = text.utf8.contains(0xF4) ? String(hostBytes: text.utf8) : text
  }

  /// The bytes that this text stands for.
  public var hostBytes: [UInt8] {
    guard utf8.contains(0xF4) else { return Array(utf8) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(utf8.count)
    for scalar in unicodeScalars {
      if let byte = scalar.hostByte { bytes.append(byte) } else { bytes += String(scalar).utf8 }
    }
    return bytes
  }
}

extension Unicode.Scalar {
  private static let firstHostByte: UInt32 = 0x10FE00

  fileprivate init(hostByte byte: UInt8) {
    self.init(unicodeScalarLiteral: Unicode.Scalar(Unicode.Scalar.firstHostByte + UInt32(byte)) ?? "\u{FFFD}")
  }

  fileprivate var isHostByte: Bool { value >= Self.firstHostByte && value < Self.firstHostByte + 256 }

  /// The byte that belongs to no UTF-8 and that this scalar stands for, nil where it is a character.
  public var hostByte: UInt8? { isHostByte ? UInt8(truncatingIfNeeded: value - Self.firstHostByte) : nil }
}
