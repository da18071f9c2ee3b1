/* Order between blocks of a launch: see check_order.cpp. Internal to the checker. */
#ifndef CUDAEMU_CHECK_ORDER_H
#define CUDAEMU_CHECK_ORDER_H

#include <cstdint>

namespace cudaemu
{

/* Who accessed a cell, and when: a block (numbers are unique in the process), one of its threads, the epoch (a count of
 * barriers, in all blocks), and how many fences the thread had made before. */
struct Access {
    uint32_t block, epoch;
    uint16_t thread, fences;
};

void order_launch_begin();
void order_block_begin(uint32_t block, unsigned threads);
void order_block_barrier();
void order_fence(unsigned thread, uint32_t epoch);
void order_atomic(uintptr_t address, unsigned thread, uint32_t epoch);
uint16_t order_fences(unsigned thread);

/* Whether this access of another block happened before what thread `me` of the running block does now. */
bool order_happened_before(const Access &access, unsigned me);
/* What is missing, when it did not. */
const char *order_missing(const Access &access, unsigned me);

} // namespace cudaemu

#endif
