import TestSupport
import Testing

/// The power fails, calls fail and calls are disturbed while qemu-img is at work: every verb that writes, on every kind
/// of image that can be written, by the real program.
@Suite struct DurabilityTests {
  @Test(arguments: OperationRow.tested)
  func whateverHappensMeanwhileLeavesSoundImages(_ row: OperationRow) throws {
    try OperationRun.with(row) { run in
      var random = SeededRandom.fromEnvironment(or: 81)
      // Each row begins elsewhere.
      for byte in row.name.utf8 where byte % 2 == 1 { _ = random.next() }
      try run.cutPower(&random)
      try run.failCalls(&random)
      try run.disturbCalls(&random)
    }
  }
}
