/// Copies the guest's bytes of one or more disks, one behind the other, into another image.
public enum Converter {
  /// Copies everything. The target must be large enough; the caller flushes it.
  public static func convert(
    from sources: [ImageChain], to target: ImageChain, _ options: ConvertOptions, progress: Progress = .none
  ) throws(EngineError) {
    let work = try ConvertWork(sources, target, options, progress)
    try work.survey()
    // One reader alone finds what cannot be read in the order of the disk.
    try WorkerPool.run(threadCount: work.salvaged == nil ? options.threadCount : 1) {
      (stop) throws(EngineError) in
      do throws(EngineError) {
        let worker = try ConvertWorker(work)
        while !stop.isSet, let segment = try work.nextSegment() {
          guard try worker.copy(segment) else { return }
          try work.finish(segment)
        }
      } catch {
        work.turns.cancel()
        throw error
      }
    }
    if let packing = work.packing { try packing.finishCompressed() }
  }
}
