#include "engine.hpp"

#include <cerrno>

void EngineConnection::on_events(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush();
  if (!is_open() || (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  static std::array<char, kPiece> data;
  const ssize_t got = recv(fd(), data.data(), data.size(), 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) {
    left();
    return;
  }
  feed({data.data(), static_cast<std::size_t>(got)});
}

void EngineConnection::left() {
  Stream* stream = stream_;
  drop();
  if (stream != nullptr) stream->on_left();
}

void EngineConnection::drop() {
  if (!is_open()) return;
  if (stream_ != nullptr) stream_->engine = nullptr;
  stream_ = nullptr;
  engine_.forget(this);
}

void EngineConnection::feed(std::string_view data) {
  while (!data.empty() && is_open()) {
    if (!in_body_) {
      const std::size_t before = head_.size();
      head_.append(data);
      const std::size_t end = head_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
      if (end == std::string::npos) return;
      data.remove_prefix(end + 4 - before);
      head_.resize(end + 4);
      line_ = head_.substr(0, head_.find(" HTTP/"));
      body_.begin(head_, false);
      if (same_word(header(head_, "expect"), "100-continue")) write("HTTP/1.1 100 Continue\r\n\r\n");
      in_body_ = true;
      number_ = -1;
      found_.clear();
    }
    data.remove_prefix(body_.feed(data, [this](std::string_view part) {
      if (number_ >= 0) return;
      const std::size_t before = found_.size();
      found_.append(part);
      number_ = stream_number(found_, before < 16 ? 0 : before - 16);
    }));
    if (!body_.done()) return;
    in_body_ = false;
    head_.clear();
    dispatch();
  }
}

void EngineConnection::dispatch() {
  const std::string& model = engine_.texts.model;
  if (line_ == "GET /v1/models") {
    reply("200 OK",
        R"({"object":"list","data":[{"id":")" + model +
            R"(","object":"model","created":1763856000,"owned_by":"bench","max_model_len":)" + engine_.texts.context +
            "}]}");
  } else if (line_ == "GET /health") {
    reply("200 OK", "{}");
  } else if (line_ == "GET /metrics") {
    reply("200 OK", "# nothing\n");
  } else if (line_ == "POST /tokenize") {
    ++engine_.counted;
    reply("200 OK", R"({"count":1000,"max_model_len":)" + engine_.texts.context + R"(,"tokens":[]})");
  } else if (line_ != "POST /v1/chat/completions") {
    reply("404 Not Found", R"({"error":{"message":"not found"}})");
  } else if (Stream* stream = engine_.streams.find(number_); stream != nullptr && stream->engine == nullptr) {
    stream_ = stream;
    last_run = engine_.run;
    stream->engine = this;
    stream->on_arrived();
    if (stream_ != stream) return;
    if (stream->manner == Manner::kAtOnce) finish(false);
    if (stream->manner == Manner::kOnDemand) {
      begin_stream();
      send_chunk();
    }
    if (stream->manner == Manner::kHeadOnly) begin_stream();
  } else {
    reply("200 OK",
        R"({"id":"chatcmpl-0","object":"chat.completion","created":1763856000,"model":")" + model +
            R"(","choices":[{"index":0,"message":{"role":"assistant","content":")" + engine_.texts.answer +
            R"("},"logprobs":null,"finish_reason":"stop"}],)"
            R"("usage":{"prompt_tokens":9,"total_tokens":18,"completion_tokens":9}})");
  }
}

void EngineConnection::begin_stream() { write(engine_.wording.head() + engine_.wording.role()); }

void EngineConnection::send_chunk() {
  const std::string chunk = engine_.wording.chunk(stream_->reasoning);
  stream_->sent_ns.push_back(now_ns());
  write(chunk);
}

void EngineConnection::finish(bool begun) {
  Stream* stream = stream_;
  stream_ = nullptr;
  stream->engine = nullptr;
  if (begun) {
    write(engine_.wording.end());
    return;
  }
  stream->sent_ns.push_back(now_ns());
  write(engine_.wording.head() + engine_.wording.role() + engine_.wording.chunk(stream->reasoning) +
      engine_.wording.end());
}

void EngineConnection::reply(std::string_view status, std::string_view body) {
  write("HTTP/1.1 " + std::string(status) + "\r\ncontent-type: application/json\r\ncontent-length: " +
      std::to_string(body.size()) + "\r\n\r\n" + std::string(body));
}

void EngineConnection::write(std::string_view data) {
  if (!is_open()) return;
  if (out_.empty()) {
    const ssize_t sent = send(fd(), data.data(), data.size(), MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(data.size())) return;
    if (sent < 0 && errno != EAGAIN) return;  // the read side will tell
    data.remove_prefix(sent > 0 ? static_cast<std::size_t>(sent) : 0);
    engine_.loop.change(this, EPOLLIN | EPOLLOUT);
  }
  out_.append(data);
}

void EngineConnection::flush() {
  const ssize_t sent = send(fd(), out_.data(), out_.size(), MSG_NOSIGNAL);
  if (sent > 0) out_.erase(0, static_cast<std::size_t>(sent));
  if (out_.empty()) engine_.loop.change(this, EPOLLIN);
}
