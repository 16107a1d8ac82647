import Foundation

/// The rows of a long table that are tested: all, or with IMGFS_TEST_ROW those that have these words in their name.
public enum ChosenRows {
  private static let part = ProcessInfo.processInfo.environment["IMGFS_TEST_ROW"]

  public static func contain(_ name: String) -> Bool { part.map { name.contains($0) } ?? true }
}
