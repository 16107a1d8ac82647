/// A change of key slots, as the options of `amend` say it.
struct LUKSSlotChange: Sendable {
  private enum Change: Sendable {
    /// `slot` nil: the first that is free.
    case add(Secret, slot: Int?, milliseconds: UInt64)
    case eraseSlot(Int, ifOpenedBy: Secret?)
    case eraseAll(openedBy: Secret)
  }

  private let change: Change

  /// What `amend` takes, in alphabetical order.
  static func options(prefix: String) -> [OptionSchema.Option] {
    [
      .init("\(prefix)iter-time", .number, "Time to spend in PBKDF in milliseconds"),
      .init("\(prefix)keyslot", .number, "Select a single keyslot to modify explicitly"),
      .init(
        "\(prefix)new-secret", .text, "New secret to set in the matching keyslots. Empty string to erase"),
      .init("\(prefix)old-secret", .text, "Select all keyslots that match this password"),
      .init("\(prefix)state", .text, "Select new state of affected keyslots (active/inactive)"),
    ]
  }

  /// `prefix`: what stands before the names, such as `encrypt.`.
  init(_ options: OptionValues, prefix: String, _ secrets: SecretStore) throws(EngineError) {
    func isGiven(_ name: String) -> Bool { options.isGiven(prefix + name) }
    func secret(_ name: String) throws(EngineError) -> Secret? {
      guard isGiven(name), let id = options.text(prefix + name) else { return nil }
      return try secrets.passphrase(id)
    }
    func slot() throws(EngineError) -> Int? {
      guard isGiven("keyslot"), let number = options.number(prefix + "keyslot") else { return nil }
      guard number < UInt64(LUKSHeader.slotCount) else {
        throw .invalid(
          "Invalid keyslot \(number) specified, must be between 0 and \(LUKSHeader.slotCount - 1)")
      }
      return Int(number)
    }
    switch isGiven("state") ? options.text(prefix + "state") : nil {
    case "active"?:
      guard isGiven("new-secret") else { throw .invalid("'new-secret' is required to activate a keyslot") }
      guard !isGiven("old-secret") else {
        throw .invalid("'old-secret' must not be given when activating keyslots")
      }
      guard let new = try secret("new-secret") else { throw .invalid("Parameter 'new-secret' is missing") }
      change = .add(
        new, slot: try slot(),
        milliseconds: options.number(prefix + "iter-time") ?? LUKSOptions.usualMilliseconds)
    case "inactive"?:
      for name in ["new-secret", "iter-time"] where isGiven(name) {
        throw .invalid("'\(name)' must not be given when erasing keyslots")
      }
      let old = try secret("old-secret")
      if let slot = try slot() {
        change = .eraseSlot(slot, ifOpenedBy: old)
      } else if let old {
        change = .eraseAll(openedBy: old)
      } else {
        throw .invalid(
          "To erase keyslot(s), either explicit keyslot index or the password currently contained in them"
            + " must be given")
      }
    case nil: throw .invalid("Parameter 'state' is missing")
    case let text?: throw .invalid("Parameter 'state' does not accept value '\(text)'")
    }
  }

  /// Changes the header and what is on disk of it.
  ///
  /// `isForced`: slots in use are overwritten, and the last one is erased.
  func apply(to header: inout LUKSHeader, key: Secret, in area: LUKSArea, isForced: Bool) throws(EngineError)
  {
    switch change {
    case .add(let passphrase, let slot, let milliseconds):
      guard let index = slot ?? header.slots.firstIndex(where: { !$0.isActive }) else {
        throw .invalid("Can't add a keyslot - all keyslots are in use")
      }
      guard isForced || !header.slots[index].isActive else {
        throw .invalid("Refusing to overwrite active keyslot \(index) - please erase it first")
      }
      try header.setSlot(index, to: key, for: passphrase, milliseconds: milliseconds, in: area)
    case .eraseSlot(let index, let passphrase):
      try erase(index, ifOpenedBy: passphrase, &header, area, isForced)
    case .eraseAll(let passphrase): try eraseAll(openedBy: passphrase, &header, area, isForced)
    }
  }

  private func erase(
    _ index: Int, ifOpenedBy passphrase: Secret?, _ header: inout LUKSHeader, _ area: LUKSArea,
    _ isForced: Bool
  ) throws(EngineError) {
    if let passphrase, try header.volumeKey(inSlot: index, for: passphrase, area) == nil {
      throw .invalid("Given keyslot \(index) doesn't contain the given old password for erase operation")
    }
    if !isForced {
      guard header.slots[index].isActive else {
        throw .invalid("Given keyslot \(index) is already erased (inactive) ")
      }
      guard header.activeSlotCount > 1 else {
        throw .invalid(
          "Attempt to erase the only active keyslot \(index) which will erase all the data in the image"
            + " irreversibly - refusing operation")
      }
    }
    try header.eraseSlot(index, in: area)
  }

  private func eraseAll(
    openedBy passphrase: Secret, _ header: inout LUKSHeader, _ area: LUKSArea, _ isForced: Bool
  ) throws(EngineError) {
    var found: [Int] = []
    for index in header.slots.indices {
      if try header.volumeKey(inSlot: index, for: passphrase, area) != nil { found.append(index) }
    }
    guard !found.isEmpty else {
      throw .invalid("No keyslots match given (old) password for erase operation")
    }
    guard isForced || found.count < header.activeSlotCount else {
      throw .invalid(
        "All the active keyslots match the (old) password that was given and erasing them will erase all the"
          + " data in the image irreversibly - refusing operation")
    }
    for index in found { try header.eraseSlot(index, in: area) }
  }
}

extension LUKSHeader {
  fileprivate var activeSlotCount: Int { slots.count { $0.isActive } }
}
