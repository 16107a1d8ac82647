import FormatEngine

/// What `convert` and `dd` copy: disks one behind the other, or what comes out of a pipe.
enum CopySource {
  case disks([ImageChain])
  case stream(any SequentialDisk, name: String)

  static func open(
    _ names: [String], _ image: ImageArguments, cache: CacheMode = .writeback,
    sharing: Sharing = .asFormatAllows
  ) throws(VerbFailure) -> CopySource {
    var opening = OpenOptions()
    opening.cache = cache
    opening.sharing = sharing
    var disks: [ImageChain] = []
    for name in names {
      guard let stream = try image.openStream(name) else {
        disks.append(try image.open(name, opening))
        continue
      }
      guard names.count == 1 else {
        throw VerbFailure("'\(name)' is a pipe: only files are put together with other images")
      }
      return .stream(stream, name: name)
    }
    return .disks(disks)
  }

  var disks: [ImageChain] {
    if case .disks(let disks) = self { disks } else { [] }
  }

  /// Guest bytes of all together; of a pipe those that are sure to come.
  func byteCount() throws(VerbFailure) -> UInt64 {
    switch self {
    case .stream(let stream, _): return stream.certainByteCount
    case .disks(let disks):
      var byteCount: UInt64 = 0
      for disk in disks {
        let (sum, overflow) = byteCount.addingReportingOverflow(disk.virtualSize)
        guard !overflow, sum <= maximumFileOffset else {
          throw VerbFailure("The images are too large to be put together")
        }
        byteCount = sum
      }
      return byteCount
    }
  }

  /// Only the end of the pipe tells how long the disk is.
  var hasUnknownSize: Bool {
    if case .stream(let stream, _) = self { stream.virtualSize == nil } else { false }
  }

  /// Refuses to make an image that would have to get its size later, and cannot.
  func requireRoom(in format: any CreatableFormat.Type, preallocation: String?) throws(VerbFailure) {
    guard case .stream(_, let name) = self, hasUnknownSize else { return }
    let advice =
      "say it with --image-opts driver=raw,size=SIZE,file.filename=..., or save the disk as a file first"
    guard format.canGrow else {
      throw VerbFailure(
        "The size of '\(name)' is not known before its end, and '\(format.name)' images cannot grow:",
        advice)
    }
    guard preallocation ?? "off" == "off" else {
      throw VerbFailure(
        "The size of '\(name)' is not known before its end, so that nothing can be preallocated for it:",
        advice)
    }
  }

  /// What ids of a disk with this content, or a part of it, are made of. Nobody knows beforehand what a pipe holds: two
  /// disks with one id would be taken for each other, so its ids are random.
  func identities(of part: Range<UInt64>? = nil, skippingUnreadable: Bool = false) throws(VerbFailure)
    -> IdentitySource
  {
    let identities = try SourceDate.identities()
    switch self {
    case .disks(let disks):
      return try attempt { () throws(EngineError) in
        try identities.mixing(
          contentOf: disks, part: part, skippingUnreadable: skippingUnreadable)
      }
    case .stream(_, let name):
      if identities.isDerived {
        Console.warning(
          "what is made of '\(name)' will be another file each time: ids of disks from pipes are random")
      }
      return .unique
    }
  }

  func copy(to target: ImageChain, _ options: ConvertOptions, _ progress: Progress = .none)
    throws(EngineError)
  {
    switch self {
    case .disks(let disks): try Converter.convert(from: disks, to: target, options, progress: progress)
    case .stream(let stream, _):
      try Converter.convert(from: stream, to: target, options, progress: progress)
    }
  }
}

extension ImageChain {
  /// Whether a new image reads as something else than zeros where nothing was written: without tables, its bytes are those
  /// of the device, or what zeros decrypt to.
  var hasOldBytes: Bool {
    let isDevice = members[0].file.isDevice
    return top.clusterSize == 0 && (isDevice || top.cipher != nil)
  }
}
