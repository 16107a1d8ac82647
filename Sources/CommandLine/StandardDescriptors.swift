import Glibc

/// The descriptors 0, 1 and 2, which programs print to and read from by number.
package enum StandardDescriptors {
  /// Gives those of them that are closed to /dev/null: otherwise the next file that is opened, an image perhaps, takes
  /// their place. To be called before anything is opened.
  package static func fill() {
    var number: CInt = 0
    repeat { number = unsafe open("/dev/null", O_RDWR) } while (STDIN_FILENO...STDERR_FILENO).contains(number)
    if number > STDERR_FILENO { close(number) }
  }

  /// Lets go of a descriptor that was given by its number; it goes on being there, and gives nothing. Its number is nothing
  /// else's for as long as others may call it.
  package static func finish(_ number: CInt) {
    let nothing = unsafe open("/dev/null", O_RDWR | O_CLOEXEC)
    guard nothing >= 0, dup2(nothing, number) >= 0 else {
      close(number)
      if nothing >= 0 { close(nothing) }
      return fill()
    }
    close(nothing)
    if number > STDERR_FILENO { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
  }
}
