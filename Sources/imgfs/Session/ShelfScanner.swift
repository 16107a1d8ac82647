import FormatEngine

/// Finds the images of a folder.
struct ShelfScanner {
  /// A file that may be an image.
  struct Found {
    var path: String
    var stamp: FileStamp
    /// Found in a folder, rather than named.
    var isInFolder: Bool
  }

  /// The format that all images have; nil: each is probed.
  let format: String?
  /// What shows the shelf: looking into it would be waiting for oneself.
  let servedTree: ServedTree
  /// Which links are followed.
  let links: FolderLinks

  /// Raw disks look like any other file: these are what their names end with.
  private static let rawEndings: Set<String> = ["raw", "img", "iso", "dd", "ima", "vfd"]
  /// Files that are parts of an image, and no image by themselves, though they may look like one.
  private static let partEndings = ["-flat.vmdk", "-delta.vmdk", "-ctk.vmdk", "-sesparse.vmdk", "-rdm.vmdk"]

  /// Whether `path` is a folder, and not one that is an image itself.
  static func isFolderOfImages(_ path: String) -> Bool {
    HostFiles.status(of: path)?.kind == .folder && ImageOpener.fileOfBundle(path) == nil
  }

  /// The file at `path`, or, where that is a folder and no image, the files in it, by name.
  func files(at path: String) -> [Found] {
    guard !ImageOpener.leadsBack(path, into: servedTree), let status = HostFiles.status(of: path) else {
      return []
    }
    guard Self.isFolderOfImages(path) else {
      return [Found(path: path, stamp: Self.stamp(at: path, status), isInFolder: false)]
    }
    return Self.names(in: path).compactMap { name in
      let path = ImageName.join(name, toFolderOf: path + "/")
      guard !leadsBack(path), links.mayShow(path), let status = HostFiles.status(of: path) else { return nil }
      let isBundle = status.kind == .folder && ImageOpener.fileOfBundle(path) != nil
      guard status.kind == .regular || isBundle else { return nil }
      return Found(path: path, stamp: Self.stamp(at: path, status), isInFolder: true)
    }
  }

  /// The stamp that an image at `path` has when it is opened; nil where there is nothing.
  static func stamp(at path: String) -> FileStamp? { HostFiles.status(of: path).map { stamp(at: path, $0) } }

  /// Of a folder that is an image, its descriptor is what is opened.
  private static func stamp(at path: String, _ status: HostFiles.Status) -> FileStamp {
    guard status.kind == .folder, let descriptor = ImageOpener.fileOfBundle(path) else {
      return FileStamp(status)
    }
    return FileStamp(HostFiles.status(of: descriptor) ?? status)
  }

  /// Of a name in a folder that lies elsewhere. Most are files, and looks come often.
  private func leadsBack(_ path: String) -> Bool {
    servedTree.holdsFile(path) ?? ImageOpener.leadsBack(path, into: servedTree)
  }

  /// Whether a file of a folder is an image.
  func isImage(_ found: Found) -> Bool {
    if Self.isPart(found.path) { return false }
    if format != nil || ImageOpener.fileOfBundle(found.path) != nil { return true }
    guard let file = try? FileStore.open(found.path, access: .readOnly),
      let kind = try? ImageOpener.probe(file, path: found.path)
    else { return false }
    if kind.name != FormatCatalog.plain.name { return true }
    let ending = found.path.split(separator: ".").last.map { $0.lowercased() } ?? ""
    return found.stamp.byteCount > 0 && Self.rawEndings.contains(ending)
  }

  /// Pieces of a VMDK are called NAME-s001.vmdk, NAME-f001.vmdk and the like.
  private static func isPart(_ path: String) -> Bool {
    let name = path.lowercased()
    if partEndings.contains(where: { name.hasSuffix($0) }) { return true }
    guard name.hasSuffix(".vmdk") else { return false }
    let end = name.dropLast(5).suffix(5)
    return end.hasPrefix("-") && "sf".contains(end.dropFirst().prefix(1)) && end.count == 5
      && end.suffix(3).allSatisfy { $0.isASCII && $0.isNumber }
  }

  /// Names that do not begin with a dot, sorted by their bytes.
  private static func names(in folder: String) -> [String] {
    let names = (HostFiles.names(inFolder: folder) ?? []).filter { !$0.hasPrefix(".") }
    return names.map(\.hostBytes).sorted { $0.lexicographicallyPrecedes($1) }.map { String(hostBytes: $0) }
  }
}
