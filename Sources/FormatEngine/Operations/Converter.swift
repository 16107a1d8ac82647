/// Copies the guest's bytes of one or more disks, one behind the other, into another image.
public enum Converter {
  /// Copies everything. The target must be large enough; the caller flushes it.
  public static func convert(
    from sources: [ImageChain], to target: ImageChain, _ options: ConvertOptions, progress: Progress = .none
  ) throws(EngineError) {
    let source = try ConcatenatedDisks(sources, part: options.part)
    try run(ConvertWork(source, target, options, progress))
  }

  /// Copies a disk that comes out of a pipe.
  public static func convert(
    from source: any SequentialDisk, to target: ImageChain, _ options: ConvertOptions,
    progress: Progress = .none
  ) throws(EngineError) {
    let stream = StreamedSource(source, target, options)
    let work = try ConvertWork(ConcatenatedDisks([]), stream: stream, target, options, progress)
    try run(work)
  }

  private static func run(_ work: ConvertWork) throws(EngineError) {
    let options = work.options
    try work.survey()
    // One reader alone finds what cannot be read in the order of the disk.
    let threadCount = work.salvaged == nil ? min(options.threadCount, work.largestThreadCount) : 1
    try WorkerPool.run(threadCount: threadCount) {
      (stop) throws(EngineError) in
      do throws(EngineError) {
        let worker = try ConvertWorker(work)
        while !stop.isSet, let segment = try work.nextSegment(into: worker.buffer) {
          guard try worker.copy(segment) else { return }
          try work.finish(segment)
        }
      } catch {
        work.turns.cancel(because: error)
        throw error
      }
    }
    try work.stream?.finish()
    if let packing = work.packing { try packing.finishCompressed() }
  }
}
