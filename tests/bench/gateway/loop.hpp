// One thread, one epoll, one clock: what everything else of the load program stands on.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

using u64 = std::uint64_t;
constexpr u64 kMs = 1'000'000, kSecond = 1'000'000'000;

inline u64 now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * kSecond + static_cast<u64>(t.tv_nsec);
}

[[noreturn]] inline void die(const std::string& what) {
  std::fprintf(stderr, "load: %s\n", what.c_str());
  std::exit(1);
}

// Something with a descriptor. It is closed once, and freed only between two rounds of events,
// because a round may still hold a pointer to it.
class Watched {
 public:
  explicit Watched(int fd) : fd_(fd) {}
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;
  virtual ~Watched() = default;
  virtual void on_events(std::uint32_t events) = 0;
  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 protected:
  friend class Loop;
  int fd_;
};

class Loop {
 public:
  Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0) die("no epoll");
  }

  void add(Watched* watched, std::uint32_t events) { control(EPOLL_CTL_ADD, watched, events); }
  void change(Watched* watched, std::uint32_t events) { control(EPOLL_CTL_MOD, watched, events); }

  // Close its descriptor, and free it when this round of events is over.
  void close(std::unique_ptr<Watched> watched) {
    if (watched->fd_ >= 0) ::close(watched->fd_);
    watched->fd_ = -1;
    gone_.push_back(std::move(watched));
  }

  void at(u64 when_ns, std::function<void()> call) { timers_.emplace(when_ns, std::move(call)); }
  void after(u64 length_ns, std::function<void()> call) { at(now_ns() + length_ns, std::move(call)); }
  void forget_timers() { timers_.clear(); }

  // Serve until `done`; false when that took longer than `limit_ns`. Never called from a callback.
  bool until(const std::function<bool()>& done, u64 limit_ns) {
    const u64 end = now_ns() + limit_ns;
    while (!done()) {
      const u64 now = now_ns();
      if (now >= end) return false;
      u64 next = end;
      if (!timers_.empty() && timers_.begin()->first < next) next = timers_.begin()->first;
      round(next > now ? next - now : 0);
    }
    return true;
  }

  void pause(u64 length_ns) {
    until([] { return false; }, length_ns);
  }

 private:
  void control(int what, Watched* watched, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = watched;
    if (epoll_ctl(epoll_, what, watched->fd(), &event) != 0) die("epoll_ctl failed");
  }

  void round(u64 wait_ns) {
    std::array<epoll_event, 256> events{};
    const timespec wait{static_cast<time_t>(wait_ns / kSecond), static_cast<long>(wait_ns % kSecond)};
    const int count = epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &wait, nullptr);
    for (int i = 0; i < count; ++i) {
      auto* watched = static_cast<Watched*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (watched->is_open()) watched->on_events(events[static_cast<std::size_t>(i)].events);
    }
    const u64 now = now_ns();
    while (!timers_.empty() && timers_.begin()->first <= now) {
      auto call = std::move(timers_.begin()->second);
      timers_.erase(timers_.begin());
      call();
    }
    gone_.clear();
  }

  int epoll_;
  std::multimap<u64, std::function<void()>> timers_;
  std::vector<std::unique_ptr<Watched>> gone_;
};
