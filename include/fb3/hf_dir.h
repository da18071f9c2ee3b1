/* Hugging Face directories: finding one, reading its weights, writing one.
 *
 * Readers are src/io/safetensors.c and src/io/torch_zip.c (pytorch_model.bin: zip + pickle, by our own unpickler of a
 * closed vocabulary that runs nothing). Both present the same thing: a list of named tensors in a file. */
#ifndef FB3_HF_DIR_H
#define FB3_HF_DIR_H

#include "fb3/config.h"
#include "fb3/hash.h"
#include "fb3/params.h"

#define FB3_TENSOR_MAX_DIMS 4

typedef enum fb3_file_dtype {
    FB3_FILE_F32,
    FB3_FILE_F16,
    FB3_FILE_BF16,
    FB3_FILE_F64,
    FB3_FILE_I64,
    FB3_FILE_OTHER, /* listed by inspect, cannot be a parameter */
} fb3_file_dtype;

/* One tensor of a file. */
typedef struct fb3_tensor {
    char *name;
    fb3_file_dtype dtype;
    int dims;
    int64_t shape[FB3_TENSOR_MAX_DIMS];
    int64_t stride[FB3_TENSOR_MAX_DIMS]; /* in elements */
    int64_t elements;
    int64_t file_offset; /* of element 0, in bytes */
} fb3_tensor;

/* A range of a file with the CRC-32 that the file gives for it (pytorch_model.bin has one per storage; safetensors has
 * none). */
typedef struct fb3_tensor_storage {
    int64_t file_offset, bytes;
    uint32_t crc;
} fb3_tensor_storage;

typedef struct fb3_tensor_file {
    char *path;
    int fd;
    int64_t file_bytes;
    fb3_tensor *tensor; /* by name, "layer.2" before "layer.10" */
    int count;
    fb3_tensor_storage *storage;
    int storages;
} fb3_tensor_file;

/* Both check every size and offset against the file before use. FB3_INPUT with the reason. */
fb3_status fb3_safetensors_open(fb3_tensor_file **file, const char *path);
fb3_status fb3_torch_zip_open(fb3_tensor_file **file, const char *path);
void fb3_tensor_file_close(fb3_tensor_file *file);
const fb3_tensor *fb3_tensor_file_find(const fb3_tensor_file *file, const char *name);
/* Reads the ranges that have a checksum and compares. FB3_INPUT when one differs. */
fb3_status fb3_tensor_file_verify(const fb3_tensor_file *file);
/* Converts `count` elements from `first` (row-major order) to float. Only contiguous tensors of a float dtype. */
fb3_status fb3_tensor_read(const fb3_tensor_file *file, const fb3_tensor *tensor, int64_t first, int64_t count,
                           float *out);

/* Where model_name_or_path is: the directory itself, or a hub name's snapshot in the local Hugging Face cache
 * ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub; revision by refs/<revision>, default main). FB3_INPUT when
 * it is nowhere, with the tools/fetch-model command for a login node. Caller frees *directory. */
fb3_status fb3_hf_find(const char *name_or_path, const char *revision, char **directory);

typedef struct fb3_hf_dir {
    char *directory;
    fb3_model_config model;
    char *weights_path; /* model.safetensors or pytorch_model.bin (or one of our exports of either) */
    bool has_head;      /* fc.weight and fc.bias are there */
    int targets;        /* rows of fc.weight; 0 without a head */
    char *label_names;  /* JSON array text, from config.json's id2label; NULL when that does not name the targets */
    int max_length;     /* tokenizer_config.json's model_max_length; 0 when it gives none */
} fb3_hf_dir;
/* Reads config.json, finds the weights file and checks that its index has every parameter of that model in its shape,
 * so that what a caller allocates for the model is bounded by the file. */
fb3_status fb3_hf_open(fb3_hf_dir **hf, const char *directory);
void fb3_hf_close(fb3_hf_dir *hf);

/* Fills `weights` (arena and word_full; the caller gathers active rows) from the file. Names with or without the
 * `deberta.` (or `model.`) prefix; known unused tensors are skipped by the named rule in hf_dir.c; missing, extra or
 * misshapen ones are FB3_INPUT with a list. A missing head is not an error: *has_head says so. */
fb3_status fb3_hf_load_weights(const fb3_hf_dir *hf, const fb3_param_table *table, fb3_weights *weights,
                               bool *has_head);
/* sha256 of the weights file, cached beside nothing: computed each time. */
fb3_status fb3_hf_weights_sha256(const fb3_hf_dir *hf, char hex[FB3_SHA256_HEX]);

/* What an export needs. `word_full` is up to date (all rows). */
typedef struct fb3_export {
    const fb3_param_table *table;
    const fb3_weights *weights;
    const void *spm; /* the tokenizer's file */
    size_t spm_bytes;
    const char *label_names; /* JSON array text, for config.json's id2label */
    fb3_export_dtype dtype;
    int max_length;
} fb3_export;
/* --format hf: config.json, model.safetensors (DebertaV2Model's names, and fc.weight, fc.bias), spm.model,
 * tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json. The directory appears whole or
 * not at all (written beside and renamed). FB3_INPUT when it exists and is not empty. */
fb3_status fb3_export_hf(const fb3_export *export, const char *directory);
/* --format torch: pytorch_model.bin with the notebook's state dict (model.*, fc.*), readable by
 * torch.load(weights_only=True), and the same side files. */
fb3_status fb3_export_torch(const fb3_export *export, const char *directory);

uint16_t fb3_float_to_half(float x);     /* round to nearest even */
uint16_t fb3_float_to_bfloat16(float x); /* round to nearest even */
float fb3_half_to_float(uint16_t h);
float fb3_bfloat16_to_float(uint16_t b);

#endif
