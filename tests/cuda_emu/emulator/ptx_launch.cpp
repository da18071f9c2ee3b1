/* Loading PTX, and launching its kernels: threads, calls, counts. */
#ifndef CUDAEMU_CHECK
#include "ptx_access.h"

#include <algorithm>
#include <deque>
#include <dirent.h>
#include <dlfcn.h>
#include <sys/stat.h>

namespace cudaemu
{
namespace ptx
{

static std::deque<Function> functions;
static std::unordered_map<std::string, Function *> by_name;
static std::vector<std::string> call_targets;
static Module module;

Function *function_named(const std::string &name)
{
    auto it = by_name.find(name);
    return it == by_name.end() ? nullptr : it->second;
}

int64_t call_number(const std::string &name)
{
    for (size_t i = 0; i < call_targets.size(); i++)
        if (call_targets[i] == name) return (int64_t)i;
    call_targets.push_back(name);
    return (int64_t)call_targets.size() - 1;
}

/* The launch that runs. */
static struct {
    Function *function;
    const std::string *parameters;
    size_t static_shared;
} now;

/* A thread's memory; kept for the next thread that runs the same function on the fiber. */
struct Frame {
    const Function *function = nullptr;
    std::vector<uint64_t> slots, local;
};
static Frame frames[THREADS_MAX];

/* --- threads, calls ----------------------------------------------------------------------------------------------- */

static void prepare_slots(const Function &f, std::vector<uint64_t> &slots, bool same)
{
    if (!same) {
        slots.resize(f.slots + 1);
        std::copy(f.constants.begin(), f.constants.end(), slots.begin() + f.registers);
    }
    if (f.poison) std::fill(slots.begin(), slots.begin() + f.registers, UNWRITTEN);
    for (const auto &special : f.specials) {
        const unsigned lane = builtins.lane, warp = fibers[current - fibers].warp;
        const uint3 &t = builtins.thread, &b = builtins.block;
        const dim3 &n = builtins.block_dim, &g = builtins.grid_dim;
        const unsigned values[] = {t.x,
                                   t.y,
                                   t.z,
                                   n.x,
                                   n.y,
                                   n.z,
                                   b.x,
                                   b.y,
                                   b.z,
                                   g.x,
                                   g.y,
                                   g.z,
                                   lane,
                                   warp,
                                   (n.x * n.y * n.z + 31) / 32,
                                   1u << lane,
                                   (1u << lane) - 1,
                                   (2u << lane) - 1,
                                   ~((2u << lane) - 1),
                                   ~((1u << lane) - 1),
                                   (unsigned)(running.shared_bytes - now.static_shared),
                                   (unsigned)running.shared_bytes,
                                   32};
        slots[special.first] = special.second == 100 ? now.static_shared : values[special.second];
    }
}

static void run_thread(void *)
{
    Function &f = *now.function;
    Frame &frame = frames[current - fibers];
    const bool same = frame.function == &f;
    prepare_slots(f, frame.slots, same);
    if (f.local_bytes) frame.local.assign(f.local_bytes / 8, ~0ull);
    frame.function = &f;
    run_function(f, frame.slots.data(), const_cast<char *>(now.parameters->data()), now.parameters->size(),
                 (char *)frame.local.data());
}

void do_call(const Context &x, size_t at, const Instruction &in)
{
    const std::string &name = call_targets[(size_t)in.immediate];
    Function *callee = function_named(name);
    if (name == "__assertfail") stop(x, at, "an assertion of the kernel failed");
    if (!callee) stop(x, at, "a call of %s, which no PTX file defines", name.c_str());
    if (callee->parameter_order.size() != in.count)
        stop(x, at, "a call of %s with %u arguments", name.c_str(), in.count);
    std::vector<uint64_t> slots, local(callee->local_bytes / 8 + 1, ~0ull), block(callee->parameter_bytes / 8 + 1);
    char *parameters = (char *)block.data();
    const uint32_t *list = &x.f.lists[in.list];
    for (unsigned i = 0; i < in.count; i++) {
        const Parameter &p = callee->parameter_order[i];
        memcpy(parameters + p.offset, x.local + x.slots[list[i]], p.bytes);
    }
    prepare_slots(*callee, slots, false);
    run_function(*callee, slots.data(), parameters, block.size() * 8, (char *)local.data());
    if (in.sub) {
        const uint64_t to = x.slots[list[in.count]];
        memcpy(x.local + to, parameters, std::min<size_t>(callee->result_bytes, x.f.local_bytes - to));
    }
}

/* --- loading, launching ------------------------------------------------------------------------------------------- */

static void load_file(const std::string &path)
{
    for (const Source &source : parse(path, module)) {
        functions.push_back(decode(source, module));
        Function &f = functions.back();
        if (!f.is_kernel && f.shared_bytes) refuse(f.file, 0, f.name, "shared memory of a function that is called");
        by_name[f.name] = &f;
    }
}

static Function *kernel_of(const Launch &launch)
{
    static std::unordered_map<const void *, Function *> known;
    Function *&f = known[launch.kernel];
    if (f) return f;
    Dl_info info;
    if (!dladdr(launch.kernel, &info) || !info.dli_sname || info.dli_saddr != launch.kernel)
        fail("PTX mode: kernel %s has no exported symbol (it is static, or the program is linked without -rdynamic)",
             launch.text);
    f = function_named(info.dli_sname);
    if (!f || !f->is_kernel) fail("PTX mode: no entry %s in %s", info.dli_sname, options.ptx);
    return f;
}

uint32_t *counts_of_thread(const Function &f)
{
    return const_cast<uint32_t *>(f.of_thread.data()) + (size_t)(current - fibers) * f.code.size();
}

/* Adds a thread's counts and sets them to 0. Takes most of the time of counting: vectorised. */
__attribute__((optimize("O3"))) static void fold_thread(uint32_t *__restrict__ sum, uint32_t *__restrict__ most,
                                                        uint32_t *__restrict__ of, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sum[i] += of[i];
        most[i] = most[i] > of[i] ? most[i] : of[i];
        of[i] = 0;
    }
}

/* A warp issues an instruction as often as the lane that runs it most often, between two barriers: lanes that part and
 * take turns inside of that make it more. */
static void fold_counts(Function &f)
{
    const size_t n = f.code.size(), threads = f.of_thread.size() / n;
    std::vector<uint32_t> most(n), sum(n);
    for (size_t warp = 0; warp < threads; warp += 32) {
        std::fill(most.begin(), most.end(), 0);
        std::fill(sum.begin(), sum.end(), 0);
        for (size_t t = warp; t < threads && t < warp + 32; t++)
            fold_thread(sum.data(), most.data(), f.of_thread.data() + t * n, n);
        for (size_t i = 0; i < n; i++) {
            f.executed[i] += sum[i];
            f.issued[i] += most[i];
        }
    }
}

/* Functions that are called are counted with the kernel, by the same threads. */
static void prepare_counts(const Launch &launch, const Function &kernel)
{
    const size_t threads = (size_t)launch.block.x * launch.block.y * launch.block.z;
    for (Function &f : functions)
        if (&f == &kernel || !f.is_kernel) f.of_thread.assign(threads * f.code.size(), 0);
}

/* What the instructions that ran count for. */
static void count_instructions(Function &f)
{
    f.of_thread.clear();
    for (size_t i = 0; i < f.code.size(); i++) {
        const Instruction &in = f.code[i];
        const int64_t n = f.executed[i], issued = f.issued[i];
        f.executed[i] = f.issued[i] = 0;
        if (in.code == CHECK_WRITTEN || in.code == SPREAD_UNWRITTEN) continue;
        counters.instructions += n;
        counters.warp_instructions += issued;
        if (in.code == LOAD_SHARED) (in.width < 4 ? counters.warp_narrow_loads : counters.warp_shared_loads) += issued;
        if (in.code == STORE_SHARED) counters.warp_shared_stores += issued;
        if (in.code == FMA_F32 || (in.code == FLOAT32 && in.sub == F_FMA)) counters.fp32_fma += n;
        bool special =
            in.code == DIV_F32 || (in.code == FLOAT32 && (in.sub == F_DIV || (in.sub >= F_SQRT && in.sub <= F_TANH)));
        bool plain =
            (in.code >= ADD_F32 && in.code <= ABS_F32 && in.code != DIV_F32) || (in.code == FLOAT32 && !special);
        if (special) counters.fp32_special += n;
        if (plain) counters.fp32 += n;
    }
}

} // namespace ptx

bool ptx_active()
{
    return options.ptx != nullptr;
}

void ptx_load(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0) fail("cannot read %s (CUDAEMU_PTX)", path);
    if (!S_ISDIR(status.st_mode)) return ptx::load_file(path);
    std::vector<std::string> names;
    DIR *directory = opendir(path);
    if (!directory) fail("cannot read %s (CUDAEMU_PTX)", path);
    while (dirent *entry = readdir(directory)) {
        std::string name = entry->d_name;
        if (name.size() > 4 && name.compare(name.size() - 4, 4, ".ptx") == 0) names.push_back(name);
    }
    closedir(directory);
    std::sort(names.begin(), names.end());
    for (const std::string &name : names) ptx::load_file(std::string(path) + "/" + name);
    if (ptx::functions.empty()) fail("no .ptx file in %s (CUDAEMU_PTX)", path);
}

cudaError_t ptx_check_launch(const Launch &launch, size_t shared_max)
{
    const ptx::Function &f = *ptx::kernel_of(launch);
    if (f.shared_bytes + launch.dynamic_shared > shared_max) return cudaErrorInvalidValue;
    if (f.threads_max && launch.block.x * launch.block.y * launch.block.z > f.threads_max)
        fail("launch of %s with %u threads in a block, more than its __launch_bounds__ of %u", launch.text,
             launch.block.x * launch.block.y * launch.block.z, f.threads_max);
    return cudaSuccess;
}

size_t ptx_prepare(const Launch &launch, void (**enter)(void *))
{
    ptx::Function &f = *ptx::kernel_of(launch);
    if (launch.parameters.size() < f.parameter_bytes)
        fail("PTX mode: %s: %zu bytes of arguments, the PTX wants %u", launch.text, launch.parameters.size(),
             f.parameter_bytes);
    ptx::now = {&f, &launch.parameters, f.shared_bytes};
    if (count_accesses) ptx::prepare_counts(launch, f);
    *enter = ptx::run_thread;
    return f.shared_bytes;
}

void ptx_block_barrier()
{
    if (!count_accesses || !ptx_active()) return;
    for (ptx::Function &f : ptx::functions)
        if (!f.of_thread.empty()) ptx::fold_counts(f);
}

void ptx_launch_end()
{
    if (!count_accesses) return;
    for (ptx::Function &f : ptx::functions) /* the kernel and what it called */
        ptx::count_instructions(f);
}

} // namespace cudaemu
#endif
