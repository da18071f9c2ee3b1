/* The state of decoding one function. Internal to PTX mode. */
#ifndef CUDAEMU_PTX_DECODER_H
#define CUDAEMU_PTX_DECODER_H

#include "ptx_program.h"

namespace cudaemu
{
namespace ptx
{

int bytes_of(Type t);
bool is_signed(Type t);
std::vector<std::string> split(const std::string &text);

class Decoder
{
  public:
    Decoder(const Source &source_, const Module &module_) : source(source_), module(module_) {}
    Function decode();

  private:
    struct Register {
        uint32_t slot;
        int bits;
    };
    struct Symbol {
        Space space;
        uint32_t offset, bytes;
    };
    struct Address {
        uint32_t base;
        int64_t offset;
        Space space;
    };

    const Source &source;
    const Module &module;
    Function f;
    std::unordered_map<std::string, Register> registers;
    std::unordered_map<std::string, Symbol> symbols; /* shared and local memory, of the function */
    std::unordered_map<uint64_t, uint32_t> constants;
    std::unordered_map<std::string, int64_t> labels;
    std::unordered_map<std::string, std::vector<std::string>> tables;
    std::vector<std::pair<size_t, std::string>> fixups, table_fixups; /* instruction, label */
    std::vector<std::vector<uint32_t>> reads, writes;                 /* by instruction: registers */

    /* The statement at hand. */
    std::string text, opcode, last_label;
    std::vector<std::string> modifiers, operands;
    int line = 0, vector = 1;
    Type type = NONE, from = NONE;
    Space space_named = GENERIC;
    uint8_t flags = 0;

    [[noreturn]] void refuse(const char *why) const;
    bool has(const char *modifier) const;

    uint32_t constant(uint64_t value);
    uint32_t special(int which);
    uint32_t new_register(const std::string &name, int bits);
    uint32_t use(const std::string &name, int bits);
    uint32_t use_predicate(std::string name, bool *negated);
    uint32_t define(const std::string &name, int *bits = nullptr);
    uint8_t use_list(const std::string &operand, int bits);
    uint8_t define_list(const std::string &operand, int *bits = nullptr);
    Address address(const std::string &operand);
    Instruction &emit(Code code);

    void read_head();
    void declare_registers(const std::string &rest);
    void declare_memory(const std::string &declaration);
    void statement(const Statement &s);
    void begin(const std::string &statement);
    void finish();
    void place_slots();

    /* ptx_instructions.cpp */
    void instruction();
    void binary(Code code, int bits);
    bool arithmetic();
    bool float_arithmetic();
    bool bit_arithmetic();
    void move();
    void compare();
    void convert();
    void memory();
    void atomic();
    void call();
    bool control();
    bool warp();
    Code by_space(Space space, Code of_global) const;
};

} // namespace ptx
} // namespace cudaemu

#endif
