/* Conversions, and reading files that torch.save and safetensors wrote (tests/io/make_goldens.py). */
#include "io_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- half and bfloat16 -------------------------------------------------------------------------------------------- */

/* The value of a half by the definition of the format. */
static double half_by_definition(unsigned h)
{
    unsigned exponent = h >> 10 & 31, fraction = h & 1023;
    double sign = h >> 15 ? -1 : 1;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, -24);
    return sign * ldexp(1024 + fraction, (int)exponent - 25);
}

static void half_to_float_is_the_definition(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x10000; h++) {
        double wanted = half_by_definition(h);
        float got = fb3_half_to_float((uint16_t)h);
        if (isnan(wanted)) {
            assert_true(isnan(got));
            assert_true(isnan(fb3_half_to_float(fb3_float_to_half(got))));
        } else {
            assert_true(got == (float)wanted && !signbit(got) == !signbit(wanted));
            assert_int_equal(fb3_float_to_half(got), h);
        }
    }
}

/* Nearest, ties to the even one, by search among the neighbours. `x` not NaN. */
static unsigned nearest_half(double x)
{
    unsigned sign = signbit(x) ? 0x8000 : 0, low = 0, high = 0x7c00;
    double magnitude = fabs(x);
    if (magnitude >= 65520) return sign | 0x7c00; /* half a step above the largest */
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (half_by_definition(middle) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    double below = magnitude - half_by_definition(low);
    double above = (high == 0x7c00 ? 65536 : half_by_definition(high)) - magnitude;
    if (below == above) return sign | (low & 1 ? high : low);
    return sign | (below < above ? low : high);
}

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void float_to_half_rounds_to_nearest_even(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (unsigned h = 0; h < 0x7c00; h++) {
        /* every midpoint between two halves, and the floats beside it */
        double middle = (half_by_definition(h) + (h == 0x7bff ? 65536 : half_by_definition(h + 1))) / 2;
        float tie = (float)middle;
        assert_true(tie == middle);
        const float around[] = {nextafterf(tie, 0), tie, nextafterf(tie, INFINITY)};
        for (int i = 0; i < 3; i++) {
            assert_int_equal(fb3_float_to_half(around[i]), nearest_half((double)around[i]));
            assert_int_equal(fb3_float_to_half(-around[i]), nearest_half((double)-around[i]));
        }
    }
    for (int i = 0; i < 200000; i++) {
        float x = float_of_bits((uint32_t)next_random(&random));
        if (!isnan(x)) assert_int_equal(fb3_float_to_half(x), nearest_half((double)x));
    }
}

static void float_to_bfloat16_rounds_to_nearest_even(void **state)
{
    (void)state;
    uint64_t random = 2;
    for (int i = 0; i < 200000; i++) {
        uint32_t bits = (uint32_t)next_random(&random);
        if (i % 4 == 0) bits = (bits & 0xffff0000u) | 0x8000u; /* ties */
        float x = float_of_bits(bits);
        uint16_t got = fb3_float_to_bfloat16(x);
        if (isnan(x)) {
            assert_true(isnan(fb3_bfloat16_to_float(got)));
            continue;
        }
        uint32_t below = bits & 0xffff0000u, rest = bits & 0xffffu;
        bool up = rest > 0x8000u || (rest == 0x8000u && (below >> 16 & 1));
        assert_int_equal(got, (below >> 16) + up);
    }
    assert_true(isinf(fb3_bfloat16_to_float(fb3_float_to_bfloat16(INFINITY))));
    assert_true(isnan(fb3_bfloat16_to_float(fb3_float_to_bfloat16(float_of_bits(0x7f800001u)))));
}

/* --- lists of tensors --------------------------------------------------------------------------------------------- */

static const fb3_tensor *find(const fb3_tensor_file *file, const char *name)
{
    const fb3_tensor *tensor = fb3_tensor_file_find(file, name);
    if (!tensor) fail_msg("there is no %s", name);
    return tensor;
}

static void odd_safetensors(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    float values[4];
    assert_ok(fb3_safetensors_open(&file, golden_path("odd.safetensors")));
    assert_int_equal(file->count, 5);
    const fb3_tensor *real = find(file, "real"), *scalar = find(file, "scalar"), *empty = find(file, "empty");
    assert_int_equal(real->dtype, FB3_FILE_F64);
    assert_ok(fb3_tensor_read(file, real, 0, 2, values));
    assert_true(values[0] == 0.1f && values[1] == 0.0f);
    assert_int_equal(scalar->dims, 0);
    assert_int_equal(scalar->elements, 1);
    assert_ok(fb3_tensor_read(file, scalar, 0, 1, values));
    assert_true(values[0] == 2.5f);
    assert_int_equal(empty->elements, 0);
    assert_ok(fb3_tensor_read(file, empty, 0, 0, values));
    assert_int_equal(find(file, "integers")->dtype, FB3_FILE_I64);
    assert_int_equal(find(file, "bits")->dtype, FB3_FILE_OTHER);
    assert_refused(fb3_tensor_read(file, find(file, "integers"), 0, 3, values), "not a tensor of floating point");
    assert_refused(fb3_tensor_read(file, real, 1, 2, values), "2 from 1 are needed");
    assert_null(fb3_tensor_file_find(file, "absent"));
    assert_ok(fb3_tensor_file_verify(file));
    fb3_tensor_file_close(file);
}

static void odd_torch_file(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    float values[6];
    assert_ok(fb3_torch_zip_open(&file, golden_path("odd.bin")));
    assert_int_equal(file->count, 5);
    assert_ok(fb3_tensor_file_verify(file));
    const fb3_tensor *transposed = find(file, "transposed"), *offset = find(file, "offset");
    assert_int_equal(transposed->shape[0], 3);
    assert_int_equal(transposed->stride[0], 1);
    assert_int_equal(transposed->stride[1], 3);
    assert_refused(fb3_tensor_read(file, transposed, 0, 6, values), "transposed in");
    assert_refused(fb3_tensor_read(file, transposed, 0, 6, values), "not contiguous");
    /* the second row of the same storage */
    assert_int_equal(offset->file_offset, transposed->file_offset + 3 * (int64_t)sizeof(float));
    assert_ok(fb3_tensor_read(file, offset, 0, 3, values));
    assert_true(values[0] == 3 && values[1] == 4 && values[2] == 5);
    assert_ok(fb3_tensor_read(file, find(file, "scalar"), 0, 1, values));
    assert_true(values[0] == 2.5f);
    assert_int_equal(find(file, "empty")->elements, 0);
    fb3_tensor_file_close(file);
}

static void torch_files_that_are_refused(void **state)
{
    (void)state;
    fb3_tensor_file *file;
    assert_refused(fb3_torch_zip_open(&file, golden_path("legacy.bin")), "before version 1.6; convert it with");
    assert_refused(fb3_torch_zip_open(&file, golden_path("ambiguous.bin")), "more than one state dict");
    assert_refused(fb3_torch_zip_open(&file, golden_path("numpy.bin")), "the pickle asks for numpy");
    assert_refused(fb3_torch_zip_open(&file, golden_path("absent.bin")), "cannot open");
    assert_refused(fb3_torch_zip_open(&file, golden_path(".")), "not a regular file");
    assert_refused(fb3_torch_zip_open(&file, golden_path("odd.safetensors")), "not a file of torch.save");
    assert_refused(fb3_safetensors_open(&file, golden_path("odd.bin")), "not safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_to_float_is_the_definition),
        cmocka_unit_test(float_to_half_rounds_to_nearest_even),
        cmocka_unit_test(float_to_bfloat16_rounds_to_nearest_even),
        cmocka_unit_test(odd_safetensors),
        cmocka_unit_test(odd_torch_file),
        cmocka_unit_test(torch_files_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, clear_scratch);
}
