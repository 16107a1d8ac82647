import Foundation

/// Debian's qemu-img and qemu-io: the judge of what an image holds.
public enum ReferenceTool: String, Sendable {
  case qemuImg = "qemu-img"
  case qemuIO = "qemu-io"
  case storageDaemon = "qemu-storage-daemon"
  case nbd = "qemu-nbd"

  public var path: String { "/usr/bin/\(rawValue)" }
  public var isInstalled: Bool { Files.exists(path) }

  /// Runs it, whatever its exit status.
  public func run(_ arguments: [String], folder: String? = nil, timeout: Double = 60) throws -> ProcessResult
  {
    guard isInstalled else {
      throw TestFailure(
        "\(path) is not installed: these tests need Debian's qemu-utils and qemu-system-common")
    }
    return try TestProcess.run(
      [path] + arguments, environment: ["LC_ALL": "C"], folder: folder, timeout: timeout)
  }

  /// Runs it; another exit status than 0 is a failure that shows what was printed.
  @discardableResult
  public func callAsFunction(_ arguments: String..., folder: String? = nil) throws -> ProcessResult {
    try run(arguments, folder: folder).expecting(0)
  }

  /// Makes an image; `options` as `create -o` takes them.
  public static func create(
    _ image: String, format: String, size: Int, options: [String] = [],
    over base: (name: String, format: String)? = nil, folder: String? = nil, passphrase: String? = nil
  ) throws {
    var (arguments, options) = (["create", "-q", "-f", format], options)
    if let passphrase {
      arguments += ["--object", "secret,id=key,data=\(passphrase)"]
      options.append("\(keySecretOption(ofFormat: format))=key")
    }
    if !options.isEmpty { arguments += ["-o", options.joined(separator: ",")] }
    if let base { arguments += ["-b", base.name, "-F", base.format] }
    arguments += [image, String(size)]
    var result = try ReferenceTool.qemuImg.run(arguments, folder: folder)
    // Its clock fails now and then.
    for _ in 0..<20 where result.stderrText.contains("accurate CPU usage") {
      result = try ReferenceTool.qemuImg.run(arguments, folder: folder)
    }
    _ = try result.expecting(0)
  }

  /// Runs qemu-io commands on an image; a command that fails is a failure.
  @discardableResult
  public static func io(
    _ commands: [String], on image: String, format: String, folder: String? = nil,
    passphrase: String? = nil, isReadOnly: Bool = false
  ) throws -> ProcessResult {
    let arguments =
      ["-d", "unmap"] + (isReadOnly ? ["-r"] : []) + commands.flatMap { ["-c", $0] }
      + names(image, format, passphrase)
    let result = try ReferenceTool.qemuIO.run(arguments, folder: folder).expecting(0)
    if result.stdoutText.contains("failed") || !result.stderr.isEmpty {
      throw TestFailure("\(result.command)\n\(result.stdoutText)\(result.stderrText)")
    }
    return result
  }

  /// How an image is named on the command line. `passphrase`: of this image and of what lies below it.
  public static func names(_ image: String, _ format: String, _ passphrase: String?) -> [String] {
    guard let passphrase else { return ["-f", format, image] }
    return [
      "--object", "secret,id=key,data=\(passphrase)", "--image-opts",
      "driver=\(format),\(keySecretOption(ofFormat: format))=key,file.filename=\(image)",
    ]
  }

  /// What the judge reads of the whole disk.
  public static func content(
    of image: String, format: String, in folder: TemporaryFolder, passphrase: String? = nil
  ) throws -> [UInt8] {
    let raw = folder.file("judge-\(UUID().uuidString).raw")
    defer { try? FileManager.default.removeItem(atPath: raw) }
    try ReferenceTool.qemuImg.run(
      ["convert", "-O", "raw"] + names(image, format, passphrase) + [raw], folder: folder.path
    ).expecting(0)
    return try Files.read(raw)
  }

  /// What `qemu-img check` says of an image. A format that it cannot check is always sound.
  public struct Verdict: Sendable, Equatable {
    public var corruptions: Int
    public var leaks: Int
    public var checkErrors: Int
    /// All it printed.
    public var text: String

    public init(corruptions: Int, leaks: Int, checkErrors: Int, text: String) {
      self.corruptions = corruptions
      self.leaks = leaks
      self.checkErrors = checkErrors
      self.text = text
    }

    public var isClean: Bool { corruptions == 0 && leaks == 0 && checkErrors == 0 }
  }

  public static func check(
    _ image: String, format: String = "qcow2", folder: String? = nil, passphrase: String? = nil
  ) throws -> Verdict {
    let result = try ReferenceTool.qemuImg.run(
      ["check", "--output=json"] + names(image, format, passphrase), folder: folder)
    if result.status == 63 { return Verdict(corruptions: 0, leaks: 0, checkErrors: 0, text: "") }
    guard let top = try? JSONSerialization.jsonObject(with: Foundation.Data(result.stdout)) as? [String: Any]
    else {
      throw TestFailure("\(result.command): \(result.stdoutText)\(result.stderrText)")
    }
    func number(_ key: String) -> Int { (top[key] as? NSNumber)?.intValue ?? 0 }
    return Verdict(
      corruptions: number("corruptions"), leaks: number("leaks"), checkErrors: number("check-errors"),
      text: result.stdoutText + result.stderrText)
  }

  /// One line of `qemu-img map --output=json`.
  public struct MapEntry: Sendable, Equatable {
    public var start: UInt64
    public var length: UInt64
    public var depth: Int
    public var isPresent: Bool
    public var isZero: Bool
    public var isData: Bool
    public var offset: UInt64?
  }

  public static func map(_ image: String, format: String, folder: String? = nil) throws -> [MapEntry] {
    let result = try ReferenceTool.qemuImg("map", "-f", format, "--output=json", image, folder: folder)
    guard
      let list = try JSONSerialization.jsonObject(with: Foundation.Data(result.stdout)) as? [[String: Any]]
    else {
      throw TestFailure("\(result.command): \(result.stdoutText)")
    }
    return list.map { line in
      func number(_ key: String) -> NSNumber? { line[key] as? NSNumber }
      return MapEntry(
        start: number("start")?.uint64Value ?? 0, length: number("length")?.uint64Value ?? 0,
        depth: number("depth")?.intValue ?? -1, isPresent: number("present")?.boolValue ?? true,
        isZero: number("zero")?.boolValue ?? false, isData: number("data")?.boolValue ?? false,
        offset: number("offset")?.uint64Value)
    }
  }
}

extension ReferenceTool {
  /// A file with this content, to lie below another one.
  public static func makeBase(_ name: String, _ format: String, _ bytes: [UInt8], in folder: TemporaryFolder)
    throws
  {
    guard format != "raw" else {
      try folder.write(bytes, to: name)
      return
    }
    try TemporaryFolder.with { other in
      let raw = try other.write(bytes, to: "disk.raw")
      try ReferenceTool.qemuImg("convert", "-O", format, raw, name, folder: folder.path)
    }
  }
}
