/* Softmax of the cuDNN shim against double precision, and what it refuses. */
#include "test_shims.h"

#include <cudnn.h>
#include <math.h>

static cudnnHandle_t handle;
static cudaStream_t stream;

enum { DIMENSIONS = 4, ELEMENTS = 4096 };

typedef struct shape {
    int size[DIMENSIONS], stride[DIMENSIONS];
} shape;

static cudnnTensorDescriptor_t describe(const shape *s)
{
    cudnnTensorDescriptor_t descriptor;
    MUST(cudnnCreateTensorDescriptor(&descriptor));
    MUST(cudnnSetTensorNdDescriptor(descriptor, CUDNN_DATA_FLOAT, DIMENSIONS, s->size, s->stride));
    return descriptor;
}

static int offset(const shape *s, int n, int c, int h, int w)
{
    return n * s->stride[0] + c * s->stride[1] + h * s->stride[2] + w * s->stride[3];
}

/* The offsets of the vector that holds (n, c, h, w): returns their number. */
static int vector_of(const shape *s, bool instance, int n, int h, int w, int *at)
{
    int count = 0;
    for (int c = 0; c < s->size[1]; c++)
        for (int i = 0; i < (instance ? s->size[2] : 1); i++)
            for (int j = 0; j < (instance ? s->size[3] : 1); j++)
                at[count++] = offset(s, n, c, instance ? i : h, instance ? j : w);
    return count;
}

static void expect_vector(const float *x, const float *dy, const float *before, bool backward, bool log, float alpha,
                          float beta, int count, const int *at, double *want)
{
    double largest = -INFINITY, sum = 0;
    for (int i = 0; i < count; i++) largest = fmax(largest, x[at[i]]);
    for (int i = 0; i < count; i++)
        sum += !backward ? exp(x[at[i]] - largest) : log ? dy[at[i]] : (double)dy[at[i]] * x[at[i]];
    for (int i = 0; i < count; i++) {
        double v = x[at[i]], result;
        if (!backward)
            result = log ? v - largest - log1p(sum - 1) : exp(v - largest) / sum;
        else
            result = log ? dy[at[i]] - exp(v) * sum : v * (dy[at[i]] - sum);
        want[at[i]] = alpha * result + (beta != 0 ? (double)beta * before[at[i]] : 0);
    }
}

static void one(const shape *s, bool backward, bool log, bool instance, float alpha, float beta, bool in_place)
{
    static float x[ELEMENTS], dy[ELEMENTS], out[ELEMENTS], got[ELEMENTS];
    static double want[ELEMENTS];
    static int at[ELEMENTS];
    for (int i = 0; i < ELEMENTS; i++) {
        x[i] = (float)(test_random() * (backward ? 1 : 8));
        dy[i] = (float)test_random(), out[i] = (float)test_random();
    }
    float *dx = device_copy(x, sizeof x), *ddy = device_copy(dy, sizeof dy);
    float *dout = in_place ? backward ? ddy : dx : device_copy(out, sizeof out);
    const float *before = in_place ? backward ? dy : x : out;
    for (int i = 0; i < ELEMENTS; i++) want[i] = before[i];
    for (int n = 0; n < s->size[0]; n++)
        for (int h = 0; h < (instance ? 1 : s->size[2]); h++)
            for (int w = 0; w < (instance ? 1 : s->size[3]); w++)
                expect_vector(x, dy, before, backward, log, alpha, beta, vector_of(s, instance, n, h, w, at), at, want);

    cudnnTensorDescriptor_t d = describe(s);
    cudnnSoftmaxAlgorithm_t algorithm = log ? CUDNN_SOFTMAX_LOG : CUDNN_SOFTMAX_ACCURATE;
    cudnnSoftmaxMode_t mode = instance ? CUDNN_SOFTMAX_MODE_INSTANCE : CUDNN_SOFTMAX_MODE_CHANNEL;
    if (backward)
        MUST(cudnnSoftmaxBackward(handle, algorithm, mode, &alpha, d, dx, d, ddy, &beta, d, dout));
    else
        MUST(cudnnSoftmaxForward(handle, algorithm, mode, &alpha, d, dx, &beta, d, dout));
    MUST(cudnnDestroyTensorDescriptor(d));
    MUST(cudaStreamSynchronize(stream));
    host_copy(got, dout, sizeof got);
    double worst = 0;
    for (int i = 0; i < ELEMENTS; i++) {
        double error = fabs(got[i] - want[i]) / (2e-6 + 4e-6 * fabs(want[i]));
        if (!(error <= worst)) worst = error;
    }
    CHECK(worst <= 1, "%s %s %s alpha %g beta %g %s, size %d %d %d %d: error %g times the tolerance",
          backward ? "backward" : "forward", log ? "log" : "accurate", instance ? "instance" : "channel", alpha, beta,
          in_place ? "in place" : "", s->size[0], s->size[1], s->size[2], s->size[3], worst);
    MUST(cudaFree(dx));
    MUST(cudaFree(ddy));
    if (!in_place) MUST(cudaFree(dout));
}

static void all(void)
{
    static const shape shapes[] = {
        {{1, 1, 1, 1}, {1, 1, 1, 1}},         {{5, 33, 1, 1}, {33, 1, 1, 1}}, /* rows of a matrix */
        {{5, 7, 1, 1}, {9, 1, 1, 1}},                                         /* rows with a gap */
        {{3, 4, 5, 6}, {120, 30, 6, 1}},                                      /* NCHW */
        {{3, 4, 5, 6}, {120, 1, 24, 4}},                                      /* NHWC */
        {{2, 3, 2, 130}, {800, 260, 130, 1}},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int bits = 0; bits < 64; bits++)
            one(shapes + i, bits & 1, bits & 2, bits & 4, bits & 8 ? 0.5f : 1, bits & 16 ? 0.25f : 0, bits & 32);
}

/* With beta 0 the output's old NaNs go nowhere; -inf, a masked score, gives 0. */
static void special_values(void)
{
    shape s = {{2, 3, 1, 1}, {3, 1, 1, 1}};
    float x[6] = {0, -INFINITY, 0, 1, 1, 1}, y[6], one_value = 1, zero = 0;
    float *dx = device_copy(x, sizeof x), *dy = device_copy(NULL, sizeof y);
    cudnnTensorDescriptor_t d = describe(&s);
    MUST(cudnnSoftmaxForward(handle, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one_value, d, dx, &zero, d,
                             dy));
    MUST(cudaStreamSynchronize(stream));
    host_copy(y, dy, sizeof y);
    CHECK(y[0] == 0.5f && y[1] == 0 && y[2] == 0.5f, "%g %g %g", y[0], y[1], y[2]);
    MUST(cudnnDestroyTensorDescriptor(d));
    MUST(cudaFree(dx));
    MUST(cudaFree(dy));
}

/* --- refusals and misuse ------------------------------------------------------------------------------------------ */

static cudnnStatus_t forward(int algorithm, int mode, const void *alpha, cudnnTensorDescriptor_t x, const void *x_data,
                             cudnnTensorDescriptor_t y, void *y_data)
{
    static const float zero = 0;
    return cudnnSoftmaxForward(handle, (cudnnSoftmaxAlgorithm_t)algorithm, (cudnnSoftmaxMode_t)mode, alpha, x, x_data,
                               &zero, y, y_data);
}

static void refusals(void)
{
    shape s = {{2, 3, 1, 1}, {3, 1, 1, 1}}, other = {{2, 4, 1, 1}, {4, 1, 1, 1}};
    cudnnTensorDescriptor_t d = describe(&s), e = describe(&other), half, flat, unset;
    MUST(cudnnCreateTensorDescriptor(&half));
    MUST(cudnnSetTensor4dDescriptor(half, CUDNN_TENSOR_NCHW, CUDNN_DATA_HALF, 2, 3, 1, 1));
    MUST(cudnnCreateTensorDescriptor(&flat));
    MUST(cudnnSetTensorNdDescriptor(flat, CUDNN_DATA_FLOAT, 3, (int[]){2, 3, 1}, (int[]){3, 1, 1}));
    MUST(cudnnCreateTensorDescriptor(&unset));
    float one_value = 1;
    void *x = device_copy(NULL, 64), *y = device_copy(NULL, 64);
    const int accurate = CUDNN_SOFTMAX_ACCURATE, instance = CUDNN_SOFTMAX_MODE_INSTANCE;
#define GIVES(status, ...) CHECK(forward(__VA_ARGS__) == CUDNN_STATUS_##status, "%s", #__VA_ARGS__)
    GIVES(SUCCESS, accurate, instance, &one_value, d, x, d, y);
    GIVES(BAD_PARAM, 3, instance, &one_value, d, x, d, y);
    GIVES(BAD_PARAM, accurate, 2, &one_value, d, x, d, y);
    GIVES(BAD_PARAM, accurate, instance, NULL, d, x, d, y);
    GIVES(BAD_PARAM, accurate, instance, &one_value, NULL, x, d, y);
    GIVES(BAD_PARAM, accurate, instance, &one_value, d, NULL, d, y);
    GIVES(BAD_PARAM, accurate, instance, &one_value, d, x, e, y);
    GIVES(BAD_PARAM, accurate, instance, &one_value, d, x, half, y);
    GIVES(NOT_SUPPORTED, accurate, instance, &one_value, half, x, half, y);
    GIVES(NOT_SUPPORTED, accurate, instance, &one_value, flat, x, flat, y);
    GIVES(NOT_SUPPORTED, CUDNN_SOFTMAX_FAST, instance, &one_value, d, x, d, y);
    CHECK(forward(accurate, instance, &one_value, unset, x, unset, y) != CUDNN_STATUS_SUCCESS, "descriptors not set");
    CHECK(cudnnSoftmaxBackward(handle, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one_value, d, x, e, y,
                               &one_value, d, x) == CUDNN_STATUS_BAD_PARAM,
          "dy of another size");
    cudnnHandle_t gone;
    MUST(cudnnCreate(&gone));
    MUST(cudnnDestroy(gone));
    CHECK(cudnnSetStream(gone, stream) == CUDNN_STATUS_BAD_PARAM, "stream of a destroyed handle");
    CHECK(cudnnCreate(NULL) == CUDNN_STATUS_BAD_PARAM, "create NULL");
    CHECK(cudnnGetVersion() == CUDNN_VERSION, "version %zu of the library, %d of the header", cudnnGetVersion(),
          CUDNN_VERSION);
    MUST(cudaStreamSynchronize(stream));
    cudnnTensorDescriptor_t all_descriptors[] = {d, e, half, flat, unset};
    for (int i = 0; i < 5; i++) MUST(cudnnDestroyTensorDescriptor(all_descriptors[i]));
    MUST(cudaFree(x));
    MUST(cudaFree(y));
}

static void overlapping(void)
{
    shape s = {{2, 3, 1, 1}, {3, 1, 1, 1}};
    float one_value = 1, *x = device_copy(NULL, 64);
    forward(CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one_value, describe(&s), x, describe(&s), x + 1);
}

static void in_place_other_strides(void)
{
    shape s = {{2, 3, 1, 1}, {3, 1, 1, 1}}, other = {{2, 3, 1, 1}, {4, 1, 1, 1}};
    float one_value = 1, *x = device_copy(NULL, 64);
    forward(CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one_value, describe(&s), x, describe(&other), x);
}

static void dx_is_y(void)
{
    shape s = {{2, 3, 1, 1}, {3, 1, 1, 1}};
    float one_value = 1, *y = device_copy(NULL, 64), *dy = device_copy(NULL, 64);
    cudnnTensorDescriptor_t d = describe(&s);
    cudnnSoftmaxBackward(handle, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one_value, d, y, d, dy,
                         &one_value, d, y);
}

static void shared_elements(void)
{
    shape s = {{2, 3, 1, 1}, {3, 1, 1, 1}}, folded = {{2, 3, 1, 1}, {2, 1, 1, 1}};
    float one_value = 1, *x = device_copy(NULL, 64), *y = device_copy(NULL, 64);
    forward(CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one_value, describe(&s), x, describe(&folded), y);
}

static void on_host(void)
{
    static float x[16];
    shape s = {{2, 3, 1, 1}, {3, 1, 1, 1}};
    float one_value = 1, *y = device_copy(NULL, 64);
    forward(CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one_value, describe(&s), x, describe(&s), y);
    cudaStreamSynchronize(stream);
}

static void too_large(void)
{
    shape s = {{2, 33, 1, 1}, {33, 1, 1, 1}};
    float one_value = 1, *x = device_copy(NULL, 264), *y = device_copy(NULL, 260);
    forward(CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_INSTANCE, &one_value, describe(&s), x, describe(&s), y);
    cudaStreamSynchronize(stream);
}

void test_softmax(void)
{
    MUST(cudnnCreate(&handle));
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    MUST(cudnnSetStream(handle, stream));
    all();
    special_values();
    set_quiet(true);
    refusals();
    set_quiet(false);
    expect_death("x overlaps y", overlapping, "x overlaps the output");
    expect_death("in place with other strides", in_place_other_strides, "x overlaps the output");
    expect_death("dx is y", dx_is_y, "y overlaps the output");
    expect_death("output shares elements", shared_elements, "share memory");
    expect_death("x on the host", on_host, "==cudaemu==");
    expect_death("y too small", too_large, "==cudaemu==");
    MUST(cudnnDestroy(handle));
}
