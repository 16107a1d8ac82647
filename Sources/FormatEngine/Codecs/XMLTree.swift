internal import CExpat

/// An element of a small XML document: property lists, bundle descriptors, a virtual machine's settings.
struct XMLElement: Equatable {
  var name: String
  var attributes: [String: String] = [:]
  /// The text directly inside, that of all places between the children joined.
  var text = ""
  /// In place of the text, where the limits say so.
  var data: Base64.Decoder?
  var children: [XMLElement] = []

  /// The first child of this name.
  func child(_ name: String) -> XMLElement? { children.first { $0.name == name } }

  func children(_ name: String) -> [XMLElement] { children.filter { $0.name == name } }

  /// Every element of this name at any depth, in the order of the document.
  func descendants(_ name: String) -> [XMLElement] {
    children.flatMap { ($0.name == name ? [$0] : []) + $0.descendants(name) }
  }
}

/// Limits of documents that come with images.
struct XMLLimits {
  /// A DMG's map of 100,000 chunks is 6 MiB of base64.
  var byteCount = 64 * Int(MiB)
  /// Real documents have less than 10 levels.
  var depth = 64
  /// A machine with hundreds of snapshots of several disks stays below this.
  var elementCount = 200_000
  /// Of all elements together.
  var attributeCount = 200_000
  /// Bytes of a tag, or of anything else that is not text: expat keeps a tag whole, and many times its size for its
  /// attributes.
  var tagByteCount = Int(MiB)
  /// Elements whose text is base64, which becomes bytes at once.
  var dataElement: String?

  fileprivate func require(_ count: UInt64) throws(EngineError) {
    guard count <= UInt64(byteCount) else {
      throw EngineError(.tooLarge, "An XML document of \(count) bytes is larger than \(byteCount)")
    }
  }
}

extension XMLElement {
  /// Reads a document. Entities and attributes that it declares itself are refused: those that come with images have
  /// none, and they are how a small document becomes a large one or names files.
  static func parse(_ bytes: [UInt8], _ limits: XMLLimits = XMLLimits()) throws(EngineError) -> XMLElement {
    try limits.require(UInt64(bytes.count))
    return try XMLBuilder(limits).run(byteCount: bytes.count) { Array(bytes[$0]) }
  }

  /// Reads a document piece by piece, so that it is not in memory beside the tree.
  static func parse(_ range: Range<UInt64>, of file: any ByteStore, _ limits: XMLLimits) throws(EngineError)
    -> XMLElement
  {
    let byteCount = range.upperBound - range.lowerBound
    try limits.require(byteCount)
    return try XMLBuilder(limits).run(byteCount: Int(byteCount)) { (piece) throws(EngineError) in
      try file.bytes(at: range.lowerBound + UInt64(piece.lowerBound), count: piece.count)
    }
  }
}

/// Puts the tree together while expat reads.
@safe private final class XMLBuilder {
  private let limits: XMLLimits
  private let parser: XML_Parser
  /// The open elements, the outermost first; a nameless one stands for the document.
  private var open = [XMLElement(name: "")]
  private var (elementCount, attributeCount) = (0, 0)
  private var failure: EngineError?
  /// Bytes that were read since something came of them.
  private var quietByteCount = 0
  private static let pieceByteCount = 64 << 10

  init(_ limits: XMLLimits) throws(EngineError) {
    self.limits = limits
    guard let parser = unsafe XML_ParserCreate(nil) else {
      throw EngineError(.system(errno: 12), "There is no memory for reading XML")
    }
    unsafe self.parser = parser
  }

  deinit { unsafe XML_ParserFree(parser) }

  /// `read` gives the bytes of a range of the document.
  func run(byteCount: Int, _ read: (Range<Int>) throws(EngineError) -> [UInt8]) throws(EngineError)
    -> XMLElement
  {
    // SAFETY: expat calls back only during XML_Parse below, while `self` is alive.
    unsafe XML_SetUserData(parser, Unmanaged.passUnretained(self).toOpaque())
    unsafe XML_SetElementHandler(
      parser,
      { user, name, attributes in
        unsafe XMLBuilder.of(user)?.begin(XMLBuilder.text(name), XMLBuilder.attributes(attributes))
      },
      { user, _ in unsafe XMLBuilder.of(user)?.end() })
    unsafe XML_SetCharacterDataHandler(parser) { user, bytes, count in
      guard let bytes = unsafe bytes else { return }
      unsafe XMLBuilder.of(user)?.append(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
    }
    unsafe XML_SetEntityDeclHandler(parser) { user, _, _, _, _, _, _, _, _ in
      unsafe XMLBuilder.of(user)?.stop(.corrupt("XML with entities of its own is not read"))
    }
    // A value that every element has without saying so.
    unsafe XML_SetAttlistDeclHandler(parser) { user, _, _, _, _, _ in
      unsafe XMLBuilder.of(user)?.stop(.corrupt("XML that declares attributes is not read"))
    }
    var position = 0
    repeat {
      let end = min(position + Self.pieceByteCount, byteCount)
      try feed(try read(position..<end), isLast: end == byteCount)
      position = end
    } while position < byteCount
    guard let root = open[0].children.first else { throw .corrupt("XML without an element") }
    return root
  }

  private func feed(_ bytes: [UInt8], isLast: Bool) throws(EngineError) {
    quietByteCount += bytes.count
    let status = unsafe bytes.withUnsafeBytes { raw in
      unsafe XML_Parse(
        parser, raw.baseAddress?.assumingMemoryBound(to: CChar.self), CInt(raw.count), isLast ? 1 : 0)
    }
    if let failure { throw failure }
    guard status == XML_STATUS_OK else {
      let reason = unsafe Self.text(XML_ErrorString(XML_GetErrorCode(parser)))
      let line = unsafe XML_GetCurrentLineNumber(parser)
      throw .corrupt("XML cannot be read: \(reason) in line \(line)")
    }
    guard quietByteCount <= limits.tagByteCount else { throw .corrupt("XML has too long a tag") }
  }

  private func begin(_ name: String, _ attributes: [String: String]) {
    quietByteCount = 0
    elementCount += 1
    attributeCount += attributes.count
    guard open.count <= limits.depth, elementCount <= limits.elementCount else {
      return stop(.corrupt("XML has too many elements, or they are nested too deep"))
    }
    guard attributeCount <= limits.attributeCount else {
      return stop(.corrupt("XML has too many attributes"))
    }
    var element = XMLElement(name: name, attributes: attributes)
    if name == limits.dataElement { element.data = Base64.Decoder() }
    open.append(element)
  }

  private func end() {
    quietByteCount = 0
    guard open.count > 1, let element = open.popLast() else { return }
    open[open.count - 1].children.append(element)
  }

  private func append(_ text: UnsafeRawBufferPointer) {
    quietByteCount = 0
    // In place: a copy of what is there already would be made for each piece.
    guard open[open.count - 1].data == nil else {
      unsafe open[open.count - 1].data?.add(text)
      return
    }
    open[open.count - 1].text += unsafe String(hostBytes: text)
  }

  private func stop(_ error: EngineError) {
    if failure == nil { failure = error }
    _ = unsafe XML_StopParser(parser, 0)
  }

  private static func of(_ user: UnsafeMutableRawPointer?) -> XMLBuilder? {
    unsafe user.map { unsafe Unmanaged<XMLBuilder>.fromOpaque($0).takeUnretainedValue() }
  }

  private static func text(_ characters: UnsafePointer<CChar>?) -> String {
    unsafe characters.map { unsafe String(hostBytes: $0) } ?? ""
  }

  /// expat's list of names and values in turn, ended by a null.
  private static func attributes(_ list: UnsafeMutablePointer<UnsafePointer<CChar>?>?) -> [String: String] {
    guard let list = unsafe list else { return [:] }
    var result: [String: String] = [:]
    var index = 0
    while let name = unsafe list[index], let value = unsafe list[index + 1] {
      unsafe result[String(hostBytes: name)] = String(hostBytes: value)
      index += 2
    }
    return result
  }
}
