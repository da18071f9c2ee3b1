/* Snapshots: what is copied is what was there when it was asked for, whatever is queued behind it. */
#include "support.h"

#include "fb3/observer.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { ARENAS = 3, BYTES = (20 << 20) + 12 };

typedef struct arena {
    unsigned char *memory, *host, *wanted; /* the backend's; of alloc_host; what a snapshot must hold */
} arena;

static fb3_backend *open_with(arena *arenas, int count)
{
    fb3_backend *be = device_open(device_under_test(), FB3_F32, FB3_ATTENTION_AUTO);
    for (int i = 0; i < count; i++) {
        assert_int_equal(be->ops->alloc(be, (void **)&arenas[i].memory, BYTES), FB3_OK);
        assert_int_equal(be->ops->alloc_host(be, (void **)&arenas[i].host, BYTES), FB3_OK);
        arenas[i].wanted = malloc(BYTES);
        assert_non_null(arenas[i].wanted);
    }
    return be;
}

static void close_with(fb3_backend *be, arena *arenas, int count)
{
    for (int i = 0; i < count; i++) {
        be->ops->free_host(be, arenas[i].host);
        be->ops->free(be, arenas[i].memory);
        free(arenas[i].wanted);
    }
    be->ops->free_host(be, NULL);
    fb3_backend_close(be);
}

static void fill(fb3_backend *be, arena *a, unsigned number)
{
    for (size_t i = 0; i < BYTES; i++) a->wanted[i] = (unsigned char)(i * 2654435761u >> 24 ^ number);
    assert_int_equal(be->ops->upload(be, a->memory, a->wanted, BYTES), FB3_OK);
}

static void wait_until_ready(fb3_backend *be)
{
    for (bool ready = false; !ready; sched_yield()) assert_int_equal(be->ops->snapshot_ready(be, &ready), FB3_OK);
}

/* Overwritten at once, by operations that are queued behind: the snapshot is of before. Again with the same memory. */
static void of_the_moment(void **state)
{
    (void)state;
    arena arenas[ARENAS] = {0};
    fb3_backend *be = open_with(arenas, ARENAS);
    wait_until_ready(be); /* nothing was asked for */
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < ARENAS; i++) fill(be, &arenas[i], 10 * round + i);
        for (int i = 0; i < ARENAS; i++) {
            assert_int_equal(be->ops->snapshot(be, arenas[i].host, arenas[i].memory, BYTES), FB3_OK);
            assert_int_equal(be->ops->zero(be, arenas[i].memory, BYTES), FB3_OK);
        }
        wait_until_ready(be);
        for (int i = 0; i < ARENAS; i++) assert_memory_equal(arenas[i].host, arenas[i].wanted, BYTES);
        unsigned char after[64];
        assert_int_equal(be->ops->download(be, after, arenas[0].memory + BYTES - sizeof after, sizeof after), FB3_OK);
        for (size_t b = 0; b < sizeof after; b++) assert_int_equal(after[b], 0);
    }
    close_with(be, arenas, ARENAS);
}

/* Other transfers and syncs go on in between, and are not held up by it. */
static void beside_other_transfers(void **state)
{
    (void)state;
    arena a = {0};
    fb3_backend *be = open_with(&a, 1);
    unsigned char fetched[16];
    fill(be, &a, 77);
    assert_int_equal(be->ops->snapshot(be, a.host, a.memory, BYTES), FB3_OK);
    for (int i = 0; i < 4; i++) {
        unsigned char sent[16];
        memset(sent, i, sizeof sent);
        assert_int_equal(be->ops->upload(be, a.memory + 16 * i, sent, sizeof sent), FB3_OK);
        assert_int_equal(be->ops->fetch(be, fetched, a.memory + 16 * i, sizeof fetched), FB3_OK);
        assert_int_equal(be->ops->sync(be), FB3_OK);
        assert_memory_equal(fetched, sent, sizeof sent);
    }
    wait_until_ready(be);
    assert_memory_equal(a.host, a.wanted, BYTES);
    close_with(be, &a, 1);
}

/* The parameters and their moments, before a step that changes them all. */
static void before_adamw(void **state)
{
    (void)state;
    enum { COUNT = BYTES / 4 };
    arena arenas[ARENAS] = {0};
    fb3_backend *be = open_with(arenas, ARENAS);
    const fb3_adamw_segment segment = {.count = COUNT, .lr_scale = 1.0f};
    const fb3_adamw args = {
        .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .correction1 = 0.1, .correction2 = 0.001};
    fb3_adamw_segment *segments;
    float *gradient;
    double *squares;
    assert_int_equal(be->ops->alloc(be, (void **)&segments, sizeof segment), FB3_OK);
    assert_int_equal(be->ops->alloc(be, (void **)&gradient, BYTES), FB3_OK);
    assert_int_equal(be->ops->alloc(be, (void **)&squares, sizeof *squares), FB3_OK);
    assert_int_equal(be->ops->upload(be, segments, &segment, sizeof segment), FB3_OK);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < ARENAS; i++) {
            float *values = (float *)arenas[i].wanted;
            for (int k = 0; k < COUNT; k++) values[k] = (float)(k % 1000 + 1) * (float)(round + i + 1);
            assert_int_equal(be->ops->upload(be, arenas[i].memory, values, BYTES), FB3_OK);
        }
        assert_int_equal(be->ops->upload(be, gradient, arenas[1].wanted, BYTES), FB3_OK);
        assert_int_equal(be->ops->sum_squares(be, squares, gradient, COUNT), FB3_OK);
        for (int i = 0; i < ARENAS; i++)
            assert_int_equal(be->ops->snapshot(be, arenas[i].host, arenas[i].memory, BYTES), FB3_OK);
        float *p = (float *)arenas[0].memory, *m = (float *)arenas[1].memory, *v = (float *)arenas[2].memory;
        assert_int_equal(be->ops->adamw(be, p, m, v, gradient, p, segments, &segment, 1, &args, squares), FB3_OK);
        wait_until_ready(be);
        for (int i = 0; i < ARENAS; i++) {
            float after;
            assert_memory_equal(arenas[i].host, arenas[i].wanted, BYTES);
            assert_int_equal(be->ops->download(be, &after, arenas[i].memory, sizeof after), FB3_OK);
            if (i != 1) assert_true(after != ((float *)arenas[i].wanted)[0]); /* m is what its gradient is */
        }
    }
    be->ops->free(be, segments);
    be->ops->free(be, gradient);
    be->ops->free(be, squares);
    close_with(be, arenas, ARENAS);
}

/* Parts, nothing, more at a time than there are copies kept for, and closing before they have come. */
static void odd_ones(void **state)
{
    (void)state;
    arena arenas[2] = {0};
    fb3_backend *be = open_with(arenas, 2);
    fill(be, &arenas[0], 1);
    assert_int_equal(be->ops->snapshot(be, arenas[0].host, arenas[0].memory, 0), FB3_OK);
    wait_until_ready(be);
    enum { PARTS = 7, PART = BYTES / PARTS };
    for (int i = 0; i < PARTS; i++)
        assert_int_equal(be->ops->snapshot(be, arenas[0].host + i * PART, arenas[0].memory + i * PART, PART), FB3_OK);
    assert_int_equal(be->ops->zero(be, arenas[0].memory, BYTES), FB3_OK);
    wait_until_ready(be);
    assert_memory_equal(arenas[0].host, arenas[0].wanted, (size_t)PARTS * PART);
    fill(be, &arenas[1], 2);
    assert_int_equal(be->ops->snapshot(be, arenas[1].host, arenas[1].memory, BYTES), FB3_OK);
    close_with(be, arenas, 2);
}

/* Behind --debug it is the same. */
static void checked(void **state)
{
    (void)state;
    arena a = {0};
    fb3_backend *be = open_with(&a, 1);
    assert_int_equal(fb3_backend_make_checked(be), FB3_OK);
    fill(be, &a, 5);
    assert_int_equal(be->ops->snapshot(be, a.host, a.memory, BYTES), FB3_OK);
    assert_int_equal(be->ops->zero(be, a.memory, BYTES), FB3_OK);
    wait_until_ready(be);
    assert_memory_equal(a.host, a.wanted, BYTES);
    close_with(be, &a, 1);
}

/* The memory that is kept for the next snapshots is there for whoever needs it. Asked of a small device only, because
 * all that it has is taken: CUDAEMU_MEMORY=1300000000. */
static void kept_memory_gives_way(void **state)
{
    (void)state;
    const size_t small = (size_t)2 << 30, too_small = (size_t)1200 << 20; /* there nothing is kept */
    arena arenas[ARENAS] = {0};
    fb3_backend *be = open_with(arenas, ARENAS);
    size_t left, total;
    void *rest = NULL;
    assert_int_equal(be->ops->memory_left(be, &left, &total), FB3_OK);
    if (be->ops->host_memory || total > small || total < too_small) {
        close_with(be, arenas, ARENAS);
        skip();
    }
    for (unsigned i = 0; i < ARENAS; i++) {
        fill(be, &arenas[i], i);
        assert_int_equal(be->ops->snapshot(be, arenas[i].host, arenas[i].memory, BYTES), FB3_OK);
    }
    assert_int_equal(be->ops->alloc(be, &rest, left), FB3_FAILED); /* in use */
    wait_until_ready(be);
    assert_int_equal(be->ops->alloc(be, &rest, left), FB3_OK);
    assert_int_equal(be->ops->snapshot(be, arenas[0].host, arenas[1].memory, BYTES), FB3_OK); /* without */
    assert_int_equal(be->ops->zero(be, arenas[1].memory, BYTES), FB3_OK);
    wait_until_ready(be);
    assert_memory_equal(arenas[0].host, arenas[1].wanted, BYTES);
    be->ops->free(be, rest);
    close_with(be, arenas, ARENAS);
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_the_moment), cmocka_unit_test(beside_other_transfers),
        cmocka_unit_test(odd_ones),      cmocka_unit_test(checked),
        cmocka_unit_test(before_adamw),  cmocka_unit_test(kept_memory_gives_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
