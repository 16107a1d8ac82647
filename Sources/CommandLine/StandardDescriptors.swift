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

  /// Closes a descriptor for good; one of the three goes on being there, and gives nothing.
  package static func finish(_ number: CInt) {
    close(number)
    if (STDIN_FILENO...STDERR_FILENO).contains(number) { fill() }
  }
}
