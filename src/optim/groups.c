/* Optimizer groups as segments of the arenas: weights with decay, biases and LayerNorm parameters without. */
#include "fb3/params.h"

#include <stdlib.h>

fb3_status fb3_param_segments(const fb3_param_table *table, float weight_decay, fb3_adamw_segment **segments,
                              int *count)
{
    fb3_adamw_segment *list = calloc((size_t)table->count, sizeof *list);
    *segments = NULL;
    *count = 0;
    FB3_REQUIRE(list, FB3_FAILED, "out of memory for %d optimizer segments", table->count);
    int n = 0;
    for (int i = 0; i < table->count; i++) {
        const fb3_param *param = &table->param[i];
        const float decay = param->decay ? weight_decay : 0.0f;
        fb3_adamw_segment *last = n > 0 ? &list[n - 1] : NULL;
        // Parameters that have padding between them stay apart: padding is never touched.
        if (last && last->decay == decay && last->offset + last->count == param->offset)
            last->count += param->count;
        else
            list[n++] =
                (fb3_adamw_segment){.offset = param->offset, .count = param->count, .lr_scale = 1.0f, .decay = decay};
    }
    *segments = list;
    *count = n;
    return FB3_OK;
}
