import Synchronization

extension Qcow2Format: AmendableFormat {
  public static var amendOptions: OptionSchema { Qcow2Layer.amendOptions }
}

extension Qcow2Layer: Amendable {
  static var amendOptions: OptionSchema { Qcow2AmendOptions.schema }

  func amend(
    _ options: OptionValues, _ request: AmendRequest, progress: Progress,
    resizing: (UInt64) throws(EngineError) -> Void
  ) throws(EngineError) {
    let prologue = state.withLock { $0.prologue }
    let wanted = try Qcow2AmendOptions(options, of: prologue)
    if Self.amendOptions.options.contains(where: { $0.name.hasPrefix("encrypt.") && options.isGiven($0.name) }
    ) {
      try amendEncryption(options, request)
    }
    if wanted.version < prologue.header.version { try refuseDowngrade(prologue) }
    // A new version comes first, because the other changes may need it; the old one last, for the same reason.
    if wanted.changesFeatures(of: prologue) {
      try rewrite { (rewrite) throws(EngineError) in try wanted.apply(to: rewrite, progress: progress) }
    }
    if let virtualSize = wanted.virtualSize, virtualSize != self.virtualSize {
      try resizing(virtualSize)
    }
    if wanted.version < prologue.header.version {
      try refuseSnapshotsOfOtherSizes()
      try rewrite { (rewrite) throws(EngineError) in try rewrite.downgrade(cipher, progress: progress) }
    }
  }

  /// Entries of version 2 need not record the disk's size, so all must have the same.
  private func refuseSnapshotsOfOtherSizes() throws(EngineError) {
    for snapshot in try snapshots() where snapshot.vmStateSize != 0 || snapshot.virtualSize != virtualSize {
      throw .unsupported("Internal snapshots prevent downgrade of image")
    }
  }

  /// What version 2 has no room for.
  private func refuseDowngrade(_ prologue: Qcow2Prologue) throws(EngineError) {
    let features = prologue.header.incompatibleFeatures.subtracting(.dirty)
    if features.contains(.externalDataFile) {
      throw .unsupported("Cannot downgrade an image with a data file")
    }
    guard features.isEmpty else {
      throw .unsupported(
        "Cannot downgrade an image with incompatible features 0x\(hex(features.rawValue)) set")
    }
    // Without the bit that keeps them valid they would be lost.
    if prologue.hasBitmaps { throw .unsupported("Cannot downgrade an image with bitmaps") }
  }
}

extension Qcow2AmendOptions {
  /// Whether anything changes beside the size and the way back to version 2.
  fileprivate func changesFeatures(of prologue: Qcow2Prologue) -> Bool {
    let header = prologue.header
    return version > header.version || refcountOrder != header.refcountOrder || dataFile != nil
      || isDataFileRaw != header.autoclearFeatures.contains(.rawExternalData)
      || hasLazyRefcounts != header.compatibleFeatures.contains(.lazyRefcounts)
  }

  fileprivate func apply(to rewrite: Qcow2Rewrite, progress: Progress) throws(EngineError) {
    // The counts first: those of the image as it is are what is counted anew.
    if refcountOrder != rewrite.prologue.header.refcountOrder {
      try rewrite.changeRefcountWidth(toOrder: refcountOrder, progress: progress)
    }
    if version > rewrite.prologue.header.version { try rewrite.upgrade() }
    if let dataFile {
      rewrite.prologue.extensions.set(
        Qcow2HeaderExtensions.Kind.dataFile, dataFile.isEmpty ? nil : dataFile.hostBytes)
    }
    if !isDataFileRaw { rewrite.prologue.header.autoclearFeatures.remove(.rawExternalData) }
    if hasLazyRefcounts {
      rewrite.prologue.header.compatibleFeatures.insert(.lazyRefcounts)
    } else {
      rewrite.prologue.header.compatibleFeatures.remove(.lazyRefcounts)
    }
  }
}

extension Qcow2Rewrite {
  /// From version 2 to version 3.
  fileprivate func upgrade() throws(EngineError) {
    prologue.header.version = 3
    prologue.header.headerLength = Qcow2Header.writtenLength
    prologue.nameFeatures()
    // Entries of version 3 record the disk's size.
    if prologue.header.snapshotCount > 0 { try replaceSnapshots(with: try snapshots()) }
  }

  /// From version 3 to version 2. The image has nothing that version 2 lacks but zero clusters.
  fileprivate func downgrade(_ cipher: LayerCipher?, progress: Progress) throws(EngineError) {
    let header = prologue.header
    let old = try snapshots()
    var new = old
    let total = old.reduce(UInt64(header.l1Count)) { $0 + UInt64($1.l1Count) }
    var expander = try Qcow2ZeroExpander(self, cipher, total: total, progress: progress)
    var active = try activeL1()
    let trees = try Qcow2TreeRewriter(self)
    try trees.requireSound(active)
    for snapshot in old { try trees.requireSound(try l1(of: snapshot)) }
    try expander.expand(&active, isActive: true)
    for (index, snapshot) in old.enumerated() {
      let before = try l1(of: snapshot)
      var l1 = before
      try expander.expand(&l1, isActive: false)
      guard l1 != before else { continue }
      try remove(clusters(at: snapshot.l1Offset, byteCount: UInt64(snapshot.l1Count) * 8))
      new[index].l1Offset = try l1.write(to: self)
    }
    // Room that was given back may have been shared.
    try Qcow2TreeRewriter(self).setCopiedFlags(of: &active)
    try replaceActive(with: active)
    if new != old { try replaceSnapshots(with: new) }
    prologue.header.version = 2
    prologue.header.headerLength = Qcow2Header.version2Length
    prologue.header.incompatibleFeatures = []
    prologue.header.compatibleFeatures = []
    prologue.header.autoclearFeatures = []
    prologue.extensions.set(Qcow2HeaderExtensions.Kind.featureNames, nil)
  }
}
