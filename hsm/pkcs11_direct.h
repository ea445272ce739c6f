#ifndef TSSD_PKCS11_DIRECT_H
#define TSSD_PKCS11_DIRECT_H

#include <stddef.h>
#include <stdint.h>

#include "cryptoki.h"

#include "_direct.cdef.h"

#endif
