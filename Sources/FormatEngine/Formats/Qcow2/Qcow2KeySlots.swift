import Synchronization

extension Qcow2Layer {
  /// Adds or erases key slots as the options that begin with `encrypt.` say. On disk when it returns.
  ///
  /// Nothing but the LUKS header's own clusters changes, so this goes on beside reads and writes of the disk.
  func amendEncryption(_ options: OptionValues, _ request: AmendRequest) throws(EngineError) {
    guard let encryption else { throw .invalid("Can't amend encryption options - encryption not present") }
    guard let area = encryption.area else { throw .invalid("Only LUKS encryption options can be amended") }
    guard let key = encryption.volumeKey else { throw .missingKey }
    let slots = try LUKSSlotChange(options, prefix: "encrypt.", request.secrets)
    // A change like any other: a header that lies over tables is not written to.
    try change { (_) throws(EngineError) in }
    try encryption.header.withLock { (header) throws(EngineError) in
      guard var changed = header else { return }
      // Also where it fails half way: some slots may be gone then.
      defer { header = changed }
      try slots.apply(to: &changed, key: key, in: area, isForced: request.isForced)
    }
  }
}
