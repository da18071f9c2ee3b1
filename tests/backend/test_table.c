/* The table itself: opening, refusing, describing, memory, conversions; and the checked table of --debug. */
#include "support.h"
#include "cpu/cpu.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static fb3_backend *open_cpu(void)
{
    fb3_backend *be = NULL;
    assert_int_equal(fb3_backend_open(&be, FB3_DEVICE_CPU, FB3_F32), FB3_OK);
    return be;
}

static void expect_text(const char *part)
{
    if (!strstr(fb3_error_text(), part)) fail_msg("\"%s\" does not say \"%s\"", fb3_error_text(), part);
}

static void test_open(void **state)
{
    (void)state;
    fb3_backend *be = NULL;
    assert_int_equal(fb3_backend_open(&be, FB3_DEVICE_AUTO, FB3_F32), FB3_OK);
    assert_string_equal(be->ops->name, "cpu");
    assert_true(be->ops->host_memory);
    char text[128], rest[64], isa[16];
    fb3_backend_describe(be, text, sizeof text);
    int threads, major, minor;
    assert_int_equal(sscanf(text, "cpu, %d %63[a-z], %15[a-z0-9], oneDNN %d.%d", &threads, rest, isa, &major, &minor),
                     5);
    assert_true(threads >= 1 && major >= 2);
    fb3_backend_describe(be, text, 4); /* a short buffer is cut, not overrun */
    assert_string_equal(text, "cpu");
    fb3_backend_close(be);
    fb3_backend_close(NULL);
}

static void test_refusals(void **state)
{
    (void)state;
    fb3_backend *be = NULL;
    assert_int_equal(fb3_backend_open(&be, FB3_DEVICE_CUDA, FB3_F32), FB3_INPUT);
    assert_null(be);
    expect_text("cuda is not in this build yet");
    if (fb3_backend_cpu_has(FB3_BF16)) return;
    assert_int_equal(fb3_backend_open(&be, FB3_DEVICE_CPU, FB3_BF16), FB3_INPUT);
    assert_null(be);
    expect_text("needs a processor with AVX512-BF16");
}

static void test_empty_slot(void **state)
{
    (void)state;
    fb3_backend *be = open_cpu();
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

static void test_memory(void **state)
{
    (void)state;
    fb3_backend *be = open_cpu();
    void *memory = NULL;
    const size_t sizes[] = {0, 1, 63, 64, 3 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(be->ops->alloc(be, &memory, sizes[i]), FB3_OK);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        memset(memory, 0x55, sizes[i]);
        assert_int_equal(be->ops->zero(be, memory, sizes[i]), FB3_OK);
        for (size_t b = 0; b < sizes[i]; b++) assert_int_equal(((unsigned char *)memory)[b], 0);
        be->ops->free(be, memory);
    }
    be->ops->free(be, NULL);
    assert_int_equal(be->ops->alloc(be, &memory, SIZE_MAX), FB3_FAILED);
    assert_null(memory);
    char from[5] = "abcd", to[5] = "";
    assert_int_equal(be->ops->alloc(be, &memory, sizeof from), FB3_OK);
    assert_int_equal(be->ops->upload(be, memory, from, sizeof from), FB3_OK);
    assert_int_equal(be->ops->download(be, to, memory, sizeof to), FB3_OK);
    assert_string_equal(to, "abcd");
    assert_int_equal(be->ops->upload(be, memory, NULL, 0), FB3_OK);
    assert_int_equal(be->ops->sync(be), FB3_OK);
    be->ops->free(be, memory);
    fb3_limits limits = {.T = 100, .B = 4, .max_len = 50, .C = 64, .H = 4, .F = 128, .R = 99, .A = 10, .Y = 6};
    assert_int_equal(be->ops->reserve(be, &limits), FB3_OK);
    assert_int_equal(be->ops->reserve(be, &(fb3_limits){0}), FB3_OK);
    fb3_backend_close(be);
}

/* What is reserved is enough: the operations ask for no more. */
static void test_reserve_is_enough(void **state)
{
    (void)state;
    const int lengths[] = {50, 49, 1};
    enum { C = 64, H = 4 };
    layout l = layout_make(lengths, 3);
    fb3_backend *be = open_cpu();
    fb3_limits limits = {.T = l.ragged.T, .B = 3, .max_len = 50, .C = C, .H = H, .F = 128, .R = 99, .A = 10, .Y = 6};
    assert_int_equal(be->ops->reserve(be, &limits), FB3_OK);
    size_t reserved = ((fb3_cpu_state *)be->state)->workspace_bytes;
    int16_t table[99];
    for (int r = 0; r < 99; r++) table[r] = (int16_t)r;
    fb3_attention att = {.H = H, .D = C / H, .scale = 0.1f, .bucket = table + 49, .R = 99};
    buffer qkv = buffer_random((int64_t)l.ragged.T * 3 * C), pos = buffer_random(99 * 2 * C);
    buffer out = buffer_random((int64_t)l.ragged.T * C), lse = buffer_random(H * l.ragged.T);
    buffer dqkv = buffer_output(qkv.n), dpos = buffer_output(pos.n);
    assert_int_equal(be->ops->attention_bwd(be, dqkv.data, dpos.data, out.data, out.data, lse.data, qkv.data, pos.data,
                                            &att, &l.ragged, &no_dropout),
                     FB3_OK);
    assert_int_equal(((fb3_cpu_state *)be->state)->workspace_bytes, reserved);
    buffer *all[] = {&qkv, &pos, &out, &lse, &dqkv, &dpos};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    layout_free(&l);
    fb3_backend_close(be);
}

typedef struct convert_case {
    buffer x, y;
    int64_t found;
} convert_case;

static fb3_status run_convert(fb3_backend *be, void *context)
{
    convert_case *c = context;
    c->found = 100; /* added to */
    FB3_TRY(be->ops->cast_to_act(be, act(&c->y), c->x.data, c->x.n));
    FB3_TRY(be->ops->count_nonfinite(be, &c->found, c->x.data, FB3_F32, c->x.n));
    return be->ops->count_nonfinite(be, &c->found, act(&c->y), be->act, c->x.n);
}

static void check_convert(void *context)
{
    const convert_case *c = context;
    for (int64_t i = 0; i < c->x.n; i++) {
        float want = as_act(c->x.data[i]);
        assert_true(isnan(want) ? isnan(c->y.data[i]) : c->y.data[i] == want);
    }
}

static void test_conversions(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 1, 17, 40001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        convert_case c = {.x = buffer_random(sizes[i]), .y = buffer_output_act(sizes[i])};
        int64_t planted = 0;
        for (int64_t at = 3; at < sizes[i]; at += 1000, planted++)
            c.x.data[at] = planted % 3 == 0 ? NAN : planted % 3 == 1 ? INFINITY : -INFINITY;
        run_case(&(op_case){.run = run_convert, .check = check_convert, .context = &c, .outputs = {&c.y}});
        assert_int_equal(c.found, 100 + 2 * planted); /* in the floats, and in what they became */
        buffer_free(&c.x), buffer_free(&c.y);
    }
}

/* --- the checked table
 * ------------------------------------------------------------------------------------------------ */

static fb3_backend *open_checked(void)
{
    fb3_backend *be = open_cpu();
    assert_int_equal(fb3_backend_make_checked(be), FB3_OK);
    be->layer = 3;
    be->step = 17;
    return be;
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
    fb3_backend *be = open_checked();
    assert_int_equal(fb3_ops_check(be->ops), FB3_OK);
    assert_string_equal(be->ops->name, "cpu");
    assert_true(be->ops->host_memory);
    char text[128];
    fb3_backend_describe(be, text, sizeof text);
    assert_non_null(strstr(text, "checked"));
    void *memory = NULL;
    enum { FLOATS = 5001 };
    assert_int_equal(be->ops->alloc(be, &memory, FLOATS * sizeof(float)), FB3_OK);
    for (int i = 0; i < FLOATS; i++) assert_true(isnan(((float *)memory)[i]));
    be->ops->free(be, memory);
    fb3_backend_close(be);
}

enum { T = 5, I = 8, O = 4, H = 2 };

static void test_checked_reports(void **state)
{
    (void)state;
    const int lengths[] = {T};
    layout l = layout_make(lengths, 1);
    fb3_backend *be = open_checked();
    const fb3_ops *ops = be->ops;
    buffer x = buffer_random(T * I), w = buffer_random(O * I), y = buffer_output(T * O), b = buffer_random(O);
    assert_int_equal(ops->linear_fwd(be, y.data, x.data, w.data, b.data, T, I, O), FB3_OK);
    x.data[9] = NAN;
    expect_report(ops->linear_fwd(be, y.data, x.data, w.data, b.data, T, I, O), "linear_fwd", "y");
    expect_text("4 of the 20 values"); /* the whole row of the NaN */
    buffer dw = buffer_random(O * I), db = buffer_random(O), dy = buffer_random(T * O);
    expect_report(ops->linear_bwd_weight(be, dw.data, db.data, dy.data, x.data, T, I, O), "linear_bwd_weight", "dw");
    buffer s = buffer_output(T * I), mean = buffer_output(T), rstd = buffer_output(T), out = buffer_output(T * I);
    buffer gamma = buffer_random(I);
    expect_report(ops->add_layernorm_fwd(be, out.data, s.data, mean.data, rstd.data, x.data, x.data, gamma.data,
                                         gamma.data, 1e-7f, &l.ragged, I, &no_dropout),
                  "add_layernorm_fwd", "s");
    expect_report(ops->mean_pool_fwd(be, gamma.data, x.data, &l.ragged, I), "mean_pool_fwd", "pooled");
    buffer *all[] = {&x, &w, &y, &b, &dw, &db, &dy, &s, &mean, &rstd, &out, &gamma};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
    layout_free(&l);
    fb3_backend_close(be);
}

static void test_checked_attention(void **state)
{
    (void)state;
    const int lengths[] = {T};
    layout l = layout_make(lengths, 1);
    fb3_backend *be = open_checked();
    int16_t table[2 * T - 1];
    for (int r = 0; r < 2 * T - 1; r++) table[r] = (int16_t)r;
    fb3_attention att = {.H = H, .D = I / H, .scale = 0.5f, .bucket = table + T - 1, .R = 2 * T - 1};
    buffer qkv = buffer_random(T * 3 * I), pos = buffer_random((2 * T - 1) * 2 * I), out = buffer_output(T * I);
    buffer lse = buffer_output(H * T);
    assert_int_equal(be->ops->attention_fwd(be, out.data, lse.data, qkv.data, pos.data, &att, &l.ragged, &no_dropout),
                     FB3_OK);
    qkv.data[0] = INFINITY;
    expect_report(be->ops->attention_fwd(be, out.data, lse.data, qkv.data, pos.data, &att, &l.ragged, &no_dropout),
                  "attention_fwd", "lse");
    buffer_free(&qkv), buffer_free(&pos), buffer_free(&out), buffer_free(&lse);
    layout_free(&l);
    fb3_backend_close(be);
}

static void test_checked_doubles_and_parameters(void **state)
{
    (void)state;
    fb3_backend *be = open_checked();
    be->layer = -1;
    buffer p = buffer_random(32), m = buffer_random(32), v = buffer_random(32), g = buffer_random(32);
    for (int i = 0; i < 32; i++) v.data[i] = fabsf(v.data[i]);
    double sum = 0.0;
    g.data[31] = NAN;
    assert_int_equal(be->ops->sum_squares(be, &sum, g.data, 32), FB3_FAILED);
    expect_text("sum_squares: 1 of the 1 values of sum are not finite (outside the layers, step 17)");
    g.data[31] = 1.0f;
    p.data[20] = INFINITY;
    sum = 32.0;
    fb3_adamw_segment segments[] = {{.offset = 0, .count = 16, .lr_scale = 1},
                                    {.offset = 16, .count = 16, .lr_scale = 1}};
    fb3_adamw args = {.lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-6, .correction1 = 0.1, .correction2 = 0.001};
    assert_int_equal(be->ops->adamw(be, p.data, m.data, v.data, g.data, NULL, segments, segments, 2, &args, &sum),
                     FB3_FAILED);
    expect_text("adamw: 1 of the 16 values of p are not finite");
    buffer_free(&p), buffer_free(&m), buffer_free(&v), buffer_free(&g);
    fb3_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_empty_slot),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_reserve_is_enough),
        cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_checked_table),
        cmocka_unit_test(test_checked_reports),
        cmocka_unit_test(test_checked_attention),
        cmocka_unit_test(test_checked_doubles_and_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
