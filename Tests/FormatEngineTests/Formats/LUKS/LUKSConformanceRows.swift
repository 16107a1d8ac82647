private let mebibyte = 1 << 20

extension ConformanceRow {
  /// Volumes that our engine makes, and the judge's.
  static let luks: [ConformanceRow] = [
    luksRow(
      "our LUKS, AES-XTS", mebibyte + 512, maker: .engine(options: luksOptions([:]), baseSize: nil)),
    luksRow(
      "our LUKS, AES-CBC-ESSIV", mebibyte / 2,
      maker: .engine(
        options: luksOptions(["cipher-alg": "aes-128", "cipher-mode": "cbc", "ivgen-alg": "essiv"]),
        baseSize: nil)),
    judgeLUKS,
  ]

  static let judgeLUKS: ConformanceRow = luksRow(
    "LUKS", mebibyte / 2, maker: .judge(luksRecipe(["cipher-alg=aes-128", "cipher-mode=cbc"])))

  private static func luksOptions(_ options: [String: String]) -> [String: String] {
    ["key-secret": "key", "iter-time": "1"].merging(options) { $1 }
  }

  private static let luksPassphrase = "open sesame"

  private static func luksRecipe(_ options: [String]) -> JudgeImage {
    var recipe = JudgeImage(size: mebibyte / 2, options: ["iter-time=10"] + options, cluster: 4096)
    recipe.format = "luks"
    recipe.passphrase = luksPassphrase
    return recipe
  }

  private static func luksRow(_ name: String, _ size: Int, maker: Maker) -> ConformanceRow {
    var row = ConformanceRow(name: name, format: "luks", size: size, maker: maker, isWritable: true)
    row.passphrase = luksPassphrase
    return row
  }
}
