/// How a node is shown: by its path where that says all, else by a `json:` name that leads to the same bytes.
struct NodeName: Equatable, Sendable {
  /// Nil where other options matter, too.
  private(set) var path: String?
  private var fields: [InfoField]

  /// A file of the host.
  init(path: String, driver: String = "file") {
    self.path = path
    fields = [InfoField("driver", .text(driver)), InfoField("filename", .text(path))]
  }

  /// A driver without a file. `options` are those that change what is read.
  init(driver: String, _ options: [InfoField]) {
    path = options.isEmpty ? driver + "://" : nil
    fields = [InfoField("driver", .text(driver))] + options
  }

  /// An image of a format over this file. `options` are those that change what is read.
  func holding(format: String, _ options: [InfoField]) -> NodeName {
    var name = self
    if !options.isEmpty { name.path = nil }
    name.fields = [InfoField("driver", .text(format))] + options + [InfoField("file", .record(fields))]
    return name
  }

  /// The disk of this image as a file for another format: a path would be taken for the image itself.
  var asFile: NodeName {
    var name = self
    name.path = nil
    return name
  }

  /// The driver blkdebug over this file. `options` are all that it was given.
  func debugged(configuration: String?, _ options: [InfoField], rulesInOptions: Bool) -> NodeName {
    var name = self
    if let path { name.path = rulesInOptions ? nil : "blkdebug:\(configuration ?? ""):\(path)" }
    name.fields = [InfoField("driver", .text("blkdebug"))] + options + [InfoField("image", .record(fields))]
    return name
  }

  /// The same with names of files that lead there from every folder, whatever links change later.
  func withWholePaths() throws(EngineError) -> NodeName {
    var name = self
    if let path { name.path = try HostFiles.realPath(path) }
    name.fields = try Self.withWholePaths(fields)
    return name
  }

  private static func withWholePaths(_ fields: [InfoField]) throws(EngineError) -> [InfoField] {
    var whole: [InfoField] = []
    for field in fields {
      switch field.value {
      case .text(let path) where field.key == "filename":
        whole.append(InfoField(field.key, .text(try HostFiles.realPath(path))))
      case .record(let inner): whole.append(InfoField(field.key, .record(try withWholePaths(inner))))
      default: whole.append(field)
      }
    }
    return whole
  }

  var info: InfoValue { .record(fields) }

  var text: String { path ?? "json:" + JSONText.compact(info) }
}
