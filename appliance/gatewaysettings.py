"""What was chosen about requests, from the prompt to the last byte: fields alone."""

from pydantic import BaseModel, Field

from appliance.fieldtypes import HomePath, Seconds, Size


class GatewaySettings(BaseModel):
    """The fields of ``Settings`` that speak of what clients send and get."""

    prompt_injection: bool = Field(True, description="put the path-preservation prompt first")
    prompt_file: HomePath | None = Field(
        None, description="a text to use instead of the built-in one"
    )
    max_body_bytes: Size = Field(64 * 2**20, gt=0, description="largest request body")
    max_waiting: int = Field(64, ge=0, description="requests that may queue; 429 beyond")
    queue_timeout_s: Seconds = Field(
        240.0, description="longest wait for a place of a request that is not streamed; then 503"
    )
    whole_wait_s: Seconds = Field(20.0, description="the same while the engine is not there")
    admit_wait_s: Seconds = Field(240.0, description="longest wait of a streamed request")
    head_after_s: Seconds = Field(10.0, description="a streamed request that waits: 200 after it")
    keepalive_s: Seconds = Field(15.0, description="between two keep-alives of such a request")
