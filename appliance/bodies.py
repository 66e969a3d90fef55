"""A request's body, from the client's bytes to those that the engine gets."""

import msgspec
from starlette.types import Receive

from appliance.errors import RequestError
from appliance.exchange import Exchange, read_body
from appliance.metrics import Metrics
from appliance.openai import injection_switch
from appliance.prompt import PromptPolicy
from appliance.wirebody import check_model, engine_body, field_value, parse_body

NO_PROMPT = PromptPolicy("")


class Bodies:
    """Reads, checks and changes bodies, as the settings ask."""

    def __init__(
        self, policy: PromptPolicy, metrics: Metrics, *, served_model: str, max_body_bytes: int
    ) -> None:
        self._policy = policy
        self._metrics = metrics
        self._served_model = served_model
        self._max_body_bytes = max_body_bytes

    async def take(self, exchange: Exchange, receive: Receive) -> bytes:
        """Return the body to send upstream: read, checked, the prompt in it."""
        if exchange.route.method == "GET":
            return b""
        encoding = exchange.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise RequestError(
                415,
                "unsupported_encoding",
                f"content-encoding {encoding} is not read here",
                "send the body as it is",
            )
        fields = parse_body(await read_body(exchange, receive, self._max_body_bytes))
        check_model(fields, self._served_model)
        may_stream = exchange.route.may_stream
        exchange.streaming = may_stream and field_value(fields, "stream") is True
        return self._prompted(exchange, fields)

    def _prompted(self, exchange: Exchange, fields: dict[str, msgspec.Raw]) -> bytes:
        route = exchange.route
        wanted = injection_switch(exchange.headers) and bool(self._policy.text)
        # /tokenize takes a bare prompt too, which has no place for ours
        has_place = route.prompt != "" and (route.prompt != "messages" or "messages" in fields)
        if wanted and has_place:
            self._metrics.injected.labels(route.path).inc()
        return engine_body(fields, route, self._policy if wanted else NO_PROMPT)
