/* Copies of the tests' arrays in the memory of a backend, and the runner: see support.h. */
#include "support.h"
#include "cpu/cpu.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes on each side of a copy, so that it starts 64 bytes past a boundary of 256: no more aligned than `alloc` says.
 */
enum { GUARD = 320, ALIGNMENT = 64, CPU_RUNS = 3, CUDA_RUNS = 2, MOST_OUTPUTS = 14 };
static const uint32_t sentinel = 0xFFABCDEFu;  /* a NaN nobody computes; as an index far outside */
static const uint16_t half_sentinel = 0xFFABu; /* the same in bf16 */

static uint64_t random_state = 88172645463325252ull;
static double uniform(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

/* The backend that runs, or ran last. */
static struct {
    fb3_backend *be; /* NULL: none is running */
    fb3_dtype act;
    fb3_attention_impl attention_impl;
    char name[256];
} running;

fb3_dtype act_type(void)
{
    return running.act;
}

const char *backend_name(void)
{
    return running.name;
}

bool fused_on_cuda(void)
{
    return device_is_cuda() && running.attention_impl == FB3_ATTENTION_FUSED;
}

/* To nearest, ties to even; NaN stays NaN. */
static uint16_t to_half(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x)) return 0x7FC0u;
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
static float from_half(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float as_act(float x)
{
    return running.act == FB3_BF16 ? from_half(to_half(x)) : x;
}

/* --- copies in the running backend's memory ----------------------------------------------------------------------- */

struct mirror {
    mirror *next; /* of all that live */
    void *host, *start;
    int64_t n;
    size_t element; /* bytes on the host */
    int shift;      /* elements past the boundary */
    bool is_act, written;
    /* while a backend runs */
    unsigned char *image; /* what was uploaded, sentinels included */
    void *memory;         /* the same in the backend's memory */
    char *data;           /* in it */
};
static mirror *mirrors;

static mirror *mirror_add(void *host, void *start, int64_t n, size_t element, bool is_act)
{
    mirror *m = calloc(1, sizeof *m);
    assert_non_null(m);
    *m = (mirror){.next = mirrors, .host = host, .start = start, .n = n, .element = element, .is_act = is_act};
    mirrors = m;
    return m;
}

static void mirror_remove(mirror *gone)
{
    for (mirror **at = &mirrors; *at; at = &(*at)->next) {
        if (*at != gone) continue;
        *at = gone->next;
        free(gone);
        return;
    }
}

static bool in_half(const mirror *m)
{
    return m->is_act && running.act == FB3_BF16;
}
static size_t element_of(const mirror *m)
{
    return in_half(m) ? sizeof(uint16_t) : m->element;
}
static size_t before_data(const mirror *m)
{
    return GUARD + (size_t)m->shift * element_of(m);
}
static size_t after_data(const mirror *m)
{
    return before_data(m) + (size_t)m->n * element_of(m);
}
static size_t image_bytes(const mirror *m)
{
    return after_data(m) + GUARD;
}

static void fill_image(mirror *m)
{
    const bool halves = element_of(m) % sizeof sentinel != 0;
    const size_t word = halves ? sizeof half_sentinel : sizeof sentinel;
    for (size_t at = 0; at < image_bytes(m); at += word)
        memcpy(m->image + at, halves ? (const void *)&half_sentinel : (const void *)&sentinel, word);
    unsigned char *data = m->image + before_data(m);
    if (!in_half(m)) {
        if (m->n > 0) memcpy(data, m->host, (size_t)m->n * m->element);
        return;
    }
    for (int64_t i = 0; i < m->n; i++) {
        uint16_t half = to_half(((const float *)m->host)[i]);
        memcpy(data + (size_t)i * sizeof half, &half, sizeof half);
    }
}

static void read_image(mirror *m, const unsigned char *image)
{
    const unsigned char *data = image + before_data(m);
    if (!in_half(m)) {
        if (m->n > 0) memcpy(m->host, data, (size_t)m->n * m->element);
        return;
    }
    for (int64_t i = 0; i < m->n; i++) {
        uint16_t half;
        memcpy(&half, data + (size_t)i * sizeof half, sizeof half);
        ((float *)m->host)[i] = from_half(half);
    }
}

static void must(fb3_status status)
{
    if (status != FB3_OK) fail_msg("%s", fb3_error_text());
}

static void upload(mirror *m)
{
    fill_image(m);
    must(running.be->ops->upload(running.be, m->memory, m->image, image_bytes(m)));
}

void attach(fb3_backend *be)
{
    running.be = be;
    running.act = be->act;
    for (mirror *m = mirrors; m; m = m->next) {
        m->image = malloc(image_bytes(m));
        assert_non_null(m->image);
        must(be->ops->alloc(be, &m->memory, image_bytes(m)));
        assert_int_equal((uintptr_t)m->memory % ALIGNMENT, 0);
        m->data = (char *)m->memory + before_data(m);
        upload(m);
    }
}

void refresh(const buffer *x)
{
    upload(x->mirror);
}

static void expect_untouched(const mirror *m, const unsigned char *image, size_t first, size_t end, const char *where)
{
    for (size_t at = first; at < end; at++)
        if (image[at] != m->image[at])
            fail_msg("an operation wrote %s an array of %lld elements, at byte %lld of it (%s)", where, (long long)m->n,
                     (long long)at - (long long)before_data(m), running.name);
}

/* Takes the copies away. Outputs go back to the host; the rest must be what it was, if `inputs_are_const`. */
static void take_back(bool inputs_are_const)
{
    fb3_backend *be = running.be;
    for (mirror *m = mirrors; m; m = m->next) {
        unsigned char *image = malloc(image_bytes(m));
        assert_non_null(image);
        must(be->ops->download(be, image, m->memory, image_bytes(m)));
        expect_untouched(m, image, 0, before_data(m), "before");
        expect_untouched(m, image, after_data(m), image_bytes(m), "after");
        if (m->written)
            read_image(m, image);
        else if (inputs_are_const)
            expect_untouched(m, image, before_data(m), after_data(m), "into what is no output,");
        be->ops->free(be, m->memory);
        free(image);
        free(m->image);
        m->image = NULL;
        m->memory = m->data = NULL;
    }
    running.be = NULL;
}

void detach(void)
{
    take_back(false);
}

static void *copy_of(const mirror *m)
{
    if (!m->data) fail_msg("an array is handed to an operation while no backend runs");
    return m->data;
}

float *f32(const buffer *x)
{
    assert_false(x->is_act);
    return copy_of(x->mirror);
}

void *act(const buffer *x)
{
    assert_true(x->is_act);
    return copy_of(x->mirror);
}

void *device(const array *x)
{
    return copy_of(x->mirror);
}

/* --- buffers and arrays ------------------------------------------------------------------------------------------- */

static buffer buffer_make(int64_t n, bool is_act)
{
    buffer b = {.n = n, .is_act = is_act};
    b.data = malloc((size_t)(n + 1) * sizeof(float));
    b.start = malloc((size_t)(n + 1) * sizeof(float));
    assert_non_null(b.data);
    assert_non_null(b.start);
    b.mirror = mirror_add(b.data, b.start, n, sizeof(float), is_act);
    return b;
}

static void buffer_set(buffer *b, int64_t i, float x)
{
    b->data[i] = b->start[i] = b->is_act ? from_half(to_half(x)) : x;
}

static buffer make_random(int64_t n, bool is_act)
{
    buffer b = buffer_make(n, is_act);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0; /* twelve uniforms: mean 6, variance 1 */
        for (int k = 0; k < 12; k++) sum += uniform();
        buffer_set(&b, i, (float)(sum - 6.0));
    }
    return b;
}

static buffer make_output(int64_t n, bool is_act)
{
    buffer b = buffer_make(n, is_act);
    for (int64_t i = 0; i < n; i++) buffer_set(&b, i, NAN);
    return b;
}

buffer buffer_random(int64_t n)
{
    return make_random(n, false);
}

buffer buffer_output(int64_t n)
{
    return make_output(n, false);
}

buffer buffer_random_act(int64_t n)
{
    return make_random(n, true);
}

buffer buffer_output_act(int64_t n)
{
    return make_output(n, true);
}

buffer buffer_copy(const buffer *from)
{
    buffer b = buffer_make(from->n, from->is_act);
    for (int64_t i = 0; i < from->n; i++) buffer_set(&b, i, from->data[i]);
    return b;
}

void buffer_scale(buffer *x, float a, float b)
{
    for (int64_t i = 0; i < x->n; i++) buffer_set(x, i, a * x->data[i] + b);
}

void buffer_shift(buffer *x, int elements)
{
    x->mirror->shift = elements;
}

void buffer_free(buffer *x)
{
    if (x->mirror) mirror_remove(x->mirror);
    free(x->data);
    free(x->start);
    *x = (buffer){0};
}

array array_make(int64_t n, size_t element, const void *contents)
{
    const size_t bytes = (size_t)n * element;
    array a = {.host = calloc((size_t)n + 1, element)};
    void *start = calloc((size_t)n + 1, element);
    assert_non_null(a.host);
    assert_non_null(start);
    if (contents && bytes > 0) {
        memcpy(a.host, contents, bytes);
        memcpy(start, contents, bytes);
    }
    a.mirror = mirror_add(a.host, start, n, element, false);
    return a;
}

void array_free(array *x)
{
    if (x->mirror) {
        free(x->mirror->start);
        mirror_remove(x->mirror);
    }
    free(x->host);
    *x = (array){0};
}

double *zeros(int64_t n)
{
    double *x = calloc((size_t)n + 1, sizeof *x);
    assert_non_null(x);
    return x;
}

static double *widened(const float *x, int64_t n)
{
    double *d = zeros(n);
    for (int64_t i = 0; i < n; i++) d[i] = (double)x[i];
    return d;
}

double *doubles(const buffer *x)
{
    return widened(x->data, x->n);
}

double *starts(const buffer *x)
{
    return widened(x->start, x->n);
}

/* --- the runner --------------------------------------------------------------------------------------------------- */

/* A backend under test. */
typedef struct candidate {
    fb3_device device;
    fb3_cpu_table table; /* of the CPU */
    fb3_dtype act;       /* of CUDA */
    fb3_attention_impl attention_impl;
} candidate;

/* On the CPU a table by itself. */
static fb3_backend *candidate_open(const candidate *who)
{
    if (who->device == FB3_DEVICE_CUDA) return device_open(FB3_DEVICE_CUDA, who->act, who->attention_impl);
    fb3_backend *be = calloc(1, sizeof *be);
    assert_non_null(be);
    be->layer = -1;
    must(fb3_backend_open_cpu_table(be, who->table));
    return be;
}

static void say_name(const candidate *who, const fb3_backend *be)
{
    static const char *const impls[] = {
        [FB3_ATTENTION_AUTO] = "auto", [FB3_ATTENTION_FUSED] = "fused", [FB3_ATTENTION_REFERENCE] = "reference"};
    char device_text[128];
    fb3_backend_describe(be, device_text, sizeof device_text);
    snprintf(running.name, sizeof running.name, "%s, %s, attention %s", device_text,
             be->act == FB3_BF16 ? "bf16" : "float", impls[who->attention_impl]);
}

/* The outputs of a case's first run. */
typedef struct outcome {
    mirror *output[MOST_OUTPUTS];
    void *bits[MOST_OUTPUTS];
    int count;
} outcome;

static void mark_outputs(const op_case *c, outcome *o)
{
    for (int i = 0; c->outputs[i]; i++) o->output[o->count++] = c->outputs[i]->mirror;
    for (int i = 0; c->results[i]; i++) o->output[o->count++] = c->results[i]->mirror;
    for (int i = 0; i < o->count; i++) o->output[i]->written = true;
}

static size_t host_bytes(const mirror *m)
{
    return (size_t)m->n * m->element;
}

static void set_back(const outcome *o)
{
    for (int i = 0; i < o->count; i++)
        if (o->output[i]->n > 0) memcpy(o->output[i]->host, o->output[i]->start, host_bytes(o->output[i]));
}

static void keep_or_compare(outcome *o, int run)
{
    for (int i = 0; i < o->count; i++) {
        const mirror *m = o->output[i];
        if (run == 0) {
            o->bits[i] = malloc(host_bytes(m) + 1);
            assert_non_null(o->bits[i]);
            memcpy(o->bits[i], m->host, host_bytes(m));
        } else if (memcmp(o->bits[i], m->host, host_bytes(m)) != 0) {
            fail_msg("output %d has other bits in run %d than in the first (%s)", i, run + 1, running.name);
        }
    }
}

static void outcome_free(outcome *o)
{
    for (int i = 0; i < o->count; i++) {
        o->output[i]->written = false;
        free(o->bits[i]);
    }
}

/* On the host the workspace grows by what operations ask for, so that AddressSanitizer sees who goes past it. */
static void reserve(fb3_backend *be, const op_case *c)
{
    if (!be->ops->host_memory) must(be->ops->reserve(be, &c->limits));
}

/* False when the case was refused, as it had to be. */
static bool run_once(const op_case *c, fb3_backend *be)
{
    reserve(be, c);
    attach(be);
    const char *refusal = c->refusal ? c->refusal(c->context) : NULL;
    fb3_status status = c->run(be, c->context);
    if (refusal) {
        if (status != FB3_INPUT) fail_msg("not refused: status %d (%s)", (int)status, running.name);
        if (!strstr(fb3_error_text(), refusal))
            fail_msg("refused by \"%s\", which does not say \"%s\" (%s)", fb3_error_text(), refusal, running.name);
    } else if (status != FB3_OK) {
        fail_msg("%s (%s)", fb3_error_text(), running.name);
    }
    must(be->ops->sync(be));
    take_back(true);
    return refusal == NULL;
}

static void run_candidate(const op_case *c, const candidate *who)
{
    const bool cuda = who->device == FB3_DEVICE_CUDA;
    fb3_backend *be = NULL;
    outcome o = {0};
    mark_outputs(c, &o);
    running.attention_impl = who->attention_impl;
    for (int run = 0; run < (cuda ? CUDA_RUNS : CPU_RUNS); run++) {
        if (!cuda) omp_set_num_threads(run + 1);
        if (!be) be = candidate_open(who);
        say_name(who, be);
        set_back(&o);
        bool done = run_once(c, be);
        if (!cuda) {
            fb3_backend_close(be); /* every number of threads on a fresh one */
            be = NULL;
            assert_int_equal(omp_get_max_threads(), run + 1);
        }
        if (!done) break;
        keep_or_compare(&o, run);
        if (run == 0 && c->check) c->check(c->context);
    }
    fb3_backend_close(be);
    outcome_free(&o);
}

static void run_on_cuda(const op_case *c)
{
    static const candidate all[] = {
        {FB3_DEVICE_CUDA, 0, FB3_F32, FB3_ATTENTION_REFERENCE},
        {FB3_DEVICE_CUDA, 0, FB3_BF16, FB3_ATTENTION_FUSED},
        {FB3_DEVICE_CUDA, 0, FB3_BF16, FB3_ATTENTION_REFERENCE},
    };
    const size_t count = sizeof all / sizeof *all - (c->attention ? 0 : 1);
    for (size_t i = 0; i < count; i++) run_candidate(c, &all[i]);
}

void run_case(const op_case *c)
{
    if (device_is_cuda()) {
        run_on_cuda(c);
        return;
    }
    for (fb3_cpu_table table = FB3_CPU_BASELINE; table < FB3_CPU_TABLES; table++)
        if (fb3_cpu_has_table(table))
            run_candidate(
                c, &(candidate){.device = FB3_DEVICE_CPU, .table = table, .attention_impl = FB3_ATTENTION_FUSED});
}
