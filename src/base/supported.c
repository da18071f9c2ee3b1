/* What the contract promises and this build does not do yet: verbs. Each is refused by name, never ignored; this file
 * goes when there is none left. */
#include "options.h"

fb3_status fb3_config_check_supported(const fb3_config *config)
{
    const fb3_verb *verb = fb3_verb_find(config->verb);
    FB3_REQUIRE(verb->built, FB3_INPUT, "the verb %s is not in this build yet; fb3-dist --help lists those that are",
                verb->name);
    return FB3_OK;
}
