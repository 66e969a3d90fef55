// force_swap: make room for pinned GPU memory on a machine whose GPU shares the CPU's DRAM.
// CUDA pages are pinned and cannot be swapped; what can go is cold memory of *other* programs.
// Layers, top to bottom: parse (pure) - JSON (pure) - decide (pure) - world (system calls) -
// observe (world -> facts) - act (one step at a time) - commands. README.md has the reasons.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using std::optional, std::string, std::string_view, std::vector;
using u64 = std::uint64_t;
using i64 = std::int64_t;
constexpr u64 kMiB = 1ULL << 20, kGiB = 1ULL << 30;

enum Exit : int {
  kMet = 0,         // or: a dry run that is feasible
  kUsage = 2,       // the command line is wrong
  kRefused = 3,     // a safety rule forbids it
  kInfeasible = 4,  // it cannot be reached; the message has the gap
  kPartial = 5,     // some was freed, not enough
  kGuard = 6,       // a guard stopped it: pressure, slow swap, a floor
  kTimeout = 7,     // --max-seconds are over
  kDenied = 8,      // no permission, or the kernel cannot
  kInternal = 9,    // this program or /proc is broken
};

// ---- parse: text of the kernel or of a person -> values. Pure; any bytes are allowed in.

optional<u64> parse_u64(string_view text) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return {};
  return value;
}

u64 saturated_mul(u64 a, u64 b) {
  u64 product = 0;
  return __builtin_mul_overflow(a, b, &product) ? ~0ULL : product;
}

// "4G" "512MiB" "1.5GB" "4096": one letter and "iB" are binary, "B" is decimal.
optional<u64> parse_size(string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto whole = parse_u64(text.substr(0, digits));
  if (!whole) return {};
  string_view rest = text.substr(digits), fraction;
  if (!rest.empty() && rest[0] == '.') {
    const size_t end = std::min(rest.find_first_not_of("0123456789", 1), rest.size());
    fraction = rest.substr(1, end - 1);
    rest = rest.substr(end);
    if (fraction.empty() || fraction.size() > 6) return {};
  }
  u64 unit = 1;
  if (!rest.empty() && rest != "B") {
    const size_t power = string_view("KMGT").find(rest[0]);
    const bool decimal = rest.substr(1) == "B";
    if (power == string_view::npos) return {};
    if (!decimal && rest.size() > 1 && rest.substr(1) != "iB") return {};
    for (size_t i = 0; i <= power; ++i) unit *= decimal ? 1000 : 1024;
  }
  u64 scaled = fraction.empty() ? 0 : *parse_u64(fraction) * unit, bytes = 0;
  for (size_t i = 0; i < fraction.size(); ++i) scaled /= 10;
  if (__builtin_mul_overflow(*whole, unit, &bytes)) return {};
  if (__builtin_add_overflow(bytes, scaled, &bytes)) return {};
  return bytes;
}

optional<double> parse_decimal(string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return std::isfinite(value) ? optional(value) : std::nullopt;
}

vector<string_view> split(string_view text, string_view separators) {
  vector<string_view> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(separators, at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}
vector<string_view> lines_of(string_view text) { return split(text, "\n"); }
vector<string_view> words_of(string_view line) { return split(line, " \t"); }

// meminfo, vmstat, memory.stat: "Name: 12 kB" or "name 12"; kB becomes bytes.
using Keyed = std::map<string, u64, std::less<>>;
Keyed parse_keyed(string_view text) {
  Keyed values;
  for (const string_view line : lines_of(text)) {
    const auto words = words_of(line);
    if (words.size() < 2) continue;
    string_view name = words[0];
    if (name.back() == ':') name.remove_suffix(1);
    const auto number = parse_u64(words[1]);
    if (name.empty() || !number) continue;
    const bool kilo = words.size() > 2 && words[2] == "kB";
    values.insert_or_assign(string(name), kilo ? saturated_mul(*number, 1024) : *number);
  }
  return values;
}
u64 get(const Keyed& values, string_view name) {
  const auto at = values.find(name);
  return at == values.end() ? 0 : at->second;
}

struct Psi {
  u64 some_us = 0, full_us = 0;
};
Psi parse_psi(string_view text) {
  Psi psi;
  for (const string_view line : lines_of(text)) {
    const auto words = words_of(line);
    for (const string_view word : words) {
      if (!word.starts_with("total=")) continue;
      const u64 total = parse_u64(word.substr(6)).value_or(0);
      if (words[0] == "some") psi.some_us = total;
      if (words[0] == "full") psi.full_us = total;
    }
  }
  return psi;
}

struct SwapArea {
  string dev, type;
  u64 size = 0, used = 0;
  optional<bool> rotational;  // nothing: the kernel does not tell (a file, a container)
  bool zram = false, network = false;
};
// The kernel writes a blank in a file name as \040.
string unescape_octal(string_view text) {
  string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](size_t k) { return text[k] >= '0' && text[k] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      plain += static_cast<char>(((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')) & 0xff);
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}
vector<SwapArea> parse_swaps(string_view text) {
  vector<SwapArea> areas;
  for (const string_view line : lines_of(text)) {
    const auto words = words_of(line);
    if (words.size() < 5 || words[0] == "Filename") continue;
    const auto size = parse_u64(words[2]), used = parse_u64(words[3]);
    if (!size || !used) continue;
    SwapArea area{.dev = unescape_octal(words[0]),
        .type = string(words[1]),
        .size = saturated_mul(*size, 1024),
        .used = saturated_mul(*used, 1024),
        .rotational = {}};
    area.used = std::min(area.used, area.size);
    area.zram = area.dev.starts_with("/dev/zram");
    area.network = area.dev.starts_with("/dev/nbd");
    areas.push_back(std::move(area));
  }
  return areas;
}

struct Stat {
  int pid = 0, ppid = 0;
  char state = '?';
  u64 start = 0;  // clock ticks after boot: with the pid it names one process for ever
  string comm;
};
// /proc/PID/stat: the name stands in brackets and may itself hold brackets and blanks.
optional<Stat> parse_stat(string_view text) {
  const size_t open = text.find('('), close = text.rfind(')');
  if (open == string_view::npos || close == string_view::npos || close < open) return {};
  const auto rest = words_of(text.substr(close + 1));
  const auto head = words_of(text.substr(0, open));
  if (head.size() != 1 || rest.size() < 20) return {};
  const auto pid = parse_u64(head[0]), ppid = parse_u64(rest[1]), start = parse_u64(rest[19]);
  constexpr u64 kMax = 1U << 30;
  if (!pid || !ppid || !start || *pid > kMax || *ppid > kMax) return {};
  return Stat{.pid = static_cast<int>(*pid),
      .ppid = static_cast<int>(*ppid),
      .state = rest[0][0],
      .start = *start,
      .comm = string(text.substr(open + 1, close - open - 1))};
}

// "0::/user.slice/…" of /proc/PID/cgroup: the path in cgroup v2, without its first slash.
optional<string> parse_cgroup_line(string_view text) {
  for (const string_view line : lines_of(text))
    if (line.starts_with("0::/")) return string(line.substr(4));
  return {};
}

vector<int> parse_pids(string_view text) {
  vector<int> pids;
  for (const string_view line : lines_of(text))
    if (const auto pid = parse_u64(line); pid && *pid < (1U << 30)) pids.push_back(static_cast<int>(*pid));
  return pids;
}

// A limit file of a cgroup: "max" (nothing) or bytes.
optional<u64> parse_limit(string_view text) {
  const auto words = split(text, " \t\n");
  return words.size() == 1 ? parse_u64(words[0]) : std::nullopt;
}

struct Vma {
  u64 start = 0, length = 0, anon = 0;
  bool movable = true;  // private, anonymous, not locked, no device, no huge page
};
optional<Vma> parse_vma_head(const vector<string_view>& words) {
  if (words.size() < 5 || words[1].size() != 4) return {};
  const size_t dash = words[0].find('-');
  if (dash == string_view::npos) return {};
  u64 from = 0, to = 0;
  const auto hex = [](string_view part, u64& value) {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value, 16);
    return error == std::errc() && end == part.data() + part.size();
  };
  if (!hex(words[0].substr(0, dash), from) || !hex(words[0].substr(dash + 1), to)) return {};
  if (to <= from) return {};
  return Vma{.start = from, .length = to - from, .anon = 0, .movable = words[1][3] == 'p' && words[4] == "0"};
}
// smaps: only what MADV_PAGEOUT can move is kept.
vector<Vma> parse_smaps(string_view text) {
  vector<Vma> all;
  for (const string_view line : lines_of(text)) {
    const auto words = words_of(line);
    if (words.size() < 2) continue;
    if (auto head = parse_vma_head(words)) {
      all.push_back(*head);
    } else if (!all.empty() && words[0] == "Anonymous:") {
      all.back().anon = saturated_mul(parse_u64(words[1]).value_or(0), 1024);
    } else if (!all.empty() && words[0] == "VmFlags:") {
      for (const string_view flag : words)
        if (flag == "lo" || flag == "io" || flag == "pf" || flag == "ht") all.back().movable = false;
    }
  }
  std::erase_if(all, [](const Vma& vma) { return !vma.movable || vma.anon == 0; });
  return all;
}

// ---- JSON: one object, built in order. Bytes that are no UTF-8 become U+FFFD.

size_t utf8_length(string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(at);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + length > text.size()) return 0;
  unsigned code = first & (0xffU >> (length + 1));
  for (size_t i = at + 1; i < at + length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80U) return 0;
    code = code << 6U | (byte(i) & 0x3fU);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  return overlong || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff ? 0 : length;
}

class Json {
 public:
  Json& open(char bracket) { return comma(), out_ += bracket, fresh_ = true, *this; }
  Json& close(char bracket) { return out_ += bracket, fresh_ = false, *this; }
  Json& key(string_view name) { return put(name), out_ += ':', fresh_ = true, *this; }
  template <class T>
  Json& field(string_view name, const T& value) {
    return key(name).put(value);
  }
  Json& put(bool value) { return raw(value ? "true" : "false"); }
  Json& put(std::nullopt_t) { return raw("null"); }
  Json& put(int value) { return raw(std::to_string(value)); }
  Json& put(u64 value) { return raw(std::to_string(value)); }
  Json& put(i64 value) { return raw(std::to_string(value)); }
  Json& put(const char* text) { return put(string_view(text)); }
  Json& put(const string& text) { return put(string_view(text)); }
  Json& put(double value) {
    std::array<char, 64> text{};
    (void)std::snprintf(text.data(), text.size(), "%.3f", value);
    return raw(text.data());
  }
  template <class T>
  Json& put(const optional<T>& value) {
    return value ? put(*value) : put(std::nullopt);
  }
  Json& put(const vector<string>& values) {
    open('[');
    for (const string& value : values) put(value);
    return close(']');
  }
  Json& put(string_view text) {
    comma(), out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const size_t length = utf8_length(text, i);
      const char c = text[i];
      if (length == 0) {
        out_ += "\\ufffd";
      } else if (length > 1) {
        out_ += text.substr(i, length);
      } else if (c == '"' || c == '\\') {
        out_ += '\\', out_ += c;
      } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        std::array<char, 8> escape{};
        (void)std::snprintf(escape.data(), escape.size(), "\\u%04x", static_cast<unsigned>(c));
        out_ += escape.data();
      } else {
        out_ += c;
      }
      i += std::max<size_t>(length, 1);
    }
    return out_ += '"', *this;
  }
  [[nodiscard]] const string& text() const { return out_; }

 private:
  Json& raw(string_view text) { return comma(), out_ += text, *this; }
  void comma() {
    if (!fresh_) out_ += ',';
    fresh_ = false;
  }
  string out_;
  bool fresh_ = true;
};

// ---- decide: request and facts -> what to do, or why not. Pure: no system call below here
// until the next section.

__attribute__((format(printf, 1, 2))) string text_of(const char* format, ...) {
  std::array<char, 1024> buffer{};
  va_list values;
  va_start(values, format);
  (void)std::vsnprintf(buffer.data(), buffer.size(), format, values);
  va_end(values);
  return buffer.data();
}
string human(u64 bytes) {
  const auto size = static_cast<double>(bytes);
  return bytes >= kGiB ? text_of("%.2f GiB", size / static_cast<double>(kGiB))
                       : text_of("%.1f MiB", size / static_cast<double>(kMiB));
}
u64 less(u64 a, u64 b) { return a > b ? a - b : 0; }

struct Roots {
  string proc = "/proc", sys = "/sys", cgroup = "/sys/fs/cgroup";
  bool fake = false;  // any fake root: the whole run is a rehearsal, each write is only recorded
};

struct Request {
  string cmd, phase = "preflight", engine_unit, lock = "/run/force_swap.lock";
  optional<u64> target_available, target_free, total;
  optional<double> util;
  u64 init_overhead = 2 * kGiB, reserve = 4 * kGiB, swap_reserve = 2 * kGiB;
  u64 step = 64 * kMiB, max_bytes = 16 * kGiB;
  double max_seconds = 120, psi_full = 10, swapin_mbs = 50;
  bool apply = false, dry_run = false, allow_zram = false, allow_slow_swap = false;
  vector<string> cgroups, excluded, paths;
  vector<int> pids;
  int engine_pid = 0;
  Roots roots;
};

struct Verdict {
  int exit = kMet;
  string reason, message, hint;
};
struct Process {
  int pid = 0;  // 0: a process of another pid namespace
  string comm;
  vector<string> argv;
};
struct Candidate {
  string cgroup;
  int pid = 0;         // not 0: page out this process, then drain through its cgroup
  bool named = false;  // by --cgroup or --pid itself: then a refusal refuses the whole run
  u64 inactive_anon = 0, active_anon = 0, unevictable = 0, current = 0;
  optional<u64> swap_room;  // the least room under memory.swap.max, its own and its parents'
  vector<Process> processes;
  vector<Vma> vmas;
  u64 device = 0, inode = 0, start = 0;  // who it is: must be the same when we act
  Verdict problem;                       // what observing it met
  // LRU sizes leave out what is unevictable, so mlocked pages are not in this sum.
  [[nodiscard]] u64 evictable() const {
    u64 bytes = inactive_anon + active_anon;
    if (pid != 0) {
      bytes = 0;
      for (const Vma& vma : vmas) bytes += vma.anon;
    }
    return std::min(bytes, swap_room.value_or(~0ULL));
  }
};
struct Engine {
  int pid = 0;
  bool alive = false;
  string how;
};
struct Guarded {
  std::set<int> lineage;  // this process and all that it descends from: sidecar, shell, sshd
  Engine engine;
  string engine_unit;
};
struct Cuda {  // fills shared memory of a child: plain data only
  enum State : int { kAbsent, kOk, kError } state = kAbsent;
  std::array<char, 160> error{};
  std::array<char, 96> device{};
  u64 total = 0;
  std::array<int, 5> attrs{-1, -1, -1, -1, -1};
};
struct Facts {
  Keyed info;
  vector<SwapArea> swaps;
  Cuda cuda;
  string cgroup = "none";  // v2, v1 or none
  vector<Candidate> candidates;
  Guarded guarded;
  bool host_root = false;  // root, and in the host's own pid namespace
};
struct Decision : Verdict {
  optional<u64> want_available, want_free;
  u64 deficit = 0;
  vector<size_t> order;  // of facts.candidates, best first
  vector<string> warnings;
};

bool is_one_of(string_view text, std::initializer_list<string_view> names) {
  return std::find(names.begin(), names.end(), text) != names.end();
}
// A unit whose stall makes the machine unreachable.
bool protected_unit(string_view name) {
  return is_one_of(name,
             {"init.scope", "ssh.service", "sshd.service", "ssh.socket", "dbus.service", "dbus.socket",
                 "dbus-broker.service", "nvidia-persistenced.service"}) ||
      name.starts_with("systemd-") || name.starts_with("sshd@") || name.starts_with("ssh@");
}
bool runs_program(const Process& process, string_view program) {
  const size_t last = std::min<size_t>(process.argv.size(), 4);
  for (size_t i = 0; i < last; ++i) {
    const string_view word = process.argv[i];
    const string_view base = word.substr(word.rfind('/') + 1);
    if (base == program) return true;
    if (i > 0 && process.argv[i - 1] == "-m" && base.starts_with(string(program) + ".")) return true;
  }
  return process.comm == program;
}
bool is_engine(const Process& process) { return process.comm.starts_with("VLLM::") || runs_program(process, "vllm"); }
// What this process is that must never wait for swap, or "".
string protected_role(const Process& process, const Guarded& guarded) {
  const string_view comm = process.comm;
  if (process.pid != 0 && guarded.lineage.contains(process.pid)) return "this program's own line";
  if (process.pid != 0 && process.pid == guarded.engine.pid) return "the engine";
  if (is_engine(process)) return "the engine";
  if (runs_program(process, "appliance")) return "the sidecar";
  if (is_one_of(comm, {"sshd", "sshd-session", "sshd-auth"})) return "sshd";
  if (comm.starts_with("dbus-daemon") || comm.starts_with("dbus-broker")) return "dbus";
  if (is_one_of(comm, {"systemd", "init", "(sd-pam)"}) || comm.starts_with("systemd-")) return "systemd";
  return comm.starts_with("nvidia-persist") ? "nvidia-persistenced" : "";
}
bool names_unit(string_view component, const string& unit) {
  return !unit.empty() &&
      (component == unit || component == unit + ".service" || component == unit + ".scope" ||
          component == unit + ".slice");
}

Verdict judge(const Candidate& candidate, const Guarded& guarded) {
  if (candidate.problem.exit != kMet) return candidate.problem;
  const string name = "cgroup " + candidate.cgroup;
  for (const string_view part : split(candidate.cgroup, "/")) {
    if (names_unit(part, guarded.engine_unit))
      return {kRefused, "protected", name + " is the engine", "choose other cgroups"};
    if (protected_unit(part))
      return {kRefused, "protected", name + " is protected: " + string(part),
          "choose other cgroups: this one keeps the machine reachable"};
  }
  for (const Process& process : candidate.processes) {
    const string role = protected_role(process, guarded);
    if (!role.empty())
      return {kRefused, "protected",
          text_of("%s holds %s (pid %d, %.32s)", name.c_str(), role.c_str(), process.pid, process.comm.c_str()),
          "choose a leaf cgroup without it"};
  }
  if (candidate.swap_room == 0U)
    return {kRefused, "swap_max", name + " may not swap: memory.swap.max, its own or a parent's",
        "systemctl set-property UNIT MemorySwapMax=infinity"};
  return {};
}

// ceil as vLLM does it: request_memory compares with ceil(total * utilization).
void set_targets(const Request& request, const Facts& facts, Decision& decision) {
  decision.want_available = request.target_available;
  decision.want_free = request.target_free;
  if (!request.util) return;
  const bool known = facts.cuda.state == Cuda::kOk && facts.cuda.total > 0;
  const u64 total = request.total.value_or(known ? facts.cuda.total : get(facts.info, "MemTotal"));
  if (!request.total && !known) decision.warnings.emplace_back("no CUDA driver answers: --util is taken of MemTotal");
  const double share = std::ceil(static_cast<double>(total) * *request.util);
  decision.want_available = static_cast<u64>(share) + request.init_overhead;
}

u64 missing(const Decision& decision, const Keyed& info) {
  const u64 available = less(decision.want_available.value_or(0), get(info, "MemAvailable"));
  return std::max(available, less(decision.want_free.value_or(0), get(info, "MemFree")));
}
// What the end may fall short of the target: 64 MiB or 2 %, but never more than a quarter of it.
u64 tolerance(u64 deficit) { return std::min(std::max(64 * kMiB, deficit / 50), deficit / 4); }

bool permitted(const SwapArea& area, const Request& request) {
  return (request.allow_zram || !area.zram) &&
      (request.allow_slow_swap || !(area.rotational.value_or(false) || area.network));
}
u64 usable_swap(const vector<SwapArea>& swaps, const Request& request) {
  u64 bytes = 0;
  for (const SwapArea& area : swaps)
    if (permitted(area, request)) bytes += area.size - area.used;
  return bytes;
}

Verdict judge_machine(const Request& request, const Facts& facts, const Decision& decision) {
  const Engine& engine = facts.guarded.engine;
  const u64 total = get(facts.info, "MemTotal");
  const u64 want = std::max(decision.want_available.value_or(0), decision.want_free.value_or(0));
  if (request.util && facts.cuda.state == Cuda::kOk && facts.cuda.attrs[0] == 0)
    return {kRefused, "discrete_gpu", "this GPU has memory of its own: --util says nothing here",
        "use --target-available, or nothing: host memory does not limit this GPU"};
  if (want > less(total, request.reserve))
    return {kInfeasible, "target_too_high",
        text_of("target %s is more than MemTotal %s less --reserve %s", human(want).c_str(), human(total).c_str(),
            human(request.reserve).c_str()),
        "ask for less: a lower utilization, a smaller KV cache"};
  if (request.phase == "preflight" && engine.alive)
    return {kRefused, "engine_alive",
        text_of("an engine is alive (pid %d, %.64s): memory freed while it loads makes it abort", engine.pid,
            engine.how.c_str()),
        "stop it first, or --phase ready once it serves"};
  if (request.phase == "ready" && !engine.alive)
    return {kRefused, "engine_not_alive", "--phase ready, but no engine is alive",
        "name it with --engine-pid or --engine-unit, or use --phase preflight"};
  if (facts.swaps.empty())
    return {kRefused, "no_swap", "this machine has no swap: cold pages have nowhere to go",
        "add a swap file on NVMe, or stop programs; drop-cache still works"};
  const bool only_zram =
      std::all_of(facts.swaps.begin(), facts.swaps.end(), [](const SwapArea& area) { return area.zram; });
  if (only_zram && !request.allow_zram)
    return {kRefused, "zram_only", "all swap is zram, which lives in the memory to be freed",
        "add swap on NVMe, or --allow-zram if the pages compress well"};
  const bool none = std::none_of(
      facts.swaps.begin(), facts.swaps.end(), [&](const SwapArea& area) { return permitted(area, request); });
  if (none)
    return {kRefused, "slow_swap", "all usable swap is on a rotating disk or a network",
        "add swap on NVMe, or --allow-slow-swap and a longer --max-seconds"};
  return {};
}

Verdict judge_amounts(const Request& request, const Facts& facts, const Decision& decision) {
  u64 evictable = 0, locked = 0;
  for (const size_t i : decision.order) {
    evictable += facts.candidates[i].evictable();
    locked += facts.candidates[i].unevictable;
  }
  const u64 need = less(decision.deficit, tolerance(decision.deficit));
  const u64 swap = usable_swap(facts.swaps, request), room = less(swap, request.swap_reserve);
  const string deficit = human(decision.deficit);
  if (request.max_bytes < need)
    return {kInfeasible, "max_bytes",
        text_of("%s are missing, more than --max-bytes %s", deficit.c_str(), human(request.max_bytes).c_str()),
        "raise --max-bytes, or ask for less"};
  if (room < need)
    return {kInfeasible, "swap_too_small",
        text_of("%s are missing; usable swap has %s free, less --swap-reserve %s: %s short", deficit.c_str(),
            human(swap).c_str(), human(request.swap_reserve).c_str(), human(less(decision.deficit, room)).c_str()),
        "add swap, or ask for less"};
  if (evictable < need)
    return {kInfeasible, "too_little_evictable",
        text_of("%s are missing; the chosen cgroups can give %s: %s short%s%s", deficit.c_str(),
            human(evictable).c_str(), human(less(decision.deficit, evictable)).c_str(),
            locked ? "; mlocked or unevictable there: " : "", locked ? human(locked).c_str() : ""),
        "name more cgroups (force_swap plan lists them), stop programs, or ask for less"};
  return {};
}

// Which candidates may be used; one that was named and is protected refuses the whole run.
Verdict choose(const Facts& facts, Decision& decision) {
  Verdict worst;
  for (size_t i = 0; i < facts.candidates.size(); ++i) {
    const Candidate& candidate = facts.candidates[i];
    const Verdict verdict = judge(candidate, facts.guarded);
    if (verdict.exit == kMet) {
      decision.order.push_back(i);
    } else if (candidate.named) {
      if (verdict.exit == kRefused) return verdict;
      decision.warnings.push_back(verdict.message);
    }
    if (verdict.exit > worst.exit && (candidate.named || verdict.exit == kDenied)) worst = verdict;
  }
  // Biggest and coldest first: cold pages are the ones that nobody faults back in.
  std::stable_sort(decision.order.begin(), decision.order.end(), [&](size_t a, size_t b) {
    const Candidate &left = facts.candidates[a], &right = facts.candidates[b];
    if ((left.pid == 0) != (right.pid == 0)) return left.pid == 0;
    return std::pair(left.inactive_anon, left.active_anon) > std::pair(right.inactive_anon, right.active_anon);
  });
  if (!decision.order.empty()) return {};
  if (worst.exit != kMet) return worst;
  if (facts.cgroup == "v1")
    return {kDenied, "cgroup_v1", "memory is under cgroup v1, which has no memory.reclaim",
        "only drop-cache works here; boot with systemd.unified_cgroup_hierarchy=1"};
  return {kInfeasible, "no_candidate", "no cgroup is left that could be paged out",
      "name others with --cgroup; force_swap plan lists them with reasons"};
}

Decision decide(const Request& request, const Facts& facts) {
  Decision decision;
  set_targets(request, facts, decision);
  const auto conclude = [&](const Verdict& verdict) {
    static_cast<Verdict&>(decision) = verdict;
    return verdict.exit != kMet;
  };
  const Verdict chosen = choose(facts, decision);
  decision.deficit = missing(decision, facts.info);
  if (get(facts.info, "HugePages_Total") > 0)
    decision.warnings.emplace_back("huge pages are reserved: the driver then sees HugePages_Free");
  if (decision.want_free && !decision.want_available)
    decision.warnings.emplace_back("MemFree rises cheaper by drop-cache; vLLM asks MemAvailable");
  if (decision.deficit == 0) {
    conclude({kMet, "already_met", "the target is met: nothing to do", ""});
    return decision;
  }
  if (conclude(judge_machine(request, facts, decision))) return decision;
  if (conclude(chosen)) return decision;
  if (conclude(judge_amounts(request, facts, decision))) return decision;
  conclude({kMet, "feasible", human(decision.deficit) + " are missing and can be paged out", ""});
  return decision;
}

// While acting: what was measured, and what the next step is.
struct Sample {
  double at = 0;  // seconds, monotonic
  u64 available = 0, free = 0, swap_free = 0;
  u64 psi_some_us = 0, psi_full_us = 0, swapped_in = 0, swapped_out = 0;
  u64 released = 0;  // bytes that our candidates have given up
};
constexpr double kSlowWindow = 10, kRateWindow = 1;
constexpr u64 kSlowRate = 20 * kMiB;

// The newest sample that is at least `seconds` older than the last, or none.
const Sample* sample_before(const std::deque<Sample>& samples, double seconds) {
  for (auto at = samples.rbegin(); at != samples.rend(); ++at)
    if (samples.back().at - at->at >= seconds) return &*at;
  return nullptr;
}

Verdict judge_guards(const Request& request, const std::deque<Sample>& samples, u64 step) {
  const Sample& now = samples.back();
  if (now.available < request.reserve)
    return {kGuard, "guard_available",
        text_of("MemAvailable %s is under --reserve %s", human(now.available).c_str(), human(request.reserve).c_str()),
        "stop programs: paging out needs memory too"};
  if (less(now.swap_free, step) < request.swap_reserve)
    return {kGuard, "guard_swap",
        text_of("free swap %s less a step is under --swap-reserve %s", human(now.swap_free).c_str(),
            human(request.swap_reserve).c_str()),
        "add swap"};
  // zram, zswap or a neighbour that takes what we free: more of the same does not help.
  const u64 out = less(now.swapped_out, samples.front().swapped_out);
  if (out >= 256 * kMiB && less(now.available, samples.front().available) < out / 10)
    return {kGuard, "guard_no_gain",
        text_of("%s were swapped out, but MemAvailable has hardly risen", human(out).c_str()),
        "swap in memory (zram, zswap) may hold pages that do not compress, or somebody takes what is freed"};
  if (const Sample* past = sample_before(samples, kRateWindow)) {
    const double seconds = now.at - past->at;
    const double full = static_cast<double>(now.psi_full_us - past->psi_full_us) / seconds / 1e4;
    const double in = static_cast<double>(now.swapped_in - past->swapped_in) / seconds / 1048576;
    if (full > request.psi_full)
      return {kGuard, "guard_psi",
          text_of("memory pressure: all tasks stalled %.1f %% of the time (--psi-full %.1f)", full, request.psi_full),
          "let the machine calm down, then ask for less"};
    if (in > request.swapin_mbs)
      return {kGuard, "guard_swapin",
          text_of("pages come back at %.1f MiB/s (--swapin-mbs %.1f): they are not cold", in, request.swapin_mbs),
          "choose other cgroups"};
  }
  if (const Sample* past = sample_before(samples, kSlowWindow)) {
    const u64 moved = std::max(now.swapped_out - past->swapped_out, now.released - past->released);
    const double rate = static_cast<double>(moved) / (now.at - past->at);
    if (rate < static_cast<double>(kSlowRate))
      return {kGuard, "guard_slow_swap", text_of("swap takes %.1f MiB/s for %.0f s", rate / 1048576, now.at - past->at),
          "put swap on a faster disk"};
  }
  return {};
}

struct Turn {  // the state between two steps
  u64 requested = 0;
  vector<bool> done;  // of decision.order
};
struct Next {
  Verdict stop;  // reason "": no stop
  size_t index = 0;
  u64 bytes = 0;
};
Next next_step(
    const Request& request, const Decision& decision, const Turn& turn, const std::deque<Sample>& samples, u64 page) {
  const Sample &first = samples.front(), &now = samples.back();
  const u64 deficit = std::max(
      less(decision.want_available.value_or(0), now.available), less(decision.want_free.value_or(0), now.free));
  if (deficit == 0) return {{kMet, "met", "the target is met", ""}};
  if (now.at - first.at >= request.max_seconds)
    return {{kTimeout, "deadline", text_of("--max-seconds %.1f are over", request.max_seconds),
        "raise --max-seconds, or look why swap is slow"}};
  const u64 left = less(request.max_bytes, turn.requested);
  u64 bytes = std::min({request.step, deficit, left});
  bytes = std::max(page, (bytes + page - 1) / page * page);
  if (Verdict guard = judge_guards(request, samples, bytes); guard.exit != kMet) return {guard};
  if (left == 0) return {{kPartial, "max_bytes", "--max-bytes are used up", "raise --max-bytes"}};
  const auto at = std::find(turn.done.begin(), turn.done.end(), false);
  if (at == turn.done.end()) return {{kPartial, "exhausted", "all candidates are used up", "name more cgroups"}};
  return {{}, static_cast<size_t>(at - turn.done.begin()), bytes};
}

// ---- world: system calls. What could write goes through World, which only records under fake roots.

volatile std::sig_atomic_t g_signal = 0;

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept { return std::swap(fd_, other.fd_), *this; }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

double monotonic() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}
void log_line(const string& text) { (void)std::fprintf(stderr, "force_swap: %s\n", text.c_str()); }

// Reads a small text file whole; at most 64 MiB (smaps of a large process).
optional<string> read_file(const string& path, int dir = AT_FDCWD) {
  const Fd fd(openat(dir, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (dir == AT_FDCWD ? 0 : O_NOFOLLOW)));
  string text;
  std::array<char, 65536> buffer{};
  while (fd && text.size() < 64 * kMiB) {
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {};
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  return fd ? optional(text) : std::nullopt;
}
bool is_cgroup2(int fd) {
  struct statfs fs {};
  return fstatfs(fd, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

// Opens a folder beneath `base`, one component at a time, following no link: as root we must not
// be led out of the tree by whoever owns a part of it. Empty: errno says why.
Fd open_beneath(int base, string_view relative) {
  Fd at(openat(base, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const string_view part : split(relative, "/")) {
    if (part == "." || part == "..") return errno = EXDEV, Fd();
    if (at) at = Fd(openat(at.get(), string(part).c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  }
  return at;
}

// What can sit in the kernel for seconds runs in a child. So a signal or the deadline ends us in time:
// the child gets SIGKILL, and if it is stuck even then we leave it dying and write our report.
template <class T>
T run_bounded(T initial, const std::function<void(T&)>& work, const std::function<bool()>& go_on, T when_cut) {
  static_assert(std::is_trivially_copyable_v<T>);
  void* page = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  std::array<int, 2> ends{};
  if (page == MAP_FAILED || pipe2(ends.data(), O_CLOEXEC) != 0) return when_cut;
  Fd here(ends[0]), there(ends[1]);
  T* shared = new (page) T(initial);
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    work(*shared);
    _exit(0);
  }
  there = Fd();  // the child holds the only writing end now: its death is a hang-up here
  bool cut = child < 0;
  for (double killed_at = 0; child > 0;) {
    pollfd ended{.fd = here.get(), .events = POLLIN, .revents = 0};
    (void)poll(&ended, 1, 50);
    int status = 0;
    const bool gone = waitpid(child, &status, WNOHANG) == child;
    cut = cut || (gone && !(WIFEXITED(status) && WEXITSTATUS(status) == 0));
    if (gone || (killed_at > 0 && monotonic() - killed_at > 1.2)) break;
    if (killed_at == 0 && !go_on()) killed_at = monotonic(), cut = true, kill(child, SIGKILL);
  }
  const T result = cut ? when_cut : *shared;
  munmap(page, sizeof(T));
  return result;
}
struct Outcome {
  int error = 0;
  u64 bytes = 0;
};

struct Recorded {
  string op, object, text;
};
class World {
 public:
  explicit World(const Roots& where) : roots(where), page(static_cast<u64>(sysconf(_SC_PAGESIZE))) {
    const char* fd = roots.fake ? std::getenv("FORCE_SWAP_TEST_PAUSE_FD") : nullptr;  // NOLINT(concurrency-mt-unsafe)
    hook_ = fd ? static_cast<int>(parse_u64(fd).value_or(0)) : 0;
  }
  const Roots roots;
  const u64 page;
  vector<Recorded> recorded;

  [[nodiscard]] double now() const { return roots.fake ? skew_ : monotonic(); }
  void pause(int milliseconds) {
    if (roots.fake) skew_ += milliseconds / 1e3;
    else (void)poll(nullptr, 0, milliseconds);
  }
  // Under fake roots alone: tell the test what would happen now; it answers "errno milliseconds".
  int ask(const string& line) {
    if (hook_ <= 0) return 0;
    string reply;
    if (write(hook_, (line + "\n").data(), line.size() + 1) < 0) return 0;
    for (char c = 0; c != '\n';) {
      const ssize_t got = read(hook_, &c, 1);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      reply += c;
    }
    const auto words = split(reply, " \n");
    if (words.size() != 2) return 0;
    skew_ += static_cast<double>(parse_u64(words[1]).value_or(0)) / 1e3;
    return static_cast<int>(parse_u64(words[0]).value_or(0));
  }
  // Does `work` in a child, or only records it.
  Outcome effect(const Recorded& what, const std::function<void(Outcome&)>& work, const std::function<bool()>& go_on) {
    if (!roots.fake) return run_bounded<Outcome>({}, work, go_on, {EINTR, 0});
    recorded.push_back(what);
    const int error = ask(what.op + " " + what.object + " " + what.text);
    return {error, 0};
  }
  [[nodiscard]] bool trusted(int fd) const { return roots.fake || is_cgroup2(fd); }

 private:
  double skew_ = 0;
  int hook_ = 0;
};

// ---- observe: the world -> facts.

constexpr std::array<std::pair<int, const char*>, 5> kAttributes{{{18, "integrated"}, {83, "managed_memory"},
    {88, "pageable_memory_access"}, {89, "concurrent_managed_access"}, {100, "pageable_uses_host_page_tables"}}};

// No context is made: it costs memory, and may itself fail on a machine that is full.
void ask_cuda([[maybe_unused]] Cuda& cuda) {
#ifndef FORCE_SWAP_NO_CUDA
  const auto fail = [&](const char* what, const string& why) {
    cuda.state = Cuda::kError;
    (void)std::snprintf(cuda.error.data(), cuda.error.size(), "%s: %s", what, why.c_str());
  };
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  const auto symbol = [&]<class F>(const char* name, F*& function) {
    function = reinterpret_cast<F*>(dlsym(library, name));
    if (!function && cuda.state != Cuda::kError) fail(name, "not in libcuda.so.1");
  };
  int (*init)(unsigned) = nullptr;
  int (*count)(int*) = nullptr;
  int (*device)(int*, int) = nullptr;
  int (*name)(char*, int, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;
  int (*total)(size_t*, int) = nullptr;
  int (*error_name)(int, const char**) = nullptr;
  symbol("cuInit", init), symbol("cuDeviceGetCount", count), symbol("cuDeviceGet", device);
  symbol("cuDeviceGetName", name), symbol("cuDeviceGetAttribute", attribute);
  symbol("cuDeviceTotalMem_v2", total), symbol("cuGetErrorName", error_name);
  if (cuda.state == Cuda::kError) return;
  const auto ok = [&](int code, const char* what) {
    const char* text = nullptr;
    if (code != 0 && (error_name(code, &text) != 0 || !text)) text = "unknown error";
    if (code != 0) fail(what, text_of("%s (%d)", text, code));
    return code == 0;
  };
  int devices = 0, first = 0;
  size_t bytes = 0;
  if (!ok(init(0), "cuInit") || !ok(count(&devices), "cuDeviceGetCount")) return;
  if (devices < 1) return fail("cuDeviceGetCount", "no device");
  if (!ok(device(&first, 0), "cuDeviceGet") || !ok(total(&bytes, first), "cuDeviceTotalMem_v2")) return;
  if (!ok(name(cuda.device.data(), static_cast<int>(cuda.device.size()) - 1, first), "cuDeviceGetName")) return;
  for (size_t i = 0; i < kAttributes.size(); ++i)
    if (attribute(&cuda.attrs[i], kAttributes[i].first, first) != 0) cuda.attrs[i] = -1;
  cuda.total = bytes;
  cuda.state = Cuda::kOk;
#endif
}
Cuda observe_cuda() {
  Cuda late;
  late.state = Cuda::kError;
  (void)std::snprintf(late.error.data(), late.error.size(), "the driver did not answer within 10 s, or died");
  const double end = monotonic() + 10;
  return run_bounded<Cuda>(
      {}, ask_cuda, [&] { return g_signal == 0 && monotonic() < end; }, late);
}

Sample observe_sample(const World& world, Keyed* info = nullptr) {
  const Keyed memory = parse_keyed(read_file(world.roots.proc + "/meminfo").value_or(""));
  const Keyed vm = parse_keyed(read_file(world.roots.proc + "/vmstat").value_or(""));
  const Psi psi = parse_psi(read_file(world.roots.proc + "/pressure/memory").value_or(""));
  if (info) *info = memory;
  return {.at = world.now(),
      .available = get(memory, "MemAvailable"),
      .free = get(memory, "MemFree"),
      .swap_free = get(memory, "SwapFree"),
      .psi_some_us = psi.some_us,
      .psi_full_us = psi.full_us,
      .swapped_in = saturated_mul(get(vm, "pswpin"), world.page),
      .swapped_out = saturated_mul(get(vm, "pswpout"), world.page)};
}

vector<SwapArea> observe_swaps(const Roots& roots) {
  auto areas = parse_swaps(read_file(roots.proc + "/swaps").value_or(""));
  for (SwapArea& area : areas) {
    string block = roots.sys + "/class/block/" + area.dev.substr(area.dev.rfind('/') + 1);
    struct stat file {};
    if (area.type == "file" && stat(area.dev.c_str(), &file) == 0) {
      block = roots.sys + text_of("/dev/block/%u:%u", major(file.st_dev), minor(file.st_dev));
      struct statfs fs {};
      constexpr std::array<u64, 4> kNetwork{NFS_SUPER_MAGIC, 0xff534d42 /* CIFS */, 0xfe534d42, CEPH_SUPER_MAGIC};
      if (statfs(area.dev.c_str(), &fs) == 0)
        area.network = std::find(kNetwork.begin(), kNetwork.end(), static_cast<u64>(fs.f_type)) != kNetwork.end();
    }
    auto text = read_file(block + "/queue/rotational");
    if (!text) text = read_file(block + "/../queue/rotational");  // a partition: ask its disk
    if (text && !text->empty()) area.rotational = text->front() == '1';
  }
  return areas;
}

optional<Stat> observe_stat(const Roots& roots, const string& pid) {
  return parse_stat(read_file(roots.proc + "/" + pid + "/stat").value_or(""));
}
Process observe_process(const Roots& roots, int pid) {
  Process process{.pid = pid, .comm = {}, .argv = {}};
  if (pid == 0) return process;
  const string folder = std::to_string(pid);
  if (const auto stat = observe_stat(roots, folder)) process.comm = stat->comm;
  const string command = read_file(roots.proc + "/" + folder + "/cmdline").value_or("");
  for (const string_view word : split(command, string_view("\0", 1))) process.argv.emplace_back(word);
  return process;
}

// The folders beneath this one, sorted; empty if it cannot be read.
vector<string> children_of(int dir) {
  vector<string> names;
  const int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(fd < 0 ? nullptr : fdopendir(fd), closedir);
  if (!folder && fd >= 0) close(fd);
  while (const dirent* entry = folder ? readdir(folder.get()) : nullptr) {  // NOLINT(concurrency-mt-unsafe)
    struct stat at {};
    const string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (fstatat(dir, name.c_str(), &at, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(at.st_mode)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

constexpr int kMaxDepth = 32;
constexpr size_t kMaxGroups = 8192;
struct Walk {  // a whole subtree: its leaves (no child has memory of its own) and all its processes
  vector<string> leaves;
  vector<int> pids;
};
void walk_groups(const World& world, int dir, const string& name, int depth, Walk& walk) {
  bool leaf = true;
  for (const int pid : parse_pids(read_file("cgroup.procs", dir).value_or(""))) walk.pids.push_back(pid);
  for (const string& child : children_of(dir)) {
    const Fd below(openat(dir, child.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!below || depth >= kMaxDepth || walk.leaves.size() >= kMaxGroups) continue;
    const bool memory = faccessat(below.get(), "memory.current", F_OK, 0) == 0 || !world.trusted(dir);
    leaf = leaf && !memory;
    Walk ignored;  // a child without memory of its own is charged here: its processes count, it is no leaf
    Walk& into = memory ? walk : ignored;
    walk_groups(world, below.get(), name.empty() ? child : name + "/" + child, depth + 1, into);
    if (!memory) walk.pids.insert(walk.pids.end(), ignored.pids.begin(), ignored.pids.end());
  }
  if (leaf && !name.empty() && world.trusted(dir)) walk.leaves.push_back(name);
}

optional<u64> swap_room(const Fd& base, const string& name) {
  optional<u64> least;
  string path;
  for (const string_view part : split(name, "/")) {
    path += "/" + string(part);
    const Fd dir = open_beneath(base.get(), path);
    const auto limit = parse_limit(read_file("memory.swap.max", dir.get()).value_or("max"));
    const auto used = parse_limit(read_file("memory.swap.current", dir.get()).value_or("0"));
    if (dir && limit) least = std::min(least.value_or(~0ULL), less(*limit, used.value_or(0)));
  }
  return least;
}

Verdict why_not_opened(const string& name, int error) {
  const string what = "cgroup " + name + ": " + std::strerror(error);  // NOLINT(concurrency-mt-unsafe)
  if (error == ELOOP || error == ENOTDIR || error == EXDEV)
    return {kRefused, "unsafe_path", what + ": a link or no folder stands in this path", "give the real path"};
  if (error == ENOENT) return {kInfeasible, "no_cgroup", what, "force_swap plan lists what exists"};
  return {kDenied, "no_permission", what, "run as root, or have the leaf delegated (README)"};
}

// Everything about one leaf. Opening memory.reclaim for writing is the test of our rights: it changes nothing.
Candidate observe_leaf(const World& world, const Fd& base, const string& name) {
  Candidate leaf;
  leaf.cgroup = name;
  const Fd dir = open_beneath(base.get(), name);
  if (!dir) return leaf.problem = why_not_opened(name, errno), leaf;
  if (!world.trusted(dir.get()))
    return leaf.problem = {kRefused, "not_cgroup2", name + " is no cgroup v2 folder", "see --cgroup-base"}, leaf;
  struct stat self {};
  (void)fstat(dir.get(), &self);
  leaf.device = self.st_dev, leaf.inode = self.st_ino;
  const Keyed stat = parse_keyed(read_file("memory.stat", dir.get()).value_or(""));
  leaf.inactive_anon = get(stat, "inactive_anon"), leaf.active_anon = get(stat, "active_anon");
  leaf.unevictable = get(stat, "unevictable");
  leaf.current = parse_limit(read_file("memory.current", dir.get()).value_or("")).value_or(0);
  leaf.swap_room = swap_room(base, name);
  Walk walk;
  walk_groups(world, dir.get(), name, 0, walk);
  for (const int pid : walk.pids) leaf.processes.push_back(observe_process(world.roots, pid));
  const Fd knob(openat(dir.get(), "memory.reclaim", O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  const int error = knob ? 0 : errno;
  if (error == ENOENT)
    leaf.problem = {kDenied, "no_reclaim", "cgroup " + name + " has no memory.reclaim",
        "it needs the memory controller and a kernel of 5.19 or newer"};
  else if (error != 0) leaf.problem = why_not_opened(name + "/memory.reclaim", error);
  return leaf;
}

// The pidfd is opened before /proc/PID is read: what is read then belongs to the process that it names.
struct Held {
  Fd pidfd;
  Candidate candidate;
};
bool alive(const Fd& pidfd) {
  pollfd ended{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
  return poll(&ended, 1, 0) == 0;
}
Held observe_pid(const World& world, const Fd& base, int pid) {
  Held held;
  Candidate& one = held.candidate;
  one.named = true, one.pid = pid, one.cgroup = "of pid " + std::to_string(pid);
  const bool real = world.roots.proc == "/proc";
  if (real) held.pidfd = Fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  const string folder = world.roots.proc + "/" + std::to_string(pid);
  const auto stat = observe_stat(world.roots, std::to_string(pid));
  const auto group = parse_cgroup_line(read_file(folder + "/cgroup").value_or(""));
  if (!stat || (real && !held.pidfd))
    return one.problem = {kInfeasible, "no_process", text_of("no process %d", pid), "look with ps"}, std::move(held);
  if (!group || group->empty())
    return one.problem = {kRefused, "root_cgroup", text_of("pid %d is in the root cgroup: no drain there", pid),
               "give it a cgroup of its own: systemd-run --scope"},
           std::move(held);
  const auto maps = read_file(folder + "/smaps");
  one = observe_leaf(world, base, *group);
  one.named = true, one.pid = pid, one.start = stat->start;
  if (one.problem.exit != kMet) return held;
  if (!maps) one.problem = {kDenied, "no_permission", text_of("smaps of pid %d cannot be read", pid), "run as root"};
  one.vmas = parse_smaps(maps.value_or(""));
  one.processes.push_back(observe_process(world.roots, pid));
  return held;
}

// This process and its parents up to init, without init itself (whose cgroup is protected by name).
std::set<int> observe_lineage(const Roots& roots) {
  std::set<int> lineage;
  auto stat = observe_stat(roots, "self");
  while (stat && stat->pid > 1 && lineage.insert(stat->pid).second)
    stat = observe_stat(roots, std::to_string(stat->ppid));
  return lineage;
}

Engine observe_engine(const World& world, const Request& request, const vector<Candidate>& candidates) {
  Engine engine{.pid = request.engine_pid, .alive = false, .how = "--engine-pid"};
  if (engine.pid > 0) {
    const auto stat = observe_stat(world.roots, std::to_string(engine.pid));
    engine.alive = stat && stat->state != 'Z' && stat->state != 'X';
    return engine;
  }
  for (const Candidate& one : candidates)
    for (const string_view part : split(one.cgroup, "/"))
      if (names_unit(part, request.engine_unit) && !one.processes.empty())
        return {.pid = one.processes.front().pid, .alive = true, .how = "--engine-unit " + request.engine_unit};
  const Fd proc(open(world.roots.proc.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const string& name : children_of(proc.get())) {
    const auto pid = parse_u64(name);
    if (!pid) continue;
    const auto stat = observe_stat(world.roots, name);
    if (stat && stat->state != 'Z' && stat->comm.starts_with("VLLM::"))
      return {.pid = stat->pid, .alive = true, .how = stat->comm};
  }
  return engine.how = "", engine;
}

string observe_version(const Roots& roots) {
  const auto magic = [](const string& path) {
    struct statfs fs {};
    return statfs(path.c_str(), &fs) == 0 ? static_cast<u64>(fs.f_type) : 0;
  };
  const auto exists = [](const string& path) { return access(path.c_str(), F_OK) == 0; };
  if (roots.fake && exists(roots.cgroup + "/cgroup.controllers")) return "v2";
  if (roots.fake) return exists(roots.cgroup + "/memory/memory.limit_in_bytes") ? "v1" : "none";
  if (magic(roots.cgroup) == CGROUP2_SUPER_MAGIC) return "v2";
  return magic(roots.cgroup + "/memory") == CGROUP_SUPER_MAGIC ? "v1" : "none";
}

// A name as people write it -> beneath the base: "/sys/fs/cgroup/a/b", "/a/b" and "a/b" are one.
string beneath(const Roots& roots, string_view name) {
  if (name.starts_with(roots.cgroup + "/")) name.remove_prefix(roots.cgroup.size());
  while (name.starts_with('/')) name.remove_prefix(1);
  while (name.ends_with('/')) name.remove_suffix(1);
  return string(name);
}
bool is_within(const string& name, const string& parent) { return (name + "/").starts_with(parent + "/"); }

struct Scene {  // facts, and the handles that keep them true
  Facts facts;
  Fd base;
  vector<Fd> pidfds;  // as facts.candidates; empty for a cgroup
};
void observe_groups(const World& world, const Request& request, Scene& scene) {
  std::map<string, bool> names;  // leaf -> it was named itself
  const bool all = request.cgroups.empty() && request.pids.empty();
  for (const string& given : all ? vector<string>{""} : request.cgroups) {
    const string name = beneath(world.roots, given);
    const Fd dir = open_beneath(scene.base.get(), name);
    Walk walk;
    if (dir) walk_groups(world, dir.get(), name, 0, walk);
    const bool itself = walk.leaves.empty() || walk.leaves.front() == name;
    if (itself && !name.empty()) names[name] = true;
    else
      for (const string& leaf : walk.leaves) names.emplace(leaf, false);
  }
  for (const auto& entry : names) {
    const string& name = entry.first;
    const auto out = [&](const string& one) { return is_within(name, beneath(world.roots, one)); };
    if (std::any_of(request.excluded.begin(), request.excluded.end(), out)) continue;
    scene.facts.candidates.push_back(observe_leaf(world, scene.base, name));
    scene.facts.candidates.back().named = entry.second;
    scene.pidfds.emplace_back();
  }
}
Scene observe(const World& world, const Request& request) {
  Scene scene;
  Facts& facts = scene.facts;
  observe_sample(world, &facts.info);
  facts.swaps = observe_swaps(world.roots);
  facts.cuda = observe_cuda();
  facts.cgroup = observe_version(world.roots);
  scene.base = Fd(open(world.roots.cgroup.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const string status = read_file(world.roots.proc + "/self/status").value_or("");
  std::array<char, 64> space{};
  const ssize_t length = readlink((world.roots.proc + "/self/ns/pid").c_str(), space.data(), space.size() - 1);
  // 4026531836 is the kernel's fixed number of the first pid namespace: the host's.
  facts.host_root =
      status.find("\nUid:\t0\t0\t") != string::npos && length > 0 && string_view(space.data()) == "pid:[4026531836]";
  if (request.cmd == "probe") return scene;
  observe_groups(world, request, scene);
  for (const int pid : request.pids) {
    Held held = observe_pid(world, scene.base, pid);
    if (!facts.host_root)
      held.candidate.problem = {
          kDenied, "pid_needs_host_root", "--pid is for root on the host alone", "use --cgroup with a delegated leaf"};
    facts.candidates.push_back(std::move(held.candidate));
    scene.pidfds.push_back(std::move(held.pidfd));
  }
  facts.guarded.lineage = observe_lineage(world.roots);
  facts.guarded.engine = observe_engine(world, request, facts.candidates);
  facts.guarded.engine_unit = request.engine_unit;
  return scene;
}

// ---- act: one step at a time, each judged by fresh numbers. Return codes are not believed.

struct Mechanism {
  string name, object, form = "none";
  u64 requested = 0, advised = 0, swapped = 0, steps = 0;
  i64 freed_memfree = 0, freed_available = 0;
  int error = 0;
  double seconds = 0;
};
struct Report {
  vector<Mechanism> mechanisms;
  vector<string> warnings;
  Sample first, last;
  u64 min_available = 0;
  Verdict verdict;
};
i64 gain(u64 after, u64 before) { return static_cast<i64>(after) - static_cast<i64>(before); }

constexpr std::array<const char*, 3> kForms{"swappiness=max", "swappiness=200", "plain"};

class Evictor {
 public:
  Evictor(World& world, const Request& request, Scene& scene, const Decision& decision, Report& report)
      : world_(world), request_(request), scene_(scene), decision_(decision),
        report_(report), turn_{0, vector<bool>(decision.order.size(), false)}, strikes_(decision.order.size(), 0) {}

  Verdict run() {
    take_sample();
    for (;;) {
      if (g_signal != 0) return {128 + g_signal, "signal", text_of("signal %d", int{g_signal}), ""};
      if (cut_.exit != kMet) return cut_;
      const Next next = next_step(request_, decision_, turn_, samples_, world_.page);
      if (!next.stop.reason.empty()) return next.stop;
      step(next);
    }
  }

 private:
  Sample take_sample() {
    Sample now = observe_sample(world_);
    now.released = released_;
    samples_.push_back(now);
    // The first stays: it is the start. Of the others only the windows of the guards are needed.
    while (samples_.size() > 2 && now.at - samples_[2].at > kSlowWindow) samples_.erase(samples_.begin() + 1);
    if (report_.min_available == 0 || now.available < report_.min_available) report_.min_available = now.available;
    return now;
  }
  // Asked again and again while a child works: only a signal, the deadline or a guard cut it short.
  bool go_on() {
    if (g_signal != 0) return false;
    if (world_.now() - samples_.back().at < 0.1) return true;
    take_sample();
    if (world_.now() - samples_.front().at >= request_.max_seconds)
      cut_ = {kTimeout, "deadline", text_of("--max-seconds %.1f are over", request_.max_seconds), "raise it"};
    else cut_ = judge_guards(request_, samples_, 0);
    return cut_.exit == kMet;
  }
  // The same folder, process and rules as when we planned? Who owns a part of the tree may have swapped it.
  Verdict recheck(const Candidate& planned, const Fd& pidfd, Fd& dir) {
    Candidate now = observe_leaf(world_, scene_.base, planned.cgroup);
    now.pid = planned.pid;
    if (Verdict verdict = judge(now, scene_.facts.guarded); verdict.exit != kMet) return verdict;
    dir = open_beneath(scene_.base.get(), planned.cgroup);
    struct stat self {};
    if (!dir || fstat(dir.get(), &self) != 0 || self.st_dev != planned.device || self.st_ino != planned.inode)
      return {kRefused, "changed", "cgroup " + planned.cgroup + " is another one than when we planned", "plan again"};
    if (planned.pid == 0) return {};
    const auto stat = observe_stat(world_.roots, std::to_string(planned.pid));
    if (!stat || stat->start != planned.start || (pidfd && !alive(pidfd)))
      return {
          kRefused, "changed", text_of("pid %d is another process than when we planned", planned.pid), "plan again"};
    return {};
  }
  Mechanism& mechanism(const char* name, const string& object) {
    auto& all = report_.mechanisms;
    const auto at = std::find_if(
        all.begin(), all.end(), [&](const Mechanism& one) { return one.name == name && one.object == object; });
    if (at != all.end()) return *at;
    return all.emplace_back(Mechanism{.name = name, .object = object});
  }
  Outcome reclaim(const Fd& dir, const string& object, u64 bytes, Mechanism& account) {
    for (;; ++form_) {
      const bool plain = form_ + 1 == kForms.size();
      const string text = std::to_string(bytes) + (plain ? "" : string(" ") + kForms[form_]);
      const auto work = [&](Outcome& result) {
        const Fd knob(openat(dir.get(), "memory.reclaim", O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
        if (!knob || !is_cgroup2(knob.get())) result.error = knob ? EXDEV : errno;
        else if (write(knob.get(), text.data(), text.size()) < 0) result.error = errno;
      };
      const Outcome outcome = world_.effect({"write", object + "/memory.reclaim", text}, work, [&] { return go_on(); });
      if (outcome.error == EINVAL && !plain) continue;  // an older kernel: try the next older form
      if (outcome.error != EINVAL) account.form = kForms[form_];
      return outcome;
    }
  }
  // Written pages count as used until their write-out ends: give it 200 ms before asking for more.
  Sample settle(const Sample& before, u64 bytes) {
    Sample now = take_sample();
    for (int i = 0; i < 10 && now.available < before.available + bytes && g_signal == 0; ++i) {
      world_.pause(20);
      now = take_sample();
    }
    return now;
  }
  Outcome page_out(const Candidate& one, const Fd& pidfd, u64 bytes, Mechanism& account) {
    vector<iovec> ranges;
    u64 estimate = 0;
    for (auto& [at, vma] = cursor_[one.pid]; vma < one.vmas.size() && estimate < bytes && ranges.size() < 512;) {
      const Vma& now = one.vmas[vma];
      const double density = std::min(1.0, static_cast<double>(now.anon) / static_cast<double>(now.length));
      const double wanted = static_cast<double>(bytes - estimate) / std::max(density, 0.01);
      u64 length = std::min<u64>(
          {now.length - at, 64 * kMiB, static_cast<u64>(wanted) / world_.page * world_.page + world_.page});
      ranges.push_back({reinterpret_cast<void*>(now.start + at), static_cast<size_t>(length)});  // NOLINT
      estimate += static_cast<u64>(static_cast<double>(length) * density);
      at += length;
      if (at >= now.length) at = 0, ++vma;
    }
    if (ranges.empty()) return {ENODATA, 0};
    account.advised += estimate;
    const auto work = [&](Outcome& result) {
      for (iovec& range : ranges) {
        const auto done = syscall(SYS_process_madvise, pidfd.get(), &range, 1UL, MADV_PAGEOUT, 0U);
        if (done < 0) result.error = errno;
      }
    };
    return world_.effect(
        {"process_madvise", "pid:" + std::to_string(one.pid), std::to_string(estimate)}, work, [&] { return go_on(); });
  }
  void step(const Next& next) {
    const size_t which = decision_.order[next.index];
    const Candidate& one = scene_.facts.candidates[which];
    const Fd& pidfd = scene_.pidfds[which];
    Fd dir;
    if (const Verdict changed = recheck(one, pidfd, dir); changed.exit != kMet) {
      report_.warnings.push_back(changed.message);
      refused_ = changed;
      turn_.done[next.index] = true;
      return;
    }
    const double start = world_.now();
    const Sample before = take_sample();
    const u64 held = current_of(dir);
    Outcome outcome;
    if (one.pid != 0) {
      Mechanism& advise = mechanism("process_madvise", "pid " + std::to_string(one.pid));
      advise.requested += next.bytes, ++advise.steps;
      outcome = page_out(one, pidfd, next.bytes, advise);
      advise.error = outcome.error;
    }
    Mechanism& account = mechanism(one.pid != 0 ? "drain" : "memory.reclaim", one.cgroup);
    if (outcome.error == 0) outcome = reclaim(dir, one.cgroup, next.bytes, account);
    const Sample after = settle(before, next.bytes);
    const u64 released = less(held, current_of(dir));
    released_ += released;
    turn_.requested += next.bytes;
    account.requested += next.bytes, ++account.steps, account.error = outcome.error;
    account.seconds += world_.now() - start;
    account.freed_memfree += gain(after.free, before.free);
    account.freed_available += gain(after.available, before.available);
    account.swapped += less(after.swapped_out, before.swapped_out);
    const u64 progress = std::max(released, less(after.available, before.available));
    strikes_[next.index] = progress < next.bytes / 16 ? strikes_[next.index] + 1 : 0;
    const bool lasting = outcome.error != 0 && outcome.error != EAGAIN && outcome.error != EINTR;
    turn_.done[next.index] = lasting || strikes_[next.index] >= 3;
  }
  static u64 current_of(const Fd& dir) {
    return parse_limit(read_file("memory.current", dir.get()).value_or("")).value_or(0);
  }

  World& world_;
  const Request& request_;
  Scene& scene_;
  const Decision& decision_;
  Report& report_;
  Turn turn_;
  vector<int> strikes_;
  std::deque<Sample> samples_;
  std::map<int, std::pair<u64, size_t>> cursor_;  // pid -> offset in its VMA, VMA
  u64 released_ = 0;
  size_t form_ = 0;
  Verdict cut_;

 public:
  Verdict refused_;
};

// ---- drop-cache: clean file pages out of the page cache, measured by mincore.

struct Dropped {
  string path, why;
  u64 size = 0;
  optional<u64> before, after;  // bytes in the cache; nothing: we may not ask (not the owner)
  int error = 0;
};
struct Found {
  vector<std::pair<string, Fd>> files;
  std::set<std::pair<dev_t, ino_t>> seen;
  vector<string> skipped;
};
// Only a regular file is ever opened for reading: a device or a pipe would do something.
void find_file(const string& path, int flags, Found& found) {
  const Fd at(open(path.c_str(), O_PATH | O_CLOEXEC | flags));
  struct stat file {};
  if (!at || fstat(at.get(), &file) != 0) return found.skipped.push_back(path + ": " + std::strerror(errno));
  if (!S_ISREG(file.st_mode)) return found.skipped.push_back(path + ": not a regular file");
  if (!found.seen.emplace(file.st_dev, file.st_ino).second) return;
  Fd readable(open(text_of("/proc/self/fd/%d", at.get()).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!readable) return found.skipped.push_back(path + ": " + std::strerror(errno));
  found.files.emplace_back(path, std::move(readable));
}
string real_path(const string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr), std::free);
  return real ? real.get() : "";
}
// A link in a folder is followed within that folder, and from a Hugging Face snapshot to its blobs.
bool may_follow(const string& root, const string& target) {
  if (target.starts_with(root + "/")) return true;
  const size_t snapshots = root.rfind("/snapshots/");
  return snapshots != string::npos && target.starts_with(root.substr(0, snapshots) + "/blobs/");
}
void find_shards(const string& root, const string& folder, int depth, Found& found) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(folder.c_str()), closedir);
  if (!dir) return found.skipped.push_back(folder + ": " + std::strerror(errno));
  std::set<string> names;
  while (const dirent* entry = readdir(dir.get())) names.insert(entry->d_name);
  for (const string& name : names) {
    const string path = folder + "/" + name;
    struct stat at {};
    if (name == "." || name == ".." || lstat(path.c_str(), &at) != 0) continue;
    if (S_ISDIR(at.st_mode) && depth < kMaxDepth) find_shards(root, path, depth + 1, found);
    if (!name.ends_with(".safetensors")) continue;
    if (S_ISREG(at.st_mode)) find_file(path, O_NOFOLLOW, found);
    if (!S_ISLNK(at.st_mode)) continue;
    const string target = real_path(path);
    if (may_follow(root, target)) find_file(target, O_NOFOLLOW, found);
    else found.skipped.push_back(path + ": a link out of the folder");
  }
}
// mincore says "all resident" to whoever neither owns nor may write the file: then we do not ask.
optional<u64> resident(int fd, u64 page) {
  struct stat file {};
  if (fstat(fd, &file) != 0) return {};
  if (geteuid() != 0 && file.st_uid != geteuid() && faccessat(fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) return {};
  const auto size = static_cast<u64>(file.st_size);
  if (size == 0) return 0;
  void* map = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return {};
  vector<unsigned char> pages((size + page - 1) / page);
  const bool ok = mincore(map, size, pages.data()) == 0;
  munmap(map, size);
  const auto here = std::count_if(pages.begin(), pages.end(), [](unsigned char one) { return (one & 1) != 0; });
  return ok ? optional(static_cast<u64>(here) * page) : std::nullopt;
}
Dropped drop_file(World& world, const Request& request, const string& path, const Fd& file) {
  Dropped one;
  one.path = path;
  struct stat at {};
  struct statfs fs {};
  if (fstat(file.get(), &at) != 0 || fstatfs(file.get(), &fs) != 0) return one.error = errno, one;
  one.size = static_cast<u64>(at.st_size);
  one.before = one.after = resident(file.get(), world.page);
  if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC) return one.why = "a file in memory has no other place", one;
  if (request.dry_run) return one;
  const auto work = [&](Outcome& result) {
    if (fdatasync(file.get()) != 0) result.error = errno;  // dirty pages cannot be dropped
    const int error = posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    if (error != 0) result.error = error;
  };
  const double end = world.now() + request.max_seconds;
  one.error =
      world.effect({"fadvise", path, "DONTNEED"}, work, [&] { return g_signal == 0 && world.now() < end; }).error;
  one.after = resident(file.get(), world.page);
  if (one.after.value_or(0) > 0) one.why = "mapped, locked or read by a program";
  return one;
}
Verdict judge_dropped(const vector<Dropped>& files, const Found& found, const Request& request) {
  u64 before = 0, kept = 0;
  int error = 0;
  for (const Dropped& one : files) {
    before += one.before.value_or(0), kept += one.after.value_or(0);
    error = one.error != 0 ? one.error : error;
  }
  if (g_signal != 0) return {128 + g_signal, "signal", text_of("signal %d", int{g_signal}), ""};
  if (files.empty() && !found.skipped.empty() && found.skipped[0].ends_with(std::strerror(EACCES)))
    return {kDenied, "no_permission", found.skipped[0], "give read permission: that is enough"};
  if (files.empty())
    return {kInfeasible, "no_files",
        "no file to drop: " + (found.skipped.empty() ? "no *.safetensors" : found.skipped[0]),
        "name files, or folders that hold *.safetensors"};
  if (request.dry_run) return {kMet, "measured", human(before) + " are in the page cache", ""};
  if (error == EINTR) return {kTimeout, "deadline", "a file could not be synced in time", "raise --max-seconds"};
  if (kept > before / 100 || error != 0)
    return {kPartial, "kept", text_of("%s of %s stay in the page cache", human(kept).c_str(), human(before).c_str()),
        "end the programs that map these files, then drop again"};
  return {kMet, "dropped", human(less(before, kept)) + " left the page cache", ""};
}

// ---- report and commands.

void put_memory(Json& json, const char* name, const Keyed& info) {
  json.key(name).open('{');
  for (const char* key : {"MemTotal", "MemFree", "MemAvailable", "Cached", "Shmem", "AnonPages", "SwapTotal",
           "SwapFree", "SwapCached", "Mlocked", "HugePages_Total", "HugePages_Free", "Hugepagesize"})
    if (info.contains(key)) json.field(key, get(info, key));
  json.close('}');
}
void put_uma(Json& json, const Cuda& cuda) {
  const bool ok = cuda.state == Cuda::kOk;
  json.key("uma").open('{').field("cuda", ok ? "ok" : cuda.state == Cuda::kAbsent ? "absent" : "error");
  json.field("integrated", ok && cuda.attrs[0] >= 0 ? optional(cuda.attrs[0] == 1) : std::nullopt);
  json.field("error", cuda.error.data()).field("device", cuda.device.data());
  json.field("total", ok ? optional(cuda.total) : std::nullopt).key("attrs").open('{');
  for (size_t i = 0; ok && i < kAttributes.size(); ++i)
    json.field(kAttributes[i].second, cuda.attrs[i] < 0 ? std::nullopt : optional(cuda.attrs[i]));
  json.close('}').close('}');
}
void put_swaps(Json& json, const vector<SwapArea>& swaps) {
  json.key("swap").open('[');
  for (const SwapArea& area : swaps)
    json.open('{')
        .field("dev", area.dev)
        .field("type", area.type)
        .field("size", area.size)
        .field("used", area.used)
        .field("rotational", area.rotational)
        .field("zram", area.zram)
        .field("network", area.network)
        .close('}');
  json.close(']');
}
void put_candidates(Json& json, const Facts& facts) {
  json.key("candidates").open('[');
  for (const Candidate& one : facts.candidates) {
    const Verdict verdict = judge(one, facts.guarded);
    json.open('{').field("cgroup", one.cgroup).field("pid", one.pid == 0 ? std::nullopt : optional(one.pid));
    json.field("usable", verdict.exit == kMet).field("reason", verdict.reason).field("message", verdict.message);
    json.field("evictable", one.evictable()).field("inactive_anon", one.inactive_anon);
    json.field("active_anon", one.active_anon).field("unevictable", one.unevictable);
    json.field("swap_room", one.swap_room).field("processes", static_cast<u64>(one.processes.size())).close('}');
  }
  json.close(']');
}
void put_mechanisms(Json& json, const vector<Mechanism>& mechanisms) {
  json.key("mechanisms").open('[');
  for (const Mechanism& one : mechanisms)
    json.open('{')
        .field("name", one.name)
        .field("object", one.object)
        .field("reclaim_form", one.form)
        .field("requested", one.requested)
        .field("advised", one.advised)
        .field("freed_memfree", one.freed_memfree)
        .field("freed_available", one.freed_available)
        .field("swapped", one.swapped)
        .field("steps", one.steps)
        .field("errno", one.error)
        .field("seconds", one.seconds)
        .close('}');
  json.close(']');
}
void put_files(Json& json, const vector<Dropped>& files) {
  json.key("files").open('[');
  for (const Dropped& one : files)
    json.open('{')
        .field("path", one.path)
        .field("size", one.size)
        .field("cached_before", one.before)
        .field("cached_after", one.after)
        .field("not_droppable", one.why.empty() ? 0 : one.after.value_or(0))
        .field("why", one.why)
        .field("errno", one.error)
        .close('}');
  json.close(']');
}

struct Result {
  Request request;
  Facts facts;
  Decision decision;
  Report report;
  Keyed after;
  bool acted = false;
  vector<Dropped> files;
  vector<Recorded> recorded;
  double elapsed = 0;
};
void put_change(Json& json, const Result& result) {
  const Keyed &before = result.facts.info, &after = result.acted ? result.after : before;
  put_memory(json, "before", before);
  put_memory(json, "after", after);
  json.key("delta").open('{');
  for (const char* key : {"MemFree", "MemAvailable", "Cached", "SwapFree", "SwapCached"})
    json.field(key, gain(get(after, key), get(before, key)));
  json.close('}');
  const Sample &first = result.report.first, &last = result.report.last;
  json.key("guards").open('{').field("psi_full_ms", less(last.psi_full_us, first.psi_full_us) / 1000);
  json.field("psi_some_ms", less(last.psi_some_us, first.psi_some_us) / 1000);
  json.field("pswpin", less(last.swapped_in, first.swapped_in))
      .field("pswpout", less(last.swapped_out, first.swapped_out));
  json.field("min_available", result.report.min_available).close('}');
  const auto met = [&](const optional<u64>& want, const char* key) {
    return want ? optional(get(after, key) + tolerance(result.decision.deficit) >= *want) : std::nullopt;
  };
  json.key("met").open('{').field("available", met(result.decision.want_available, "MemAvailable"));
  json.field("free", met(result.decision.want_free, "MemFree")).close('}');
}
vector<std::pair<const char*, bool>> self_checks(const Facts& facts) {
  const auto stat = parse_stat("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0");
  const auto swaps = parse_swaps("Filename Type Size Used Priority\n/dev/zram0 partition 8 4 -2\n");
  return {{"parse_size", parse_size("1.5GiB") == 3 * kGiB / 2 && !parse_size("1.GB") && !parse_size("99999999999G")},
      {"parse_meminfo", get(parse_keyed("MemTotal:  2 kB\nx y\n"), "MemTotal") == 2048},
      {"parse_pressure", parse_psi("full avg10=0.00 avg60=0.00 avg300=0.00 total=5").full_us == 5},
      {"parse_stat", stat && stat->ppid == 1 && stat->start == 99 && stat->comm == "a) b"},
      {"parse_swaps", swaps.size() == 1 && swaps[0].zram && swaps[0].used == 4096},
      {"json", Json().open('{').field("a\"", "\xff\n").close('}').text() == "{\"a\\\"\":\"\\ufffd\\u000a\"}"},
      {"read_meminfo", get(facts.info, "MemTotal") > 0 && get(facts.info, "MemAvailable") > 0},
      {"lineage", !facts.guarded.lineage.empty()}};
}
void put_selftest(Json& json, const Result& result) {
  const Facts& facts = result.facts;
  json.key("checks").open('{');
  for (const auto& [name, good] : self_checks(facts)) json.field(name, good);
  const auto usable = std::count_if(facts.candidates.begin(), facts.candidates.end(),
      [&](const Candidate& one) { return judge(one, facts.guarded).exit == kMet; });
  json.close('}').key("possible").open('{').field("drop_cache", true).field("reclaim", usable > 0);
  json.field("usable_cgroups", static_cast<u64>(usable)).field("pid", facts.host_root);
  json.field("swap", usable_swap(facts.swaps, result.request) > 0)
      .field("cuda", facts.cuda.state == Cuda::kOk)
      .close('}');
}
int finish(const Result& result) {
  const Verdict& verdict = result.report.verdict;
  Json json;
  json.open('{')
      .field("schema", "force_swap/1")
      .field("cmd", result.request.cmd)
      .field("dry_run", result.request.cmd == "drop-cache" ? result.request.dry_run : !result.request.apply);
  put_uma(json, result.facts.cuda);
  json.key("target").open('{').field("available", result.decision.want_available);
  json.field("free", result.decision.want_free).field("deficit", result.decision.deficit).close('}');
  put_change(json, result);
  put_swaps(json, result.facts.swaps);
  json.field("cgroup", result.facts.cgroup);
  put_candidates(json, result.facts);
  put_mechanisms(json, result.report.mechanisms);
  if (result.request.cmd == "drop-cache") put_files(json, result.files);
  if (result.request.cmd == "selftest") put_selftest(json, result);
  json.key("recorded").open('[');
  for (const Recorded& one : result.recorded)
    json.open('{').field("op", one.op).field("object", one.object).field("text", one.text).close('}');
  json.close(']').field("stop_reason", verdict.reason).field("message", verdict.message).field("hint", verdict.hint);
  json.field("elapsed_s", result.elapsed)
      .field("warnings", result.report.warnings)
      .field("exit_code", verdict.exit)
      .close('}');
  const string line = json.text() + "\n";
  for (const string& warning : result.report.warnings) log_line("warning: " + warning);
  log_line(verdict.message + (verdict.hint.empty() ? "" : "\n  -> " + verdict.hint));
  const bool ok = std::fwrite(line.data(), 1, line.size(), stdout) == line.size() && std::fflush(stdout) == 0;
  return ok ? verdict.exit : kInternal;
}

// One run at a time, and none while somebody holds the lock (the sidecar, while its engine loads).
Verdict take_lock(const Request& request, Fd& lock) {
  const int create = request.roots.fake ? O_RDONLY : O_RDWR | O_CREAT;
  lock = Fd(open(request.lock.c_str(), create | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));
  if (!lock && request.roots.fake && errno == ENOENT) return {};
  if (!lock)
    return {kDenied, "no_lock", "cannot open the lock " + request.lock + ": " + std::strerror(errno),
        "name another with --lock, in a folder that is yours"};
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return {kRefused, "locked", request.lock + " is held: another run, or an engine that loads", "wait for it"};
  return {};
}
void evict(World& world, Result& result, Scene& scene) {
  Fd lock;
  Verdict& verdict = result.report.verdict;
  if (Verdict refused = take_lock(result.request, lock); refused.exit != kMet) {
    verdict = refused;
    return;
  }
  world.ask("planned");
  result.acted = true;
  Evictor evictor(world, result.request, scene, result.decision, result.report);
  verdict = evictor.run();
  result.report.last = observe_sample(world, &result.after);
  const u64 still = missing(result.decision, result.after);
  if (verdict.exit >= 128) return;
  if (still <= tolerance(result.decision.deficit)) {
    if (verdict.exit != kMet) result.report.warnings.push_back(verdict.message);
    verdict = {kMet, "met", "the target is met", ""};
    return;
  }
  const auto denied = [](const Mechanism& one) { return is_one_of(std::to_string(one.error), {"1", "13", "30"}); };
  const auto& all = result.report.mechanisms;
  if (verdict.reason == "exhausted" && all.empty() && evictor.refused_.exit != kMet) verdict = evictor.refused_;
  else if (verdict.reason == "exhausted" && !all.empty() && std::all_of(all.begin(), all.end(), denied))
    verdict = {
        kDenied, "no_permission", "the kernel refused every write to memory.reclaim", "run as root, or delegate"};
  verdict.message += text_of("; %s are still missing", human(still).c_str());
}
void drop_cache(World& world, Result& result) {
  Found found;
  for (string path : result.request.paths) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    struct stat at {};
    const string real = real_path(path);
    if (!real.empty() && stat(real.c_str(), &at) == 0 && S_ISDIR(at.st_mode)) find_shards(real, real, 0, found);
    else find_file(path, 0, found);
  }
  for (const auto& [path, file] : found.files)
    if (g_signal == 0) result.files.push_back(drop_file(world, result.request, path, file));
  result.acted = !result.request.dry_run && !result.files.empty();
  for (const Dropped& one : result.files) {
    if (!one.before) result.report.warnings.push_back(one.path + ": not ours, so its cache cannot be measured");
    if (!one.why.empty()) result.report.warnings.push_back(one.path + ": " + one.why);
  }
  for (const string& one : found.skipped) result.report.warnings.push_back("skipped " + one);
  if (result.acted) {
    Mechanism& account = result.report.mechanisms.emplace_back();
    account.name = "fadvise", account.object = text_of("%zu files", result.files.size());
    account.freed_memfree = gain(observe_sample(world).free, result.report.first.free);
    for (const Dropped& one : result.files) {
      account.requested += one.before.value_or(one.size), account.advised += one.size, ++account.steps;
      account.error = one.error != 0 ? one.error : account.error;
    }
  }
  result.report.verdict = judge_dropped(result.files, found, result.request);
  result.report.last = observe_sample(world, &result.after);
}
int run(const Request& request) {
  World world(request.roots);
  Result result;
  result.request = request;
  const double start = monotonic();
  Scene scene;
  if (request.cmd == "drop-cache") observe_sample(world, &scene.facts.info);
  else scene = observe(world, request);
  result.report.first = result.report.last = observe_sample(world);
  result.report.min_available = result.report.first.available;
  const Facts& facts = scene.facts;
  Verdict& verdict = result.report.verdict;
  if (!facts.info.contains("MemTotal") || !facts.info.contains("MemAvailable")) {
    verdict = {
        kInternal, "no_meminfo", "cannot read MemTotal and MemAvailable in " + request.roots.proc + "/meminfo", ""};
  } else if (request.cmd == "drop-cache") {
    result.facts = facts;
    drop_cache(world, result);
  } else if (request.cmd == "plan" || request.cmd == "evict") {
    result.decision = decide(request, facts);
    result.report.warnings = result.decision.warnings;
    verdict = result.decision;
    if (request.apply && verdict.reason == "feasible") evict(world, result, scene);
  } else if (const auto checks = self_checks(facts); request.cmd == "selftest" &&
             !std::all_of(checks.begin(), checks.end(), [](const auto& check) { return check.second; })) {
    verdict = {kInternal, "selftest", "a self check failed: see checks", ""};
  } else {
    verdict = {kMet, "observed", "MemAvailable is " + human(get(facts.info, "MemAvailable")), ""};
  }
  result.facts = std::move(scene.facts);
  result.recorded = std::move(world.recorded);
  result.elapsed = monotonic() - start;
  return finish(result);
}

// ---- command line.

constexpr const char* kHelp = R"(force_swap: make room for pinned GPU memory on a machine with unified memory.

CUDA pages are pinned and cannot be swapped. force_swap makes room for them: it pushes OTHER cold
pages out to swap (memory.reclaim of leaf cgroups that you name) and drops clean file cache.

usage: force_swap probe | plan | evict | drop-cache PATH... | selftest  [flags]

  probe       what this machine has: memory, swap, CUDA attributes. Changes nothing.
  plan        what evict would do, and why not; without --cgroup it judges every leaf cgroup.
  evict       a dry run; with --apply it pages out until the target is met. Needs --cgroup or --pid.
  drop-cache  drops files from the page cache, at once and without --apply: nothing is lost.
              A folder means its *.safetensors, at any depth. --dry-run only measures.
              Pages that a program maps cannot be dropped, and are reported.
  selftest    checks this program, and says what would be possible here.

It cannot: swap CUDA memory, add swap, change sysctls, kill, or touch the engine, the sidecar,
sshd, systemd, dbus or itself. There is no global reclaim and no balloon: both stall the machine.
stdout is one JSON object (force_swap/1), stderr is for people. Sizes: 4G, 512MiB, 1.5GB, bytes.
)";
constexpr const char* kTail = R"(
examples:
  force_swap plan --util 0.9
  force_swap evict --target-available 104G --cgroup user.slice --cgroup system.slice/gdm.service
  force_swap evict --target-available 104G --cgroup user.slice --apply
  force_swap drop-cache /models/MiniMax-M2.7

exit codes: 0 met, or a feasible dry run   2 usage        3 refused by a safety rule
            4 cannot be reached            5 partly       6 stopped by a guard
            7 --max-seconds are over       8 no permission, or the kernel cannot
            9 internal                     129, 130, 143  signal; the JSON is still written
)";

bool set_size(string_view text, u64& value) {
  const auto size = parse_size(text);
  return value = size.value_or(value), size.has_value();
}
bool set_optional(string_view text, optional<u64>& value) { return (value = parse_size(text)).has_value(); }
bool set_number(string_view text, double& value, double least, double most) {
  const auto number = parse_decimal(text);
  return value = number.value_or(value), number && *number >= least && *number <= most;
}
bool set_pid(string_view text, int& pid) {
  const auto number = parse_u64(text);
  return pid = static_cast<int>(number.value_or(0) & 0x3fffffff), number && *number > 1 && *number < (1U << 30);
}
bool set_text(string_view text, string& value) { return value = text, !text.empty(); }
bool set_root(string_view text, string& value, bool fake, Request& request) {
  request.roots.fake = request.roots.fake || fake;
  while (text.size() > 1 && text.ends_with('/')) text.remove_suffix(1);
  return set_text(text, value);
}

struct Flag {
  const char *name, *value, *commands, *help;  // commands: letters of plan, evict, drop-cache, all
  bool (*set)(Request&, string_view);
};
using R = Request;
using V = string_view;
constexpr std::array<Flag, 32> kFlags{{
    {"--target-available", "SIZE", "pe", "MemAvailable to reach: what vLLM asks for",
        [](R& r, V v) { return set_optional(v, r.target_available); }},
    {"--util", "U", "pe", "or: ceil(U * --total) + --init-overhead",
        [](R& r, V v) { return set_number(v, r.util.emplace(), 0.01, 1); }},
    {"--total", "SIZE", "pe", "GPU memory, or auto (default): asked of CUDA, else MemTotal",
        [](R& r, V v) { return v == "auto" ? (r.total.reset(), true) : set_optional(v, r.total); }},
    {"--init-overhead", "SIZE", "pe", "what a start takes before it looks (2G)",
        [](R& r, V v) { return set_size(v, r.init_overhead); }},
    {"--target-free", "SIZE", "pe", "MemFree to reach: what the driver sees",
        [](R& r, V v) { return set_optional(v, r.target_free); }},
    {"--cgroup", "NAME", "pe", "a leaf cgroup, or a parent of leaves; again for more",
        [](R& r, V v) { return r.cgroups.emplace_back(v), !v.empty(); }},
    {"--exclude-cgroup", "NAME", "pe", "leave this one out; again for more",
        [](R& r, V v) { return r.excluded.emplace_back(v), !v.empty(); }},
    {"--pid", "PID", "pe", "page out one process, and drain its cgroup (root on the host)",
        [](R& r, V v) { return set_pid(v, r.pids.emplace_back()); }},
    {"--apply", "", "e", "do it", [](R& r, V) { return r.apply = true; }},
    {"--dry-run", "", "ed", "only measure", [](R& r, V) { return r.dry_run = true; }},
    {"--phase", "preflight|ready", "pe", "preflight (default): no engine may be alive",
        [](R& r, V v) {
          return set_text(v, r.phase) && is_one_of(v, {"preflight", "ready"});
        }},
    {"--engine-pid", "PID", "pe", "the engine: never touched", [](R& r, V v) { return set_pid(v, r.engine_pid); }},
    {"--engine-unit", "NAME", "pe", "its unit: never touched", [](R& r, V v) { return set_text(v, r.engine_unit); }},
    {"--reserve", "SIZE", "pe", "MemAvailable that must stay (4G)", [](R& r, V v) { return set_size(v, r.reserve); }},
    {"--swap-reserve", "SIZE", "pe", "free swap that must stay (2G)",
        [](R& r, V v) { return set_size(v, r.swap_reserve); }},
    {"--step", "SIZE", "pe", "one request to the kernel (64M)",
        [](R& r, V v) { return set_size(v, r.step) && r.step >= 65536; }},
    {"--max-bytes", "SIZE", "pe", "all requests together (16G)", [](R& r, V v) { return set_size(v, r.max_bytes); }},
    {"--max-seconds", "N", "ped", "deadline (120)", [](R& r, V v) { return set_number(v, r.max_seconds, 0.1, 86400); }},
    {"--psi-full", "PERCENT", "pe", "stop when all tasks stall longer (10)",
        [](R& r, V v) { return set_number(v, r.psi_full, 0, 100); }},
    {"--swapin-mbs", "N", "pe", "stop when pages come back faster, MiB/s (50)",
        [](R& r, V v) { return set_number(v, r.swapin_mbs, 0, 1e6); }},
    {"--allow-zram", "", "pe", "zram counts as swap", [](R& r, V) { return r.allow_zram = true; }},
    {"--allow-slow-swap", "", "pe", "disks that rotate and networks too",
        [](R& r, V) { return r.allow_slow_swap = true; }},
    {"--lock", "FILE", "e", "held while it acts (/run/force_swap.lock)", [](R& r, V v) { return set_text(v, r.lock); }},
    {"--cgroup-base", "DIR", "a", "where the cgroups are (/sys/fs/cgroup)",
        [](R& r, V v) { return set_root(v, r.roots.cgroup, false, r); }},
    {"--proc-root", "DIR", "a", "a fake /proc: nothing is written, only recorded",
        [](R& r, V v) { return set_root(v, r.roots.proc, true, r); }},
    {"--sys-root", "DIR", "a", "a fake /sys, likewise", [](R& r, V v) { return set_root(v, r.roots.sys, true, r); }},
    {"--cgroup-root", "DIR", "a", "a fake cgroup tree, likewise",
        [](R& r, V v) { return set_root(v, r.roots.cgroup, true, r); }},
    {"--json", "", "a", "accepted: the output is always JSON", [](R&, V) { return true; }},
}};
char letter_of(const string& cmd) {
  return cmd == "drop-cache" ? 'd' : cmd == "plan" ? 'p' : cmd == "evict" ? 'e' : '-';
}
bool takes(const string& cmd, const Flag& flag) {
  const string_view commands = flag.commands;
  return commands == "a" || cmd.empty() || commands.find(letter_of(cmd)) != string_view::npos;
}
int help(const string& cmd) {
  string text = kHelp;
  text += "\nflags" + (cmd.empty() ? "" : " of " + cmd) + ":\n";
  for (const Flag& flag : kFlags)
    if (flag.name && takes(cmd, flag))
      text += text_of("  %-32s %s\n", (string(flag.name) + " " + flag.value).c_str(), flag.help);
  text += kTail;
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? kMet : kInternal;
}

// Returns what is wrong with the command line, or "".
string parse_flag(Request& request, const vector<string>& words, size_t& at) {
  const string& word = words[at];
  const size_t equals = word.find('=');
  const string name = word.substr(0, equals);
  const auto* flag =
      std::find_if(kFlags.begin(), kFlags.end(), [&](const Flag& one) { return one.name && name == one.name; });
  if (flag == kFlags.end()) return "unknown flag " + name;
  if (!takes(request.cmd, *flag)) return name + " says nothing to " + request.cmd;
  string value;
  if (*flag->value != '\0') {
    if (equals == string::npos && at + 1 >= words.size()) return name + " needs a value: " + flag->value;
    value = equals == string::npos ? words[++at] : word.substr(equals + 1);
  } else if (equals != string::npos) {
    return name + " takes no value";
  }
  return flag->set(request, value) ? "" : name + ": \"" + value + "\" is no " + flag->value;
}
string parse_words(Request& request, const vector<string>& words) {
  if (words.empty()) return "no command";
  request.cmd = words[0];
  if (!is_one_of(request.cmd, {"probe", "plan", "evict", "drop-cache", "selftest"}))
    return "unknown command " + request.cmd;
  for (size_t i = 1; i < words.size(); ++i) {
    const bool path = !words[i].starts_with("--") && request.cmd == "drop-cache";
    if (!path && !words[i].starts_with("--")) return "unexpected word " + words[i];
    if (path) request.paths.push_back(words[i]);
    else if (string wrong = parse_flag(request, words, i); !wrong.empty()) return wrong;
  }
  if (request.cmd == "drop-cache") return request.paths.empty() ? "drop-cache needs a PATH" : "";
  if (request.cmd != "plan" && request.cmd != "evict") return "";
  if (request.util && request.target_available) return "--util and --target-available: give one of them";
  if (!request.util && !request.target_available && !request.target_free)
    return "no target: give --target-available SIZE, --util U or --target-free SIZE";
  if (request.apply && request.dry_run) return "--apply and --dry-run: give one of them";
  if (request.cmd == "evict" && request.cgroups.empty() && request.pids.empty())
    return "evict needs --cgroup NAME or --pid PID; force_swap plan lists the candidates";
  for (const string& name : request.cgroups)
    if (beneath(request.roots, name).empty()) return "--cgroup " + name + " is the root: there is no global reclaim";
  return "";
}
int run_command_line(const vector<string>& words) {
  Request request;
  const bool named = !words.empty() && is_one_of(words[0], {"probe", "plan", "evict", "drop-cache", "selftest"});
  if (std::any_of(words.begin(), words.end(), [](const string& word) { return word == "--help" || word == "-h"; }))
    return help(named ? words[0] : "");
  const string wrong = parse_words(request, words);
  if (wrong.empty()) return run(request);
  Result result;
  result.request = request;
  result.report.verdict = {kUsage, "usage", wrong, "force_swap --help"};
  return finish(result);
}

}  // namespace

#ifndef FORCE_SWAP_NO_MAIN
int main(int argc, char** argv) {
  struct sigaction action {};
  action.sa_handler = [](int number) { g_signal = number; };  // no SA_RESTART: a blocked call returns
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) (void)sigaction(number, &action, nullptr);
  (void)std::signal(SIGPIPE, SIG_IGN);
  return run_command_line({argv + 1, argv + argc});
}
#endif
