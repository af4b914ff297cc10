// What the checked build sees; see cuda_runtime.h. The compiler calls __tsan_... before every access to memory and
// __ubsan_... where an operation is undefined; both are defined here.
//
// Every four bytes of memory have a cell, with the last accesses to them. An access is ordered before a later one of
// the same launch where a barrier lies between (phases: every block and every barrier begins a new one), or, within a
// warp, a __syncwarp (times: a vector clock per lane).
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>

#include "runtime.hpp"

namespace simt {
namespace checker {
namespace {

// One access, or several of lanes of one warp.
struct Record {
  std::uint32_t phase;
  std::uint32_t lanes;
  std::uint32_t pc : 28;   // from the start of the module
  std::uint32_t init : 4;  // of the last write only: which bytes have a value
  std::uint32_t time : 23;
  std::uint32_t warp : 5;
  std::uint32_t bytes : 4;
};

struct Cell {
  Record write, atomic, read, other_read;
};
static_assert(sizeof(Cell) == 64, "one line of the cache");

struct FreeCells {
  void operator()(Cell* cells) const { std::free(cells); }
};
using Cells = std::unique_ptr<Cell[], FreeCells>;
Cells make_cells(std::uintptr_t address, std::size_t size) {
  const std::size_t n = (address % 4 + size + 3) / 4;
  Cell* cells = static_cast<Cell*>(std::calloc(n, sizeof(Cell)));
  if (cells == nullptr) throw std::bad_alloc();
  return Cells(cells);
}

struct Shadow {
  Region region;
  Cells cells;
};

struct Variable {
  std::uintptr_t address;
  std::size_t size;
  std::string name, mangled;
};

enum class Kind { read, write, atomic };

// The loaded module.
std::uintptr_t image_low = 0, image_high = 0, image_base = 0;
std::string image_path;
std::uintptr_t variables_low = 0, variables_high = 0;
std::vector<Variable> variables;                  // shared variables of all kernels, by address
std::map<std::uintptr_t, std::string> functions;  // mangled names, by address
std::vector<std::uint16_t> variable_at;           // for every 16 bytes, 1 + the variable that lies in them
constexpr std::size_t granule = 16;
Cells variable_cells, dynamic_cells;

std::map<std::uintptr_t, Shadow> shadows;
constexpr int n_recent = 8;
Shadow* recent[n_recent];
unsigned recent_generation = 0, swept_generation = 0, next_recent = 0;

struct Freed {
  Region region;
  void* block;
};
std::deque<Freed> freed;
std::size_t freed_bytes = 0;
constexpr std::size_t most_freed_bytes = 64 << 20;

std::uint32_t phase = 0, launch_first = 1, block_first = 1;
std::vector<std::pair<std::uint32_t, std::int64_t>> block_phases;

std::uint32_t clocks[most_threads][warp_lanes];  // of a thread: what it knows of the lanes of its warp
std::uint32_t clock_phase[most_threads / warp_lanes];

constexpr int most_depth = 64;
std::uint32_t paths[most_threads][most_depth];
int depths[most_threads];

std::vector<std::string> findings;
std::set<std::tuple<std::string, std::uint32_t, std::uint32_t>> found;
constexpr std::size_t most_findings = 12;

std::uint32_t offset_of(const void* pc) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(pc) - image_base) & 0x0fffffffu;
}

// ---- Places in the source.

std::map<std::uint32_t, std::string> lines;

// "file.cu:12", "called from ..." where the compiler put functions into each other. Addresses are those after a call.
const std::string& line_of(std::uint32_t pc) {
  const auto known = lines.find(pc);
  if (known != lines.end()) return known->second;
  char command[64];
  std::snprintf(command, sizeof command, "' 0x%x 2>/dev/null", pc - 1);
  std::string text;
  if (FILE* pipe = popen(("addr2line -i -e '" + image_path + command).c_str(), "r")) {
    char line[1024];
    while (std::fgets(line, sizeof line, pipe)) {
      std::string place = line;
      place.erase(place.find_last_not_of("\n ") + 1);
      place = place.substr(0, place.find(" ("));
      place = place.substr(place.rfind('/') + 1);
      const auto of = [&](const char* start) { return place.rfind(start, 0) == 0; };
      if (of("??") || of("cuda_runtime.h") || of("tuple:") || of("invoke.h")) continue;  // what lies around a kernel
      text += (text.empty() ? "" : " < ") + place;
    }
    pclose(pipe);
  }
  if (text.empty()) {
    std::snprintf(command, sizeof command, "+0x%x", pc);
    text = command;
  }
  return lines.emplace(pc, text).first->second;
}

// The calls that a thread is in, from the innermost.
std::string calls_of(int number) {
  std::string text;
  for (int i = std::min(depths[number], most_depth) - 1; i > 0; --i) {
    const std::string& line = line_of(paths[number][i]);
    if (line.rfind("+0x", 0) != 0) text += " < " + line;
  }
  return text;
}

std::string calls() { return calls_of(machine.now->number); }

void read_symbols() {
  Dl_info info;
  dladdr(reinterpret_cast<void*>(&read_symbols), &info);
  image_path = info.dli_fname;
  image_base = reinterpret_cast<std::uintptr_t>(info.dli_fbase);
  std::ifstream file(image_path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(bytes.data());
  const auto* programs = reinterpret_cast<const ElfW(Phdr)*>(bytes.data() + header->e_phoff);
  image_low = image_base;
  for (int p = 0; p < header->e_phnum; ++p) {
    if (programs[p].p_type == PT_LOAD) {
      image_high = std::max(image_high, image_base + programs[p].p_vaddr + programs[p].p_memsz);
    }
  }
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(bytes.data() + header->e_shoff);
  for (int s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(bytes.data() + sections[s].sh_offset);
    const char* names = bytes.data() + sections[sections[s].sh_link].sh_offset;
    for (std::size_t i = 0; i < sections[s].sh_size / sizeof(ElfW(Sym)); ++i) {
      const auto& symbol = symbols[i];
      const char* mangled = names + symbol.st_name;
      const unsigned type = symbol.st_info & 0xf, section = symbol.st_shndx;
      if (type == STT_FUNC && symbol.st_value != 0) functions[image_base + symbol.st_value] = mangled;
      // Variables of a function, in memory that is zero at first.
      if (type != STT_OBJECT || section == SHN_UNDEF || section >= header->e_shnum ||
          sections[section].sh_type != SHT_NOBITS || std::strncmp(mangled, "_ZZ", 3) != 0) {
        continue;
      }
      int status = 0;
      char* plain = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
      std::string name = plain ? plain : mangled;
      std::free(plain);
      const std::size_t last = name.rfind("::");
      if (last != std::string::npos) name = name.substr(last + 2);
      variables.push_back({image_base + symbol.st_value, symbol.st_size, name, mangled});
    }
  }
  std::sort(variables.begin(), variables.end(),
            [](const Variable& a, const Variable& b) { return a.address < b.address; });
  dynamic_cells = make_cells(0, most_shared_bytes);
  if (variables.empty()) return;
  variables_low = variables.front().address / granule * granule;
  variables_high = variables.back().address + variables.back().size;
  variable_at.assign((variables_high - variables_low) / granule + 1, 0);
  for (std::size_t v = 0; v < variables.size(); ++v) {
    const std::uintptr_t first = variables[v].address - variables_low, last = first + variables[v].size - 1;
    for (std::uintptr_t g = first / granule; g <= last / granule; ++g) {
      variable_at[g] = static_cast<std::uint16_t>(v + 1);
    }
  }
  variable_cells = make_cells(variables_low, variables_high - variables_low);
}

// ---- Reports.

std::string hexadecimal(std::uintptr_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%zx", static_cast<std::size_t>(value));
  return text;
}

// Names memory for a report.
struct Place {
  const Variable* variable;
  const Shadow* shadow;
  bool dynamic;
};

std::string text_of(const Place& place, std::uintptr_t address) {
  if (place.variable) {
    return "shared " + place.variable->name + " + " + std::to_string(address - place.variable->address);
  }
  if (place.dynamic) {
    return "dynamic shared memory + " + std::to_string(address - reinterpret_cast<std::uintptr_t>(dynamic_memory()));
  }
  return std::string(place.shadow->region.scratch ? "scratch memory of " : "an array of ") +
         std::to_string(place.shadow->region.size) + " bytes + " +
         std::to_string(address - place.shadow->region.address);
}

// Whether what is found between these two places was not found before in this launch.
bool is_new(const char* kind, std::uint32_t pc, std::uint32_t other_pc) {
  return findings.size() < most_findings && found.emplace(kind, pc, other_pc).second;
}

void report(const char* kind, const std::string& text) {
  const uint3& block = built_ins.block;
  findings.push_back(std::string(kind) + " in " + machine.launch->name + ", block (" + std::to_string(block.x) + ", " +
                     std::to_string(block.y) + ", " + std::to_string(block.z) + "), " +
                     name_of_thread(machine.now->number) + ": " + text);
}

std::string verb(Kind kind) { return kind == Kind::read ? "reads" : kind == Kind::write ? "writes" : "updates"; }

void report_race(Kind kind, std::uint32_t pc, const Record& other, Kind other_kind, const Place& place,
                 std::uintptr_t address) {
  if (!is_new("race", pc, other.pc)) return;
  std::string who;
  if (other.phase < block_first) {
    const auto after = std::upper_bound(block_phases.begin(), block_phases.end(), other.phase,
                                        [](std::uint32_t a, const auto& b) { return a < b.first; });
    const std::int64_t block = std::prev(after)->second, x = machine.launch->grid.x, y = machine.launch->grid.y;
    who = "block (" + std::to_string(block % x) + ", " + std::to_string(block / x % y) + ", " +
          std::to_string(block / x / y) + ") ";
  }
  const int lane = __builtin_ctz(other.lanes);
  who += name_of_thread(static_cast<int>(other.warp) * warp_lanes + lane);
  report("race", verb(kind) + " " + text_of(place, address) + " at " + line_of(pc) + calls() + ", which " + who + " " +
                     verb(other_kind) + " at " + line_of(other.pc) + "; nothing orders the two");
}

// ---- Accesses.

std::uint32_t* clock_of(const Thread& thread) {
  const int warp = thread.number / warp_lanes;
  if (clock_phase[warp] != phase) {
    clock_phase[warp] = phase;
    for (int lane = 0; lane < warp_lanes; ++lane) {
      std::uint32_t* clock = clocks[warp * warp_lanes + lane];
      std::fill(clock, clock + warp_lanes, 0u);
      clock[lane] = 1;
    }
  }
  return clocks[thread.number];
}

struct Self {
  std::uint32_t pc;
  unsigned warp, lane;
  const std::uint32_t* clock;
  std::uint32_t first;  // accesses before this phase do not matter: of other blocks to shared memory, of other launches
};

// The lanes of a record that no barrier orders before this access.
unsigned unordered(const Record& record, const Self& self, unsigned bytes) {
  if (record.phase < self.first || !(record.bytes & bytes)) return 0;
  if (record.phase < block_first) return record.lanes;
  if (record.phase != phase) return 0;
  if (record.warp != self.warp) return record.lanes;
  unsigned open = 0;
  for (unsigned rest = record.lanes & ~(1u << self.lane); rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (self.clock[lane] < record.time) open |= 1u << lane;
  }
  return open;
}

void note_read(Cell& cell, const Self& self, unsigned bytes) {
  Record& last = cell.read;
  const std::uint32_t time = self.clock[self.lane];
  if (last.phase == phase && last.warp == self.warp && last.bytes == bytes) {
    if (last.time != time) {
      unsigned still = 0;
      for (unsigned rest = last.lanes; rest != 0; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        if (self.clock[lane] < last.time) still |= 1u << lane;
      }
      last.time = still != 0 && last.time < time ? last.time : time;
      last.lanes = still;
    }
    last.lanes |= 1u << self.lane;
    last.pc = self.pc;
    return;
  }
  const bool by_this_block = last.phase >= block_first;
  const bool keeps_other = cell.other_read.phase >= self.first && cell.other_read.phase < block_first && by_this_block;
  if (last.phase >= self.first && !keeps_other) cell.other_read = last;
  last = {phase, 1u << self.lane, self.pc, 0, time, self.warp, bytes};
}

// What a word is checked against, in addition to its cell.
struct Memory {
  Place place;
  Cell* cells;
  std::uintptr_t cells_address;
  bool shared, initialised;
};

void check_word(Cell& cell, Kind kind, unsigned bytes, const Self& self, const Memory& memory, std::uintptr_t address,
                bool needs_value) {
  const auto check_against = [&](const Record& record, Kind record_kind) {
    Record other = record;
    other.lanes = unordered(record, self, bytes);
    if (other.lanes != 0) report_race(kind, self.pc, other, record_kind, memory.place, address);
  };
  check_against(cell.write, Kind::write);
  if (kind != Kind::atomic) check_against(cell.atomic, Kind::atomic);
  if (kind != Kind::read) {
    check_against(cell.read, Kind::read);
    check_against(cell.other_read, Kind::read);
  }
  const unsigned init = memory.shared && cell.write.phase < block_first ? 0 : cell.write.init;
  if (needs_value && (bytes & ~init) != 0 && is_new("uninitialised", self.pc, 0)) {
    report("uninitialised", verb(kind) + " " + text_of(memory.place, address) + ", which has no value, at " +
                                line_of(self.pc) + calls());
  }
  const std::uint32_t time = self.clock[self.lane];
  if (kind == Kind::read) {
    note_read(cell, self, bytes);
  } else if (kind == Kind::write) {
    cell.write = {phase, 1u << self.lane, self.pc, (init | bytes) & 0xf, time, self.warp, bytes};
  } else {
    cell.atomic = {phase, 1u << self.lane, self.pc, 0, time, self.warp, bytes};
  }
}

void check_words(const Memory& memory, std::uintptr_t address, std::size_t size, Kind kind, const Self& self) {
  const std::uintptr_t end = address + size;
  for (std::uintptr_t word = address / 4 * 4; word < end; word += 4) {
    const unsigned first = word < address ? static_cast<unsigned>(address - word) : 0;
    const unsigned last = end - word < 4 ? static_cast<unsigned>(end - word) : 4;
    const unsigned bytes = (0xfu << first) & (0xfu >> (4 - last));
    // Aggregates are copied with what lies between their members, which never has a value.
    const bool padding = size > 8 && word % 8 == 4 && word > address;
    check_word(memory.cells[(word - memory.cells_address) / 4], kind, bytes, self, memory,
               word < address ? address : word, kind != Kind::write && !memory.initialised && !padding);
  }
}

unsigned generation() { return own_regions->generation() + array_regions->generation(); }

Shadow* shadow_of(std::uintptr_t address) {
  const unsigned now = generation();
  if (recent_generation != now) {
    std::fill(recent, recent + n_recent, nullptr);
    recent_generation = now;
  }
  for (Shadow* shadow : recent) {
    if (shadow && address - shadow->region.address < shadow->region.size) return shadow;
  }
  Region region{};
  if (!find_region(address, &region)) return nullptr;
  auto known = shadows.find(region.address);
  if (known == shadows.end() || known->second.region.serial != region.serial) {
    Shadow shadow{region, make_cells(region.address, region.size)};
    known = shadows.insert_or_assign(region.address, std::move(shadow)).first;
  }
  Shadow* shadow = &known->second;
  recent[next_recent++ % n_recent] = shadow;
  return shadow;
}

[[noreturn]] void stop_at(const char* kind, std::uint32_t pc, const std::string& text) {
  stop(kind, text + " at " + line_of(pc) + calls());
}

// Describes memory that a kernel may not touch.
std::string describe_outside(std::uintptr_t address) {
  for (int number = 0; number < machine.n_threads; ++number) {
    const Thread& thread = machine.threads[number];
    if (address - reinterpret_cast<std::uintptr_t>(thread.stack_low) <
        static_cast<std::uintptr_t>(thread.stack_high - thread.stack_low)) {
      return "local memory of " + name_of_thread(number);
    }
  }
  for (auto old = freed.rbegin(); old != freed.rend(); ++old) {
    if (address - old->region.address < old->region.size) {
      return "freed scratch memory of " + std::to_string(old->region.size) + " bytes + " +
             std::to_string(address - old->region.address);
    }
  }
  constexpr std::uintptr_t near = 1 << 16;
  Region region{};
  for (std::uintptr_t back = 1; back <= near; back *= 2) {
    if (find_region(address - back, &region)) {
      return std::to_string(address - region.address - region.size) + " bytes beyond the end of " +
             (region.scratch ? "scratch memory" : "an array") + " of " + std::to_string(region.size) + " bytes";
    }
    if (find_region(address + back, &region)) {
      return std::to_string(region.address - address) + " bytes before the start of " +
             (region.scratch ? "scratch memory" : "an array") + " of " + std::to_string(region.size) + " bytes";
    }
  }
  return "memory that is neither allocated, nor registered, nor of a NumPy array made since the checked module was "
         "loaded (" +
         hexadecimal(address) + ")";
}

void access_slowly(std::uintptr_t address, std::size_t size, Kind kind, std::uint32_t pc) {
  const Thread& thread = *machine.now;
  Self self{pc, static_cast<unsigned>(thread.number / warp_lanes), static_cast<unsigned>(thread.number % warp_lanes),
            clock_of(thread), block_first};
  if (address >= image_low && address < image_high) {
    if (address - reinterpret_cast<std::uintptr_t>(&built_ins) < sizeof(built_ins)) return;
    const auto dynamic = reinterpret_cast<std::uintptr_t>(dynamic_memory());
    if (address - dynamic < most_shared_bytes) {
      if (address - dynamic + size > machine.launch->dynamic_bytes) {
        stop_at("bounds", pc,
                verb(kind) + " " + std::to_string(size) + " bytes at " + std::to_string(address - dynamic) +
                    " of dynamic shared memory of " + std::to_string(machine.launch->dynamic_bytes) + " bytes");
      }
      check_words({{nullptr, nullptr, true}, dynamic_cells.get(), dynamic, true, false}, address, size, kind, self);
      return;
    }
    if (address >= variables_low && address < variables_high + 4096) {
      const std::size_t at = (address - variables_low) / granule;
      const unsigned index = at < variable_at.size() ? variable_at[at] : 0;
      const Variable* variable = index ? &variables[index - 1] : nullptr;
      if (variable && address >= variable->address && address + size <= variable->address + variable->size) {
        check_words({{variable, nullptr, false}, variable_cells.get(), variables_low, true, false}, address, size, kind,
                    self);
        return;
      }
      // Between variables: beyond the end of the one before.
      std::size_t before = 0;
      while (before + 1 < variables.size() && variables[before + 1].address <= address) ++before;
      stop_at("bounds", pc,
              verb(kind) + " " + std::to_string(size) + " bytes at " +
                  std::to_string(static_cast<std::intptr_t>(address - variables[before].address)) + " of shared " +
                  variables[before].name + " of " + std::to_string(variables[before].size) + " bytes");
    }
    if (kind != Kind::read) stop_at("bounds", pc, verb(kind) + " a constant");
    return;
  }
  Shadow* shadow = shadow_of(address);
  if (shadow == nullptr) {
    stop_at("bounds", pc, verb(kind) + " " + std::to_string(size) + " bytes, " + describe_outside(address) + ",");
  }
  const Region& region = shadow->region;
  if (address - region.address + size > region.size) {
    stop_at("bounds", pc,
            verb(kind) + " " + std::to_string(size) + " bytes at " + std::to_string(address - region.address) + " of " +
                (region.scratch ? "scratch memory" : "an array") + " of " + std::to_string(region.size) + " bytes");
  }
  if (region.device >= 0 && region.device != device_now()) {
    stop_at("bounds", pc,
            verb(kind) + " memory of device " + std::to_string(region.device) + " on device " +
                std::to_string(device_now()));
  }
  self.first = launch_first;
  if (kind != Kind::read && !region.writable) stop_at("bounds", pc, verb(kind) + " an array that is read-only");
  check_words({{nullptr, shadow, false}, shadow->cells.get(), region.address / 4 * 4, false, region.initialised},
              address, size, kind, self);
}

inline void access(const void* pointer, std::size_t size, Kind kind, const void* pc) {
  const Thread* thread = machine.now;
  if (thread == nullptr) return;
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (address - reinterpret_cast<std::uintptr_t>(thread->stack_low) <
      static_cast<std::uintptr_t>(thread->stack_high - thread->stack_low)) {
    return;
  }
  if (address - reinterpret_cast<std::uintptr_t>(machine.launch->parameters) < machine.launch->parameters_size) return;
  access_slowly(address, size, kind, offset_of(pc));
}

}  // namespace

std::size_t static_bytes(const void* kernel) {
  if (image_base == 0) read_symbols();
  const auto function = functions.find(reinterpret_cast<std::uintptr_t>(kernel));
  if (function == functions.end()) return 0;
  const std::string start = "_ZZ" + function->second.substr(2) + "E";
  std::size_t bytes = 0;
  for (const Variable& variable : variables) {
    if (variable.mangled.rfind(start, 0) == 0) bytes += variable.size;
  }
  return bytes;
}

void begin_launch() {
  // Shadows of memory that is gone.
  for (auto entry = shadows.begin(); swept_generation != generation() && entry != shadows.end();) {
    Region region{};
    const bool current = find_region(entry->first, &region) && region.serial == entry->second.region.serial;
    entry = current ? std::next(entry) : shadows.erase(entry);
  }
  swept_generation = generation();
  recent_generation = swept_generation - 1;
  launch_first = phase + 1;
  block_phases.clear();
  findings.clear();
  found.clear();
}

std::string take_findings() {
  std::string text;
  for (const std::string& finding : findings) text += (text.empty() ? "" : "\n") + finding;
  findings.clear();
  return text;
}

void begin_block() {
  block_first = ++phase;
  block_phases.emplace_back(phase, machine.block);
  std::fill(depths, depths + machine.n_threads, 0);
}

void pass_barrier() { ++phase; }

void pass_warp_barrier(const Warp& warp, unsigned mask) {
  clock_of(machine.threads[warp.number * warp_lanes]);  // begins those of this phase
  std::uint32_t (*rows)[warp_lanes] = clocks + warp.number * warp_lanes;
  std::uint32_t joined[warp_lanes] = {};
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const std::uint32_t* row = rows[__builtin_ctz(rest)];
    for (int lane = 0; lane < warp_lanes; ++lane) joined[lane] = std::max(joined[lane], row[lane]);
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int own = __builtin_ctz(rest);
    std::copy(joined, joined + warp_lanes, rows[own]);
    ++rows[own][own];
  }
}

std::string different_path(int first, int second) {
  if (depths[first] == depths[second] &&
      std::equal(paths[first], paths[first] + std::min(depths[first], most_depth), paths[second])) {
    return "";
  }
  const std::string one = calls_of(first), other = calls_of(second);
  return one == other ? "" : one + " and" + other;
}

void atomic(const void* address, std::size_t size, const void* pc) { access(address, size, Kind::atomic, pc); }

void host_access(const void* pointer, std::size_t size, bool write, const char* call) {
  if (size == 0) return;
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  Shadow* shadow = shadow_of(address);
  if (shadow == nullptr || address - shadow->region.address + size > shadow->region.size) {
    throw Error{std::string("bounds: ") + call + " of " + std::to_string(size) + " bytes, " +
                (shadow ? std::to_string(address - shadow->region.address) + " bytes into memory of " +
                              std::to_string(shadow->region.size)
                        : describe_outside(address))};
  }
  if (write && !shadow->region.writable) throw Error{std::string("bounds: ") + call + " into read-only memory"};
  if (shadow->region.initialised) return;
  const std::uintptr_t first = shadow->region.address / 4 * 4;
  for (std::uintptr_t byte = address; byte < address + size; ++byte) {
    Record& record = shadow->cells[(byte - first) / 4].write;
    if (write) {
      record.init |= 1u << byte % 4;
    } else if (!(record.init >> byte % 4 & 1)) {
      throw Error{std::string("uninitialised: ") + call + " reads byte " +
                  std::to_string(byte - shadow->region.address) + " of memory of " +
                  std::to_string(shadow->region.size) + " bytes, which has no value"};
    }
  }
}

void release(const Region& region, void* block) {
  freed.push_back({region, block});
  freed_bytes += region.size;
  while (freed_bytes > most_freed_bytes) {
    freed_bytes -= freed.front().region.size;
    std::free(freed.front().block);
    freed.pop_front();
  }
}

}  // namespace checker
}  // namespace simt

// ---- What the compiler calls.

using simt::checker::access;
using simt::checker::Kind;

#define SIMT_HOOK(size)                                                                                               \
  void __tsan_read##size(void* address) { access(address, size, Kind::read, __builtin_return_address(0)); }           \
  void __tsan_write##size(void* address) { access(address, size, Kind::write, __builtin_return_address(0)); }         \
  void __tsan_unaligned_read##size(void* address) { access(address, size, Kind::read, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##size(void* address) { access(address, size, Kind::write, __builtin_return_address(0)); }

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void* pc) {
  if (simt::machine.now == nullptr) return;
  const int number = simt::machine.now->number;
  int& depth = simt::checker::depths[number];
  if (depth < simt::checker::most_depth) simt::checker::paths[number][depth] = simt::checker::offset_of(pc);
  ++depth;
}
void __tsan_func_exit() {
  if (simt::machine.now == nullptr) return;
  --simt::checker::depths[simt::machine.now->number];
}
SIMT_HOOK(1)
SIMT_HOOK(2)
SIMT_HOOK(4)
SIMT_HOOK(8)
SIMT_HOOK(16)
void __tsan_read_range(void* address, unsigned long size) {
  access(address, size, Kind::read, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long size) {
  access(address, size, Kind::write, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

struct UbsanLocation {
  const char* file;
  std::uint32_t line, column;
};
}

namespace simt {
namespace checker {
namespace {

[[noreturn]] void stop_at(const char* kind, const UbsanLocation& location, const std::string& text) {
  stop(kind, text + " at " + simt::text_of(Site{location.file, static_cast<int>(location.line)}) + calls());
}

void report_at(const UbsanLocation& location, const void* pc, const std::string& text) {
  if (machine.now == nullptr || !is_new("arithmetic", offset_of(pc), location.line)) return;
  report("arithmetic", text + " at " + simt::text_of(Site{location.file, static_cast<int>(location.line)}) + calls());
}

}  // namespace
}  // namespace checker
}  // namespace simt

#define SIMT_REPORT(name, text, ...)                                        \
  void __ubsan_handle_##name(UbsanLocation* location, ##__VA_ARGS__) {      \
    simt::checker::report_at(*location, __builtin_return_address(0), text); \
  }

extern "C" {
void __ubsan_handle_out_of_bounds(UbsanLocation* location, std::uintptr_t index) {
  if (simt::machine.now == nullptr) return;
  simt::checker::stop_at("bounds", *location,
                         "index " + std::to_string(static_cast<std::intptr_t>(index)) + " is out of an array's bounds");
}
void __ubsan_handle_type_mismatch_v1(UbsanLocation* location, std::uintptr_t address) {
  if (simt::machine.now == nullptr) return;
  simt::checker::stop_at("bounds", *location, "misaligned access to " + simt::checker::hexadecimal(address));
}
SIMT_REPORT(shift_out_of_bounds, "a shift is too wide", std::uintptr_t, std::uintptr_t)
SIMT_REPORT(add_overflow, "a sum overflows", std::uintptr_t, std::uintptr_t)
SIMT_REPORT(sub_overflow, "a difference overflows", std::uintptr_t, std::uintptr_t)
SIMT_REPORT(mul_overflow, "a product overflows", std::uintptr_t, std::uintptr_t)
SIMT_REPORT(negate_overflow, "a negation overflows", std::uintptr_t)
SIMT_REPORT(divrem_overflow, "a division overflows or has divisor 0", std::uintptr_t, std::uintptr_t)
SIMT_REPORT(float_cast_overflow, "a value does not fit the integer it becomes", std::uintptr_t)
}
