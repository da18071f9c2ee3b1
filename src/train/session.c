/* What every distributed verb starts with: MPI, cores, and the certainty that all ranks mean the same. Its device is
 * chosen in device.c. */
#include "fb3/file.h"
#include "fb3/log.h"
#include "fb3/train.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static fb3_status check_same_configuration(fb3_session *session)
{
    char hex[FB3_SHA256_HEX];
    char *text = fb3_config_text(session->config);
    FB3_REQUIRE(text, FB3_FAILED, "out of memory");
    fb3_status status = fb3_sha256_memory(text, strlen(text), hex);
    free(text);
    FB3_TRY(status);
    return fb3_comm_check_same(session->comm, hex, "configuration");
}

/* Programs that were built apart may differ in the order of their sums, or in what they write. */
static fb3_status check_same_program(fb3_session *session)
{
    char hex[FB3_SHA256_HEX];
    if (session->size == 1) return FB3_OK;
    fb3_status status = fb3_sha256_file("/proc/self/exe", hex);
    FB3_TRY(fb3_comm_agree(session->comm, status, "reading the program"));
    return fb3_comm_check_same(session->comm, hex, "program");
}

static void use_comm(fb3_session *session, fb3_comm *comm)
{
    session->comm = comm;
    session->rank = fb3_comm_rank(comm);
    session->size = fb3_comm_size(comm);
    session->root = fb3_comm_root(comm);
}

fb3_status fb3_session_open(fb3_session *session, fb3_config *config)
{
    *session = (fb3_session){.config = config};
    FB3_TRY(fb3_comm_start(&session->world, true, config->ddp_timeout));
    session->first = fb3_comm_root(session->world);
    use_comm(session, session->world);
    FB3_REQUIRE(!config->debug || session->size == 1, FB3_INPUT,
                "--debug is the single-device mode; start it without mpirun, or with -np 1");
    FB3_TRY(fb3_comm_bind(session->comm, config->bind == FB3_BIND_KEEP));
    FB3_TRY(check_same_program(session));
    FB3_TRY(check_same_configuration(session));
    return fb3_worker_start(&session->io, "io");
}

fb3_status fb3_session_token(fb3_session *session, uint64_t *token)
{
    fb3_status mine = !session->root || getentropy(token, sizeof *token) == 0
                          ? FB3_OK
                          : fb3_fail(FB3_FAILED, "cannot draw a random number: %s", strerror(errno));
    FB3_TRY(fb3_comm_agree(session->comm, mine, "drawing a name"));
    return fb3_comm_broadcast(session->comm, token, sizeof *token, 0, "a name");
}

static void close_devices(fb3_session *session)
{
    if (session->reducer) session->reducer->ops->destroy(session->reducer);
    fb3_backend_close(session->backend);
    free(session->ranks);
    session->reducer = NULL;
    session->backend = NULL;
    session->ranks = NULL;
    if (session->comm != session->world) fb3_comm_leave(session->comm);
}

fb3_status fb3_session_end_run(fb3_session *session)
{
    close_devices(session);
    use_comm(session, session->world);
    return fb3_comm_forget_memory(session->world);
}

void fb3_session_close(fb3_session *session)
{
    fb3_worker_stop(session->io);
    close_devices(session);
    fb3_comm_finish(session->world);
    *session = (fb3_session){0};
}

fb3_status fb3_session_join(fb3_session *session, int number, int groups)
{
    fb3_comm *group;
    if (groups == 1) return FB3_OK;
    FB3_TRY(fb3_comm_join(session->world, number, groups, &group));
    use_comm(session, group);
    if (session->root && !session->first) fb3_log_group(number);
    return FB3_OK;
}

/* How the root's preparation goes on: a sign of life for the ranks that wait, and now and then a line. */
typedef struct preparation {
    fb3_comm *comm;
    const char *source;
    double last_line;
} preparation;

static fb3_status show_preparation(void *context, const char *pass, int64_t rows)
{
    enum { LINE_SECONDS = 10 };
    preparation *p = context;
    if (fb3_seconds() - p->last_line >= LINE_SECONDS) {
        fb3_log_info("%s: %lld rows are %s", p->source, (long long)rows, pass);
        p->last_line = fb3_seconds();
    }
    return fb3_comm_root_goes_on(p->comm);
}

static fb3_status prepare_on_root(fb3_session *session, const fb3_strings *sources, const char *h5_path,
                                  const fb3_tokenizer *tokenizer, const fb3_dataset_options *options)
{
    if (!session->root) return FB3_OK;
    fb3_dataset_report report;
    fb3_status status = fb3_dataset_prepare(sources, h5_path, tokenizer, options, &report);
    if (status == FB3_OK && tokenizer) fb3_dataset_report_log(&report, options);
    return status;
}

static fb3_status check_prepared(const fb3_dataset *dataset, const char *path, const fb3_tokenizer *tokenizer,
                                 const fb3_config *config, int max_length, bool labelled)
{
    FB3_REQUIRE(!tokenizer || strcmp(dataset->tokenizer_sha256, fb3_dataset_tokenizer_sha256(tokenizer)) == 0,
                FB3_INPUT, "%s was made with another tokenizer; run fb3-dist prepare again with this one", path);
    FB3_REQUIRE(dataset->max_length <= max_length, FB3_INPUT,
                "%s was made with max_length %d, more than max_length %d of this run; prepare it again", path,
                dataset->max_length, max_length);
    if (!labelled) return FB3_OK;
    bool same = dataset->targets == config->label_columns.count;
    for (int y = 0; same && y < dataset->targets; y++) {
        same = strcmp(dataset->label_columns.item[y], config->label_columns.item[y]) == 0;
    }
    FB3_REQUIRE(same, FB3_INPUT, "%s has other label columns than label_columns names; prepare it again", path);
    return FB3_OK;
}

fb3_status fb3_session_prepare(fb3_session *session, fb3_dataset **dataset, const fb3_strings *sources,
                               const char *h5_path, const fb3_tokenizer *tokenizer, int max_length, bool labelled,
                               int64_t max_samples)
{
    static const fb3_strings NO_LABELS = {0};
    const fb3_config *config = session->config;
    preparation progress = {.comm = session->comm, .source = sources->item[0], .last_line = fb3_seconds()};
    fb3_dataset_options options = {.id_column = config->id_column,
                                   .text_column = config->text_column,
                                   .fold_column = labelled ? config->fold_column : NULL,
                                   .label_columns = labelled ? &config->label_columns : &NO_LABELS,
                                   .max_length = max_length,
                                   .max_samples = max_samples,
                                   .progress = show_preparation,
                                   .progress_context = &progress};
    const bool prepared = fb3_is_prepared(sources->item[0]);
    if (!prepared) {
        fb3_comm_root_begins(session->comm, "preparing the data set");
        fb3_status mine = prepare_on_root(session, sources, h5_path, tokenizer, &options);
        FB3_TRY(fb3_comm_root_ends(session->comm, mine));
    }
    char *made = (char *)h5_path; /* a list of one, which is only read */
    const fb3_strings *paths = prepared ? sources : &(fb3_strings){.item = &made, .count = 1};
    fb3_status mine = fb3_dataset_open_files(dataset, paths, fb3_comm_node_memory(session->comm));
    if (mine == FB3_OK && prepared && session->root) mine = fb3_dataset_verify(*dataset);
    FB3_TRY(fb3_comm_agree(session->comm, mine, "opening the data set"));
    FB3_TRY(fb3_comm_check_same(session->comm, (*dataset)->source_sha256, "data set"));
    return check_prepared(*dataset, paths->item[0], tokenizer, config, max_length, labelled);
}

char *fb3_versions_json(void)
{
    json_t *versions = json_pack("{s:s, s:s, s:s, s:s}", "fb3-dist", FB3_VERSION, "mpi", fb3_comm_library_version(),
                                 "hdf5", fb3_h5_version(), "sentencepiece", fb3_sentencepiece_version());
    char *text = versions ? json_dumps(versions, JSON_COMPACT) : NULL;
    json_decref(versions);
    return text;
}
