// Before liburing asks for more than all other modules have: types of one name must be the same everywhere.
#include <features.h>
#include <liburing.h>
