extension ImageOpener {
  /// The file that is opened where the folder at `path` is named: nil where that is no folder that is one image.
  public static func fileOfBundle(_ path: String) -> String? {
    NodeOpener.fileOfBundle(FilePlace(path: path))?.path
  }

  /// Whether to open the image at `path` is to look into what the process itself serves.
  public static func leadsBack(_ path: String, into tree: ServedTree) -> Bool {
    tree.holds(path) || FormatCatalog.bundleDescriptors.contains { tree.holds("\(path)/\($0)") }
  }
}

/// Folders that stand for an image.
extension NodeOpener {
  /// The descriptor in a folder that is an image, nil where it is none.
  static func fileOfBundle(_ folder: FilePlace) -> FilePlace? {
    FormatCatalog.bundleDescriptors.lazy.map(folder.appending).first { HostFiles.identity(of: $0) != nil }
  }

  /// Apple's sparse bundles: a folder with the disk in bands.
  static func refuseSparseBundle(_ path: String) throws(EngineError) {
    for name in ["/Info.plist", "/bands"] where HostFiles.identity(of: path + name) == nil { return }
    throw .unsupported("'\(path)' is a sparse bundle disk image, which is not supported")
  }
}
