/// Opens trees of drivers for one chain.
struct NodeOpener {
  private let options: OpenOptions
  /// Disks that are open already, by their files and what else says which is meant: a chain that comes back to
  /// one of them is a loop.
  private var seen: Set<SeenDisk> = []
  /// Images, and files in images, that are open already.
  private var depth = 0

  init(_ options: OpenOptions) { self.options = options }

  private struct SeenDisk: Hashable {
    let file: HostFiles.Identity
    let options: [String: String]
  }

  /// What lies below an image.
  private enum Below {
    /// What the image records.
    case recorded
    case nothing
    /// What the command line says; where it names no file, the recorded one with these options.
    case given(NodeOptions)
  }

  private struct OpenedImage {
    let member: ChainMember
    let below: Below
    let use: NodeUse
  }

  /// The image that the node describes, and all that lies below it.
  mutating func chain(_ node: NodeOptions, _ use: NodeUse) throws(EngineError) -> [ChainMember] {
    var image = try image(node, use)
    var members = [image.member]
    var residentByteCount = image.member.layer.residentByteCount
    while options.backing == .follow {
      let above = image
      do throws(EngineError) {
        guard let next = try specification(image.below, of: image.member) else { break }
        let child = image.member.layer as? any ParentChecking
        image = try self.image(next, image.use.forBacking(of: image.member))
        try child?.checkParent(image.member.layer, path: image.member.path)
      } catch {
        members.append(ChainMember(try missing(error, below: above), below: above.member))
        break
      }
      members.append(image.member)
      residentByteCount += image.member.layer.residentByteCount
      guard residentByteCount <= ImageOpener.maximumResidentByteCount else {
        throw EngineError(
          .tooLarge,
          "The tables of the chain's images take more than \(ImageOpener.maximumResidentByteCount) bytes of memory"
        )
      }
    }
    for member in members { try member.locked?.complete() }
    return members
  }

  /// The file below an image as one that is missing. Throws where it must be there: also if the command line names it.
  private func missing(_ error: EngineError, below above: OpenedImage) throws(EngineError) -> MissingImage {
    var failure = error.whileTrying("Could not open backing file")
    failure.isOfMissingMember = false
    guard !above.use.isWhole, let reference = above.member.layer.backing else { throw failure }
    if case .given(let node) = above.below, node.namesFile || error.code == .invalidArgument { throw failure }
    let missing = MissingImage(
      error, name: reference.name, path: reference.wantedPath(namedBy: above.member.path))
    failure.isOfMissingMember = missing != nil
    guard let missing, above.use.missing == .kept else { throw failure }
    return missing
  }

  /// The image that the node describes, without what lies below it.
  mutating func file(_ node: NodeOptions, _ use: NodeUse) throws(EngineError) -> ChainMember {
    let member = try image(node, use).member
    try member.locked?.complete()
    return member
  }

  private func specification(_ below: Below, of parent: ChainMember) throws(EngineError) -> NodeOptions? {
    switch below {
    case .nothing: return nil
    case .recorded:
      guard let reference = parent.layer.backing else { return nil }
      return try options.policy.specification(of: reference, namedBy: parent.path).node
    case .given(var node):
      if !node.namesFile, let reference = parent.layer.backing {
        node.addMissing(try options.policy.specification(of: reference, namedBy: parent.path).node)
      }
      return node
    }
  }

  /// Longer chains, and deeper trees, are damaged or hostile.
  private mutating func countNode() throws(EngineError) {
    guard depth < ImageOpener.maximumDepth else {
      throw EngineError(
        .tooLarge, "The chain of backing files has more than \(ImageOpener.maximumDepth) members")
    }
    depth += 1
  }

  // MARK: Formats

  private mutating func image(_ node: NodeOptions, _ use: NodeUse) throws(EngineError) -> OpenedImage {
    try countNode()
    var rest = node
    let driver = rest.take("driver")
    let fileReference = rest.take("file")
    let fileNode = rest.takeChild("file")
    if let fileReference {
      guard fileNode.isEmpty else {
        throw .invalid("Cannot reference an existing block device with additional options or a new filename")
      }
      throw noNode(fileReference)
    }
    if driver == NodeSchemas.debugDriver, let image = transparent(node) {
      // Nothing fails: the image below it answers for itself.
      return try self.image(image, try useBelow(transparent: node, use))
    }
    if let driver, isProtocol(driver) {
      let store = try store(node, use)
      try store.lock(holding: .disk, access: use.access)
      let layer = try FormatCatalog.plain.open(store.store, request(store.path, use))
      let member = ChainMember(
        layer: layer, file: store.store, path: store.path, nodeName: store.name, formatName: driver,
        node: node, cache: use.cache, locked: use.locks.files)
      return OpenedImage(member: member, below: .nothing, use: use)
    }
    guard driver != nil || !fileNode.isEmpty else { throw .invalid("Must specify either driver or file") }
    var format: (any ImageFormat.Type)?
    if let driver {
      format = FormatCatalog.format(named: driver)
      if format == nil { throw ImageName.unknown("driver", driver) }
    }
    guard !fileNode.isEmpty else { throw .invalid("A block device must be specified for \"file\"") }
    let common = try takeCommon(&rest)
    let use = try use.changed(by: common)
    let file = try store(fileNode, use)
    let found: any ImageFormat.Type
    if let format { found = format } else { found = try ImageOpener.probe(file.store, path: file.path) }
    var choices: [String: String] = [:]
    for option in found.layerOptions.options where option.changesContent {
      choices[option.name] = rest[option.name]?.text
    }
    if let identity = file.store.hostFile?.identity {
      guard seen.insert(SeenDisk(file: identity, options: choices)).inserted else {
        throw EngineError(.loop, "The chain of backing files is a loop: it comes back to '\(file.path)'")
      }
    }
    // A piece of a file is not as long as the file.
    let isPiece = found == FormatCatalog.plain && !choices.isEmpty
    try file.lock(holding: isPiece ? .guestBytes : found.fileContent, access: use.access)
    // Opened once more, it is not probed again.
    var node = node
    node["driver"] = .text(found.name)
    try refuseWriting(common, use)
    return try open(found, over: file, use, &rest, node, isProbed: format == nil || use.wasProbed)
  }

  /// Opens a file's content as a format, with what is left of the node's options.
  private mutating func open(
    _ format: any ImageFormat.Type, over file: OpenedStore, _ use: NodeUse, _ rest: inout NodeOptions,
    _ node: NodeOptions, isProbed: Bool
  ) throws(EngineError) -> OpenedImage {
    var shown: [InfoField] = []
    var request = request(file.path, use)
    request.isProbed = isProbed
    for role in format.fileRoles + rest.numberedChildren(format.numberedFileRoles) {
      let child = rest.takeChild(role)
      guard !child.isEmpty else { continue }
      let opened = try store(child, use)
      request.files[role] = NamedStore(role: role, path: opened.path, store: opened.store)
      request.fileLocks[role] = opened.locks
      shown.append(InfoField(role, opened.name.info))
    }
    let below = try takeBelow(&rest, supportsBacking: format.supportsBacking)
    if case .given = below { request.isOverlay = true }
    for option in format.layerOptions.options where option.changesContent {
      if let value = rest[option.name], value.text != nil {
        shown.append(InfoField(option.name, value.info))
      }
    }
    let values = try rest.take(format.layerOptions)
    for option in format.layerOptions.options where values.isGiven(option.name) {
      request.options[option.name] = values.text(option.name)
    }
    if let unknown = rest.values.keys.min() {
      throw .invalid("Block format '\(format.name)' does not support the option '\(unknown)'")
    }
    let layer = try format.open(file.store, request)
    Trace.emit(
      .imageOpen,
      "path \"\(file.path)\" format \(format.name) size \(layer.virtualSize) writable \(use.access == .readWrite)"
    )
    let name = file.name.holding(format: format.name, shown)
    let member = ChainMember(
      layer: layer, file: file.store, path: file.path, nodeName: name, formatName: format.name,
      node: node, isProbed: isProbed, cache: use.cache, locked: use.locks.files)
    return OpenedImage(member: member, below: below, use: use)
  }

  private func takeBelow(_ rest: inout NodeOptions, supportsBacking: Bool) throws(EngineError) -> Below {
    let reference = rest["backing"]
    rest["backing"] = nil
    let child = rest.takeChild("backing")
    guard supportsBacking || child.isEmpty else { throw .invalid("Driver doesn't support backing files") }
    switch reference {
    case nil, .empty?: return child.isEmpty ? .recorded : .given(child)
    case .null?, .text("")?: return .nothing
    case let name?:
      throw noNode(name.text ?? "").whileTrying("Could not open backing file")
    }
  }

  private func refuseWriting(_ common: OptionValues, _ use: NodeUse) throws(EngineError) {
    guard common.flag("read-only") != true || use.access == .readOnly else {
      throw EngineError(.readOnly, "Block node is read-only")
    }
  }

  private func request(_ path: String, _ use: NodeUse) -> LayerRequest {
    var references = ReferenceOpener(
      policy: options.policy, cache: use.cache, isEnabled: !options.isForInspection)
    references.locks = use.locks
    references.maySearch = options.backing == .follow || options.searchesForParents
    references.checkedRoles = options.checkedRoles
    var request = LayerRequest(
      path: path, access: use.access, references: references, isForInspection: options.isForInspection)
    request.secrets = options.secrets
    request.identities = (options.identities ?? .unique).mixing(ImageName.lastComponent(of: path))
    request.note = options.note
    request.progress = options.progress
    return request
  }

  // MARK: Files

  private struct OpenedStore {
    let store: any ByteStore
    /// Of the file at the bottom.
    let path: String
    var name: NodeName
    /// Nil where there is no file, or it is locked already.
    var locks: ImageLocks?

    /// Locks the file: it is known now what it is to its image.
    func lock(holding content: FileContent, access: FileAccess) throws(EngineError) {
      guard let locks, let file = store.hostFile else { return }
      try locks.lock(file, holding: content, access: access)
    }
  }

  private func isProtocol(_ driver: String) -> Bool {
    NodeSchemas.fileDrivers.contains(driver) || NodeSchemas.nullDrivers.contains(driver)
      || driver == NodeSchemas.debugDriver
  }

  private func noNode(_ name: String) -> EngineError {
    .invalid("Cannot find device='\(name)' nor node-name='\(name)'")
  }

  private func takeCommon(_ rest: inout NodeOptions) throws(EngineError) -> OptionValues {
    let common = try rest.take(NodeSchemas.everyNode)
    try NodeSchemas.checkWords(common)
    return common
  }

  /// The bytes that a node stands for: a file, or the disk of an image in it.
  private mutating func store(_ node: NodeOptions, _ use: NodeUse) throws(EngineError) -> OpenedStore {
    let driver = node["driver"]?.text
    if driver == nil && node.hasText("filename") { return try fileStore(node, driver: "file", use) }
    guard let driver else { throw .invalid("Must specify either driver or file") }
    guard isProtocol(driver) else { return try diskStore(node, use) }
    if NodeSchemas.fileDrivers.contains(driver) { return try fileStore(node, driver: driver, use) }
    if driver == NodeSchemas.debugDriver { return try debugStore(node, use) }
    return try nullStore(node, driver: driver, use)
  }

  private func fileStore(_ node: NodeOptions, driver: String, _ use: NodeUse) throws(EngineError)
    -> OpenedStore
  {
    var rest = node
    rest["driver"] = nil
    let common = try takeCommon(&rest)
    var use = try use.changed(by: common)
    let values = try rest.take(NodeSchemas.file)
    try NodeSchemas.checkWords(values)
    try refuse(rest, driver: driver)
    guard let given = node.place("filename"), !given.path.isEmpty else {
      throw .invalid("The '\(driver)' block driver requires a file name")
    }
    guard !given.path.utf8.contains(0) else { throw .invalid("A file name has a NUL byte in it") }
    try Self.refuseSparseBundle(given.path)
    let place = Self.fileOfBundle(given) ?? given
    let path = place.path
    try refuseWriting(common, use)
    let file = try FileStore.open(place, access: use.access, cache: use.cache)
    // A name alone stands for either.
    guard file.kind.isDevice || driver != "host_device" else {
      throw .invalid("'host_device' driver requires '\(path)' to be either a character or block device")
    }
    guard !file.kind.isDevice || node["driver"]?.text != "file" else {
      throw .invalid("'file' driver requires '\(path)' to be a regular file")
    }
    use.locks.mode = LockMode(values.text("locking"))
    let name = NodeName(path: path, driver: file.kind.isDevice ? "host_device" : driver)
    return OpenedStore(store: file, path: path, name: name, locks: use.locks)
  }

  private func nullStore(_ node: NodeOptions, driver: String, _ use: NodeUse) throws(EngineError)
    -> OpenedStore
  {
    var rest = node
    rest["driver"] = nil
    let common = try takeCommon(&rest)
    try refuseWriting(common, use)
    _ = try use.changed(by: common)
    let shown = NodeSchemas.null.options.filter { $0.name != "latency-ns" }.compactMap { option in
      rest[option.name].map { InfoField(option.name, $0.info) }
    }
    let values = try rest.take(NodeSchemas.null)
    try refuse(rest, driver: driver)
    let store = NullStore(byteCount: values.number("size") ?? GiB)
    return OpenedStore(store: store, path: "", name: NodeName(driver: driver, shown))
  }

  /// The image below a debugging node without rules.
  private func transparent(_ node: NodeOptions) -> NodeOptions? {
    guard !node.values.keys.contains(where: { $0.hasPrefix("inject-error") || $0 == "config" }) else {
      return nil
    }
    var rest = node
    let image = rest.takeChild("image")
    return image.isEmpty || image["driver"] == nil ? nil : image
  }

  /// How the image below a debugging node without rules is used.
  private func useBelow(transparent node: NodeOptions, _ use: NodeUse) throws(EngineError) -> NodeUse {
    var rest = node
    rest["driver"] = nil
    _ = rest.takeChild("image")
    let common = try takeCommon(&rest)
    _ = try rest.takeDebugRules()
    _ = try rest.take(NodeSchemas.debug)
    try refuse(rest, driver: NodeSchemas.debugDriver)
    try refuseWriting(common, use)
    return try use.changed(by: common)
  }

  private mutating func debugStore(_ node: NodeOptions, _ use: NodeUse) throws(EngineError) -> OpenedStore {
    try countNode()
    var rest = node
    rest["driver"] = nil
    let image = rest.takeChild("image")
    guard !image.isEmpty else { throw .invalid("A block device must be specified for \"image\"") }
    let shown = rest.values.sorted { $0.key < $1.key }.map { InfoField($0.key, $0.value.info) }
    let common = try takeCommon(&rest)
    var rules = try rest.takeDebugRules()
    let isFixed = !rules.failures.isEmpty || !rules.transitions.isEmpty
    let values = try rest.take(NodeSchemas.debug)
    try refuse(rest, driver: NodeSchemas.debugDriver)
    if let path = values.text("config") {
      let file = try FileStore.open(path, access: .readOnly)
      let count = Int(min(try file.byteCount(), MiB))
      let read = try NodeOptions.debugRules(configuration: file.bytes(at: 0, count: count))
      rules.failures += read.failures
      rules.transitions += read.transitions
    }
    try refuseWriting(common, use)
    let below = try store(image, use.changed(by: common))
    let name = below.name.debugged(
      configuration: values.text("config"), shown, rulesInOptions: isFixed)
    return OpenedStore(
      store: DebugStore(below.store, rules), path: below.path, name: name, locks: below.locks)
  }

  private func refuse(_ rest: NodeOptions, driver: String) throws(EngineError) {
    guard let unknown = rest.values.keys.min() else { return }
    throw .invalid("Block protocol '\(driver)' doesn't support the option '\(unknown)'")
  }

  /// The disk of an image as a file for another format.
  private mutating func diskStore(_ node: NodeOptions, _ use: NodeUse) throws(EngineError) -> OpenedStore {
    if let (plain, common) = try plainFile(node) {
      try countNode()
      var file = try store(plain, use.changed(by: common))
      file.name = file.name.holding(format: FormatCatalog.plain.name, []).asFile
      return file
    }
    let use = use.forDisk
    let members = try chain(node, use)
    return OpenedStore(
      store: DiskStore(ImageChain(members: members, access: use.access)), path: members[0].path,
      name: members[0].nodeName.asFile)
  }

  /// The file of a raw node that is nothing but its file, and what the node says of itself. As that file, it can
  /// grow.
  private func plainFile(_ node: NodeOptions) throws(EngineError) -> (NodeOptions, OptionValues)? {
    var rest = node
    guard rest.take("driver") == FormatCatalog.plain.name else { return nil }
    let file = rest.takeChild("file")
    let common = try takeCommon(&rest)
    return rest.isEmpty && !file.isEmpty ? (file, common) : nil
  }
}
