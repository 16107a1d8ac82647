// bzlib.h needs stdio.h; its types are to be Glibc's, not this module's.
#pragma clang module import SwiftGlibc
#include <bzlib.h>
