/// Which image a command means: a file by its name, or a tree of drivers with their options.
public struct ImageSpecification: Sendable {
  private(set) var node: NodeOptions

  /// A name as commands take it: a path, `file:` or `host_device:` and a path, or `json:` and the options of a tree.
  public init(name: String) throws(EngineError) {
    if let text = ImageName.jsonText(of: name) {
      self.init(node: try NodeOptions(json: text))
    } else if let node = NodeOptions(debugName: name) {
      self.init(node: node)
    } else if let driver = ImageName.nullDriver(of: name) {
      self.init(nullDriver: driver)
    } else if let path = ImageName.devicePath(of: name) {
      self.init(path: path)
      node["file.driver"] = .text("host_device")
    } else {
      self.init(path: try ImageName.plainPath(name))
      if ImageName.asksForRegularFile(name) { node["file.driver"] = .text("file") }
    }
  }

  /// A disk of zeros that lies nowhere.
  private init(nullDriver driver: String) {
    var node = NodeOptions()
    node["file.driver"] = .text(driver)
    self.node = node
  }

  /// What `--image-opts` takes: `driver=qcow2,file.filename=...`.
  public init(options text: String) { node = NodeOptions(list: text) }

  /// The file at `path`, whatever characters it has.
  public init(path: String) {
    var node = NodeOptions()
    node["file.filename"] = .text(path)
    self.node = node
  }

  init(node: NodeOptions) { self.node = node }

  /// Whether the options say that others are to be kept out, or something that means neither.
  public var refusesForcedSharing: Bool { (node["force-share"]?.text).map { $0 != "on" } ?? false }

  /// The path of the file that the tree of drivers stands on, nil where it stands on none.
  public var filePath: String? {
    let names = node.values.filter { key, _ in
      let parts = key.split(separator: ".", omittingEmptySubsequences: false)
      return parts.last == "filename" && parts.dropLast().allSatisfy { $0 == "file" || $0 == "image" }
    }
    return names.count == 1 ? names.first?.value.text : nil
  }
}

extension ReferencePolicy {
  /// What an image's reference to the file below it means. `json:` trees may be recorded, too: every file in
  /// them is asked for here, and drivers that do not lie in files have nothing of the host to open.
  ///
  /// A recorded format goes before the tree's own.
  public func specification(of reference: BackingReference, namedBy path: String) throws(EngineError)
    -> ImageSpecification
  {
    var node = NodeOptions()
    if reference.candidates == nil, let text = ImageName.jsonText(of: reference.name) {
      node = try NodeOptions(json: text)
      guard !node.values.keys.contains(where: { $0 == "config" || $0.hasSuffix(".config") }) else {
        throw EngineError(
          .forbidden, "Recorded backing files cannot name files with rules ('config')", path: path)
      }
      for (key, value) in node.values where key == "filename" || key.hasSuffix(".filename") {
        // Trees have no folder of their own: their names are relative to the process's, as in QEMU.
        guard let name = value.text else { continue }
        node[key] = .file(try resolve(path: name, of: name, for: .backingFile, namedBy: path))
      }
    } else if reference.candidates == nil, let driver = ImageName.nullDriver(of: reference.name) {
      node["file.driver"] = .text(driver)
    } else {
      node["file.filename"] = .file(try place(of: reference, namedBy: path))
      if reference.candidates == nil, ImageName.asksForRegularFile(reference.name) {
        node["file.driver"] = .text("file")
      }
    }
    if let format = reference.format { node["driver"] = .text(format) }
    for (name, value) in reference.options { node[name] = .text(value) }
    return ImageSpecification(node: node)
  }

  /// The place of the file that a reference means.
  func place(of reference: BackingReference, namedBy path: String) throws(EngineError) -> FilePlace {
    if let candidates = reference.candidates { return try find(candidates, for: reference, namedBy: path) }
    return try resolve(reference.name, for: .backingFile, namedBy: path)
  }

  /// The first candidate that is there. One that is there and may not be opened is not passed over, unless it lies in what is
  /// being shown.
  private func find(_ candidates: [String], for reference: BackingReference, namedBy path: String)
    throws(EngineError) -> FilePlace
  {
    for candidate in candidates {
      let joined = ImageName.join(candidate, toFolderOf: path)
      guard !joined.utf8.contains(0), !leadsBack(joined), HostFiles.identity(of: joined) != nil else {
        continue
      }
      return try resolve(path: joined, of: reference.name, for: .parent, namedBy: path)
    }
    throw EngineError(
      .notFound,
      "The parent '\(reference.name)' of '\(path)' was not found; the option backing.file.filename says where it is",
      path: path)
  }
}
