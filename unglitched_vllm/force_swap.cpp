// force_swap: make room for pinned GPU memory on a machine whose GPU shares the CPU's DRAM.
// CUDA pages are pinned and cannot be swapped; what can go is cold memory of *other* programs.
// Top to bottom: parse, JSON, decide (all pure); world (system calls), observe, act, drop-cache,
// report, command line. README.md has the reasons, the exit codes and what was measured.
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
#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <functional>
#include <iomanip>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace {

namespace fs = std::filesystem;
using std::optional, std::string, std::string_view, std::vector;
using u64 = std::uint64_t;
using i64 = std::int64_t;
constexpr u64 kMiB = 1ULL << 20, kGiB = 1ULL << 30;

// ---- parse: text of the kernel or of a person -> values. Any bytes are allowed in.

u64 less(u64 a, u64 b) { return a > b ? a - b : 0; }
optional<u64> parse_u64(string_view text, int base = 10) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc() && end == text.data() + text.size() ? optional(value) : std::nullopt;
}
bool is_one_of(string_view text, std::initializer_list<string_view> names) {
  return std::find(names.begin(), names.end(), text) != names.end();
}
// "0.9", and with units "4G" "1.5GiB" "4096": binary, as the kernel counts.
optional<double> parse_number(string_view text, bool units) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  const string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  if (error != std::errc()) return {};
  if (!unit.empty()) {
    const size_t power = string_view("KMGT").find(unit[0]);
    if (!units || power == string_view::npos || !is_one_of(unit.substr(1), {"", "iB"})) return {};
    value = std::ldexp(value, 10 * static_cast<int>(power + 1));
  }
  return value >= 0 && value < 0x1p62 ? optional(value) : std::nullopt;
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
// meminfo, vmstat, memory.stat, pressure: "Name: 12 kB", "name 12" or "name … total=12"; kB becomes bytes.
using Keyed = std::map<string, u64, std::less<>>;
Keyed parse_keyed(string_view text) {
  Keyed values;
  for (const string_view line : split(text, "\n")) {
    const auto words = split(line);
    const size_t total = line.find(" total=");
    if (words.size() < 2) continue;
    const auto number = parse_u64(total != string_view::npos ? line.substr(total + 7) : words[1]);
    const bool kilo = words.size() > 2 && words[2] == "kB";
    if (number) values[string(words[0].substr(0, words[0].find(':')))] = *number * (kilo ? 1024 : 1);
  }
  return values;
}
u64 get(const Keyed& values, string_view name) {
  const auto at = values.find(name);
  return at == values.end() ? 0 : at->second;
}
struct SwapArea {
  string dev, type;
  u64 size = 0, used = 0;
  bool zram = false, network = false;
  optional<bool> rotational = {};  // nothing: the kernel does not tell
};
vector<SwapArea> parse_swaps(string_view text) {
  vector<SwapArea> areas;
  for (const string_view line : split(text, "\n")) {
    const auto words = split(line);
    if (words.size() < 5 || !parse_u64(words[2])) continue;  // the heading
    const u64 size = *parse_u64(words[2]) * 1024, used = std::min(size, parse_u64(words[3]).value_or(0) * 1024);
    areas.push_back({string(words[0]), string(words[1]), size, used, words[0].starts_with("/dev/zram"),
        words[0].starts_with("/dev/nbd")});
  }
  return areas;
}
struct Process {
  u64 pid = 0, parent = 0, start = 0;  // pid 0: of another pid namespace; pid and start name one process for ever
  bool alive = false;
  vector<string> names = {};  // what it calls itself; and vllm or appliance, if it runs that
};
// /proc/PID/stat: the name stands in brackets and may itself hold brackets and blanks.
optional<Process> parse_stat(string_view text) {
  const size_t open = std::min(text.find(" ("), text.size()), close = std::min(text.rfind(')'), text.size());
  const auto rest = split(text.substr(std::min(close + 1, text.size())));
  const auto pid = parse_u64(text.substr(0, open));
  if (!pid || close < open + 2 || rest.size() < 20 || !parse_u64(rest[1]) || !parse_u64(rest[19])) return {};
  const string name(text.substr(open + 2, close - open - 2));
  return Process{*pid, *parse_u64(rest[1]), *parse_u64(rest[19]), !is_one_of(rest[0], {"Z", "X"}), {name}};
}
// "0::/user.slice/…" of /proc/PID/cgroup: the path in cgroup v2, without its first slash.
string parse_cgroup(string_view text) {
  for (const string_view line : split(text, "\n"))
    if (line.starts_with("0::/")) return string(line.substr(4));
  return "";
}
// The number in a file of one line; "max": nothing.
optional<u64> parse_limit(string_view text) { return parse_u64(text.substr(0, text.find('\n'))); }
struct Vma {
  u64 start, length, anon;
  bool movable;
};
// smaps: only what MADV_PAGEOUT can move is kept: private, anonymous, not locked, no device, no huge page.
vector<Vma> parse_smaps(string_view text) {
  vector<Vma> all;
  for (const string_view line : split(text, "\n")) {
    const auto words = split(line), ends = split(words.empty() ? "" : words[0], "-");
    if (words.size() < 2 || ends.empty()) continue;
    const u64 from = parse_u64(ends[0], 16).value_or(0), to = parse_u64(ends.back(), 16).value_or(0);
    if (words.size() > 4 && ends.size() == 2 && from < to)
      all.push_back({from, to - from, 0, words[1].ends_with('p') && words[4] == "0"});
    else if (!all.empty() && words[0] == "Anonymous:")
      all.back().anon = std::min(all.back().length, parse_u64(words[1]).value_or(0) * 1024);
    else if (!all.empty() && words[0] == "VmFlags:")
      for (const string_view flag : words) all.back().movable &= !is_one_of(flag, {"lo", "io", "pf", "ht"});
  }
  std::erase_if(all, [](const Vma& vma) { return !vma.movable || vma.anon == 0; });
  return all;
}

// ---- JSON, and text for people. Bytes that are no UTF-8 become U+FFFD.

string decimal(double value, int digits) {
  std::array<char, 400> text{};
  return {text.data(), std::to_chars(text.begin(), text.end(), value, std::chars_format::fixed, digits).ptr};
}
template <class... Parts>
string cat(const Parts&... parts) {
  std::ostringstream text;
  return (text << ... << parts), text.str();
}
string human(u64 bytes) { return decimal(static_cast<double>(bytes) / 0x1p30, 2) + " GiB"; }
size_t utf8_length(string_view text, size_t at) {  // 0: no UTF-8
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const unsigned first = byte(at);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  unsigned code = first & (0x7fU >> length);
  for (size_t i = at + 1; i < at + length; ++i)
    code = (byte(i) & 0xc0U) == 0x80U ? code << 6U | (byte(i) & 0x3fU) : ~0U >> 1U;
  const bool too_long = code < 0x80 || (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  return first < 0xc2 || too_long || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff ? 0 : length;
}
string json_string(string_view text) {
  string out = "\"";
  for (size_t i = 0, length = 0; i < text.size(); i += std::max<size_t>(length, 1)) {
    length = utf8_length(text, i);
    const char c = text[i];
    if (length == 0) out += "\\ufffd";
    else if (c == '"' || c == '\\') out += {'\\', c};
    else if (length > 1 || (c >= 0x20 && c != 0x7f)) out += text.substr(i, length);
    else out += cat("\\u00", c < 0x10 ? "0" : c < 0x20 ? "1" : "7", string(1, "0123456789abcdef"[c & 15]));
  }
  return out + '"';
}
struct Json {
  string text;
  Json() = default;
  template <class T>
  Json(const T& value) {
    if constexpr (std::is_same_v<T, bool>) text = value ? "true" : "false";
    else if constexpr (std::is_integral_v<T>) text = std::to_string(value);
    else if constexpr (std::is_floating_point_v<T>) text = decimal(value, 3);
    else if constexpr (requires { value.has_value(); }) text = value ? Json(*value).text : "null";
    else text = json_string(value);
  }
};
using Fields = vector<std::pair<const char*, Json>>;
Json object(const Fields& fields) {
  Json out;
  for (const auto& [key, value] : fields)
    out.text += cat(out.text.empty() ? "{" : ",", json_string(key), ":", value.text);
  out.text += out.text.empty() ? "{}" : "}";
  return out;
}
template <class All, class Each = std::identity>
Json list(const All& all, Each each = {}) {
  Json out;
  for (const auto& one : all) out.text += cat(out.text.empty() ? "" : ",", Json(each(one)).text);
  out.text = "[" + out.text + "]";
  return out;
}

// ---- decide: request and facts -> what to do, or why not.

enum Exit { kMet, kUsage = 2, kRefused, kInfeasible, kPartial, kGuard, kTimeout, kDenied, kInternal };
struct Verdict {
  int exit = kMet;
  string reason, message;                                     // a stable word; what it is -> what to type next
  explicit operator bool() const { return !reason.empty(); }  // is there one?
};
template <class... Parts>
Verdict stop(int exit, const char* reason, const Parts&... parts) {
  return {exit, reason, cat(parts...)};
}
struct Fd {
  explicit Fd(int opened = -1) : number(opened) {}
  Fd(Fd&& other) noexcept : number(std::exchange(other.number, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(number, other.number);
    return *this;
  }
  ~Fd() { (void)(number < 0 || close(number)); }
  explicit operator bool() const { return number >= 0; }
  int number;
};
struct Request {
  string cmd, phase = "preflight", engine_unit, lock = "/run/force_swap.lock";
  string proc_root, sys_root, cgroup_root, cgroup_base = "/sys/fs/cgroup";
  bool fake = false;  // any fake root: the whole run is a rehearsal, each write is only recorded
  optional<u64> target_available, target_free, total;
  optional<double> util;
  u64 init_overhead = 2 * kGiB, reserve = 4 * kGiB, swap_reserve = 2 * kGiB, step = 64 * kMiB, max_bytes = 16 * kGiB;
  double max_seconds = 120, psi_full = 10, swapin_mbs = 50;
  bool apply = false, dry_run = false, allow_zram = false, allow_slow_swap = false, json = false;
  vector<string> cgroups, excluded, paths;
  vector<u64> pids;
  u64 engine_pid = 0;
};
struct Candidate {
  string cgroup;
  u64 pid = 0;                           // not 0: page out this process, then drain through its cgroup
  u64 device = 0, inode = 0, start = 0;  // who it is: must be the same when we act
  Fd dir, pidfd;
  Keyed stat;               // memory.stat
  optional<u64> swap_room;  // under memory.swap.max
  vector<Process> processes;
  vector<Vma> vmas;
  Verdict problem;  // what observing it met
};
// LRU sizes leave out what is unevictable, so mlocked pages are not in this sum.
u64 evictable(const Candidate& one) {
  u64 bytes = one.pid == 0 ? get(one.stat, "inactive_anon") + get(one.stat, "active_anon") : 0;
  for (const Vma& vma : one.vmas) bytes += vma.anon;
  return std::min(bytes, one.swap_room.value_or(~0ULL));
}
struct Sample {
  double at = 0;  // seconds, monotonic
  Keyed values;   // meminfo, vmstat, pressure ("some", "full"); "released": what our candidates gave up
  u64 operator[](string_view name) const { return get(values, name); }
};
struct Facts {
  Sample now;
  vector<SwapArea> swaps;
  string cuda = "unasked", cuda_error;  // ok, error or absent
  Keyed device;                         // "total" and what kAttributes names, as far as the driver tells
  string cgroup = "none", engine_unit;  // v2, v1 or none
  vector<Candidate> candidates;
  std::set<u64> lineage;   // this process and all that it descends from: sidecar, shell, sshd
  u64 engine_pid = 0;      // 0: none is alive
  bool host_root = false;  // root, in the host's own pid namespace
};
struct Decision {
  Verdict verdict;
  optional<u64> want_available, want_free;
  u64 deficit = 0;
  vector<size_t> order = {};  // of facts.candidates, best first
  vector<string> warnings = {};
};

// The engine, the sidecar, and who keeps the machine reachable: names of processes and of units begin so.
bool protected_name(string_view name) {
  for (const string_view one : {"VLLM::", "vllm", "appliance", "sshd", "ssh.", "ssh@", "dbus-daemon", "dbus-broker",
           "dbus.", "systemd", "init", "(sd-pam)", "nvidia-persist"})
    if (name.starts_with(one)) return true;
  return false;
}
bool in_unit(string_view cgroup, const string& unit) {
  for (const string_view part : split(cgroup, "/"))
    if (!unit.empty() && (part == unit || part.starts_with(unit + "."))) return true;
  return false;
}
Verdict judge(const Candidate& one, const Facts& facts) {
  string why = in_unit(one.cgroup, facts.engine_unit) ? "is the engine" : "";
  for (const string_view part : split(one.cgroup, "/"))
    if (protected_name(part)) why = "is protected by its name";
  for (const Process& process : one.processes) {
    const auto name = std::find_if(process.names.begin(), process.names.end(), protected_name);
    if (name != process.names.end()) why = cat("holds ", *name, " (pid ", process.pid, ")");
    if (process.pid == 1) why = "holds pid 1";
    if (process.pid != 0 && process.pid == facts.engine_pid) why = cat("holds the engine, pid ", process.pid);
    if (facts.lineage.contains(process.pid)) why = cat("holds pid ", process.pid, ", from which we descend");
  }
  if (one.problem) return one.problem;
  if (!why.empty()) return stop(kRefused, "protected", "cgroup ", one.cgroup, " ", why, " -> choose other cgroups");
  if (one.swap_room != 0U) return {};
  return stop(kRefused, "swap_max", one.cgroup, " may not swap -> systemctl set-property UNIT MemorySwapMax=infinity");
}
u64 missing(const Decision& decision, const Sample& now) {
  const u64 available = decision.want_available.value_or(0), free = decision.want_free.value_or(0);
  return std::max(less(available, now["MemAvailable"]), less(free, now["MemFree"]));
}
// What the end may fall short of the target: 64 MiB or 2 %, but never more than a quarter of it.
u64 tolerance(u64 deficit) { return std::min(std::max(64 * kMiB, deficit / 50), deficit / 4); }

bool permitted(const SwapArea& area, const Request& request) {
  return (request.allow_zram || !area.zram) &&
      (request.allow_slow_swap || !(area.rotational.value_or(false) || area.network));
}
Verdict judge_machine(const Request& request, const Facts& facts, const Decision& decision) {
  const u64 most = less(facts.now["MemTotal"], request.reserve);
  const u64 want = std::max(decision.want_available.value_or(0), decision.want_free.value_or(0));
  const auto all_swaps = [&](auto law) { return std::all_of(facts.swaps.begin(), facts.swaps.end(), law); };
  if (want > most)
    return stop(kInfeasible, "target_too_high", human(want), " is more than MemTotal less --reserve: ", human(most),
        " -> ask for less: a lower utilization, a smaller KV cache");
  if (request.phase == "preflight" && facts.engine_pid != 0)
    return stop(kRefused, "engine_alive", "an engine is alive, pid ", facts.engine_pid,
        "; it aborts if memory is freed while it loads -> stop it, or --phase ready once it serves");
  if (request.phase == "ready" && facts.engine_pid == 0)
    return stop(kRefused, "engine_not_alive", "no engine is alive -> --engine-pid, or --phase preflight");
  if (facts.cgroup == "v1") return stop(kDenied, "cgroup_v1", "only drop-cache works here -> boot with cgroup v2");
  if (facts.swaps.empty()) return stop(kRefused, "no_swap", "this machine has no swap -> add a swap file on NVMe");
  if (!request.allow_zram && all_swaps([](const SwapArea& area) { return area.zram; }))
    return stop(kRefused, "zram_only", "all swap is zram, in the memory to be freed -> swap on NVMe, or --allow-zram");
  if (!all_swaps([&](const SwapArea& area) { return !permitted(area, request); })) return {};
  return stop(kRefused, "slow_swap", "swap is on a rotating disk or a network -> use NVMe, or --allow-slow-swap");
}
// Which candidates may be used. One that is protected or unsafe refuses the whole run; others are left out.
Verdict choose(const Facts& facts, Decision& decision) {
  const auto& all = facts.candidates;
  Verdict last = stop(kInfeasible, "no_candidate", "no cgroup is named -> --cgroup NAME; systemd-cgls shows them");
  for (size_t i = 0; i < all.size(); ++i) {
    Verdict problem = judge(all[i], facts);
    if (problem.exit == kRefused) return problem;
    if (!problem) decision.order.push_back(i);
    else decision.warnings.push_back((last = problem).message);
  }
  // Whole cgroups, biggest and coldest first: cold pages are the ones that nobody faults back in.
  const auto rank = [&](size_t i) { return std::pair(all[i].pid == 0, get(all[i].stat, "inactive_anon")); };
  std::stable_sort(decision.order.begin(), decision.order.end(), [&](size_t x, size_t y) { return rank(x) > rank(y); });
  return decision.order.empty() ? last : Verdict{};
}
Verdict judge_amounts(const Request& request, const Facts& facts, const Decision& decision) {
  u64 swap = 0, there = 0, locked = 0;
  for (const SwapArea& area : facts.swaps) swap += permitted(area, request) ? area.size - area.used : 0;
  for (const size_t i : decision.order) there += evictable(facts.candidates[i]);
  for (const size_t i : decision.order) locked += get(facts.candidates[i].stat, "unevictable");
  const u64 need = less(decision.deficit, tolerance(decision.deficit)), room = less(swap, request.swap_reserve);
  const auto lack = [&](const char* reason, u64 most, const auto&... why) {
    const string gap = human(less(decision.deficit, most));
    return stop(kInfeasible, reason, human(decision.deficit), " are missing, ", gap, " short: ", why...);
  };
  if (request.max_bytes < need) return lack("max_bytes", request.max_bytes, "--max-bytes -> raise --max-bytes");
  if (room < need)
    return lack("swap_too_small", room, "swap has ", human(room), " over --swap-reserve -> add swap, or ask for less");
  if (there >= need) return {};
  return lack("too_little_evictable", there, "the chosen cgroups can give ", human(there),
      "; mlocked or unevictable there: ", human(locked), " -> name more cgroups, or ask for less");
}
Decision decide(const Request& request, const Facts& facts) {
  Decision decision{{}, request.target_available, request.target_free};
  Verdict& verdict = decision.verdict;
  if (request.util) {
    const u64 known = get(facts.device, "total"), total = known > 0 ? known : facts.now["MemTotal"];
    if (!request.total && known == 0) decision.warnings = {"no CUDA driver answers: --util is taken of MemTotal"};
    // ceil as vLLM does it: request_memory compares with ceil(total * utilization).
    const double share = std::ceil(static_cast<double>(request.total.value_or(total)) * *request.util);
    decision.want_available = static_cast<u64>(share) + request.init_overhead;
  }
  decision.deficit = missing(decision, facts.now);
  if (request.util && facts.device.contains("integrated") && get(facts.device, "integrated") == 0)
    verdict = stop(kRefused, "discrete_gpu", "this GPU has memory of its own -> no need to evict: ours is no limit");
  else if (decision.deficit == 0) verdict = stop(kMet, "already_met", "the target is met: nothing to do");
  else verdict = judge_machine(request, facts, decision);
  if (!verdict) verdict = choose(facts, decision);
  if (!verdict) verdict = judge_amounts(request, facts, decision);
  if (!verdict) verdict = stop(kMet, "feasible", human(decision.deficit), " are missing and can be paged out");
  return decision;
}

using Samples = vector<Sample>;  // the first is the start
constexpr double kSlowWindow = 10;

// Per second over the last `seconds` or a little more; nothing before that time has passed.
optional<double> rate(const Samples& samples, double seconds, string_view name) {
  const Sample& now = samples.back();
  for (auto past = samples.rbegin(); past != samples.rend(); ++past)
    if (now.at - past->at >= seconds) return static_cast<double>(less(now[name], (*past)[name])) / (now.at - past->at);
  return {};
}
Verdict judge_guards(const Request& request, const Samples& samples, u64 step) {
  const Sample &now = samples.back(), &first = samples.front();
  if (now.at - first.at >= request.max_seconds)
    return stop(kTimeout, "deadline", "--max-seconds are over -> raise it, or look why swap is slow");
  if (now["MemAvailable"] < request.reserve)
    return stop(kGuard, "guard_available", human(now["MemAvailable"]), " is under --reserve -> stop programs");
  if (less(now["SwapFree"], step) < request.swap_reserve)
    return stop(kGuard, "guard_swap", "free swap ", human(now["SwapFree"]), " nears --swap-reserve -> add swap");
  // What is still in SwapCached was written, and will be free at the next shortage: that is no loss.
  const u64 out = less(less(now["pswpout"], first["pswpout"]), less(now["SwapCached"], first["SwapCached"]));
  if (out >= 256 * kMiB && less(now["MemAvailable"], first["MemAvailable"]) < out / 10)
    return stop(kGuard, "guard_no_gain", human(out), " were swapped out, but MemAvailable has hardly risen -> ",
        "swap in memory (zram, zswap), or a program that takes what is freed: look with force_swap probe");
  const double stalled = rate(samples, 1, "full").value_or(0) / 1e4;
  if (stalled > request.psi_full)
    return stop(kGuard, "guard_psi", "all tasks stalled ", decimal(stalled, 1), " % of the time -> let it calm down");
  const double back = rate(samples, 1, "pswpin").value_or(0) / 0x1p20;
  if (back > request.swapin_mbs)
    return stop(kGuard, "guard_swapin", decimal(back, 1), " MiB/s come back: not cold -> choose other cgroups");
  const auto written = rate(samples, kSlowWindow, "pswpout"), released = rate(samples, kSlowWindow, "released");
  const double moved = std::max(written.value_or(0), released.value_or(0)) / 0x1p20;
  if (written && moved < 20 && !request.allow_slow_swap)
    return stop(kGuard, "guard_slow_swap", "swap takes only ", decimal(moved, 1), " MiB/s -> use a faster disk");
  return {};
}

// ---- world: system calls. What could write goes through World, which only records under fake roots.

volatile std::sig_atomic_t g_signal = 0;

Verdict signalled() { return stop(128 + g_signal, "signal", "signal ", int{g_signal}); }
string error_text(int error) { return std::generic_category().message(error); }
double monotonic() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
// A small text file; "" when it cannot be read. Beneath a folder no link is followed.
string text_in(const string& path, int dir = AT_FDCWD) {
  const Fd fd(openat(dir, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (dir == AT_FDCWD ? 0 : O_NOFOLLOW)));
  string text;
  std::array<char, 65536> buffer{};
  for (ssize_t got = 1; fd && got > 0 && text.size() < 64 * kMiB;) {
    got = TEMP_FAILURE_RETRY(read(fd.number, buffer.data(), buffer.size()));
    if (got > 0) text.append(buffer.data(), static_cast<size_t>(got));
  }
  return text;
}
vector<string> names_in(const string& folder) {
  vector<string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; at != end; at.increment(error))
    names.push_back(at->path().filename());
  return names;
}
u64 magic_of(const Fd& fd) {
  struct statfs fs {};
  return fstatfs(fd.number, &fs) == 0 ? static_cast<u64>(fs.f_type) : 0;
}
// A folder beneath `base`, one component at a time, following no link: as root we must not be led
// out of the tree by whoever owns a part of it. Empty: errno says why.
Fd open_beneath(const Fd& base, string_view relative) {
  constexpr int kFlags = O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
  Fd at(openat(base.number, ".", kFlags));
  for (const string_view part : split(relative, "/")) {
    if (part == "." || part == "..") return errno = EXDEV, Fd();
    if (at) at = Fd(openat(at.number, string(part).c_str(), kFlags));
  }
  return at;
}
// What can sit in the kernel for seconds runs in a child: a signal or the deadline end it by SIGKILL. One
// that is stuck even then is left dying, so that our report is in time. Its exit status is an errno.
int run_in_child(const std::function<int()>& work, double deadline, pid_t& stuck) {
  const pid_t child = fork();
  if (child < 0) return errno;
  if (child == 0) _exit(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 ? work() : errno);
  int status = 0;
  for (double killed_at = 0; waitpid(child, &status, WNOHANG) == 0; (void)poll(nullptr, 0, 5)) {
    if (killed_at > 0 && monotonic() - killed_at > 1.2) return stuck = child, EINTR;
    if (killed_at > 0 || (g_signal == 0 && monotonic() < deadline)) continue;
    kill(child, SIGKILL);
    killed_at = monotonic();
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}
struct World {
  explicit World(const Request& asked)
      : request(asked), base(open(asked.cgroup_base.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
    const char* told = std::getenv("FORCE_SWAP_TEST_PAUSE_FD");  // NOLINT(concurrency-mt-unsafe)
    if (told && asked.fake) hook = static_cast<int>(parse_u64(told).value_or(0));
  }
  const Request& request;
  const Fd base;
  const u64 page = static_cast<u64>(sysconf(_SC_PAGESIZE));
  vector<Json> recorded;
  const double deadline = monotonic() + request.max_seconds;
  pid_t stuck = 0;  // a killed child that the kernel still holds
  double fake_now = 0;
  int hook = 0;

  // Under fake roots time is what the test says.
  [[nodiscard]] double now() const { return request.fake ? fake_now : monotonic(); }
  void pause(int milliseconds) {
    fake_now += milliseconds / 1e3;
    if (!request.fake) (void)poll(nullptr, 0, milliseconds);
  }
  // Under fake roots alone: tell the test what would happen now; it answers "errno milliseconds".
  int ask(const string& line) {
    std::array<char, 64> reply{};
    if (hook <= 0 || write(hook, (line + "\n").data(), line.size() + 1) < 0) return 0;
    if (TEMP_FAILURE_RETRY(read(hook, reply.data(), reply.size() - 1)) <= 0) return 0;
    const auto words = split(reply.data());
    if (words.empty()) return 0;
    pause(static_cast<int>(parse_u64(words.back()).value_or(0)));
    return static_cast<int>(parse_u64(words.front()).value_or(0));
  }
  // Does `work` in a child, or only records it.
  int effect(const char* name, const string& what, const string& text, const std::function<int()>& work) {
    if (!request.fake) return run_in_child(work, deadline, stuck);
    recorded.push_back(object({{"op", name}, {"object", what}, {"text", text}}));
    return ask(cat(name, " ", what, " ", text));
  }
  [[nodiscard]] bool trusted(const Fd& fd) const { return request.fake || magic_of(fd) == CGROUP2_SUPER_MAGIC; }
};

// ---- observe: the world -> facts.

using Attribute = std::pair<int, const char*>;
constexpr std::array<Attribute, 5> kAttributes{Attribute{18, "integrated"}, {83, "managed_memory"},
    {88, "pageable_memory_access"}, {89, "concurrent_managed_access"}, {100, "pageable_uses_host_page_tables"}};

// No context is made: it costs memory, and may itself fail on a machine that is full. Waits for a driver that hangs.
void observe_cuda(Facts& facts) {
  facts.cuda = "absent";
#ifndef FORCE_SWAP_NO_CUDA
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  const auto call = [&]<class... Args>(const char* name, Args... args) {
    const auto function = reinterpret_cast<int (*)(Args...)>(dlsym(library, name));
    const int code = function ? function(args...) : -1;
    if (code != 0) facts.cuda_error = cat(name, function ? ": error " : ": not in libcuda.so.1, ", code);
    return code == 0;
  };
  int device = 0, value = 0;
  u64 total = 0;
  facts.cuda = "error";
  if (!call("cuInit", 0U) || !call("cuDeviceGet", &device, 0) || !call("cuDeviceTotalMem_v2", &total, device)) return;
  facts.cuda = "ok";
  facts.device["total"] = total;
  for (const auto& [number, name] : kAttributes)
    if (call("cuDeviceGetAttribute", &value, number, device)) facts.device[name] = static_cast<u64>(value);
#endif
}
Sample observe_sample(const World& world, u64 released = 0) {
  const string& proc = world.request.proc_root;
  Sample now{world.now(), parse_keyed(text_in(proc + "/meminfo"))};
  const Keyed pages = parse_keyed(text_in(proc + "/vmstat"));
  for (const char* name : {"pswpin", "pswpout"}) now.values[name] = get(pages, name) * world.page;
  now.values.merge(parse_keyed(text_in(proc + "/pressure/memory")));
  now.values["released"] = released;
  return now;
}
vector<SwapArea> observe_swaps(const Request& request) {
  auto areas = parse_swaps(text_in(request.proc_root + "/swaps"));
  for (SwapArea& area : areas) {
    string block = request.sys_root + "/class/block/" + area.dev.substr(area.dev.rfind('/') + 1);
    struct stat at {};
    const Fd file(area.type == "file" ? open(area.dev.c_str(), O_PATH | O_CLOEXEC) : -1);
    if (file && fstat(file.number, &at) == 0) {
      block = cat(request.sys_root, "/dev/block/", major(at.st_dev), ":", minor(at.st_dev));
      area.network = magic_of(file) == NFS_SUPER_MAGIC;
    }
    // A partition has no queue of its own: ask its disk.
    const string text = text_in(block + "/queue/rotational") + text_in(block + "/../queue/rotational");
    if (!text.empty()) area.rotational = text[0] == '1';
  }
  return areas;
}
optional<Process> observe_process(const Request& request, const string& pid) {
  auto process = parse_stat(text_in(cat(request.proc_root, "/", pid, "/stat")));
  const string command = process ? text_in(cat(request.proc_root, "/", pid, "/cmdline")) : "";
  for (const string_view word : split(string_view(command).substr(0, 256), string_view("\0", 1))) {
    const string_view base = word.substr(word.rfind('/') + 1);  // "/usr/bin/vllm serve", "python -m vllm.x.y"
    if (is_one_of(base.substr(0, base.find('.')), {"vllm", "appliance"})) process->names.emplace_back(base);
  }
  return process;
}
Verdict why_not_opened(const string& name, int error) {
  const string what = cat("cgroup ", name, ": ", error_text(error), " -> ");
  if (error == EXDEV) return stop(kRefused, "unsafe_path", name, ": . and .. are not allowed -> give the real path");
  if (error == ELOOP || error == ENOTDIR) return stop(kRefused, "unsafe_path", what, "give the path without links");
  if (error == ENOENT) return stop(kInfeasible, "no_cgroup", what, "systemd-cgls shows what exists");
  return stop(kDenied, "no_permission", what, "run as root, or have this leaf delegated");
}
// Everything about one leaf. Opening memory.reclaim for writing is the test of our rights: it changes nothing.
Candidate observe_leaf(const World& world, const string& name) {
  Candidate leaf;
  leaf.cgroup = name;
  leaf.dir = open_beneath(world.base, name);
  const int dir = leaf.dir.number;
  struct stat self {};
  if (!leaf.dir || fstat(dir, &self) != 0) leaf.problem = why_not_opened(name, errno);
  else if (!world.trusted(leaf.dir))
    leaf.problem = stop(kRefused, "not_cgroup2", name, " is no cgroup v2 folder -> see --cgroup-base");
  if (leaf.problem) return leaf;
  leaf.device = self.st_dev;
  leaf.inode = self.st_ino;
  leaf.stat = parse_keyed(text_in("memory.stat", dir));
  if (const auto limit = parse_limit(text_in("memory.swap.max", dir)))
    leaf.swap_room = less(*limit, parse_limit(text_in("memory.swap.current", dir)).value_or(0));
  const string pids = text_in("cgroup.procs", dir);
  for (const string_view pid : split(pids))
    leaf.processes.push_back(observe_process(world.request, string(pid)).value_or(Process{parse_u64(pid).value_or(0)}));
  const Fd knob(openat(dir, "memory.reclaim", O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!knob && errno == ENOENT)
    leaf.problem = stop(kDenied, "no_reclaim", name, " has no memory.reclaim -> Linux 5.19");
  else if (!knob) leaf.problem = why_not_opened(name + "/memory.reclaim", errno);
  for (const string& child : names_in(cat("/proc/self/fd/", dir)))
    if (get(parse_keyed(text_in(child + "/cgroup.events", dir)), "populated") > 0)
      leaf.problem = stop(kRefused, "not_leaf", name, " is no leaf: ", child, " has processes -> name the leaves");
  return leaf;
}
// The pidfd is opened before /proc/PID is read: what is read then belongs to the process that it names.
Candidate observe_pid(const World& world, u64 pid, bool host_root) {
  Fd pidfd(world.request.fake ? -1 : static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)));
  const string folder = cat(world.request.proc_root, "/", pid);
  const auto process = observe_process(world.request, std::to_string(pid));
  const string group = parse_cgroup(text_in(folder + "/cgroup"));
  Candidate one = observe_leaf(world, group);
  one.pid = pid;
  one.pidfd = std::move(pidfd);
  one.start = process ? process->start : 0;
  one.vmas = parse_smaps(text_in(folder + "/smaps"));
  if (process) one.processes.push_back(*process);
  if (!host_root) one.problem = stop(kDenied, "pid_needs_host_root", "--pid is for root on the host -> use --cgroup");
  else if (!process || (!world.request.fake && !one.pidfd))
    one.problem = stop(kInfeasible, "no_process", "there is no process ", pid, " -> look with ps");
  else if (group.empty())
    one.problem =
        stop(kRefused, "root_cgroup", "pid ", pid, " is in the root cgroup -> start it by systemd-run --scope");
  return one;
}
// A live engine: the one that was named, or any process that calls itself VLLM::. 0: none.
u64 observe_engine(const Request& request) {
  for (const string& name : names_in(request.proc_root)) {
    const auto process = parse_u64(name) ? observe_process(request, name) : std::nullopt;
    if (!process || !process->alive) continue;
    const string group = parse_cgroup(text_in(cat(request.proc_root, "/", name, "/cgroup")));
    const bool named = process->pid == request.engine_pid || in_unit(group, request.engine_unit);
    if (named || process->names[0].starts_with("VLLM::")) return process->pid;
  }
  return 0;
}
Facts observe(const World& world) {
  const Request& request = world.request;
  Facts facts;
  facts.now = observe_sample(world);
  if (request.cmd == "drop-cache") return facts;
  facts.engine_unit = request.engine_unit;
  facts.swaps = observe_swaps(request);
  if (request.util || request.cmd == "probe" || request.cmd == "selftest") observe_cuda(facts);
  const auto exists = [&](const char* name) { return faccessat(world.base.number, name, F_OK, 0) == 0; };
  facts.cgroup = exists("cgroup.controllers") ? "v2" : exists("memory/memory.limit_in_bytes") ? "v1" : "none";
  std::error_code error;
  // 4026531836 is the kernel's fixed number of the first pid namespace: the host's.
  facts.host_root = fs::read_symlink(request.proc_root + "/self/ns/pid", error) == "pid:[4026531836]" &&
      text_in(request.proc_root + "/self/status").find("\nUid:\t0\t0\t") != string::npos;
  for (const string& name : request.cgroups) {
    const auto same = [&](const string& one) { return split(one, "/") == split(name, "/"); };
    if (std::any_of(request.excluded.begin(), request.excluded.end(), same)) continue;
    facts.candidates.push_back(observe_leaf(world, name));
    if (facts.candidates.back().inode != 0) facts.cgroup = "v2";  // a container mounts leaves into a plain folder
  }
  for (const u64 pid : request.pids) facts.candidates.push_back(observe_pid(world, pid, facts.host_root));
  for (auto own = observe_process(request, "self"); own && own->pid > 1 && facts.lineage.insert(own->pid).second;)
    own = observe_process(request, std::to_string(own->parent));
  facts.engine_pid = observe_engine(request);
  return facts;
}

// ---- act: one step at a time, each judged by fresh numbers. Return codes are not believed.

i64 gain(u64 after, u64 before) { return static_cast<i64>(after) - static_cast<i64>(before); }
struct Mechanism {
  string form = "none";
  u64 requested = 0, advised = 0, swapped = 0, steps = 0;
  i64 freed_memfree = 0;
  int error = 0;
  double seconds = 0;
  void add(u64 bytes, const Sample& before, const Sample& after) {
    requested += bytes;
    steps += 1;
    seconds += after.at - before.at;
    swapped += less(after["pswpout"], before["pswpout"]);
    freed_memfree += gain(after["MemFree"], before["MemFree"]);
  }
};
struct Dropped {  // one file of drop-cache
  string path;
  Fd file;
  optional<u64> before = {}, after = {};  // bytes in the page cache; nothing: we may not ask (not the owner)
  int error = 0;
};
struct Report {
  Verdict verdict;
  Facts facts;
  Decision decision;
  std::map<std::pair<string, string>, Mechanism> mechanisms;  // by name and object
  vector<Dropped> files;
  vector<string> warnings;
  Sample last;
  u64 min_available = ~0ULL;
};

struct Evictor {
  World& world;
  Report& report;
  const Request& request = world.request;
  Samples samples = {};
  vector<int> strikes = vector<int>(report.decision.order.size());  // of each candidate; three are its end
  u64 released = 0, requested = 0;
  size_t form = 0;
  Verdict exhausted = stop(kPartial, "exhausted", "all candidates are used up -> name more cgroups");

  Verdict run() {
    for (take_sample();;) {
      const u64 left = less(request.max_bytes, requested), lack = missing(report.decision, samples.back());
      const u64 bytes = (std::min({request.step, left, lack}) + world.page - 1) / world.page * world.page;
      if (g_signal != 0) return signalled();
      if (lack == 0) return stop(kMet, "met", "the target is met");
      if (Verdict guard = judge_guards(request, samples, bytes)) return guard;
      if (left == 0) return stop(kPartial, "max_bytes", "--max-bytes are used up -> raise it");
      const auto next = std::find_if(strikes.begin(), strikes.end(), [](int count) { return count < 3; });
      if (next == strikes.end()) return exhausted;
      if (request.phase == "preflight" && observe_engine(request) != 0)
        return stop(kGuard, "engine_started", "an engine came alive: memory freed while it loads makes it abort");
      step(report.facts.candidates[report.decision.order[static_cast<size_t>(next - strikes.begin())]], bytes, *next);
    }
  }
  const Sample& take_sample() {
    samples.push_back(observe_sample(world, released));
    // The first stays: it is the start. Of the others only the windows of the guards are needed.
    while (samples.size() > 2 && samples.back().at - samples[2].at > kSlowWindow) samples.erase(samples.begin() + 1);
    report.min_available = std::min(report.min_available, samples.back()["MemAvailable"]);
    return samples.back();
  }
  // Pages in write-out count as used: wait for them up to 1 s, else we ask for more than is missing. And
  // give the numbers 200 ms to show `wanted`.
  Sample settle(u64 wanted) {
    const u64 calm = samples.front()["Writeback"] + 4 * kMiB;
    for (int i = 0; i < 50 && g_signal == 0; ++i) {
      const Sample& now = take_sample();
      if (now["Writeback"] <= calm && (now["MemAvailable"] >= wanted || i >= 10)) break;
      world.pause(20);
    }
    return samples.back();
  }
  // The same folder, process and rules as when we planned? Who owns a part of the tree may have swapped it.
  Verdict recheck(const Candidate& planned, const Candidate& now) const {
    if (Verdict problem = judge(now, report.facts)) return problem;
    const auto process = observe_process(request, std::to_string(planned.pid));
    pollfd ended{planned.pidfd.number, POLLIN, 0};
    const bool same = process && process->start == planned.start && poll(&ended, 1, 0) == 0;
    if (now.device == planned.device && now.inode == planned.inode && (planned.pid == 0 || same)) return {};
    return stop(kRefused, "changed", now.cgroup, " or its process is another than when we planned -> plan again");
  }
  void reclaim(const Candidate& leaf, u64 bytes, Mechanism& account) {
    constexpr std::array<const char*, 3> kForms{"swappiness=max", "swappiness=200", "plain"};
    for (account.error = EINVAL; account.error == EINVAL && form < kForms.size(); ++form) {  // EINVAL: an older kernel
      const string text = form == 2 ? cat(bytes) : cat(bytes, " ", kForms[form]);
      account.error = world.effect("write", leaf.cgroup + "/memory.reclaim", text, [&] {
        const Fd knob(openat(leaf.dir.number, "memory.reclaim", O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
        if (!knob || !world.trusted(knob)) return knob ? EXDEV : errno;
        return write(knob.number, text.data(), text.size()) < 0 ? errno : 0;
      });
      if (account.error != EINVAL) account.form = kForms[form--];
    }
  }
  // Advises the next ranges of a process that hold `bytes`; the budget is what was advised, never MemFree.
  void page_out(Candidate& one, u64 bytes, Mechanism& account) {
    vector<std::pair<u64, u64>> ranges;  // as an iovec: address, length
    u64 advised = 0;
    while (!one.vmas.empty() && advised < bytes) {
      Vma& vma = one.vmas.back();
      const u64 length = std::min(vma.length, 16 * kMiB), held = vma.anon / (vma.length / length);
      ranges.emplace_back(vma.start, length);
      advised += held;
      vma = {vma.start + length, vma.length - length, vma.anon - held, true};
      if (vma.length == 0) one.vmas.pop_back();
    }
    account.advised += advised;
    account.error = world.effect("process_madvise", cat("pid:", one.pid), cat(advised), [&] {
      int error = ranges.empty() ? ENODATA : 0;
      for (const auto& range : ranges)
        if (syscall(SYS_process_madvise, one.pidfd.number, &range, 1UL, MADV_PAGEOUT, 0U) < 0) error = errno;
      return error;
    });
  }
  void step(Candidate& planned, u64 bytes, int& strike) {
    const Candidate now = observe_leaf(world, planned.cgroup);
    if (Verdict changed = recheck(planned, now)) {
      report.warnings.push_back(changed.message);
      if (report.mechanisms.empty()) exhausted = changed;
      strike = 3;
      return;
    }
    const auto current = [&] { return parse_limit(text_in("memory.current", now.dir.number)).value_or(0); };
    const u64 held = current();
    const Sample start = take_sample();
    Sample before = start;
    Mechanism& mine = report.mechanisms[{planned.pid != 0 ? "drain" : "memory.reclaim", planned.cgroup}];
    mine.error = 0;
    if (planned.pid != 0) {
      Mechanism& advised = report.mechanisms[{"process_madvise", cat("pid ", planned.pid)}];
      page_out(planned, bytes, advised);
      before = settle(0);  // a drain finds nothing clean before, and would write other pages
      advised.add(bytes, start, before);
      mine.error = advised.error;
    }
    if (mine.error == 0) reclaim(now, bytes, mine);
    const Sample after = settle(start["MemAvailable"] + bytes);
    const u64 given = less(held, current()), gained = less(after["MemAvailable"], start["MemAvailable"]);
    mine.add(bytes, before, after);
    released += given;
    requested += bytes;
    strike = std::max(given, gained) >= bytes / 16 ? 0 : strike + 1;
    if (mine.error != 0 && mine.error != EAGAIN && mine.error != EINTR) strike = 3;
    if (mine.error == EPERM || mine.error == EACCES || mine.error == EROFS)
      exhausted = stop(kDenied, "no_permission", "the kernel refused the write -> run as root, or delegate the leaf");
  }
};

void evict(World& world, Report& report) {
  const Request& request = world.request;
  Verdict& verdict = report.verdict;
  // One run at a time, and none while somebody holds the lock (the sidecar, while its engine loads).
  const int mode = request.fake ? O_RDONLY : O_RDWR | O_CREAT;
  const Fd lock(open(request.lock.c_str(), mode | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));
  if (!lock && !(request.fake && errno == ENOENT))
    verdict = stop(kDenied, "no_lock", request.lock, ": ", error_text(errno), " -> name another with --lock");
  else if (lock && flock(lock.number, LOCK_EX | LOCK_NB) != 0)
    verdict = stop(kRefused, "locked", request.lock, " is held: another run, or an engine that loads -> wait for it");
  if (verdict.exit != kMet) return;
  world.ask("planned");
  verdict = Evictor{world, report}.run();
  report.last = observe_sample(world);
  const u64 still = missing(report.decision, report.last);
  if (verdict.exit == kMet || verdict.exit >= 128) return;
  if (still > tolerance(report.decision.deficit))
    verdict.message = cat(human(still), " still missing: ", verdict.message);
  else verdict = stop(kMet, "met", "the target is met, nearly: ", verdict.message);
}

// ---- drop-cache: clean file pages out of the page cache, measured by mincore.

// Only a regular file is ever opened for reading: a device or a pipe would do something. Links are followed:
// the folders of Hugging Face are made of them, and to drop clean pages harms nobody.
void find_file(const string& path, Report& report) {
  const Fd at(open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat file {};
  string why = at && fstat(at.number, &file) == 0 ? "" : error_text(errno);
  if (why.empty() && !S_ISREG(file.st_mode)) why = "not a regular file";
  Fd readable(why.empty() ? open(cat("/proc/self/fd/", at.number).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1);
  if (why.empty() && !readable) report.verdict = stop(kDenied, "no_permission", path, ": ", why = error_text(errno));
  if (readable) report.files.push_back({path, std::move(readable)});
  else report.warnings.push_back(cat("skipped ", path, ": ", why));
}
// mincore says "all resident" to whoever neither owns nor may write the file: then we do not ask.
optional<u64> resident(const Fd& fd, u64 page) {
  struct stat file {};
  if (fstat(fd.number, &file) != 0) return {};
  const bool ours = geteuid() == 0 || file.st_uid == geteuid();
  if (!ours && faccessat(fd.number, "", W_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) return {};
  const auto size = static_cast<u64>(file.st_size);
  void* map = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.number, 0) : MAP_FAILED;
  if (map == MAP_FAILED) return size > 0 ? std::nullopt : optional<u64>(0);
  vector<unsigned char> pages((size + page - 1) / page);
  const bool ok = mincore(map, size, pages.data()) == 0;
  munmap(map, size);
  const auto here = std::count_if(pages.begin(), pages.end(), [](unsigned char one) { return (one & 1U) != 0; });
  return ok ? optional(static_cast<u64>(here) * page) : std::nullopt;
}
Verdict judge_dropped(const Report& report, bool dry_run) {
  u64 before = 0, kept = 0;
  int error = 0;
  for (const Dropped& one : report.files) {
    before += one.before.value_or(0);
    kept += one.after.value_or(0);
    error = std::max(error, one.error);
  }
  if (g_signal != 0) return signalled();
  if (report.files.empty() && report.verdict.exit == kDenied) return report.verdict;
  if (report.files.empty()) return stop(kInfeasible, "no_files", "no file -> name files, or folders of *.safetensors");
  if (dry_run) return stop(kMet, "measured", human(before), " are in the page cache");
  if (error == EINTR) return stop(kTimeout, "deadline", "a file was not synced in time -> raise --max-seconds");
  if (kept <= before / 100 && error == 0)
    return stop(kMet, "dropped", human(less(before, kept)), " left the page cache");
  return stop(kPartial, "kept", human(kept), " stay: mapped, locked, in memory -> end programs that map these files");
}
void drop_cache(World& world, Report& report) {
  const Request& request = world.request;
  std::error_code error;
  for (const string& path : request.paths) {
    fs::recursive_directory_iterator at(path, fs::directory_options::skip_permission_denied, error), end;
    if (error) find_file(path, report);
    for (; at != end; at.increment(error))
      if (at->path().extension() == ".safetensors" && !at->is_directory(error)) find_file(at->path(), report);
  }
  Mechanism account;
  for (Dropped& one : report.files) {
    one.before = one.after = resident(one.file, world.page);
    if (!one.before) report.warnings.push_back(one.path + ": not ours, so its cache cannot be measured");
    if (request.dry_run || g_signal != 0) continue;
    account.error = one.error = world.effect("fadvise", one.path, "DONTNEED", [&] {
      const int unsynced = fdatasync(one.file.number) == 0 ? 0 : errno;  // dirty pages cannot be dropped
      const int refused = posix_fadvise(one.file.number, 0, 0, POSIX_FADV_DONTNEED);
      return unsynced != 0 ? unsynced : refused;
    });
    one.after = resident(one.file, world.page);
    account.advised += one.before.value_or(0);
  }
  report.verdict = judge_dropped(report, request.dry_run);
  report.last = observe_sample(world);
  account.add(account.advised, report.facts.now, report.last);
  if (!request.dry_run && !report.files.empty())
    report.mechanisms[{"fadvise", cat(report.files.size(), " files")}] = account;
}

// ---- report.

Json put_memory(const Sample& sample) {
  Fields fields;
  for (const char* key : {"MemTotal", "MemFree", "MemAvailable", "Cached", "Shmem", "AnonPages", "SwapTotal",
           "SwapFree", "SwapCached", "Mlocked", "HugePages_Total", "HugePages_Free", "Hugepagesize"})
    if (sample.values.contains(key)) fields.emplace_back(key, sample[key]);
  return object(fields);
}
Json put_mechanism(const std::pair<const std::pair<string, string>, Mechanism>& one) {
  const Mechanism& it = one.second;
  return object({{"name", one.first.first}, {"object", one.first.second}, {"reclaim_form", it.form},
      {"requested", it.requested}, {"advised", it.advised}, {"freed_memfree", it.freed_memfree},
      {"swapped", it.swapped}, {"steps", it.steps}, {"errno", it.error}, {"seconds", it.seconds}});
}
Json put_uma(const Facts& facts) {
  const auto flag = [&](const char* key) {
    return facts.device.contains(key) ? optional(get(facts.device, key)) : std::nullopt;
  };
  Fields attributes;
  for (const auto& attribute : kAttributes) attributes.emplace_back(attribute.second, flag(attribute.second));
  const auto integrated = flag("integrated");
  return object({{"integrated", integrated ? optional(*integrated == 1) : std::nullopt}, {"cuda", facts.cuda},
      {"error", facts.cuda_error}, {"total", flag("total")}, {"attrs", object(attributes)}});
}
Json put_guards(const Report& report) {
  const Sample &first = report.facts.now, &last = report.last;
  const auto more = [&](const char* key) { return less(last[key], first[key]); };
  return object({{"psi_full_ms", more("full") / 1000}, {"psi_some_ms", more("some") / 1000}, {"pswpin", more("pswpin")},
      {"pswpout", more("pswpout")}, {"min_available", std::min(report.min_available, last["MemAvailable"])}});
}
int finish(const World& world, const Report& report, double seconds) {
  const Request& request = world.request;
  const Decision& decision = report.decision;
  const Facts& facts = report.facts;
  const Sample &first = facts.now, &last = report.last;
  const auto put_swap = [](const SwapArea& area) {
    return object({{"dev", area.dev}, {"type", area.type}, {"size", area.size}, {"used", area.used},
        {"rotational", area.rotational}, {"zram", area.zram}});
  };
  const auto put_candidate = [&](const Candidate& one) {
    const Verdict problem = judge(one, facts);
    return object({{"cgroup", one.cgroup}, {"pid", one.pid}, {"usable", !problem}, {"reason", problem.reason},
        {"evictable", evictable(one)}});
  };
  const auto put_file = [](const Dropped& one) {
    return object({{"path", one.path}, {"cached_before", one.before}, {"cached_after", one.after},
        {"not_droppable", one.after.value_or(0)}, {"errno", one.error}});
  };
  const auto met = [&](const optional<u64>& want, const char* key) {
    return want ? optional(last[key] + tolerance(decision.deficit) >= *want) : std::nullopt;
  };
  Fields delta;
  for (const char* key : {"MemFree", "MemAvailable", "Cached", "SwapFree", "SwapCached"})
    delta.emplace_back(key, gain(last[key], first[key]));
  const Json out = object({{"schema", "force_swap/1"}, {"cmd", request.cmd},
      {"dry_run", request.cmd == "drop-cache" ? request.dry_run : !request.apply}, {"uma", put_uma(facts)},
      {"target",
          object(
              {{"available", decision.want_available}, {"free", decision.want_free}, {"deficit", decision.deficit}})},
      {"before", put_memory(first)}, {"after", put_memory(last)}, {"delta", object(delta)},
      {"swap", list(facts.swaps, put_swap)}, {"cgroup", facts.cgroup}, {"host_root", facts.host_root},
      {"candidates", list(facts.candidates, put_candidate)}, {"mechanisms", list(report.mechanisms, put_mechanism)},
      {"guards", put_guards(report)}, {"files", list(report.files, put_file)}, {"recorded", list(world.recorded)},
      {"stop_reason", report.verdict.reason}, {"message", report.verdict.message},
      {"met",
          object({{"available", met(decision.want_available, "MemAvailable")},
              {"free", met(decision.want_free, "MemFree")}})},
      {"elapsed_s", seconds}, {"warnings", list(report.warnings)}, {"exit_code", report.verdict.exit}});
  for (const string& warning : report.warnings) std::cerr << "force_swap: warning: " << warning << "\n";
  std::cerr << "force_swap: " << report.verdict.message << std::endl;
  std::cout << out.text << std::endl;
  return std::cout ? report.verdict.exit : kInternal;
}
int run(const Request& request) {
  World world(request);
  Report report;
  const double start = monotonic();
  report.facts = observe(world);
  report.last = report.facts.now;
  Verdict& verdict = report.verdict;
  verdict = stop(kMet, "observed", "MemAvailable is ", human(report.last["MemAvailable"]));
  const auto known = parse_stat("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0");  // selftest
  if (report.last["MemTotal"] == 0 || !report.last.values.contains("MemAvailable")) {
    verdict = stop(kInternal, "no_meminfo", "cannot read ", request.proc_root, "/meminfo");
  } else if (request.cmd == "drop-cache") {
    drop_cache(world, report);
  } else if (request.cmd == "plan" || request.cmd == "evict") {
    report.decision = decide(request, report.facts);
    verdict = report.decision.verdict;
    report.warnings = report.decision.warnings;
    if (request.apply && verdict.reason == "feasible") evict(world, report);
  } else if (request.cmd == "selftest" && (!known || known->start != 99 || report.facts.lineage.empty())) {
    verdict = stop(kInternal, "selftest", "cannot read stat, or not our own line of processes -> is /proc mounted?");
  }
  if (world.stuck != 0)
    report.warnings.push_back(cat("pid ", world.stuck, " was killed, but the kernel is still at it"));
  if (g_signal != 0 && report.mechanisms.empty()) verdict = signalled();
  return finish(world, report, monotonic() - start);
}

// ---- command line.

constexpr const char* kHelp = R"(force_swap: make room for pinned GPU memory on a machine with unified memory.

CUDA pages are pinned and cannot be swapped. force_swap makes room for them: it pushes OTHER cold
pages out to swap (memory.reclaim of leaf cgroups that you name) and drops clean file cache.

  probe       memory, swap, CUDA attributes; changes nothing      selftest  checks this program
  plan        what evict would do, and why not
  evict       a dry run; with --apply it pages out until the target is met
  drop-cache  drops files from the page cache, at once: nothing is lost. A folder means its *.safetensors.
              Pages that a program maps stay, and are reported.

It cannot: swap CUDA memory, add swap, change sysctls, kill, or touch the engine, the sidecar, sshd,
systemd, dbus or itself. There is no global reclaim and no balloon: both stall the machine.
stdout is one JSON object (force_swap/1), stderr is for people. Sizes: 4G, 512MiB, bytes. Examples:
  force_swap evict --target-available 104G --cgroup system.slice/gdm.service --apply
  force_swap drop-cache /models/MiniMax-M2.7
exit codes: 0 met or feasible, 2 usage, 3 refused by a safety rule, 4 cannot be reached, 5 partly, 6 guard,
            7 deadline, 8 no permission or not supported, 9 internal, 129 130 143 signal (with JSON)
flags:
)";
using R = Request;
using Member = std::variant<bool R::*, string R::*, u64 R::*, double R::*, vector<string> R::*, vector<u64> R::*,
    optional<u64> R::*, optional<double> R::*>;
struct Flag {
  const char *name, *value, *commands;  // commands: p plan and evict, e evict, d drop-cache, "" all
  Member member;
  const char* help;  // with the default
};
constexpr auto kFlags = std::to_array<Flag>({
    {"--target-available", "SIZE", "p", &R::target_available, "MemAvailable to reach: what vLLM asks for"},
    {"--util", "U", "p", &R::util, "or: ceil(U * --total) + --init-overhead"},
    {"--total", "SIZE", "p", &R::total, "GPU memory (auto: asked of CUDA, else MemTotal)"},
    {"--init-overhead", "SIZE", "p", &R::init_overhead, "what a start takes before it looks (2G)"},
    {"--target-free", "SIZE", "p", &R::target_free, "MemFree to reach: what the driver sees"},
    {"--cgroup", "NAME", "p", &R::cgroups, "a leaf cgroup; again for more"},
    {"--exclude-cgroup", "NAME", "p", &R::excluded, "not this one; again for more"},
    {"--pid", "PID", "p", &R::pids, "page out one process, and drain its cgroup (root on the host)"},
    {"--apply", "", "e", &R::apply, "do it"},
    {"--dry-run", "", "ed", &R::dry_run, "only measure"},
    {"--phase", "NAME", "p", &R::phase, "preflight (default): no engine may be alive; or ready"},
    {"--engine-pid", "PID", "p", &R::engine_pid, "the engine: never touched"},
    {"--engine-unit", "NAME", "p", &R::engine_unit, "its unit: never touched"},
    {"--reserve", "SIZE", "p", &R::reserve, "MemAvailable that must stay (4G)"},
    {"--swap-reserve", "SIZE", "p", &R::swap_reserve, "free swap that must stay (2G)"},
    {"--step", "SIZE", "p", &R::step, "one request to the kernel (64M); also what may follow a signal"},
    {"--max-bytes", "SIZE", "p", &R::max_bytes, "all requests together (16G)"},
    {"--max-seconds", "N", "pd", &R::max_seconds, "deadline (120)"},
    {"--psi-full", "PERCENT", "p", &R::psi_full, "stop when all tasks stall longer (10)"},
    {"--swapin-mbs", "N", "p", &R::swapin_mbs, "stop when pages come back faster, MiB/s (50)"},
    {"--allow-zram", "", "p", &R::allow_zram, "zram counts as swap"},
    {"--allow-slow-swap", "", "p", &R::allow_slow_swap, "rotating disks and networks too; no slow-swap guard"},
    {"--lock", "FILE", "e", &R::lock, "held while it acts (/run/force_swap.lock)"},
    {"--cgroup-base", "DIR", "", &R::cgroup_base, "where the cgroups are (/sys/fs/cgroup)"},
    {"--proc-root", "DIR", "", &R::proc_root, "a fake /proc: nothing is written, only recorded"},
    {"--sys-root", "DIR", "", &R::sys_root, "a fake /sys, likewise"},
    {"--cgroup-root", "DIR", "", &R::cgroup_root, "a fake cgroup tree, likewise"},
    {"--json", "", "", &R::json, "accepted: the output is always JSON"},
});
// Is the flag one of this command? "" is every command.
bool takes(string_view cmd, string_view commands) {
  const char* letters = cmd == "plan" ? "p" : cmd == "evict" ? "pe" : cmd == "drop-cache" ? "d" : "";
  return cmd.empty() || commands.empty() || commands.find_first_of(letters) != string_view::npos;
}
template <class T>
bool store(T& field, const string& text) {
  if constexpr (std::is_same_v<T, bool>) return field = true;
  else if constexpr (std::is_same_v<T, string>) return field = text, !text.empty();
  else if constexpr (requires { field.emplace_back(); }) return store(field.emplace_back(), text);
  else if constexpr (requires { field.has_value(); }) return text == "auto" || store(field.emplace(), text);
  else {
    const auto value = parse_number(text, std::is_same_v<T, u64>);
    field = static_cast<T>(value.value_or(0));
    return value.has_value();
  }
}
// What is wrong with the command line, or "".
string parse_flag(Request& request, const vector<string>& all, size_t& at) {
  const string& name = all[at];
  const auto* flag = std::find_if(kFlags.begin(), kFlags.end(), [&](const Flag& one) { return name == one.name; });
  if (flag == kFlags.end()) return "unknown flag " + name;
  if (!takes(request.cmd, flag->commands)) return cat(name, " says nothing to ", request.cmd);
  const bool wanted = *flag->value != '\0';
  if (wanted && at + 1 == all.size()) return cat(name, " needs a value: ", flag->value);
  const string value = wanted ? all[++at] : "";
  const bool good = std::visit([&](auto member) { return store(request.*member, value); }, flag->member);
  return good ? "" : cat(name, ": \"", value, "\" is no ", flag->value);
}
string check(const Request& request) {
  if (request.cmd == "drop-cache" && request.paths.empty()) return "drop-cache needs a PATH";
  if (request.cmd != "plan" && request.cmd != "evict") return "";
  if (request.util.value_or(0) > 1) return "--util is a share: at most 1";
  if (request.util && request.target_available) return "--util and --target-available: give one of them";
  if (!request.util && !request.target_available && !request.target_free)
    return "no target: give --target-available SIZE, --util U or --target-free SIZE";
  if (request.apply && request.dry_run) return "--apply and --dry-run: give one of them";
  if (!is_one_of(request.phase, {"preflight", "ready"})) return "--phase is preflight or ready";
  if (request.step < 65536) return "--step is at least 64 KiB";
  for (const string& name : request.cgroups)
    if (split(name, "/").empty()) return "--cgroup / is the root: there is no global reclaim";
  return "";
}
string parse_words(Request& request, const vector<string>& all) {
  if (all.empty()) return "no command";
  request.cmd = all[0];
  if (!is_one_of(request.cmd, {"probe", "plan", "evict", "drop-cache", "selftest"}))
    return "unknown command " + request.cmd;
  for (size_t i = 1; i < all.size(); ++i) {
    const bool flag = all[i].starts_with("--");
    if (!flag && request.cmd != "drop-cache") return "unexpected word " + all[i];
    if (!flag) request.paths.push_back(all[i]);
    else if (string wrong = parse_flag(request, all, i); !wrong.empty()) return wrong;
  }
  request.fake = !(request.proc_root + request.sys_root + request.cgroup_root).empty();
  if (request.proc_root.empty()) request.proc_root = "/proc";
  if (request.sys_root.empty()) request.sys_root = "/sys";
  if (!request.cgroup_root.empty()) request.cgroup_base = request.cgroup_root;
  return check(request);
}
int help(const string& cmd) {
  std::cout << kHelp << std::left;
  for (const Flag& flag : kFlags)
    if (takes(cmd, flag.commands))
      std::cout << "  " << std::setw(26) << cat(flag.name, " ", flag.value) << flag.help << "\n";
  return std::cout.flush() ? kMet : kInternal;
}

}  // namespace

#ifndef FORCE_SWAP_NO_MAIN
int main(int argc, char** argv) {
  struct sigaction action {};
  action.sa_handler = [](int number) { g_signal = number; };  // no SA_RESTART: a blocked call returns
  action.sa_flags = SA_RESETHAND;                             // a second one ends us at once
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) (void)sigaction(number, &action, nullptr);
  (void)std::signal(SIGPIPE, SIG_IGN);
  (void)std::signal(SIGCHLD, SIG_DFL);
  const vector<string> all(argv + 1, argv + argc);
  const auto asks = [](const string& word) { return word == "--help" || word == "-h"; };
  if (std::any_of(all.begin(), all.end(), asks)) return help(all[0].starts_with("-") ? "" : all[0]);
  Request request;
  const string wrong = parse_words(request, all);
  if (wrong.empty()) return run(request);
  Report report;
  report.verdict = stop(kUsage, "usage", wrong, " -> force_swap --help");
  return finish(World(request), report, 0);
}
#endif
