import FormatEngine
import FuzzTargets
import Glibc

// What libFuzzer calls: it brings the main function (scripts/fuzz). Which target it is about says IMGFS_FUZZ_TARGET.

/// Nil until libFuzzer has begun.
nonisolated(unsafe) private var target: FuzzTarget?

/// Without a target the names of all are printed, and that is all.
@_cdecl("LLVMFuzzerInitialize")
public func beginFuzzing(
  _ count: UnsafeMutablePointer<CInt>?,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>?
) -> CInt {
  let name = unsafe getenv("IMGFS_FUZZ_TARGET").map { unsafe String(cString: $0) } ?? ""
  unsafe target = FuzzTarget.named(name)
  guard unsafe target == nil else { return 0 }
  for target in FuzzTarget.all { print(target.name) }
  exit(name.isEmpty ? 0 : 2)
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  // SAFETY: libFuzzer gives the start and the length of its own buffer.
  let input = unsafe Array(UnsafeBufferPointer(start: start, count: count))
  do throws(FuzzFinding) { unsafe try target?.run(input) } catch {
    print("FINDING: \(error)")
    // Whoever aborts loses what it has not written yet.
    fflush(nil)
    abort()
  }
  return 0
}
