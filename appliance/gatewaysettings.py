"""What was chosen about requests, from the prompt to the last byte: fields alone."""

from typing import Literal

from pydantic import BaseModel, Field

from appliance.fieldtypes import Count, HomePath, Seconds, Size, Words


class GatewaySettings(BaseModel):
    """The fields of ``Settings`` that speak of what clients send and get."""

    prompt_injection: bool = Field(True, description="put the path-preservation prompt first")
    prompt_file: HomePath | None = Field(
        None, description="a text to use instead of the built-in one"
    )
    # The longest text that a context takes is 1 MB; what waits in the queue takes some times its
    # size, of the few GiB that a loaded engine leaves.
    max_body_bytes: Size = Field(16 * 2**20, gt=0, description="largest request body")
    fit_output: bool = Field(True, description="lower a max_tokens to what the context has left")
    media_input: bool = Field(
        False, description="the model reads images; else a request with one is refused"
    )
    media_hosts: Words = Field(
        (), description="hosts that the engine may fetch media from; data: URLs need none"
    )
    path_guard: Literal["off", "observe", "repair", "constrain", "repair-commands"] = Field(
        "observe",
        description="path names that the model glitched: count them, mend them too, or "
        "(experimental) let the engine read known paths alone",
    )
    path_guard_debug: bool = Field(
        False, description="let the log name the glitched paths, which tell of prompts"
    )
    max_waiting: int = Field(64, ge=0, description="requests that may queue; 429 beyond")
    queue_timeout_s: Seconds = Field(
        240.0, description="longest wait for a place of a request that is not streamed; then 503"
    )
    whole_wait_s: Seconds = Field(20.0, description="the same while the engine is not there")
    admit_wait_s: Seconds = Field(240.0, description="longest wait of a streamed request")
    head_after_s: Seconds = Field(10.0, description="a streamed request that waits: 200 after it")
    keepalive_s: Seconds = Field(15.0, description="silence of a stream between two keep-alives")
    client_keys: HomePath | None = Field(
        None, description="file of named client keys; client_keys.toml in the state folder"
    )
    failed_key_delay_s: float = Field(
        1.0, ge=0, le=1, description="a wrong key is told so after this time"
    )
    allowed_hosts: Words = Field(
        (), description="further names that browsers and Kilo Code may reach the appliance by"
    )
    login_idle_s: Seconds = Field(
        3600.0, description="a log-in to the console ends after this time without a request"
    )
    login_s: Seconds = Field(43200.0, description="and in any case after this time")
    runaway_repeats: int = Field(
        256,
        ge=0,
        le=1000,
        description="a stream that says the same so often in a row, 2,000 characters at least, "
        "is ended; 0 is never",
    )
    thinking_budget: Count | None = Field(
        None,
        description="about how many tokens of reasoning end a stream; whole replies end by "
        "max_tokens alone",
    )
    keepalive: Literal["auto", "comment", "chunk", "off"] = Field(
        "auto", description="what a silent stream's client hears; auto: what its API skips best"
    )
    first_byte_timeout_s: Seconds = Field(
        3600.0, description="longest wait for an answer's first byte, once it has a place; 504"
    )
    idle_timeout_s: Seconds = Field(900.0, description="longest silence within an answer")
    total_timeout_s: Seconds = Field(14400.0, description="longest answer, once it has a place")
