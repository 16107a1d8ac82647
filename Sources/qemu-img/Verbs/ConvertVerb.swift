import FormatEngine
enum ConvertVerb { static let usage = ""; static func run(_ a: [String]) throws(VerbFailure) -> CInt { 1 } }
