/// How to mount images, as a command line or a line of /etc/fstab says it.
struct MountOptions: Equatable {
  enum Access { case readOnly, readWrite }

  /// Where writes go instead of into the image.
  enum Overlay: Equatable {
    /// Kept when the tree is unmounted.
    case file(String)
    /// Thrown away then.
    case temporary
  }

  enum PassphraseSource: Equatable {
    case file(String)
    case descriptor(CInt)
  }

  /// Paths, or what `--image-opts` takes. One path may be that of a folder of images.
  var images: [String] = []
  var mountPoint = ""
  /// Nil: neither `ro` nor `rw` was said.
  var givenAccess: Access?
  /// Files may be truncated, which cuts off the end of a disk.
  var allowsShrinking = false
  var overlay: Overlay?
  /// As `-F` takes it; nil probes.
  var format: String?
  var usesImageOptions = false
  /// Id or name of the internal snapshot to mount in the image's place.
  var snapshot: String?
  var followsBacking = true
  /// Folders, besides the image's own, that hold files which images may name.
  var allowedFolders: [String] = []
  /// Mounts what another program may be changing.
  var forcesSharing = false
  /// What `--object` defines.
  var objects: [String] = []
  /// Of encrypted images that name no secret.
  var passphrase: PassphraseSource?
  /// Seconds without a request after which one of several images is closed.
  var idleSeconds: UInt32 = 10
  var isForeground = false
  var isDebugging = false
  var isSingleThreaded = false
  /// All is done but the mounting.
  var isRehearsal = false
  var pidFile: String?
  /// Only system calls that serving the tree takes are left once it is there.
  var refusesUnusualCalls = false
  /// Owner that the files show; nil: the user who mounts.
  var userID: UInt32?
  var groupID: UInt32?
  /// Permissions that files and folders do not have.
  var umask: UInt32 = 0
  /// Mount options for the kernel, as they are.
  var passedOn: [String] = []
  /// The path of a mount namespace to mount in.
  var namespace: String?

  /// Names of files and folders that are given, which may be relative to the current folder. What says several at once counts
  /// as one.
  var names: [String] {
    var names = images + [mountPoint] + allowedFolders + objects
    if let pidFile { names.append(pidFile) }
    if case .file(let path)? = overlay { names.append(path) }
    if case .file(let path)? = passphrase { names.append(path) }
    return names
  }

  var access: Access { givenAccess ?? .readOnly }

  /// Whether files can be written at all, be it into the image or into an overlay.
  var takesWrites: Bool { access == .readWrite || overlay != nil }

  /// What /proc/mounts shows as the source where nothing else is given.
  var sourceName: String { images.joined(separator: " ") }

  /// Why these options do not go together, in one sentence; nil where they do.
  var conflict: String? {
    if usesImageOptions && format != nil { return "--image-opts and --format are mutually exclusive" }
    if usesImageOptions && passphrase != nil {
      return "--image-opts names its secrets itself: give them with --object instead of --passphrase-file"
    }
    if givenAccess == .readOnly && overlay != nil {
      return "--overlay is there to be written: it cannot stand beside the mount option 'ro'"
    }
    if forcesSharing && takesWrites {
      return "What another program may be changing (--force-share) can only be mounted with 'ro'" + notWriting
    }
    if let reading = whatOnlyReads, takesWrites, overlay == nil {
      return "\(reading) can only be mounted with 'ro', or with an --overlay" + notWriting
    }
    if allowsShrinking && !takesWrites {
      return "The mount option 'shrink' needs 'rw' or --overlay beside it"
    }
    return images.count > 1 ? conflictWithSeveral : nil
  }

  /// The same for several images, be they named or found in a folder.
  var conflictWithSeveral: String? {
    if snapshot != nil { return "--snapshot takes one image" }
    if usesImageOptions { return "--image-opts takes one image" }
    if case .file? = overlay { return "--overlay FILE takes one image" }
    return nil
  }

  private var whatOnlyReads: String? {
    if snapshot != nil { return "A snapshot (--snapshot)" }
    if !followsBacking { return "An image without what lies below it (--backing none)" }
    return nil
  }

  private var notWriting: String {
    overlay == nil ? ", not 'rw' (which mount(8) adds where 'ro' is not given)" : ", without an --overlay"
  }
}
