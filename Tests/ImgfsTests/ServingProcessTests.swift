import Glibc
import Testing

@testable import imgfs

@Suite struct ServingProcessTests {
  @Test func knowsItselfByNumberAndStart() throws {
    let own = try #require(ServingProcess(id: getpid()))
    #expect(own.isRunning)
    #expect(ServingProcess(own.description) == own)
  }

  @Test func tellsAnotherProcessWithTheSameNumber() throws {
    let own = try #require(ServingProcess(id: getpid()))
    let other = try #require(ServingProcess("\(own.id) \(own.startTime + 1)"))
    #expect(!other.isRunning)
  }

  @Test(arguments: ["", "1", "a b", "-1 5", "0 5", "1 2 3", "1 -2"])
  func refusesOtherText(_ text: String) {
    #expect(ServingProcess(text) == nil)
  }
}
