#ifndef TSS_SEEDED_IMPL_H
#define TSS_SEEDED_IMPL_H

#include "tss_seeded.h"

void tss_seeded_randomness(const uint8_t *seed32) { random_seed(seed32); }

typedef struct seeded_call {
    const tss_secret *in;
    const tss_share *share;
    tss_secret *out;
    const char *field;
} seeded_call;

static void seeded_prepared_run(void *argument) {
    seeded_call *call = argument;
    gg18_prepared prepared;
    call->field = foreign_read_prepared(&prepared, secret_span(call->in));
    if (call->field == NULL) {
        call->out = prepared_write(&prepared, PREPARED_FIXTURE);
    }
}

static void seeded_export_run(void *argument) {
    seeded_call *call = argument;
    call->out = foreign_write(call->share->body);
}

tss_status tss_seeded_prepared(tss_secret **prepared, tss_protocol id, const tss_secret *json) {
    ARG_CHECK(prepared != NULL, "prepared");
    *prepared = NULL;
    ARG_CHECK(protocol_of(id) != NULL, "protocol");
    ARG_CHECK(json != NULL, "json");
    seeded_call call = {.in = json};
    if (!secret_call(seeded_prepared_run, &call)) {
        return TSS_MEMORY;
    }
    if (call.field != NULL) {
        return refuse(TSS_REFUSED, call.field);
    }
    *prepared = call.out;
    return call.out != NULL ? TSS_OK : TSS_MEMORY;
}

tss_status tss_seeded_export(tss_secret **json, const tss_share *share) {
    ARG_CHECK(json != NULL, "json");
    *json = NULL;
    ARG_CHECK(share != NULL, "share");
    seeded_call call = {.share = share};
    if (!secret_call(seeded_export_run, &call)) {
        return TSS_MEMORY;
    }
    *json = call.out;
    return call.out != NULL ? TSS_OK : TSS_MEMORY;
}

#endif
