/* fb3-dist init [DIR]: a commented fb3.yaml to start from. */
#include "cli.h"
#include "fb3/file.h"
#include "fb3/log.h"

#include <stdlib.h>
#include <string.h>

fb3_status cmd_init(fb3_config *config)
{
    const char *folder = config->arguments.count > 0 ? config->arguments.item[0] : ".";
    fb3_status status = FB3_OK;
    char *path = fb3_path_join(folder, "fb3.yaml"), *text = fb3_config_template();
    FB3_REQUIRE_GOTO(path && text, done, FB3_FAILED, "out of memory");
    FB3_REQUIRE_GOTO(!fb3_file_exists(path), done, FB3_INPUT, "%s is there already; it is left as it is", path);
    FB3_TRY_GOTO(fb3_folder_make(folder), done);
    FB3_TRY_GOTO(fb3_file_write(path, text, strlen(text)), done);
    fb3_log_info("%s is written; set model_name_or_path and train_file in it, then run fb3-dist", path);
done:
    free(path);
    free(text);
    return status;
}
