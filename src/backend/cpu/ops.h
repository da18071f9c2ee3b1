/* Operations that are compiled once per instruction set. FB3_CPU_ISA is `baseline`, `avx2` or `avx512` on the
 * compiler's command line, beside the flags that switch that set on; CPU(linear_fwd) is then fb3_linear_fwd_cpu_avx512.
 * Every function of such a file is static or named so: the linker never mixes instruction sets. */
#ifndef FB3_BACKEND_CPU_OPS_H
#define FB3_BACKEND_CPU_OPS_H

#include "cpu.h"

#define FB3_CPU_NAME(op, isa)        fb3_##op##_cpu_##isa
#define FB3_CPU_NAME_EXPAND(op, isa) FB3_CPU_NAME(op, isa)
#define CPU(op)                      FB3_CPU_NAME_EXPAND(op, FB3_CPU_ISA)

/* Declares an operation with the type of its slot in the table, so a definition that differs does not compile. */
#define FB3_CPU_DECLARE(op) __typeof__(*((const fb3_ops *)0)->op) CPU(op)

FB3_CPU_DECLARE(reserve);
FB3_CPU_DECLARE(scratch_bytes);
FB3_CPU_DECLARE(cast_to_act);
FB3_CPU_DECLARE(fixed_add);
FB3_CPU_DECLARE(fixed_to_float);
FB3_CPU_DECLARE(count_nonfinite);
FB3_CPU_DECLARE(embedding_fwd);
FB3_CPU_DECLARE(embedding_bwd);
FB3_CPU_DECLARE(layernorm_fwd);
FB3_CPU_DECLARE(layernorm_bwd);
FB3_CPU_DECLARE(dropout_fwd);
FB3_CPU_DECLARE(dropout_bwd_add);
FB3_CPU_DECLARE(linear_fwd);
FB3_CPU_DECLARE(linear_gelu_fwd);
FB3_CPU_DECLARE(linear_bwd_input);
FB3_CPU_DECLARE(linear_bwd_weight);
FB3_CPU_DECLARE(linear_bwd_input_float);
FB3_CPU_DECLARE(linear_gelu_bwd_input);
FB3_CPU_DECLARE(attention_fwd);
FB3_CPU_DECLARE(attention_bwd);
FB3_CPU_DECLARE(add_layernorm_fwd);
FB3_CPU_DECLARE(add_layernorm_bwd);
FB3_CPU_DECLARE(mean_pool_fwd);
FB3_CPU_DECLARE(mean_pool_bwd);
FB3_CPU_DECLARE(head_fwd);
FB3_CPU_DECLARE(head_bwd);
FB3_CPU_DECLARE(loss_fwd);
FB3_CPU_DECLARE(loss_bwd);
FB3_CPU_DECLARE(sum_squares);
FB3_CPU_DECLARE(adamw);

/* Floats of workspace that the largest operations take, for `reserve`. */
size_t CPU(attention_workspace)(int max_len, int R, int C, int D, int B);
size_t CPU(norm_workspace)(int rows, int C);
size_t CPU(embedding_workspace)(int T, int C);

extern const fb3_ops CPU(ops);

#endif
