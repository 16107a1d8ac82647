import FormatEngine
import Glibc

/// The environment variable SOURCE_DATE_EPOCH: when everything that a command makes is made, so that two runs make the
/// same files (reproducible-builds.org). Nothing else of the environment changes what is made.
enum SourceDate {
  private static let name = "SOURCE_DATE_EPOCH"
  /// 9999-12-31 23:59:59.
  private static let latest: Int64 = 253_402_300_799

  /// Read once. Nil where it is not set.
  private static let text: String? = unsafe getenv(name).map { unsafe String(hostBytes: $0) }

  /// Where ids and dates come from that a command records. Commands that only read do not ask; those that write ask
  /// before they make or change anything. Throws where the variable is set and says nothing.
  static func identities() throws(VerbFailure) -> IdentitySource {
    guard let text else { return .unique }
    guard let seconds = seconds(text) else {
      throw VerbFailure(
        "The environment variable \(name) must be a number of seconds since 1970-01-01 00:00 UTC, from 0 to"
          + " \(latest), not '\(text)'")
    }
    return .derived(fromSeconds: seconds)
  }

  private static func seconds(_ text: String) -> Int64? {
    guard text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
      let seconds = Int64(text), seconds <= latest
    else { return nil }
    return seconds
  }
}
