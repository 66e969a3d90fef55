// What the helper does in a child must end when the helper is told to end. Prints one line a check.
#include "../../unglitched_vllm/force_swap.cpp"

namespace {
constexpr double kLong = 60;

int wait_for_ever() {
  for (;;) pause();
}
bool check(const char* name, bool good) {
  std::cout << (good ? "ok " : "FAILED ") << name << std::endl;
  return good;
}
int run(const std::function<int()>& work, double seconds) {
  pid_t stuck = 0;
  const int error = run_in_child(work, monotonic() + seconds, stuck);
  return stuck == 0 ? error : -1;
}
}  // namespace

int main() {
  bool good = true;
  good &= check("a result comes back", run([] { return 42; }, kLong) == 42);
  double start = monotonic();
  good &= check("the deadline cuts it", run(wait_for_ever, 0.1) == EINTR);
  good &= check("within two seconds", monotonic() - start < 2);
  good &= check("no child is left", waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD);
  good &= check("a child that dies gives no result", run([] { return raise(SIGKILL); }, kLong) == EINTR);
  struct sigaction action {};
  action.sa_handler = [](int number) { g_signal = number; };
  (void)sigaction(SIGALRM, &action, nullptr);
  alarm(1);
  start = monotonic();
  good &= check("a signal cuts it", run(wait_for_ever, kLong) == EINTR);
  good &= check("a signal cuts it within two seconds", monotonic() - start < 3);
  return good ? 0 : 1;
}
