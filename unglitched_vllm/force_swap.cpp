// force_swap: make room for pinned GPU memory on a machine whose GPU shares the CPU's DRAM.
// CUDA pages are pinned and cannot be swapped; what can go is cold memory of *other* programs.
// Top to bottom: parse, JSON, decide (all pure); world (system calls), observe, act, drop-cache,
// report, command line. README.md has the reasons, the exit codes and what was measured.
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
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
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
#include <utility>
#include <vector>

namespace {

using std::optional, std::string, std::string_view, std::vector;
using u64 = std::uint64_t;
using i64 = std::int64_t;
constexpr u64 kMiB = 1ULL << 20, kGiB = 1ULL << 30;
enum Exit { kMet, kUsage = 2, kRefused, kInfeasible, kPartial, kGuard, kTimeout, kDenied, kInternal };

// ---- parse: text of the kernel or of a person -> values. Any bytes are allowed in.

template <class Number>
bool read_all(string_view text, Number& value, int base = 10) {
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value, base);
  return error == std::errc() && end == last;
}
optional<u64> parse_u64(string_view text) {
  u64 value = 0;
  return read_all(text, value) ? optional(value) : std::nullopt;
}
u64 saturated_mul(u64 a, u64 b) {
  u64 product = 0;
  return __builtin_mul_overflow(a, b, &product) ? ~0ULL : product;
}
// "1.5" and what follows it; no sign, no exponent, a digit on both sides of the point.
optional<double> parse_decimal(string_view text, string_view& rest) {
  const auto digit = [&](size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  const auto used = static_cast<size_t>(end - text.data());
  if (!digit(0) || error != std::errc() || !digit(used - 1)) return {};
  rest = text.substr(used);
  return value;
}
// "4G" "512MiB" "1.5GB" "4096": one letter and "iB" are binary, "B" is decimal.
optional<u64> parse_size(string_view text) {
  const auto number = parse_decimal(text, text);
  if (!number) return {};
  double unit = 1;
  if (!text.empty() && text != "B") {
    const size_t power = string_view("KMGT").find(text[0]);
    const string_view tail = text.substr(1);
    if (power == string_view::npos || !(tail.empty() || tail == "iB" || tail == "B")) return {};
    unit = std::pow(tail == "B" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  const double bytes = std::round(*number * unit);
  return bytes < 0x1p63 ? optional(static_cast<u64>(bytes)) : std::nullopt;
}
vector<string_view> split(string_view text, string_view separators = " \t\n") {
  vector<string_view> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(separators, at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// meminfo, vmstat, memory.stat: "Name: 12 kB" or "name 12"; kB becomes bytes.
using Keyed = std::map<string, u64, std::less<>>;
Keyed parse_keyed(string_view text) {
  Keyed values;
  for (const string_view line : split(text, "\n")) {
    const auto words = split(line);
    const auto number = words.size() > 1 ? parse_u64(words[1]) : std::nullopt;
    if (!number) continue;
    const string_view name = words[0].substr(0, words[0].find(':'));
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
  for (const string_view line : split(text, "\n")) {
    const size_t at = line.find("total=");
    if (at == string_view::npos) continue;
    (line.starts_with("full") ? psi.full_us : psi.some_us) = parse_u64(line.substr(at + 6)).value_or(0);
  }
  return psi;
}
struct SwapArea {
  string dev, type;
  u64 size = 0, used = 0;
  optional<bool> rotational;  // nothing: the kernel does not tell
  bool zram = false, network = false;
};
vector<SwapArea> parse_swaps(string_view text) {
  vector<SwapArea> areas;
  for (const string_view line : split(text, "\n")) {
    const auto words = split(line);
    const auto size = words.size() > 4 ? parse_u64(words[2]) : std::nullopt;
    if (!size) continue;  // the heading
    SwapArea& area = areas.emplace_back();
    area.dev = words[0], area.type = words[1], area.size = saturated_mul(*size, 1024);
    area.used = std::min(area.size, saturated_mul(parse_u64(words[3]).value_or(0), 1024));
    area.zram = area.dev.starts_with("/dev/zram"), area.network = area.dev.starts_with("/dev/nbd");
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
  const size_t open = text.find(" ("), close = text.rfind(')');
  if (open == string_view::npos || close == string_view::npos || close < open + 2) return {};
  const auto rest = split(text.substr(close + 1));
  Stat stat;
  if (rest.size() < 20 || !read_all(text.substr(0, open), stat.pid) || !read_all(rest[1], stat.ppid)) return {};
  if (!read_all(rest[19], stat.start) || stat.pid < 0 || stat.ppid < 0) return {};
  stat.state = rest[0][0], stat.comm = text.substr(open + 2, close - open - 2);
  return stat;
}
// "0::/user.slice/…" of /proc/PID/cgroup: the path in cgroup v2, without its first slash.
optional<string> parse_cgroup_line(string_view text) {
  for (const string_view line : split(text, "\n"))
    if (line.starts_with("0::/")) return string(line.substr(4));
  return {};
}
vector<int> parse_pids(string_view text) {
  vector<int> pids;
  for (const string_view word : split(text))
    if (int pid = 0; read_all(word, pid) && pid >= 0) pids.push_back(pid);
  return pids;
}
// A limit file of a cgroup: "max" (nothing) or bytes.
optional<u64> parse_limit(string_view text) {
  const auto words = split(text);
  return words.size() == 1 ? parse_u64(words[0]) : std::nullopt;
}
struct Vma {
  u64 start = 0, length = 0, anon = 0;
  bool movable = false;
};
// smaps: only what MADV_PAGEOUT can move is kept: private, anonymous, not locked, no device, no huge page.
vector<Vma> parse_smaps(string_view text) {
  vector<Vma> all;
  for (const string_view line : split(text, "\n")) {
    const auto words = split(line);
    if (words.size() < 2) continue;
    const size_t dash = words[0].find('-');
    u64 from = 0, to = 0;
    if (words.size() > 4 && dash != string_view::npos && read_all(words[0].substr(0, dash), from, 16) &&
        read_all(words[0].substr(dash + 1), to, 16) && to > from)
      all.push_back({from, to - from, 0, words[1].ends_with('p') && words[4] == "0"});
    else if (!all.empty() && words[0] == "Anonymous:")
      all.back().anon = std::min(all.back().length, saturated_mul(parse_u64(words[1]).value_or(0), 1024));
    else if (!all.empty() && words[0] == "VmFlags:")
      for (const string_view flag : words)
        if (flag == "lo" || flag == "io" || flag == "pf" || flag == "ht") all.back().movable = false;
  }
  std::erase_if(all, [](const Vma& vma) { return !vma.movable || vma.anon == 0; });
  return all;
}

// ---- JSON, and text for people. Bytes that are no UTF-8 become U+FFFD.

string decimal(double value, int digits) {
  std::array<char, 400> text{};
  (void)std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}
template <class... Parts>
string cat(const Parts&... parts) {
  string text;
  const auto add = [&]<class Part>(const Part& part) {
    if constexpr (std::is_arithmetic_v<Part>) text += std::to_string(part);
    else text += part;
  };
  return (add(parts), ...), text;
}
string human(u64 bytes) {
  const auto size = static_cast<double>(bytes);
  return bytes >= kGiB ? decimal(size / 0x1p30, 2) + " GiB" : decimal(size / 0x1p20, 1) + " MiB";
}
size_t utf8_length(string_view text, size_t at) {  // 0: no UTF-8
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
string quoted(string_view text) {
  string out = "\"";
  for (size_t i = 0, length = 0; i < text.size(); i += std::max<size_t>(length, 1)) {
    length = utf8_length(text, i);
    const char c = text[i];
    if (length == 0) out += "\\ufffd";
    else if (length > 1) out += text.substr(i, length);
    else if (c == '"' || c == '\\') out += '\\', out += c;
    else if (c >= 0x20 && c != 0x7f) out += c;
    else out += cat("\\u00", c < 0x10 ? "0" : c < 0x20 ? "1" : "7", string(1, "0123456789abcdef"[c & 15]));
  }
  return out + '"';
}
struct Raw {
  string text;  // JSON already
};
template <class T>
string json(const T& value) {
  if constexpr (std::is_same_v<T, Raw>) return value.text;
  else if constexpr (std::is_same_v<T, bool>) return value ? "true" : "false";
  else if constexpr (std::is_integral_v<T>) return std::to_string(value);
  else if constexpr (std::is_floating_point_v<T>) return decimal(value, 3);
  else if constexpr (requires { value.has_value(); }) return value ? json(*value) : "null";
  else return quoted(value);
}
class Object {
 public:
  template <class T>
  Object& operator()(string_view key, const T& value) {
    out_ += cat(out_.empty() ? "{" : ",", quoted(key), ":", json(value));
    return *this;
  }
  [[nodiscard]] Raw end() const { return {out_.empty() ? "{}" : out_ + "}"}; }

 private:
  string out_;
};
template <class All, class Each>
Raw list(const All& all, Each each) {
  string out;
  for (const auto& one : all) out += (out.empty() ? "" : ",") + json(each(one));
  return {cat("[", out, "]")};
}

// ---- decide: request and facts -> what to do, or why not.

u64 less(u64 a, u64 b) { return a > b ? a - b : 0; }

struct Roots {
  string proc = "/proc", sys = "/sys", cgroup = "/sys/fs/cgroup";
  bool fake = false;  // any fake root: the whole run is a rehearsal, each write is only recorded
};
struct Request : Roots {
  string cmd, phase = "preflight", engine_unit, lock = "/run/force_swap.lock";
  optional<u64> target_available, target_free, total;
  optional<double> util;
  u64 init_overhead = 2 * kGiB, reserve = 4 * kGiB, swap_reserve = 2 * kGiB, step = 64 * kMiB, max_bytes = 16 * kGiB;
  double max_seconds = 120, psi_full = 10, swapin_mbs = 50;
  bool apply = false, dry_run = false, allow_zram = false, allow_slow_swap = false, json = false;
  vector<string> cgroups, excluded, paths;
  vector<int> pids;
  int engine_pid = 0;
};
struct Verdict {
  int exit = kMet;
  string reason, message;  // a stable word; what it is, and what to type next
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
  u64 inactive_anon = 0, active_anon = 0, unevictable = 0;
  optional<u64> swap_room;  // the least room under memory.swap.max, its own and its parents'
  vector<Process> processes;
  vector<Vma> vmas;
  u64 device = 0, inode = 0, start = 0;  // who it is: must be the same when we act
  Verdict problem;                       // what observing it met
  // LRU sizes leave out what is unevictable, so mlocked pages are not in this sum.
  [[nodiscard]] u64 evictable() const {
    u64 bytes = pid == 0 ? inactive_anon + active_anon : 0;
    for (const Vma& vma : vmas) bytes += vma.anon;
    return std::min(bytes, swap_room.value_or(~0ULL));
  }
};
struct Engine {
  int pid = 0;
  bool alive = false;
  string how, unit;
};
struct Cuda {  // comes back from a child through shared memory: plain data only
  enum State { kAbsent, kOk, kError } state = kAbsent;
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
  std::set<int> lineage;  // this process and all that it descends from: sidecar, shell, sshd
  Engine engine;
  bool host_root = false;  // root, in the host's own pid namespace
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
bool protected_unit(string_view name) {  // its stall makes the machine unreachable
  return is_one_of(name,
             {"init.scope", "ssh.service", "sshd.service", "ssh.socket", "dbus.service", "dbus.socket",
                 "dbus-broker.service", "nvidia-persistenced.service"}) ||
      name.starts_with("systemd-") || name.starts_with("sshd@") || name.starts_with("ssh@");
}
bool runs_program(const Process& process, const string& program) {
  for (size_t i = 0; i < std::min<size_t>(process.argv.size(), 4); ++i) {
    const string_view base = string_view(process.argv[i]).substr(process.argv[i].rfind('/') + 1);
    if (base == program || (i > 0 && process.argv[i - 1] == "-m" && base.starts_with(program + "."))) return true;
  }
  return process.comm == program;
}
// What this process is that must never wait for swap, or "".
string protected_role(const Process& process, const Facts& facts) {
  const string_view comm = process.comm;
  if (process.pid != 0 && facts.lineage.contains(process.pid)) return "this program's own line";
  if (process.pid == 1) return "init";
  if (process.pid != 0 && process.pid == facts.engine.pid) return "the engine";
  if (comm.starts_with("VLLM::") || runs_program(process, "vllm")) return "the engine";
  if (runs_program(process, "appliance")) return "the sidecar";
  if (is_one_of(comm, {"sshd", "sshd-session", "sshd-auth"})) return "sshd";
  if (comm.starts_with("dbus-daemon") || comm.starts_with("dbus-broker")) return "dbus";
  if (is_one_of(comm, {"systemd", "init", "(sd-pam)"}) || comm.starts_with("systemd-")) return "systemd";
  return comm.starts_with("nvidia-persist") ? "nvidia-persistenced" : "";
}
bool names_unit(string_view part, const string& unit) {
  return !unit.empty() &&
      (part == unit || (part.starts_with(unit + ".") && part.find('.', unit.size() + 1) == part.npos));
}
Verdict judge(const Candidate& candidate, const Facts& facts) {
  if (candidate.problem.exit != kMet) return candidate.problem;
  const string name = "cgroup " + candidate.cgroup;
  for (const string_view part : split(candidate.cgroup, "/")) {
    if (names_unit(part, facts.engine.unit)) return {kRefused, "protected", name + " is the engine -> choose others"};
    if (protected_unit(part))
      return {kRefused, "protected", name + " keeps the machine reachable: it is protected -> choose other cgroups"};
  }
  for (const Process& process : candidate.processes)
    if (const string role = protected_role(process, facts); !role.empty())
      return {kRefused, "protected",
          cat(name, " holds ", role, " (pid ", process.pid, ", ", process.comm, ") -> choose a leaf without it")};
  if (candidate.swap_room == 0U)
    return {kRefused, "swap_max",
        name + " may not swap, or a parent may not -> systemctl set-property UNIT MemorySwapMax=infinity"};
  return {};
}

u64 missing(const Decision& decision, u64 available, u64 free) {
  return std::max(less(decision.want_available.value_or(0), available), less(decision.want_free.value_or(0), free));
}
void set_targets(const Request& request, const Facts& facts, Decision& decision) {
  decision.want_available = request.target_available, decision.want_free = request.target_free;
  if (request.util) {
    const bool known = facts.cuda.state == Cuda::kOk && facts.cuda.total > 0;
    const u64 total = request.total.value_or(known ? facts.cuda.total : get(facts.info, "MemTotal"));
    if (!request.total && !known) decision.warnings.emplace_back("no CUDA driver answers: --util is taken of MemTotal");
    // ceil as vLLM does it: request_memory compares with ceil(total * utilization).
    const double share = std::ceil(static_cast<double>(total) * *request.util);
    decision.want_available = static_cast<u64>(share) + request.init_overhead;
  }
  decision.deficit = missing(decision, get(facts.info, "MemAvailable"), get(facts.info, "MemFree"));
}
// What the end may fall short of the target: 64 MiB or 2 %, but never more than a quarter of it.
u64 tolerance(u64 deficit) { return std::min(std::max(64 * kMiB, deficit / 50), deficit / 4); }

bool permitted(const SwapArea& area, const Request& request) {
  return (request.allow_zram || !area.zram) &&
      (request.allow_slow_swap || !(area.rotational.value_or(false) || area.network));
}
u64 usable_swap(const vector<SwapArea>& swaps, const Request& request) {
  u64 bytes = 0;
  for (const SwapArea& area : swaps) bytes += permitted(area, request) ? area.size - area.used : 0;
  return bytes;
}
Verdict judge_machine(const Request& request, const Facts& facts, const Decision& decision) {
  const Engine& engine = facts.engine;
  const u64 total = get(facts.info, "MemTotal");
  const u64 want = std::max(decision.want_available.value_or(0), decision.want_free.value_or(0));
  const auto all_swaps = [&](auto law) { return std::all_of(facts.swaps.begin(), facts.swaps.end(), law); };
  if (request.util && facts.cuda.state == Cuda::kOk && facts.cuda.attrs[0] == 0)
    return {
        kRefused, "discrete_gpu", "this GPU has memory of its own: host memory does not limit it -> no need to evict"};
  if (want > less(total, request.reserve))
    return {kInfeasible, "target_too_high",
        cat("target ", human(want), " is more than MemTotal ", human(total), " less --reserve ", human(request.reserve),
            " -> ask for less: a lower utilization, a smaller KV cache")};
  if (request.phase == "preflight" && engine.alive)
    return {kRefused, "engine_alive",
        cat("an engine is alive (pid ", engine.pid, ", ", engine.how,
            "): memory freed while it loads makes it abort -> stop it, or --phase ready once it serves")};
  if (request.phase == "ready" && !engine.alive)
    return {
        kRefused, "engine_not_alive", "--phase ready, but no engine is alive -> --engine-pid, or --phase preflight"};
  if (facts.swaps.empty())
    return {kRefused, "no_swap", "this machine has no swap -> add a swap file on NVMe; drop-cache still works"};
  if (!request.allow_zram && all_swaps([](const SwapArea& area) { return area.zram; }))
    return {kRefused, "zram_only",
        "all swap is zram, in the memory to be freed -> add swap on NVMe, or --allow-zram if pages compress well"};
  if (all_swaps([&](const SwapArea& area) { return !permitted(area, request); }))
    return {kRefused, "slow_swap", "swap is on a rotating disk or a network -> use NVMe, or --allow-slow-swap"};
  return {};
}
Verdict judge_amounts(const Request& request, const Facts& facts, const Decision& decision) {
  u64 evictable = 0, locked = 0;
  for (const size_t i : decision.order) {
    evictable += facts.candidates[i].evictable(), locked += facts.candidates[i].unevictable;
  }
  const u64 need = less(decision.deficit, tolerance(decision.deficit));
  const u64 swap = usable_swap(facts.swaps, request), room = less(swap, request.swap_reserve);
  const string deficit = human(decision.deficit) + " are missing";
  if (request.max_bytes < need)
    return {
        kInfeasible, "max_bytes", cat(deficit, ", --max-bytes is ", human(request.max_bytes), " -> raise --max-bytes")};
  if (room < need)
    return {kInfeasible, "swap_too_small",
        cat(deficit, "; usable swap has ", human(swap), " free, less --swap-reserve ", human(request.swap_reserve),
            ": ", human(less(decision.deficit, room)), " short -> add swap, or ask for less")};
  if (evictable < need)
    return {kInfeasible, "too_little_evictable",
        cat(deficit, "; the chosen cgroups can give ", human(evictable), ": ", human(less(decision.deficit, evictable)),
            " short", locked > 0 ? "; mlocked or unevictable there: " + human(locked) : "",
            " -> name more cgroups (force_swap plan lists them), or ask for less")};
  return {};
}
// Which candidates may be used; one that was named and is protected refuses the whole run.
Verdict choose(const Facts& facts, Decision& decision) {
  Verdict worst;
  const auto& all = facts.candidates;
  for (size_t i = 0; i < all.size(); ++i) {
    Verdict verdict = judge(all[i], facts);
    if (verdict.exit == kMet) decision.order.push_back(i);
    else if (all[i].named && verdict.exit == kRefused) return verdict;
    else if (all[i].named) decision.warnings.push_back(verdict.message);
    if (verdict.exit > worst.exit && (all[i].named || verdict.exit == kDenied)) worst = verdict;
  }
  // Whole cgroups, biggest and coldest first: cold pages are the ones that nobody faults back in.
  const auto rank = [&](size_t i) { return std::tuple(all[i].pid == 0, all[i].inactive_anon, all[i].active_anon); };
  std::stable_sort(decision.order.begin(), decision.order.end(), [&](size_t a, size_t b) { return rank(a) > rank(b); });
  if (!decision.order.empty() || worst.exit != kMet) return decision.order.empty() ? worst : Verdict{};
  if (facts.cgroup == "v1")
    return {kDenied, "cgroup_v1",
        "cgroup v1 has no memory.reclaim: only drop-cache works here -> boot with systemd.unified_cgroup_hierarchy=1"};
  return {kInfeasible, "no_candidate", "no cgroup is left to page out -> force_swap plan lists them with reasons"};
}
Decision decide(const Request& request, const Facts& facts) {
  Decision decision;
  set_targets(request, facts, decision);
  Verdict verdict = choose(facts, decision);
  if (get(facts.info, "HugePages_Total") > 0)
    decision.warnings.emplace_back("huge pages are reserved: the driver then sees HugePages_Free");
  if (decision.want_free && !decision.want_available)
    decision.warnings.emplace_back("MemFree rises cheaper by drop-cache; vLLM asks MemAvailable");
  const Verdict machine = judge_machine(request, facts, decision);
  if (machine.exit != kMet) verdict = machine;
  else if (verdict.exit == kMet) verdict = judge_amounts(request, facts, decision);
  if (decision.deficit == 0 && machine.reason != "discrete_gpu")
    verdict = {kMet, "already_met", "the target is met: nothing to do"};
  else if (verdict.exit == kMet)
    verdict = {kMet, "feasible", human(decision.deficit) + " are missing and can be paged out"};
  static_cast<Verdict&>(decision) = verdict;
  return decision;
}

// While acting: what was measured, and what the next step is.
struct Sample {
  double at = 0;  // seconds, monotonic
  u64 available = 0, free = 0, swap_free = 0, psi_some_us = 0, psi_full_us = 0, swapped_in = 0, swapped_out = 0;
  u64 writeback = 0, swap_cached = 0;
  u64 released = 0;  // bytes that our candidates have given up
};
using Samples = std::deque<Sample>;  // the first is the start
constexpr double kSlowWindow = 10;

// Per second over the last `seconds` or a little more; nothing before that time has passed.
optional<double> rate(const Samples& samples, double seconds, u64 Sample::*field) {
  const Sample& now = samples.back();
  const auto old = [&](const Sample& past) { return now.at - past.at >= seconds; };
  const auto past = std::find_if(samples.rbegin(), samples.rend(), old);
  if (past == samples.rend()) return {};
  return static_cast<double>(less(now.*field, (*past).*field)) / (now.at - past->at);
}
Verdict judge_guards(const Request& request, const Samples& samples, u64 step) {
  const Sample &now = samples.back(), &first = samples.front();
  if (now.available < request.reserve)
    return {kGuard, "guard_available",
        cat("MemAvailable ", human(now.available), " is under --reserve ", human(request.reserve),
            " -> stop programs")};
  if (less(now.swap_free, step) < request.swap_reserve)
    return {kGuard, "guard_swap",
        cat("free swap ", human(now.swap_free), " nears --swap-reserve ", human(request.swap_reserve), " -> add swap")};
  // What is still in SwapCached was written, and will be free at the next shortage: that is no loss.
  const u64 out = less(less(now.swapped_out, first.swapped_out), less(now.swap_cached, first.swap_cached));
  if (out >= 256 * kMiB && less(now.available, first.available) < out / 10)
    return {kGuard, "guard_no_gain",
        human(out) +
            " were swapped out, but MemAvailable has hardly risen -> swap in memory (zram, zswap), or a "
            "program that takes what is freed: look with force_swap probe"};
  const double full = rate(samples, 1, &Sample::psi_full_us).value_or(0) / 1e4;
  if (full > request.psi_full)
    return {kGuard, "guard_psi",
        cat("memory pressure: all tasks stalled ", decimal(full, 1),
            " % of the time -> let it calm down, ask for less")};
  const double in = rate(samples, 1, &Sample::swapped_in).value_or(0) / 0x1p20;
  if (in > request.swapin_mbs)
    return {kGuard, "guard_swapin",
        cat("pages come back at ", decimal(in, 1), " MiB/s: they are not cold -> other cgroups")};
  const auto swapped = rate(samples, kSlowWindow, &Sample::swapped_out);
  const double moved =
      std::max(swapped.value_or(0), rate(samples, kSlowWindow, &Sample::released).value_or(0)) / 0x1p20;
  if (swapped && moved < 20 && !request.allow_slow_swap)
    return {kGuard, "guard_slow_swap", cat("swap takes only ", decimal(moved, 1), " MiB/s -> put it on a faster disk")};
  return {};
}
struct Next {
  Verdict stop;  // reason "": no stop
  size_t index = 0;
  u64 bytes = 0;
};
Next next_step(const Request& request, const Decision& decision, u64 requested, const vector<bool>& done,
    const Samples& samples, u64 page) {
  const Sample& now = samples.back();
  const u64 deficit = missing(decision, now.available, now.free), left = less(request.max_bytes, requested);
  if (deficit == 0) return {{kMet, "met", "the target is met"}};
  if (now.at - samples.front().at >= request.max_seconds)
    return {{kTimeout, "deadline", "--max-seconds are over -> raise it, or look why swap is slow"}};
  const u64 bytes = std::max(page, (std::min({request.step, deficit, left}) + page - 1) / page * page);
  if (const Verdict guard = judge_guards(request, samples, bytes); guard.exit != kMet) return {guard};
  if (left == 0) return {{kPartial, "max_bytes", "--max-bytes are used up -> raise it"}};
  const auto at = std::find(done.begin(), done.end(), false);
  if (at == done.end()) return {{kPartial, "exhausted", "all candidates are used up -> name more cgroups"}};
  return {{}, static_cast<size_t>(at - done.begin()), bytes};
}

// ---- world: system calls. What could write goes through World, which only records under fake roots.

volatile std::sig_atomic_t g_signal = 0;

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { (void)(fd_ < 0 || close(fd_)); }
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
string error_text(int error) { return strerrordesc_np(error) ? strerrordesc_np(error) : cat("error ", error); }

// A small text file, whole; nothing when it cannot be read. Beneath a folder no link is followed.
optional<string> read_file(const string& path, int dir = AT_FDCWD) {
  const Fd fd(openat(dir, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (dir == AT_FDCWD ? 0 : O_NOFOLLOW)));
  string text;
  std::array<char, 65536> buffer{};
  while (fd && text.size() < 64 * kMiB) {
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got > 0) text.append(buffer.data(), static_cast<size_t>(got));
    else if (errno != EINTR) return {};
  }
  return fd ? optional(text) : std::nullopt;
}
string text_in(const string& path, int dir = AT_FDCWD) { return read_file(path, dir).value_or(""); }
u64 magic_of(int fd) {
  struct statfs fs {};
  return fstatfs(fd, &fs) == 0 ? static_cast<u64>(fs.f_type) : 0;
}
Fd open_folder(const string& path, int dir = AT_FDCWD, int flags = 0) {
  return Fd(openat(dir, path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC | flags));
}
// A folder beneath `base`, one component at a time, following no link: as root we must not be led
// out of the tree by whoever owns a part of it. Empty: errno says why.
Fd open_beneath(const Fd& base, string_view relative) {
  Fd at = open_folder(".", base.get());
  for (const string_view part : split(relative, "/")) {
    if (part == "." || part == "..") return errno = EXDEV, Fd();
    if (at) at = open_folder(string(part), at.get(), O_NOFOLLOW);
  }
  return at;
}

// What can sit in the kernel for seconds runs in a child, so that a signal or the deadline ends us in time:
// the child gets SIGKILL, and if it is stuck even then we leave it dying and write our report.
template <class T>
T run_bounded(T initial, const std::function<void(T&)>& work, const std::function<bool()>& go_on, T when_cut) {
  static_assert(std::is_trivially_copyable_v<T>);
  void* page = mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  std::array<int, 2> ends{};
  if (page == MAP_FAILED || pipe2(ends.data(), O_CLOEXEC) != 0) return when_cut;
  const Fd here(ends[0]);
  Fd there(ends[1]);
  T* shared = new (page) T(initial);
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    work(*shared);
    _exit(0);
  }
  there = Fd();  // the child holds the only writing end now: its death is a hang-up here
  int status = 0;
  bool gone = child < 0, cut = gone;
  for (double killed_at = 0; !gone && (killed_at == 0 || monotonic() - killed_at < 1.2);) {
    pollfd ended{here.get(), POLLIN, 0};
    (void)poll(&ended, 1, 50);
    gone = waitpid(child, &status, WNOHANG) == child;
    cut = cut || (gone && status != 0);
    if (!gone && killed_at == 0 && !go_on()) killed_at = monotonic(), cut = true, kill(child, SIGKILL);
  }
  const T result = cut ? when_cut : *shared;
  munmap(page, sizeof(T));
  return result;
}

struct Recorded {
  string op, object, text;
};
class World {
 public:
  explicit World(const Roots& where) : roots(where) {
    const char* fd = roots.fake ? std::getenv("FORCE_SWAP_TEST_PAUSE_FD") : nullptr;  // NOLINT(concurrency-mt-unsafe)
    hook_ = fd ? static_cast<int>(parse_u64(fd).value_or(0)) : 0;
  }
  const Roots& roots;
  const u64 page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  vector<Recorded> recorded;

  // Under fake roots time is what the test says.
  [[nodiscard]] double now() const { return roots.fake ? fake_now_ : monotonic(); }
  void pause(int milliseconds) {
    fake_now_ += milliseconds / 1e3;
    if (!roots.fake) (void)poll(nullptr, 0, milliseconds);
  }
  // Under fake roots alone: tell the test what would happen now; it answers "errno milliseconds".
  int ask(const string& line) {
    string reply;
    if (hook_ <= 0 || write(hook_, (line + "\n").data(), line.size() + 1) < 0) return 0;
    for (char c = 0; c != '\n'; reply += c)
      if (const ssize_t got = read(hook_, &c, 1); got == 0 || (got < 0 && errno != EINTR)) return 0;
    const auto words = split(reply, string_view(" \n\0", 3));
    fake_now_ += words.size() > 1 ? static_cast<double>(parse_u64(words[1]).value_or(0)) / 1e3 : 0;
    return words.empty() ? 0 : static_cast<int>(parse_u64(words[0]).value_or(0));
  }
  // Does `work` in a child, which returns its errno; or only records it.
  int effect(const Recorded& what, const std::function<int()>& work, const std::function<bool()>& go_on) {
    if (!roots.fake)
      return run_bounded<int>(
          0, [&](int& error) { error = work(); }, go_on, EINTR);
    recorded.push_back(what);
    return ask(cat(what.op, " ", what.object, " ", what.text));
  }
  [[nodiscard]] bool trusted(const Fd& fd) const { return roots.fake || magic_of(fd.get()) == CGROUP2_SUPER_MAGIC; }

 private:
  double fake_now_ = 0;
  int hook_ = 0;
};

// ---- observe: the world -> facts.

using Attribute = std::pair<int, const char*>;
constexpr std::array<Attribute, 5> kAttributes{Attribute{18, "integrated"}, {83, "managed_memory"},
    {88, "pageable_memory_access"}, {89, "concurrent_managed_access"}, {100, "pageable_uses_host_page_tables"}};

// Runs in a child. No context is made: it costs memory, and may itself fail on a machine that is full.
void ask_cuda([[maybe_unused]] Cuda& cuda) {
#ifndef FORCE_SWAP_NO_CUDA
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  cuda.state = Cuda::kError;
  const auto fail = [&](const string& why) { why.copy(cuda.error.data(), cuda.error.size() - 1); };
  // Calls an entry point of the driver by its name; true when it is there and returns 0.
  const auto call = [&]<class... Args>(const char* name, Args... args) {
    const auto function = reinterpret_cast<int (*)(Args...)>(dlsym(library, name));
    const auto error_name = reinterpret_cast<int (*)(int, const char**)>(dlsym(library, "cuGetErrorName"));
    const char* text = nullptr;
    const int code = function ? function(args...) : 0;
    if (code != 0 && (!error_name || error_name(code, &text) != 0 || !text)) text = "unknown error";
    if (!function) fail(cat(name, ": not in libcuda.so.1"));
    if (code != 0) fail(cat(name, ": ", text, " (", code, ")"));
    return function && code == 0;
  };
  int devices = 0, first = 0;
  size_t bytes = 0;
  if (!call("cuInit", 0U) || !call("cuDeviceGetCount", &devices)) return;
  if (devices < 1) return fail("cuDeviceGetCount: no device");
  if (!call("cuDeviceGet", &first, 0) || !call("cuDeviceTotalMem_v2", &bytes, first)) return;
  if (!call("cuDeviceGetName", cuda.device.data(), static_cast<int>(cuda.device.size()) - 1, first)) return;
  for (size_t i = 0; i < kAttributes.size(); ++i)
    if (!call("cuDeviceGetAttribute", &cuda.attrs[i], kAttributes[i].first, first)) cuda.attrs[i] = -1;
  cuda.error = {}, cuda.total = bytes, cuda.state = Cuda::kOk;
#endif
}
Cuda observe_cuda() {
  Cuda late;
  late.state = Cuda::kError;
  string("the driver did not answer within 10 s, or died").copy(late.error.data(), late.error.size() - 1);
  const double end = monotonic() + 10;
  return run_bounded<Cuda>(
      {}, ask_cuda, [&] { return g_signal == 0 && monotonic() < end; }, late);
}
Sample observe_sample(const World& world, Keyed* info = nullptr) {
  const Keyed memory = parse_keyed(text_in(world.roots.proc + "/meminfo"));
  const Keyed vm = parse_keyed(text_in(world.roots.proc + "/vmstat"));
  const Psi psi = parse_psi(text_in(world.roots.proc + "/pressure/memory"));
  if (info) *info = memory;
  Sample now{world.now(), get(memory, "MemAvailable"), get(memory, "MemFree"), get(memory, "SwapFree"), psi.some_us,
      psi.full_us};
  now.swapped_in = saturated_mul(get(vm, "pswpin"), world.page);
  now.swapped_out = saturated_mul(get(vm, "pswpout"), world.page);
  now.writeback = get(memory, "Writeback"), now.swap_cached = get(memory, "SwapCached");
  return now;
}
vector<SwapArea> observe_swaps(const Roots& roots) {
  auto areas = parse_swaps(text_in(roots.proc + "/swaps"));
  for (SwapArea& area : areas) {
    string block = roots.sys + "/class/block/" + area.dev.substr(area.dev.rfind('/') + 1);
    struct stat at {};
    const Fd file(area.type == "file" ? open(area.dev.c_str(), O_PATH | O_CLOEXEC) : -1);
    if (file && fstat(file.get(), &at) == 0) {
      block = cat(roots.sys, "/dev/block/", major(at.st_dev), ":", minor(at.st_dev));
      constexpr std::array<u64, 4> kNetwork{NFS_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC, CEPH_SUPER_MAGIC};
      area.network = std::find(kNetwork.begin(), kNetwork.end(), magic_of(file.get())) != kNetwork.end();
    }
    string text = text_in(block + "/queue/rotational");
    if (text.empty()) text = text_in(block + "/../queue/rotational");  // a partition: ask its disk
    if (!text.empty()) area.rotational = text[0] == '1';
  }
  return areas;
}
optional<Stat> observe_stat(const Roots& roots, const string& pid) {
  return parse_stat(text_in(cat(roots.proc, "/", pid, "/stat")));
}
Process observe_process(const Roots& roots, int pid) {
  Process process{pid, {}, {}};
  if (const auto stat = observe_stat(roots, std::to_string(pid))) process.comm = stat->comm;
  const string command = text_in(cat(roots.proc, "/", pid, "/cmdline"));
  for (const string_view word : split(command, string_view("\0", 1))) process.argv.emplace_back(word);
  return process;
}
// The names in a folder, sorted; empty if it cannot be read.
std::set<string> names_in(const Fd& dir) {
  std::set<string> names;
  const int fd = openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(fd < 0 ? nullptr : fdopendir(fd), closedir);
  while (const dirent* entry = folder ? readdir(folder.get()) : nullptr) {  // NOLINT(concurrency-mt-unsafe)
    if (!is_one_of(entry->d_name, {".", ".."})) names.insert(entry->d_name);
  }
  return names;
}

constexpr int kMaxDepth = 32;
constexpr size_t kMaxGroups = 8192;
struct Walk {  // a whole subtree: its leaves (no child has memory of its own) and all processes
  vector<string> leaves;
  vector<int> pids;
};
// A child without memory of its own is charged to its parent: its processes count, it is no leaf.
void walk_groups(const World& world, const Fd& dir, const string& name, int depth, Walk& walk) {
  bool leaf = world.trusted(dir);
  for (const int pid : parse_pids(text_in("cgroup.procs", dir.get()))) walk.pids.push_back(pid);
  for (const string& child : names_in(dir)) {
    const Fd below = open_folder(child, dir.get(), O_NOFOLLOW);
    if (!below || depth >= kMaxDepth || walk.leaves.size() >= kMaxGroups) continue;
    const bool own = !world.trusted(dir) || faccessat(below.get(), "memory.current", F_OK, 0) == 0;
    const size_t before = walk.leaves.size();
    walk_groups(world, below, name.empty() ? child : cat(name, "/", child), depth + 1, walk);
    if (own) leaf = false;
    else walk.leaves.resize(before);
  }
  if (leaf && !name.empty()) walk.leaves.push_back(name);
}
optional<u64> observe_swap_room(const Fd& base, const string& name) {
  optional<u64> least;
  for (size_t end = name.find('/');; end = name.find('/', end + 1)) {
    const Fd dir = open_beneath(base, name.substr(0, end));
    const auto limit = parse_limit(text_in("memory.swap.max", dir.get()));
    const u64 used = parse_limit(text_in("memory.swap.current", dir.get())).value_or(0);
    if (limit) least = std::min(least.value_or(~0ULL), less(*limit, used));
    if (end == string::npos) return least;
  }
}
Verdict why_not_opened(const string& name, int error) {
  const string what = cat("cgroup ", name, ": ", error_text(error));
  if (error == EXDEV)
    return {kRefused, "unsafe_path", cat("cgroup ", name, ": . and .. are not allowed -> give the real path")};
  if (error == ELOOP || error == ENOTDIR)
    return {kRefused, "unsafe_path", what + ": a link or no folder stands in this path -> give the real path"};
  if (error == ENOENT) return {kInfeasible, "no_cgroup", what + " -> force_swap plan lists what exists"};
  return {kDenied, "no_permission", what + " -> run as root, or have this leaf delegated"};
}
// Everything about one leaf. Opening memory.reclaim for writing is the test of our rights: it changes nothing.
Candidate observe_leaf(const World& world, const Fd& base, const string& name) {
  Candidate leaf;
  leaf.cgroup = name;
  const Fd dir = open_beneath(base, name);
  struct stat self {};
  if (!dir || fstat(dir.get(), &self) != 0) return leaf.problem = why_not_opened(name, errno), leaf;
  if (!world.trusted(dir))
    return leaf.problem = {kRefused, "not_cgroup2", name + " is no cgroup v2 folder -> see --cgroup-base"}, leaf;
  leaf.device = self.st_dev, leaf.inode = self.st_ino;
  const Keyed stat = parse_keyed(text_in("memory.stat", dir.get()));
  leaf.inactive_anon = get(stat, "inactive_anon"), leaf.active_anon = get(stat, "active_anon");
  leaf.unevictable = get(stat, "unevictable"), leaf.swap_room = observe_swap_room(base, name);
  Walk walk;
  walk_groups(world, dir, name, 0, walk);
  for (const int pid : walk.pids) leaf.processes.push_back(observe_process(world.roots, pid));
  const Fd knob(openat(dir.get(), "memory.reclaim", O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!knob && errno == ENOENT)
    leaf.problem = {kDenied, "no_reclaim", cat("cgroup ", name, " has no memory.reclaim -> Linux 5.19 or newer")};
  else if (!knob) leaf.problem = why_not_opened(name + "/memory.reclaim", errno);
  return leaf;
}
struct Scene {  // facts, and the handles that keep them true
  Facts facts;
  Fd base;
  std::map<int, Fd> pidfds;
};
// The pidfd is opened before /proc/PID is read: what is read then belongs to the process that it names.
Candidate observe_pid(const World& world, Scene& scene, int pid) {
  const bool real = world.roots.proc == "/proc";
  Fd pidfd(real ? static_cast<int>(syscall(SYS_pidfd_open, pid, 0)) : -1);
  const string folder = cat(world.roots.proc, "/", pid);
  const auto stat = observe_stat(world.roots, std::to_string(pid));
  const auto group = parse_cgroup_line(text_in(folder + "/cgroup"));
  const auto maps = read_file(folder + "/smaps");
  Candidate one;
  if (group && !group->empty()) one = observe_leaf(world, scene.base, *group);
  one.named = true, one.pid = pid, one.start = stat ? stat->start : 0;
  one.vmas = parse_smaps(maps.value_or(""));
  one.processes.push_back(observe_process(world.roots, pid));
  if (!scene.facts.host_root)
    one.problem = {
        kDenied, "pid_needs_host_root", "--pid is for root on the host alone -> --cgroup with a delegated leaf"};
  else if (!stat || (real && !pidfd))
    one.problem = {kInfeasible, "no_process", cat("no process ", pid, " -> look with ps")};
  else if (!group || group->empty())
    one.problem = {
        kRefused, "root_cgroup", cat("pid ", pid, " is in the root cgroup -> systemd-run --scope gives it one")};
  else if (one.problem.exit == kMet && !maps)
    one.problem = {kDenied, "no_permission", cat("smaps of pid ", pid, " cannot be read -> run as root")};
  scene.pidfds[pid] = std::move(pidfd);
  return one;
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
  Engine engine{request.engine_pid, false, "--engine-pid", request.engine_unit};
  const auto alive = [](const optional<Stat>& stat) { return stat && stat->state != 'Z' && stat->state != 'X'; };
  engine.alive = engine.pid > 0 && alive(observe_stat(world.roots, std::to_string(engine.pid)));
  for (const Candidate& one : candidates)
    for (const string_view part : split(one.cgroup, "/"))
      if (!engine.alive && names_unit(part, engine.unit) && !one.processes.empty())
        engine.pid = one.processes[0].pid, engine.alive = true, engine.how = "--engine-unit";
  if (engine.pid > 0) return engine;
  for (const string& name : names_in(open_folder(world.roots.proc))) {
    const auto stat = parse_u64(name) ? observe_stat(world.roots, name) : std::nullopt;
    if (alive(stat) && stat->comm.starts_with("VLLM::")) return {stat->pid, true, stat->comm, engine.unit};
  }
  return engine;
}
string observe_version(const Roots& roots) {
  const Fd base = open_folder(roots.cgroup), memory = open_folder(roots.cgroup + "/memory");
  const auto exists = [](const Fd& dir, const char* name) { return faccessat(dir.get(), name, F_OK, 0) == 0; };
  if (magic_of(base.get()) == CGROUP2_SUPER_MAGIC || (roots.fake && exists(base, "cgroup.controllers"))) return "v2";
  return magic_of(memory.get()) == CGROUP_SUPER_MAGIC || exists(memory, "memory.limit_in_bytes") ? "v1" : "none";
}
// A name as people write it -> beneath the base: "/sys/fs/cgroup/a/b", "/a/b/" and "a/b" are one.
string beneath(const Roots& roots, string_view name) {
  if (name.starts_with(roots.cgroup + "/")) name.remove_prefix(roots.cgroup.size());
  const size_t first = std::min(name.find_first_not_of('/'), name.size());
  return string(name.substr(first, name.find_last_not_of('/') + 1 - first));
}
void observe_groups(const World& world, const Request& request, Scene& scene) {
  std::map<string, bool> leaves;  // leaf -> it was named itself
  const bool all = request.cgroups.empty() && request.pids.empty();
  for (const string& given : all ? vector<string>{""} : request.cgroups) {
    const string name = beneath(request, given);
    const Fd dir = open_beneath(scene.base, name);
    Walk walk;
    if (dir) walk_groups(world, dir, name, 0, walk);
    if (!all && walk.leaves.empty()) leaves[name] = true;
    for (const string& leaf : walk.leaves) leaves[leaf] = leaves[leaf] || leaf == name;
  }
  for (const auto& leaf : leaves) {
    const auto holds = [&](const string& one) { return (leaf.first + "/").starts_with(beneath(request, one) + "/"); };
    if (std::any_of(request.excluded.begin(), request.excluded.end(), holds)) continue;
    scene.facts.candidates.push_back(observe_leaf(world, scene.base, leaf.first));
    scene.facts.candidates.back().named = leaf.second;
  }
}
Scene observe(const World& world, const Request& request) {
  Scene scene;
  Facts& facts = scene.facts;
  observe_sample(world, &facts.info);
  if (request.cmd == "drop-cache") return scene;
  facts.swaps = observe_swaps(request), facts.cuda = observe_cuda(), facts.cgroup = observe_version(request);
  std::array<char, 64> space{};
  (void)!readlink((request.proc + "/self/ns/pid").c_str(), space.data(), space.size() - 1);
  // 4026531836 is the kernel's fixed number of the first pid namespace: the host's.
  facts.host_root = text_in(request.proc + "/self/status").find("\nUid:\t0\t0\t") != string::npos &&
      string_view(space.data()) == "pid:[4026531836]";
  if (request.cmd == "probe") return scene;
  scene.base = open_folder(request.cgroup);
  observe_groups(world, request, scene);
  for (const int pid : request.pids) facts.candidates.push_back(observe_pid(world, scene, pid));
  // A container mounts delegated leaves into a plain folder: then they tell the version, not the base.
  for (const Candidate& one : facts.candidates)
    if (one.inode != 0) facts.cgroup = "v2";
  facts.lineage = observe_lineage(request);
  facts.engine = observe_engine(world, request, facts.candidates);
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
struct Dropped {  // one file of drop-cache
  string path, why;
  u64 size = 0;
  optional<u64> before, after;  // bytes in the page cache; nothing: we may not ask (not the owner)
  int error = 0;
};
struct Result {
  Request request;
  Facts facts;
  Decision decision;
  vector<Mechanism> mechanisms;
  vector<Dropped> files;
  vector<string> warnings;
  Sample first, last;
  Keyed after;
  u64 min_available = ~0ULL;
  Verdict verdict;
};
i64 gain(u64 after, u64 before) { return static_cast<i64>(after) - static_cast<i64>(before); }
constexpr std::array<const char*, 3> kForms{"swappiness=max", "swappiness=200", "plain"};

class Evictor {
 public:
  Evictor(World& world, Scene& scene, Result& result)
      : world_(world), scene_(scene), request_(result.request), decision_(result.decision), result_(result) {}

  Verdict run() {
    done_.resize(decision_.order.size()), strikes_.resize(decision_.order.size());
    for (take_sample();;) {
      if (g_signal != 0) return {128 + g_signal, "signal", cat("signal ", int{g_signal})};
      if (cut_.exit != kMet) return cut_;
      const Next next = next_step(request_, decision_, requested_, done_, samples_, world_.page);
      if (next.stop.reason == "exhausted") return why_exhausted(next.stop);
      if (!next.stop.reason.empty()) return next.stop;
      if (request_.phase == "preflight" && observe_engine(world_, request_, scene_.facts.candidates).alive)
        return {kGuard, "engine_started", "an engine came alive: memory freed while it loads makes it abort"};
      step(next);
    }
  }

 private:
  [[nodiscard]] Verdict why_exhausted(const Verdict& otherwise) const {
    const auto& all = result_.mechanisms;
    const auto denied = [](const Mechanism& one) {
      return one.error == EPERM || one.error == EACCES || one.error == EROFS;
    };
    if (all.empty() && refused_.exit != kMet) return refused_;
    if (all.empty() || !std::all_of(all.begin(), all.end(), denied)) return otherwise;
    return {kDenied, "no_permission", "the kernel refused every write -> run as root, or have the leaf delegated"};
  }
  const Sample& take_sample() {
    samples_.push_back(observe_sample(world_));
    samples_.back().released = released_;
    // The first stays: it is the start. Of the others only the windows of the guards are needed.
    while (samples_.size() > 2 && samples_.back().at - samples_[2].at > kSlowWindow)
      samples_.erase(samples_.begin() + 1);
    result_.min_available = std::min(result_.min_available, samples_.back().available);
    return samples_.back();
  }
  // Asked again and again while a child works: only a signal, the deadline or a guard cut it short.
  bool go_on() {
    if (g_signal != 0) return false;
    if (world_.now() - samples_.back().at < 0.1) return true;
    take_sample();
    cut_ = judge_guards(request_, samples_, 0);
    if (samples_.back().at - samples_.front().at >= request_.max_seconds)
      cut_ = {kTimeout, "deadline", "--max-seconds are over -> raise it, or look why swap is slow"};
    return cut_.exit == kMet;
  }
  // The same folder, process and rules as when we planned? Who owns a part of the tree may have swapped it.
  Verdict recheck(const Candidate& planned, Fd& dir) {
    const Candidate now = observe_leaf(world_, scene_.base, planned.cgroup);
    if (Verdict verdict = judge(now, scene_.facts); verdict.exit != kMet) return verdict;
    dir = open_beneath(scene_.base, planned.cgroup);
    struct stat self {};
    if (!dir || fstat(dir.get(), &self) != 0 || self.st_dev != planned.device || self.st_ino != planned.inode)
      return {
          kRefused, "changed", cat("cgroup ", planned.cgroup, " is another one than when we planned -> plan again")};
    if (planned.pid == 0) return {};
    const Fd& pidfd = scene_.pidfds[planned.pid];
    pollfd ended{pidfd.get(), POLLIN, 0};
    const auto stat = observe_stat(world_.roots, std::to_string(planned.pid));
    if (stat && stat->start == planned.start && (!pidfd || poll(&ended, 1, 0) == 0)) return {};
    return {kRefused, "changed", cat("pid ", planned.pid, " is another process than when we planned -> plan again")};
  }
  Mechanism& account(const char* name, const string& object) {
    for (Mechanism& one : result_.mechanisms)
      if (one.name == name && one.object == object) return one;
    Mechanism& one = result_.mechanisms.emplace_back();
    one.name = name, one.object = object;
    return one;
  }
  void reclaim(const Fd& dir, const string& object, u64 bytes, Mechanism& account) {
    for (;; ++form_) {
      const bool plain = form_ + 1 == kForms.size();
      const string text = cat(bytes, plain ? "" : " ", plain ? "" : kForms[form_]);
      const auto work = [&] {
        const Fd knob(openat(dir.get(), "memory.reclaim", O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
        if (!knob || !world_.trusted(knob)) return knob ? EXDEV : errno;
        return write(knob.get(), text.data(), text.size()) < 0 ? errno : 0;
      };
      account.error = world_.effect({"write", object + "/memory.reclaim", text}, work, [&] { return go_on(); });
      if (account.error != EINVAL) account.form = kForms[form_];
      if (account.error != EINVAL || plain) return;  // else an older kernel: the next older form
    }
  }
  // Advises the next ranges of a process that hold `bytes`; the budget is what was advised, never MemFree.
  void page_out(const Candidate& one, u64 bytes, Mechanism& account) {
    vector<std::pair<u64, u64>> ranges;  // address, length
    u64 estimate = 0;
    auto& [offset, vma] = cursor_[one.pid];
    while (vma < one.vmas.size() && estimate < bytes) {
      const Vma& now = one.vmas[vma];
      const double density = static_cast<double>(now.anon) / static_cast<double>(now.length);
      const auto pages = static_cast<u64>(static_cast<double>(bytes - estimate) / density) / world_.page + 1;
      const u64 length = std::min({now.length - offset, 64 * kMiB, saturated_mul(pages, world_.page)});
      ranges.emplace_back(now.start + offset, length);
      estimate += static_cast<u64>(static_cast<double>(length) * density);
      offset += length;
      if (offset >= now.length) offset = 0, ++vma;
    }
    account.advised += estimate, account.requested += bytes, ++account.steps;
    const auto work = [&] {
      int error = 0;
      for (const auto& range : ranges)  // an iovec is an address and a length
        if (syscall(SYS_process_madvise, scene_.pidfds[one.pid].get(), &range, 1UL, MADV_PAGEOUT, 0U) < 0)
          error = errno;
      return error;
    };
    const Recorded what{"process_madvise", cat("pid:", one.pid), cat(estimate)};
    account.error = ranges.empty() ? ENODATA : world_.effect(what, work, [&] { return go_on(); });
  }
  // Pages in write-out count as used: wait for them up to 1 s, else we ask for more than is missing. And
  // give the numbers 200 ms to show `wanted`.
  const Sample& settle(u64 wanted) {
    const u64 calm = samples_.front().writeback + 4 * kMiB;
    const auto pending = [&](const Sample& now, int i) {
      return (now.writeback > calm && i < 50) || (now.available < wanted && i < 10);
    };
    for (int i = 0; pending(take_sample(), i) && g_signal == 0; ++i) world_.pause(20);
    return samples_.back();
  }
  void step(const Next& next) {
    const Candidate& one = scene_.facts.candidates[decision_.order[next.index]];
    Fd dir;
    if (const Verdict changed = recheck(one, dir); changed.exit != kMet) {
      result_.warnings.push_back(changed.message);
      refused_ = changed, done_[next.index] = true;
      return;
    }
    const auto current = [&] { return parse_limit(text_in("memory.current", dir.get())).value_or(0); };
    Sample before = take_sample();
    const u64 held = current(), wanted = before.available + next.bytes;
    int error = 0;
    if (one.pid != 0) {
      Mechanism& advised = account("process_madvise", cat("pid ", one.pid));
      page_out(one, next.bytes, advised);
      error = advised.error;
      const Sample written = settle(0);  // a drain finds nothing clean before, and would write other pages
      advised.seconds += written.at - before.at, advised.swapped += less(written.swapped_out, before.swapped_out);
      advised.freed_memfree += gain(written.free, before.free);
      advised.freed_available += gain(written.available, before.available);
      before = written;
    }
    Mechanism& mine = account(one.pid != 0 ? "drain" : "memory.reclaim", one.cgroup);
    mine.error = error;
    if (error == 0) reclaim(dir, one.cgroup, next.bytes, mine);
    const Sample after = settle(wanted);
    const u64 given = less(held, current());
    released_ += given, requested_ += next.bytes, mine.requested += next.bytes, ++mine.steps;
    mine.seconds += after.at - before.at;
    mine.freed_memfree += gain(after.free, before.free);
    mine.freed_available += gain(after.available, before.available);
    mine.swapped += less(after.swapped_out, before.swapped_out);
    const bool progress = std::max(given, less(after.available + next.bytes, wanted)) >= next.bytes / 16;
    strikes_[next.index] = progress ? 0 : strikes_[next.index] + 1;
    const bool passing = mine.error == 0 || mine.error == EAGAIN || mine.error == EINTR;
    done_[next.index] = !passing || strikes_[next.index] >= 3;
  }

  World& world_;
  Scene& scene_;
  const Request& request_;
  const Decision& decision_;
  Result& result_;
  Samples samples_;
  vector<bool> done_;  // of decision.order
  vector<int> strikes_;
  std::map<int, std::pair<u64, size_t>> cursor_;  // pid -> offset in its VMA, VMA
  u64 released_ = 0, requested_ = 0;
  size_t form_ = 0;
  Verdict cut_, refused_;
};

// One run at a time, and none while somebody holds the lock (the sidecar, while its engine loads).
Verdict take_lock(const Request& request, Fd& lock) {
  const int mode = request.fake ? O_RDONLY : O_RDWR | O_CREAT;
  lock = Fd(open(request.lock.c_str(), mode | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));
  if (!lock && request.fake && errno == ENOENT) return {};
  if (!lock)
    return {kDenied, "no_lock", cat("lock ", request.lock, ": ", error_text(errno), " -> name another with --lock")};
  if (flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return {};
  return {kRefused, "locked", request.lock + " is held: another run, or an engine that loads -> wait for it"};
}
void evict(World& world, Scene& scene, Result& result) {
  Fd lock;
  Verdict& verdict = result.verdict = take_lock(result.request, lock);
  if (verdict.exit != kMet) return;
  world.ask("planned");
  verdict = Evictor(world, scene, result).run();
  result.last = observe_sample(world, &result.after);
  const u64 still = missing(result.decision, result.last.available, result.last.free);
  if (verdict.exit == kMet || verdict.exit >= 128) return;
  if (still > tolerance(result.decision.deficit)) {
    verdict.message = cat(human(still), " are still missing: ", verdict.message);
    return;
  }
  result.warnings.push_back(verdict.message);
  verdict = {kMet, "met", "the target is met"};
}

// ---- drop-cache: clean file pages out of the page cache, measured by mincore.

struct Found {
  vector<std::pair<string, Fd>> files;
  std::set<std::pair<dev_t, ino_t>> seen;
  vector<string> skipped;
  bool denied = false;
};
// Only a regular file is ever opened for reading: a device or a pipe would do something.
void find_file(const string& path, int flags, Found& found) {
  const Fd at(open(path.c_str(), O_PATH | O_CLOEXEC | flags));
  struct stat file {};
  const auto skip = [&](const string& why) { found.skipped.push_back(cat(path, ": ", why)); };
  if (!at || fstat(at.get(), &file) != 0) return skip(error_text(errno));
  if (!S_ISREG(file.st_mode)) return skip("not a regular file");
  if (!found.seen.emplace(file.st_dev, file.st_ino).second) return;
  Fd readable(open(cat("/proc/self/fd/", at.get()).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  found.denied = found.denied || !readable;
  if (!readable) return skip(error_text(errno));
  found.files.emplace_back(path, std::move(readable));
}
string real_path(const string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr), std::free);
  return real ? real.get() : "";
}
// A link in a folder is followed within that folder, and from a Hugging Face snapshot to its blobs.
bool may_follow(const string& root, const string& target) {
  const size_t snapshots = root.rfind("/snapshots/");
  return target.starts_with(root + "/") ||
      (snapshots != string::npos && target.starts_with(root.substr(0, snapshots) + "/blobs/"));
}
void find_shards(const string& root, const string& folder, int depth, Found& found) {
  for (const string& name : names_in(open_folder(folder))) {
    const string path = cat(folder, "/", name);
    struct stat at {};
    if (lstat(path.c_str(), &at) != 0) continue;
    if (S_ISDIR(at.st_mode) && depth < kMaxDepth) find_shards(root, path, depth + 1, found);
    if (S_ISDIR(at.st_mode) || !name.ends_with(".safetensors")) continue;
    const string target = S_ISLNK(at.st_mode) ? real_path(path) : path;
    if (may_follow(root, target)) find_file(target, O_NOFOLLOW, found);
    else found.skipped.push_back(path + ": a link out of the folder");
  }
}
// mincore says "all resident" to whoever neither owns nor may write the file: then we do not ask.
optional<u64> resident(const Fd& fd, u64 page) {
  struct stat file {};
  if (fstat(fd.get(), &file) != 0) return {};
  const bool ours = geteuid() == 0 || file.st_uid == geteuid();
  if (!ours && faccessat(fd.get(), "", W_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) return {};
  const auto size = static_cast<u64>(file.st_size);
  void* map = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0) : MAP_FAILED;
  if (map == MAP_FAILED) return size > 0 ? std::nullopt : optional<u64>(0);
  vector<unsigned char> pages((size + page - 1) / page);
  const bool ok = mincore(map, size, pages.data()) == 0;
  munmap(map, size);
  const auto here = std::count_if(pages.begin(), pages.end(), [](unsigned char one) { return (one & 1U) != 0; });
  return ok ? optional(static_cast<u64>(here) * page) : std::nullopt;
}
Dropped drop_file(World& world, const Request& request, const string& path, const Fd& file) {
  Dropped one;
  struct stat at {};
  (void)fstat(file.get(), &at);
  one.path = path, one.size = static_cast<u64>(at.st_size), one.before = one.after = resident(file, world.page);
  const u64 magic = magic_of(file.get());
  if (magic == TMPFS_MAGIC || magic == RAMFS_MAGIC) one.why = "a file in memory has no other place";
  if (!one.why.empty() || request.dry_run) return one;
  const auto work = [&] {
    const int error = fdatasync(file.get()) == 0 ? 0 : errno;  // dirty pages cannot be dropped
    const int refused = posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    return error != 0 ? error : refused;
  };
  const double end = world.now() + request.max_seconds;
  one.error = world.effect({"fadvise", path, "DONTNEED"}, work, [&] { return g_signal == 0 && world.now() < end; });
  one.after = resident(file, world.page);
  if (one.after.value_or(0) > 0) one.why = "mapped, locked or read by a program";
  return one;
}
Verdict judge_dropped(const vector<Dropped>& files, const Found& found, bool dry_run) {
  u64 before = 0, kept = 0;
  int error = 0;
  for (const Dropped& one : files) {
    before += one.before.value_or(0), kept += one.after.value_or(0), error = one.error != 0 ? one.error : error;
  }
  const string why = found.skipped.empty() ? "no *.safetensors there" : found.skipped[0];
  if (g_signal != 0) return {128 + g_signal, "signal", cat("signal ", int{g_signal})};
  if (files.empty() && found.denied) return {kDenied, "no_permission", why + " -> the right to read is enough"};
  if (files.empty()) return {kInfeasible, "no_files", why + " -> name files, or folders that hold *.safetensors"};
  if (dry_run) return {kMet, "measured", human(before) + " are in the page cache"};
  if (error == EINTR) return {kTimeout, "deadline", "a file was not synced in time -> raise --max-seconds"};
  if (kept <= before / 100 && error == 0) return {kMet, "dropped", human(less(before, kept)) + " left the page cache"};
  return {kPartial, "kept", cat(human(kept), " of ", human(before), " stay -> end the programs that map these files")};
}
void drop_cache(World& world, Result& result) {
  Found found;
  for (const string& path : result.request.paths) {
    const string real = real_path(path);
    if (open_folder(real)) find_shards(real, real, 0, found);
    else find_file(path, 0, found);
  }
  Mechanism account;
  for (const auto& [path, file] : found.files) {
    if (g_signal != 0) break;
    const Dropped one = drop_file(world, result.request, path, file);
    account.requested += one.before.value_or(one.size), account.advised += one.size, ++account.steps;
    account.error = one.error != 0 ? one.error : account.error;
    if (!one.before) result.warnings.push_back(path + ": not ours, so its cache cannot be measured");
    if (!one.why.empty()) result.warnings.push_back(cat(path, ": ", one.why));
    result.files.push_back(one);
  }
  for (const string& one : found.skipped) result.warnings.push_back("skipped " + one);
  result.verdict = judge_dropped(result.files, found, result.request.dry_run);
  result.last = observe_sample(world, &result.after);
  account.name = "fadvise", account.object = cat(result.files.size(), " files");
  account.seconds = result.last.at - result.first.at, account.freed_memfree = gain(result.last.free, result.first.free);
  account.freed_available = gain(result.last.available, result.first.available);
  if (!result.request.dry_run && !result.files.empty()) result.mechanisms.push_back(account);
}

// ---- report.

Raw put_memory(const Keyed& info) {
  Object memory;
  for (const char* key : {"MemTotal", "MemFree", "MemAvailable", "Cached", "Shmem", "AnonPages", "SwapTotal",
           "SwapFree", "SwapCached", "Mlocked", "HugePages_Total", "HugePages_Free", "Hugepagesize"})
    if (info.contains(key)) memory(key, get(info, key));
  return memory.end();
}
Raw put_uma(const Cuda& cuda) {
  const bool ok = cuda.state == Cuda::kOk;
  Object attrs;
  for (size_t i = 0; ok && i < kAttributes.size(); ++i)
    attrs(kAttributes[i].second, cuda.attrs[i] < 0 ? std::nullopt : optional(cuda.attrs[i]));
  return Object()("cuda",
      ok                                ? "ok"
          : cuda.state == Cuda::kAbsent ? "absent"
                                        : "error")(
      "integrated", ok && cuda.attrs[0] >= 0 ? optional(cuda.attrs[0] == 1) : std::nullopt)("error", cuda.error.data())(
      "device", cuda.device.data())("total", ok ? optional(cuda.total) : std::nullopt)("attrs", attrs.end())
      .end();
}
Raw put_swap(const SwapArea& area) {
  return Object()("dev", area.dev)("type", area.type)("size", area.size)("used", area.used)(
      "rotational", area.rotational)("zram", area.zram)("network", area.network)
      .end();
}
Raw put_candidate(const Candidate& one, const Facts& facts) {
  const Verdict verdict = judge(one, facts);
  return Object()("cgroup", one.cgroup)("pid", one.pid == 0 ? std::nullopt : optional(one.pid))(
      "usable", verdict.exit == kMet)("reason", verdict.reason)("message", verdict.message)(
      "evictable", one.evictable())("inactive_anon", one.inactive_anon)("active_anon", one.active_anon)(
      "unevictable", one.unevictable)("swap_room", one.swap_room)("processes", one.processes.size())
      .end();
}
Raw put_mechanism(const Mechanism& one) {
  return Object()("name", one.name)("object", one.object)("reclaim_form", one.form)("requested", one.requested)(
      "advised", one.advised)("freed_memfree", one.freed_memfree)("freed_available", one.freed_available)(
      "swapped", one.swapped)("steps", one.steps)("errno", one.error)("seconds", one.seconds)
      .end();
}
Raw put_file(const Dropped& one) {
  return Object()("path", one.path)("size", one.size)("cached_before", one.before)("cached_after", one.after)(
      "not_droppable", one.why.empty() ? 0 : one.after.value_or(0))("why", one.why)("errno", one.error)
      .end();
}
Raw put_guards(const Result& result) {
  const Sample &first = result.first, &last = result.last;
  return Object()("psi_full_ms", less(last.psi_full_us, first.psi_full_us) / 1000)("psi_some_ms",
      less(last.psi_some_us, first.psi_some_us) / 1000)("pswpin", less(last.swapped_in, first.swapped_in))("pswpout",
      less(last.swapped_out, first.swapped_out))("min_available", std::min(result.min_available, last.available))
      .end();
}
using Checks = vector<std::pair<const char*, bool>>;
Checks self_checks(const Facts& facts) {
  const auto stat = parse_stat("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0");
  const auto swaps = parse_swaps("Filename Type Size Used Priority\n/dev/zram0 partition 8 4 -2\n");
  return {{"parse_size", parse_size("1.5GiB") == 3 * kGiB / 2 && !parse_size("1.GB") && !parse_size("99999999999G")},
      {"parse_meminfo", get(parse_keyed("MemTotal:  2 kB\nx y\n"), "MemTotal") == 2048},
      {"parse_pressure", parse_psi("full avg10=0.00 avg60=0.00 avg300=0.00 total=5").full_us == 5},
      {"parse_stat", stat && stat->ppid == 1 && stat->start == 99 && stat->comm == "a) b"},
      {"parse_swaps", swaps.size() == 1 && swaps[0].zram && swaps[0].used == 4096},
      {"json", Object()("a\"", "\xff\n").end().text == R"({"a\"":"\ufffd\u000a"})"},
      {"read_meminfo", get(facts.info, "MemTotal") > 0}, {"lineage", !facts.lineage.empty()}};
}
void put_selftest(Object& report, const Result& result) {
  const Facts& facts = result.facts;
  Object checks;
  for (const auto& [name, good] : self_checks(facts)) checks(name, good);
  const auto usable = std::count_if(facts.candidates.begin(), facts.candidates.end(),
      [&](const Candidate& one) { return judge(one, facts).exit == kMet; });
  report("checks", checks.end())("possible",
      Object()("drop_cache", true)("reclaim", usable > 0)("usable_cgroups", usable)("pid", facts.host_root)(
          "swap", usable_swap(facts.swaps, result.request) > 0)("cuda", facts.cuda.state == Cuda::kOk)
          .end());
}
int finish(const Result& result, const vector<Recorded>& recorded, double seconds) {
  const Request& request = result.request;
  const Decision& decision = result.decision;
  const Keyed &before = result.facts.info, &after = result.after.empty() ? before : result.after;
  Object delta, report;
  for (const char* key : {"MemFree", "MemAvailable", "Cached", "SwapFree", "SwapCached"})
    delta(key, gain(get(after, key), get(before, key)));
  const auto met = [&](const optional<u64>& want, const char* key) {
    return want ? optional(get(after, key) + tolerance(decision.deficit) >= *want) : std::nullopt;
  };
  report("schema", "force_swap/1")("cmd", request.cmd);
  report("dry_run", request.cmd == "drop-cache" ? request.dry_run : !request.apply)("uma", put_uma(result.facts.cuda));
  report("target",
      Object()("available", decision.want_available)("free", decision.want_free)("deficit", decision.deficit).end());
  report("before", put_memory(before))("after", put_memory(after))("delta", delta.end());
  report("swap", list(result.facts.swaps, put_swap))("cgroup", result.facts.cgroup);
  report("candidates",
      list(result.facts.candidates, [&](const Candidate& one) { return put_candidate(one, result.facts); }));
  report("mechanisms", list(result.mechanisms, put_mechanism))("guards", put_guards(result));
  if (request.cmd == "drop-cache") report("files", list(result.files, put_file));
  if (request.cmd == "selftest") put_selftest(report, result);
  report("recorded", list(recorded, [](const Recorded& one) {
    return Object()("op", one.op)("object", one.object)("text", one.text).end();
  }));
  report("stop_reason", result.verdict.reason)("message", result.verdict.message);
  report("met",
      Object()("available", met(decision.want_available, "MemAvailable"))("free", met(decision.want_free, "MemFree"))
          .end());
  report("elapsed_s", seconds)("warnings", list(result.warnings, [](const string& one) { return one; }));
  report("exit_code", result.verdict.exit);
  for (const string& warning : result.warnings)
    (void)std::fprintf(stderr, "force_swap: warning: %s\n", warning.c_str());
  (void)std::fprintf(stderr, "force_swap: %s\n", result.verdict.message.c_str());
  const string line = report.end().text + "\n";
  const bool ok = std::fwrite(line.data(), 1, line.size(), stdout) == line.size() && std::fflush(stdout) == 0;
  return ok ? result.verdict.exit : kInternal;
}
int run(const Request& request) {
  World world(request);
  Result result;
  result.request = request;
  const double start = monotonic();
  Scene scene = observe(world, request);
  result.first = result.last = observe_sample(world);
  const Facts& facts = result.facts = scene.facts;
  const auto checks = self_checks(facts);
  Verdict& verdict = result.verdict;
  verdict = {kMet, "observed", "MemAvailable is " + human(get(facts.info, "MemAvailable"))};
  if (!facts.info.contains("MemTotal") || !facts.info.contains("MemAvailable")) {
    verdict = {kInternal, "no_meminfo", cat("cannot read MemTotal and MemAvailable in ", request.proc, "/meminfo")};
  } else if (request.cmd == "drop-cache") {
    drop_cache(world, result);
  } else if (request.cmd == "plan" || request.cmd == "evict") {
    verdict = result.decision = decide(request, facts);
    result.warnings = result.decision.warnings;
    if (request.apply && verdict.reason == "feasible") evict(world, scene, result);
  } else if (request.cmd == "selftest" &&
      !std::all_of(checks.begin(), checks.end(), [](auto& one) { return one.second; })) {
    verdict = {kInternal, "selftest", "a self check failed -> see checks in the report"};
  }
  if (g_signal != 0 && result.mechanisms.empty()) verdict = {128 + g_signal, "signal", cat("signal ", int{g_signal})};
  return finish(result, world.recorded, monotonic() - start);
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

using R = Request;
using V = string_view;
template <auto Member>
bool size(R& request, V text) {
  const auto bytes = parse_size(text);
  request.*Member = bytes.value_or(0);
  return bytes.has_value();
}
template <auto Member, int Most>
bool number(R& request, V text) {
  const auto value = parse_decimal(text, text);
  request.*Member = value.value_or(0);
  return value && text.empty() && *value <= Most;
}
bool pid(V text, int& value) { return read_all(text, value) && value > 1; }
template <auto Member>
bool word(R& request, V text) {
  return request.*Member = text, !text.empty();
}
template <auto Member>
bool words(R& request, V text) {
  return (request.*Member).emplace_back(text), !text.empty();
}
template <auto Member>
bool yes(R& request, V /*none*/) {
  return request.*Member = true;
}
template <auto Member, bool Fake>
bool root(R& request, V text) {
  request.fake = request.fake || Fake;
  return word<Member>(request, text.substr(0, std::max<size_t>(text.find_last_not_of('/') + 1, 1)));
}
struct Flag {
  const char *name, *value, *commands, *help;  // commands: p plan, e evict, d drop-cache, a all
  bool (*set)(Request&, string_view);
};
constexpr std::array kFlags{
    Flag{"--target-available", "SIZE", "pe", "MemAvailable to reach: what vLLM asks for", size<&R::target_available>},
    Flag{"--util", "U", "pe", "or: ceil(U * --total) + --init-overhead", number<&R::util, 1>},
    Flag{"--total", "SIZE", "pe", "GPU memory, or auto (default): asked of CUDA, else MemTotal",
        [](R& r, V v) { return v == "auto" || size<&R::total>(r, v); }},
    Flag{"--init-overhead", "SIZE", "pe", "what a start takes before it looks (2G)", size<&R::init_overhead>},
    Flag{"--target-free", "SIZE", "pe", "MemFree to reach: what the driver sees", size<&R::target_free>},
    Flag{"--cgroup", "NAME", "pe", "a leaf cgroup, or a parent of leaves; again for more", words<&R::cgroups>},
    Flag{"--exclude-cgroup", "NAME", "pe", "leave this one out; again for more", words<&R::excluded>},
    Flag{"--pid", "PID", "pe", "page out one process, and drain its cgroup (root on the host)",
        [](R& r, V v) { return pid(v, r.pids.emplace_back()); }},
    Flag{"--apply", "", "e", "do it", yes<&R::apply>},
    Flag{"--dry-run", "", "ed", "only measure", yes<&R::dry_run>},
    Flag{"--phase", "preflight|ready", "pe", "preflight (default): no engine may be alive",
        [](R& r, V v) {
          return word<&R::phase>(r, v) && is_one_of(v, {"preflight", "ready"});
        }},
    Flag{"--engine-pid", "PID", "pe", "the engine: never touched", [](R& r, V v) { return pid(v, r.engine_pid); }},
    Flag{"--engine-unit", "NAME", "pe", "its unit: never touched", word<&R::engine_unit>},
    Flag{"--reserve", "SIZE", "pe", "MemAvailable that must stay (4G)", size<&R::reserve>},
    Flag{"--swap-reserve", "SIZE", "pe", "free swap that must stay (2G)", size<&R::swap_reserve>},
    Flag{"--step", "SIZE", "pe", "one request to the kernel (64M); also what may follow a signal",
        [](R& r, V v) { return size<&R::step>(r, v) && r.step >= 65536; }},
    Flag{"--max-bytes", "SIZE", "pe", "all requests together (16G)", size<&R::max_bytes>},
    Flag{"--max-seconds", "N", "ped", "deadline (120)", number<&R::max_seconds, 86400>},
    Flag{"--psi-full", "PERCENT", "pe", "stop when all tasks stall longer (10)", number<&R::psi_full, 100>},
    Flag{"--swapin-mbs", "N", "pe", "stop when pages come back faster, MiB/s (50)", number<&R::swapin_mbs, 1000000>},
    Flag{"--allow-zram", "", "pe", "zram counts as swap", yes<&R::allow_zram>},
    Flag{
        "--allow-slow-swap", "", "pe", "rotating disks and networks too; no slow-swap guard", yes<&R::allow_slow_swap>},
    Flag{"--lock", "FILE", "e", "held while it acts (/run/force_swap.lock)", word<&R::lock>},
    Flag{"--cgroup-base", "DIR", "a", "where the cgroups are (/sys/fs/cgroup)", root<&R::cgroup, false>},
    Flag{"--proc-root", "DIR", "a", "a fake /proc: nothing is written, only recorded", root<&R::proc, true>},
    Flag{"--sys-root", "DIR", "a", "a fake /sys, likewise", root<&R::sys, true>},
    Flag{"--cgroup-root", "DIR", "a", "a fake cgroup tree, likewise", root<&R::cgroup, true>},
    Flag{"--json", "", "a", "accepted: the output is always JSON", yes<&R::json>},
};
bool known_command(string_view cmd) { return is_one_of(cmd, {"probe", "plan", "evict", "drop-cache", "selftest"}); }
bool takes(const string& cmd, string_view commands) {
  const bool first = is_one_of(cmd, {"plan", "evict", "drop-cache"}) && commands.find(cmd[0]) != V::npos;
  return first || commands == "a" || cmd.empty();
}
int help(const string& cmd) {
  string text = cat(kHelp, "\nflags", cmd.empty() ? "" : " of ", cmd, ":\n");
  for (const Flag& flag : kFlags) {
    const string name = cat(flag.name, " ", flag.value);
    if (takes(cmd, flag.commands)) text += cat("  ", name, string(less(33, name.size()), ' '), flag.help, "\n");
  }
  text += kTail;
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? kMet : kInternal;
}
// What is wrong with the command line, or "".
string parse_flag(Request& request, const vector<string>& all, size_t& at) {
  const size_t equals = std::min(all[at].find('='), all[at].size());
  const string name = all[at].substr(0, equals);
  const auto* flag = std::find_if(kFlags.begin(), kFlags.end(), [&](const Flag& one) { return name == one.name; });
  if (flag == kFlags.end()) return "unknown flag " + name;
  if (!takes(request.cmd, flag->commands)) return cat(name, " says nothing to ", request.cmd);
  const bool bare = equals == all[at].size(), wanted = *flag->value != '\0';
  if (!wanted && !bare) return name + " takes no value";
  if (wanted && bare && at + 1 == all.size()) return cat(name, " needs a value: ", flag->value);
  const string value = !wanted ? "" : bare ? all[++at] : all[at].substr(equals + 1);
  return flag->set(request, value) ? "" : cat(name, ": \"", value, "\" is no ", flag->value);
}
string parse_words(Request& request, const vector<string>& all) {
  request.cmd = all.empty() ? "" : all[0];
  if (!known_command(request.cmd)) return all.empty() ? "no command" : "unknown command " + request.cmd;
  for (size_t i = 1; i < all.size(); ++i) {
    const bool flag = all[i].starts_with("--");
    if (!flag && request.cmd != "drop-cache") return "unexpected word " + all[i];
    if (!flag) request.paths.push_back(all[i]);
    else if (string wrong = parse_flag(request, all, i); !wrong.empty()) return wrong;
  }
  if (request.cmd == "drop-cache") return request.paths.empty() ? "drop-cache needs a PATH" : "";
  if (request.cmd != "plan" && request.cmd != "evict") return "";
  if (request.util && request.target_available) return "--util and --target-available: give one of them";
  if (!request.util && !request.target_available && !request.target_free)
    return "no target: give --target-available SIZE, --util U or --target-free SIZE";
  if (request.apply && request.dry_run) return "--apply and --dry-run: give one of them";
  if (request.cmd == "evict" && request.cgroups.empty() && request.pids.empty())
    return "evict needs --cgroup NAME or --pid PID; force_swap plan lists the candidates";
  const auto is_root = [&](const string& name) { return beneath(request, name).empty(); };
  const bool global = std::any_of(request.cgroups.begin(), request.cgroups.end(), is_root);
  return global ? "--cgroup / is the root: there is no global reclaim" : "";
}
int run_command_line(const vector<string>& all) {
  const auto asks = [](const string& word) { return word == "--help" || word == "-h"; };
  if (std::any_of(all.begin(), all.end(), asks)) return help(known_command(all[0]) ? all[0] : "");
  Result result;
  const string wrong = parse_words(result.request, all);
  if (wrong.empty()) return run(result.request);
  result.verdict = {kUsage, "usage", wrong + " -> force_swap --help"};
  return finish(result, {}, 0);
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
