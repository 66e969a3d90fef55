// Any bytes into every parser: the first byte chooses. The result must also survive the JSON writer.
#include "../../unglitched_vllm/force_swap.cpp"

namespace {
void require(bool law) {
  if (!law) std::abort();
}
void deciding(string_view text) {
  Request request;
  Facts facts;
  facts.info = parse_keyed(text);
  facts.swaps = parse_swaps(text);
  Candidate one;
  one.cgroup = string(text.substr(0, 64));
  one.vmas = parse_smaps(text);
  one.inactive_anon = get(facts.info, "inactive_anon");
  one.swap_room = parse_limit(text);
  facts.candidates.push_back(one);
  request.target_available = get(facts.info, "target");
  const Decision decision = decide(request, facts);
  require(decision.reason != "feasible" || !decision.order.empty());
  require(!decision.reason.empty() && (decision.exit == kMet || !decision.message.empty()));
}
void command_line(string_view text) {
  vector<string> words;
  for (const string_view word : split(text, "\n")) words.emplace_back(word);
  Request request;
  const string wrong = parse_words(request, words);
  require(!wrong.empty() || !request.cmd.empty());
}
void report(string_view text) {
  const string out = Object()(text, text).end().text;
  for (const char c : out) require(static_cast<unsigned char>(c) >= 0x20);
  for (size_t i = 0; i < out.size(); i += utf8_length(out, i)) require(utf8_length(out, i) > 0);
}
void numbers(string_view text) {
  const auto size = parse_size(text);
  require(!size || !text.empty());
  string_view rest;
  (void)parse_decimal(text, rest);
  (void)parse_limit(text);
  (void)parse_cgroup_line(text);
  for (const int pid : parse_pids(text)) require(pid >= 0);
}
void machine(string_view text) {
  (void)parse_psi(text);
  for (const SwapArea& area : parse_swaps(text)) require(area.used <= area.size);
  if (const auto stat = parse_stat(text)) require(stat->pid >= 0 && stat->ppid >= 0);
  for (const Vma& vma : parse_smaps(text)) require(vma.movable && vma.length > 0);
  (void)parse_keyed(text);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: deciding(text); break;
    case 1: command_line(text); break;
    case 2: report(text); break;
    case 3: numbers(text); break;
    default: machine(text); break;
  }
  return 0;
}
