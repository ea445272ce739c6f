#ifndef TSS_GG18_MESSAGES_IMPL_H
#define TSS_GG18_MESSAGES_IMPL_H

#include <string.h>

#include "../secret.h"
#include "messages.h"
#include "session.h"

/* protobuf wire types */
enum { WIRE_VARINT = 0, WIRE_I64 = 1, WIRE_LEN = 2, WIRE_I32 = 5 };

static const char type_url_host[] = "type.googleapis.com/";
static const char type_url_package[] = "binance.tsslib.ecdsa.";

INTERNAL span span_of(const char *text) { return (span){(const uint8_t *)text, strlen(text)}; }

INTERNAL uint64_t varint_read(reader *r) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint8_t byte = reader_u8(r);
        /* The tenth byte has room for one bit; more would be cut off silently. */
        if (shift == 63 && byte > 1) {
            r->ok = false;
        }
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            return value;
        }
    }
    r->ok = false;
    return 0;
}

INTERNAL void varint_write(writer *w, uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
        writer_u8(w, (uint8_t)(value | 0x80));
    }
    writer_u8(w, (uint8_t)value);
}

/* The next field that is a byte string; others are skipped, as protobuf asks of unknown ones. False at the end and on failure.
 * Groups are not skipped: no encoder of these messages emits them. */
INTERNAL bool field_next(reader *r, uint64_t *number, span *bytes) {
    while (r->ok && r->left.len != 0) {
        const uint64_t key = varint_read(r);
        *number = key >> 3;
        if (*number == 0 || *number > 0x1fffffff) {
            r->ok = false;
        }
        switch (key & 7) {
        case WIRE_VARINT:
            (void)varint_read(r);
            break;
        case WIRE_I64:
            (void)reader_take(r, 8);
            break;
        case WIRE_I32:
            (void)reader_take(r, 4);
            break;
        case WIRE_LEN: {
            const uint64_t len = varint_read(r);
            if (len > r->left.len) {
                r->ok = false;
            }
            *bytes = reader_take(r, r->ok ? (size_t)len : 0);
            return r->ok;
        }
        default:
            r->ok = false;
        }
    }
    return false;
}

/* google.protobuf.Any; of a field that occurs twice the last one counts */
INTERNAL bool any_read(span *type_url, span *value, span bytes) {
    reader r = reader_open(bytes);
    uint64_t number;
    span field;
    *type_url = (span){0};
    *value = (span){0};
    while (field_next(&r, &number, &field)) {
        if (number == 1) {
            *type_url = field;
        } else if (number == 2) {
            *value = field;
        }
    }
    return r.ok;
}

/* Go resolves a type by what follows the last slash, so that is what counts here too. */
INTERNAL bool type_url_names(span type_url, const char *name) {
    size_t from = type_url.len;
    while (from != 0 && type_url.at[from - 1] != '/') {
        from--;
    }
    const span package = span_of(type_url_package);
    reader r = reader_open((span){type_url.len == 0 ? NULL : type_url.at + from, type_url.len - from});
    return span_equal_var(reader_take(&r, package.len), package) && span_equal_var(r.left, span_of(name));
}

INTERNAL size_t field_count(const gg18_field *field, size_t opening) {
    return field->count == GG18_OPENING ? opening : field->count;
}

INTERNAL const char *gg18_decode(
    size_t *type, span *parts, const gg18_message *table, size_t table_len, size_t opening, span bytes) {
    span type_url;
    span value;
    if (!any_read(&type_url, &value, bytes)) {
        return "envelope: not a protobuf Any";
    }
    for (*type = 0; *type < table_len && !type_url_names(type_url, table[*type].name); (*type)++) {
    }
    if (*type == table_len) {
        return "envelope: unknown message type";
    }
    if (bytes.len > table[*type].len_max) {
        return "message: longer than its fields justify";
    }
    const gg18_field *fields = table[*type].fields;
    size_t seen[GG18_FIELDS_MAX] = {0};
    reader r = reader_open(value);
    uint64_t number;
    span element;
    while (field_next(&r, &number, &element)) {
        size_t first = 0;
        for (size_t f = 0; f < GG18_FIELDS_MAX && fields[f].number != 0; f++) {
            const size_t count = field_count(&fields[f], opening);
            if (fields[f].number == number) {
                if (!fields[f].repeated) {
                    seen[f] = 0;
                }
                if (seen[f] == count) {
                    return "message: too many elements in a list";
                }
                if (element.len > GG18_ELEMENT_MAX) {
                    return "message: integer too long";
                }
                if (parts != NULL) {
                    parts[first + seen[f]] = element;
                }
                /* An empty element counts as missing: tss-lib's ValidateBasic refuses it everywhere. */
                if (element.len == 0) {
                    return "message: empty element";
                }
                seen[f]++;
            }
            first += count;
        }
    }
    if (!r.ok) {
        return "message: not protobuf";
    }
    for (size_t f = 0; f < GG18_FIELDS_MAX && fields[f].number != 0; f++) {
        if (seen[f] != field_count(&fields[f], opening)) {
            return "message: element missing";
        }
    }
    return NULL;
}

INTERNAL void field_write(writer *w, uint8_t number, span bytes) {
    varint_write(w, (uint64_t)number << 3 | WIRE_LEN);
    varint_write(w, bytes.len);
    writer_bytes(w, bytes);
}

INTERNAL void value_write(writer *w, const gg18_message *type, size_t opening, const span *parts) {
    /* Ascending field numbers, as Go writes them; the table may have another order. */
    for (uint8_t number = 1; number < 16; number++) {
        const span *part = parts;
        for (size_t f = 0; f < GG18_FIELDS_MAX && type->fields[f].number != 0; f++) {
            const size_t count = field_count(&type->fields[f], opening);
            for (size_t i = 0; type->fields[f].number == number && i < count; i++) {
                field_write(w, number, span_minimal(part[i]));
            }
            part += count;
        }
    }
}

INTERNAL void gg18_encode(writer *w, const gg18_message *type, size_t opening, const span *parts) {
    const span url[3] = {span_of(type_url_host), span_of(type_url_package), span_of(type->name)};
    varint_write(w, 1 << 3 | WIRE_LEN);
    varint_write(w, url[0].len + url[1].len + url[2].len);
    for (size_t i = 0; i < 3; i++) {
        writer_bytes(w, url[i]);
    }
    writer value = writer_measure();
    value_write(&value, type, opening, parts);
    varint_write(w, 2 << 3 | WIRE_LEN);
    varint_write(w, value.len);
    value_write(w, type, opening, parts);
}

INTERNAL draft *draft_new(size_t parts, size_t bytes) {
    draft *d = secret_alloc(sizeof(draft) + parts * sizeof(span) + bytes);
    if (d != NULL) {
        d->ok = true;
        d->bytes = (uint8_t *)(d->parts + parts);
    }
    return d;
}

INTERNAL void draft_free(draft *d) { secret_free(d); }

INTERNAL void draft_bytes(draft *d, size_t part, span bytes) {
    /* Published: its length and value are no secret from here on. */
    DECLASSIFY(bytes.at, bytes.len);
    const span shortest = span_minimal(bytes);
    d->ok = d->ok && shortest.len != 0;
    memcpy(d->bytes + d->used, shortest.at, shortest.len);
    d->parts[part] = (span){d->bytes + d->used, shortest.len};
    d->used += shortest.len;
}

INTERNAL void draft_integer(draft *d, size_t part, big value) {
    uint8_t bytes[BIG_MAX_LIMBS * 8];
    DECLASSIFY(value.d, 8 * value.n); /* published, as all that goes into a draft */
    const bool fits = big_to_bytes(bytes, 8 * value.n, value);
    VERIFY_CHECK(fits);
    (void)fits;
    draft_bytes(d, part, (span){bytes, 8 * value.n});
}

INTERNAL void draft_scalar(draft *d, size_t part, const scalar *value) { draft_integer(d, part, scalar_big(value)); }

INTERNAL void draft_point(draft *d, size_t part, const point *value) {
    uint8_t xy64[64];
    point_xy(xy64, value);
    draft_bytes(d, part, (span){xy64, 32});
    draft_bytes(d, part + 1, (span){xy64 + 32, 32});
}

INTERNAL bool draft_send(
    const draft *d, tss_party *party, const gg18_message *table, size_t type, size_t to, size_t opening) {
    if (!d->ok) {
        return party_fail(party, TSS_REASON_INTERNAL, 0, "a value to be sent was zero");
    }
    writer measure = writer_measure();
    gg18_encode(&measure, &table[type], opening, d->parts);
    uint8_t *bytes = party_send(party, type, to, measure.len);
    if (bytes == NULL) {
        return false;
    }
    writer w = writer_open(bytes, measure.len);
    gg18_encode(&w, &table[type], opening, d->parts);
    VERIFY_CHECK(w.ok && w.len == measure.len);
    return true;
}

INTERNAL bool part_below(big r, span part, big bound) {
    return big_from_bytes(r, part.at, part.len) && big_less(r, bound) == 1;
}

INTERNAL bool part_unit(big r, span part, big m) {
    return part_below(r, part, m) && big_is_zero(r) == 0 && big_coprime_var(r, m);
}

INTERNAL bool part_scalar(scalar *r, span part) {
    BIG(value, Q_BITS);
    const bool canonical = part_below(value, part, curve_order()) && big_is_zero(value) == 0;
    scalar_set_big(r, value);
    return canonical;
}

INTERNAL bool part_point(point *r, const span *parts) {
    BIG(x, Q_BITS);
    BIG(y, Q_BITS);
    point_set_infinity(r);
    return big_from_bytes(x, parts[0].at, parts[0].len) && big_from_bytes(y, parts[1].at, parts[1].len)
        && point_set_xy(r, x, y);
}

#endif
