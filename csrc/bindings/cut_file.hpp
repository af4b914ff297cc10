// A mapped file that is cut short takes its pages away: the next read of them raises SIGBUS, not an error.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace egt::bindings {

namespace cut_file {

inline char before[256], after[512];
inline struct sigaction previous;

inline void write_all(const char* text, std::size_t length) {
  while (length > 0) {
    const ssize_t written = ::write(STDERR_FILENO, text, length);
    if (written <= 0) return;
    text += written;
    length -= static_cast<std::size_t>(written);
  }
}

// Write the name of the file that an address is mapped from, as /proc/self/maps has it: "from-to flags ... /path\n".
// Only Linux has that list.
inline void write_file_at(std::uintptr_t address) {
  const int maps = ::open("/proc/self/maps", O_RDONLY);
  if (maps < 0) {
    constexpr char unnamed[] = "a mapped file";
    return write_all(unnamed, sizeof(unnamed) - 1);
  }
  std::uintptr_t numbers[2] = {0, 0};
  int field = 0;  // 0 and 1 the addresses, 2 the rest before the path, 3 the path
  char one;
  while (::read(maps, &one, 1) == 1) {
    const bool found = numbers[0] <= address && address < numbers[1];
    if (one == '\n') {
      if (field == 3 && found) break;
      numbers[0] = numbers[1] = 0;
      field = 0;
    } else if (field < 2) {
      const int digit = one >= '0' && one <= '9' ? one - '0' : one >= 'a' && one <= 'f' ? one - 'a' + 10 : -1;
      if (digit < 0) {
        ++field;
      } else {
        numbers[field] = 16 * numbers[field] + static_cast<std::uintptr_t>(digit);
      }
    } else {
      if (one == '/') field = 3;
      if (field == 3 && found) write_all(&one, 1);
    }
  }
  ::close(maps);
}

// Only calls that are allowed in a handler of signals.
inline void end(int, siginfo_t* info, void*) {
  write_all(before, std::strlen(before));
  write_file_at(reinterpret_cast<std::uintptr_t>(info->si_addr));
  write_all(after, std::strlen(after));
  ::_exit(2);
}

}  // namespace cut_file

// End the process with status 2 and one line on stderr, with the name of the file in its middle, on SIGBUS.
inline void end_on_cut_file(const std::string& before, const std::string& after) {
  using namespace cut_file;
  const auto keep = [](const std::string& text, char* to, std::size_t size) {
    const std::size_t length = std::min(text.size(), size - 1);
    std::memcpy(to, text.data(), length);
    to[length] = '\0';
  };
  keep(before, cut_file::before, sizeof(cut_file::before));
  keep(after, cut_file::after, sizeof(cut_file::after));
  struct sigaction action{};
  action.sa_sigaction = end;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous);
}

inline void restore_bus_error() { sigaction(SIGBUS, &cut_file::previous, nullptr); }

}  // namespace egt::bindings
