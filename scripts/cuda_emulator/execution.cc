// The scheduler for execution.h: the threads of a block are fibers with their own stacks (x86-64).
#include "execution.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <algorithm>
#include <map>
#include <string>
#include <sys/mman.h>
#include <vector>

// Saves the callee-saved registers and the stack pointer, and continues on the other stack.
extern "C" void emulator_switch_stack(void **save, void *restore);
__asm__(".text\n.globl emulator_switch_stack\n.type emulator_switch_stack,@function\nemulator_switch_stack:\n"
        " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        " movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");

namespace emulator {
enum class State { Ready, AtWarpBarrier, AtBlockBarrier, Done };
struct Fiber {
    void *stack_pointer = nullptr;
    char *stack = nullptr;
    Position position;
    State state = State::Ready;
    unsigned mask = 0;     // of the warp barrier that it waits at
    unsigned barriers = 0; // block barriers so far
    bool started = false;
};

Position *position;
static std::vector<Fiber> fibers; // of the running block
static Fiber *current;
static void *scheduler_stack;
static Thunk running_kernel;
static void **running_parameters;
static unsigned char slots[32][32][16];
static unsigned char dynamic_memory[MOST_SHARED_BYTES] __attribute__((aligned(128)));
static unsigned dynamic_bytes; // of the running launch
static std::vector<void *> filled; // block memory that the running block has met

static unsigned environment(const char *name) {
    const char *value = getenv(name);
    return value ? unsigned(strtoul(value, nullptr, 10)) : 0;
}
// Order in which threads run: 0 is ascending, any other number seeds a permutation.
static const unsigned order_seed = environment("CUDA_EMULATOR_ORDER");
// Whether a thread may not end while others of its block wait at a barrier.
static const bool strict = environment("CUDA_EMULATOR_STRICT");

void fail(const char *message) {
    const uint3 &b = position->block, &t = position->thread;
    fprintf(stderr, "CUDA emulator: kernel stopped: %s (block %u,%u,%u thread %u,%u,%u)\n", message, b.x, b.y, b.z, t.x, t.y, t.z);
    abort();
}

static unsigned index_in_block() { return unsigned(current - fibers.data()); }
unsigned lane() { return index_in_block() % 32; }
void *exchange_slot(unsigned lane) { return slots[index_in_block() / 32][lane]; }
void *dynamic_shared() { return dynamic_memory; }
void fresh(void *memory, size_t size) {
    if (std::find(filled.begin(), filled.end(), memory) != filled.end()) return;
    filled.push_back(memory);
    memset(memory, 0xff, size);
}

static void suspend(State state) {
    Fiber *self = current;
    self->state = state;
    emulator_switch_stack(&self->stack_pointer, scheduler_stack);
}
void block_barrier() {
    current->barriers++;
    suspend(State::AtBlockBarrier);
}
void warp_barrier(unsigned mask) {
    current->mask = mask;
    suspend(State::AtWarpBarrier);
}

static void fiber_main() {
    running_kernel(running_parameters);
    current->state = State::Done;
    void *abandoned;
    emulator_switch_stack(&abandoned, scheduler_stack);
    __builtin_unreachable();
}

// Stacks are reused, so that threads without barriers all run on one. Below each lies a page that may not be touched.
static constexpr size_t STACK_SIZE = 64 << 10, GUARD_SIZE = 4096;
static std::vector<char *> free_stacks;
static char *take_stack() {
    if (!free_stacks.empty()) {
        char *stack = free_stacks.back();
        free_stacks.pop_back();
        return stack;
    }
    void *memory = mmap(nullptr, GUARD_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD_SIZE, PROT_NONE)) {
        perror("CUDA emulator: no memory for the stack of a thread");
        abort();
    }
    return (char *)memory + GUARD_SIZE;
}

static void resume(Fiber &fiber) {
    if (!fiber.started) {
        fiber.started = true;
        fiber.stack = take_stack();
        void **top = (void **)(fiber.stack + STACK_SIZE);
        *--top = nullptr; // return address of fiber_main, which does not return
        *--top = (void *)fiber_main;
        for (int i = 0; i < 6; i++) *--top = nullptr; // callee-saved registers
        fiber.stack_pointer = top;
    }
    current = &fiber;
    position = &fiber.position;
    fiber.state = State::Ready;
    emulator_switch_stack(&scheduler_stack, fiber.stack_pointer);
    if (fiber.state == State::Done) free_stacks.push_back(fiber.stack);
}

static void permute(std::vector<unsigned> &order, unsigned &seed) {
    if (!seed) return;
    for (size_t i = order.size(); i > 1; i--) {
        seed = seed * 1664525u + 1013904223u;
        std::swap(order[i - 1], order[(seed >> 8) % i]);
    }
}

// Lets the fibers of a warp go on whose whole mask waits at the same warp barrier; returns whether there were any.
static bool release_warp(Fiber *warp, unsigned size) {
    bool released = false;
    for (unsigned i = 0; i < size; i++) {
        if (warp[i].state != State::AtWarpBarrier) continue;
        unsigned mask = warp[i].mask;
        bool arrived = true;
        for (unsigned j = 0; j < size; j++) {
            if (!(mask >> j & 1)) continue;
            if (warp[j].state == State::Done) {
                position = &warp[i].position;
                fail("a lane that the mask of a warp operation names has ended");
            }
            arrived &= warp[j].state == State::AtWarpBarrier && warp[j].mask == mask;
        }
        if (!arrived) continue;
        for (unsigned j = 0; j < size; j++)
            if (mask >> j & 1) warp[j].state = State::Ready;
        released = true;
    }
    return released;
}

// Runs a warp until all its threads have ended or wait at the block's barrier.
static void run_warp(Fiber *warp, unsigned size, unsigned &seed) {
    static std::vector<unsigned> order;
    order.resize(size);
    for (unsigned i = 0; i < size; i++) order[i] = i;
    do {
        permute(order, seed);
        for (unsigned i : order)
            if (warp[i].state == State::Ready) resume(warp[i]);
    } while (release_warp(warp, size));
    for (unsigned i = 0; i < size; i++) {
        if (warp[i].state != State::AtWarpBarrier) continue;
        position = &warp[i].position;
        fail("a warp operation waits for lanes that are elsewhere (diverged, or at another barrier)");
    }
}

static void run_block(uint3 block, dim3 grid, dim3 size, unsigned &seed) {
    unsigned count = size.x * size.y * size.z, warps = (count + 31) / 32;
    fibers.assign(count, Fiber{});
    filled.clear();
    memset(dynamic_memory, 0xff, dynamic_bytes);
    for (unsigned i = 0; i < count; i++)
        fibers[i].position = {uint3{i % size.x, i / size.x % size.y, i / size.x / size.y}, block, size, grid};
    static std::vector<unsigned> order;
    order.resize(warps);
    for (unsigned i = 0; i < warps; i++) order[i] = i;
    for (;;) {
        permute(order, seed);
        for (unsigned w : order) run_warp(&fibers[w * 32], std::min(32u, count - w * 32), seed);
        unsigned waiting = 0, most = 0;
        for (Fiber &fiber : fibers) waiting += fiber.state == State::AtBlockBarrier, most = std::max(most, fiber.barriers);
        if (!waiting) return;
        for (Fiber &fiber : fibers) {
            if (strict && fiber.state == State::Done && fiber.barriers < most) {
                position = &fiber.position;
                fail("a thread has ended while others wait at a barrier");
            }
            if (fiber.state == State::AtBlockBarrier) fiber.state = State::Ready;
        }
    }
}

using Kernels = std::map<std::string, Thunk>;
// Candle's kernels first, then those of modules that were compiled since.
static std::vector<Kernels> &modules() {
    static std::vector<Kernels> all(1);
    return all;
}
size_t add_module() {
    modules().emplace_back();
    return modules().size() - 1;
}
void add_kernel(const char *name, Thunk thunk) {
    if (modules().back().emplace(name, thunk).second) return;
    fprintf(stderr, "CUDA emulator: two kernels of a module are called %s\n", name);
    abort();
}
Thunk find_kernel(size_t module, const char *name) {
    const Kernels &kernels = modules()[module];
    auto found = kernels.find(name);
    return found == kernels.end() ? nullptr : found->second;
}
void launch(Thunk kernel, dim3 grid, dim3 block, unsigned shared_bytes, void **parameters) {
    dynamic_bytes = shared_bytes;
    running_kernel = kernel;
    running_parameters = parameters;
    unsigned seed = order_seed;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) run_block({x, y, z}, grid, block, seed);
}
} // namespace emulator
