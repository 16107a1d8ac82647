import FormatEngine

/// Names of images: plain ones, with protocols before them, `json:` with trees of nodes, `--image-opts`.
///
/// They are opened, too, as far as they name nothing outside of the folder of the process, which is an empty one: a name with a slash is only
/// taken apart.
enum NameFuzzing {
  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let shape = input.byte()
    let text = String(decoding: input.rest, as: UTF8.self)
    let image: ImageSpecification
    switch shape % 3 {
    case 0: image = try ImageSpecification(name: text)
    case 1: image = try ImageSpecification(name: "json:" + text)
    default: image = ImageSpecification(options: text)
    }
    _ = ImageName.join(text, toFolderOf: text)
    // Slashes may also be written as escapes.
    guard !text.contains("/"), !text.lowercased().contains("\\u") else { return }
    var options = OpenOptions(format: shape & 0x40 != 0 ? "qcow2" : nil)
    options.policy = ReferencePolicy(.nowhere)
    options.isForInspection = shape & 0x80 != 0
    let chain = try ImageOpener.open(image, options)
    try ExtentWalk(chain).run()
  }
}
