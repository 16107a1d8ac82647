import FormatEngine
import TestSupport

/// Images over each other that the judge made, with random content, sizes and features.
struct JudgeChain {
  let folder: TemporaryFolder
  /// The lowest first.
  private(set) var names: [String] = []
  private(set) var formats: [String] = []

  init(in folder: TemporaryFolder) { self.folder = folder }

  /// Goes on from the lowest layer of another chain.
  init(in folder: TemporaryFolder, over other: JudgeChain) {
    self.folder = folder
    names = Array(other.names.prefix(1))
    formats = Array(other.formats.prefix(1))
  }

  /// What one layer may be; the first is for bases only.
  private static let recipes: [(format: String, options: String, cluster: Int)] = [
    ("raw", "", 512), ("qcow2", "", 65536), ("qcow2", "cluster_size=4k", 4096),
    ("qcow2", "extended_l2=on", 65536), ("qcow2", "compat=0.10,cluster_size=512", 512),
    ("qcow2", "lazy_refcounts=on,compression_type=zstd", 65536),
    ("qcow2", "cluster_size=32k,extended_l2=on,refcount_bits=8", 32768),
    ("qcow2", "data_file=DATA", 65536),
  ]

  /// Adds a layer on top and gives its name. `size` nil: a random one.
  @discardableResult
  mutating func add(_ prefix: String, size: Int? = nil, random: inout SeededRandom) throws -> String {
    let recipe = Self.recipes[
      random.below(Self.recipes.count - (names.isEmpty ? 0 : 1)) + (names.isEmpty ? 0 : 1)]
    let name = "\(prefix)\(names.count)"
    let size = size ?? (random.oneIn(2) ? 2 << 20 : 512 * (100 + random.below(5000)))
    var arguments = ["create", "-q", "-f", recipe.format]
    if !recipe.options.isEmpty {
      arguments += ["-o", recipe.options.replacing("DATA", with: "\(name).data")]
    }
    if let base = names.last, let format = formats.last { arguments += ["-b", base, "-F", format] }
    try ReferenceTool.qemuImg.run(arguments + [name, String(size)], folder: folder.path).expecting(0)
    let isPackable = recipe.format == "qcow2" && !recipe.options.contains("DATA")
    // Packed clusters only where nothing is yet, so the one comes first.
    var commands = (0..<random.below(7)).map { _ in
      Self.command(size: size, recipe.cluster, isRaw: recipe.format == "raw", &random)
    }
    if isPackable && random.oneIn(2) {
      let first = random.below(size / recipe.cluster) * recipe.cluster
      commands.insert("write -q -c -P \(1 + random.below(255)) \(first) \(recipe.cluster)", at: 0)
    }
    try ReferenceTool.io(commands, on: name, format: recipe.format, folder: folder.path)
    names.append(name)
    formats.append(recipe.format)
    return name
  }

  private static func command(
    size: Int, _ cluster: Int, isRaw: Bool, _ random: inout SeededRandom
  ) -> String {
    let most = random.oneIn(3) ? 1 << 20 : 100_000
    let range = random.range(in: size, most: most, unit: cluster)
    switch random.below(isRaw ? 1 : 7) {
    case 2: return "write -q -z \(range.lowerBound) \(range.count)"
    case 3: return "write -q -z -u \(range.lowerBound) \(range.count)"
    case 4: return "write -q -P 0 \(range.lowerBound) \(range.count)"
    default: return "write -q -P \(1 + random.below(255)) \(range.lowerBound) \(range.count)"
    }
  }

  var topName: String { names.last ?? "" }
  func path(_ name: String) -> String { folder.file(name) }

  /// What the judge reads of one of the layers with what lies below it.
  func content(_ index: Int) throws -> [UInt8] {
    try ReferenceTool.content(of: names[index], format: formats[index], in: folder)
  }

  /// The whole chain, opened for writing.
  func open(_ name: String? = nil) throws -> (chain: ImageChain, options: OpenOptions) {
    var options = OpenOptions(format: name == nil ? formats.last : nil, access: .readWrite)
    options.cache = .unflushed
    return (try ImageOpener.open(path(name ?? topName), options), options)
  }

  /// What `qemu-img check` finds in any of them; empty where all is well.
  func damage() throws -> String {
    var text = ""
    for (name, format) in zip(names, formats) where format == "qcow2" {
      let verdict = try ReferenceTool.check(name, folder: folder.path)
      if verdict.corruptions + verdict.leaks + verdict.checkErrors > 0 { text += "\(name): \(verdict.text)" }
    }
    return text
  }
}
