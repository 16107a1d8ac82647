/// Puts an image over another file.
public enum Rebaser {
  /// Makes `overlay` store all that it would read otherwise over `backing`; nil stands for nothing at all. On disk
  /// when it returns; the file that it records as lying below stays the same.
  public static func copyDifferences(
    into overlay: ImageChain, from backing: ImageChain?, compress: Bool = false, progress: Progress = .none
  ) throws(EngineError) {
    var options = ConvertOptions()
    options.failureWords = .given(
      reading: "error while reading from old backing file", writing: "Error while writing to COW image")
    options.compress = compress
    options.scope = .differences(from: NewBacking(backing, under: overlay))
    try Converter.convert(from: [overlay], to: overlay, options, progress: progress)
    try overlay.flush()
  }

  /// Records another backing file.
  public static func setBacking(of overlay: ImageChain, to backing: BackingReference?) throws(EngineError) {
    try changer(of: overlay).setBacking(backing)
    try overlay.close()
  }

  /// The top layer, if it can record another backing file.
  public static func changer(of overlay: ImageChain) throws(EngineError) -> any BackingChanging {
    guard overlay.isWritable, let layer = overlay.top as? any BackingChanging else {
      throw .unsupported("Operation not supported")
    }
    return layer
  }
}
