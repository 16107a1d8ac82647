// swift-tools-version: 6.2

import PackageDescription

/// One set of strict settings for every Swift target (Docs/STYLE.md says why each).
let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
]

/// No shared library of C++ and of the compiler: looking them up takes a sixth of the time of a short command. It helps
/// where Swift's runtime is part of the program, too (`--static-swift-stdlib`); without, libstdc++ has no part in the link.
/// Not for imgfs: libfuse ends its threads by force, for which the C library loads libgcc.
let startsFast: [LinkerSetting] = [
  .unsafeFlags(
    ["-L\(Context.packageDirectory)/scripts/lib/link", "-Xclang-linker", "-static-libgcc"],
    .when(configuration: .release))
]

let package = Package(
  name: "imgfs",
  products: [
    .library(name: "FormatEngine", targets: ["FormatEngine"]),
    .executable(name: "qemu-img", targets: ["qemu-img"]),
    .executable(name: "imgfs", targets: ["imgfs"]),
    // For tests: it is preloaded into the programs.
    .library(name: "HostCalls", type: .dynamic, targets: ["CHostCalls"]),
  ],
  targets: [
    .systemLibrary(name: "CAio", providers: [.apt(["libaio-dev"])]),
    .systemLibrary(name: "CBzip2", providers: [.apt(["libbz2-dev"])]),
    .systemLibrary(name: "CChecksum"),
    .systemLibrary(name: "CDeflate", pkgConfig: "libdeflate", providers: [.apt(["libdeflate-dev"])]),
    .systemLibrary(name: "CExpat", pkgConfig: "expat", providers: [.apt(["libexpat1-dev"])]),
    .systemLibrary(name: "CFuse", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
    .systemLibrary(name: "CGcrypt", pkgConfig: "libgcrypt", providers: [.apt(["libgcrypt20-dev"])]),
    .systemLibrary(name: "CIsal", pkgConfig: "libisal", providers: [.apt(["libisal-dev"])]),
    .systemLibrary(name: "CLinux"),
    .systemLibrary(name: "CLzma", pkgConfig: "liblzma", providers: [.apt(["liblzma-dev"])]),
    .systemLibrary(name: "CSeccomp", pkgConfig: "libseccomp", providers: [.apt(["libseccomp-dev"])]),
    .systemLibrary(name: "CUring", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),

    .target(
      name: "FormatEngine",
      dependencies: [
        "CAio", "CBzip2", "CChecksum", "CDeflate", "CExpat", "CGcrypt", "CIsal", "CLinux", "CLzma", "CUring",
        "CZlib",
        "CZstd",
      ],
      swiftSettings: strict),
    .target(name: "CommandLine", dependencies: ["CLinux", "FormatEngine"], swiftSettings: strict),
    .executableTarget(
      name: "qemu-img", dependencies: ["CommandLine", "FormatEngine"], swiftSettings: strict,
      linkerSettings: startsFast),
    .executableTarget(
      name: "imgfs", dependencies: ["CFuse", "CLinux", "CSeccomp", "CommandLine", "FormatEngine"],
      swiftSettings: strict),

    .target(
      name: "TestSupport", dependencies: ["FormatEngine"], path: "Tests/TestSupport", swiftSettings: strict),
    .target(
      name: "FuzzTargets", dependencies: ["CGcrypt", "CommandLine", "FormatEngine", "TestSupport"],
      path: "Fuzz/Targets", swiftSettings: strict),
    .target(name: "CAllocationCounter", path: "Tests/CAllocationCounter"),
    .target(name: "CHostCalls", path: "Tests/CHostCalls"),
    .testTarget(
      name: "FormatEngineTests",
      dependencies: ["CAllocationCounter", "CBzip2", "CLzma", "FormatEngine", "TestSupport"],
      swiftSettings: strict),
    .testTarget(
      name: "QemuImgTests", dependencies: ["CommandLine", "FormatEngine", "qemu-img", "TestSupport"],
      exclude: ["Golden"], swiftSettings: strict),
    .testTarget(
      name: "FuzzTests", dependencies: ["FormatEngine", "FuzzTargets", "TestSupport"], swiftSettings: strict),
    .testTarget(
      name: "ImgfsTests", dependencies: ["CommandLine", "FormatEngine", "imgfs", "TestSupport"],
      swiftSettings: strict),
  ]
)

// libFuzzer brings the main function, so that the fuzzer is only built where that is linked to it (scripts/fuzz).
if Context.environment["IMGFS_BUILDS_FUZZER"] != nil {
  package.targets.append(
    .executableTarget(
      name: "fuzzer", dependencies: ["FormatEngine", "FuzzTargets"], path: "Fuzz/Program",
      swiftSettings: strict))
}
