/* The ranges of the gradient of every preset, for tools/scale-model --check, as JSON: their bytes in the order in which
 * the backward pass gives them to the all-reduce, and the parameters that the table counts.
 *
 *   param_ranges VOCABULARY ACTIVE_ROWS TARGETS
 */
#include "fb3/params.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static fb3_status print_ranges(const char *preset, int vocabulary, int active, int targets)
{
    fb3_model_config model;
    fb3_param_table *table;
    FB3_TRY(fb3_model_config_preset(&model, preset, vocabulary));
    FB3_TRY(fb3_param_table_create(&table, &model, active, targets));
    printf("\"%s\": {\"parameters\": %" PRId64 ", \"full_parameters\": %" PRId64 ", \"ranges\": [", preset,
           table->parameters, table->full_parameters);
    for (int i = 0; i < table->ranges; i++)
        printf("%s%" PRId64, i ? ", " : "", table->range[i].count * (int64_t)sizeof(float));
    printf("]}");
    fb3_param_table_free(table);
    return FB3_OK;
}

int main(int argc, char **argv)
{
    static const char *const presets[] = {"tiny", "deberta-v3-xsmall", "deberta-v3-small", "deberta-v3-base",
                                          "deberta-v3-large"};
    fb3_status status = argc == 4 ? FB3_OK : fb3_fail(FB3_INPUT, "param_ranges VOCABULARY ACTIVE_ROWS TARGETS");
    for (size_t i = 0; status == FB3_OK && i < sizeof presets / sizeof presets[0]; i++) {
        printf(i ? ",\n" : "{");
        status = print_ranges(presets[i], atoi(argv[1]), atoi(argv[2]), atoi(argv[3]));
    }
    printf("}\n");
    if (status != FB3_OK) fprintf(stderr, "%s\n", fb3_error_text());
    return status;
}
