// A client on one connection: one request at a time, each event of the reply counted as it comes.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <string>
#include <string_view>

#include "engine.hpp"
#include "loop.hpp"
#include "streams.hpp"
#include "wire.hpp"

struct Target {
  std::uint16_t port = 0;
  std::string key;
};

class Client : public Watched {
 public:
  Client(Loop& loop, const Target& target, std::string body)
      : Watched(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)), loop_(loop), body_(std::move(body)) {
    const int on = 1;
    setsockopt(fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(target.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS) {
      fault = "refused";
    }
    loop.add(this, EPOLLIN);
    place_ = body_.find(kName) + kName.size();
    const std::string head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:" + std::to_string(target.port) +
        "\r\nauthorization: Bearer " + target.key +
        "\r\ncontent-type: application/json\r\naccept: */*\r\nuser-agent: load/1\r\n"
        "content-length: " +
        std::to_string(body_.size()) + "\r\n\r\n";
    place_ += head.size();
    body_.insert(0, head);
  }

  // Send the request for `stream`. Its moment is `began_ns`.
  void ask(Stream* stream) {
    const std::string number = std::to_string(stream->number);
    body_.replace(place_, kDigits, std::string(kDigits - number.size(), '0') + number);
    stream_ = stream;
    sent_ = 0;
    first_ns = 0;
    head_.clear();
    in_reply_ = false;
    began_ns = now_ns();
    push();
  }

  void on_events(std::uint32_t events) override {
    if ((events & EPOLLOUT) != 0 && sent_ < body_.size()) push();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    static std::array<char, kPiece> data;
    const ssize_t got = recv(fd(), data.data(), data.size(), 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      loop_.change(this, 0);
      if (stream_ != nullptr) end("broken off");
      return;
    }
    feed({data.data(), static_cast<std::size_t>(got)});
  }

  u64 began_ns = 0;
  u64 first_ns = 0;   // the first chunk's coming, 0 before
  std::string fault;  // what was wrong with a reply, "" when nothing was

 private:
  void push() {
    const std::size_t size = std::min(kPiece, body_.size() - sent_);
    const ssize_t sent = send(fd(), body_.data() + sent_, size, MSG_NOSIGNAL);
    if (sent > 0) sent_ += static_cast<std::size_t>(sent);
    loop_.change(this, sent_ < body_.size() ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }

  void feed(std::string_view data) {
    if (!in_reply_) {
      head_.append(data);
      const std::size_t end = head_.find("\r\n\r\n");
      if (end == std::string::npos) return;
      const std::string rest = head_.substr(end + 4);
      head_.resize(end + 4);
      reply_.begin(head_, true);
      in_reply_ = true;
      refused_ = head_.size() < 12 || head_.compare(9, 3, "200") != 0;
      events_ = MarkedEvents();
      content(rest);
      return;
    }
    content(data);
  }

  void content(std::string_view data) {
    std::size_t events = 0;
    reply_.feed(data, [&](std::string_view part) {
      events += events_.feed(part);
      if (refused_) fault.append(part.substr(0, 300));
    });
    Stream* stream = stream_;
    for (; events > 0 && stream != nullptr; --events) {
      const u64 now = now_ns();
      if (first_ns == 0) first_ns = now;
      const u64 sent = stream->sent_ns.empty() ? now : stream->sent_ns.front();
      if (!stream->sent_ns.empty()) stream->sent_ns.pop_front();
      stream->on_chunk(now - sent);
    }
    if (reply_.done() && stream_ != nullptr) end(refused_ ? head_.substr(0, 12) : "");
  }

  void end(const std::string& wrong) {
    Stream* stream = stream_;
    stream_ = nullptr;
    in_reply_ = false;
    head_.clear();
    if (!wrong.empty()) fault = wrong + " " + fault;
    stream->on_ended();
  }

  Loop& loop_;
  std::string body_;  // the head before it
  std::size_t place_ = 0, sent_ = 0;
  Stream* stream_ = nullptr;
  std::string head_;
  Body reply_;
  MarkedEvents events_;
  bool in_reply_ = false, refused_ = false;
};
