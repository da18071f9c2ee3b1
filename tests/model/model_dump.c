/* model_dump BACKEND CASE.json OUT: predictions and gradients of one case of tests/model/make_goldens.py, every
 * element, for a live comparison with PyTorch (tools/pytorch-peer/compare_gradients.py).
 *
 * OUT holds one record after another: a line "name count", then count float32 in the machine's order. The first is
 * "pred"; the others are the gradients. */
#include "model/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *backend_name, *case_path, *out_path;

static void write_record(FILE *file, const char *name, const float *values, int64_t count)
{
    fprintf(file, "%s %lld\n", name, (long long)count);
    assert_int_equal(fwrite(values, sizeof *values, (size_t)count, file), count);
}

static void write_results(const fixture_replica *r, const fixture_case *c)
{
    const int64_t predictions = (int64_t)c->sequences * c->targets;
    float *pred = calloc((size_t)predictions, sizeof *pred), *grad = fixture_gradients(r);
    FILE *file = fopen(out_path, "wb");
    assert_non_null(file);
    assert_non_null(pred);
    must(fb3_deberta_predictions(r->model, pred));
    write_record(file, "pred", pred, predictions);
    for (int i = 0; i < r->table->count; i++) {
        const fb3_param *param = &r->table->param[i];
        write_record(file, param->name, grad + param->offset, param->count);
    }
    assert_int_equal(fclose(file), 0);
    free(pred);
    free(grad);
}

static void dump(void **state)
{
    (void)state;
    json_error_t error;
    fixture_case c;
    double sums[FB3_LOSS_SUMS(FB3_MAX_TARGETS)] = {0};
    json_t *json = json_load_file(case_path, 0, &error);
    if (!json) fail_msg("%s:%d: %s", case_path, error.line, error.text);
    fixture_case_read(&c, json);
    json_decref(json);
    fb3_backend *be = fixture_backend(backend_name);
    fixture_replica r = fixture_replica_make(be, &c, true);
    fb3_batch *batch = fixture_batch(&c, 0, 0, c.sequences);
    must(fb3_deberta_load(r.model, batch));
    must(fb3_deberta_forward(r.model, &c.rates, c.key, c.step));
    fixture_loss(&r, c.loss, c.beta, sums);
    must(fb3_deberta_backward(r.model, c.loss, c.beta, c.sequences, NULL));
    write_results(&r, &c);
    fixture_batch_free(batch);
    fixture_replica_free(&r);
    fixture_backend_close(be);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: model_dump naive|cpu|cpu_bf16|cuda|cuda_bf16 CASE.json OUT\n");
        return 2;
    }
    backend_name = argv[1];
    case_path = argv[2];
    out_path = argv[3];
    const struct CMUnitTest tests[] = {cmocka_unit_test(dump)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
