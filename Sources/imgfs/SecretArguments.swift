import CommandLine
import FormatEngine

/// The passphrases that a command line gives. They are read once, before the process goes into the background.
enum SecretArguments {
  static func read(_ options: MountOptions) throws(EngineError) -> SecretStore {
    var secrets = SecretStore()
    for object in options.objects { try ObjectArguments.define(object, in: &secrets) }
    switch options.passphrase {
    case nil: break
    case .file(let path)?: secrets.unnamed = try Secret.file(path, .raw).withoutLineEnd
    case .descriptor(let number)?:
      secrets.unnamed = try Secret.descriptor(number).withoutLineEnd
      StandardDescriptors.finish(number)
    }
    return secrets
  }
}
