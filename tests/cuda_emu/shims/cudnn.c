/* cuDNN without a device: create, destroy, the stream, softmax forward and backward on fp32 tensors of 4
 * dimensions. Tensor descriptors, versions and error strings are the real library's. Other functions that take a handle
 * must not be called: they would get this shim's.
 *
 * Rules. [D] the manual's pages cudnnSoftmaxForward(), cudnnSoftmaxBackward(), cudnnCreate(); [P] tried on the
 * real 9.19 here, without a device; [G] a guess on the strict side.
 *
 *   dimensions or data types of the tensors differ, algorithm or mode unknown, a NULL pointer: BAD_PARAM [D]
 *   4 and 5 dimensions, and more where packed, are supported [D]: 4 are emulated; fewer: NOT_SUPPORTED [G]
 *   in place (x == y, dy == dx) needs identical descriptors [D]; any other overlap of input and output: abort [G]
 *   out = alpha * result + beta * out; beta 0 does not read out [D, the last by BLAS's custom: G]
 *   the 4-d getter answers for a 5-d tensor without complaint [P]: dimensions are read with the n-d getter
 *   strides are whatever the caller set: outputs whose elements share memory pass the setter [P] and abort here */
#include "shim.h"

#include <cudnn.h>
#include <math.h>

#define NAME                "cudnn"
#define REFUSE(status, ...) return (shim_note(NAME, #status ": " __VA_ARGS__), CUDNN_STATUS_##status)

enum { DIMENSIONS = 4 };

struct cudnnContext {
    cudaStream_t stream;
    struct cudnnContext *next;
};

static struct cudnnContext *contexts; /* the live ones */

/* Batch, channels, height, width. */
typedef struct tensor {
    int type, size[DIMENSIONS], stride[DIMENSIONS];
} tensor;

typedef struct work {
    bool backward, log, per_instance;
    float alpha, beta;
    tensor x, y, out; /* backward: y, dy, dx */
    const float *x_data, *y_data;
    float *out_data;
} work;

static bool is_live(cudnnHandle_t handle)
{
    for (struct cudnnContext *c = contexts; c; c = c->next)
        if (c == handle) return true;
    return false;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    if (!handle) REFUSE(BAD_PARAM, "cudnnCreate: NULL");
    *handle = shim_alloc(sizeof **handle);
    **handle = (struct cudnnContext){NULL, contexts};
    contexts = *handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    for (struct cudnnContext **at = &contexts; *at; at = &(*at)->next) {
        if (*at != handle) continue;
        *at = handle->next;
        free(handle);
        return CUDNN_STATUS_SUCCESS;
    }
    REFUSE(BAD_PARAM, "cudnnDestroy: no such handle");
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    if (!is_live(handle)) REFUSE(BAD_PARAM, "cudnnSetStream: no such handle");
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *stream)
{
    if (!is_live(handle) || !stream) REFUSE(BAD_PARAM, "cudnnGetStream: no such handle, or NULL");
    *stream = handle->stream;
    return CUDNN_STATUS_SUCCESS;
}

/* --- tensors ------------------------------------------------------------------------------------------------------ */

static cudnnStatus_t read_tensor(tensor *out, cudnnTensorDescriptor_t from)
{
    cudnnDataType_t type;
    int dimensions = 0, size[CUDNN_DIM_MAX], stride[CUDNN_DIM_MAX];
    if (!from) REFUSE(BAD_PARAM, "a tensor descriptor is NULL");
    if (cudnnGetTensorNdDescriptor(from, CUDNN_DIM_MAX, &type, &dimensions, size, stride))
        REFUSE(BAD_PARAM, "a tensor descriptor is not readable");
    if (dimensions != DIMENSIONS)
        REFUSE(NOT_SUPPORTED, "a tensor of %d dimensions (not set, or not emulated)", dimensions);
    out->type = (int)type;
    for (int i = 0; i < DIMENSIONS; i++) {
        out->size[i] = size[i];
        out->stride[i] = stride[i];
        if (out->size[i] < 1) REFUSE(BAD_PARAM, "dimension %d of a tensor is %d (not set?)", i, out->size[i]);
        if (out->stride[i] < 1) REFUSE(NOT_SUPPORTED, "stride %d of a tensor is %d", i, out->stride[i]);
    }
    return CUDNN_STATUS_SUCCESS;
}

static bool same_size(const tensor *a, const tensor *b)
{
    return a->type == b->type && !memcmp(a->size, b->size, sizeof a->size);
}

/* Elements from the first to one past the last. */
static size_t span(const tensor *t)
{
    size_t last = 0;
    for (int i = 0; i < DIMENSIONS; i++) last += (size_t)(t->size[i] - 1) * (size_t)t->stride[i];
    return last + 1;
}

/* No two elements share memory: from the smallest stride on, each is at least the extent of those before. */
static bool is_disjoint(const tensor *t)
{
    size_t extent = 1;
    bool used[DIMENSIONS] = {false};
    for (int round = 0; round < DIMENSIONS; round++) {
        int least = -1;
        for (int i = 0; i < DIMENSIONS; i++)
            if (!used[i] && (least < 0 || t->stride[i] < t->stride[least])) least = i;
        used[least] = true;
        if (t->size[least] == 1) continue;
        if ((size_t)t->stride[least] < extent) return false;
        extent = (size_t)t->stride[least] * (size_t)t->size[least];
    }
    return true;
}

static size_t offset(const tensor *t, const int at[DIMENSIONS])
{
    size_t sum = 0;
    for (int i = 0; i < DIMENSIONS; i++) sum += (size_t)at[i] * (size_t)t->stride[i];
    return sum;
}

/* Tells the emulator what is read or written: runs of neighbours at once, and none of the holes between them. */
static void touch(const tensor *t, const float *data, bool write)
{
    int at[DIMENSIONS] = {0};
    size_t begin = 0, end = 0; /* the run so far */
    for (bool more = true; more;) {
        end++;
        int i = DIMENSIONS - 1; /* on to the next element */
        while (i >= 0 && ++at[i] == t->size[i]) at[i--] = 0;
        more = i >= 0;
        size_t next = offset(t, at);
        if (more && next == end) continue;
        if (write)
            cudaemu_written((void *)(data + begin), (end - begin) * sizeof(float));
        else
            cudaemu_reads(data + begin, (end - begin) * sizeof(float));
        begin = end = next;
    }
}

/* --- softmax ------------------------------------------------------------------------------------------------------ */

/* One normalised vector of `count` elements, *_at their offsets. Sums are in double: a GPU adds floats as a tree, which
 * is nearer to that than to one long chain. */
static void forward(const work *w, size_t count, const size_t *x_at, const size_t *out_at)
{
    const float *x = w->x_data;
    float largest = x[x_at[0]];
    double sum = 0;
    for (size_t i = 1; i < count; i++) largest = fmaxf(largest, x[x_at[i]]);
    for (size_t i = 0; i < count; i++) sum += expf(x[x_at[i]] - largest);
    for (size_t i = 0; i < count; i++) {
        float shifted = x[x_at[i]] - largest;
        float result = w->alpha * (w->log ? shifted - logf((float)sum) : expf(shifted) / (float)sum);
        float *out = w->out_data + out_at[i];
        *out = w->beta != 0 ? result + w->beta * *out : result;
    }
}

/* softmax: dx = y (dy - sum(dy y)); its logarithm: dx = dy - exp(y) sum(dy) */
static void backward(const work *w, size_t count, const size_t *y_at, const size_t *dy_at, const size_t *dx_at)
{
    const float *y = w->x_data, *dy = w->y_data;
    double exact = 0;
    for (size_t i = 0; i < count; i++) exact += w->log ? dy[dy_at[i]] : dy[dy_at[i]] * y[y_at[i]];
    float sum = (float)exact;
    for (size_t i = 0; i < count; i++) {
        float yi = y[y_at[i]], dyi = dy[dy_at[i]];
        float result = w->alpha * (w->log ? dyi - expf(yi) * sum : yi * (dyi - sum));
        float *out = w->out_data + dx_at[i];
        *out = w->beta != 0 ? result + w->beta * *out : result;
    }
}

static int run(void *arg)
{
    work *w = arg;
    touch(&w->x, w->x_data, false);
    if (w->backward) touch(&w->y, w->y_data, false);
    if (w->beta != 0) touch(&w->out, w->out_data, false);
    touch(&w->out, w->out_data, true); /* before the stores: it checks the range */

    /* INSTANCE: one vector per image over all the rest; CHANNEL: one per image and place, over the channels */
    const int *n = w->out.size;
    int spatial = n[2] * n[3], vectors = w->per_instance ? 1 : spatial; /* per image */
    size_t count = (size_t)n[1] * (size_t)(w->per_instance ? spatial : 1);
    size_t *where = shim_alloc(3 * count * sizeof *where);
    for (int image = 0; image < n[0]; image++)
        for (int place = 0; place < vectors; place++) {
            for (size_t i = 0; i < count; i++) {
                int channel = (int)(w->per_instance ? i / (size_t)spatial : i);
                int p = w->per_instance ? (int)(i % (size_t)spatial) : place;
                int at[DIMENSIONS] = {image, channel, p / n[3], p % n[3]};
                where[i] = offset(&w->x, at);
                where[count + i] = offset(&w->y, at);
                where[2 * count + i] = offset(&w->out, at);
            }
            if (w->backward)
                backward(w, count, where, where + count, where + 2 * count);
            else
                forward(w, count, where, where + 2 * count);
        }
    free(where);
    free(w);
    return 1;
}

static void check_overlap(const tensor *in, const float *in_data, const work *w, const char *which, bool in_place)
{
    if (in_place && in_data == w->out_data && !memcmp(in, &w->out, sizeof *in)) return;
    uintptr_t a = (uintptr_t)in_data, b = (uintptr_t)w->out_data;
    if (a < b + span(&w->out) * sizeof(float) && b < a + span(in) * sizeof(float))
        shim_misuse(NAME, "%s overlaps the output; only x and dy may be the output, by pointer and descriptor", which);
}

static cudnnStatus_t queue(cudnnHandle_t handle, cudnnSoftmaxAlgorithm_t algorithm, cudnnSoftmaxMode_t mode,
                           const void *alpha, const void *beta, work *w)
{
    if (algorithm != CUDNN_SOFTMAX_FAST && algorithm != CUDNN_SOFTMAX_ACCURATE && algorithm != CUDNN_SOFTMAX_LOG)
        REFUSE(BAD_PARAM, "softmax algorithm %d", (int)algorithm);
    if (mode != CUDNN_SOFTMAX_MODE_INSTANCE && mode != CUDNN_SOFTMAX_MODE_CHANNEL)
        REFUSE(BAD_PARAM, "softmax mode %d", (int)mode);
    if (!alpha || !beta || !w->x_data || !w->out_data || (w->backward && !w->y_data))
        REFUSE(BAD_PARAM, "softmax: a scalar or a tensor is NULL");
    if (!same_size(&w->x, &w->out) || (w->backward && !same_size(&w->y, &w->out)))
        REFUSE(BAD_PARAM, "softmax: the tensors differ in dimensions or data type");
    if (w->out.type != CUDNN_DATA_FLOAT) REFUSE(NOT_SUPPORTED, "data type %d is not emulated", w->out.type);
    if (algorithm == CUDNN_SOFTMAX_FAST) REFUSE(NOT_SUPPORTED, "CUDNN_SOFTMAX_FAST is not emulated");
    if (((uintptr_t)w->x_data | (uintptr_t)w->y_data | (uintptr_t)w->out_data) % sizeof(float))
        shim_misuse(NAME, "a tensor is not aligned to its elements");
    if (!is_disjoint(&w->out)) shim_misuse(NAME, "elements of the output share memory");
    check_overlap(&w->x, w->x_data, w, w->backward ? "y" : "x", !w->backward);
    if (w->backward) check_overlap(&w->y, w->y_data, w, "dy", true);
    memcpy(&w->alpha, alpha, sizeof w->alpha);
    memcpy(&w->beta, beta, sizeof w->beta);
    w->log = algorithm == CUDNN_SOFTMAX_LOG;
    w->per_instance = mode == CUDNN_SOFTMAX_MODE_INSTANCE;
    work *kept = shim_alloc(sizeof *kept);
    *kept = *w;
    cudaemu_enqueue(handle->stream, run, kept);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSoftmaxForward(cudnnHandle_t handle, cudnnSoftmaxAlgorithm_t algorithm, cudnnSoftmaxMode_t mode,
                                  const void *alpha, const cudnnTensorDescriptor_t x_descriptor, const void *x,
                                  const void *beta, const cudnnTensorDescriptor_t y_descriptor, void *y)
{
    if (!is_live(handle)) REFUSE(BAD_PARAM, "cudnnSoftmaxForward: no such handle");
    work w = {.x_data = x, .out_data = y};
    cudnnStatus_t status = read_tensor(&w.x, x_descriptor);
    if (!status) status = read_tensor(&w.out, y_descriptor);
    w.y = w.out;
    return status ? status : queue(handle, algorithm, mode, alpha, beta, &w);
}

cudnnStatus_t cudnnSoftmaxBackward(cudnnHandle_t handle, cudnnSoftmaxAlgorithm_t algorithm, cudnnSoftmaxMode_t mode,
                                   const void *alpha, const cudnnTensorDescriptor_t y_descriptor, const void *y,
                                   const cudnnTensorDescriptor_t dy_descriptor, const void *dy, const void *beta,
                                   const cudnnTensorDescriptor_t dx_descriptor, void *dx)
{
    if (!is_live(handle)) REFUSE(BAD_PARAM, "cudnnSoftmaxBackward: no such handle");
    work w = {.backward = true, .x_data = y, .y_data = dy, .out_data = dx};
    cudnnStatus_t status = read_tensor(&w.x, y_descriptor);
    if (!status) status = read_tensor(&w.y, dy_descriptor);
    if (!status) status = read_tensor(&w.out, dx_descriptor);
    return status ? status : queue(handle, algorithm, mode, alpha, beta, &w);
}
