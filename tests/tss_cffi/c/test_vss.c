#include "test.h"

#include "vss_impl.h"

/* On the real curve, what exhaustive.c shows in a group of 13 elements: seats are any numbers. */
static void any_shares_make_the_secret(void *unused) {
    (void)unused;
    static const uint32_t seats[] = {1, 2, 700, 65535, UINT32_MAX};
    enum { SEATS = sizeof seats / sizeof seats[0] };
    for (size_t t = 1; t <= SEATS; t++) {
        scalar f[SEATS], share[SEATS], coefficient, term, sum;
        point V[SEATS], X[SEATS], found;
        const point *refs[SEATS];
        vss_deal(f, V, t);
        scalar_set_u64(&sum, 0);
        for (size_t i = 0; i < SEATS; i++) {
            vss_evaluate(&share[i], f, t, seats[i]);
            CHECK(vss_check(&share[i], V, t, seats[i]));
            CHECK(t == 1 || !vss_check(&share[i], V, t, seats[(i + 1) % SEATS]));
            point_mul_base(&X[i], &share[i]);
            refs[i] = &X[i];
        }
        for (size_t j = 0; j < t; j++) {
            vss_lagrange(&coefficient, seats + SEATS - t, t, j, 0);
            scalar_mul(&term, &coefficient, &share[SEATS - t + j]);
            scalar_add(&sum, &sum, &term);
        }
        CHECK(scalar_equal(&sum, &f[0]) == 1);
        for (size_t at = 0; at < SEATS; at++) {
            vss_interpolate_point_var(&found, refs, seats, t, seats[at]);
            CHECK(point_equal(&found, &X[at]));
        }
    }
}

int main(void) {
    test_begin(4 << 20);
    test_secretly(any_shares_make_the_secret);
    test_end();
    return 0;
}
