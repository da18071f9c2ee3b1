/* What the contract promises and this build does not do yet. Each is refused by name, never ignored; the list shrinks
 * with every issue and goes when it is empty. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

/* The values that a key may have in this build, as fb3_option_format writes them. */
static const struct limit {
    const char *key;
    const char *allowed[2];
} LIMITS[] = {
    /* clang-format off */
    {"report_to", {"[none]", "[wandb]"}},
    /* clang-format on */
};

static fb3_status check_limit(const fb3_config *config, const struct limit *limit)
{
    char *text = fb3_option_format(config, fb3_option_find(limit->key));
    FB3_REQUIRE(text, FB3_FAILED, "out of memory for the configuration; free memory and run again");
    bool allowed = strcmp(text, limit->allowed[0]) == 0;
    allowed |= limit->allowed[1] && strcmp(text, limit->allowed[1]) == 0;
    fb3_status status = FB3_OK;
    if (!allowed)
        status = fb3_config_refuse(config, limit->key, "%.60s is not in this build yet; use %s: %s%s%s", text,
                                   limit->key, limit->allowed[0], limit->allowed[1] ? " or " : "",
                                   limit->allowed[1] ? limit->allowed[1] : "");
    free(text);
    return status;
}

fb3_status fb3_config_check_supported(const fb3_config *config)
{
    const fb3_verb *verb = fb3_verb_find(config->verb);
    FB3_REQUIRE(verb->built, FB3_INPUT, "the verb %s is not in this build yet; fb3-dist --help lists those that are",
                verb->name);
    for (size_t i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++)
        if (fb3_option_find(LIMITS[i].key)->verbs & verb->bit) FB3_TRY(check_limit(config, &LIMITS[i]));
    return FB3_OK;
}
