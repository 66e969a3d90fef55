// What the helper does in a child must end when the helper is told to end. Prints one line a check.
#include "../../unglitched_vllm/force_swap.cpp"

namespace {
void wait_for_ever(int& /*result*/) {
  for (;;) pause();
}
bool check(const char* name, bool good) {
  std::printf("%s %s\n", good ? "ok" : "FAILED", name);
  return good;
}
}  // namespace

int main() {
  const auto always = [] { return true; };
  bool good = true;
  good &= check("a result comes back",
      run_bounded<int>(
          1, [](int& value) { value += 41; }, always, -1) == 42);
  double start = monotonic();
  int asked = 0;
  good &= check("a refusal to go on cuts it",
      run_bounded<int>(
          1, wait_for_ever, [&] { return ++asked < 3; }, -1) == -1);
  good &= check("within two seconds", monotonic() - start < 2);
  good &= check("no child is left", waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD);
  const auto die = [](int& value) { value = 7, (void)raise(SIGKILL); };
  good &= check("a child that dies gives no result", run_bounded<int>(1, die, always, -1) == -1);
  g_signal = 0;
  struct sigaction action {};
  action.sa_handler = [](int number) { g_signal = number; };
  (void)sigaction(SIGALRM, &action, nullptr);
  alarm(1);
  start = monotonic();
  good &= check("a signal cuts it",
      run_bounded<int>(
          1, wait_for_ever, [] { return g_signal == 0; }, -1) == -1);
  good &= check("a signal cuts it within two seconds", monotonic() - start < 3);
  return good ? 0 : 1;
}
