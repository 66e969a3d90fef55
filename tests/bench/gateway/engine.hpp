// The fake engine: speaks as vLLM does on the wire, computes nothing, writes each chunk at once.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "loop.hpp"
#include "streams.hpp"
#include "wire.hpp"

constexpr std::size_t kPiece = 64 * 1024;  // read and written in one go, so that no turn takes long
constexpr std::size_t kChunkBytes = 259;   // one chunk on the wire, framing included

struct EngineTexts {
  std::string model = "bench";
  std::string context = "8388608";
  std::string answer;  // to the warm-up question
};

inline std::string hex_chunk(std::string_view data) {
  std::array<char, 20> size{};
  const int length = std::snprintf(size.data(), size.size(), "%zx\r\n", data.size());
  return std::string(size.data(), static_cast<std::size_t>(length)) + std::string(data) + "\r\n";
}

// The chunks of a chat stream. Each has another text: a watcher for loops must not see one.
class Wording {
 public:
  explicit Wording(const EngineTexts& texts) : texts_(texts) {}

  std::string head() const {
    return "HTTP/1.1 200 OK\r\ndate: Sun, 23 Nov 2025 00:00:00 GMT\r\nserver: uvicorn\r\n"
           "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
  }
  std::string role() const {
    return event(R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)"
                 R"("finish_reason":null}],"prompt_token_ids":null)");
  }
  std::string chunk(bool reasoning) {
    const std::string name = reasoning ? "reasoning" : "content";
    const std::string text = R"("choices":[{"index":0,"delta":{")" + name + R"(":" )" + word() + kMark +
        R"("},"logprobs":null,"finish_reason":null,"token_ids":null}])";
    return event(text, true);
  }
  std::string end() const {
    return event(R"("choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop",)"
                 R"("stop_reason":null,"token_ids":null}])") +
        event(R"("choices":[],"usage":{"prompt_tokens":500,"total_tokens":700,"completion_tokens":200})") +
        hex_chunk("data: [DONE]\n\n") + "0\r\n\r\n";
  }

 private:
  std::string word() {
    std::string letters(6, 'a');
    for (char& letter : letters) {
      seed_ = seed_ * 6364136223846793005ULL + 1442695040888963407ULL;
      letter = static_cast<char>('a' + (seed_ >> 33) % 26);
    }
    return letters;
  }
  std::string event(std::string_view rest, bool full_size = false) const {
    std::string data = R"(data: {"id":"chatcmpl-b3c1d6f2a7e84c90","object":"chat.completion.chunk",)"
                       R"("created":1763856000,"model":")" +
        texts_.model + "\"," + std::string(rest) + "}\n\n";
    if (full_size && data.size() + 6 < kChunkBytes) {  // 6: the size line and the last line end
      data.insert(data.find("b3c1"), kChunkBytes - 6 - data.size(), '0');
    }
    return hex_chunk(data);
  }

  const EngineTexts& texts_;
  u64 seed_ = 1;
};

class Engine;

class EngineConnection : public Watched {
 public:
  EngineConnection(int fd, Engine& engine) : Watched(fd), engine_(engine) {}
  void on_events(std::uint32_t events) override;
  void begin_stream();      // the head and the role
  void send_chunk();        // one chunk, one write
  void finish(bool begun);  // the rest of the reply; the connection is free again
  void drop();              // close it, whatever it is at
  u64 last_run = 0;         // which run it brought a stream for

 private:
  void feed(std::string_view data);
  void dispatch();
  void write(std::string_view data);
  void flush();
  void reply(std::string_view status, std::string_view body);
  void left();

  Engine& engine_;
  Stream* stream_ = nullptr;
  std::string head_, found_, out_;
  std::string line_;  // method and path
  Body body_;
  bool in_body_ = false;
  int number_ = -1;
};

class Engine : public Watched {
 public:
  Engine(Loop& loop, Streams& streams, EngineTexts texts)
      : Watched(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)), loop(loop), streams(streams),
        texts(std::move(texts)), wording(this->texts) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(fd(), reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd(), 1024) != 0 ||
        getsockname(fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      die("the fake engine cannot listen");
    }
    port = ntohs(address.sin_port);
    loop.add(this, EPOLLIN);
  }

  void on_events(std::uint32_t) override {
    while (true) {
      const int accepted = accept4(fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (accepted < 0) return;
      const int on = 1;
      setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      auto connection = std::make_unique<EngineConnection>(accepted, *this);
      loop.add(connection.get(), EPOLLIN);
      connections_.insert(std::move(connection));
    }
  }
  void forget(EngineConnection* connection) {
    for (auto it = connections_.begin(); it != connections_.end(); ++it) {
      if (it->get() != connection) continue;
      loop.close(std::unique_ptr<Watched>(std::move(connections_.extract(it).value())));
      return;
    }
  }
  // Open connections that brought a request since the run's begin.
  u64 used() const {
    u64 count = 0;
    for (const auto& connection : connections_) count += connection->last_run == run ? 1 : 0;
    return count;
  }

  Loop& loop;
  Streams& streams;
  const EngineTexts texts;
  Wording wording;
  std::uint16_t port = 0;
  u64 counted = 0;  // requests to /tokenize
  u64 run = 0;      // how many runs there were

 private:
  std::set<std::unique_ptr<EngineConnection>> connections_;
};
