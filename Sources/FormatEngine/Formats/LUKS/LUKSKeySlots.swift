import Synchronization

extension LUKSFormat: AmendableFormat {
  public static var amendOptions: OptionSchema { LUKSLayer.amendOptions }
}

extension LUKSLayer: Amendable {
  static let amendOptions = OptionSchema(LUKSSlotChange.options(prefix: ""))

  /// Adds or erases key slots. Nothing of the disk changes.
  func amend(
    _ options: OptionValues, _ request: AmendRequest, progress: Progress,
    resizing: (UInt64) throws(EngineError) -> Void
  ) throws(EngineError) {
    guard let volumeKey else { throw .missingKey(option: "key-secret") }
    // Others that have the volume open, even for reading, would go on with keys that are gone.
    try (headerFile?.store ?? file).hostFile?.lock(
      LockRequest(taking: [], sharing: [.writeUnchanged, .resize]))
    let change = try LUKSSlotChange(options, prefix: "", request.secrets)
    try header.withLock { (header) throws(EngineError) in
      try change.apply(to: &header, key: volumeKey, in: area, isForced: request.isForced)
    }
  }
}
