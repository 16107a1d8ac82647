extension ImageCreator {
  /// Whether `name` is a pipe that the user named.
  public static func isPipe(_ name: String) -> Bool {
    guard let path = try? ImageName.plainPath(name) else { return false }
    return HostPipe.isAt(path)
  }

  /// A new image in the pipe called `name`, whose bytes go there while it is written. `options` hold the size.
  public static func createInPipe(
    _ name: String, format: any CreatableFormat.Type, options: OptionValues,
    secrets: SecretStore = SecretStore()
  ) throws(EngineError) -> ImageChain {
    let path = try ImageName.plainPath(name)
    guard let format = format as? any StreamableFormat.Type else {
      throw .unsupported(
        "'\(format.name)' cannot be written to a pipe, because its tables change while it is written"
          + " (what can be written so: \(ImageOpener.names { $0 is any StreamableFormat.Type }))")
    }
    guard options.text("preallocation") ?? "off" == "off" else {
      throw .invalid("Nothing can be preallocated in a pipe")
    }
    var request = CreateRequest(
      path: path, virtualSize: try wholeSectors(options.number("size") ?? 0), backing: backing(in: options),
      options: options, references: ReferenceOpener())
    request.secrets = secrets
    let file = try PipeStore(path)
    let layer = try format.createStream(on: file, request)
    let member = ChainMember(layer: layer, file: file, path: path, formatName: format.name)
    return ImageChain(members: [member], access: .readWrite)
  }
}
