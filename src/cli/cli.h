/* One function per verb; main.c holds the table of them. Each returns a status, and prints results, never errors. */
#ifndef FB3_CLI_H
#define FB3_CLI_H

#include "fb3/train.h"

fb3_status cmd_init(fb3_config *config);
fb3_status cmd_prepare(fb3_session *session);
fb3_status cmd_folds(fb3_session *session);
fb3_status cmd_export(fb3_config *config);
fb3_status cmd_inspect(fb3_config *config);
fb3_status cmd_doctor(fb3_config *config);
fb3_status cmd_report(fb3_config *config);
fb3_status cmd_status(fb3_config *config);
fb3_status cmd_compare(fb3_config *config);

/* --version: this program and every library it was built with, one a line. */
void print_versions(void);

#endif
