import Synchronization

/// Looks for the parent of a differencing image. The image tells its UUID and nothing else; its name stands in
/// the settings of the virtual machine, which may have stayed behind on another host.
///
/// Only headers are read, only of regular files, and all of them by way of the reference policy.
struct VDIParentFinder {
  let wanted: VDIIdentifier
  let path: String
  let references: ReferenceOpener

  /// VirtualBox keeps differencing images in a folder `Snapshots` below the one of the machine's first disk.
  private static let folders = [".", ".."]
  /// A machine with hundreds of snapshots has a few MiB of settings.
  private static let maximumSettingsByteCount: UInt64 = 16 * MiB
  private static let maximumSettingsFiles = 16

  /// Where the parent lies, relative to the folder of the image unless absolute; nil where it is not found.
  func find() -> String? {
    guard references.maySearch else { return nil }
    return namedByIdentifier() ?? namedBySettings() ?? foundByLooking()
  }

  /// VirtualBox names differencing images after their UUIDs.
  private func namedByIdentifier() -> String? {
    Self.folders.lazy.map { Self.join("\(wanted.text).vdi", to: $0) }.first(where: isWanted)
  }

  /// A machine's settings say where each disk with its UUID is.
  private func namedBySettings() -> String? {
    for folder in Self.folders {
      let settings = references.names(inFolder: folder, endingIn: [".vbox"], for: .parent, namedBy: path)
      for name in settings.prefix(Self.maximumSettingsFiles) {
        for location in locations(inSettings: Self.join(name, to: folder)) {
          let candidate = Self.join(location, to: folder)
          if isWanted(candidate) { return candidate }
        }
      }
    }
    return nil
  }

  private func locations(inSettings name: String) -> [String] {
    do throws(EngineError) {
      let file = try references.open(name, for: .parent, namedBy: path, access: .readOnly, holding: nil)
      let byteCount = try file.byteCount()
      guard file.kind == .regular, byteCount <= Self.maximumSettingsByteCount else { return [] }
      let document = try XMLElement.parse(try file.bytes(at: 0, count: Int(byteCount)))
      return document.descendants("HardDisk").compactMap { disk in
        guard let text = disk.attributes["uuid"], VDIIdentifier(text: text) == wanted else { return nil }
        return disk.attributes["location"]
      }
    } catch {
      // Settings that cannot be read are no settings; the headers of the folder still tell.
      return []
    }
  }

  private func foundByLooking() -> String? {
    for folder in Self.folders {
      let names = references.names(inFolder: folder, endingIn: [".vdi"], for: .parent, namedBy: path)
      if let name = names.first(where: { isWanted(Self.join($0, to: folder)) }) {
        return Self.join(name, to: folder)
      }
    }
    return nil
  }

  private static func join(_ name: String, to folder: String) -> String {
    // A name with a colon in it is not to be taken for a protocol.
    let isPlain = folder == "." && !name.utf8.contains(UInt8(ascii: ":"))
    return name.hasPrefix("/") || isPlain ? name : "\(folder)/\(name)"
  }

  /// Whether the file is a VDI image with the UUID that is looked for.
  private func isWanted(_ name: String) -> Bool {
    (try? VDIParentFinder.header(of: name, references, namedBy: path))?.identifier == wanted
  }

  /// The header of the image called `name`.
  static func header(of name: String, _ references: ReferenceOpener, namedBy path: String) throws(EngineError)
    -> VDIHeader
  {
    let file = try references.open(name, for: .parent, namedBy: path, access: .readOnly, holding: nil)
    let header = try file.bytes(at: 0, count: VDIHeader.byteCount).parsed(VDIHeader.parse)
    _ = try header.validated()
    return header
  }
}

extension VDILayer {
  var backing: BackingReference? {
    let header = state.withLock { $0.header }
    guard VDIImageType(rawValue: header.type)?.hasParent == true else { return nil }
    return foundParent.withLock { found in
      if let found { return found }
      let finder = VDIParentFinder(
        wanted: header.parent, path: request.path, references: request.references)
      // One that was not found keeps its UUID as its name, and nowhere to look: the chain then says what to do.
      let place = finder.find()
      let reference = BackingReference(
        name: header.parent.text, format: VDIFormat.name, candidates: place.map { [$0] } ?? [])
      found = reference
      return reference
    }
  }
}

extension VDILayer: ParentChecking {
  /// The UUID must be the recorded one. That of the last change is only told of: VirtualBox itself opens such
  /// chains, and a parent that was only resized or copied has a new one, too.
  func checkParent(_ parent: any ImageLayer, path: String) throws(EngineError) {
    let header = state.withLock { $0.header }
    guard VDIImageType(rawValue: header.type)?.hasParent == true else {
      throw .invalid("'\(request.path)' is no differencing image: it has no parent")
    }
    guard let parent = parent as? VDILayer else {
      throw .unsupported(
        "The parent \(header.parent.text) of '\(request.path)' must be a VDI image; '\(path)' is none")
    }
    let found = parent.state.withLock { $0.header }
    guard found.identifier == header.parent else {
      throw .corrupt(
        "The parent of '\(request.path)' is \(header.parent.text), but '\(path)' is \(found.identifier.text)")
    }
    if !header.parentModification.isNone, header.parentModification != found.modification {
      request.note(
        "warning: '\(path)' was changed after the differencing image '\(request.path)' was made over it")
    }
  }
}
