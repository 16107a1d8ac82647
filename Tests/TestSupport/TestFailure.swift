/// Why a test could not go on: something that it needs is missing, or a tool did what it should not.
public struct TestFailure: Error, CustomStringConvertible, Sendable {
  public var description: String
  public init(_ description: String) { self.description = description }
}
