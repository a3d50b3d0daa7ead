// The emulated grid: coroutines, one scheduler, one random generator. A coroutine is entered by
// ucontext and from then on left and resumed by _setjmp and _longjmp, which ask the system nothing.
#include "emulated.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace ndp::emulated {

namespace {

constexpr size_t kStackBytes = size_t{64} << 10;
constexpr int kLanes = 32;

enum class Waits { no, at_barrier, in_warp, done };

struct Thread {
  jmp_buf resume;
  std::unique_ptr<char[]> stack;  // null before the first step and after the last
  Place place;
  Waits waits = Waits::no;
};

struct Warp {
  // Two buffers in turn: a lane may be at its next trade before another has read this one.
  unsigned char slots[2][kLanes][16];
  unsigned arrived = 0, mask = 0;
  int turn = 0;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::map<const void*, std::unique_ptr<unsigned char[]>> shared;
  int waiting = 0, left = 0;
  const char* site = nullptr;  // of the barrier that is waited at
  bool any = false, any_before = false;
};

struct Machine {
  std::mt19937_64 random{1};
  int resident = 4;
  jmp_buf scheduler;
  std::vector<std::unique_ptr<char[]>> stacks;  // of threads that are done
  Block* block = nullptr;
  Thread* thread = nullptr;
  const std::function<void()>* body = nullptr;
  std::string error;  // what a thread found wrong

  uint64_t draw(uint64_t below) { return random() % below; }
};

Machine machine;

void back_to_scheduler() {
  if (_setjmp(machine.thread->resume) == 0) _longjmp(machine.scheduler, 1);
}

void run_thread() {
  (*machine.body)();
  machine.thread->waits = Waits::done;
  _longjmp(machine.scheduler, 1);
}

// Lets machine.thread run until it comes back.
void step() {
  Thread& thread = *machine.thread;
  if (_setjmp(machine.scheduler) != 0) return;
  if (thread.stack != nullptr) _longjmp(thread.resume, 1);
  if (machine.stacks.empty()) {
    thread.stack.reset(new char[kStackBytes]);
  } else {
    thread.stack = std::move(machine.stacks.back());
    machine.stacks.pop_back();
  }
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = thread.stack.get();
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, run_thread, 0);
  setcontext(&context);
}

size_t count(const dim3& d) { return size_t{d.x} * d.y * d.z; }

std::unique_ptr<Block> start_block(const dim3& index, const dim3& grid, const dim3& size) {
  auto block = std::make_unique<Block>();
  const size_t threads = count(size);
  block->threads.resize(threads);
  block->warps.resize((threads + kLanes - 1) / kLanes);
  block->left = static_cast<int>(threads);
  for (size_t i = 0; i < threads; ++i) {
    Thread& thread = block->threads[i];
    const auto linear = static_cast<unsigned>(i);
    thread.place = {dim3(linear % size.x, linear / size.x % size.y, linear / size.x / size.y), index,
                    size, grid};
  }
  return block;
}

// All threads that are left have come: the barrier opens.
void open_barrier(Block& block) {
  if (block.left == 0 || block.waiting < block.left) return;
  block.waiting = 0;
  block.any_before = block.any;
  block.any = false;
  for (Thread& thread : block.threads)
    if (thread.waits == Waits::at_barrier) thread.waits = Waits::no;
}

bool can_run(const Block& block, size_t warp) {
  for (size_t i = warp * kLanes; i < block.threads.size() && i < (warp + 1) * kLanes; ++i)
    if (block.threads[i].waits == Waits::no) return true;
  return false;
}

// Every lane of the warp that can, once, beginning with a random one.
void run_warp(Block& block, size_t warp) {
  const size_t lanes = std::min<size_t>(kLanes, block.threads.size() - warp * kLanes);
  const size_t first = machine.draw(lanes);
  for (size_t i = 0; i < lanes; ++i) {
    Thread& thread = block.threads[warp * kLanes + (first + i) % lanes];
    if (thread.waits != Waits::no) continue;
    machine.block = &block;
    machine.thread = &thread;
    step();
    if (thread.waits == Waits::done) {
      --block.left;
      machine.stacks.push_back(std::move(thread.stack));
    }
  }
  open_barrier(block);
}

Warp& own_warp() {
  const size_t linear = static_cast<size_t>(machine.thread - machine.block->threads.data());
  return machine.block->warps[linear / kLanes];
}

// Leaves `mine` in the warp's buffer, waits for all of the mask, and returns that buffer.
const unsigned char (*meet(unsigned mask, const void* mine, size_t bytes))[16] {
  Warp& warp = own_warp();
  const size_t linear = static_cast<size_t>(machine.thread - machine.block->threads.data());
  const int self = static_cast<int>(linear % kLanes);
  const int present = static_cast<int>(
      std::min<size_t>(kLanes, machine.block->threads.size() - linear / kLanes * kLanes));
  const unsigned all = present == kLanes ? 0xffffffffu : (1u << present) - 1;
  if (bytes > sizeof warp.slots[0][0]) std::abort();
  if (warp.arrived != 0 && warp.mask != mask) std::abort();  // two groups at once: not known here
  warp.mask = mask;
  const int turn = warp.turn;
  std::memcpy(warp.slots[turn][self], mine, bytes);
  warp.arrived |= 1u << self;
  if ((warp.arrived & (mask & all)) == (mask & all)) {
    warp.arrived = 0;
    warp.turn ^= 1;
    for (int i = 0; i < present; ++i) {
      Thread& other = machine.block->threads[linear / kLanes * kLanes + static_cast<size_t>(i)];
      if (other.waits == Waits::in_warp) other.waits = Waits::no;
    }
  } else {
    machine.thread->waits = Waits::in_warp;
    back_to_scheduler();
  }
  return warp.slots[turn];
}

}  // namespace

const Place& place() { return machine.thread->place; }

void seed(uint64_t value, int resident_blocks) {
  machine.random.seed(value);
  machine.resident = std::max(resident_blocks, 1);
}

void launch(dim3 grid, dim3 block, const std::function<void()>& body) {
  const size_t blocks = count(grid);
  if (blocks == 0 || count(block) == 0 || count(block) > 1024)
    throw std::runtime_error("a grid of " + std::to_string(blocks) + " blocks of " +
                             std::to_string(count(block)) + " threads cannot be launched");
  std::vector<unsigned> waiting(blocks);
  for (size_t i = 0; i < blocks; ++i) waiting[i] = static_cast<unsigned>(i);
  std::shuffle(waiting.begin(), waiting.end(), machine.random);
  machine.body = &body;
  std::vector<std::unique_ptr<Block>> running;
  while (!waiting.empty() || !running.empty()) {
    while (!waiting.empty() && running.size() < static_cast<size_t>(machine.resident)) {
      const unsigned i = waiting.back();
      waiting.pop_back();
      running.push_back(
          start_block(dim3(i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y), grid, block));
    }
    std::vector<std::pair<Block*, size_t>> ready;
    for (const auto& one : running)
      for (size_t warp = 0; warp < one->warps.size(); ++warp)
        if (can_run(*one, warp)) ready.emplace_back(one.get(), warp);
    if (ready.empty())
      throw std::runtime_error(
          "every thread waits: a barrier, or a trade within a warp, that not all of them reach");
    const auto [chosen, warp] = ready[machine.draw(ready.size())];
    run_warp(*chosen, warp);
    if (!machine.error.empty()) throw std::runtime_error(std::exchange(machine.error, {}));
    std::erase_if(running, [](const auto& one) { return one->left == 0; });
  }
}

void* shared(const void* site, size_t bytes) {
  auto& memory = machine.block->shared[site];
  if (memory == nullptr) {
    memory.reset(new unsigned char[bytes + 16]);
    std::memset(memory.get(), 0xa5, bytes + 16);  // nobody has written it yet
  }
  const auto address = reinterpret_cast<uintptr_t>(memory.get());
  return reinterpret_cast<void*>((address + 15) / 16 * 16);
}

bool barrier(const char* site, bool value) {
  Block& block = *machine.block;
  if (block.waiting == 0) block.site = site;
  if (std::strcmp(block.site, site) != 0)
    machine.error = std::string("threads of one block wait at different barriers: ") + block.site +
                    " and " + site;
  block.any |= value;
  ++block.waiting;
  machine.thread->waits = Waits::at_barrier;
  back_to_scheduler();
  return block.any_before;
}

void maybe_yield() {
  if (machine.draw(4) == 0) back_to_scheduler();
}

void yield() { back_to_scheduler(); }

void trade(unsigned mask, const void* mine, void* theirs, size_t bytes, int from) {
  const auto slots = meet(mask, mine, bytes);
  std::memcpy(theirs, slots[from & (kLanes - 1)], bytes);
}

void gather(unsigned mask, const void* mine, void* all, size_t bytes) {
  const auto slots = meet(mask, mine, bytes);
  for (int i = 0; i < kLanes; ++i) {
    unsigned char* to = static_cast<unsigned char*>(all) + static_cast<size_t>(i) * bytes;
    if (mask >> i & 1)
      std::memcpy(to, slots[i], bytes);
    else
      std::memset(to, 0, bytes);
  }
}

}  // namespace ndp::emulated
