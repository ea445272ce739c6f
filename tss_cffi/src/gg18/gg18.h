#ifndef TSS_GG18_H
#define TSS_GG18_H

#include "../protocol.h"

/* GG18 threshold ECDSA on secp256k1 in the wire formats of tss-lib v2 and v3. */
INTERNAL const protocol *gg18_protocol(tss_protocol id);

#endif
