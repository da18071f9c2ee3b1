/* The table itself: opening, refusing, describing, memory, conversions; and the checked table of --debug. */
#include "support.h"
#include "cpu/cpu.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static fb3_backend *open_float(void)
{
    return device_open(device_under_test(), FB3_F32, FB3_ATTENTION_AUTO);
}

static void expect_text(const char *part)
{
    if (!strstr(fb3_error_text(), part)) fail_msg("\"%s\" does not say \"%s\"", fb3_error_text(), part);
}

static void expect_refused(fb3_backend_options options, const char *part)
{
    fb3_backend *be = NULL;
    assert_int_equal(fb3_backend_open(&be, &options), FB3_INPUT);
    assert_null(be);
    expect_text(part);
}

static void test_open_cpu(void **state)
{
    (void)state;
    fb3_backend *be = open_float();
    assert_string_equal(be->ops->name, "cpu");
    assert_true(be->ops->host_memory);
    assert_int_equal(be->layer, -1);
    char text[128], isa[16];
    fb3_backend_describe(be, text, sizeof text);
    int major, minor;
    assert_int_equal(sscanf(text, "cpu %15[a-z0-9], oneDNN %d.%d", isa, &major, &minor), 3);
    assert_true(major >= 2);
    fb3_backend_describe(be, text, 4); /* a short buffer is cut, not overrun */
    assert_string_equal(text, "cpu");
    fb3_backend_close(be);
    fb3_backend_close(NULL);
}

static void test_open_cuda(void **state)
{
    (void)state;
    const fb3_dtype types[] = {FB3_F32, FB3_BF16};
    for (int i = 0; i < 2; i++) {
        fb3_backend *be = device_open(FB3_DEVICE_CUDA, types[i], FB3_ATTENTION_AUTO);
        assert_string_equal(be->ops->name, "cuda");
        assert_false(be->ops->host_memory);
        assert_int_equal(be->act, types[i]);
        assert_int_equal(be->layer, -1);
        char text[256], cut[4];
        fb3_backend_describe(be, text, sizeof text);
        assert_true(strlen(text) > 3);
        fb3_backend_describe(be, cut, sizeof cut);
        assert_int_equal(strlen(cut), 3);
        assert_memory_equal(cut, text, 3);
        fb3_backend_close(be);
    }
}

static void test_refusals_of_the_cpu(void **state)
{
    (void)state;
    expect_refused((fb3_backend_options){.device = FB3_DEVICE_CPU, .attention_impl = FB3_ATTENTION_REFERENCE},
                   "attention_impl");
    expect_refused((fb3_backend_options){.device = FB3_DEVICE_CPU, .tf32 = true}, "tf32");
    assert_int_equal(setenv("FB3_CUDA_LIBRARY", "/nowhere/libfb3_cuda.so", 1), 0);
    expect_refused((fb3_backend_options){.device = FB3_DEVICE_CUDA}, "/nowhere/libfb3_cuda.so does not load");
    if (fb3_backend_cpu_has(FB3_BF16)) return;
    expect_refused((fb3_backend_options){.device = FB3_DEVICE_CPU, .act = FB3_BF16},
                   "needs a processor with AVX512-BF16");
}

/* Our own attention kernels work in bf16 only; nothing falls back quietly. */
static void test_refusals_of_cuda(void **state)
{
    (void)state;
    expect_refused(
        (fb3_backend_options){
            .device = FB3_DEVICE_CUDA, .act = FB3_F32, .attention_impl = FB3_ATTENTION_FUSED, .node_ranks = 1},
        "attention_impl");
}

static void test_empty_slot(void **state)
{
    (void)state;
    fb3_backend *be = open_float();
    fb3_ops broken = *be->ops;
    assert_int_equal(fb3_ops_check(&broken), FB3_OK);
    broken.adamw = NULL;
    assert_int_equal(fb3_ops_check(&broken), FB3_FAILED);
    broken = *be->ops;
    broken.linear_fwd = NULL;
    assert_int_equal(fb3_ops_check(&broken), FB3_FAILED);
    expect_text("slot");
    fb3_backend_close(be);
}

/* Bytes go up, are changed on the host at once, and come back as they were. */
static void check_round_trip(fb3_backend *be, void *memory, size_t bytes)
{
    unsigned char *sent = malloc(bytes + 1), *back = malloc(bytes + 1);
    assert_non_null(sent);
    assert_non_null(back);
    for (size_t b = 0; b < bytes; b++) sent[b] = (unsigned char)(b * 7 + b / 251);
    assert_int_equal(be->ops->upload(be, memory, sent, bytes), FB3_OK);
    memset(sent, 0x55, bytes);
    assert_int_equal(be->ops->download(be, back, memory, bytes), FB3_OK);
    for (size_t b = 0; b < bytes; b++) assert_int_equal(back[b], (unsigned char)(b * 7 + b / 251));
    assert_int_equal(be->ops->zero(be, memory, bytes), FB3_OK);
    assert_int_equal(be->ops->download(be, back, memory, bytes), FB3_OK);
    for (size_t b = 0; b < bytes; b++) assert_int_equal(back[b], 0);
    free(sent), free(back);
}

static void test_memory(void **state)
{
    (void)state;
    fb3_backend *be = open_float();
    void *memory = NULL;
    const size_t sizes[] = {0, 1, 63, 64, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(be->ops->alloc(be, &memory, sizes[i]), FB3_OK);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        check_round_trip(be, memory, sizes[i]);
        be->ops->free(be, memory);
    }
    be->ops->free(be, NULL);
    assert_int_equal(be->ops->alloc(be, &memory, SIZE_MAX), FB3_FAILED);
    assert_null(memory);
    size_t left = 0, total = 0;
    assert_int_equal(be->ops->memory_left(be, &left, &total), FB3_OK);
    assert_true(left > 0 && left <= total);
    assert_int_equal(be->ops->alloc(be, &memory, 64), FB3_OK);
    assert_int_equal(be->ops->upload(be, memory, NULL, 0), FB3_OK);
    assert_int_equal(be->ops->sync(be), FB3_OK);
    be->ops->free(be, memory);
    fb3_limits limits = {.T = 100, .B = 4, .max_len = 50, .C = 64, .H = 4, .F = 128, .R = 99, .A = 10, .Y = 6};
    assert_int_equal(be->ops->reserve(be, &limits), FB3_OK);
    assert_int_equal(be->ops->reserve(be, &(fb3_limits){0}), FB3_OK);
    fb3_backend_close(be);
}

/* Fetches are in order with what is queued before and after them, and there when sync says so. */
static void test_fetch(void **state)
{
    (void)state;
    enum { PARTS = 4, PART = FB3_FETCH_MAX / PARTS };
    fb3_backend *be = open_float();
    void *memory = NULL;
    static unsigned char sent[PART], got[PARTS][PART];
    assert_int_equal(be->ops->alloc(be, &memory, PART), FB3_OK);
    for (int round = 0; round < 3; round++) {
        for (int part = 0; part < PARTS; part++) {
            memset(sent, 10 * round + part + 1, sizeof sent);
            assert_int_equal(be->ops->upload(be, memory, sent, sizeof sent), FB3_OK);
            assert_int_equal(be->ops->fetch(be, got[part], memory, sizeof sent), FB3_OK);
        }
        assert_int_equal(be->ops->zero(be, memory, sizeof sent), FB3_OK);
        assert_int_equal(be->ops->sync(be), FB3_OK);
        for (int part = 0; part < PARTS; part++)
            for (int b = 0; b < PART; b++) assert_int_equal(got[part][b], 10 * round + part + 1);
    }
    be->ops->free(be, memory);
    fb3_backend_close(be);
}

static size_t workspace_of(const fb3_backend *be)
{
    return be->ops->host_memory ? ((const fb3_cpu_state *)be->state)->workspace_bytes : 0;
}

/* What is reserved is enough: the operations ask for no more. */
static void test_reserve_is_enough(void **state)
{
    (void)state;
    const int lengths[] = {50, 49, 1};
    enum { C = 64, H = 4 };
    layout l = layout_make(lengths, 3);
    fb3_backend *be = open_float();
    fb3_limits limits = {.T = l.ragged.T, .B = 3, .max_len = 50, .C = C, .H = H, .F = 128, .R = 99, .A = 10, .Y = 6};
    fb3_limits longer = limits;
    longer.T = longer.max_len = 100;
    assert_true(be->ops->scratch_bytes(be, &limits) > 0);
    assert_true(be->ops->scratch_bytes(be, &longer) >= be->ops->scratch_bytes(be, &limits));
    assert_int_equal(be->ops->reserve(be, &limits), FB3_OK);
    size_t reserved = workspace_of(be);
    int16_t rows[99];
    for (int r = 0; r < 99; r++) rows[r] = (int16_t)r;
    array table = array_make(99, sizeof *rows, rows);
    buffer qkv = buffer_random_act((int64_t)l.ragged.T * 3 * C), pos = buffer_random_act(99 * 2 * C);
    buffer out = buffer_random_act((int64_t)l.ragged.T * C), lse = buffer_random(H * l.ragged.T);
    buffer dqkv = buffer_output_act(qkv.n), dpos = buffer_output_act(pos.n);
    attach(be);
    fb3_attention att = {.H = H, .D = C / H, .scale = 0.1f, .bucket = (const int16_t *)device(&table) + 49, .R = 99};
    assert_int_equal(be->ops->attention_bwd(be, act(&dqkv), act(&dpos), act(&out), act(&out), f32(&lse), act(&qkv),
                                            act(&pos), &att, ragged_of(&l), &no_dropout),
                     FB3_OK);
    assert_int_equal(be->ops->sync(be), FB3_OK);
    assert_int_equal(workspace_of(be), reserved);
    detach();
    buffer *all[] = {&qkv, &pos, &out, &lse, &dqkv, &dpos};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    array_free(&table);
    layout_free(&l);
    fb3_backend_close(be);
}

typedef struct convert_case {
    buffer x, y;
    array found; // an int64
} convert_case;

static const int64_t found_before = 100; /* added to */

static fb3_status run_convert(fb3_backend *be, void *context)
{
    convert_case *c = context;
    FB3_TRY(be->ops->cast_to_act(be, act(&c->y), f32(&c->x), c->x.n));
    FB3_TRY(be->ops->count_nonfinite(be, device(&c->found), f32(&c->x), FB3_F32, c->x.n));
    return be->ops->count_nonfinite(be, device(&c->found), act(&c->y), be->act, c->x.n);
}

static void check_convert(void *context)
{
    const convert_case *c = context;
    int64_t want_found = found_before, found; /* in the floats, and in what they became */
    for (int64_t i = 0; i < c->x.n; i++) {
        float want = as_act(c->x.data[i]), got = c->y.data[i];
        if (got == 0.0f && fabsf(want) < FLT_MIN) want = copysignf(0.0f, want); /* as AVX512-BF16 takes denormals */
        assert_true(isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(want));
        want_found += !isfinite(c->x.data[i]) + !isfinite(want);
    }
    memcpy(&found, c->found.host, sizeof found);
    assert_int_equal(found, want_found);
}

static void test_conversions(void **state)
{
    (void)state;
    /* halves of bf16's last digit go to the even side; the largest floats become infinite */
    const float special[] = {NAN,         INFINITY,        -INFINITY, 0x1.01p0f, 0x1.03p0f, 0x1.010002p0f,
                             -0x1.05p0f,  FLT_MAX,         -FLT_MAX,  -0.0f,     0x1p-130f, 0x1p-149f,
                             0x1.fep127f, 0x1.fefffep127f, 0x1.ffp0f, 0x1.ffp5f, FLT_MIN,   -0x1p-133f};
    enum { SPECIAL = sizeof special / sizeof *special };
    const int64_t sizes[] = {0, 1, 17, 64, 65, 255, 40001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        convert_case c = {.x = buffer_random(sizes[i]),
                          .y = buffer_output_act(sizes[i]),
                          .found = array_make(1, sizeof found_before, &found_before)};
        for (int64_t at = sizes[i] / 40, planted = 0; at < sizes[i]; at += 3 + sizes[i] / 40, planted++)
            c.x.data[at] = special[planted % SPECIAL];
        run_case(&(op_case){
            .run = run_convert, .check = check_convert, .context = &c, .outputs = {&c.y}, .results = {&c.found}});
        buffer_free(&c.x), buffer_free(&c.y), array_free(&c.found);
    }
}

/* --- fixed point -------------------------------------------------------------------------------------------------- */

enum { FIXED_ADDS = 3 };

typedef struct fixed_case {
    buffer x[FIXED_ADDS], back;
    array sum;     // int64 [n + 1]
    int64_t *want; // [n + 1], from `before` on
    float limit;
} fixed_case;

static fb3_status run_fixed(fb3_backend *be, void *context)
{
    fixed_case *c = context;
    for (int k = 0; k < FIXED_ADDS; k++)
        FB3_TRY(be->ops->fixed_add(be, device(&c->sum), f32(&c->x[k]), c->back.n, c->limit));
    return be->ops->fixed_to_float(be, f32(&c->back), device(&c->sum), c->back.n);
}

static void check_fixed(void *context)
{
    const fixed_case *c = context;
    const int64_t n = c->back.n;
    assert_memory_equal(c->sum.host, c->want, (size_t)(n + 1) * sizeof *c->want);
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 && c->want[n] != 0)
            assert_true(isnan(c->back.data[0]));
        else
            assert_true(c->back.data[i] == (float)((double)c->want[i] / FB3_FIXED_ONE));
    }
}

/* Sums to the bit, by the scheme written out; halves go to the even side, what does not fit is counted and adds
 * nothing.
 */
static void test_fixed_point(void **state)
{
    (void)state;
    const float special[] = {0x1p-45f, 0x3p-45f, -0x1p-45f, 0x5p-45f, 0x1p-60f, 99.99999f, -99.99999f, -0.0f};
    const float beyond[] = {100.0f, -100.0f, NAN, INFINITY, -INFINITY, FLT_MAX};
    const int64_t sizes[] = {0, 1, 17, 1023, 1025, 40001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int overflows = 0; overflows < 2; overflows++) {
            const int64_t n = sizes[i];
            fixed_case c = {.back = buffer_output(n), .limit = 100.0f};
            int64_t *before = calloc((size_t)n + 1, sizeof *before);
            c.want = calloc((size_t)n + 1, sizeof *c.want);
            assert_true(before && c.want);
            for (int64_t k = 0; k < n; k++) before[k] = c.want[k] = (k % 7 - 3) * (INT64_C(1) << 50) + k;
            for (int k = 0; k < FIXED_ADDS; k++) {
                c.x[k] = buffer_random(n);
                for (int64_t at = k, planted = 0; at < n; at += 5, planted++)
                    c.x[k].data[at] = overflows && planted % 3 == 0 ? beyond[planted % 6] : special[planted % 8];
                for (int64_t at = 0; at < n; at++) {
                    const float value = c.x[k].data[at];
                    if (fabsf(value) < c.limit)
                        c.want[at] += llrint((double)value * FB3_FIXED_ONE);
                    else
                        c.want[n]++;
                }
            }
            c.sum = array_make((int)n + 1, sizeof *before, before);
            run_case(&(op_case){
                .run = run_fixed, .check = check_fixed, .context = &c, .outputs = {&c.back}, .results = {&c.sum}});
            for (int k = 0; k < FIXED_ADDS; k++) buffer_free(&c.x[k]);
            buffer_free(&c.back), array_free(&c.sum), free(before), free(c.want);
        }
}

/* What bench holds operations against. */
static void test_limits(void **state)
{
    (void)state;
    fb3_backend *be = open_float();
    double seconds = 0.0, rate = 0.0;
    assert_int_equal(be->ops->library_product(be, 65, 48, 33, &seconds), FB3_OK);
    assert_true(isfinite(seconds) && seconds > 0.0);
    if (large_cases()) {
        assert_int_equal(be->ops->memory_rate(be, &rate), FB3_OK);
        assert_true(isfinite(rate) && rate > 1e6);
    }
    fb3_backend_close(be);
}

/* --- the checked table -------------------------------------------------------------------------------------------- */

static fb3_backend *open_checked(fb3_dtype type)
{
    fb3_backend *be = device_open(device_under_test(), type, FB3_ATTENTION_AUTO);
    assert_int_equal(fb3_backend_make_checked(be), FB3_OK);
    be->layer = 3;
    be->step = 17;
    return be;
}

/* Runs a test on a checked backend of each type that the device has. */
static void on_each_type(void (*test)(fb3_backend *be))
{
    const fb3_dtype types[] = {FB3_F32, FB3_BF16};
    for (int i = 0; i < 2; i++) {
        if (!device_is_cuda() && !fb3_backend_cpu_has(types[i])) continue;
        fb3_backend *be = open_checked(types[i]);
        test(be);
        fb3_backend_close(be);
    }
}

static void expect_report(fb3_status status, const char *op, const char *output)
{
    assert_int_equal(status, FB3_FAILED);
    char start[64];
    snprintf(start, sizeof start, "%s: ", op);
    assert_memory_equal(fb3_error_text(), start, strlen(start));
    snprintf(start, sizeof start, "values of %s are not finite", output);
    expect_text(start);
    expect_text("layer 3, step 17");
}

static void test_checked_table(void **state)
{
    (void)state;
    fb3_backend *plain = open_float(), *be = open_checked(FB3_F32);
    assert_int_equal(fb3_ops_check(be->ops), FB3_OK);
    assert_string_equal(be->ops->name, plain->ops->name);
    assert_int_equal(be->ops->host_memory, plain->ops->host_memory);
    char text[256];
    fb3_backend_describe(be, text, sizeof text);
    assert_non_null(strstr(text, "checked"));
    void *memory = NULL;
    enum { FLOATS = 5001 };
    static float found[FLOATS];
    assert_int_equal(be->ops->alloc(be, &memory, sizeof found), FB3_OK);
    assert_int_equal(be->ops->download(be, found, memory, sizeof found), FB3_OK);
    for (int i = 0; i < FLOATS; i++) assert_true(isnan(found[i]));
    be->ops->free(be, memory);
    fb3_backend_close(be);
    fb3_backend_close(plain);
}

enum { T = 5, I = 8, O = 4, H = 2 };

static void checked_reports(fb3_backend *be)
{
    const int lengths[] = {T};
    layout l = layout_make(lengths, 1);
    const fb3_ops *ops = be->ops;
    buffer x = buffer_random_act(T * I), w = buffer_random_act(O * I), y = buffer_output_act(T * O);
    buffer b = buffer_random_act(O), dw = buffer_random(O * I), db = buffer_random(O), dy = buffer_random_act(T * O);
    buffer s = buffer_output_act(T * I), mean = buffer_output(T), rstd = buffer_output(T);
    buffer out = buffer_output_act(T * I), gamma = buffer_random(I), pooled = buffer_output(I);
    const fb3_limits limits = {.T = T, .B = 1, .max_len = T, .C = I, .H = 1, .F = I, .R = 1, .A = 1, .Y = 1};
    assert_int_equal(ops->reserve(be, &limits), FB3_OK);
    attach(be);
    assert_int_equal(ops->linear_fwd(be, act(&y), act(&x), act(&w), act(&b), T, I, O), FB3_OK);
    x.data[9] = NAN;
    refresh(&x);
    expect_report(ops->linear_fwd(be, act(&y), act(&x), act(&w), act(&b), T, I, O), "linear_fwd", "y");
    expect_text("4 of the 20 values"); /* the whole row of the NaN */
    expect_report(ops->linear_bwd_weight(be, f32(&dw), f32(&db), act(&dy), act(&x), T, I, O), "linear_bwd_weight",
                  "dw");
    expect_report(ops->add_layernorm_fwd(be, act(&out), act(&s), f32(&mean), f32(&rstd), act(&x), act(&x), f32(&gamma),
                                         f32(&gamma), 1e-7f, ragged_of(&l), I, &no_dropout),
                  "add_layernorm_fwd", "s");
    expect_report(ops->mean_pool_fwd(be, f32(&pooled), act(&x), ragged_of(&l), I), "mean_pool_fwd", "pooled");
    detach();
    buffer *all[] = {&x, &w, &y, &b, &dw, &db, &dy, &s, &mean, &rstd, &out, &gamma, &pooled};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    layout_free(&l);
}

static void test_checked_reports(void **state)
{
    (void)state;
    on_each_type(checked_reports);
}

enum { HEAD = 16 }; /* a size that every attention takes */

static void checked_attention(fb3_backend *be)
{
    enum { C = H * HEAD };
    const int lengths[] = {T};
    layout l = layout_make(lengths, 1);
    int16_t rows[2 * T - 1];
    for (int r = 0; r < 2 * T - 1; r++) rows[r] = (int16_t)r;
    array table = array_make(2 * T - 1, sizeof *rows, rows);
    buffer qkv = buffer_random_act(T * 3 * C), pos = buffer_random_act((2 * T - 1) * 2 * C);
    buffer out = buffer_output_act(T * C), lse = buffer_output(H * T);
    const fb3_limits limits = {.T = T, .B = 1, .max_len = T, .C = C, .H = H, .F = C, .R = 2 * T - 1, .A = 1, .Y = 1};
    assert_int_equal(be->ops->reserve(be, &limits), FB3_OK);
    attach(be);
    fb3_attention att = {
        .H = H, .D = HEAD, .scale = 0.5f, .bucket = (const int16_t *)device(&table) + T - 1, .R = 2 * T - 1};
    assert_int_equal(
        be->ops->attention_fwd(be, act(&out), f32(&lse), act(&qkv), act(&pos), &att, ragged_of(&l), &no_dropout),
        FB3_OK);
    qkv.data[0] = INFINITY;
    refresh(&qkv);
    expect_report(
        be->ops->attention_fwd(be, act(&out), f32(&lse), act(&qkv), act(&pos), &att, ragged_of(&l), &no_dropout),
        "attention_fwd", "lse");
    detach();
    buffer_free(&qkv), buffer_free(&pos), buffer_free(&out), buffer_free(&lse);
    array_free(&table);
    layout_free(&l);
}

static void test_checked_attention(void **state)
{
    (void)state;
    on_each_type(checked_attention);
}

static void test_checked_doubles_and_parameters(void **state)
{
    (void)state;
    fb3_backend *be = open_checked(FB3_F32);
    be->layer = -1;
    const double squares = 32.0;
    const fb3_adamw_segment segments[] = {{.offset = 0, .count = 16, .lr_scale = 1},
                                          {.offset = 16, .count = 16, .lr_scale = 1}};
    fb3_adamw args = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-6, .correction1 = 0.1, .correction2 = 0.001};
    buffer p = buffer_random(32), m = buffer_random(32), v = buffer_random(32), g = buffer_random(32);
    array sum = array_make(1, sizeof squares, NULL), given = array_make(1, sizeof squares, &squares);
    array copy = array_make(2, sizeof *segments, segments);
    for (int i = 0; i < 32; i++) v.data[i] = fabsf(v.data[i]);
    g.data[31] = NAN;
    attach(be);
    assert_int_equal(be->ops->sum_squares(be, device(&sum), f32(&g), 32), FB3_FAILED);
    expect_text("sum_squares: 1 of the 1 values of sum are not finite (outside the layers, step 17)");
    g.data[31] = 1.0f;
    p.data[20] = INFINITY;
    refresh(&g), refresh(&p);
    assert_int_equal(
        be->ops->adamw(be, f32(&p), f32(&m), f32(&v), f32(&g), NULL, device(&copy), segments, 2, &args, device(&given)),
        FB3_FAILED);
    expect_text("adamw: 1 of the 16 values of p are not finite");
    detach();
    buffer_free(&p), buffer_free(&m), buffer_free(&v), buffer_free(&g);
    array_free(&sum), array_free(&given), array_free(&copy);
    fb3_backend_close(be);
}

int main(void)
{
    device_or_skip();
    const struct CMUnitTest of_the_cpu[] = {
        cmocka_unit_test(test_open_cpu),
        cmocka_unit_test(test_refusals_of_the_cpu),
    };
    const struct CMUnitTest of_cuda[] = {
        cmocka_unit_test(test_open_cuda),
        cmocka_unit_test(test_refusals_of_cuda),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_slot),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_reserve_is_enough),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_fixed_point),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_checked_table),
        cmocka_unit_test(test_checked_reports),
        cmocka_unit_test(test_checked_attention),
        cmocka_unit_test(test_checked_doubles_and_parameters),
    };
    int failed =
        device_is_cuda() ? cmocka_run_group_tests(of_cuda, NULL, NULL) : cmocka_run_group_tests(of_the_cpu, NULL, NULL);
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
