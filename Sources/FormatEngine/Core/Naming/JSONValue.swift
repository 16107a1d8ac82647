/// A value of JSON text. Numbers stay as they were written: whoever uses one knows what it must be.
public indirect enum JSONValue: Equatable, Sendable {
  case null
  case flag(Bool)
  case number(String)
  case text(String)
  case list([JSONValue])
  case record([JSONMember])
}

/// A named value in a record.
public struct JSONMember: Equatable, Sendable {
  public var key: String
  public var value: JSONValue

  public init(_ key: String, _ value: JSONValue) {
    self.key = key
    self.value = value
  }
}
